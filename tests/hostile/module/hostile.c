// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/module.h>

MODULE_DESCRIPTION("does nothing: its makefile is what matters");
MODULE_LICENSE("GPL");
