# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What tests/harness/guest_state.py asks of a guest. No program is started: under emulation each
# costs more than all the rest.

# guest_state THOROUGH MODULE...: the state as lines; THOROUGH (1 or 0): with all queues' settings.
# A module in use is given a moment, since a partition scan holds a reference when a disk is new.
guest_state() {
	local thorough=$1 disk line file part directory module count try cpus place
	shift
	shopt -s nullglob
	for disk in /sys/block/*; do
		echo "disk ${disk##*/}"
		[ -e "$disk/queue/scheduler" ] && read -r line < "$disk/queue/scheduler" &&
			[[ $line =~ \[.*\] ]] && echo "scheduler ${disk##*/} ${BASH_REMATCH[0]}"
		((thorough)) && _queue "$disk"
		for part in "$disk"/*/partition; do
			part=${part%/*}
			echo "partition ${part##*/}"
		done
	done
	for directory in /sys/kernel/config/*/*/; do echo "directory $directory"; done
	for module; do
		[ -e "/sys/module/$module/refcnt" ] || {
			echo "module $module not loaded"
			continue
		}
		for try in {1..10}; do
			read -r count < "/sys/module/$module/refcnt"
			[ "$count" = 0 ] && break
			[ "$try" = 10 ] || sleep 0.05
		done
		echo "module $module $count"
	done
	read -r cpus < /sys/devices/system/cpu/online && echo "cpus $cpus"
	while read -r _ place _; do echo "mount $place"; done < /proc/self/mounts
	if [ -e /proc/swaps ]; then
		while read -r file _; do echo "swap $file"; done < /proc/swaps
	fi
	return 0
}

# What a queue has no value for cannot be read.
_queue() {
	local file line
	for file in "$1"/queue/*; do
		{ read -r line < "$file"; } 2> /dev/null && echo "queue ${file#/sys/block/} $line"
	done
	return 0
}

# leaks LINES [SECONDS]: kmemleak's report of what nothing refers to, after a scan; with SECONDS,
# after a first scan and a wait.
leaks() {
	local file=/sys/kernel/debug/kmemleak
	if [ -n "${2-}" ]; then
		echo scan > $file
		sleep "$2"
	fi
	echo scan > $file
	head -n "$1" $file
	echo clear > $file
}
