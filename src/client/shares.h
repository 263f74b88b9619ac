/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CLIENT_SHARES_H
#define PC_CLIENT_SHARES_H
/*
 * The regions of a VM's memory that a back-end was told of, and the gate before its queues.
 *
 * One thread changes them; any thread may ask shares_queue_open().
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/conn.h"

#define SHARES_MAX    64
#define SHARES_QUEUES 256

struct share {
	uint8_t *base; /* of the mapping, whole pages */
	size_t length;
	void *address; /* where the region begins in it */
};

struct shares {
	unsigned n;
	struct share share[SHARES_MAX];
	bool listening, complete; /* what the daemon said */
	bool broken;		  /* something was not served: shut until nothing is shared */
	bool lost;		  /* nothing is served any more: shut for good */
	atomic_bool open;
	_Atomic uint64_t started[SHARES_QUEUES / 64];
};

struct shares_region {
	int fd;
	uint64_t offset, length;
};

/* 0 with *@address; -errno with the text of @c. */
int shares_add(struct shares *s, struct conn *c, const struct shares_region *region,
	       void **address);
int shares_drop(struct shares *s, void *address);
/* What an event means for them; it may become DISABLED. */
void shares_hear(struct shares *s, struct postcopy_event *event);
int shares_queue_set(struct shares *s, unsigned queue, bool started);
bool shares_queue_open(const struct shares *s, unsigned queue);

#endif
