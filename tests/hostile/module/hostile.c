// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/module.h>

MODULE_DESCRIPTION("empty module: its makefile attacks the sandbox");
MODULE_LICENSE("GPL");
