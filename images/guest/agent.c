// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's end of a console: runs one command at a time and frames its output.
 *
 * The same loop serves a serial port (as PID 1) and an ssh channel (as a program on stdin and
 * stdout), so both consoles behave alike. A request is a line and its payload:
 *
 *   BLOCKYARD <nonce> <seq> run <script bytes> <stdin bytes>\n<script><stdin>
 *   BLOCKYARD <nonce> <seq> log <line bytes> 0\n<line>
 *   BLOCKYARD <nonce> <seq> kill\n
 *
 * The answer to `run` is the output of the script (stdout and stderr, unchanged) between two
 * markers that repeat the request's nonce and number:
 *
 *   \x1eBLOCKYARD <nonce> <seq> begin\n ... \x1eBLOCKYARD <nonce> <seq> end <status> <bytes>\n
 *
 * <status> is the status that a shell would report (128 + signal for a killed script), <bytes> the
 * size of the output. While a script prints nothing, a heartbeat `alive <ms> <pid> <command>` is
 * sent once a second: for how long the script has been blocked in the kernel (`blocked.c`; 0: it is
 * not), and its blocked task.
 *
 * `log` writes a line into the kernel log, with the same answer, without starting a process. `kill`
 * kills the running script; its end marker follows as usual. A second `kill` gives up a script that
 * does not die because it is stuck in the kernel: its end marker is sent at once, and further output
 * is dropped. Invalid requests are skipped up to the next newline.
 *
 * A script has ended when its shell has exited. Later output of its background processes is
 * dropped: waiting for them would hang the console on the first daemon.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define STATUS_GIVEN_UP 253 /* the script did not die when it was killed */
#define STATUS_NO_START 254 /* the script could not be started */
#define ALIVE_MS 1000
#define KILL_AGAIN_MS 100
#define START_MS 3000 /* how long to retry the start of a shell */

struct request {
	char nonce[64];
	unsigned long seq;
};

struct script {
	struct request request;
	pid_t pid;  /* 0: nothing runs */
	int output; /* read end of its stdout and stderr */
	int killed;
	unsigned long long bytes;
};

struct agent {
	struct stream *host;
	struct script script;
	struct shell spare;
	pid_t doomed; /* the process group of a killed script, until it is empty */
	long long alive_at; /* time of the next heartbeat, in ms of the monotonic clock */
	struct blocked blocked;
};

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static void marker(struct agent *agent, const struct request *request, const char *format, ...)
{
	char text[512];
	va_list arguments;

	int used = snprintf(text, sizeof(text), "\x1e" "BLOCKYARD %s %lu ", request->nonce,
			    request->seq);
	va_start(arguments, format);
	vsnprintf(text + used, sizeof(text) - used, format, arguments);
	va_end(arguments);
	stream_send(agent->host, text, strlen(text));
}

/* Sends the end marker of the running script. */
static void end_answer(struct agent *agent, int status)
{
	struct script *script = &agent->script;

	if (script->output >= 0)
		close(script->output);
	marker(agent, &script->request, "end %d %llu\n", status, script->bytes);
	*script = (struct script){.output = -1};
}

/*
 * Copies at most `limit` bytes from the script to the host. Returns the same as read(). Uses splice()
 * if the port supports it.
 */
static ssize_t pass_on(struct agent *agent, size_t limit)
{
	struct stream *host = agent->host;
	char buffer[1 << 16];

	if (!host->shared) {
		size_t most = limit < SHELL_PIPE ? limit : SHELL_PIPE;
		ssize_t got = splice(agent->script.output, NULL, host->out, NULL, most, 0);
		if (got >= 0 || (errno != EINVAL && errno != EAGAIN))
			return got;
	}
	ssize_t got = read(agent->script.output, buffer,
			   limit < sizeof(buffer) ? limit : sizeof(buffer));
	if (got > 0)
		stream_send(host, buffer, got);
	return got;
}

/* Like pass_on(); also counts the bytes and puts off the next heartbeat. */
static ssize_t copy_output(struct agent *agent, size_t limit)
{
	struct script *script = &agent->script;

	ssize_t got = pass_on(agent, limit);
	if (got > 0) {
		script->bytes += got;
		agent->alive_at = now_ms() + ALIVE_MS;
	} else if (got == 0) { /* the script has closed its output but still runs */
		close(script->output);
		script->output = -1;
	}
	return got;
}

static void finish(struct agent *agent, int status)
{
	struct script *script = &agent->script;
	int left = 0;

	if (script->output >= 0) {
		/* only what is in the pipe now: a background process could write for ever */
		ioctl(script->output, FIONREAD, &left);
		for (unsigned long long end = script->bytes + left;
		     script->output >= 0 && script->bytes < end;)
			if (copy_output(agent, end - script->bytes) < 0)
				break; /* the byte count shows the host that something is missing */
	}
	end_answer(agent, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

/* Collects ended children; the spare shell is handled by shell_waits(). */
static void reap(struct agent *agent)
{
	siginfo_t ended = {0};
	int status;

	for (;;) {
		ended.si_pid = 0;
		if (waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) || !ended.si_pid)
			return;
		if (ended.si_pid == agent->spare.pid) {
			shell_waits(&agent->spare);
			continue;
		}
		if (waitpid(ended.si_pid, &status, 0) == agent->script.pid && agent->script.pid)
			finish(agent, status);
	}
}

/* The process group exists only after its first process has called setsid(). */
static void kill_script(struct agent *agent)
{
	struct script *script = &agent->script;

	if (!script->pid)
		return;
	if (kill(-script->pid, SIGKILL))
		kill(script->pid, SIGKILL);
	script->killed++;
	agent->doomed = script->pid;
}

/* A script that forks while it is killed leaves children: kill until the group is empty. */
static void kill_again(struct agent *agent)
{
	if (agent->doomed && kill(-agent->doomed, SIGKILL))
		agent->doomed = 0;
}

/* Writes a line to the kernel log. Works also in a guest that cannot start processes. */
static void log_request(struct agent *agent, const struct request *request, size_t size)
{
	char text[1024];
	int line = memfd_create("line", MFD_CLOEXEC);
	int log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	ssize_t got = stream_payload(agent->host, size, line) ? -1 : read(line, text, sizeof(text));
	int written = got > 0 && log >= 0 && write(log, text, got) == got;

	close(log);
	close(line);
	marker(agent, request, "begin\n");
	marker(agent, request, "end %d 0\n", written ? 0 : 1);
}

static void run_request(struct agent *agent, const struct request *request, size_t code_size,
			size_t data_size)
{
	struct shell *spare = &agent->spare;

	/* after a fork bomb it may take a moment until a process can be started again */
	for (int waited_ms = 0; !shell_waits(spare) && waited_ms < START_MS; waited_ms += 100) {
		if (waited_ms)
			nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
		kill_again(agent);
		reap(agent);
		shell_start(spare, "/");
	}
	int error = spare->pid ? 0 : errno;
	if (stream_payload(agent->host, code_size, spare->pid ? spare->code : -1) && !error)
		error = errno;
	if (stream_payload(agent->host, data_size, spare->pid ? spare->data : -1) && !error)
		error = errno;
	if (agent->host->ended)
		return; /* the script is incomplete */
	if (agent->script.pid) { /* the host has given up the previous script */
		kill_script(agent);
		end_answer(agent, STATUS_GIVEN_UP);
	}
	marker(agent, request, "begin\n");
	if (!error && shell_go(spare))
		error = errno;
	if (error) {
		char text[128];
		int size = snprintf(text, sizeof(text), "cannot start the command: %s\n",
				    strerror(error));
		stream_send(agent->host, text, size);
		marker(agent, request, "end %d %d\n", STATUS_NO_START, size);
		if (spare->pid)
			kill(spare->pid, SIGKILL);
		return;
	}
	agent->script = (struct script){
		.request = *request,
		.pid = spare->pid,
		.output = spare->output,
	};
	agent->alive_at = now_ms() + ALIVE_MS;
	shell_start(spare, "/");
}

static void handle(struct agent *agent, char *line)
{
	struct request request;
	char verb[8];
	size_t code_size = 0, data_size = 0;

	int fields = sscanf(line, "BLOCKYARD %63s %lu %7s %zu %zu", request.nonce, &request.seq,
			    verb, &code_size, &data_size);
	if (fields == 3 && !strcmp(verb, "kill") && agent->script.pid) {
		kill_script(agent);
		if (agent->script.killed > 1)
			end_answer(agent, STATUS_GIVEN_UP);
	}
	if (fields == 5 && !strcmp(verb, "log"))
		log_request(agent, &request, code_size);
	if (fields == 5 && !strcmp(verb, "run"))
		run_request(agent, &request, code_size, data_size);
}

/* How long to wait for events; -1: for ever. Children that end do not delay a heartbeat. */
static int pause_ms(const struct agent *agent)
{
	long long left = agent->alive_at - now_ms();

	if (agent->doomed)
		return KILL_AGAIN_MS;
	return agent->script.pid ? (left > 0 ? left : 0) : -1;
}

/* Sends a heartbeat. The next one is due a second after the end of this function. */
static void send_heartbeat(struct agent *agent)
{
	struct blocked *blocked = &agent->blocked;

	blocked_look(blocked, agent->script.pid, now_ms());
	marker(agent, &agent->script.request, "alive %lld %d %s\n", blocked->ms, blocked->pid,
	       blocked->name);
	agent->alive_at = now_ms() + ALIVE_MS;
}

void serve(struct stream *host, struct shell *spare)
{
	struct agent agent = {.host = host, .script = {.output = -1}, .spare = *spare};
	struct signalfd_siginfo ignored;
	sigset_t child;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	signal(SIGPIPE, SIG_IGN); /* a lost connection shows as the end of the input */
	int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signals < 0)
		die("signalfd: %s", strerror(errno));
	stream_send(host, "\x1e" "BLOCKYARD ready\n", 17);
	if (!shell_waits(&agent.spare))
		shell_start(&agent.spare, "/");

	for (;;) {
		struct pollfd polled[] = {
			{.fd = host->in, .events = POLLIN},
			{.fd = signals, .events = POLLIN},
			{.fd = agent.script.output, .events = POLLIN},
		};
		int events = poll(polled, 3, pause_ms(&agent));
		kill_again(&agent);
		if (agent.script.pid && now_ms() >= agent.alive_at)
			send_heartbeat(&agent);
		if (events <= 0)
			continue;
		if (polled[2].revents)
			copy_output(&agent, SIZE_MAX);
		if (polled[1].revents) {
			while (read(signals, &ignored, sizeof(ignored)) > 0)
				;
			reap(&agent);
		}
		if (polled[0].revents) {
			if (!stream_fill(host)) {
				kill_script(&agent);
				return;
			}
			for (char *line; (line = stream_line(host));)
				handle(&agent, line);
		}
	}
}

static void make_raw(int fd)
{
	struct termios settings;

	if (tcgetattr(fd, &settings))
		return; /* a virtio port is not a tty and always raw */
	cfmakeraw(&settings);
	tcsetattr(fd, TCSANOW, &settings);
}

/* Raises our priority: heartbeats must go out even when scripts use every CPU and all memory. */
static void be_first(void)
{
	struct sched_param priority = {.sched_priority = 1};

	sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &priority);
	mlockall(MCL_CURRENT | MCL_FUTURE);
}

int main(void)
{
	static struct stream host;
	static struct shell spare = NO_SHELL;

	if (getpid() != 1) {
		host = (struct stream){.in = 0, .out = 1};
		be_first();
		serve(&host, &spare);
		return 0;
	}
	const char *console = boot(&host.shared, &spare);
	int fd = open(console, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		die("cannot open the console %s: %s", console, strerror(errno));
	make_raw(fd);
	host.in = host.out = fd;
	host.endless = 1;
	be_first();
	serve(&host, &spare);
	return 0;
}
