# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# Guest side of tests/blktests/guest.py, for an unpacked checkout of blktests.

# stand_in FOLDER CONFIGFS MODULE SHIM: replace null_blk by another driver in the checkout.
stand_in() {
	cd "$1" || return
	grep -lE '\<null_blk\>|config/nullb\>' common/* tests/*/rc tests/*/[0-9][0-9][0-9] |
		xargs -d '\n' sed -i -E \
			-e "s,/sys/kernel/config/nullb\\>,$2,g" \
			-e "s,\\<null_blk\\>,$3,g" -e "s,common/$3\\>,common/null_blk,g"
	printf '\n. %s\n' "$4" >> common/null_blk
}

# mount_all: mount what a distribution mounts; fails where the kernel lacks a file system.
mount_all() {
	mount -t cgroup2 none /sys/fs/cgroup
	mount -t tracefs none /sys/kernel/debug/tracing
}

# run_check FOLDER OUTPUT CONFIG LIMIT TEST: run upstream's check for one test; print a tar of the result
# files, each cut to LIMIT.
run_check() {
	local output=$2 limit=$4 test=$5
	cd "$1" || return
	rm -rf "$output" && mkdir -p "$output" && cp "tests/$test.out" "$output/expected" 2> /dev/null
	./check -c "$3" "$test" > "$output/check.log" 2>&1 < /dev/null
	echo $? > "$output/check.status"
	find "$output" -type f -size "+$limit" -exec truncate -s "$limit" {} +
	tar -C "$output" --exclude 'tmpdir.*' -cf - . 2> /dev/null
}
