# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
# What tests/blktests/guest.py does in a guest, where a checkout of blktests is unpacked.

# stand_in FOLDER CONFIGFS MODULE SHIM: has a driver take null_blk's place in the checkout.
stand_in() {
	cd "$1" || return
	grep -lE '\<null_blk\>|config/nullb\>' common/* tests/*/rc tests/*/[0-9][0-9][0-9] |
		xargs -d '\n' sed -i -E \
			-e "s,/sys/kernel/config/nullb\\>,$2,g" \
			-e "s,\\<null_blk\\>,$3,g" -e "s,common/$3\\>,common/null_blk,g"
	printf '\n. %s\n' "$4" >> common/null_blk
}

# mount_all: what a distribution has mounted; a kernel may lack it.
mount_all() {
	mount -t cgroup2 none /sys/fs/cgroup
	mount -t tracefs none /sys/kernel/debug/tracing
}

# run_check FOLDER OUTPUT CONFIG LIMIT TEST: runs upstream's check for one test; prints a tar of its
# results, none of them longer than LIMIT.
run_check() {
	local output=$2 limit=$4 test=$5
	cd "$1" || return
	rm -rf "$output" && mkdir -p "$output" && cp "tests/$test.out" "$output/expected" 2> /dev/null
	./check -c "$3" "$test" > "$output/check.log" 2>&1 < /dev/null
	echo $? > "$output/check.status"
	find "$output" -type f -size "+$limit" -exec truncate -s "$limit" {} +
	tar -C "$output" --exclude 'tmpdir.*' -cf - . 2> /dev/null
}
