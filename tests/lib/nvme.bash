# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What tests/lib/nvme.py does in a guest.

# settle NAMESPACES SECONDS: waits until there are so many namespaces, each with its disk.
settle() {
	wait_until "$2" _namespaces_are "$1" || {
		echo "$count of $1 namespaces"
		return 1
	}
}

_namespaces_are() {
	local path name
	count=0
	for path in /sys/class/nvme/nvme*/nvme*n*; do
		name=${path##*/}
		# a path of native multipath: its disk is the head's
		[[ $name =~ ^(nvme[0-9]+)c[0-9]+(n[0-9]+)$ ]] && name=${BASH_REMATCH[1]}${BASH_REMATCH[2]}
		[ -e "$path/queue" ] && [ -b "/dev/$name" ] && count=$((count + 1))
	done
	[ $count = "$1" ]
}

# controllers COUNT SECONDS: waits for so many live controllers; prints their serial numbers,
# controller IDs and names.
controllers() {
	local folder serial cntlid
	wait_until "$2" _controllers_are "$1" || {
		echo "$found controllers live"
		return 1
	}
	for folder in /sys/class/nvme/nvme*; do
		[ -e "$folder/serial" ] || continue
		read -r serial < "$folder/serial"
		read -r cntlid < "$folder/cntlid"
		# the serial number without the spaces that fill it up
		# shellcheck disable=SC2086
		echo $serial "$cntlid" "${folder##*/}"
	done
}

_controllers_are() {
	local state word
	found=0
	for state in /sys/class/nvme/nvme*/state; do
		read -r word 2> /dev/null < "$state" || continue
		[ "$word" = live ] && found=$((found + 1))
	done
	[ $found = "$1" ]
}

# disks_of CONTROLLER NSID: the disks of a namespace.
disks_of() {
	local nsid number path
	for nsid in "/sys/class/nvme/$1/"nvme*n*/nsid; do
		read -r number < "$nsid"
		path=${nsid%/*}
		[ "$number" = "$2" ] && echo "${path##*/}"
	done
	return 0
}

# scanned CONTROLLER LEAST SECONDS COMMAND...: runs a command and waits until the controller's admin
# queue has interrupted so many times since, and is quiet.
scanned() {
	local queue=${1}q0 least=$2 try before last=0
	local tries=$((10 * $3))
	_interrupts "$queue"
	before=$asked
	"${@:4}" || return
	for ((try = 0; try < tries; try++)); do
		sleep 0.1
		_interrupts "$queue"
		[ "$asked" = "$last" ] && ((asked - before >= least)) && return
		last=$asked
	done
	echo "the controller was asked $((asked - before)) times"
	return 1
}

_interrupts() {
	asked=$(awk -v "queue=$1\$" '$0 ~ queue {
		for (field = 2; field <= NF; field++) if ($field ~ /^[0-9]+$/) sum += $field
	} END { print sum }' /proc/interrupts)
}
