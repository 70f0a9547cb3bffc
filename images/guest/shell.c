// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A shell that is there before its script: bash needs 11 ms for its start under emulation, and
 * 0.15 s for the first, whose pages have to be read and whose code has to be translated. The next
 * one starts while a script runs, the first while the guest comes up.
 *
 * It is held back by a read from a pipe, the gate. Its script and its standard input are memory
 * files that are filled before the gate is opened.
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

/* far from the descriptors that a script may use */
#define CODE 250
#define GATE 251
/* The gate is closed before the script begins; the shell's exit code is the script's. */
#define WAIT SHELL_WAIT " -N 1 -u 251 _ || exit 0; exec 251<&-; . /proc/self/fd/250"

/* Who goes first when memory is short: a script, and never a shell that waits for one. */
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
	setpriority(PRIO_PROCESS, 0, 0); /* sshd's is higher */
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
	/* the folder, not its name: it moves on the way up, and a shell may be slow to start */
	int place = strcmp(root, "/") ? open(root, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;

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
			become_shell(shell, gate[0], output[1], place);
		shell->pid = pid > 0 ? pid : 0;
	}
	if (place >= 0)
		close(place);
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
