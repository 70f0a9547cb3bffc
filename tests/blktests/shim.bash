# SPDX-License-Identifier: GPL-2.0-or-later
# Lets a driver stand in for null_blk in the guest's copy of blktests. Sourced at the end of
# common/null_blk, where the module and the configfs directory have been renamed before.
#
# The driver has some of null_blk's attributes. A test that needs another one is not run. The attribute
# is named in SKIP_REASONS and in a file, because upstream does not read SKIP_REASONS everywhere.
# Parameters of null_blk's module are set as attributes.
#
# Set by the caller: blockyard_driver, blockyard_module, blockyard_attributes (a space around each).
# shellcheck disable=SC2154  # these are set elsewhere

_blockyard_need() {
	[[ $blockyard_attributes == *" ${1%%/*} "* ]] && return
	SKIP_REASONS+=("$blockyard_driver has no attribute $1")
	echo "$1" >> "$OUTPUT/missing"
	return 1
}

_blockyard_need_all() {
	local word lacking=0
	for word in "$@"; do
		_blockyard_need "${word%%=*}" || lacking=1
	done
	return $lacking
}

# null_blk's default size in MiB; tests rely on it.
_blockyard_configure() {
	local name=$1
	shift
	[[ " $*" == *" size="* ]] || set -- size=256000 "$@"
	_blockyard_configure_null_blk "$name" "$@"
}

eval "_blockyard$(declare -f _configure_null_blk)"
_configure_null_blk() {
	_blockyard_need_all "${@:2}" && _blockyard_configure "$@"
}

_init_null_blk() {
	local word count=1 number attributes=()
	for word in "$@"; do
		case $word in
		nr_devices=*) count=${word#*=} ;;
		bs=*) attributes+=("blocksize=${word#*=}") ;;
		gb=*) attributes+=("size=$((${word#*=} * 1024))") ;;
		*) attributes+=("$word") ;;
		esac
	done
	((RUN_FOR_ZONED)) && attributes+=(zoned=1)
	_blockyard_need_all "${attributes[@]}" || return
	_remove_null_blk_devices
	_patient_rmmod "$blockyard_module" || return
	modprobe "$blockyard_module" || return
	for ((number = 0; number < count; number++)); do
		_blockyard_configure "nullb$number" "${attributes[@]}" power=1 || return
	done
}

_have_null_blk_feature() {
	_have_null_blk && _blockyard_need "$1"
}

declare -F _blockyard_have_module_param > /dev/null ||
	eval "_blockyard$(declare -f _have_module_param)"
_have_module_param() {
	if [[ $1 == "$blockyard_module" ]]; then
		_have_driver "$1" && _blockyard_need "$2"
	else
		_blockyard_have_module_param "$@"
	fi
}
