/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DEVTHREAD_H
#define PC_DAEMON_DEVTHREAD_H
/*
 * One device and the thread that owns it: orders go in, results come out, in the order of the
 * orders.  Everything here is for the main thread, and nothing here waits; see devthread.c.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/vfiostate.h"
#include "sys/devio.h"
#include "wire/devstate.h"

enum {
	DEVTHREAD_ORDERS = 256,	/* at a time, until their results were taken */
};

enum devthread_verb {
	DEVTHREAD_OPEN,		/* connect, and ask what it can; again when that failed */
	DEVTHREAD_SET,
	DEVTHREAD_RESET,
	DEVTHREAD_LOAD,
	DEVTHREAD_MAP,
	DEVTHREAD_UNMAP,
	DEVTHREAD_VERBS,
	/* a result without an order: nothing is left behind the handle */
	DEVTHREAD_LOST = DEVTHREAD_VERBS,
};

/* The length of the segment at *at, which then is where its bytes begin.  1; 0: no more; -errno. */
typedef int devthread_segment(int fd, uint64_t *at, uint64_t *length);

struct devthread_order {
	enum devthread_verb verb;
	enum vfiostate state;	    /* SET */
	int fd;			    /* LOAD: of the stream; owned from here on */
	devthread_segment *segment; /* LOAD */
	struct devio_dma dma;	    /* MAP; UNMAP: iova, size */
};

struct devthread_result {
	enum devthread_verb verb;
	int error;		    /* 0 or -errno */
	int state;		    /* what the device says now; -errno: it does not */
	struct vfiostate_caps caps; /* OPEN */
	char compat[DEVSTATE_NAME]; /* OPEN: see devcompat.h; "": it cannot tell */
	const char *why;	    /* static; NULL: the error says it all */
	uint64_t iova;		    /* MAP, UNMAP */
};

struct devthread_config {
	const char *name;	/* for the log; copied */
	/* Called in the thread; *why is static text. */
	int (*open)(void *ctx, struct devio *out, const char **why);
	void *ctx;		/* outlives the thread; see devthread_free() */
	bool asks;		/* it is a vfio-user server, which may ask us at any time */
	uint64_t limit_ns;	/* of each call */
	int doorbell;		/* rung when there is a result; stays the caller's */
};

struct devthread;

/* NULL: there is no memory, or no thread. */
struct devthread *devthread_new(const struct devthread_config *config);
/* False: as many orders as there may be are out. */
bool devthread_put(struct devthread *t, const struct devthread_order *order);
bool devthread_get(struct devthread *t, struct devthread_result *result);
/*
 * Time has passed: interrupt a call whose time is over, and give up one that does not end.  When to
 * look again (CLOCK_MONOTONIC, ns), UINT64_MAX: when there is an order.
 */
uint64_t devthread_look(struct devthread *t, uint64_t now);
/* The call that is being made; false: none is. */
bool devthread_doing(const struct devthread *t, struct devwatch_call *out);
/* It never came back. */
bool devthread_given_up(const struct devthread *t);
/* Of the stream that is being loaded, or was. */
uint64_t devthread_loaded(const struct devthread *t);
/*
 * End it.  False: the thread is stuck in a call, and is left behind with all it has, config.ctx
 * too.
 */
bool devthread_free(struct devthread *t);

#endif
