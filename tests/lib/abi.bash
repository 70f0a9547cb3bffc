# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Guest side of tests/lib/abi.py: reads what a driver shows to user space.

# in_directory DIRECTORY COMMAND...: run a command in a new configfs directory; remove it afterwards.
in_directory() {
	mkdir "$1" || return
	cd "$1" || return
	# shellcheck disable=SC2064  # expand it now
	trap "cd /; rmdir '$1'" EXIT
	"${@:2}"
}

# attributes: print "name permissions value" for each file of the current folder.
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

# answers DIRECTORY VALUE...: write each value to each attribute; print "attribute|error|value after it".
# Each attribute gets a new DIRECTORY, so that other attributes have their defaults. Builtins only:
# a process for each of the hundreds of values would be slow.
answers() {
	local directory=$1 here=$PWD attribute value why after
	shift
	for attribute in *; do
		[ -f "$attribute" ] && [ -w "$attribute" ] || continue
		mkdir "$directory"
		cd "$directory" || return
		for value; do
			why='' after=''
			{ printf %s "$value" > "$attribute"; } 2> /tmp/why || read -r why < /tmp/why
			{ read -r after < "$attribute"; } 2> /dev/null || true
			echo "$attribute|${why##*: }|$after"
			# attributes are EBUSY while the disk has power
			[ "$attribute" != power ] || echo 0 > power
		done
		cd "$here" || return
		rmdir "$directory"
	done
}

# disk_files FOLDER: print the queue attributes of a disk as "name value", an empty line, its file names.
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
