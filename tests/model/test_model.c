/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine against a naive map: random worlds, a million events, everything checked after each.
 *
 * POSTCOPY_SEED repeats a run, POSTCOPY_TESTS_LONG=1 makes it fifty times as long.
 */
#include "config.h"

#include "world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/guard.h"

#define EVENTS_EACH 200000	/* of one profile */
#define STORE_BYTES (((uint64_t)WORLD_BLOCKS * KERNEL_PAGES) << 21)

/* What happens in every world, unless the profile says otherwise. */
#define ALWAYS                                                             \
	[EVENT_TOUCH] = 40, [EVENT_SIGNAL] = 2, [EVENT_READ] = 20,         \
	[EVENT_TELL] = 30, [EVENT_REPEAT] = 1, [EVENT_STRANGE] = 1
#define ASKING [EVENT_REQUEST] = 20, [EVENT_PUSH] = 1, [EVENT_RETRY] = 2

static const struct profile profiles[] = {
	{
		.name = "one sharer, one lane (O1 O2 O3 O4 O15)",
		.blocks = 2, .spaces = 1, .pages = 200, .waiters = 32, .window = 8,
		.shared = 50, .private = 40,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 12,
		},
	}, {
		.name = "many sharers and aliases (O13)",
		.blocks = 3, .spaces = 8, .pages = 60, .waiters = 64, .window = 8,
		.shared = 100, .alias = 50,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 12,
			[EVENT_ZERO_RUN] = 1,
		},
	}, {
		.name = "a bulk lane beside the urgent lane (O2 O5)",
		.blocks = 4, .spaces = 4, .pages = 100, .waiters = 48, .window = 16,
		.shared = 70, .private = 20, .alias = 20,
		.weight = {
			ALWAYS, ASKING, [EVENT_BULK] = 20, [EVENT_REPORT] = 10,
			[EVENT_URGENT] = 10,
		},
	}, {
		.name = "sharers come, die and return (O10)",
		.blocks = 3, .spaces = 5, .pages = 100, .waiters = 40, .window = 8,
		.shared = 70, .private = 20, .alias = 20, .again = 20,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 10,
			[EVENT_BULK] = 3, [EVENT_REPORT] = 1, [EVENT_JOIN] = 8,
			[EVENT_LEAVE] = 2, [EVENT_DIE] = 5, [EVENT_BURY] = 3,
			[EVENT_LATER] = 3,
		},
	}, {
		.name = "private and held blocks",
		.blocks = 6, .spaces = 3, .pages = 60, .waiters = 32, .window = 8,
		.shared = 10, .private = 60, .again = 5,
		.weight = {
			ALWAYS, [EVENT_REQUEST] = 20, [EVENT_PUSH] = 2,
			[EVENT_RETRY] = 2, [EVENT_PAGE] = 3,
			[EVENT_URGENT] = 12, [EVENT_ZERO_RUN] = 1, [EVENT_LATER] = 5,
		},
	}, {
		.name = "a table with room for few",
		.blocks = 2, .spaces = 4, .pages = 150, .waiters = 5, .window = 4,
		.shared = 80, .private = 10,
		.weight = {
			ALWAYS, [EVENT_REQUEST] = 3, [EVENT_PUSH] = 1,
			[EVENT_RETRY] = 1, [EVENT_PAGE] = 3,
			[EVENT_URGENT] = 12, [EVENT_JOIN] = 2, [EVENT_DIE] = 1,
			[EVENT_BURY] = 1,
		},
	}, {
		.name = "lost lanes and pages wanted ahead (O4 O5)",
		.blocks = 4, .spaces = 3, .pages = 100, .waiters = 24, .window = 40,
		.shared = 80, .private = 10,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 10,
			[EVENT_WANT] = 10, [EVENT_REPLAY] = 1, [EVENT_BULK] = 6,
			[EVENT_REPORT] = 2,
		},
	}, {
		.name = "a kernel that refuses (O2 O6)",
		.blocks = 4, .spaces = 4, .pages = 100, .waiters = 48, .window = 16,
		.shared = 70, .private = 20, .alias = 20, .again = 30, .exists = 3,
		.nowhere = 3,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 12,
			[EVENT_ZERO_RUN] = 2, [EVENT_BULK] = 10, [EVENT_REPORT] = 3,
			[EVENT_LATER] = 8, [EVENT_STRAY] = 1,
		},
	}, {
		.name = "zeroes that stay holes, and devices that reach them (O9)",
		.blocks = 3, .spaces = 3, .pages = 120, .waiters = 32, .window = 60,
		.shared = 90, .private = 5, .alias = 20, .again = 15,
		.weight = {
			ALWAYS, [EVENT_REQUEST] = 8, [EVENT_PAGE] = 2, [EVENT_URGENT] = 4,
			[EVENT_ZERO_RUN] = 6, [EVENT_BULK] = 25, [EVENT_REPORT] = 4,
			[EVENT_LATER] = 4, [EVENT_WANT] = 6, [EVENT_PUSH] = 1,
			[EVENT_RETRY] = 1,
		},
	}, {
		.name = "devices behind gates (I1 I2 I3 S0-08 S2-09 S2-10)",
		.blocks = 4, .spaces = 3, .pages = 80, .waiters = 32, .window = 40,
		.shared = 70, .private = 20, .alias = 20, .again = 15, .exists = 1,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 6,
			[EVENT_ZERO_RUN] = 4, [EVENT_BULK] = 20, [EVENT_REPORT] = 4,
			[EVENT_LATER] = 4, [EVENT_WANT] = 2, [EVENT_REPLAY] = 1,
			[EVENT_GATE] = 20, [EVENT_STRAY] = 1,
		},
	}, {
		.name = "pages given back (O3)",
		.blocks = 3, .spaces = 4, .pages = 60, .waiters = 48, .window = 8,
		.shared = 70, .private = 30, .alias = 20, .again = 10,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 12,
			[EVENT_BULK] = 6, [EVENT_REPORT] = 2, [EVENT_LATER] = 5,
			[EVENT_PUNCH] = 15,
		},
	}, {
		.name = "pages given up (F59)",
		.blocks = 4, .spaces = 5, .pages = 80, .waiters = 48, .window = 16,
		.shared = 70, .private = 20, .alias = 30, .again = 15,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 2, [EVENT_URGENT] = 4,
			[EVENT_BULK] = 6, [EVENT_REPORT] = 3, [EVENT_LATER] = 4,
			[EVENT_JOIN] = 3, [EVENT_DIE] = 1, [EVENT_BURY] = 1, [EVENT_STRAY] = 1,
			[EVENT_REPLAY] = 1, [EVENT_WANT] = 1, [EVENT_GATE] = 2,
			[EVENT_POISON] = 4,
		},
	}, {
		.name = "everything at once",
		.blocks = 6, .spaces = 8, .pages = 80, .waiters = 48, .window = 24,
		.shared = 60, .private = 25, .alias = 30, .again = 10, .exists = 1,
		.nowhere = 1,
		.weight = {
			ALWAYS, ASKING, [EVENT_PAGE] = 3, [EVENT_URGENT] = 12,
			[EVENT_ZERO_RUN] = 1, [EVENT_BULK] = 10, [EVENT_REPORT] = 3,
			[EVENT_LATER] = 4, [EVENT_WANT] = 3, [EVENT_REPLAY] = 1,
			[EVENT_JOIN] = 3, [EVENT_LEAVE] = 1, [EVENT_DIE] = 1, [EVENT_BURY] = 1,
			[EVENT_PUNCH] = 2, [EVENT_STRAY] = 1, [EVENT_GATE] = 5,
			[EVENT_POISON] = 1,
		},
	},
};

void world_fail(const struct world *w, const char *file, int line, const char *format, ...)
{
	va_list args;

	printf("not ok %zu - %s\n# world %u, event %lu (%s), %s:%d: ", w->profile - profiles + 1,
	       w->profile->name, w->number, w->events, w->doing, file, line);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n# POSTCOPY_SEED=%lu repeats it\n", w->seed);
	exit(EXIT_FAILURE);
}

static enum event any_event(struct world *w)
{
	unsigned sum = 0, roll;
	enum event event;

	for (event = 0; event < EVENTS; event++)
		sum += w->profile->weight[event];
	roll = (unsigned)rng_below(&w->rng, sum);
	for (event = 0; roll >= w->profile->weight[event]; event++)
		roll -= w->profile->weight[event];
	return event;
}

/* Nothing is owed any more: what comes then is soon told. */
static bool idle(const struct world *w)
{
	for (unsigned i = 0; i < w->engine->blocks.n; i++)
		if (w->engine->blocks.block[i].missing || w->engine->blocks.block[i].stored)
			return false;
	return true;
}

static void run_world(struct world *w)
{
	uint64_t steps = rng_between(&w->rng, 100, 1500);

	world_begin(w);
	while (steps-- > 0) {
		world_event(w, any_event(w));
		if (idle(w) && steps > 60 && !w->profile->weight[EVENT_PUNCH])
			steps = 60;
	}
	world_end(w);
}

static void run_profile(struct world *w, const struct profile *p, uint64_t events)
{
	w->profile = p;
	w->rng.state = w->seed + (uint64_t)(p - profiles);
	w->events = w->woken = w->placed = w->asked = 0;
	for (w->number = 0; w->events < events; w->number++)
		run_world(w);
	printf("%sok %zu - %s\n# %u worlds, %lu events: %lu pages placed, %lu asked for, %lu "
	       "threads woken\n",
	       w->woken && w->placed && w->asked ? "" : "not ", p - profiles + 1, p->name,
	       w->number, w->events, w->placed, w->asked, w->woken);
	fflush(stdout);
}

/* Address space that is named and never touched. */
static uint8_t *nowhere(void)
{
	void *p = mmap(NULL, STORE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int main(void)
{
	const char *lasting = getenv("POSTCOPY_TESTS_LONG");
	uint64_t factor = lasting && strcmp(lasting, "1") == 0 ? 50 : 1;
	cleanup_free struct world *w = calloc(1, sizeof(*w));
	cleanup_free struct engine *engine = calloc(1, sizeof(*engine));
	cleanup_free void *ledger = calloc(1, ledger_size(KERNEL_PAGES));
	uint8_t *store = nowhere(), *image = nowhere();

	if (!w || !engine || !ledger || !store || !image) {
		printf("Bail out! no memory\n");
		return EXIT_FAILURE;
	}
	w->engine = engine;
	w->ledger = ledger;
	w->store = store;
	w->image = image;
	w->seed = rng_seed();
	printf("1..%zu\n", ARRAY_LEN(profiles));
	for (size_t i = 0; i < ARRAY_LEN(profiles); i++)
		run_profile(w, &profiles[i], EVENTS_EACH * factor);
	return EXIT_SUCCESS;
}
