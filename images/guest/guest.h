/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the two halves of the guest program (init.c, agent.c) share. */
#ifndef BLOCKYARD_GUEST_H
#define BLOCKYARD_GUEST_H

/* Where the program and what ssh needs stand in the running guest. */
#define GUEST_DIR "/run/blockyard"

/* One line into the kernel log, so that it stands in order with the kernel's own. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* log_line() and end. As PID 1 this panics the kernel, which the host sees at once. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Makes the guest ready as PID 1; returns the path of the console device to serve. */
const char *boot(void);

/* Answers requests that arrive at `in` on `out` until `in` is at its end (never, for PID 1). */
void serve(int in, int out, int is_init);

#endif
