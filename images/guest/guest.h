/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Interfaces between the parts of the guest program. */
#ifndef BLOCKYARD_GUEST_H
#define BLOCKYARD_GUEST_H

#include <stddef.h>
#include <sys/types.h>

#define GUEST_DIR "/run/blockyard" /* this program and the files of ssh, in the guest root */

/* stream.c: bytes from and to the host */

struct stream {
	int in, out;
	int endless; /* a port: end of file only means that the host is not connected */
	int shared;  /* the kernel log is printed on the same port */
	int ended;   /* the input has ended */
	size_t start, end; /* of the unread bytes in `buffer` */
	char buffer[1 << 16];
};

/* Reads more input. Returns 0 at the end of the input. */
int stream_fill(struct stream *stream);
/* The next complete line without its newline; NULL when there is none yet. */
char *stream_line(struct stream *stream);
/*
 * Moves `size` bytes of input into the file `fd` and rewinds it. Returns 0, or -1 when they cannot
 * be written; they are removed from the input anyway.
 */
int stream_payload(struct stream *stream, size_t size, int fd);
void stream_send(struct stream *stream, const char *data, size_t size);

/* shell.c: a shell that is started before its script arrives */

struct shell {
	pid_t pid;  /* 0: none */
	int gate;   /* a byte written to it lets the shell run the script */
	int code;   /* memfd with the script */
	int data;   /* memfd with its standard input */
	int output; /* read end of its stdout and stderr */
};

#define SHELL_PIPE (1 << 20) /* bytes of output that the pipe can hold */

#define SHELL_WAIT "read -r" /* first words of the command of a waiting shell */

#define NO_SHELL {.gate = -1, .code = -1, .data = -1, .output = -1}

/* Starts a shell in `root` that waits for its script. On failure pid is 0, and errno is set. */
void shell_start(struct shell *shell, const char *root);
/* Whether the shell still waits; closes the files of a dead shell. */
int shell_waits(struct shell *shell);
/* Lets the shell run its script. The caller then owns `output` and `pid`. Returns 0 or -1. */
int shell_go(struct shell *shell);

/* blocked.c: detects a script that is blocked in the kernel while the guest is idle */

struct blocked {
	pid_t session;
	long long at_ms; /* time of the last check, on the monotonic clock */
	unsigned long long mark; /* hash of the state of tasks and disks at that time */
	unsigned long long busy_ms; /* CPU time of all CPUs at that time */
	long long ms;	/* how long the script has been blocked; 0: it is not */
	pid_t pid;	/* the blocked task */
	char name[256]; /* its command; empty in the first seconds */
};

/* Call this once a second while a script runs; `session`: its first process. */
void blocked_look(struct blocked *blocked, pid_t session, long long now_ms);

/* init.c: the tasks of PID 1 */

/*
 * Brings the guest up after power-on. Returns the device that leads to the host's console and sets
 * `shared` if the kernel log uses it too. Starts `spare`, a first shell, meanwhile.
 */
const char *boot(int *shared, struct shell *spare);
/* Writes a line to the kernel log. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Writes a line to the kernel log and exits; the end of PID 1 is the end of the guest. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* agent.c */

/* Serves the host until the stream ends. `spare`: a shell that is already started, or NO_SHELL. */
void serve(struct stream *stream, struct shell *spare);

#endif
