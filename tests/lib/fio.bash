# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What tests/lib/fio.py does in a guest, with fio in the background.

# What fio says at once of a request that failed, and at the end of a job that met an error.
ERROR='io_u error|err= ?[1-9]'

# begin_load STAT LOG SECONDS COMMAND...: starts fio; prints its process when a request has ended.
begin_load() {
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

# load_goes_on STAT LOG PID REQUESTS SECONDS: more requests end than so many, all of them well.
load_goes_on() {
	count_requests "$1"
	progress "$1" "$3" "$4" "$5" && ! grep -E "$ERROR" "$2"
}

# load_failed LOG PID SECONDS: fio ends by itself, with an error.
load_failed() {
	if ! wait_until "$3" is_gone "$2" || ! grep -Eq "$ERROR" "$1"; then
		cat "$1"
		return 1
	fi
}

# end_load PID SECONDS: ends fio, gently first; whether it has gone.
end_load() {
	kill -INT "$1" 2> /dev/null
	wait_until "$2" is_gone "$1" && return
	kill -KILL "$1"
	wait_until "$2" is_gone "$1"
}
