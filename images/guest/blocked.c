// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Detects a script that is blocked in the kernel while the guest is idle.
 *
 * A script is blocked when a task of its session is in uninterruptible sleep and is not woken up, or
 * a disk has requests in flight, and meanwhile no disk completes a request and the CPUs are idle.
 * Other tasks of the script may wake up now and then, as those of fio do. The time is summed up from
 * check to check on the guest's clock, so that a host that is busy or stops the guest adds nothing.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOOK_MS 2000	/* most that one check adds: the guest may have been stopped meanwhile */
#define MOST_TASKS 256	/* of a script; one with more tasks is never reported as blocked */
#define MOST_OTHERS 4096 /* other processes that are skipped before the search ends */
#define DISK_SIZE 32	/* size of a disk's name, with its final zero */
#define NAMED_MS 3000	/* the task is named after it was blocked this long */
#define TICK_MS 10	/* unit of the times in /proc/stat */
#define FNV_START 14695981039346656037ull
#define FNV_PRIME 1099511628211ull

struct entry { /* of getdents64(2) */
	uint64_t inode;
	int64_t offset;
	unsigned short length;
	unsigned char type;
	char name[];
};

struct tasks {
	uint64_t mark; /* hash of the blocked tasks and their context switches */
	int count, others;
	pid_t blocked; /* a task in uninterruptible sleep; 0: none */
	pid_t last;    /* the last task in /proc */
};

static uint64_t mix(uint64_t mark, uint64_t value)
{
	return (mark ^ value) * FNV_PRIME;
}

/* Reads the start of a file as a string. Returns its length, 0 when the file cannot be read. */
static size_t slurp(const char *path, char *text, size_t size)
{
	size_t have = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return 0;
	for (ssize_t got; have < size - 1; have += got) {
		got = read(fd, text + have, size - 1 - have);
		if (got <= 0)
			break;
	}
	close(fd);
	text[have] = '\0';
	return have;
}

static unsigned long long number_after(const char *text, const char *label)
{
	const char *found = strstr(text, label);

	return found ? strtoull(found + strlen(label), NULL, 10) : 0;
}

/* Adds a thread. Its count of context switches shows whether it still waits for the same thing. */
static void add_thread(struct tasks *tasks, const char *folder, pid_t pid, char state)
{
	char path[128], text[4096];

	tasks->count++;
	if (state != 'D')
		return;
	snprintf(path, sizeof(path), "%s/status", folder);
	slurp(path, text, sizeof(text));
	tasks->mark = mix(tasks->mark, pid);
	tasks->mark = mix(tasks->mark, number_after(text, "\nvoluntary_ctxt_switches:"));
	tasks->mark = mix(tasks->mark, number_after(text, "\nnonvoluntary_ctxt_switches:"));
	tasks->blocked = pid;
}

/* Calls `visit` for each entry of a folder that is a number, until it returns non-zero. */
static void each_number(const char *path, int (*visit)(void *, const char *, pid_t), void *with)
{
	char entries[4096] __attribute__((aligned(8)));
	int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long got = 0;

	if (folder < 0)
		return;
	while ((got = syscall(SYS_getdents64, folder, entries, sizeof(entries))) > 0)
		for (long at = 0; at < got;) {
			struct entry *entry = (struct entry *)(entries + at);
			at += entry->length;
			if (isdigit((unsigned char)entry->name[0]) &&
			    visit(with, path, atoi(entry->name)))
				got = 0;
		}
	close(folder);
}

static char state_of(const char *stat, int *session, int *threads)
{
	const char *rest = strrchr(stat, ')');
	char state = 'X';

	/* state, parent, group, session; the number of threads is 14 fields later (proc(5)) */
	if (!rest || sscanf(rest + 1, " %c %*d %*d %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
			    "%*s %*s %d", &state, session, threads) != 3)
		return 'X';
	return state;
}

static int visit_thread(void *with, const char *parent, pid_t pid)
{
	struct tasks *tasks = with;
	char folder[96], path[128], stat[1024];
	int session, threads;

	snprintf(folder, sizeof(folder), "%.64s/%d", parent, pid);
	snprintf(path, sizeof(path), "%s/stat", folder);
	if (slurp(path, stat, sizeof(stat)))
		add_thread(tasks, folder, pid, state_of(stat, &session, &threads));
	return tasks->count > MOST_TASKS;
}

struct search {
	struct tasks *tasks;
	pid_t session;
};

static int visit_process(void *with, const char *parent, pid_t pid)
{
	struct search *search = with;
	struct tasks *tasks = search->tasks;
	char folder[64], path[96], stat[1024];
	int session = 0, threads = 0;

	snprintf(folder, sizeof(folder), "%.32s/%d", parent, pid);
	snprintf(path, sizeof(path), "%s/stat", folder);
	if (!slurp(path, stat, sizeof(stat)))
		return 0;
	char state = state_of(stat, &session, &threads);
	if (session != search->session)
		return ++tasks->others > MOST_OTHERS;
	if (strchr("ZX", state))
		return 0;
	tasks->last = pid;
	if (threads > 1) {
		snprintf(path, sizeof(path), "%s/task", folder);
		each_number(path, visit_thread, tasks);
	} else {
		add_thread(tasks, folder, pid, state);
	}
	return tasks->count > MOST_TASKS;
}

/* A hash of the I/O counters of all disks. Sets the number of requests in flight and one disk. */
static uint64_t disks_mark(unsigned long long *under_way, char disk[static DISK_SIZE])
{
	static char text[1 << 16];
	uint64_t mark = FNV_START;
	char *rest = text;

	*under_way = 0;
	slurp("/proc/diskstats", text, sizeof(text));
	for (char *line; (line = strsep(&rest, "\n"));) {
		/* iostats.rst: reads, writes, requests in flight, discards; the others are skipped */
		unsigned long long reads = 0, writes = 0, now = 0, discards = 0;
		char name[DISK_SIZE] = "";
		sscanf(line, "%*u %*u %31s %llu %*u %*u %*u %llu %*u %*u %*u %llu %*u %*u %llu",
		       name, &reads, &writes, &now, &discards);
		mark = mix(mix(mix(mark, reads), writes), discards);
		if (now && !*under_way)
			strcpy(disk, name);
		*under_way += now;
	}
	return mark;
}

/* CPU time of all CPUs since power-on, without idle and iowait, in ms. */
static unsigned long long busy_ms(void)
{
	unsigned long long user, nice, system, interrupts, others;
	char text[256];

	slurp("/proc/stat", text, sizeof(text));
	if (sscanf(text, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system,
		   &interrupts, &others) != 5)
		return 0;
	return (user + nice + system + interrupts + others) * TICK_MS;
}

/* The command of a blocked task, and the system call and file that it is blocked in. */
static void name_task(pid_t pid, char *name, size_t size)
{
	char path[64], text[256], file[128];
	long call, descriptor;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	size_t length = slurp(path, name, size < 128 ? size : 128);
	for (size_t at = 0; at + 1 < length; at++)
		if (!name[at])
			name[at] = ' ';
	/* the command line of a script's shell is the one that waits for the script */
	if (!strncmp(name, "bash -c " SHELL_WAIT, strlen("bash -c " SHELL_WAIT)))
		snprintf(name, size, "the script's shell");
	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	slurp(path, text, sizeof(text));
	if (sscanf(text, "%ld %lx", &call, &descriptor) == 2 &&
	    (call == SYS_read || call == SYS_write || call == SYS_ioctl || call == SYS_close ||
	     call == SYS_fsync || call == SYS_fdatasync || call == SYS_pread64 ||
	     call == SYS_pwrite64)) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%ld", pid, descriptor);
		ssize_t got = readlink(path, file, sizeof(file) - 1);
		length = strlen(name);
		if (got > 0)
			snprintf(name + length, size - length, " (%s of %.*s)",
				 call == SYS_read || call == SYS_pread64     ? "read"
				 : call == SYS_write || call == SYS_pwrite64 ? "write"
				 : call == SYS_ioctl                         ? "ioctl"
				 : call == SYS_close                         ? "close"
									     : "sync",
				 (int)got, file);
	}
	for (char *at = name; *at; at++)
		if (*at < ' ' || *at > '~')
			*at = '?';
}

void blocked_look(struct blocked *blocked, pid_t session, long long now_ms)
{
	struct tasks tasks = {.mark = FNV_START};
	struct search search = {.tasks = &tasks, .session = session};
	struct blocked before = *blocked;
	unsigned long long under_way;
	char disk[DISK_SIZE] = "";

	*blocked = (struct blocked){.session = session, .at_ms = now_ms};
	each_number("/proc", visit_process, &search);
	if (!tasks.count || tasks.count > MOST_TASKS)
		return;
	blocked->mark = mix(tasks.mark, disks_mark(&under_way, disk));
	if (!tasks.blocked && !under_way)
		return;
	blocked->busy_ms = busy_ms();
	if (session != before.session || blocked->mark != before.mark)
		return;
	long long passed = now_ms - before.at_ms;
	blocked->ms = before.ms;
	/* a guest that is more than half busy is not idle, such as with a spinning kernel thread */
	if (before.busy_ms && blocked->busy_ms - before.busy_ms < (unsigned long long)passed / 2)
		blocked->ms += passed < LOOK_MS ? passed : LOOK_MS;
	blocked->pid = tasks.blocked ? tasks.blocked : tasks.last;
	if (blocked->ms <= NAMED_MS)
		return;
	name_task(blocked->pid, blocked->name, sizeof(blocked->name));
	if (!tasks.blocked) {
		size_t length = strlen(blocked->name);
		snprintf(blocked->name + length, sizeof(blocked->name) - length,
			 " (a request to %s)", disk);
	}
}
