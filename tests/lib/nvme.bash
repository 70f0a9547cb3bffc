# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Guest side of tests/lib/nvme.py.

# settle NAMESPACES SECONDS: wait until there are exactly NAMESPACES namespaces with disks.
settle() {
	wait_until "$2" _namespaces_are "$1" || {
		echo "found $count namespaces with disks, expected $1"
		return 1
	}
}

_namespaces_are() {
	local path name
	count=0
	for path in /sys/class/nvme/nvme*/nvme*n*; do
		name=${path##*/}
		# a path of native multipath has the disk of its head
		[[ $name =~ ^(nvme[0-9]+)c[0-9]+(n[0-9]+)$ ]] && name=${BASH_REMATCH[1]}${BASH_REMATCH[2]}
		[ -e "$path/queue" ] && [ -b "/dev/$name" ] && count=$((count + 1))
	done
	[ $count = "$1" ]
}

# controllers COUNT SECONDS: wait for COUNT live controllers; print the serial number, controller ID and
# name of each.
controllers() {
	local folder serial cntlid
	wait_until "$2" _controllers_are "$1" || {
		echo "found $live live controllers, expected $1"
		return 1
	}
	for folder in /sys/class/nvme/nvme*; do
		[ -e "$folder/serial" ] || continue
		read -r serial < "$folder/serial"
		read -r cntlid < "$folder/cntlid"
		# unquoted: drops the padding of the serial number
		# shellcheck disable=SC2086
		echo $serial "$cntlid" "${folder##*/}"
	done
}

_controllers_are() {
	local state word
	live=0
	for state in /sys/class/nvme/nvme*/state; do
		read -r word 2> /dev/null < "$state" || continue
		[ "$word" = live ] && live=$((live + 1))
	done
	[ $live = "$1" ]
}

# disks_of CONTROLLER NSID: print the names of the disks of a namespace.
disks_of() {
	local nsid number path
	for nsid in "/sys/class/nvme/$1/"nvme*n*/nsid; do
		read -r number < "$nsid"
		path=${nsid%/*}
		[ "$number" = "$2" ] && echo "${path##*/}"
	done
	return 0
}

# rescan CONTROLLER COUNT SECONDS COMMAND...: run a command; wait until the controller's admin queue has
# raised COUNT interrupts since then and raises no more.
rescan() {
	local queue=${1}q0 count=$2 try before last=0
	local tries=$((10 * $3))
	_interrupts "$queue"
	before=$interrupts
	"${@:4}" || return
	for ((try = 0; try < tries; try++)); do
		sleep 0.1
		_interrupts "$queue"
		[ "$interrupts" = "$last" ] && ((interrupts - before >= count)) && return
		last=$interrupts
	done
	echo "the admin queue raised $((interrupts - before)) interrupts, expected $count"
	return 1
}

_interrupts() {
	interrupts=$(awk -v "queue=$1\$" '$0 ~ queue {
		for (field = 2; field <= NF; field++) if ($field ~ /^[0-9]+$/) sum += $field
	} END { print sum }' /proc/interrupts)
}
