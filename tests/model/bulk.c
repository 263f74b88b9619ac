/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The bulk lane, as the engine sees it: somebody else who claims and publishes pages in the same
 * ledger at any time, and tells later, in batches.  Each step is an event of its own, so faults
 * fall into every gap between claim, placement, publish and report.
 */
#include "config.h"

#include "world.h"

#include <string.h>

static void drop_item(struct world *w, unsigned index)
{
	memmove(&w->item[index], &w->item[index + 1], (--w->n_items - index) * sizeof(w->item[0]));
}

static bool claim_one(struct world *w, uint64_t page, bool zero, enum page_state *from)
{
	struct naive_page *p = &w->naive.page[page];

	*from = ledger_claim(&w->engine->ledger, page);
	must(w, *from == p->is, "page %lu claimed from %s, it was %s", page,
	     ledger_state_name(*from), ledger_state_name(p->is));
	if (!ledger_claimed(*from))
		return false;
	p->is = p->is == PAGE_MISSING ? PAGE_PLACING : PAGE_CONTESTED;
	p->zero = zero;
	return true;
}

/* Zero pages come in runs of pages that nobody asked for. */
static void claim(struct world *w)
{
	uint64_t page = rng_below(&w->rng, w->engine->blocks.pages), end = page + 1;
	struct bulk_item *item = &w->item[w->n_items];
	const struct block *b = world_block(w, page);
	enum page_state from;

	*item = (struct bulk_item){ .page = page,
				    .zero = rng_percent(&w->rng, 40),
				    .arrived_ns = w->now };
	if (!claim_one(w, page, item->zero, &item->from))
		return;
	item->n = 1;
	w->n_items++;
	while (item->zero && item->from == PAGE_MISSING && end < b->first + b->pages &&
	       w->naive.page[end].is == PAGE_MISSING && rng_percent(&w->rng, 80)) {
		claim_one(w, end++, true, &from);
		item->n++;
	}
}

static enum stats_how how_of(const struct bulk_item *item)
{
	return item->zero ? HOW_ZERO : HOW_COPY;
}

static struct engine_report *mail(struct world *w, const struct bulk_item *item, uint64_t page,
				  enum stats_how how)
{
	struct engine_report *r = &w->report[w->n_reports++];

	*r = (struct engine_report){
		.page = page,
		.n = 1,
		.lane = LANE_MAIN,
		.how = (uint8_t)how,
		.from = (uint8_t)item->from,
		.result = (uint8_t)item->result,
		.carrier = item->carrier,
		.arrived_ns = item->arrived_ns,
		.placed_ns = item->placed_ns,
	};
	return r;
}

/* Pages in a row that nobody waits for share a report. */
static bool extend(struct world *w, const struct bulk_item *item, enum stats_how how)
{
	struct engine_report *last = w->n_reports ? &w->report[w->n_reports - 1] : NULL;

	if (!last || last->contested || last->result != PLACED ||
	    last->page + last->n != item->page || last->from != item->from || last->how != how ||
	    world_block(w, last->page) != world_block(w, item->page))
		return false;
	last->n++;
	return true;
}

/* Publish one page. */
static void publish(struct world *w, const struct bulk_item *item)
{
	struct naive_page *p = &w->naive.page[item->page];
	bool contested = ledger_publish(&w->engine->ledger, item->page);

	must(w, contested == (p->is == PAGE_CONTESTED), "page %lu published as %s", item->page,
	     contested ? "contested" : "not contested");
	p->is = PAGE_PRESENT;
	if (contested || !extend(w, item, how_of(item)))
		mail(w, item, item->page, how_of(item))->contested = contested;
}

/* Leave the run's first page a hole.  False: somebody has come to wait for it. */
static bool note(struct world *w, struct bulk_item *item)
{
	struct naive_page *p = &w->naive.page[item->page];
	bool noted = ledger_note(&w->engine->ledger, item->page);

	must(w, noted == (p->is == PAGE_PLACING), "page %lu noted while %s", item->page,
	     ledger_state_name(p->is));
	if (!noted)
		return false;
	p->is = p->counted = PAGE_ZERO;
	p->untold = true;
	item->result = PLACED;
	item->carrier = (struct engine_carrier){ .is_sharer = false };
	if (!extend(w, item, HOW_NOTED))
		mail(w, item, item->page, HOW_NOTED);
	return true;
}

/* The kernel is asked once, for all of the run. */
static bool look(struct world *w, struct bulk_item *item)
{
	if (item->looked)
		return false;
	item->looked = true;
	item->hole = item->zero && item->from == PAGE_MISSING &&
		     world_block(w, item->page)->sparse && daemon_is_hole(w, item->page, item->n);
	return item->hole;
}

/* The kernel fills the run's first page; it is published later. */
static void fill(struct world *w, struct bulk_item *item)
{
	item->placed_ns = w->now;
	if (!daemon_fill(w, item->page, item->zero, &item->carrier, &item->result))
		return;
	item->filled = true;
}

/*
 * One step of a claimed run: fill a page, or publish the one that was filled.  False: there is
 * none.
 */
bool bulk_advance(struct world *w)
{
	unsigned index = w->n_items ? (unsigned)rng_below(&w->rng, w->n_items) : 0;
	struct bulk_item *item = &w->item[index];

	if (w->n_items == 0)
		return false;
	if (look(w, item) || w->n_reports == WORLD_REPORTS)
		return true;
	if (!item->filled && (!item->hole || !note(w, item))) {
		fill(w, item);
		return true;
	}
	if (item->filled && item->result == PLACED)
		publish(w, item);
	else if (item->filled)
		mail(w, item, item->page, how_of(item));
	item->filled = false;
	item->page++;
	if (--item->n == 0)
		drop_item(w, index);
	return true;
}

void bulk_step(struct world *w)
{
	if (w->n_items < WORLD_ITEMS && (w->n_items == 0 || rng_percent(&w->rng, 40)))
		claim(w);
	else
		bulk_advance(w);
}

/* Deliver the oldest report. */
void bulk_report(struct world *w)
{
	struct engine_report r = w->report[0];

	if (w->n_reports == 0)
		return;
	memmove(&w->report[0], &w->report[1], --w->n_reports * sizeof(r));
	engine_report(w->engine, &r, w->now);
	if (r.result != PLACED) {
		naive_unplaced(w, r.page,
			       r.result == PLACED_EXISTS ? ENGINE_ALARM : ENGINE_UNPLACED);
		return;
	}
	for (uint64_t page = r.page; page < r.page + r.n; page++)
		if (r.how == HOW_NOTED) {
			w->naive.page[page].untold = false;
			w->naive.stats.lane[LANE_MAIN].pages[HOW_NOTED]++;
		} else {
			naive_present(w, page, LANE_MAIN, (enum stats_how)r.how);
		}
	if (r.contested)
		naive_drain(w, r.page, &r.carrier, r.placed_ns);
}
