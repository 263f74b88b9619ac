/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the server was asked and when, a line for each, with what it can see of the client's memory
 * by itself: how many pages of what it was given by descriptor are holes of their file, so were
 * never placed.  A device that runs with one of them would have read zeroes, and made them true.
 *
 * And a device that does something by itself: when it begins to run it looks at words all over what
 * it may reach, and says what it saw.
 */
#include "config.h"

#include "vfiouser.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "sys/clock.h"

#define PAGE 4096

static uint64_t holes(const struct vfiouser_mapping *m)
{
	off_t at = (off_t)m->offset, end = at + (off_t)m->size;
	uint64_t n = 0;

	while (at < end) {
		off_t data = lseek(m->fd, at, SEEK_DATA);

		data = data < 0 || data > end ? end : data;
		n += (uint64_t)(data - at) / PAGE;
		if (data < end)
			at = lseek(m->fd, data, SEEK_HOLE);
		else
			at = end;
	}
	return n;
}

void vfiouser_trace(const struct vfiouser *s, const struct vfiomsg *ask, int err)
{
	uint64_t missing = 0, direct = 0;

	if (!s->trace)
		return;
	for (unsigned i = 0; i < s->n_mappings; i++) {
		direct += s->mappings[i].fd >= 0;
		missing += s->mappings[i].fd >= 0 ? holes(&s->mappings[i]) : 0;
	}
	printf("{\"event\":\"command\",\"ns\":%" PRIu64 ",\"command\":%u,\"error\":%d,"
	       "\"state\":%d,\"seed\":%" PRIu64 ",\"mappings\":%u,\"direct\":%" PRIu64
	       ",\"missing\":%" PRIu64 "}\n",
	       clock_ns(), ask->head.command, -err, (int)s->device.state, s->device.seed,
	       s->n_mappings, direct, missing);
	fflush(stdout);
}

void vfiouser_work(struct vfiouser *s, enum vfiouser_state before)
{
	uint64_t sum = 0, value = 0, failed = 0, begun = clock_ns();

	if (!s->work || before == VFIOUSER_RUNNING || s->device.state != VFIOUSER_RUNNING ||
	    s->n_mappings == 0)
		return;
	for (uint64_t i = 0; i < s->work; i++) {
		const struct vfiouser_mapping *m = &s->mappings[i % s->n_mappings];
		uint64_t at = m->iova + i * 5 * PAGE % m->size;

		failed += vfiouser_dma(s, false, at, &value) != 0;
		sum += value;
	}
	printf("{\"event\":\"worked\",\"ns\":%" PRIu64 ",\"begun\":%" PRIu64 ",\"sum\":%" PRIu64
	       ",\"failed\":%" PRIu64 "}\n", clock_ns(), begun, sum, failed);
	fflush(stdout);
}
