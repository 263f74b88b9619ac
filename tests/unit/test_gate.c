/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device may reach, and when: one test for each verb of a DMA set and for each rule of the
 * gate (F13, F46, F47, F51, S0-04, S0-08, S0-09, S0-14, S0-17, S2-02, S2-05, S2-10).
 */
#include "config.h"

#include "core/gate.h"

#include <errno.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define P   UINT64_C(4096)
#define MIB (UINT64_C(1) << 20)

enum { RANGES = 8 };

struct rig {
	struct block_table blocks;
	struct ledger ledger;
	struct gate gate;
	void *pages, *memory;
};

/* Block 0: 64 pages of 4 KiB; block 1: 4 huge pages, numbers 64 to 67.  All are missing. */
static void rig_up(struct rig *r, bool enforced)
{
	struct gate_config config = {
		.ledger = &r->ledger, .blocks = &r->blocks, .ranges = RANGES, .enforced = enforced,
	};

	*r = (struct rig){ .blocks = { .n = 0 } };
	cr_assert_eq(block_add(&r->blocks, "ram", 64 * P, P, BLOCK_SHARED), 0);
	cr_assert_eq(block_add(&r->blocks, "huge", 8 * MIB, 2 * MIB, BLOCK_SHARED), 1);
	r->pages = calloc(1, ledger_size(r->blocks.pages));
	cr_assert_eq(ledger_init(&r->ledger, r->pages, ledger_size(r->blocks.pages),
				 r->blocks.pages),
		     0);
	ledger_set(&r->ledger, 0, r->blocks.pages, PAGE_MISSING);
	r->memory = calloc(1, gate_size(config.ranges, config.blocks->pages));
	gate_init(&r->gate, r->memory, &config);
}

static void rig_down(struct rig *r)
{
	free(r->pages);
	free(r->memory);
}

static struct gate_span span(uint64_t iova, uint64_t offset, uint64_t length)
{
	return (struct gate_span){ .iova = iova, .offset = offset, .length = length,
				   .directions = GATE_READS | GATE_WRITES };
}

static int map(struct rig *r, uint64_t iova, uint64_t offset, uint64_t length)
{
	struct gate_span s = span(iova, offset, length);

	return gate_map(&r->gate, &s);
}

static void placed(struct rig *r, uint64_t page, uint64_t n)
{
	ledger_set(&r->ledger, page, n, PAGE_PRESENT);
	gate_present(&r->gate, page, n);
}

static void expect_ready(struct rig *r, uint64_t iova)
{
	uint64_t got = UINT64_MAX;

	cr_assert_eq(gate_next(&r->gate, &got), GATE_READY);
	cr_assert_eq(got, iova);
}

static void expect_nothing(struct rig *r)
{
	uint64_t iova;

	cr_assert_eq(gate_next(&r->gate, &iova), GATE_NOTHING);
}

static void expect_opened(struct rig *r)
{
	uint64_t iova;

	cr_assert_eq(gate_next(&r->gate, &iova), GATE_OPENED);
	expect_nothing(r);
}

/* I1, I3, S0-08: nothing before the last page, and then one thing after the other. */
Test(gate, opens_with_the_last_page)
{
	struct rig r;

	rig_up(&r, true);
	cr_assert_eq(map(&r, 0x10000, 0, 4 * P), 0);
	cr_assert_eq(map(&r, 0x40000, 8 * P, 2 * P), 0);
	gate_seal(&r.gate);
	gate_serve(&r.gate);
	cr_assert_eq(r.gate.missing, 6);
	placed(&r, 1, 3);
	placed(&r, 8, 2);
	expect_ready(&r, 0x40000);
	expect_nothing(&r);
	cr_assert_eq(gate_mapped(&r.gate, 0x40000, 0), 0);
	cr_assert_eq(gate_may_run(&r.gate), -EBUSY);
	cr_assert_eq(r.gate.missing, 1);
	placed(&r, 0, 1);
	expect_ready(&r, 0x10000);
	expect_nothing(&r);
	cr_assert_eq(gate_may_run(&r.gate), -EBUSY, "it is there, but not mapped");
	cr_assert_eq(gate_mapped(&r.gate, 0x10000, 0), 0);
	cr_assert_eq(gate_may_run(&r.gate), 0);
	expect_opened(&r);
	rig_down(&r);
}

/* S0-04: a set that nobody called whole holds a device, also an empty one. */
Test(gate, unknown_set_stays_closed)
{
	struct rig r;

	rig_up(&r, true);
	gate_serve(&r.gate);
	expect_nothing(&r);
	cr_assert_eq(gate_may_run(&r.gate), -EBUSY);
	gate_seal(&r.gate);
	cr_assert_eq(gate_may_run(&r.gate), 0);
	expect_opened(&r);
	rig_down(&r);
}

/* I2: discards come before gate_serve(), mappings behind it. */
Test(gate, nothing_is_mapped_before_faults_are_served)
{
	struct rig r;

	rig_up(&r, true);
	placed(&r, 0, 64);
	cr_assert_eq(map(&r, 0, 0, 64 * P), 0);
	gate_seal(&r.gate);
	expect_nothing(&r);
	cr_assert_eq(gate_may_run(&r.gate), -EBUSY);
	gate_serve(&r.gate);
	expect_ready(&r, 0);
	rig_down(&r);
}

/* I2, F13, S2-10: what a device reaches, or may be given this moment, is not discarded. */
Test(gate, discard_guard)
{
	struct rig r;

	rig_up(&r, true);
	cr_assert_eq(map(&r, 0, 4 * P, 4 * P), 0);
	placed(&r, 0, 16);
	cr_assert_eq(gate_discard(&r.gate, 5, 1), 0, "it is ready, but nobody was told");
	gate_serve(&r.gate);
	expect_nothing(&r);
	placed(&r, 5, 1);
	expect_ready(&r, 0);
	cr_assert_eq(gate_discard(&r.gate, 0, 5), -EBUSY, "somebody maps it");
	cr_assert_eq(gate_discard(&r.gate, 0, 4), 0);
	cr_assert_eq(gate_discard(&r.gate, 8, 8), 0);
	cr_assert_eq(gate_mapped(&r.gate, 0, 0), 0);
	for (uint64_t page = 4; page < 8; page++)
		cr_assert_eq(gate_discard(&r.gate, page, 1), -EBUSY);
	cr_assert_eq(r.gate.missing, 0);
	cr_assert_eq(gate_unmap(&r.gate, 0, 4 * P), 1);
	cr_assert_eq(gate_discard(&r.gate, 4, 4), 0);
	rig_down(&r);
}

/* Only PRESENT is there: a device reads a hole from a frame of its own, and never what we hold. */
Test(gate, what_counts_as_there)
{
	struct rig r;

	rig_up(&r, true);
	for (unsigned s = 0; s < PAGE_STATES; s++)
		ledger_set(&r.ledger, s, 1, (enum page_state)s);
	cr_assert_eq(map(&r, 0, 0, PAGE_STATES * P), 0);
	cr_assert_eq(r.gate.missing, PAGE_STATES - 1);
	placed(&r, PAGE_ZERO, 1);
	cr_assert_eq(r.gate.missing, PAGE_STATES - 2);
	rig_down(&r);
}

/* The bulk thread publishes before its report comes: either way it is one page. */
Test(gate, a_page_counts_once)
{
	struct rig r;

	rig_up(&r, true);
	cr_assert_eq(map(&r, 0, 0, 4 * P), 0);
	ledger_set(&r.ledger, 1, 2, PAGE_PRESENT);
	cr_assert_eq(map(&r, 0x100000, P, 2 * P), 0, "reads the ledger before the report");
	cr_assert_eq(gate_find(&r.gate, 0)->missing, 2, "both ranges hear of it");
	cr_assert_eq(gate_find(&r.gate, 0x100000)->missing, 0);
	gate_present(&r.gate, 0, 3);
	cr_assert_eq(gate_find(&r.gate, 0)->missing, 1);
	cr_assert_eq(r.gate.missing, 1);
	rig_down(&r);
}

Test(gate, a_part_of_a_huge_page_needs_it_whole)
{
	struct gate_span s = { .block = 1, .offset = 2 * MIB - P, .length = 2 * P,
			       .directions = GATE_READS };
	struct rig r;

	rig_up(&r, true);
	cr_assert_eq(gate_map(&r.gate, &s), 0);
	cr_assert_eq(gate_find(&r.gate, 0)->first, 64);
	cr_assert_eq(r.gate.missing, 2);
	gate_serve(&r.gate);
	placed(&r, 64, 1);
	expect_nothing(&r);
	placed(&r, 65, 1);
	expect_ready(&r, 0);
	rig_down(&r);
}

Test(gate, spans_that_cannot_be)
{
	const struct gate_span rows[] = {
		{ .iova = 1, .length = P, .directions = GATE_READS },
		{ .length = 0, .directions = GATE_READS },
		{ .length = P + 512, .directions = GATE_READS },
		{ .length = P, .offset = 512, .directions = GATE_READS },
		{ .length = P, .block = 2, .directions = GATE_READS },
		{ .length = 65 * P, .directions = GATE_READS },
		{ .length = P, .offset = 64 * P, .directions = GATE_READS },
		{ .length = P, .offset = UINT64_MAX - P + 1, .directions = GATE_READS },
		{ .length = 2 * P, .iova = UINT64_MAX - P + 1, .directions = GATE_READS },
		{ .length = P, .directions = 0 },
		{ .length = P, .directions = 4 },
		{ .length = P, .class = GATE_CLASSES, .directions = GATE_READS },
	};
	struct rig r;

	rig_up(&r, true);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
		cr_assert_eq(gate_map(&r.gate, &rows[i]), -EINVAL, "row %u", i);
	cr_assert_eq(map(&r, UINT64_MAX - P + 1, 0, P), 0, "the last page of the addresses");
	cr_assert_eq(map(&r, 8 * P, 0, 4 * P), 0);
	cr_assert_eq(map(&r, 11 * P, 0, P), -EEXIST);
	cr_assert_eq(map(&r, 7 * P, 0, 2 * P), -EEXIST);
	cr_assert_eq(map(&r, 0, 0, 64 * P), -EEXIST);
	cr_assert_eq(map(&r, UINT64_MAX - P + 1, 0, P), -EEXIST);
	cr_assert_eq(map(&r, 7 * P, 0, P), 0);
	cr_assert_eq(map(&r, 12 * P, 0, P), 0);
	for (uint64_t i = 0; r.gate.n < RANGES; i++)
		cr_assert_eq(map(&r, (20 + i) * P, 0, P), 0);
	cr_assert_eq(map(&r, 100 * P, 0, P), -ENOSPC);
	rig_down(&r);
}

/* S0-09, S4-09: several ranges at once, but none is cut; not while one is being mapped. */
Test(gate, unmap_whole_ranges)
{
	struct rig r;

	rig_up(&r, true);
	for (uint64_t i = 0; i < 4; i++)
		cr_assert_eq(map(&r, i * 2 * P, i * P, 2 * P), 0);
	cr_assert_eq(gate_unmap(&r.gate, 0, 0), -EINVAL);
	cr_assert_eq(gate_unmap(&r.gate, P, P), -EINVAL);
	cr_assert_eq(gate_unmap(&r.gate, 0, 3 * P), -EINVAL);
	cr_assert_eq(gate_unmap(&r.gate, P, 7 * P), -EINVAL);
	cr_assert_eq(gate_unmap(&r.gate, P, UINT64_MAX), -EINVAL);
	cr_assert_eq(gate_unmap(&r.gate, 100 * P, P), 0);
	placed(&r, 1, 2);
	gate_serve(&r.gate);
	expect_ready(&r, 2 * P);
	cr_assert_eq(gate_unmap(&r.gate, 0, 4 * P), -EBUSY);
	cr_assert_eq(gate_mapped(&r.gate, 2 * P, 0), 0);
	cr_assert_eq(gate_unmap(&r.gate, 0, 4 * P), 2);
	cr_assert_eq(r.gate.n, 2);
	cr_assert_eq(r.gate.mapped, 0);
	cr_assert_eq(r.gate.missing, 3);
	cr_assert_null(gate_find(&r.gate, 0));
	cr_assert_not_null(gate_find(&r.gate, 4 * P));
	rig_down(&r);
}

/* S0-14, S0-15, S0-17: of what is unmapped or synced, what the device could write is dirty. */
Test(gate, what_was_written)
{
	struct gate_span ring = { .iova = 8 * P, .offset = 16 * P, .length = 2 * P,
				  .class = GATE_COHERENT, .directions = GATE_READS };
	struct gate_span sent = { .iova = 10 * P, .offset = 32 * P, .length = 2 * P,
				  .directions = GATE_READS };
	static const struct {
		uint64_t iova, length, offset[2], bytes[2];
		unsigned n;
	} rows[] = {
		{ 0, 64 * P, { 0, 16 * P }, { 4 * P, 2 * P }, 2 },
		{ P, 100, { P }, { 100 }, 1 },
		{ 3 * P + 4000, 5 * P, { 3 * P + 4000, 16 * P }, { 96, 4000 }, 2 },
		{ 10 * P, 2 * P, { 0 }, { 0 }, 0 },
		{ 4 * P, 4 * P, { 0 }, { 0 }, 0 },
		{ 9 * P, UINT64_MAX - 9 * P + 1, { 17 * P }, { P }, 1 },
	};
	struct rig r;

	rig_up(&r, true);
	cr_assert_eq(map(&r, 0, 0, 4 * P), 0);
	cr_assert_eq(gate_map(&r.gate, &ring), 0);
	cr_assert_eq(gate_map(&r.gate, &sent), 0);
	for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
		struct gate_piece piece;
		struct gate_walk w;
		unsigned n = 0;

		gate_walk(&w, &r.gate, rows[i].iova, rows[i].length);
		for (; gate_written(&w, &piece); n++) {
			cr_assert_lt(n, rows[i].n);
			cr_assert_eq(piece.offset, rows[i].offset[n], "row %u", i);
			cr_assert_eq(piece.length, rows[i].bytes[n], "row %u", i);
		}
		cr_assert_eq(n, rows[i].n, "row %u", i);
	}
	rig_down(&r);
}

/* A device that cannot have its mapping waits; the others of its gate with it. */
Test(gate, a_mapping_fails)
{
	struct rig r;

	rig_up(&r, true);
	placed(&r, 0, 8);
	cr_assert_eq(map(&r, 0, 0, 4 * P), 0);
	gate_seal(&r.gate);
	gate_serve(&r.gate);
	cr_assert_eq(gate_mapped(&r.gate, 0, 0), -ENOENT, "nobody was told to");
	expect_ready(&r, 0);
	cr_assert_eq(gate_retry(&r.gate, 0), -ENOENT);
	cr_assert_eq(gate_mapped(&r.gate, P, 0), -ENOENT);
	cr_assert_eq(gate_mapped(&r.gate, 0, -ENOMEM), 0);
	cr_assert_eq(gate_find(&r.gate, 0)->error, -ENOMEM);
	expect_nothing(&r);
	cr_assert_eq(gate_may_run(&r.gate), -EBUSY);
	cr_assert_eq(gate_retry(&r.gate, 0), 0);
	expect_ready(&r, 0);
	cr_assert_eq(gate_mapped(&r.gate, 0, -ENOMEM), 0);
	cr_assert_eq(gate_unmap(&r.gate, 0, 4 * P), 1);
	expect_opened(&r);
	rig_down(&r);
}

/* With an IOMMU a guest may map what it likes while the device runs: each waits for its pages. */
Test(gate, mapped_while_it_runs)
{
	struct rig r;

	rig_up(&r, true);
	gate_seal(&r.gate);
	gate_serve(&r.gate);
	expect_opened(&r);
	gate_ran(&r.gate);
	cr_assert_eq(map(&r, 0, 0, P), 0);
	cr_assert_null(gate_blocker(&r.gate));
	expect_nothing(&r);
	placed(&r, 0, 1);
	expect_ready(&r, 0);
	cr_assert_eq(gate_mapped(&r.gate, 0, 0), 0);
	expect_opened(&r);
	rig_down(&r);
}

/* No IOMMU; all of a set of one range is there and mapped. */
static void rig_up_mapped(struct rig *r)
{
	rig_up(r, false);
	placed(r, 0, 64);
	gate_seal(&r->gate);
	gate_serve(&r->gate);
	cr_assert_eq(map(r, 0, 0, P), 0);
	expect_ready(r, 0);
	cr_assert_eq(gate_mapped(&r->gate, 0, 0), 0);
}

/* F51, S2-02: without an IOMMU, what is declared late was reachable before. */
Test(gate, late_declaration_taints)
{
	struct rig r;

	rig_up_mapped(&r);
	expect_opened(&r);
	gate_ran(&r.gate);
	cr_assert_null(gate_blocker(&r.gate));
	cr_assert_eq(map(&r, 8 * P, 8 * P, P), 0);
	cr_assert_str_eq(gate_blocker(&r.gate), "untracked-dma");
	expect_ready(&r, 8 * P);
	cr_assert_eq(gate_mapped(&r.gate, 8 * P, 0), 0);
	expect_nothing(&r);
	cr_assert_eq(gate_may_run(&r.gate), -EPERM);
	gate_reset(&r.gate);
	cr_assert_null(gate_blocker(&r.gate));
	expect_opened(&r);
	rig_down(&r);
}

/* Who comes after one that is gone finds nothing of it: no range, no seal, nothing that ran. */
Test(gate, begun_anew)
{
	struct rig r;

	rig_up_mapped(&r);
	gate_ran(&r.gate);
	cr_assert_eq(map(&r, 8 * P, 8 * P, P), 0);
	expect_ready(&r, 8 * P);
	cr_assert_eq(map(&r, 16 * P, 16 * P, P), 0);
	cr_assert_eq(map(&r, 2 * MIB, 0, 8 * P), 0);
	expect_ready(&r, 16 * P);
	cr_assert_eq(gate_mapped(&r.gate, 16 * P, -ENOMEM), 0);
	gate_clear(&r.gate);
	cr_assert(r.gate.n == 0 && r.gate.mapped == 0 && r.gate.failed == 0);
	cr_assert(r.gate.missing == 0 && r.gate.pages == 0 && r.gate.bytes == 0);
	cr_assert_null(gate_blocker(&r.gate));
	expect_nothing(&r);
	/* What was reached may go, and all of it can be declared anew. */
	cr_assert_eq(gate_discard(&r.gate, 0, 1), 0);
	for (unsigned i = 0; i < RANGES; i++)
		cr_assert_eq(map(&r, i * P, (i + 1) * P, P), 0);
	for (unsigned i = 0; i < RANGES; i++) {
		expect_ready(&r, i * P);
		cr_assert_eq(gate_mapped(&r.gate, i * P, 0), 0);
	}
	expect_nothing(&r);
	gate_seal(&r.gate);
	expect_opened(&r);
	rig_down(&r);
}
