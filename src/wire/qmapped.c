/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The file in its order:
 *
 *   header, with the capability · START ram { for each block: name, length, its places · bitmap ·
 *   up to the next MiB · pages } · PART ram {} · END ram {} · device part · EOF · description "{}"
 *
 * The places are offsets in the file, so they depend on the lengths of all that is before them.  A
 * bitmap is in words of 64 bits, of the host's order where QEMU writes it and of little-endian
 * machines here.  A page whose bit is not set is zero, whatever stands in its place.
 */
#include "config.h"

#include "wire/qmapped.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "wire/qstream.h"
#include "wire/qstream_parts.h"

#define CAPABILITIES_NAME "configuration/capabilities"
#define CAPABILITY	  "mapped-ram"
#define PLACES_VERSION	  1u
#define PLACES_LEN	  28u		/* version, page size, two offsets */

static bool name_fits(const char *text)
{
	size_t len = text ? strnlen(text, 256) : 0;

	return len > 0 && len <= 255;
}

/* Round up, or 0 where that is no number any more. */
static uint64_t round_up(uint64_t at, uint64_t to)
{
	return at > UINT64_MAX - (to - 1) ? 0 : (at + to - 1) & ~(to - 1);
}

static const char *lay_block(struct qmapped_plan *plan, unsigned i, uint64_t *at)
{
	struct qmapped_block *b = &plan->blocks[i];

	if (!name_fits(b->name))
		return "the name of a block is empty or longer than 255 bytes";
	if (b->length == 0 || b->length & (plan->target_page - 1))
		return "the length of a block is not a number of whole pages";
	for (unsigned j = 0; j < i; j++)
		if (!strcmp(plan->blocks[j].name, b->name))
			return "two blocks have the same name";
	b->head_at = *at;
	b->bitmap_at = *at + 1 + strlen(b->name) + sizeof(uint64_t) + PLACES_LEN;
	b->bitmap_len = ((b->length / plan->target_page - 1) / 64 + 1) * sizeof(uint64_t);
	b->pages_at = round_up(b->bitmap_at + b->bitmap_len, QMAPPED_PAGES_ALIGN);
	if (!b->pages_at || !add_u64(b->pages_at, b->length, at) || *at > INT64_MAX)
		return "the blocks are larger than a file";
	return NULL;
}

/**
 * qmapped_lay - give everything its place
 * @why: what cannot be written, static text; NULL on success
 *
 * Return: 0 or -EINVAL.
 */
int qmapped_lay(struct qmapped_plan *plan, const char **why)
{
	uint8_t head[QMAPPED_HEAD_MAX];
	struct pen p = pen_init(head, sizeof(head));
	uint64_t at;

	*why = NULL;
	if (!name_fits(plan->machine))
		*why = "the machine type is empty or longer than 255 bytes";
	else if (!is_power_of_two(plan->target_page) || plan->target_page < 1024)
		*why = "the target page size is none";
	else if (plan->n_blocks == 0 || plan->n_blocks > QSTREAM_MAX_BLOCKS)
		*why = "no block at all, or more than a stream can list";
	if (*why)
		return -EINVAL;
	qmapped_put_head(&p, plan);
	at = pen_used(&p);
	for (unsigned i = 0; i < plan->n_blocks && !*why; i++)
		*why = lay_block(plan, i, &at);
	plan->end_at = at;
	return *why ? -EINVAL : 0;
}

/**
 * qmapped_put_head - the beginning of the file, up to the first block
 */
void qmapped_put_head(struct pen *p, const struct qmapped_plan *plan)
{
	uint64_t total = 0;

	qstream_put_header(p, plan->machine);
	if (plan->page_bits)
		qstream_put_page_bits(p, plan->page_bits);
	pen_u8(p, TYPE_SUBSECTION);
	pen_cstr(p, CAPABILITIES_NAME);
	pen_be32(p, SUBSECTION_VERSION);
	pen_be32(p, 1);
	pen_cstr(p, CAPABILITY);
	for (unsigned i = 0; i < plan->n_blocks; i++)
		total += plan->blocks[i].length;
	qstream_put_blocks_begin(p, plan->ram_section, total);
}

/**
 * qmapped_put_block - the head of a block: its bitmap follows at once
 */
void qmapped_put_block(struct pen *p, const struct qmapped_plan *plan, unsigned block)
{
	const struct qmapped_block *b = &plan->blocks[block];

	qstream_put_block(p, b->name, b->length, 0);
	pen_be32(p, PLACES_VERSION);
	pen_be64(p, plan->target_page);
	pen_be64(p, b->bitmap_at);
	pen_be64(p, b->pages_at);
}

/**
 * qmapped_put_ram_end - the end of the block list, and the sections of ram that have nothing
 */
void qmapped_put_ram_end(struct pen *p, const struct qmapped_plan *plan)
{
	qstream_put_ram_end(p, plan->ram_section);
	qstream_put_ram_begin(p, false, plan->ram_section);
	qstream_put_ram_end(p, plan->ram_section);
	qstream_put_ram_begin(p, true, plan->ram_section);
	qstream_put_ram_end(p, plan->ram_section);
}

/**
 * qmapped_put_tail - the end of the file
 */
void qmapped_put_tail(struct pen *p)
{
	pen_u8(p, TYPE_EOF);
	pen_u8(p, TYPE_VMDESCRIPTION);
	pen_be32(p, 2);
	pen_bytes(p, "{}", 2);
}
