// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's end of a console: runs one command at a time and frames what it prints.
 *
 * The same loop serves a serial port (as PID 1) and an ssh channel (as a program on stdin and
 * stdout), so both consoles behave alike. A request is one line and its payload:
 *
 *   BLOCKYARD <nonce> <seq> run <script bytes> <stdin bytes>\n<script><stdin>
 *   BLOCKYARD <nonce> <seq> log <line bytes> 0\n<line>
 *   BLOCKYARD <nonce> <seq> kill\n
 *
 * and the answer to `run`, with the output of the script (stdout and stderr, bytes as they are)
 * between two markers that repeat the request's nonce and number:
 *
 *   \x1eBLOCKYARD <nonce> <seq> begin\n ... \x1eBLOCKYARD <nonce> <seq> end <status> <bytes>\n
 *
 * <status> is what a shell would report (128 + signal for a killed script), <bytes> counts the
 * output. `log` writes a line into the kernel log, with the same answer and without a process.
 * `kill` ends the running script; its end marker follows as usual. Whatever is no request
 * is skipped up to the next newline.
 *
 * A script is over when its shell has exited. What its background processes print later is
 * dropped: waiting for them would hang the console on the first daemon.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define STATUS_NO_FORK 254 /* the guest could not start the script at all */

struct request {
	char nonce[64];
	unsigned long seq;
};

struct script {
	struct request request;
	pid_t pid;   /* 0: nothing runs */
	int output;  /* read end of its stdout and stderr */
	unsigned long long bytes;
};

struct input {
	int fd;
	int ended;
	size_t start, end;
	char buffer[1 << 16];
};

/* Returns 0 when everything was written, else -1. */
static int write_all(int fd, const char *data, size_t size)
{
	while (size) {
		ssize_t written = write(fd, data, size);
		if (written < 0) {
			if (errno == EINTR)
				continue;
			if (errno == EAGAIN) {
				poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 100);
				continue;
			}
			return -1;
		}
		data += written;
		size -= written;
	}
	return 0;
}

static void marker(int out, const struct request *request, const char *format, ...)
{
	char text[256];
	va_list arguments;

	int used = snprintf(text, sizeof(text), "\x1e" "BLOCKYARD %s %lu ", request->nonce,
			    request->seq);
	va_start(arguments, format);
	vsnprintf(text + used, sizeof(text) - used, format, arguments);
	va_end(arguments);
	write_all(out, text, strlen(text));
}

/* Reads more input; returns 0 at the end of it. A port whose host is away has no end. */
static int fill(struct input *input, int is_init)
{
	if (input->start == input->end)
		input->start = input->end = 0;
	ssize_t got = read(input->fd, input->buffer + input->end,
			   sizeof(input->buffer) - input->end);
	if (got > 0) {
		input->end += got;
		return 1;
	}
	if (got < 0 && errno == EINTR)
		return 1;
	if (!is_init) {
		input->ended = 1;
		return 0;
	}
	nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
	return 1;
}

/*
 * Moves `size` bytes of input into a memory file and returns it, rewound; -1 when the guest has no
 * memory for it (the bytes are taken from the input all the same).
 */
static int payload(struct input *input, size_t size, unsigned int flags, int is_init)
{
	int fd = memfd_create("payload", flags);

	while (size) {
		if (input->start == input->end && !fill(input, is_init))
			break;
		size_t have = input->end - input->start;
		size_t take = have < size ? have : size;
		if (fd >= 0 && write_all(fd, input->buffer + input->start, take)) {
			close(fd);
			fd = -1;
		}
		input->start += take;
		size -= take;
	}
	if (fd >= 0)
		lseek(fd, 0, SEEK_SET);
	return fd;
}

/* The next whole line without its newline, or NULL when there is none yet. */
static char *next_line(struct input *input)
{
	char *start = input->buffer + input->start;
	char *newline = memchr(start, '\n', input->end - input->start);

	if (newline) {
		*newline = '\0';
		input->start = newline - input->buffer + 1;
		return start;
	}
	if (input->start) {
		memmove(input->buffer, start, input->end - input->start);
		input->end -= input->start;
		input->start = 0;
	} else if (input->end == sizeof(input->buffer)) {
		input->end = 0; /* no request is this long: noise */
	}
	return NULL;
}

static void exec_script(int code, int data, int output)
{
	char path[32];
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	setsid();
	dup2(data, 0);
	dup2(output, 1);
	dup2(output, 2);
	/* bash keeps its script on a descriptor of its own, far from those a script may use */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", code);
	(void)!chdir("/root");
	execl("/bin/bash", "bash", path, NULL);
	_exit(127);
}

static void start(struct script *script, const struct request *request, int code, int data,
		  int out)
{
	int pipe_fds[2] = {-1, -1};

	script->request = *request;
	script->bytes = 0;
	marker(out, request, "begin\n");
	if (code >= 0 && data >= 0 && pipe2(pipe_fds, O_CLOEXEC) == 0)
		script->pid = fork();
	else
		script->pid = -1;
	if (script->pid == 0)
		exec_script(code, data, pipe_fds[1]);
	if (script->pid < 0) {
		char text[128];
		int size = snprintf(text, sizeof(text), "cannot start the command: %s\n",
				    strerror(errno));
		write_all(out, text, size);
		marker(out, request, "end %d %d\n", STATUS_NO_FORK, size);
		close(pipe_fds[0]);
		script->pid = 0;
	} else {
		script->output = pipe_fds[0];
	}
	close(pipe_fds[1]);
	close(code);
	close(data);
}

/* One line of the host's into the kernel log; also works in a guest that can start nothing. */
static void log_request(const struct request *request, int line, int out)
{
	char text[1024];
	ssize_t size = line >= 0 ? read(line, text, sizeof(text)) : -1;
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	int written = size > 0 && log >= 0 && write(log, text, size) == size;

	close(log);
	close(line);
	marker(out, request, "begin\n");
	marker(out, request, "end %d 0\n", written ? 0 : 1);
}

static void copy_output(struct script *script, int out, size_t limit)
{
	char buffer[1 << 16];

	ssize_t got = read(script->output, buffer, limit < sizeof(buffer) ? limit : sizeof(buffer));
	if (got > 0) {
		write_all(out, buffer, got);
		script->bytes += got;
	} else if (got == 0) { /* the script closed its output and goes on */
		close(script->output);
		script->output = -1;
	}
}

static void finish(struct script *script, int status, int out)
{
	int left = 0;

	if (script->output >= 0) {
		/* what is in the pipe now is the script's; a background writer adds no more */
		ioctl(script->output, FIONREAD, &left);
		for (unsigned long long end = script->bytes + left;
		     script->output >= 0 && script->bytes < end;)
			copy_output(script, out, end - script->bytes);
		if (script->output >= 0)
			close(script->output);
	}
	int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	marker(out, &script->request, "end %d %llu\n", code, script->bytes);
	script->pid = 0;
}

static void reap(struct script *script, int out)
{
	int status;

	for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
		if (pid == script->pid)
			finish(script, status, out);
}

static void kill_script(const struct script *script)
{
	/* its group is there once it has called setsid() */
	if (script->pid && kill(-script->pid, SIGKILL))
		kill(script->pid, SIGKILL);
}

static void handle(char *line, struct input *input, struct script *script, int out, int is_init)
{
	struct request request;
	char verb[8];
	size_t code_size = 0, data_size = 0;

	int fields = sscanf(line, "BLOCKYARD %63s %lu %7s %zu %zu", request.nonce, &request.seq,
			    verb, &code_size, &data_size);
	if (fields == 3 && !strcmp(verb, "kill"))
		kill_script(script);
	if (fields != 5 || (strcmp(verb, "run") && strcmp(verb, "log")))
		return;
	int code = payload(input, code_size, 0, is_init);
	int data = payload(input, data_size, MFD_CLOEXEC, is_init);
	if (input->ended)
		return; /* half a script is not run */
	if (!strcmp(verb, "log")) {
		log_request(&request, code, out);
		close(data);
		return;
	}
	if (script->pid) { /* the host gave up on the one before */
		kill_script(script);
		while (script->pid) {
			int status;
			pid_t pid = waitpid(-1, &status, 0);
			if (pid == script->pid)
				finish(script, status, out);
		}
	}
	start(script, &request, code, data, out);
}

void serve(int in, int out, int is_init)
{
	static struct input input;
	struct script script = {.output = -1};
	struct signalfd_siginfo ignored;
	sigset_t child;

	input.fd = in;
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	signal(SIGPIPE, SIG_IGN); /* a lost connection is seen as the end of the input */
	int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("signalfd: %s", strerror(errno));
	write_all(out, "\x1e" "BLOCKYARD ready\n", 17);

	for (;;) {
		struct pollfd polled[] = {
			{.fd = in, .events = POLLIN},
			{.fd = signals, .events = POLLIN},
			{.fd = script.pid ? script.output : -1, .events = POLLIN},
		};
		if (poll(polled, 3, -1) < 0)
			continue;
		if (polled[2].revents)
			copy_output(&script, out, SIZE_MAX);
		if (polled[1].revents) {
			while (read(signals, &ignored, sizeof(ignored)) > 0)
				;
			reap(&script, out);
		}
		if (polled[0].revents) {
			if (!fill(&input, is_init)) {
				kill_script(&script);
				return;
			}
			for (char *line; (line = next_line(&input));)
				handle(line, &input, &script, out, is_init);
		}
	}
}

static void make_raw(int fd)
{
	struct termios settings;

	if (tcgetattr(fd, &settings))
		return; /* a virtio port is no tty and raw by nature */
	cfmakeraw(&settings);
	tcsetattr(fd, TCSANOW, &settings);
}

int main(void)
{
	if (getpid() != 1) {
		serve(0, 1, 0);
		return 0;
	}
	const char *console = boot();
	/* a payload must not become descriptor 0, 1 or 2, which may be free without /dev/console */
	int filler;
	do
		filler = open("/dev/null", O_RDWR);
	while (filler >= 0 && filler <= 2);
	close(filler);
	int fd = open(console, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		die("cannot open the console %s: %s", console, strerror(errno));
	make_raw(fd);
	serve(fd, fd, 1);
	return 0;
}
