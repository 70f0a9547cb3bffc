# SPDX-License-Identifier: GPL-2.0-or-later
"""What reading and decoding a JSON file of ours can raise when the file is broken."""

import msgspec

# msgspec's own error is no ValueError; bytes that are no UTF-8 and deep nesting raise Python's
BROKEN_FILE = (OSError, msgspec.DecodeError, ValueError, RecursionError)
