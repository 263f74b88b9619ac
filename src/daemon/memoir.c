/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Theory: when is it written?
 *
 * A successor must know of everything that anybody else could have seen of us.  Others see what is
 * sent to the source, and what the main thread does upon a snapshot.  So the record is written
 * before bytes leave for the source and before a snapshot goes back, whenever something changed
 * (f->dirty) - and not otherwise, so no fault pays for it.  What changed and was seen by nobody may
 * be lost: for all that others know it did not happen.
 *
 * The one thing of which that order says too little is whether a message has left: it is written
 * down before, as something that is about to happen, and again behind it.  A successor that finds
 * only the first does not know, and acts as if it had not left, where that is harmless, or says
 * that it does not know.
 *
 * What the ledger says of the pages is not repeated here, and counters follow from it.
 */
#include "config.h"
#include "daemon/memoir.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static_assert(sizeof(struct memoir) <= RECORD_SESSION_MAX, "a slot holds it");
static_assert(sizeof(struct memoir_blocks) <= RECORD_BLOCKS_MAX, "a slot holds it");

static bool has_left(const struct faultloop *f, uint64_t mark)
{
	return mark != 0 && f->outbox.sent >= mark;
}

/**
 * memoir_write - write down how far the session is
 */
void memoir_write(const struct faultloop *f)
{
	struct memoir m;

	if (!f->options.record)
		return;
	memset(&m, 0, sizeof(m));
	m.session = f->engine.session;
	m.times = f->times;
	m.has_main = f->has_main;
	m.tail = f->tail;
	m.main_eof = f->main_eof;
	m.main_closed = f->main_closed;
	m.running_told = f->running_told;
	m.ownership_unknown = f->ownership_unknown;
	m.closing = f->closing;
	m.shut_clean = f->shut_clean;
	m.shut_sent = f->closing && has_left(f, f->shut_mark);
	m.answer_sent = has_left(f, f->answer_mark);
	m.page_bits = f->page_bits;
	m.ram_section = f->ram_section;
	m.footers = f->footers;
	m.error = f->error;
	m.owed = f->engine.owed;
	m.strays = f->strays;
	m.recoveries = f->recoveries;
	m.package_size = f->package_size;
	m.device_offset = f->device_offset;
	m.device_size = f->device_size;
	m.states_offset = f->states_offset;
	m.states_size = f->states_size;
	memcpy(m.machine, f->machine, sizeof(m.machine));
	memcpy(m.peer, f->peer, sizeof(m.peer));
	memcpy(m.reason, f->reason, sizeof(m.reason));
	m.cause_len = f->cause_len;
	record_put(f->options.record, RECORD_SESSION, 0, &m, sizeof(m));
}

/**
 * memoir_write_blocks - write down the source's blocks and what backs them
 *
 * When they are known, and when it is known how much of each is owed.
 */
void memoir_write_blocks(const struct faultloop *f)
{
	struct memoir_blocks all;

	if (!f->options.record)
		return;
	memset(&all, 0, sizeof(all));
	all.n = f->engine.blocks.n;
	for (unsigned i = 0; i < all.n; i++) {
		const struct block *b = &f->engine.blocks.block[i];
		struct memoir_block *to = &all.block[i];

		memcpy(to->name, b->name, sizeof(to->name));
		to->kind = b->kind;
		to->length = b->length;
		to->page_size = b->page_size;
		to->file_offset = f->backing[i].file_offset;
		to->owed = b->owed;
	}
	record_put(f->options.record, RECORD_BLOCKS, 0, &all, sizeof(all));
}

static int read_whole(const struct record *r, enum record_kind kind, void *to, size_t size)
{
	ssize_t n = record_get(r, kind, 0, to, size);

	if (n == 0)
		return 0;
	return n == (ssize_t)size ? 1 : -EBADMSG;
}

static bool terminated(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

/**
 * memoir_read - how far the session was
 *
 * Return: 1; 0 when nothing was written; -EBADMSG when it cannot be what was written.
 */
int memoir_read(const struct record *r, struct memoir *m)
{
	int ret = read_whole(r, RECORD_SESSION, m, sizeof(*m));

	if (ret <= 0)
		return ret;
	if ((unsigned)m->session.state >= SESSION_STATES ||
	    !terminated(m->machine, sizeof(m->machine)) || !terminated(m->peer, sizeof(m->peer)) ||
	    !terminated(m->reason, sizeof(m->reason)) || m->cause_len >= sizeof(m->reason))
		return -EBADMSG;
	return 1;
}

/**
 * memoir_read_blocks - what the blocks were, as memoir_read(); the sizes are block_add()'s to judge
 */
int memoir_read_blocks(const struct record *r, struct memoir_blocks *b)
{
	int ret = read_whole(r, RECORD_BLOCKS, b, sizeof(*b));

	if (ret <= 0)
		return ret;
	if (b->n > BLOCK_MAX)
		return -EBADMSG;
	for (unsigned i = 0; i < b->n; i++)
		if (!terminated(b->block[i].name, BLOCK_NAME) || b->block[i].kind > BLOCK_PRIVATE)
			return -EBADMSG;
	return 1;
}
