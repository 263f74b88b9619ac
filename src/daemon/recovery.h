/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_RECOVERY_H
#define PC_DAEMON_RECOVERY_H
/*
 * The fault thread without a source, and with one that has come again: what it has to remember for
 * that.  See recovery.c for the theory.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/block.h"

struct recovery {
	/* the old connections: what of them is in the kernel's or the bulk thread's hands */
	bool settling;
	bool bulk_over;			/* the bulk thread has said its last word */
	/* of a resumed source, while that lasts; -1 */
	int main_fd, urgent_fd;
	bool expects_urgent;
	bool open;			/* its main connection is being read */
	char peer[128];
	uint64_t resumed;		/* main connections of resumed sources so far */
	bool asked[BLOCK_MAX];		/* for what came of it */
	/* the answer under way */
	bool answering, marked;		/* the end mark is in the outbox, too */
	unsigned block;
	uint64_t at, size;		/* bytes of the bitmap */
};

#endif
