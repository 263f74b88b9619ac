/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DEVICES_PARTS_H
#define PC_DAEMON_DEVICES_PARTS_H
/*
 * What the files of the devices share: devices.c has all of them and the main loop, devices_steps.c
 * what one does next, devices_dma.c its memory, devices_ask.c memory that it asks for by messages,
 * devices_report.c what is told.
 */
#include "daemon/devices.h"

#include "core/cutover.h"
#include "core/devgroup.h"
#include "daemon/devthread.h"

/* A block of the VM, on our side.  Nobody touches a page of it that is not there. */
struct device_block {
	int fd;			/* owned; -1: not shared, so no device can reach it */
	uint64_t file_offset, length;
	uint8_t *map;		/* NULL: nobody needed it yet */
};

/* A range of its set; @taken: the device has it, or was told to take it. */
struct device_range {
	struct gate_span span;
	bool there;		/* all of it is, and it may be mapped by descriptor */
	bool taken, direct;	/* direct: by descriptor, not by messages */
};

enum device_ask_state { ASK_NONE, ASK_ASKED, ASK_OUT, ASK_ANSWERED };

/* What the device's thread waits for; see devices_ask.c. */
struct device_ask {
	_Atomic int state;	/* enum device_ask_state */
	unsigned block;
	uint64_t offset, length;
	int error;
	int bell;		/* the thread's; owned */
	_Atomic bool closed;	/* nobody answers any more */
	_Atomic bool everything; /* all of the set is there for good */
	bool unmapping;		/* main's: the last one is still being forgotten */
};

struct device {
	struct devices *all;
	const struct options_vfio *o;
	unsigned index;
	struct devthread *thread;
	uint64_t limit_ns;

	/* main's */
	bool opening, open;
	struct vfiostate_caps caps;
	char compat[DEVSTATE_NAME];
	uint64_t retry_ns;	/* when to try to open it again */
	struct devgroup group;	/* of one */
	struct cutover cutover;
	int gate;		/* of the gatekeeper; -1: none */
	bool declared;		/* its set, as far as the options say it */
	unsigned declaring;	/* requests that have not ended */
	GArray *ranges;		/* struct device_range */
	unsigned mapping;	/* orders that are out */
	bool awaits_state;	/* the group wants it to be loaded */
	unsigned attempt;	/* of its twin's saving, that was given to it; 0: none */
	uint64_t bytes, segments;
	bool lost;
	int error;
	char why[256];
	uint64_t since_ns;	/* when it last took a step */
	const char *stage;	/* that step, for reports */

	struct device_ask ask;
};

struct devices {
	struct devices_config config;
	struct device *device[OPTIONS_VFIO_MAX];
	unsigned n;
	const struct snapshot *snapshot;	/* phases.c's; NULL: none yet */
	struct device_block block[SNAPSHOT_BLOCKS];
	unsigned n_blocks;
	int doorbell;
	guint bell, timer;
	int asks;		/* the gate of what is asked for; -1: not yet */
	bool wanted;		/* somebody wants the VM to run */
	uint64_t wanted_ns;
	bool let;		/* it may */
	bool stepping;
};

/* devices.c */
void device_lose(struct device *d, int error, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
void device_enter(struct device *d, const char *stage);
/* What it holds half is taken from it, by a reset.  0; -EPERM: it was asked to run. */
int device_abort(struct device *d, int error);
/* Faults are served, and the session has not failed. */
bool devices_serve(const struct devices *all);
bool devices_failed(const struct devices *all);
/* The VM runs here. */
bool devices_run(const struct devices *all);

/* devices_steps.c: what it does next.  True: something has changed. */
bool device_step(struct device *d, uint64_t now);
/* Loaded, or lost. */
bool device_settled(const struct device *d);
/* When it is given up for want of something that does not come; UINT64_MAX: it is not. */
uint64_t device_gives_up(const struct device *d);
/* The VM is about to run. */
void device_let(struct device *d);

/* devices_dma.c */
int device_dma_init(struct device *d);
/* Say what it reaches. */
void device_declare(struct device *d);
/* Have it take what it can now. */
void device_map(struct device *d);
/* All of its set that has to be mapped before it is loaded, or started, is. */
bool device_premapped(const struct device *d);
bool device_mapped(const struct device *d);
void device_went_dma(struct device *d, const struct devthread_result *r);
/* Blocks, when they are known. */
void devices_take_blocks(struct devices *all);
void devices_drop_blocks(struct devices *all);
uint8_t *devices_block_map(struct devices *all, unsigned block);

/* devices_ask.c */
/* In the device's thread; @ctx: the device.  0 or -errno. */
int device_ask_read(void *ctx, uint64_t iova, void *buf, size_t len);
int device_ask_write(void *ctx, uint64_t iova, const void *buf, size_t len);
int device_ask_init(struct device *d);
/* What the thread asks for is wanted. */
void device_ask_look(struct device *d);
/* Nothing is answered any more. */
void device_ask_close(struct device *d);

#endif
