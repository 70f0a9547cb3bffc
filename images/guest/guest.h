/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the guest program share. */
#ifndef BLOCKYARD_GUEST_H
#define BLOCKYARD_GUEST_H

#include <stddef.h>
#include <sys/types.h>

#define GUEST_DIR "/run/blockyard" /* the program and ssh's files, in the guest root */

/* stream.c: bytes from and to the host */

struct stream {
	int in, out;
	int endless; /* a port whose host is away has no end */
	int shared;  /* the kernel prints between what is sent */
	int ended;
	size_t start, end;
	char buffer[1 << 16];
};

/* Reads more input; returns 0 at its end. */
int stream_fill(struct stream *stream);
/* The next whole line without its newline, or NULL when there is none yet. */
char *stream_line(struct stream *stream);
/*
 * Moves `size` bytes of input into the file `fd` and rewinds it. Returns 0, or -1 when the guest
 * has no room for them (they are taken from the input all the same).
 */
int stream_payload(struct stream *stream, size_t size, int fd);
void stream_send(struct stream *stream, const char *data, size_t size);

/* shell.c: a shell that is there before its script */

struct shell {
	pid_t pid;  /* 0: none */
	int gate;   /* a byte in it lets the shell begin */
	int code;   /* memory file with the script */
	int data;   /* memory file with its standard input */
	int output; /* read end of its stdout and stderr */
};

#define SHELL_PIPE (1 << 20) /* bytes of output that wait for us */

#define SHELL_WAIT "read -r" /* what one begins with */

#define NO_SHELL {.gate = -1, .code = -1, .data = -1, .output = -1}

/* Starts a shell that waits for its script, below `root`. pid is 0 when that failed (errno). */
void shell_start(struct shell *shell, const char *root);
/* Whether it still waits; what is left of a dead one is closed. */
int shell_waits(struct shell *shell);
/* Lets it run its script; afterwards `output` and `pid` are the caller's. Returns 0 or -1. */
int shell_go(struct shell *shell);

/* blocked.c: a script that waits in the kernel for something that does not come */

struct blocked {
	pid_t session;
	long long at_ms; /* when it was looked at, on the monotonic clock */
	unsigned long long mark, busy_ms;
	long long ms;	/* how long it has been blocked; 0: it is not */
	pid_t pid;	/* the task that is blocked */
	char name[256]; /* its command; empty in the first seconds */
};

/* To be called once a second while the script runs whose first process is `session`. */
void blocked_look(struct blocked *blocked, pid_t session, long long now_ms);

/* init.c: what PID 1 does */

/*
 * Everything from power-on; returns the device whose other end is the host's console, and says
 * whether the kernel log shares it. `spare`: a first shell, started on the way.
 */
const char *boot(int *shared, struct shell *spare);
/* A line for the kernel log. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same, then the end: of PID 1, so of the guest. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* agent.c */

/* Serves the host until the stream ends; `spare`: a shell that was started already. */
void serve(struct stream *stream, struct shell *spare);

#endif
