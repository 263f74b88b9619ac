/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_VFIOUSER_H
#define PC_TESTS_VFIOUSER_H
/*
 * A vfio-user server of our own, from its specification, for one client and one device: see
 * vfiouser-server.c for what it can be told.
 *
 *	vfiouser-server.c	options, the socket
 *	vfiouser_talk.c		messages in and out, and the vices in them
 *	vfiouser_serve.c	what each command does
 *	vfiouser_v1.c		the migration region of the first generation
 *	vfiouser_trace.c	what was asked, and when; work of the device by itself
 *	vfiouser_device.c	the device
 */
#include "wire/vfiomsg.h"
#include "wire/vfioterms.h"

#include "vfiouser_device.h"

enum {
	VFIOUSER_BAR = 0,
	VFIOUSER_CONFIG = 7,
	VFIOUSER_MIGRATION = 9, /* only in the first generation */
	VFIOUSER_MAPPINGS = 256,
	VFIOUSER_DIRTY = 1024, /* pages that are remembered */
	/* Registers of the BAR, 8 bytes each. */
	VFIOUSER_REG_ADDRESS = 0,
	VFIOUSER_REG_VALUE = 1,
	VFIOUSER_REG_COMMAND = 2, /* 1: the value to memory, 2: memory to the value */
	VFIOUSER_REG_DIGEST = 3,  /* of its state; read only */
	VFIOUSER_REGS = 16,
	/* The migration region: registers, then a window that can be mapped. */
	VFIOUSER_WINDOW = 0x1000,
	VFIOUSER_WINDOW_SIZE = 0x4000,
};

/* What is wrong with one answer. */
enum vfiouser_vice {
	VICE_NONE,
	VICE_DIE,	 /* gone before it answers */
	VICE_DIE_AFTER,	 /* once it has answered */
	VICE_DIE_HALF,	 /* in the middle of its answer */
	VICE_SILENT,	 /* never answers */
	VICE_FLOOD,	 /* never answers, asks for DMA without end */
	VICE_LATE,	 /* answers when the next question came */
	VICE_ID,	 /* answers another request */
	VICE_TYPE,	 /* answers with a command */
	VICE_COMMAND,	 /* answers another command */
	VICE_TINY,	 /* says a size smaller than a head */
	VICE_HUGE,	 /* says a size that was not agreed on */
	VICE_SHORT,	 /* leaves out the last byte */
	VICE_LONG,	 /* adds one */
	VICE_ERROR,	 /* fails for no reason */
	VICE_ERROR_BODY, /* fails, with a body */
	VICE_VERSION,	 /* of VERSION: a version that was not offered */
	VICES,
};

struct vfiouser_mapping {
	uint64_t iova, size, offset;
	int fd; /* -1: by messages */
};

struct vfiouser {
	int sock, twin; /* twin: our end, or -1 */
	unsigned generation;
	bool allow_twin, pad, reset_keeps, map_window;
	bool trace;		/* print what is asked, and what is missing then */
	uint64_t work;		/* words that it looks at when it begins to run */
	bool early;		/* before it answers that it does */
	enum vfiouser_vice vice;
	uint64_t vice_at, heard; /* messages, from 0 */
	struct vfiomsg *late;	 /* an answer that is still to go; owned */

	bool agreed; /* there was a VERSION */
	struct vfioterms said;
	struct vfiomsg_terms terms;
	struct vfiouser_device device;
	uint64_t regs[VFIOUSER_REGS];
	struct vfiouser_mapping mappings[VFIOUSER_MAPPINGS];
	unsigned n_mappings;
	uint64_t log_page; /* 0: nobody asked for what the device writes */
	uint64_t dirty[VFIOUSER_DIRTY]; /* addresses of it */
	unsigned n_dirty;
	uint16_t next_id;

	/* First generation: what the window holds. */
	int window_fd;
	uint8_t *window;
	uint64_t segment, data_size; /* the longest, and that which lies in the window */
	uint32_t segments;	     /* so far */
	bool segment_out; /* one lies in the window until it is acknowledged */

	uint8_t *in, *out; /* bodies and tails */
	int gift;	   /* a descriptor for the next answer, or -1 */
};

/* vfiouser_talk.c: 0, or -errno when the client has gone or makes no sense. */
int vfiouser_receive(int sock, struct vfiomsg *m, uint8_t **body, int *fd,
		     const struct vfiomsg_terms *terms);
int vfiouser_send(int sock, struct vfiomsg *m, int fd);
int vfiouser_answer(struct vfiouser *s, struct vfiomsg *m);
/* "DIE" and the like; VICES for none of them. */
enum vfiouser_vice vfiouser_vice(const char *name);

/* vfiouser_serve.c: until the client leaves. */
void vfiouser_serve(struct vfiouser *s);

/* Eight bytes of the client's memory, by a descriptor or by asking.  0 or -errno. */
int vfiouser_dma(struct vfiouser *s, bool write, uint64_t address, uint64_t *value);

/* vfiouser_trace.c: a command has been handled; answered. */
void vfiouser_trace(const struct vfiouser *s, const struct vfiomsg *ask, int err);
void vfiouser_work(struct vfiouser *s, enum vfiouser_state before);

/* vfiouser_log.c: 0 or -errno; report: the answer's bytes, in room for @len, and how many. */
int vfiouser_log_start(struct vfiouser *s, const struct vfiomsg *ask);
int vfiouser_log_stop(struct vfiouser *s);
int vfiouser_log_report(struct vfiouser *s, const struct vfiomsg *ask, uint8_t *out, size_t *len);
void vfiouser_log(struct vfiouser *s, uint64_t address);

/* vfiouser_v1.c */
int vfiouser_v1_read(struct vfiouser *s, const struct vfiomsg_access *a, void *buf);
int vfiouser_v1_write(struct vfiouser *s, const struct vfiomsg_access *a, const void *buf);

#endif
