// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Starts shells before their scripts arrive. Under emulation bash needs 11 ms to start, and the
 * first one 0.15 s, because its pages have to be read and its code translated. The first shell is
 * started while the guest comes up, each further one while a script runs.
 *
 * A shell waits in a read from a pipe, the gate. Its script and its standard input are memfds that
 * are filled before a byte is written to the gate.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* descriptors that scripts are unlikely to use */
#define CODE 250
#define GATE 251
/* Closes the gate, then runs the script; the exit code of the shell is that of the script. */
#define WAIT SHELL_WAIT " -N 1 -u 251 _ || exit 0; exec 251<&-; . /proc/self/fd/250"

/* When memory is short, the kernel shall kill a script, and never a waiting shell. */
static void set_oom_score(const char *process, const char *score)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%s/oom_score_adj", process);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, score, strlen(score));
		close(fd);
	}
}

static void become_shell(const struct shell *shell, int gate, int output, int root)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	set_oom_score("self", "-1000");
	setpriority(PRIO_PROCESS, 0, 0); /* over ssh it has inherited the higher priority of sshd */
	dup2(shell->data, 0);
	dup2(output, 1);
	dup2(output, 2);
	dup2(shell->code, CODE);
	dup2(gate, GATE);
	if (root >= 0 && (fchdir(root) || chroot(".")))
		_exit(127);
	(void)!chdir("/root");
	execl("/bin/bash", "bash", "-c", WAIT, NULL);
	_exit(127);
}

static void close_all(struct shell *shell)
{
	const int files[] = {shell->gate, shell->code, shell->data, shell->output};

	for (size_t i = 0; i < sizeof(files) / sizeof(*files); i++)
		if (files[i] >= 0)
			close(files[i]);
	*shell = (struct shell)NO_SHELL;
}

void shell_start(struct shell *shell, const char *root)
{
	int gate[2] = {-1, -1}, output[2] = {-1, -1};
	/* a descriptor, because the root is moved to "/" perhaps before the shell has started */
	int root_fd = strcmp(root, "/") ? open(root, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

	*shell = (struct shell){
		.code = memfd_create("script", MFD_CLOEXEC),
		.data = memfd_create("stdin", MFD_CLOEXEC),
		.gate = -1,
		.output = -1,
	};
	if (shell->code >= 0 && shell->data >= 0 && !pipe2(gate, O_CLOEXEC) &&
	    !pipe2(output, O_CLOEXEC)) {
		fcntl(output[1], F_SETPIPE_SZ, SHELL_PIPE);
		shell->gate = gate[1];
		shell->output = output[0];
		pid_t pid = fork();
		if (pid == 0)
			become_shell(shell, gate[0], output[1], root_fd);
		shell->pid = pid > 0 ? pid : 0;
	}
	if (root_fd >= 0)
		close(root_fd);
	if (gate[0] >= 0)
		close(gate[0]);
	if (output[1] >= 0)
		close(output[1]);
	if (!shell->pid)
		close_all(shell);
}

int shell_waits(struct shell *shell)
{
	if (shell->pid && waitpid(shell->pid, NULL, WNOHANG) == 0)
		return 1;
	close_all(shell);
	return 0;
}

int shell_go(struct shell *shell)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", shell->pid);
	set_oom_score(pid, "500");
	int result = write(shell->gate, "g", 1) == 1 ? 0 : -1;
	close(shell->gate);
	close(shell->code);
	close(shell->data);
	shell->gate = shell->code = shell->data = -1;
	return result;
}
