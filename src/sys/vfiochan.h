/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_VFIOCHAN_H
#define PC_SYS_VFIOCHAN_H
/* A stream socket that carries vfio-user messages; what came of one is kept from call to call. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/vfiomsg.h"

#define VFIOCHAN_NEVER UINT64_MAX

/*
 * Where the tail of an answer is to lie, from byte @at of the message on.  What its reader does not
 * find there is no answer to @id that says it went well.
 */
struct vfiochan_into {
	uint16_t id;
	size_t at, len;
	uint8_t *to; /* the caller's; NULL: all of a message lies in the channel */
};

struct vfiochan {
	int fd;		/* -1: none; owned */
	uint8_t *buf;	/* owned */
	size_t room, have;
	int fds[VFIOMSG_FDS]; /* that came with the message in hand; owned */
	unsigned n_fds;
	struct vfiochan_into into; /* may be taken back in the middle of the answer */
};

/* Takes @fd over, also when it fails; @room: of the longest message.  0 or -errno. */
int vfiochan_init(struct vfiochan *c, int fd, size_t room);
/* Idempotent; fine for one that is all zero but for fd -1. */
void vfiochan_deinit(struct vfiochan *c);

/*
 * Read what is there, never waiting.  1: a message is whole, and stays so until vfiochan_done(); 0:
 * not yet; -ECONNRESET: the peer has gone; -EPROTO: it makes no sense.
 */
int vfiochan_pump(struct vfiochan *c, const struct vfiomsg_terms *terms);
/* The message in hand: its head and the number of descriptors; the body is returned. */
const uint8_t *vfiochan_message(const struct vfiochan *c, struct vfiomsg *m);
/* The first descriptor that came with it, which is the caller's then; -1: none. */
int vfiochan_steal(struct vfiochan *c);
/* Forget it, and close what came with it. */
void vfiochan_done(struct vfiochan *c);

/*
 * All of it.  @fd goes along and stays the caller's; -1: none.  @until: CLOCK_MONOTONIC in ns.  0,
 * -ECONNRESET, or -ETIMEDOUT: then part of it may have gone, and nothing can be said any more.
 */
int vfiochan_send(struct vfiochan *c, struct vfiomsg *m, int fd, uint64_t until);

/* Wait until one of @n can be read.  0, -ETIMEDOUT, or what poll(2) says. */
int vfiochan_wait(struct vfiochan *const *c, unsigned n, uint64_t until);

#endif
