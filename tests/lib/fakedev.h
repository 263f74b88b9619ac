/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_FAKEDEV_H
#define PC_TESTS_FAKEDEV_H
/*
 * A device behind the VFIO interface that is only a model: of the first version of its migration, a
 * region with a file of registers and a window, or of the second, features and a stream.  It does
 * what the interface says, to the letter, unless it is told to fail, and it watches who drives it:
 * what no device has to bear is noted as wrong, also where this one bears it.
 *
 * The tables in it are its own, not those of the code that it tests.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rng.h"
#include "sys/devio.h"

enum {
	FAKEDEV_CONFIG = 7,	 /* region: only the word of command is in it */
	FAKEDEV_REGION = 9,
	FAKEDEV_SIZE = 0x5000,	 /* of the region */
	FAKEDEV_SEGMENT_MIN = 32,
	FAKEDEV_SEGMENT_MAX = 0x3000,
	FAKEDEV_SEGMENTS = 16,
	FAKEDEV_BUS = 4,
	FAKEDEV_DMAS = 64,	 /* mappings */
};

/* What is done to the device; each is counted, and can be told to fail. */
enum fakedev_op {
	FAKEDEV_INFO,
	FAKEDEV_DESCRIBE,	/* a region */
	FAKEDEV_MAP,
	FAKEDEV_RESET,
	FAKEDEV_STATE,		/* read: device_state, MIG_DEVICE_STATE */
	FAKEDEV_CHANGE,		/* written */
	FAKEDEV_ARC,		/* v2: each single one of a change */
	FAKEDEV_PENDING,
	FAKEDEV_OFFSET,
	FAKEDEV_LENGTH,		/* data_size read */
	FAKEDEV_TAKE,		/* the window read, or the stream */
	FAKEDEV_GIVE,		/* the window written, or the stream */
	FAKEDEV_COMMIT,		/* data_size written */
	FAKEDEV_FEATURE,	/* any other */
	FAKEDEV_PRECOPY,
	FAKEDEV_BAR,		/* region 0 */
	FAKEDEV_COMMAND,	/* the word of its configuration space, both ways */
	FAKEDEV_DMA_MAP,
	FAKEDEV_DMA_UNMAP,
	FAKEDEV_OPS,
};

enum fakedev_effect {
	FAKEDEV_FAIL = 1,	/* value: errno; nothing was done */
	FAKEDEV_BREAK,		/* value: errno; the device is in ERROR */
	FAKEDEV_LATE,		/* value: errno, although it was done */
	FAKEDEV_SHORT,		/* value: so many bytes fewer than asked */
	FAKEDEV_LIE,		/* value: what is read; done otherwise */
	FAKEDEV_SKIP,		/* not done, and told as done */
	FAKEDEV_HANG,		/* not done; comes back at the deadline */
	FAKEDEV_HANG_DONE,	/* done; comes back at the deadline */
	FAKEDEV_VANISH,		/* value: errno of this call and all that follow */
};

struct fakedev_fault {
	enum fakedev_op op;
	unsigned nth;		/* 1: the next one, 0: each; counts down */
	enum fakedev_effect effect; /* 0: none */
	uint64_t value;
};

enum fakedev_window {
	FAKEDEV_TRAPPED,	/* no part can be mapped */
	FAKEDEV_MAPPED,		/* all but the page of the registers */
	FAKEDEV_PARTLY,		/* one page of it */
};

enum fakedev_arcs {
	FAKEDEV_FULL,		/* every valid value from every other, and from itself */
	FAKEDEV_DIAGRAM,	/* what the first text draws, and back to RUNNING */
	FAKEDEV_VFIOUSER,	/* what a well-known server takes */
};

enum fakedev_reach {
	FAKEDEV_KERNEL,		/* pins what is mapped, in every state */
	FAKEDEV_SERVER,		/* maps nothing in STOP and STOP_COPY; without a descriptor asks */
};

struct fakedev_config {
	unsigned version;	/* 1, 2; 0: nothing of migration */
	uint64_t seed;		/* of its state: two devices with one seed have the same */
	unsigned segments, early; /* of its state; so many of them in pre-copy */
	bool endless;		/* there is always one more in pre-copy */
	bool idle;		/* no guest uses it yet */
	enum fakedev_reach reach;
	unsigned dma_limit;	/* mappings at a time; 0: FAKEDEV_DMAS */
	uint64_t memlock;	/* bytes of all of them; 0: any number */
	/* v1 */
	bool ndma;
	bool no_bulk;		/* the window takes 8 bytes at most */
	bool strict_reserved;	/* and no access to the reserved field */
	bool error_at_exit;	/* bad data: ERROR instead of RESUMING */
	enum fakedev_window window;
	enum fakedev_arcs arcs;
	uint32_t data_offset;	/* 0: 0x1000 */
	/* v2 */
	uint64_t flags;		/* of VFIO_DEVICE_FEATURE_MIGRATION */
	bool end_is_zero;	/* nothing now: 0 instead of ENOMSG */
	size_t chunk;		/* most that a read of the stream gives; 0: any */
};

/* Devices that reach each other's memory, and what they must not run without. */
struct fakedev;
struct fakedev_bus {
	struct fakedev *dev[FAKEDEV_BUS];
	unsigned n;
	bool (*gate)(void *arg); /* may a device touch memory?  NULL: always */
	void *arg;
};

/* Saving or loading, from its begin to its end. */
struct fakedev_session {
	unsigned next;		/* segment: to be given, or expected */
	size_t at;		/* v2: byte in it, or in the collected stream */
	bool pending_read, offered, sized;
	uint64_t lied;		/* v1: what data_size was said to be */
	uint8_t *seen;		/* v1: which bytes of the segment were read, or written */
	bool bad, last, finished; /* loading: what came is not what was saved; it is whole */
	uint64_t seed;		/* whose state it is */
};

struct fakedev {
	struct fakedev_config c;
	struct devio dev;	/* for who drives it */
	uint32_t state;		/* v1: all of the register */
	uint32_t reserved;	/* v1: the bits that must stay */
	struct fakedev_session s;
	int file;
	uint8_t *region;	/* FAKEDEV_SIZE bytes */
	uint8_t *stream;	/* v2, what came in */
	size_t stream_len, stream_room;
	bool busy;		/* a guest uses it: it may touch memory and other devices */
	bool must_look;		/* something failed: the state has to be read */
	bool must_reset;
	struct fakedev_fault fault[8];
	unsigned count[FAKEDEV_OPS];
	int gone;
	struct fakedev_bus *bus;
	struct devio_dma dma[FAKEDEV_DMAS];
	unsigned n_dma;
	uint16_t command;	/* of PCI */
	/* Called before anything is done. */
	void (*before)(void *arg, enum fakedev_op op);
	/* Is all of that memory there?  NULL: it is. */
	bool (*resident)(void *arg, const struct devio_dma *m);
	void *arg;
	char wrong[160];	/* the first thing; empty: none */
	char trace[4096];	/* every operation, a word; the same in a row is told once */
	size_t trace_len;
};

void fakedev_init(struct fakedev *f, const struct fakedev_config *c);
void fakedev_deinit(struct fakedev *f);
void fakedev_join(struct fakedev *f, struct fakedev_bus *bus);
void fakedev_fail(struct fakedev *f, enum fakedev_op op, unsigned nth, enum fakedev_effect effect,
		  uint64_t value);
void fakedev_trace_clear(struct fakedev *f);
/* What somebody did who drives it; NULL: nothing was wrong. */
const char *fakedev_wrong(const struct fakedev *f);
/* The seed of the state that it was given whole; 0: none. */
uint64_t fakedev_loaded(const struct fakedev *f);
/* v1: is that value in the table of what may be written at all? */
bool fakedev_v1_valid(uint32_t value, bool ndma);
/* v2: the next state on the way, 0 when there is none. */
uint32_t fakedev_v2_hop(uint64_t flags, uint32_t from, uint32_t to);

/* --- between the files of the device --- */

enum fakedev_verdict { FAKEDEV_GO, FAKEDEV_ANSWERED };
/* Count, trace, and look for a fault: ANSWERED has *ret. */
enum fakedev_verdict fakedev_begin(struct fakedev *f, enum fakedev_op op, uint64_t until,
				   ssize_t *ret);
/* What the fault makes of a result, or of a number that is read. */
ssize_t fakedev_end(struct fakedev *f, enum fakedev_op op, ssize_t ret);
uint64_t fakedev_says(struct fakedev *f, enum fakedev_op op, uint64_t truth);
void fakedev_note(struct fakedev *f, const char *what);
/* It has come to a state in which it may do that. */
void fakedev_moved(struct fakedev *f);
bool fakedev_running(const struct fakedev *f);
bool fakedev_quiesced(const struct fakedev *f);

/* How many segments can be read while it runs. */
unsigned fakedev_early(const struct fakedev *f);
size_t fakedev_segment_size(const struct fakedev *f, unsigned n);
/* Its content, FAKEDEV_SEGMENT_MAX bytes of room. */
void fakedev_segment(const struct fakedev *f, unsigned n, uint8_t *out);
/* Is that the segment which has to come next?  Notes it. */
bool fakedev_segment_accept(struct fakedev *f, const uint8_t *bytes, size_t len);
void fakedev_session_begin(struct fakedev *f);

int fakedev_dma_map(struct fakedev *f, const struct devio_dma *m, uint64_t until);
int fakedev_dma_unmap(struct fakedev *f, uint64_t iova, uint64_t size, uint64_t until);
/* @out or @in */
ssize_t fakedev_command(struct fakedev *f, const struct devio_at *at, void *out, const void *in,
			size_t len, uint64_t until);
/* State begins to come in. */
void fakedev_loads(struct fakedev *f);

ssize_t fakedev_v1_read(struct fakedev *f, const struct devio_at *at, void *buf, size_t len,
			uint64_t until);
ssize_t fakedev_v1_write(struct fakedev *f, const struct devio_at *at, const void *buf, size_t len,
			 uint64_t until);
size_t fakedev_v1_describe(const struct fakedev *f, uint8_t *out);
int fakedev_v2_feature(struct fakedev *f, uint32_t flags, void *data, size_t len, uint64_t until);
ssize_t fakedev_v2_read(struct fakedev *f, void *buf, size_t len);
ssize_t fakedev_v2_write(struct fakedev *f, const void *buf, size_t len);
int fakedev_v2_precopy(struct fakedev *f, struct devio_precopy *out);

#endif
