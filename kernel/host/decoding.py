# SPDX-License-Identifier: GPL-2.0-or-later
"""The exceptions that a broken JSON file raises when it is read and decoded."""

import msgspec

# msgspec.DecodeError: not JSON. ValueError: not UTF-8. RecursionError: nested too deep.
BROKEN_FILE = (OSError, msgspec.DecodeError, ValueError, RecursionError)
