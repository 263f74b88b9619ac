/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * device trapped|mapped|stream bare|migdev save|load MIB: the state of a device, out of it or in.
 * device stream bare states COUNT: no byte of it; stopped and started again, so many times.
 *
 * What stands between the device and a buffer is all that differs: sys/migdev.h, or a loop that
 * moves the same bytes the same way and knows nothing else: no deadline, no state that is read
 * again, no number that is checked.  No byte is looked at by either.
 *
 *	trapped	a region whose window is read and written: pread() and pwrite() (device_region.c)
 *	mapped	the same, whose window can be mapped; the loop reads and writes it all the same
 *	stream	messages to a vfio-user server, tests/lib/vfiouser-server
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/guard.h"
#include "device_region.h"
#include "sys/clock.h"
#include "sys/devio_vfiouser.h"
#include "sys/fd.h"
#include "sys/migdev.h"
#include "vfiouser_spawn.h"

enum { CHUNK = 1 << 20 }; /* at a time: most of what one message may carry, and one segment */

struct bench {
	uint64_t bytes;
	bool load;
	struct device_region region;
	struct vfiouser_child child;
	int sock;	/* of the child, for who does without a handle */
	struct devio dev;
	struct migdev m;
	uint8_t *buf;	/* CHUNK bytes */
};

_Noreturn static void fail(const char *what, int err)
{
	fprintf(stderr, "device: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void must(const char *what, int err)
{
	if (err < 0)
		fail(what, err);
}

/* --- through migdev -------------------------------------------------------------------------- */

static void saved_by_migdev(struct bench *b)
{
	uint64_t done = 0;
	int got;

	do {
		struct migdev_piece piece = { 0 };

		got = migdev_save(&b->m, b->buf, CHUNK, &piece);
		must("save", got);
		done += got == MIGDEV_PIECE ? piece.len : 0;
	} while (got == MIGDEV_PIECE);
	if (done < b->bytes)
		fail("too little was saved", -EIO);
}

static void loaded_by_migdev(struct bench *b)
{
	for (uint64_t done = 0; done < b->bytes; done += CHUNK) {
		must("segment", migdev_segment(&b->m, CHUNK));
		must("load", migdev_load(&b->m, b->buf, CHUNK));
	}
}

/* --- a window, by pread() and pwrite() ------------------------------------------------------- */

static void saved_from_window(struct bench *b)
{
	struct device_region *r = &b->region;

	while (device_region_get(r, 8)) {
		off_t at = (off_t)device_region_get(r, 16);
		size_t len = device_region_get(r, 24);

		if (pread(r->file, b->buf, len, at) != (ssize_t)len)
			fail("pread", -EIO);
	}
}

static void loaded_into_window(struct bench *b)
{
	struct device_region *r = &b->region;

	for (uint64_t done = 0; done < b->bytes; done += CHUNK) {
		off_t at = (off_t)device_region_get(r, 16);

		if (pwrite(r->file, b->buf, CHUNK, at) != CHUNK)
			fail("pwrite", -EIO);
		device_region_put(r, 24, CHUNK);
	}
}

/* --- a stream, by sendmsg() and recvmsg() ---------------------------------------------------- */

struct front {
	uint16_t id, command;
	uint32_t size, flags, error;
	uint32_t argsz, len;
};

static void exchange(int sock, struct iovec *out, size_t n_out, struct iovec *in, size_t n_in)
{
	struct msghdr ask = { .msg_iov = out, .msg_iovlen = n_out };
	struct msghdr answer = { .msg_iov = in, .msg_iovlen = n_in };

	if (sendmsg(sock, &ask, MSG_NOSIGNAL) < 0 || recvmsg(sock, &answer, MSG_WAITALL) <= 0)
		fail("the server", -ECONNRESET);
}

/* An answer is as long as what was asked for, however little of it counts. */
static void saved_from_stream(struct bench *b)
{
	struct front ask = { 0, 17, sizeof(ask), 0, 0, 8 + CHUNK, CHUNK }, answer;
	struct iovec out = { &ask, sizeof(ask) };

	do {
		struct iovec in[2] = { { &answer, sizeof(answer) }, { b->buf, CHUNK } };

		exchange(b->sock, &out, 1, in, 2);
	} while (answer.len);
}

static void loaded_into_stream(struct bench *b)
{
	struct front ask = { 0, 18, sizeof(ask) + CHUNK, 0, 0, 8 + CHUNK, CHUNK }, answer;

	for (uint64_t done = 0; done < b->bytes; done += CHUNK) {
		struct iovec out[2] = { { &ask, sizeof(ask) }, { b->buf, CHUNK } };
		struct iovec in = { &answer, 16 };

		exchange(b->sock, out, 2, &in, 1);
		if (answer.flags != 1)
			fail("the server refuses", -EINVAL);
	}
}

/* Stopped, and running again. */
static void changed_by_messages(struct bench *b, uint64_t times)
{
	struct {
		struct front front;
		uint32_t state;
		int32_t fd;
	} ask = { { 0, 16, sizeof(ask), 0, 0, 16, 2 | 1 << 17 }, 0, -1 }, answer;

	for (uint64_t i = 0; i < times * 2; i++) {
		struct iovec out = { &ask, sizeof(ask) }, in = { &answer, sizeof(answer) };

		ask.state = i % 2 ? 2 : 1;
		exchange(b->sock, &out, 1, &in, 1);
		if (answer.state != ask.state)
			fail("the server does not change", -EINVAL);
	}
}

/* -------------------------------------------------------------------------------------------- */

static void go(struct bench *b, enum vfiostate to)
{
	while (b->m.state != (int)to) {
		int hop = vfiostate_hop(&b->m.caps, (enum vfiostate)b->m.state, to);

		must("state", hop < 0 ? hop : migdev_set(&b->m, (enum vfiostate)hop));
	}
}

static void open_stream(struct bench *b)
{
	const struct devio_vfiouser_options options = { .no_twin = true };
	char words[64];

	snprintf(words, sizeof(words), "generation=2,size=%" PRIu64, b->bytes);
	vfiouser_spawn(&b->child, words);
	b->sock = fcntl(b->child.sock, F_DUPFD_CLOEXEC, 0);
	must("connect", devio_vfiouser_adopt(&b->dev, steal_fd(&b->child.sock), &options));
}

static int count_states(struct bench *b, uint64_t times)
{
	uint64_t ns;

	b->bytes = 4096;
	open_stream(b);
	if (fcntl(b->sock, F_SETFL, 0))
		fail("socket", -errno);
	ns = clock_ns();
	changed_by_messages(b, times);
	printf("device pair %" PRIu64 "\n", (clock_ns() - ns) / times);
	devio_close(&b->dev);
	close_fd(&b->sock);
	vfiouser_reap(&b->child);
	return 0;
}

static void open_device(struct bench *b, bool stream, bool mapped)
{
	if (stream)
		open_stream(b);
	else
		must("region", device_region_open(&b->region, &b->dev, mapped, b->bytes));
	must("probe", migdev_probe(&b->m, &b->dev));
	/* what a device has to do for this is not measured */
	go(b, b->load ? VFIOSTATE_RESUMING : VFIOSTATE_STOPCOPY);
	if (stream && fcntl(b->sock, F_SETFL, 0))
		fail("socket", -errno);
}

int main(int argc, char **argv)
{
	struct bench b = { .sock = -1 };
	bool stream, bare;
	uint64_t ns;

	if (argc != 5)
		fail("trapped|mapped|stream bare|migdev save|load MIB", -EINVAL);
	if (strcmp(argv[3], "states") == 0)
		return count_states(&b, strtoull(argv[4], NULL, 10));
	stream = strcmp(argv[1], "stream") == 0;
	bare = strcmp(argv[2], "bare") == 0;
	b.load = strcmp(argv[3], "load") == 0;
	b.bytes = strtoull(argv[4], NULL, 10) << 20;
	b.buf = malloc(CHUNK);
	if (!b.buf)
		fail("memory", -ENOMEM);
	memset(b.buf, 1, CHUNK);
	open_device(&b, stream, strcmp(argv[1], "mapped") == 0);

	ns = clock_ns();
	if (!bare && b.load)
		loaded_by_migdev(&b);
	else if (!bare)
		saved_by_migdev(&b);
	else if (b.load)
		(stream ? loaded_into_stream : loaded_into_window)(&b);
	else
		(stream ? saved_from_stream : saved_from_window)(&b);
	ns = clock_ns() - ns;

	printf("device ns %" PRIu64 " MiB_per_s %" PRIu64 "\n", ns,
	       (b.bytes >> 20) * 1000000000 / (ns ? ns : 1));
	migdev_deinit(&b.m);
	devio_close(&b.dev);
	close_fd(&b.sock);
	vfiouser_reap(&b.child);
	free(b.buf);
	return 0;
}
