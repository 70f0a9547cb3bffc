# SPDX-License-Identifier: GPL-2.0-or-later
"""`suites/` tests drivers in guests; `unit/` and `integration/` test Blockyard itself.

`plugin` is what makes pytest run the suites: `guests` boots and keeps the guests, `needs` decides
what a test can run on, `state` what it left behind, `known` what is expected to fail, `outcomes`
names what became of it.
"""
