/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_UNIT_ENGINE_RIG_H
#define PC_UNIT_ENGINE_RIG_H
/*
 * An engine with four blocks and a hand to feed it: what a test of one rule needs to get to the
 * point.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"

enum { RAM, PRIV, ROM, HUGE, RIG_BLOCKS };	/* shared, private, held, shared with 2 MiB pages */
#define RAM_PAGES  128
#define PRIV_PAGES 64
#define ROM_PAGES  16
#define HUGE_PAGES 4
#define RIG_PAGES  (RAM_PAGES + PRIV_PAGES + ROM_PAGES + HUGE_PAGES)
#define PRIV_FIRST RAM_PAGES
#define ROM_FIRST  (PRIV_FIRST + PRIV_PAGES)
#define HUGE_FIRST (ROM_FIRST + ROM_PAGES)

#define RAM_BASE   0x100000000ull	/* where rig_join() maps them, in every sharer */
#define RAM_ALIAS  0x200000000ull
#define PRIV_BASE  0x300000000ull
#define HUGE_BASE  0x400000000ull

struct rig {
	struct engine *e;
	void *ledger;
	uint8_t *store;			/* of PRIV */
	uint64_t now;
};

void rig_open(struct rig *r, uint32_t waiters, uint32_t window);
/* Every page owed, the package here, faults served. */
void rig_owe_all(struct rig *r);
void rig_serve(struct rig *r);
void rig_close(struct rig *r);
#define with_rig __attribute__((cleanup(rig_close))) struct rig

/* A sharer of RAM and HUGE; @map is a mask of 1 << PRIV, 1 << RIG_BLOCKS (alias of RAM). */
struct sharer_ref rig_join(struct rig *r, bool main, unsigned map);
#define RIG_ALIAS (1u << RIG_BLOCKS)
enum engine_outcome rig_fault(struct rig *r, struct sharer_ref ref, uint64_t page, uint32_t tid);
/* The one action that must be next. */
struct engine_action rig_next(struct rig *r, enum engine_verb verb, uint64_t page);
void rig_none(struct rig *r);
/* All of an action's pages are there, through a sharer (or nobody's address space: NULL). */
void rig_placed(struct rig *r, struct engine_action *a, const struct sharer_ref *via);
/*
 * Whatever the engine wants done is done: placed through the main sharer, if there is one; woken.
 */
void rig_settle(struct rig *r);
void rig_page(struct rig *r, uint64_t page);
/* The one request that must be next. */
void rig_asks(struct rig *r, unsigned block, uint64_t page, uint64_t n, enum request_class class);
void rig_asks_nothing(struct rig *r);
enum page_state rig_state(struct rig *r, uint64_t page);

#endif
