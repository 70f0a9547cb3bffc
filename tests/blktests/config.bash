# SPDX-License-Identifier: GPL-2.0-or-later
# The end of the configuration that upstream's `check` reads in a guest. TEST_DEVS, OUTPUT and TIMEOUT,
# which differ from test to test, are set before it.
#
# `check` loses the exit status of a test if it runs another command before it reads $?. So this wraps
# the test's function and writes its status to $OUTPUT/exit_status.

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
