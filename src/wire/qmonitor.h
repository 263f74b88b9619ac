/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QMONITOR_H
#define PC_WIRE_QMONITOR_H
/*
 * What QEMU's human monitor says about memory: `info ramblock`, `info mtree -f` and `gpa2hva`.
 *
 * These texts are the only place where a block's name meets its address in the process.  They are
 * made for people and no promise is made about them, so a line that is not exactly as
 * known is an error, never skipped: a block that is overlooked is memory that is not served.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QMONITOR_NAME_MAX 256

/* A row of `info ramblock`. */
struct qmonitor_block {
	char name[QMONITOR_NAME_MAX]; /* idstr */
	uint64_t page_size;	      /* host pages it is made of, bytes */
	/* in QEMU's own numbering of all RAM; not an address of the guest */
	uint64_t offset;
	uint64_t used, total;	      /* bytes; used is what migrates, total what is mapped */
	bool has_address;	      /* 10.0 and 11.1 tell the next two, 7.2 does not */
	uint64_t address;	      /* in QEMU's process */
	bool read_only;		      /* to the guest */
};

enum qmonitor_kind {
	QMONITOR_RAM,
	QMONITOR_ROM,	/* "rom": read-only RAM */
	QMONITOR_ROMD,	/* read as RAM, written as a device */
	QMONITOR_NV_RAM,
	QMONITOR_OTHER, /* a device */
};

/* A line of a flat view: a piece of the guest's address space. */
struct qmonitor_range {
	/* of the memory region: the block's name without a device path */
	char name[QMONITOR_NAME_MAX];
	uint64_t start, last;	      /* addresses of the guest, both within */
	uint64_t offset;	      /* of start, in the region */
	enum qmonitor_kind kind;
};

/* The answer to `gpa2hva ADDRESS`. */
struct qmonitor_place {
	uint64_t guest;		      /* the address asked for */
	char name[QMONITOR_NAME_MAX]; /* memory region */
	uint64_t address;	      /* in QEMU's process */
};

/*
 * @text need not be terminated; lines end with \n or \r\n.
 *
 * Blocks in the order of the text.  Their number; -EPROTO with *why (static text) not as known;
 * -E2BIG more than @max.
 */
int qmonitor_ramblock(const char *text, size_t len, struct qmonitor_block *out, unsigned max,
		      const char **why);

/*
 * The ranges of the flat view that has the address space "memory", ascending; devices too when
 * @devices.  As above; -ENOENT: there is no such view.
 */
struct qmonitor_view {
	struct qmonitor_range *out;
	unsigned max;
	bool devices;
};
int qmonitor_flatview(const char *text, size_t len, const struct qmonitor_view *view,
		      const char **why);

/* 0; -ENOENT nothing is mapped there, or no RAM; -EPROTO with *why. */
int qmonitor_gpa2hva(const char *text, size_t len, struct qmonitor_place *out, const char **why);

#endif
