// SPDX-License-Identifier: GPL-2.0-or-later
/* The least a guest can do: PID 1 that powers the machine off. What ./inv dev.selfbench compares with. */
#include <sys/reboot.h>

int main(void)
{
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT); /* a kernel without power-off; QEMU ends at a reboot too */
	return 1;
}
