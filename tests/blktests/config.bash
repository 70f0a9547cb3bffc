# SPDX-License-Identifier: GPL-2.0-or-later
# The end of the configuration that upstream's `check` reads in a guest; what differs from test to
# test stands before it: TEST_DEVS, OUTPUT, TIMEOUT.
#
# `check` loses the exit status of a test when it runs a command of its own between the test and the
# look at $?. So the function of the test is wrapped, and the status goes to a file of ours.

# shellcheck disable=SC2034  # upstream's check reads it
LOGGER_PROG=true

if declare -F _call_test > /dev/null; then
	eval "_blockyard$(declare -f _call_test)"

	_call_test() {
		if ! declare -F "_blockyard_own_$1" > /dev/null; then
			eval "_blockyard_own_$(declare -f "$1")"
			eval "$1() { _blockyard_own_$1 \"\$@\"; _blockyard_keep \$?; }"
		fi
		_blockyard_call_test "$@"
	}

	_blockyard_keep() {
		printf '%s\t%s\n' "${RESULTS_DIR##*/}" "$1" >> "$OUTPUT/exit_status"
		return "$1"
	}
fi
