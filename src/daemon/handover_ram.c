/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From 8.1 on `info ramblock` has an address for every block.  Before, only what the guest has
 * mapped can be found: a flat view says which block lies where in the guest's memory, and gpa2hva
 * where such a place is in the process.  What cannot be found has no address in the list; that is
 * no error, but less than one would like to know (handover_blocks.c decides what it means).
 *
 * The flat view is long, and a VM may stand still while it is written and read.  So it can be had
 * before: as long as the blocks are the same it only says where to ask, and what gpa2hva answers
 * there names the block itself.
 *
 * Nothing here is taken on trust later: an address from a text made for people is looked up in the
 * process's own mappings before anything is registered there.
 */
#include "config.h"
#include "daemon/handover_ram.h"

#include <stdio.h>
#include <string.h>

#include <glib.h>

#define VIEW_MAX 512		/* pieces of RAM in the guest's address space */

struct ram_query {
	struct qmp *qmp;
	void (*done)(void *ctx, const struct ram_list *list, const char *why);
	void *ctx;
	struct ram_list list;
	struct ram_query *known;	/* owned: an earlier one, whose view may do; NULL */
	int asked;			/* the block whose address was asked for */
	uint64_t in_region;		/* the place asked about, in its region */
	struct qmonitor_range *view;
	int n_view;
};

static void finish(struct ram_query *r, const char *what, const char *why)
{
	g_autofree char *text = why ? g_strdup_printf("%s: %s", what, why) : NULL;

	r->done(r->ctx, why ? NULL : &r->list, text);
}

/* No answer to work with.  That a monitor closed is its owner's to hear of, who frees us then. */
static bool is_over(struct ram_query *r, const struct qmp_answer *a, const char *what)
{
	if (a->outcome != QMP_OK && a->outcome != QMP_CLOSED)
		finish(r, what, a->text);
	return a->outcome != QMP_OK;
}

static bool lacks_address(const struct ram_query *r)
{
	for (unsigned i = 0; i < r->list.n; i++)
		if (!r->list.block[i].has_address)
			return true;
	return false;
}

static bool is_same(const struct qmonitor_block *a, const struct qmonitor_block *b)
{
	return !strcmp(a->name, b->name) && a->page_size == b->page_size &&
	       a->offset == b->offset && a->used == b->used && a->total == b->total;
}

/* Has nothing been plugged in or out since?  Then the view of that time is as good as a new one. */
static bool take_known_view(struct ram_query *r)
{
	struct ram_query *k = r->known;

	if (!k || k->n_view == 0 || k->list.n != r->list.n)
		return false;
	for (unsigned i = 0; i < r->list.n; i++)
		if (!is_same(&r->list.block[i], &k->list.block[i]))
			return false;
	memcpy(r->view, k->view, (size_t)k->n_view * sizeof(*r->view));
	r->n_view = k->n_view;
	return true;
}

/*
 * A region is named as its block, but for the path of the device that may stand before the block's
 * name; where two blocks could be meant, none is.
 */
static int block_of_region(const struct ram_list *list, const char *region)
{
	int found = -1;

	for (unsigned i = 0; i < list->n; i++) {
		const char *name = list->block[i].name, *slash = strrchr(name, '/');

		if (strcmp(name, region) && (!slash || strcmp(slash + 1, region)))
			continue;
		if (found >= 0)
			return -1;
		found = (int)i;
	}
	return found;
}

/* The first piece of the guest's memory that shows a block; NULL when it is nowhere. */
static const struct qmonitor_range *find_range(const struct ram_query *r, int block)
{
	for (int i = 0; i < r->n_view; i++)
		if (r->view[i].kind != QMONITOR_OTHER &&
		    block_of_region(&r->list, r->view[i].name) == block)
			return &r->view[i];
	return NULL;
}

static void ask_next(struct ram_query *r);

static void on_place(void *ctx, const struct qmp_answer *a)
{
	struct ram_query *r = ctx;
	struct qmonitor_block *b = &r->list.block[r->asked];
	struct qmonitor_place place;
	const char *why = "";

	if (is_over(r, a, "gpa2hva"))
		return;
	/*
	 * What lies there can be something that is only seen through the block's name: then it has
	 * no address.
	 */
	if (qmonitor_gpa2hva(qmp_text(a), strlen(qmp_text(a)), &place, &why) == 0 &&
	    block_of_region(&r->list, place.name) == r->asked && place.address >= r->in_region) {
		b->address = place.address - r->in_region;
		b->has_address = true;
	}
	ask_next(r);
}

/* One after the other: there are a handful. */
static void ask_next(struct ram_query *r)
{
	struct qmp_call call = { on_place, r, QMP_PATIENCE_MS };

	while (++r->asked < (int)r->list.n) {
		const struct qmonitor_range *range = find_range(r, r->asked);
		char line[64];

		if (r->list.block[r->asked].has_address || !range)
			continue;
		r->in_region = range->offset;
		snprintf(line, sizeof(line), "gpa2hva 0x%llx", (unsigned long long)range->start);
		qmp_human(r->qmp, line, call);
		return;
	}
	finish(r, "", NULL);
}

static void on_view(void *ctx, const struct qmp_answer *a)
{
	struct ram_query *r = ctx;
	struct qmonitor_view view = { .out = r->view, .max = VIEW_MAX };
	const char *why = "";
	int n;

	if (is_over(r, a, "info mtree -f"))
		return;
	n = qmonitor_flatview(qmp_text(a), strlen(qmp_text(a)), &view, &why);
	if (n < 0) {
		finish(r, "info mtree -f", *why ? why : g_strerror(-n));
		return;
	}
	r->n_view = n;
	ask_next(r);
}

static void on_blocks(void *ctx, const struct qmp_answer *a)
{
	struct ram_query *r = ctx;
	struct qmp_call call = { on_view, r, QMP_PATIENCE_MS };
	const char *why = "";
	int n;

	if (is_over(r, a, "info ramblock"))
		return;
	n = qmonitor_ramblock(qmp_text(a), strlen(qmp_text(a)), r->list.block, RAM_BLOCKS, &why);
	if (n < 0) {
		finish(r, "info ramblock", *why ? why : g_strerror(-n));
		return;
	}
	r->list.n = (unsigned)n;
	if (!lacks_address(r))
		finish(r, "", NULL);
	else if (take_known_view(r))
		ask_next(r);
	else
		qmp_human(r->qmp, "info mtree -f", call);
}

/**
 * ram_query_new - ask a QEMU for its blocks
 * @q: ready; freed before the query, or not before @done was called
 * @known: a query of the same QEMU that is done, or NULL; owned from here on
 */
struct ram_query *
ram_query_new(struct qmp *q, struct ram_query *known,
	      void (*done)(void *ctx, const struct ram_list *list, const char *why), void *ctx)
{
	struct ram_query *r = g_new0(struct ram_query, 1);
	struct qmp_call call = { on_blocks, r, QMP_PATIENCE_MS };

	r->qmp = q;
	r->known = known;
	r->done = done;
	r->ctx = ctx;
	r->asked = -1;
	r->view = g_new0(struct qmonitor_range, VIEW_MAX);
	qmp_human(q, "info ramblock", call);
	return r;
}

/**
 * ram_query_free - see the header for when
 */
void ram_query_free(struct ram_query *r)
{
	if (!r)
		return;
	ram_query_free(r->known);
	g_free(r->view);
	g_free(r);
}
