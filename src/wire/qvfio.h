/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QVFIO_H
#define PC_WIRE_QVFIO_H
/*
 * The sections that QEMU's migration stream has for one VFIO device, from the first byte of each
 * to its footer.  7.2 frames the segments of a migration region (VFIO v1), later ones the data of a
 * stream (v2), and both do it alike.
 *
 * The reader is for one device: where several are mixed the caller looks at the section id that
 * stands behind the first byte, and hands each section to the reader of that id, whole.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/cursor.h"

enum qvfio_section {
	QVFIO_START = 1, /* setup */
	QVFIO_PART,	 /* an iteration of pre-copy */
	QVFIO_LAST,	 /* what is left when the device has stopped */
	QVFIO_FULL,	 /* configuration */
};

enum {
	QVFIO_WINDOW = 512,	     /* with so many bytes in it a reader never wants more */
	QVFIO_PACKET_HEAD = 276 + 12 /* of a multifd packet, up to the device's data */
};

/* What the configuration of a device looks like; it has no length in the stream. */
struct qvfio_shape {
	uint32_t config_space; /* bytes, 256 or 4096 */
	uint32_t vectors;      /* of MSI-X; 0: it has none */
};

uint64_t qvfio_config_length(const struct qvfio_shape *shape);

/* --- writing --- */

/* @name: idstr, "0000:00:05.0/vfio"; for START and FULL. */
void qvfio_put_begin(struct pen *p, enum qvfio_section section, uint32_t id, const char *name,
		     uint32_t instance);
void qvfio_put_setup(struct pen *p);
/* @length bytes follow, by the caller. */
void qvfio_put_data(struct pen *p, uint64_t length);
/* qvfio_config_length() bytes follow, by the caller. */
void qvfio_put_config(struct pen *p);
void qvfio_put_done(struct pen *p); /* the end of what the section holds ... */
void qvfio_put_init_sent(struct pen *p); /* ... or this, */
void qvfio_put_load_ready(struct pen *p); /* or this */
void qvfio_put_footer(struct pen *p, uint32_t id);

/* --- reading --- */

enum qvfio_what {
	QVFIO_NEED_MORE = 0,
	QVFIO_SETUP,	   /* the device is announced: START has ended */
	QVFIO_SEGMENT,	   /* event->length bytes of state begin */
	QVFIO_CONFIG,	   /* the same, of the configuration */
	QVFIO_DATA,	   /* the next of them */
	QVFIO_INIT_SENT,   /* what must be loaded before the switch-over has come */
	QVFIO_LOAD_READY,  /* the configuration that came on a multifd channel may be loaded */
	QVFIO_ROUND,	   /* a PART has ended */
	QVFIO_SAVED,	   /* LAST has ended: no more state */
	QVFIO_CONFIGURED,  /* FULL has ended: all of the device is there */
};

struct qvfio_event {
	size_t used;	 /* bytes of the window it took */
	uint64_t length; /* SEGMENT, CONFIG */
	const uint8_t *at; /* DATA: in the window */
	size_t len;
};

struct qvfio_rules {
	uint64_t segment, total; /* bytes: of one SEGMENT (1 MiB from 10.0 on), and of all */
	struct qvfio_shape shape;
	bool switchover_ack; /* the migration has that capability */
	bool multifd;	     /* state comes on multifd channels (10.0 and later) */
};

struct qvfio_reader {
	struct qvfio_rules rules;
	char name[256]; /* idstr; "" before START */
	uint32_t instance, id;
	int stage, state; /* private: enums in qvfio.c */
	enum qvfio_section section;
	bool init_sent, had_data;
	uint64_t left; /* of the bytes at hand */
	uint64_t bytes;
	uint64_t position;  /* bytes consumed */
	const char *reason; /* static text of -EPROTO */
};

void qvfio_reader_init(struct qvfio_reader *r, const struct qvfio_rules *rules);
/* enum qvfio_what, or -EPROTO (for good) with r->reason. */
int qvfio_next(struct qvfio_reader *r, const uint8_t *buf, size_t len, struct qvfio_event *e);

#endif
