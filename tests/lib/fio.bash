# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Guest side of tests/lib/fio.py: fio in the background.

# What fio prints for a failed request, and at the end of a job with an error.
ERROR='io_u error|err= ?[1-9]'

# start_load STAT LOG SECONDS COMMAND...: start fio; print its PID after its first request has completed.
start_load() {
	local stat=$1 log=$2 limit=$3
	shift 3
	count_requests "$stat"
	setsid "$@" > "$log" 2>&1 < /dev/null &
	progress "$stat" $! 0 "$limit" >&2 || {
		cat "$log" >&2
		return 1
	}
	echo $!
}

# load_continues STAT LOG PID REQUESTS SECONDS: more than REQUESTS requests complete without errors.
load_continues() {
	count_requests "$1"
	progress "$1" "$3" "$4" "$5" && ! grep -E "$ERROR" "$2"
}

# load_failed LOG PID SECONDS: fio exits by itself, with an error.
load_failed() {
	if ! wait_until "$3" is_gone "$2" || ! grep -Eq "$ERROR" "$1"; then
		cat "$1"
		return 1
	fi
}

# stop_load PID SECONDS: stop fio by SIGINT, then SIGKILL; fail if it is still there.
stop_load() {
	kill -INT "$1" 2> /dev/null
	wait_until "$2" is_gone "$1" && return
	kill -KILL "$1"
	wait_until "$2" is_gone "$1"
}
