/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "edu.h"

#include <assert.h>
#include <sched.h>

#define BUFFER 0x40000
enum { SOURCE = 0x80, TARGET = 0x88, COUNT = 0x90, COMMAND = 0x98 };
enum { RUN = 1, TO_MEMORY = 2 };

static int put(struct devio *d, uint64_t reg, uint64_t value)
{
	struct devio_at at = { .region = 0, .width = 4, .offset = reg };
	uint32_t word = (uint32_t)value;

	return devio_write(d, &at, &word, sizeof(word));
}

static int copy(struct devio *d, uint64_t from, uint64_t to, uint32_t len, uint32_t command)
{
	struct devio_at at = { .region = 0, .width = 4, .offset = COMMAND };
	uint32_t word = RUN;
	int ret;

	assert(len <= EDU_BUFFER);
	ret = put(d, SOURCE, from);
	ret = ret ? ret : put(d, TARGET, to);
	ret = ret ? ret : put(d, COUNT, len);
	ret = ret ? ret : put(d, COMMAND, command);
	while (!ret && word & RUN) {
		sched_yield();
		ret = devio_read(d, &at, &word, sizeof(word));
	}
	return ret;
}

int edu_fetch(struct devio *d, uint64_t iova, uint32_t len)
{
	return copy(d, iova, BUFFER, len, RUN);
}

int edu_store(struct devio *d, uint64_t iova, uint32_t len)
{
	return copy(d, BUFFER, iova, len, RUN | TO_MEMORY);
}
