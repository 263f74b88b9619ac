/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What depends on the source's blocks, once the main thread said what backs each: memory, most of
 * all the ledger.  Where somebody keeps what outlives us, that is in a memfd which he has.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>

#include "core/guard.h"
#include "daemon/inject.h"
#include "daemon/memoir.h"
#include "sys/fd.h"
#include "sys/mem.h"

#define SMALLEST_PAGE 4096u

/* Untouched parts of it cost nothing: nothing is reserved, and NEVER is zero. */
static int make_ledger(struct faultloop *f, int kept)
{
	cleanup_fd int fd = kept;
	int ret;

	f->ledger_size = ledger_size(f->engine.blocks.pages);
	ret = fd < 0 ? 0 : mem_kept_size(fd, f->ledger_size);
	if (ret < 0)
		return ret;
	f->ledger_memory = fd < 0 ? mem_map_private(f->ledger_size) :
				    mem_map_shared(fd, 0, f->ledger_size);
	if (!f->ledger_memory)
		return -ENOMEM;
	return engine_use_ledger(&f->engine, f->ledger_memory, f->ledger_size);
}

/**
 * intake_use_pages - make the memory that depends on the longest page of all blocks
 *
 * Zeroes for ranges that offer no ZEROPAGE, and the main lane's landing slot.
 *
 * Return: 0 or -errno.
 */
int intake_use_pages(struct faultloop *f)
{
	uint64_t longest = SMALLEST_PAGE;

	for (unsigned i = 0; i < f->engine.blocks.n; i++)
		if (f->engine.blocks.block[i].page_size > longest)
			longest = f->engine.blocks.block[i].page_size;
	f->zeroes_size = longest;
	f->zeroes = mem_map_private(longest);
	f->placer.zeroes = f->zeroes;
	if (!f->zeroes)
		return -ENOMEM;
	return lane_use_pages(&f->main, longest);
}

/**
 * intake_blocks_done - the main thread said what backs every block
 *
 * Makes all memory that depends on the blocks: the ledger, a page of zeroes as long as the longest
 * page (for ranges that offer no ZEROPAGE), the landing slots of the lanes.
 * @ledger: an empty memfd, which outlives us, or -1; owned from here on
 *
 * Return: 0 or -errno; the lane stands still until this was called.
 */
int intake_blocks_done(struct faultloop *f, int ledger)
{
	int ret = make_ledger(f, ledger);

	if (ret == 0)
		ret = intake_use_pages(f);
	if (ret < 0)
		return ret;
	memoir_write_blocks(f);
	f->need = NEED_NOTHING;
	inject_moment(f->faults, FAULTPLAN_AT_MATCHED);
	return intake_urgent(f);
}
