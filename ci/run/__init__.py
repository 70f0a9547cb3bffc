# SPDX-License-Identifier: GPL-2.0-or-later
"""One run: what is selected, collected, executed, judged and recorded."""
