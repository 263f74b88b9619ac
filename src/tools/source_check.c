// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The rules are those that a real source enforces, or depends on without saying so, and breaking
 * one is fatal for a migration there: so a destination that passes here is one that QEMU can live
 * with.  A page that is asked for twice is no error on the wire, but the second request is never
 * answered; whoever needs it has lost the first page.
 */
#include "config.h"

#include "source_check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "wire/qstream.h"

static const uint32_t pings[] = {1, 2, 3, 4, QSTREAM_COMMIT_PING};

/**
 * source_check_violation - count a breach; the texts of the first and the last one are kept
 */
void source_check_violation(struct source_check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->last, sizeof(c->last), fmt, ap);
	va_end(ap);
	if (c->violations++ == 0)
		memcpy(c->first, c->last, sizeof(c->first));
}

/* 0 for a value nobody sends. */
static unsigned ping_bit(uint32_t value)
{
	for (unsigned i = 0; i < ARRAY_LEN(pings); i++)
		if (pings[i] == value)
			return 1u << i;
	return 0;
}

/**
 * source_check_ping - a PING is about to leave: before it does, or its PONG may come first
 */
void source_check_ping(struct source_check *c, uint32_t value)
{
	atomic_fetch_or(&c->pings_out, ping_bit(value));
}

/**
 * source_check_pong - each PING is answered once, and 0x42 commits
 */
bool source_check_pong(struct source_check *c, uint32_t value)
{
	unsigned bit = ping_bit(value);

	if (!(atomic_load(&c->pings_out) & bit)) {
		source_check_violation(c, "PONG %#" PRIx32 " without a PING", value);
		return false;
	}
	if (c->pongs_in & bit) {
		source_check_violation(c, "PONG %#" PRIx32 " twice", value);
		return false;
	}
	c->pongs_in |= bit;
	if (value == QSTREAM_COMMIT_PING)
		atomic_store(&c->committed, true);
	atomic_fetch_add(&c->pongs, 1);
	return true;
}

/**
 * source_check_request - may the destination ask for this, and now?
 * @block: NULL when nobody knows @name
 *
 * QEMU aborts on a request that is not whole pages of the block, with a preempt channel.
 */
bool source_check_request(struct source_check *c, enum source_phase phase,
			  const struct source_block *block, const char *name, uint64_t start,
			  uint32_t length)
{
	const char *problem = NULL;

	if (phase == SOURCE_SETUP)
		problem = "before LISTEN";
	else if (phase == SOURCE_RESUMING)
		problem = "before RESUME_ACK";
	else if (atomic_load(&c->has_shut))
		problem = "after SHUT";
	else if (!block)
		problem = "of an unknown block";
	else if (start % block->spec.page_size || length % block->spec.page_size)
		problem = "not aligned to the block's pages";
	else if (!range_inside(start, length, block->spec.length))
		problem = "empty or beyond the block";
	if (problem)
		source_check_violation(c, "request %s: %.100s+%#" PRIx64 ", length %#" PRIx32,
				       problem, name, start, length);
	return !problem;
}

/**
 * source_check_page - count one page of a request; false when it was asked for before
 */
bool source_check_page(struct source_check *c, struct source_block *block, uint64_t page)
{
	c->requested++;
	if (source_block_ask(block, page))
		return true;
	c->requested_twice++;
	source_check_violation(c, "page requested twice: %.100s+%#" PRIx64, block->spec.name,
			       page * block->spec.page_size);
	return false;
}

/**
 * source_check_shut - only value 0, only once, only behind the end of the stream
 */
bool source_check_shut(struct source_check *c, enum source_phase phase, uint32_t value)
{
	if (atomic_load(&c->has_shut)) {
		source_check_violation(c, "SHUT twice");
		return false;
	}
	c->shut = value;
	atomic_store(&c->has_shut, true);
	if (value == 0 && phase != SOURCE_ENDED)
		source_check_violation(c, "SHUT 0 before the end of the stream");
	else if (value != 0)
		source_check_violation(c, "SHUT %" PRIu32, value);
	return value == 0 && phase == SOURCE_ENDED;
}

/**
 * source_check_switchover_ack - allowed once, whether or not somebody waits for it
 */
bool source_check_switchover_ack(struct source_check *c)
{
	if (c->acks++ == 0)
		return true;
	source_check_violation(c, "SWITCHOVER_ACK twice");
	return false;
}

/**
 * source_check_forget_pings - a connection was lost: only what was answered was ever sent
 */
void source_check_forget_pings(struct source_check *c)
{
	atomic_store(&c->pings_out, c->pongs_in);
}

/**
 * source_check_complete - after SHUT 0: was every PING answered?
 */
bool source_check_complete(struct source_check *c)
{
	unsigned missing = atomic_load(&c->pings_out) & ~c->pongs_in;

	for (unsigned i = 0; i < ARRAY_LEN(pings); i++)
		if (missing & 1u << i)
			source_check_violation(c, "PING %#" PRIx32 " was never answered", pings[i]);
	return !missing;
}
