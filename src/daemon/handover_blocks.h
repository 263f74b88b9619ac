/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_HANDOVER_BLOCKS_H
#define PC_DAEMON_HANDOVER_BLOCKS_H
/*
 * How each block of the source gets into a QEMU: its list, what the monitor says, and what the
 * process has mapped.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "daemon/handover_ram.h"
#include "daemon/snapshot.h"

enum handover_class {
	HANDOVER_SHARED,	/* a file: served in every process that maps it */
	HANDOVER_LAZY,		/* anonymous memory of QEMU's, empty: served there */
	HANDOVER_STREAMED,	/* held by us, complete before QEMU loads, and sent in the stream */
};

struct handover_block {
	char name[256];
	enum handover_class class;
	uint64_t length, page_size;	/* bytes, page size of QEMU's memory */
	uint64_t address;		/* LAZY: in its process */
	int file;			/* SHARED: owned; -1 */
	uint64_t file_offset;
	/* SHARED: the file has a name, so that another QEMU can map it */
	bool named;
	char why[96];			/* STREAMED: why */
};

struct handover_blocks {
	unsigned n;
	struct handover_block block[SNAPSHOT_BLOCKS];	/* in the order of the source's list */
};

/*
 * Waits as long as somebody keeps that process's mappings locked.  0, or -errno with @why (512
 * bytes): the block, what is wrong with it, what to do.
 */
int handover_blocks_find(struct handover_blocks *out, const struct snapshot *s,
			 const struct ram_list *ram, pid_t pid, char *why);
/* Close the files that are left. */
void handover_blocks_clear(struct handover_blocks *b);
/*
 * Could another QEMU take the VM over, when this one is gone?  Else the first block that died with
 * it.
 */
const struct handover_block *handover_blocks_mortal(const struct handover_blocks *b);
const char *handover_class_name(enum handover_class class);

#endif
