/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The DMA verbs on the console, and what is known of a range at the moment when its event is taken:
 * how many of its pages are there, asked of the kernel without touching any.
 *
 *   dma GATE BLOCK OFFSET LENGTH IOVA FLAGS	declare; r reads, w writes, c coherent, e enforced
 *   dma-unmap | dma-sync GATE IOVA LENGTH	what was written is told as "written"
 *   dma-seal | dma-reset GATE
 *   dma-mapped GATE IOVA [ERRNO]		the answer to a "dma-range"
 *   dma-retry GATE IOVA
 *   dma-auto					every range is mapped at once, from now on
 */
#include "config.h"

#include "sharer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/guard.h"

static uint64_t number(const char *word)
{
	return word ? strtoull(word, NULL, 0) : 0;
}

static int declare(postcopy *p, char **word)
{
	const char *flags = word[6] ? word[6] : "";
	const struct postcopy_dma dma = {
		.size = sizeof(dma),
		.directions = (strchr(flags, 'r') ? POSTCOPY_DMA_READS : 0) |
			      (strchr(flags, 'w') ? POSTCOPY_DMA_WRITES : 0),
		.flags = strchr(flags, 'e') ? POSTCOPY_DMA_ENFORCED : 0,
		.gate = word[1],
		.block = word[2],
		.block_offset = number(word[3]),
		.length = number(word[4]),
		.iova = number(word[5]),
	};

	return strchr(flags, 'c') ? postcopy_dma_coherent(p, &dma) : postcopy_dma_map(p, &dma);
}

static int look_written(postcopy *p, char **word)
{
	bool unmap = strcmp(word[0], "dma-unmap") == 0;
	uint64_t iova = number(word[2]), length = number(word[3]), written = 0;
	int err = unmap ? postcopy_dma_unmap(p, word[1], iova, length, &written) :
			  postcopy_dma_sync(p, word[1], iova, length, &written);

	if (!err)
		sharer_report("written", ",\"command\":\"%s\",\"bytes\":%" PRIu64, word[0],
			      written);
	return err;
}

static int gate_only(postcopy *p, char **word)
{
	return strcmp(word[0], "dma-seal") == 0 ? postcopy_dma_seal(p, word[1]) :
						  postcopy_dma_reset(p, word[1]);
}

static int mapped(postcopy *p, char **word)
{
	return postcopy_dma_mapped(p, word[1], number(word[2]), (int)number(word[3]));
}

static int retry(postcopy *p, char **word)
{
	return postcopy_dma_retry(p, word[1], number(word[2]));
}

static const struct {
	const char *word;
	int (*does)(postcopy *p, char **word);
} commands[] = {
	{ "dma", declare },	     { "dma-unmap", look_written }, { "dma-sync", look_written },
	{ "dma-seal", gate_only },   { "dma-reset", gate_only },    { "dma-mapped", mapped },
	{ "dma-retry", retry },
};

int sharer_dma_obey(struct sharer_options *o, postcopy *p, char **word)
{
	if (strcmp(word[0], "dma-auto") == 0) {
		o->dma_auto = true;
		return 0;
	}
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		if (strcmp(word[0], commands[i].word) == 0)
			return commands[i].does(p, word);
	return -ENOSYS;
}

/* Pages of 4 KiB of the range that are there; -1: no such block. */
static long count_present(const struct sharer_options *o, const struct postcopy_event *e)
{
	unsigned char there[256];
	long n = 0;

	for (unsigned i = 0; i < o->n_blocks; i++) {
		const struct sharer_block *b = &o->block[i];

		for (uint64_t at = 0; strcmp(b->name, e->block) == 0 && at < e->length;) {
			uint64_t step = e->length - at < sizeof(there) * 4096 ?
						e->length - at :
						sizeof(there) * 4096;

			if (mincore(b->address + e->block_offset + at, step, there) < 0)
				return -1;
			for (uint64_t k = 0; k < step / 4096; k++)
				n += there[k] & 1;
			at += step;
		}
	}
	return n;
}

void sharer_dma_event(const struct sharer_options *o, postcopy *p, const struct postcopy_event *e)
{
	char gate[200], block[600];

	sharer_report_quote(gate, sizeof(gate), e->gate);
	if (e->type == POSTCOPY_EVENT_DMA_OPEN) {
		sharer_report("dma-open", ",\"gate\":%s", gate);
		return;
	}
	sharer_report("dma-range",
		      ",\"gate\":%s,\"block\":%s,\"iova\":%" PRIu64 ",\"length\":%" PRIu64
		      ",\"offset\":%" PRIu64 ",\"directions\":%u,\"flags\":%u,\"present\":%ld",
		      gate, sharer_report_quote(block, sizeof(block), e->block), e->iova,
		      e->length, e->block_offset, e->directions, e->dma_flags,
		      count_present(o, e));
	if (o->dma_auto)
		postcopy_dma_mapped(p, e->gate, e->iova, 0);
}
