// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One list of counters for both forms.  The JSON is an interface of the tests: names stay, members
 * are added.
 */
#include "config.h"

#include "source_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "wire/jsonmsg.h"

struct counter {
	const char *name;
	uint64_t value;
};
#define MAX_COUNTERS 20

static unsigned count(const struct source_session *s, uint64_t duration, struct counter *out)
{
	const struct counter all[] = {
		{"pages", s->pages},
		{"zero", s->zero},
		{"urgent_pages", s->urgent_pages},
		{"precopied", s->precopied},
		{"owed", s->owed},
		{"withheld", s->withheld},
		{"requested", s->check.requested},
		{"requested_twice", s->check.requested_twice},
		{"main_bytes", s->main.bytes},
		{"urgent_bytes", s->urgent.bytes},
		{"pongs", s->check.pongs},
		{"violations", s->check.violations},
		{"reconnects", s->reconnects},
		{"resent", atomic_load(&s->resent)},
		{"paused_ms", s->paused_ns / 1000000},
		{"duration_ms", duration / 1000000},
		{"seed", s->options->seed},
	};

	_Static_assert(ARRAY_LEN(all) <= MAX_COUNTERS, "counters");
	memcpy(out, all, sizeof(all));
	return ARRAY_LEN(all);
}

/* 32 hexadecimal digits, as xxhsum prints them. */
static bool digest_text(const struct source_block *b, char out[33])
{
	uint64_t digest[2];

	if (source_block_digest(b, digest) < 0)
		return false;
	snprintf(out, 33, "%016" PRIx64 "%016" PRIx64, digest[0], digest[1]);
	return true;
}

static const char *trouble(const struct source_session *s)
{
	return atomic_load(&s->end) == SOURCE_FINISHED ? NULL : s->problem;
}

/* --- JSON ----------------------------------------------------------------------------------- */

static void put_faults(struct jsonmsg_writer *w, const struct source_faults *f)
{
	jsonmsg_begin_array(w, "faults_fired");
	for (unsigned i = 0; i < f->n; i++)
		if (f->list[i].fired)
			jsonmsg_put_text(w, NULL, f->list[i].kind->name);
	jsonmsg_end(w);
}

static void put_digests(struct jsonmsg_writer *w, const struct source_session *s)
{
	char text[33];

	jsonmsg_begin_object(w, "digests");
	for (unsigned i = 0; i < s->n_ready; i++)
		jsonmsg_put_text(w, s->blocks[i].spec.name,
				 digest_text(&s->blocks[i], text) ? text : NULL);
	jsonmsg_end(w);
}

static void print_json(const struct source_session *s, const struct counter *c, unsigned n)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	cleanup_free char *line = NULL;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "outcome", source_session_outcome(s));
	for (unsigned i = 0; i < n; i++)
		jsonmsg_put_u64(w, c[i].name, c[i].value);
	if (s->check.has_shut)
		jsonmsg_put_u64(w, "shut", s->check.shut);
	else
		jsonmsg_put_text(w, "shut", NULL);
	jsonmsg_put_text(w, "violation", s->check.violations ? s->check.first : NULL);
	jsonmsg_put_text(w, "problem", trouble(s));
	put_faults(w, &s->options->faults);
	source_devices_report(s->devices, w);
	if (s->options->digest)
		put_digests(w, s);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, NULL);
	fputs(line, stdout);
}

/* --- lines ---------------------------------------------------------------------------------- */

static void print_lines(const struct source_session *s, const struct counter *c, unsigned n)
{
	char text[33];

	printf("outcome: %s\n", source_session_outcome(s));
	for (unsigned i = 0; i < n; i++)
		printf("%s: %" PRIu64 "\n", c[i].name, c[i].value);
	if (s->check.has_shut)
		printf("shut: %" PRIu32 "\n", s->check.shut);
	if (s->check.violations)
		printf("violation: %s\n", s->check.first);
	source_devices_print(s->devices);
	if (trouble(s))
		printf("problem: %s\n", trouble(s));
	for (unsigned i = 0; s->options->digest && i < s->n_ready; i++)
		printf("digest %s: %s\n", s->blocks[i].spec.name,
		       digest_text(&s->blocks[i], text) ? text : "cannot be read");
}

/**
 * source_report_print - the summary on standard output, as lines or (--json) one object
 * @duration: nanoseconds
 */
void source_report_print(const struct source_session *s, uint64_t duration)
{
	struct counter counters[MAX_COUNTERS];
	unsigned n = count(s, duration, counters);

	(s->options->json ? print_json : print_lines)(s, counters, n);
	fflush(stdout);
}

/**
 * source_report_devices - the summary where devices are all that was sent
 * @problem: NULL: they were
 */
void source_report_devices(const struct source_options *o, const struct source_devices *d,
			   const char *outcome, const char *problem)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = NULL;
	cleanup_free char *line = NULL;

	if (o->json) {
		w = jsonmsg_writer_new();
		jsonmsg_begin_object(w, NULL);
		jsonmsg_put_text(w, "outcome", outcome);
		jsonmsg_put_text(w, "problem", problem);
		put_faults(w, &o->faults);
		source_devices_report(d, w);
		jsonmsg_end(w);
		line = jsonmsg_finish(w, NULL);
		fputs(line, stdout);
	} else {
		printf("outcome: %s\n", outcome);
		source_devices_print(d);
		if (problem)
			printf("problem: %s\n", problem);
	}
	fflush(stdout);
}

/**
 * source_report_is_good - completed, and the destination broke no rule?
 */
bool source_report_is_good(const struct source_session *s)
{
	return !s->check.violations && strcmp(source_session_outcome(s), "completed") == 0;
}
