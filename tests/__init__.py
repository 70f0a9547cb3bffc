# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of drivers, in guests, and of Blockyard itself.

`suites/` tests drivers: `harness/` makes pytest run it in guests, `lib/` is what suites share.
`blktests/` runs upstream's tests. `mutants/` has planted bugs. `unit/`, `integration/`,
`properties/` and `hostile/` test Blockyard.
"""
