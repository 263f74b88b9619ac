/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_RECORD_H
#define PC_DAEMON_RECORD_H
/*
 * The record: what a process that takes our place has to know and cannot find out.  It lies in a
 * memfd, which outlives us where somebody keeps it (vault.h).  See record.c for how it stays whole.
 *
 * Each kind has one thread that writes it: the fault thread SESSION and BLOCKS, the main thread the
 * others.  Nobody reads but a successor, once whoever wrote has ended.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum record_kind {
	RECORD_SESSION,		/* how far the session is; the fault thread's */
	RECORD_BLOCKS,		/* the source's blocks, and what backs each; the same thread's */
	RECORD_DOOR,		/* the door as a whole */
	RECORD_CLIENT,		/* a client of the door; as many as RECORD_CLIENTS */
	RECORD_PHASES,		/* what the main thread did beside the door */
	RECORD_KINDS,
};

#define RECORD_SESSION_MAX (8u << 10)	/* bytes that a slot of a kind holds */
#define RECORD_BLOCKS_MAX  (32u << 10)
#define RECORD_DOOR_MAX	   (64u << 10)
#define RECORD_CLIENT_MAX  (64u << 10)
#define RECORD_PHASES_MAX  (1u << 10)
#define RECORD_CLIENTS	   128

struct record;

/* A fresh one in a memfd, mapped.  0 or -errno. */
int record_new(struct record **out);
/*
 * One that an earlier process left; @fd is owned from here on, also on failure.  0; -EBADMSG: it is
 * no record, or of another layout, and nothing of it was touched; or another -errno.
 */
int record_adopt(struct record **out, int fd);
/* Its memfd; stays the record's. */
int record_fd(const struct record *r);
/* The content of a slot: whole or not at all, whenever we die.  @len is neither 0 nor too much. */
void record_put(struct record *r, enum record_kind kind, unsigned index, const void *bytes,
		size_t len);
/* Its bytes; 0: there is nothing.  -EMSGSIZE: more than @max. */
ssize_t record_get(const struct record *r, enum record_kind kind, unsigned index, void *bytes,
		   size_t max);
void record_drop(struct record *r, enum record_kind kind, unsigned index);
/* Number of the layout: a binary with another one cannot follow us. */
unsigned record_layout(void);
/* Our mapping and descriptor; what the vault keeps stays.  NULL is fine. */
void record_free(struct record *r);

#endif
