// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Misbehaves like a broken driver when it is loaded; the parameter `what` says how.
 * For the tests of how the host handles it.
 */
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/sched.h>
#include <linux/smp.h>

static char *what = "nothing";
module_param(what, charp, 0444);
MODULE_PARM_DESC(what, "warn, bug, flood, lockup, spin, stuck or hang");

static int seconds = 1;
module_param(seconds, int, 0444);
MODULE_PARM_DESC(seconds, "how long lockup takes");

static void spin_for(int duration_s)
{
	ktime_t end = ktime_add_ms(ktime_get(), duration_s * 1000);

	while (ktime_before(ktime_get(), end))
		cpu_relax();
}

/* Occupies a processor and never yields it. */
static int spin(void *unused)
{
	while (!kthread_should_stop())
		cpu_relax();
	return 0;
}

/* A processor that only reacts to an NMI. */
static void hang(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static int __init trouble_init(void)
{
	if (!strcmp(what, "warn")) {
		WARN(1, "trouble: this was asked for\n");
	} else if (!strcmp(what, "bug")) {
		BUG();
	} else if (!strcmp(what, "flood")) {
		for (int line = 1; line <= 100000; line++) {
			pr_info("trouble: line %d of 100000\n", line);
			cond_resched();
		}
	} else if (!strcmp(what, "lockup")) {
		preempt_disable();
		spin_for(seconds);
		preempt_enable();
	} else if (!strcmp(what, "spin")) {
		kthread_run(spin, NULL, "trouble");
	} else if (!strcmp(what, "stuck")) {
		for (;;) {
			set_current_state(TASK_UNINTERRUPTIBLE);
			schedule();
		}
	} else if (!strcmp(what, "hang")) {
		smp_call_function(hang, NULL, 0);
		hang(NULL);
	} else {
		return -EINVAL;
	}
	return 0;
}
module_init(trouble_init);

MODULE_DESCRIPTION("Misbehaves like a broken driver");
MODULE_LICENSE("GPL");
