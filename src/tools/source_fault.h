/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_FAULT_H
#define PC_TOOLS_SOURCE_FAULT_H
/*
 * Named faults: what the source does wrong, and where.
 *
 *	KIND[=ARG][@POINT][,trigger=FILE]
 *	POINT = page:N | page:BLOCK/N | record:NAME | byte:N | channel:N
 *
 * page:N is the N-th page (from 0, either lane, pages of the block) that leaves after the
 * switch-over.  page:BLOCK/N is the page with that number in that block.  byte:N is a position on
 * the main connection, channel:N on that of devices.  A fault fires once, at its point or, when its
 * trigger file did not exist then, at the first later occasion of the same sort (page:BLOCK/N has
 * only one).
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SOURCE_MAX_FAULTS 16

enum source_action {
	SOURCE_STRAIGHT,  /* nothing is wrong */
	SOURCE_DELAY,	  /* wait .arg milliseconds, then go on */
	SOURCE_DROP,	  /* close every connection in an orderly way */
	SOURCE_TRUNCATE,  /* half of the thing, then close */
	SOURCE_CORRUPT,	  /* flip bits of it */
	SOURCE_REORDER,	  /* the next page first */
	SOURCE_DUPLICATE, /* twice */
	SOURCE_WITHHOLD,  /* claim the page and never send it */
	SOURCE_DIE,	  /* reset every connection */
	SOURCE_SKIP,	  /* leave the record out */
	SOURCE_EARLY_EOF, /* end the stream here */
	SOURCE_EXTRA,	  /* send something more */
	SOURCE_WRONG_SECTION,
	SOURCE_WRONG_OFFSET,
	SOURCE_WRONG_NAME,
	SOURCE_UNKNOWN_FLAG,
	SOURCE_UNKNOWN_COMMAND,
	SOURCE_HUGE_LENGTH,
	SOURCE_N_ACTIONS
};

enum source_point { SOURCE_AT_PAGE = 1, SOURCE_AT_RECORD = 2, SOURCE_AT_BYTE = 4,
		    SOURCE_AT_CHANNEL = 8 };

struct source_fault_kind {
	const char *name;
	enum source_action action;
	unsigned points;   /* mask of enum source_point that may be given */
	const char *where; /* point when none is given; NULL: one must be given */
	bool takes_arg;
	bool main_only; /* makes no sense on the urgent lane */
	const char *help;
};

struct source_fault {
	const struct source_fault_kind *kind;
	uint64_t arg;
	enum source_point point;
	uint64_t number; /* page or byte */
	char name[256];	 /* record or block; "": any block */
	char *trigger;	 /* owned; NULL: none */
	atomic_bool fired;
};

struct source_faults {
	unsigned n;
	struct source_fault list[SOURCE_MAX_FAULTS];
};

/* 0, or -EINVAL / -ENOSPC with @why (static text). */
int source_faults_add(struct source_faults *f, const char *text, const char **why);
void source_faults_deinit(struct source_faults *f);

/* Each returns the fault that fires now, marked as fired, or NULL. */
struct source_fault *source_faults_at_page(struct source_faults *f, uint64_t ordinal,
					   const char *block, uint64_t page, bool urgent);
struct source_fault *source_faults_at_record(struct source_faults *f, const char *record);
/* Will one fire at that record, as things are? */
bool source_faults_awaits(struct source_faults *f, const char *record);
/* @point: BYTE or CHANNEL.  @offset: how far into [at, at+len) it strikes. */
struct source_fault *source_faults_at_byte(struct source_faults *f, enum source_point point,
					   uint64_t at, uint64_t len, uint64_t *offset);

/* Tables for --fault help, for the manual page's test and for unit tests. */
const struct source_fault_kind *source_fault_kinds(unsigned *n);
const char *const *source_fault_records(unsigned *n);

#endif
