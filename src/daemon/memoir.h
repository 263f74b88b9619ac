/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_MEMOIR_H
#define PC_DAEMON_MEMOIR_H
/*
 * What the fault thread puts into the record (record.h): its own part of what a successor has to
 * know.  See memoir.c.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/block.h"
#include "core/session.h"
#include "daemon/faultloop.h"
#include "daemon/record.h"

struct memoir {
	struct session session;
	struct faultloop_times times;
	bool has_main;			/* a source was here */
	bool tail, main_eof, main_closed, running_told, ownership_unknown;
	/* SHUT is about to leave, whole messages only before it; it has left */
	bool closing, shut_clean, shut_sent;
	bool answer_sent;		/* what commits, where our answer does */
	uint32_t page_bits, ram_section;
	bool footers;
	int error;
	uint64_t owed, strays, recoveries;
	uint64_t package_size, device_offset, device_size, states_offset, states_size;
	char machine[256], peer[128];
	char reason[512];
	uint64_t cause_len;
};

struct memoir_block {
	char name[BLOCK_NAME];
	uint32_t kind;			/* enum block_kind */
	uint64_t length, page_size, file_offset;	/* bytes */
	uint64_t owed;			/* pages */
};

struct memoir_blocks {
	uint32_t n;
	struct memoir_block block[BLOCK_MAX];
};

/* Write down how far the session is; what backs its blocks.  Without a record: nothing. */
void memoir_write(const struct faultloop *f);
void memoir_write_blocks(const struct faultloop *f);
/* What an earlier process wrote.  1 there is some, 0 none, -EBADMSG. */
int memoir_read(const struct record *r, struct memoir *m);
int memoir_read_blocks(const struct record *r, struct memoir_blocks *b);

#endif
