/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is told of the gates: how far each is, since when it takes how long, and what it waits for.
 * All of it is of the last look; a rate needs two of them.
 */
#include "config.h"
#include "daemon/gatekeeper_parts.h"

#include <inttypes.h>
#include <stdio.h>

#define RATE_NS 1000000000ull		/* what a rate is taken over */

/* Bytes that came, in a second: over a second or more, or as long as there was. */
void gatekeeper_rate(struct kept_gate *g, uint64_t now)
{
	uint64_t ready = g->seen.bytes - g->seen.missing_bytes, age = now - g->mark_ns;

	if (g->mark_ns == 0 || g->mark_bytes != g->seen.bytes || ready < g->mark_ready) {
		g->rate = GATE_NOT_RATED;
	} else {
		if (age < RATE_NS && (g->rate != GATE_NOT_RATED || age < RATE_NS / 10))
			return;
		g->rate = (uint64_t)((double)(ready - g->mark_ready) * 1e9 / (double)age);
		if (age < RATE_NS)
			return;
	}
	g->mark_ns = now;
	g->mark_bytes = g->seen.bytes;
	g->mark_ready = ready;
}

/**
 * gatekeeper_waits - do pages that devices reach come, so that a look tells something new?
 */
bool gatekeeper_waits(const struct gatekeeper *k)
{
	for (unsigned i = 0; i < k->n && !k->halted; i++)
		if (k->gate[i].seen.missing)
			return true;
	return false;
}

static int64_t eta_ms(const struct kept_gate *g)
{
	if (g->seen.missing == 0)
		return 0;
	if (g->rate == GATE_NOT_RATED || g->rate == 0)
		return -1;
	return (int64_t)((double)g->seen.missing_bytes * 1e3 / (double)g->rate);
}

static void explain(const struct kept_gate *g, char *text, size_t size)
{
	const struct snapshot_gate *s = &g->seen;
	int n = snprintf(text, size, "%u of %u ranges are mapped", s->mapped, s->ranges);

	if (s->failed)
		snprintf(text + n, size - (size_t)n,
			 "; that at 0x%" PRIx64 " could not be: %s", s->error_iova,
			 g_strerror(-s->error));
	else if (s->lost)
		snprintf(text + n, size - (size_t)n,
			 "; %" PRIu64 " pages are lost: it never opens", s->lost);
	else if (s->missing && eta_ms(g) >= 0)
		snprintf(text + n, size - (size_t)n,
			 "; %" PRIu64 " of %" PRIu64 " pages are missing, for %" PRIi64
			 " ms more at %" PRIu64 " MiB/s",
			 s->missing, s->pages, eta_ms(g), g->rate >> 20);
	else if (s->missing)
		snprintf(text + n, size - (size_t)n, "; %" PRIu64 " of %" PRIu64
			 " pages are missing", s->missing, s->pages);
	else if (!s->sealed)
		snprintf(text + n, size - (size_t)n, "; nobody said that these are all");
}

/**
 * gatekeeper_blockers - name the gates that are closed, and those that can never open
 */
void gatekeeper_blockers(const struct gatekeeper *k, struct blockers *b)
{
	for (unsigned i = 0; i < k->n && k->stage == SERVED && !k->halted; i++) {
		const struct kept_gate *g = &k->gate[i];
		char name[72], text[192];

		if (g->seen.blocker)
			blockers_add(b, g->seen.blocker, "migration",
				     "what device %s reaches was declared after it ran: reset it",
				     g->name);
		if (gate_is_open(k, g) || g->seen.blocker)
			continue;
		snprintf(name, sizeof(name), "gate:%s", g->name);
		explain(g, text, sizeof(text));
		blockers_add(b, name, "device", "%s", text);
	}
}

/**
 * gatekeeper_report - a gate as it was at the last look
 *
 * Return: false: there is none with that number.
 */
bool gatekeeper_report(const struct gatekeeper *k, int gate, struct control_gate *out)
{
	const struct kept_gate *g;

	if (gate < 0 || (unsigned)gate >= k->n)
		return false;
	g = &k->gate[gate];
	*out = (struct control_gate){
		.enforced = g->enforced, .sealed = g->seen.sealed, .open = gate_is_open(k, g),
		.ran = g->seen.ran, .ranges = g->seen.ranges, .mapped = g->seen.mapped,
		.failed = g->seen.failed, .bytes = g->seen.bytes,
		.bytes_ready = g->seen.bytes - g->seen.missing_bytes, .pages = g->seen.pages,
		.pages_missing = g->seen.missing, .eta_ms = eta_ms(g), .error = g->seen.error,
		.error_iova = g->seen.error_iova,
	};
	out->rate = g->rate == GATE_NOT_RATED ? 0 : g->rate;
	g_strlcpy(out->name, g->name, sizeof(out->name));
	g_strlcpy(out->blocker, g->seen.blocker ? g->seen.blocker : "", sizeof(out->blocker));
	return true;
}
