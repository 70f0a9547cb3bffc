// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bytes from and to the host. On a port of our own they are sent unchanged. On a serial port that
 * is shared with the kernel log, they are sent as lines of `~`, base64 and a newline. The kernel
 * prints whole lines that begin with `[`, which is not in base64's alphabet, so the host can remove
 * its lines even in the middle of ours.
 */
#define _GNU_SOURCE
#include "guest.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PIECE (3 * 256) /* bytes per line of base64 */

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

static size_t base64(char *to, const unsigned char *from, size_t size)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *start = to;

	for (size_t i = 0; i < size; i += 3) {
		unsigned int bits = from[i] << 16;
		bits |= i + 1 < size ? from[i + 1] << 8 : 0;
		bits |= i + 2 < size ? from[i + 2] : 0;
		*to++ = digits[bits >> 18];
		*to++ = digits[bits >> 12 & 63];
		*to++ = i + 1 < size ? digits[bits >> 6 & 63] : '=';
		*to++ = i + 2 < size ? digits[bits & 63] : '=';
	}
	return to - start;
}

void stream_send(struct stream *stream, const char *data, size_t size)
{
	char line[PIECE / 3 * 4 + 2] = "~";

	if (!stream->shared) {
		write_all(stream->out, data, size);
		return;
	}
	for (size_t piece; size; data += piece, size -= piece) {
		piece = size < PIECE ? size : PIECE;
		size_t length = 1 + base64(line + 1, (const unsigned char *)data, piece);
		line[length++] = '\n';
		write_all(stream->out, line, length);
	}
}

int stream_fill(struct stream *stream)
{
	if (stream->start == stream->end)
		stream->start = stream->end = 0;
	ssize_t got = read(stream->in, stream->buffer + stream->end,
			   sizeof(stream->buffer) - stream->end);
	if (got > 0) {
		stream->end += got;
		return 1;
	}
	if (got < 0 && errno == EINTR)
		return 1;
	if (!stream->endless) {
		stream->ended = 1;
		return 0;
	}
	nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
	return 1;
}

int stream_payload(struct stream *stream, size_t size, int fd)
{
	int result = fd < 0 ? -1 : 0;

	while (size) {
		if (stream->start == stream->end && !stream_fill(stream))
			return -1;
		size_t have = stream->end - stream->start;
		size_t take = have < size ? have : size;
		if (!result)
			result = write_all(fd, stream->buffer + stream->start, take);
		stream->start += take;
		size -= take;
	}
	if (!result)
		lseek(fd, 0, SEEK_SET);
	return result;
}

char *stream_line(struct stream *stream)
{
	char *start = stream->buffer + stream->start;
	char *newline = memchr(start, '\n', stream->end - stream->start);

	if (newline) {
		*newline = '\0';
		stream->start = newline - stream->buffer + 1;
		return start;
	}
	if (stream->start) {
		memmove(stream->buffer, start, stream->end - stream->start);
		stream->end -= stream->start;
		stream->start = 0;
	} else if (stream->end == sizeof(stream->buffer)) {
		stream->end = 0; /* noise: requests are shorter */
	}
	return NULL;
}
