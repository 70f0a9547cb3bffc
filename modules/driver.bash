# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Functions for modules/driver.py and modules/binding.py that run in a guest.

# mount_configfs DIRECTORY: mounts configfs; fails unless a driver's directory in it exists.
mount_configfs() {
	mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
	[ -d "$1" ] || {
		echo "$1 does not exist"
		return 1
	}
}

# configfs_capabilities DIRECTORY NAME: lists the capabilities of a configfs driver, by making a
# directory NAME.
configfs_capabilities() {
	local attribute
	cd "$1" 2> /dev/null || return 0
	echo configfs
	[ -e features ] && echo features
	mkdir "$2" || return
	for attribute in "$2"/*; do
		[ -f "$attribute" ] && echo "attribute:${attribute##*/}"
	done
	rmdir "$2"
}

# create_disk DIRECTORY NAME VALUE...: makes a configfs disk with these attributes, written in this
# order. Prints the disk's name, which depends on the kernel: it is the new folder in /sys/block.
create_disk() {
	local directory=$1 before disk
	shift
	mkdir "$directory" || return
	before=" $(echo /sys/block/*) "
	cd "$directory" || return
	while (($#)); do
		printf %s "$2" > "$1" || {
			echo "attribute $1"
			cd /
			rmdir "$directory"
			return 1
		}
		shift 2
	done
	for disk in /sys/block/*; do
		[[ $before == *" $disk "* ]] || {
			echo "disk ${disk##*/}"
			return
		}
	done
	echo "no disk appeared"
	return 1
}

# existing_disks DISK...: prints those of the disks that exist.
existing_disks() {
	local name
	for name; do
		[ -e "/sys/block/$name" ] && echo "$name"
	done
	return 0
}

# pci_disks CLASS: prints the disks of PCI functions with a class code.
pci_disks() {
	local function class disk
	for function in /sys/bus/pci/devices/*; do
		read -r class < "$function/class"
		[ "$class" = "$1" ] || continue
		for disk in "$function"/nvme/*/nvme*n* "$function"/block/*; do
			[ -e "$disk/queue" ] && echo "${disk##*/}"
		done
	done
	return 0
}

# wait_for_disk MICROSECONDS LINES PATTERN...: waits, by the guest's clock, until a disk with such a
# name exists; on failure prints the last LINES of the kernel log.
wait_for_disk() {
	local end=$((${EPOCHREALTIME/./} + $1)) lines=$2 pattern disk
	shift 2
	while ((${EPOCHREALTIME/./} < end)); do
		for pattern; do
			for disk in /sys/block/$pattern; do
				[ -e "$disk/queue" ] && [ -b "/dev/${disk##*/}" ] && return
			done
		done
		sleep 0.02
	done
	dmesg | tail -n "$lines"
	return 1
}

# take_devices BUS IDS DRIVER: reserves devices for a driver and unbinds them from other drivers.
take_devices() {
	each_device "$1" "$2" _take "$3"
}

_take() {
	local owner
	# shellcheck disable=SC2154  # each_device sets it
	echo "$1" > "$device/driver_override"
	owner=$(readlink "$device/driver") || return 0
	[ "${owner##*/}" = "$1" ] || echo "${device##*/}" > "$device/driver/unbind"
}

# probe_devices BUS IDS DRIVER: probes unbound devices; fails if the driver is bound to none then.
probe_devices() {
	each_device "$1" "$2" _probe "/sys/bus/$1/drivers_probe"
	ls -d "/sys/bus/$1/drivers/$3"/*:* > /dev/null || {
		echo "$3 is bound to no device"
		return 1
	}
}

_probe() {
	[ -e "$device/driver" ] || echo "${device##*/}" > "$1"
}

# release_devices BUS IDS: clears driver_override, so that any matching driver can bind.
release_devices() {
	each_device "$1" "$2" _release
}

_release() {
	echo > "$device/driver_override"
}
