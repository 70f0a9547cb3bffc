# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What tests/lib/abi.py reads in a guest.

# in_directory DIRECTORY COMMAND...: runs a command in a new configfs directory.
in_directory() {
	mkdir "$1" || return
	cd "$1" || return
	# shellcheck disable=SC2064  # the directory of now
	trap "cd /; rmdir '$1'" EXIT
	"${@:2}"
}

# attributes: the files of the current folder: name, permissions, value.
attributes() {
	local attribute mode value
	for attribute in *; do
		[ -f "$attribute" ] || continue
		mode=$(stat -c %A "$attribute")
		value=
		[[ $mode != -r* ]] || read -r value < "$attribute" || true
		echo "$attribute $mode $value"
	done
}

# answers OWN VALUE...: what becomes of each value that is written to an attribute: attribute|error|
# value afterwards. Each attribute has a directory of its own, OWN, so that only its own values count;
# no program is started per value, there are hundreds.
answers() {
	local own=$1 here=$PWD attribute value why after
	shift
	for attribute in *; do
		[ -f "$attribute" ] && [ -w "$attribute" ] || continue
		mkdir "$own"
		cd "$own" || return
		for value; do
			why='' after=''
			{ printf %s "$value" > "$attribute"; } 2> /tmp/why || read -r why < /tmp/why
			{ read -r after < "$attribute"; } 2> /dev/null || true
			echo "$attribute|${why##*: }|$after"
			# what a disk has power on for is EBUSY
			[ "$attribute" != power ] || echo 0 > power
		done
		cd "$here" || return
		rmdir "$own"
	done
}

# disk_files FOLDER: a disk's queue as "name value", an empty line, the names of its files.
disk_files() {
	local file value
	cd "$1" || return
	for file in queue/*; do
		[ -f "$file" ] && [ -r "$file" ] || continue
		value=
		read -r value 2> /dev/null < "$file" || true
		echo "${file#queue/} $value"
	done
	echo
	find . -maxdepth 2 -not -path './mq/*' -printf '%P\n' | sort
}
