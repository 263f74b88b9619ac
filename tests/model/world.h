/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_MODEL_WORLD_H
#define PC_MODEL_WORLD_H
/*
 * One random world: a kernel, a source, a daemon around the engine, and beside the engine a naive
 * map that says what the engine must have done.  The daemon part does what the engine says and
 * nothing else; the naive part (naive.c) is told the same events and writes down every action it
 * expects, so that an action too many, too few, or in the wrong order is noticed at once.
 */
#include <stdbool.h>
#include <stdint.h>

#include "core/engine.h"
#include "kernel.h"
#include "lib/rng.h"

#define WORLD_BLOCKS  6
#define WORLD_BATCH   64
#define WORLD_LATER   256
#define WORLD_ITEMS   16
#define WORLD_REPORTS 64
#define WORLD_EXPECTS 1024
#define WORLD_WAITERS 64
#define WORLD_WANTS   (REQUEST_WANTS + 1)
#define WORLD_GATES   3
#define WORLD_RANGES  40

enum event {
	EVENT_TOUCH, EVENT_SIGNAL, EVENT_READ, EVENT_TELL, EVENT_REPEAT, EVENT_STRANGE,
	EVENT_PAGE, EVENT_URGENT, EVENT_ZERO_RUN, EVENT_BULK, EVENT_REPORT, EVENT_LATER, EVENT_PUSH,
	EVENT_RETRY,
	EVENT_REQUEST, EVENT_WANT, EVENT_REPLAY,
	EVENT_JOIN, EVENT_LEAVE, EVENT_DIE, EVENT_BURY, EVENT_PUNCH, EVENT_STRAY, EVENT_GATE,
	EVENT_POISON,
	EVENTS,
};

/* What kind of worlds. */
struct profile {
	const char *name;
	unsigned blocks, spaces, pages;	/* at most; pages of one block */
	unsigned waiters, window;	/* at most */
	unsigned shared, private;	/* percent of the blocks; the rest is held */
	unsigned again, exists, nowhere; /* percent of placements */
	unsigned alias;			/* percent of the mappings */
	unsigned weight[EVENTS];
};

/* A fault message that was read and not yet told to the engine. */
struct mail {
	struct sharer_ref ref;
	uint64_t address, sleep;
	uint32_t tid;
	bool write;
};

/* A run that the bulk lane claimed. */
struct bulk_item {
	uint64_t page, n;
	bool zero, filled;
	bool looked, hole;		/* of zeroes for a sparse block: may it stay a hole? */
	enum page_state from;
	enum engine_result result;
	struct engine_carrier carrier;
	uint64_t arrived_ns, placed_ns;
};

struct naive_page {
	enum page_state is;		/* what the ledger must say */
	enum page_state counted;	/* as what the counters must count it */
	bool zero;			/* its content, once somebody accepted one */
	/* noted by the bulk lane; still counted as missing, whatever became of it */
	bool untold;
	/* a device wants it, and it was not missing: it may not stay a hole */
	bool dma;
	bool orphan; /* asked for, and nobody is left who knows it: may be asked for again */
	unsigned epoch;			/* when it was asked for; 0 never */
};

struct naive_waiter {
	uint64_t page, address, read_ns;
	uint32_t tid;
	struct sharer_ref ref;
	bool sent, waking;		/* waking: in a WAKE that has not been settled */
};

struct naive_want {
	uint64_t at, end;
	enum request_class class;
};

/* What a device reaches, in the place where the gate has it. */
struct naive_range {
	bool used, wanted;
	uint64_t iova, length, page, n;
	enum gate_stage stage;
};

struct naive_gate {
	bool known[KERNEL_PAGES];	/* read when something was declared, or told */
	struct naive_range range[WORLD_RANGES];
};

struct naive_count {
	uint64_t faults, reads, writes, duplicates, refaults, present, requests, samples;
	uint64_t waiting, blocked_since, blocked_ns;
};

struct naive {
	struct naive_page page[KERNEL_PAGES];
	struct naive_waiter waiter[WORLD_WAITERS];
	unsigned n_waiters;
	struct engine_action expect[WORLD_EXPECTS];	/* what it does not know is 0 */
	unsigned expect_n;
	uint64_t demand[WORLD_WAITERS];
	unsigned demand_n, epoch;
	uint64_t replay_at, replay_end, push_at;
	struct naive_want want[WORLD_WANTS];
	unsigned want_n;
	struct naive_gate gate[WORLD_GATES];
	struct stats stats;
	struct naive_count count[SHARER_MAX], gone;
};

struct world {
	struct rng rng;
	const struct profile *profile;
	unsigned number;
	uint64_t seed;
	uint64_t events, woken, placed, asked;	/* of this profile: something happened */
	const char *doing;
	uint64_t now;
	struct engine *engine;
	void *ledger;
	uint8_t *store, *image; /* never read: only to tell one page's content from another's */
	unsigned waiters;		/* the table's capacity */
	bool ending;			/* no more refusals */
	struct kernel kernel;
	struct naive naive;
	struct mail batch[WORLD_BATCH];
	unsigned n_batch;
	struct engine_action later[WORLD_LATER];
	unsigned n_later;
	struct bulk_item item[WORLD_ITEMS];
	unsigned n_items;
	struct engine_report report[WORLD_REPORTS];
	unsigned n_reports;
};

_Noreturn void world_fail(const struct world *w, const char *file, int line, const char *format,
			  ...) __attribute__((format(printf, 4, 5)));
#define must(w, condition, ...)                                             \
	do {                                                                \
		if (!(condition))                                           \
			world_fail(w, __FILE__, __LINE__, __VA_ARGS__);     \
	} while (0)

/* world.c: before faults are served, and the end */
void world_begin(struct world *w);
void world_end(struct world *w);
void world_join(struct world *w);
static inline struct block *world_block(struct world *w, uint64_t page)
{
	return block_of_page(&w->engine->blocks, page);
}
const uint8_t *world_content(struct world *w, uint64_t page);

/* events.c: one random event, or one of a kind */
void world_event(struct world *w, enum event event);
extern const char *const world_event_names[EVENTS];

/* daemon.c: do what the engine says */
void daemon_act(struct world *w);
void daemon_later(struct world *w, unsigned index);
bool daemon_fill(struct world *w, uint64_t page, bool zero, struct engine_carrier *carrier,
		 enum engine_result *result);
void daemon_request(struct world *w);
void daemon_gone(struct world *w, struct space *s);

bool daemon_is_hole(struct world *w, uint64_t page, uint64_t n);

/* bulk.c: the other lane */
void bulk_step(struct world *w);
bool bulk_advance(struct world *w);
void bulk_report(struct world *w);

/* naive.c: what must have happened */
enum engine_outcome naive_fault(struct world *w, const struct mail *m, const struct space *s);
enum engine_outcome naive_page(struct world *w, enum stats_lane lane, uint64_t page, bool zero);
void naive_zero_run(struct world *w, enum stats_lane lane, uint64_t page, uint64_t n);
void naive_noted(struct world *w, const struct engine_action *a);
uint64_t naive_fill(struct world *w, uint64_t page, uint64_t end);
uint64_t naive_push(struct world *w, uint64_t max);
uint64_t naive_poison(struct world *w, uint64_t before, uint64_t max);
uint64_t naive_longest(const struct world *w);
void naive_given_up(struct world *w, uint64_t page);
void naive_give_back(struct world *w, const struct engine_action *a);
uint64_t naive_retry(struct world *w, uint64_t max);
void naive_present(struct world *w, uint64_t page, enum stats_lane lane, enum stats_how how);
void naive_drain(struct world *w, uint64_t page, const struct engine_carrier *carrier,
		 uint64_t placed_ns);
void naive_unplaced(struct world *w, uint64_t page, enum engine_verb verb);
void naive_answered(struct world *w, const struct engine_action *a);
void naive_expect(struct world *w, const struct engine_action *a);
void naive_woken(struct world *w, const struct engine_action *a);
void naive_gone(struct world *w, struct sharer_ref ref);
bool naive_waits(const struct world *w, struct sharer_ref ref, uint64_t page, uint32_t tid);

/* naive_request.c: what must be asked for next */
void naive_ask(struct world *w, uint64_t page);
void naive_replay(struct world *w);
int naive_wants(struct world *w, uint64_t page, uint64_t n, enum request_class class);
bool naive_request(struct world *w, struct engine_request *r);

/* gates.c: devices */
void gates_begin(struct world *w);
void gates_serve(struct world *w);
void gates_event(struct world *w);
void gates_end(struct world *w);
bool gates_want(const struct world *w);
void naive_want_gates(struct world *w);
void check_gates(struct world *w);

/* check.c: after every event */
void check_world(struct world *w);
void check_end(struct world *w);

#endif
