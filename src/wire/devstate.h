/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_DEVSTATE_H
#define PC_WIRE_DEVSTATE_H
/*
 * The state of devices on its way: a stream of records for up to DEVSTATE_SLOTS devices, each of
 * which says which device, which attempt at saving it, and which record of that it is.
 * postcopy-device-state(7) has it byte by byte; devstate.c has why.
 *
 *   HEAD  { [CONFIG]  SEGMENT*  ROUND }*  SEGMENT*  END
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/cursor.h"
#include "wire/digest.h"

enum {
	DEVSTATE_VERSION = 1,
	DEVSTATE_SLOTS = 64,
	DEVSTATE_NAME = 64,	      /* bytes of a name, with its NUL */
	DEVSTATE_SESSION = 16,	      /* bytes of a session's UUID */
	DEVSTATE_GREETING = 40,	      /* bytes of the greeting of a channel of its own */
	DEVSTATE_RECORD_HEAD = 32,    /* in front of what a record holds */
	DEVSTATE_RECORD_TAIL = 8,     /* behind it */
	DEVSTATE_WINDOW = 256,	      /* with so many bytes in it a reader never wants more */
	DEVSTATE_CONFIG_MAX = 1 << 16 /* bytes; a PCIe configuration space has 4096 */
};

enum devstate_kind {
	DEVSTATE_REGION = 1, /* VFIO migration region: segments keep their sizes and their order */
	DEVSTATE_STREAM = 2, /* VFIO v2: bytes, whatever the segments */
};

/* The session that a UUID names, as people write it.  0 or -EINVAL. */
int devstate_session(const char *text, uint8_t session[DEVSTATE_SESSION]);

/* --- writing --- */

struct devstate_id {
	uint8_t session[DEVSTATE_SESSION];
	unsigned slot; /* of the stream; what the records of a device have in common */
	enum devstate_kind kind;
	const char *device; /* 1 to 63 printable characters; says which device of the VM */
	const char *compat; /* 0 to 63; what the device's twin must be like, see the man page */
};

struct devstate_writer {
	uint32_t slot, sequence, number;
	uint64_t segments, bytes; /* of SEGMENTs, in this sequence */
	uint64_t left;		  /* of the body at hand */
	struct digest body;
};

void devstate_put_greeting(struct pen *p, const uint8_t session[DEVSTATE_SESSION]);
/*
 * Begin attempt @sequence, which is larger than all before: what the stream had of the device is
 * void.
 */
void devstate_put_head(struct devstate_writer *w, struct pen *p, const struct devstate_id *id,
		       uint32_t sequence);
/* A body of @length bytes follows: the caller sends them, and tells of them in order ... */
void devstate_put_segment(struct devstate_writer *w, struct pen *p, uint64_t length);
void devstate_put_config(struct devstate_writer *w, struct pen *p, uint64_t length);
void devstate_fed(struct devstate_writer *w, const void *bytes, size_t len);
/* ... and closes it when all were told of. */
void devstate_put_tail(struct devstate_writer *w, struct pen *p);
/* An iteration of PRE_COPY ends, with segments or without. */
void devstate_put_round(struct devstate_writer *w, struct pen *p);
void devstate_put_end(struct devstate_writer *w, struct pen *p);

/* --- reading --- */

enum devstate_what {
	DEVSTATE_NEED_MORE = 0,
	DEVSTATE_BEGIN,	  /* of a device, or of another attempt: drop what came of it before */
	DEVSTATE_SEGMENT, /* a body of event->length bytes begins */
	DEVSTATE_CONFIG,  /* the same; at most one in a sequence */
	DEVSTATE_DATA,	  /* the next bytes of the body; not to be trusted before DEVSTATE_WHOLE */
	DEVSTATE_WHOLE,	  /* the body has ended, its digest is right */
	DEVSTATE_ROUND,	  /* an iteration ended */
	DEVSTATE_END,	  /* all of the device is there */
};

struct devstate_event {
	size_t used;	/* bytes of the window it took */
	unsigned slot;	/* DEVSTATE_DATA and WHOLE: that of the body */
	bool again;	/* BEGIN: the device had an attempt before this one */
	uint64_t length; /* SEGMENT, CONFIG */
	const uint8_t *at; /* DATA: in the window */
	size_t len;
};

/* What a device was called by its HEAD, and how far it has come. */
struct devstate_device {
	bool begun, ended, has_config;
	enum devstate_kind kind;
	uint32_t sequence, number; /* of the next record */
	uint64_t segments, bytes;
	char device[DEVSTATE_NAME], compat[DEVSTATE_NAME];
};

struct devstate_limits {
	uint64_t segment, total; /* bytes: of one, and of all of a device */
};

struct devstate_reader {
	uint8_t session[DEVSTATE_SESSION];
	struct devstate_limits limits;
	uint64_t position; /* bytes consumed */
	bool in_body;
	unsigned slot; /* of the body */
	uint64_t left;
	struct digest body;
	const char *reason; /* static text of -EPROTO */
	struct devstate_device devices[DEVSTATE_SLOTS];
};

/*
 * The session a channel's greeting names.  Bytes taken; 0: not all of it is there; -EPROTO, or
 * -EPROTONOSUPPORT for another version, with *why.
 */
int devstate_greeting(const uint8_t *buf, size_t len, uint8_t session[DEVSTATE_SESSION],
		      const char **why);
void devstate_reader_init(struct devstate_reader *r, const uint8_t session[DEVSTATE_SESSION],
			  const struct devstate_limits *limits);
/* enum devstate_what, or -EPROTO (for good) with r->reason. */
int devstate_next(struct devstate_reader *r, const uint8_t *buf, size_t len,
		  struct devstate_event *e);
/* The bytes have ended.  0: every device has, too; or -EPROTO with r->reason. */
int devstate_finish(struct devstate_reader *r);

#endif
