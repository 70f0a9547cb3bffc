# SPDX-License-Identifier: GPL-2.0-or-later
"""From fragments to a proved ``.config``: merging, checking, explaining, comparing."""
