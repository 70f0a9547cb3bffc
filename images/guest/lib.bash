# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Functions for scripts in a guest. A console sends each script with the functions that it names
# (images/console/script.py).

# wait_until SECONDS COMMAND...: runs a command until it succeeds; fails after 50 tries per second.
# A slow guest gets more time than SECONDS, because each try takes longer.
wait_until() {
	local try
	for ((try = 50 * $1; try > 0; try--)); do
		"${@:2}" && return
		sleep 0.02
	done
	"${@:2}"
}

# is_gone PID: succeeds when the process has ended.
is_gone() {
	! kill -0 "$1" 2> /dev/null
}

# each_device BUS IDS COMMAND...: runs a command for each device of a bus whose vendor:device is in
# IDS (separated by spaces). $device is the device's folder in sysfs.
each_device() {
	local device vendor model
	for device in "/sys/bus/$1/devices/"*; do
		read -r vendor < "$device/vendor"
		read -r model < "$device/device"
		[[ " $2 " == *" $vendor:$model "* ]] || continue
		"${@:3}"
	done
}

# count_requests STAT: sets $ended to the completed reads and writes in the stat file of a disk.
count_requests() {
	local reads writes
	read -r reads _ _ _ writes _ < "$1"
	ended=$((reads + writes))
}

# progress STAT PID REQUESTS SECONDS: succeeds when more than REQUESTS requests complete within
# SECONDS, counted from the last count_requests; fails at once when the process PID has ended.
progress() {
	local before=$ended try
	for ((try = 0; try < 20 * $4; try++)); do
		count_requests "$1"
		((ended - before > $3)) && return
		kill -0 "$2" || return
		sleep 0.05
	done
	echo "$((ended - before)) requests have ended in $4 s"
	return 1
}
