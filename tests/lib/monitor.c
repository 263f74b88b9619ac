/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * monitor PATH STEP...: talk to the monitor of a QEMU, one step after the other, and print a line
 * of JSON for each; events are printed as they come.  Ends with 0 when all steps were answered,
 * whatever the answers were, with 1 when the monitor closed before.
 *
 *   status migrate memdev cont stop quit capability=NAME incoming=URI human=LINE qom=PATH:PROPERTY
 *   ramblock flatview gpa2hva=ADDRESS      human, and then read by wire/qmonitor
 *   deadline=MS                            of all that follow
 *   freeze thaw                            the process behind the socket
 *   event=NAME                             wait for one that has not come since the last such step
 *   closed                                 wait for the end of the connection
 */
#include "config.h"
#include "daemon/qmp.h"
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <glib.h>
#include "core/guard.h"
#include "wire/qmonitor.h"

#define ROOM 64

struct run {
	GMainLoop *loop;
	struct qmp *qmp;
	char **steps;
	unsigned deadline_ms;
	const char *wanted;	 /* event that is waited for */
	GHashTable *seen;	 /* events that were not waited for yet */
	bool wants_end, failed;
};

struct verb {
	const char *name;
	void (*begin)(struct run *r, const char *argument, struct qmp_call call);
	/* Adds to the line what is read from an answer that is a text, or NULL. */
	void (*read)(struct jsonmsg_writer *w, const char *text);
};

static const struct verb verbs[];

static void print(struct jsonmsg_writer *w)
{
	char *line cleanup_free = NULL;

	jsonmsg_end(w);
	line = jsonmsg_finish(w, NULL);
	fputs(line, stdout);
	fflush(stdout);
}

static struct jsonmsg_writer *begin_line(const char *key, const char *text)
{
	struct jsonmsg_writer *w = jsonmsg_writer_new();

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, key, text);
	return w;
}

/* --- what is read from texts ------------------------------------------------------------------ */

static void put_block(struct jsonmsg_writer *w, const struct qmonitor_block *b)
{
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "name", b->name);
	jsonmsg_put_u64(w, "page_size", b->page_size);
	jsonmsg_put_u64(w, "used", b->used);
	jsonmsg_put_u64(w, "total", b->total);
	if (b->has_address) {
		jsonmsg_put_u64(w, "address", b->address);
		jsonmsg_put_bool(w, "read_only", b->read_only);
	}
	jsonmsg_end(w);
}

static void read_ramblock(struct jsonmsg_writer *w, const char *text)
{
	g_autofree struct qmonitor_block *blocks = g_new0(struct qmonitor_block, ROOM);
	const char *why;
	int n = qmonitor_ramblock(text, strlen(text), blocks, ROOM, &why);

	jsonmsg_put_text(w, "why", why);
	jsonmsg_begin_array(w, "blocks");
	for (int i = 0; i < n; i++)
		put_block(w, &blocks[i]);
	jsonmsg_end(w);
}

static void put_range(struct jsonmsg_writer *w, const struct qmonitor_range *r)
{
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "name", r->name);
	jsonmsg_put_u64(w, "start", r->start);
	jsonmsg_put_u64(w, "last", r->last);
	jsonmsg_put_u64(w, "offset", r->offset);
	jsonmsg_put_bool(w, "ram", r->kind == QMONITOR_RAM);
	jsonmsg_end(w);
}

static void read_flatview(struct jsonmsg_writer *w, const char *text)
{
	g_autofree struct qmonitor_range *ranges = g_new0(struct qmonitor_range, ROOM);
	struct qmonitor_view view = {ranges, ROOM, false};
	const char *why;
	int n = qmonitor_flatview(text, strlen(text), &view, &why);

	jsonmsg_put_text(w, "why", why);
	jsonmsg_begin_array(w, "ranges");
	for (int i = 0; i < n; i++)
		put_range(w, &ranges[i]);
	jsonmsg_end(w);
}

static void read_place(struct jsonmsg_writer *w, const char *text)
{
	struct qmonitor_place place;
	const char *why;
	int r = qmonitor_gpa2hva(text, strlen(text), &place, &why);

	jsonmsg_put_text(w, "why", why);
	jsonmsg_put_text(w, "name", r == 0 ? place.name : NULL);
	jsonmsg_put_u64(w, "guest", place.guest);
	jsonmsg_put_u64(w, "address", place.address);
}

/* --- steps ------------------------------------------------------------------------------------ */

static void begin_status(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_query_status(r->qmp, call);
}

static void begin_migrate(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_query_migrate(r->qmp, call);
}

static void begin_memdev(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_query_memdev(r->qmp, call);
}

static void begin_cont(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_cont(r->qmp, call);
}

static void begin_stop(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_stop(r->qmp, call);
}

static void begin_quit(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_send(r->qmp, "quit", NULL, call);
}

static void begin_capability(struct run *r, const char *argument, struct qmp_call call)
{
	qmp_set_capability(r->qmp, argument, true, call);
}

static void begin_incoming(struct run *r, const char *argument, struct qmp_call call)
{
	qmp_migrate_incoming(r->qmp, argument, call);
}

static void begin_human(struct run *r, const char *argument, struct qmp_call call)
{
	qmp_human(r->qmp, argument, call);
}

static void begin_qom(struct run *r, const char *argument, struct qmp_call call)
{
	g_auto(GStrv) parts = g_strsplit(argument, ":", 2);

	qmp_qom_get(r->qmp, parts[0], parts[1], call);
}

static void begin_ramblock(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_human(r->qmp, "info ramblock", call);
}

static void begin_flatview(struct run *r, const char *argument, struct qmp_call call)
{
	(void)argument;
	qmp_human(r->qmp, "info mtree -f", call);
}

static void begin_gpa2hva(struct run *r, const char *argument, struct qmp_call call)
{
	g_autofree char *line = g_strdup_printf("gpa2hva %s", argument);

	qmp_human(r->qmp, line, call);
}

static const struct verb verbs[] = {
	{"status", begin_status, NULL},		{"migrate", begin_migrate, NULL},
	{"memdev", begin_memdev, NULL},		{"cont", begin_cont, NULL},
	{"stop", begin_stop, NULL},		{"quit", begin_quit, NULL},
	{"capability", begin_capability, NULL}, {"incoming", begin_incoming, NULL},
	{"human", begin_human, NULL},		{"qom", begin_qom, NULL},
	{"ramblock", begin_ramblock, read_ramblock},
	{"flatview", begin_flatview, read_flatview},
	{"gpa2hva", begin_gpa2hva, read_place},
};

static void next_step(struct run *r);

static void on_answer(void *ctx, const struct qmp_answer *a)
{
	static const char *const outcomes[] = {"ok", "refused", "deadline", "closed"};
	struct run *r = ctx;
	g_auto(GStrv) step = g_strsplit(*r->steps, "=", 2);
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_line("step", step[0]);

	jsonmsg_put_text(w, "outcome", outcomes[a->outcome]);
	jsonmsg_put_text(w, "text", a->text);
	jsonmsg_put_text(w, "class", a->class);
	jsonmsg_put_value(w, "value", a->value);
	jsonmsg_put_text(w, "status", qmp_status(a));
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!strcmp(verbs[i].name, step[0]) && verbs[i].read)
			verbs[i].read(w, qmp_text(a));
	print(w);
	r->steps++;
	next_step(r);
}

/* Steps that are no commands: true when it is over at once. */
static bool wait_or_do(struct run *r, const char *name, const char *argument)
{
	if (!strcmp(name, "deadline")) {
		r->deadline_ms = (unsigned)strtoul(argument, NULL, 10);
	} else if (!strcmp(name, "freeze") || !strcmp(name, "thaw")) {
		kill(qmp_peer_pid(r->qmp), *name == 'f' ? SIGSTOP : SIGCONT);
	} else if (!strcmp(name, "closed")) {
		r->wants_end = true;
		return false;
	} else if (!g_hash_table_remove(r->seen, argument)) {
		r->wanted = strchr(*r->steps, '=') + 1;
		return false;
	}
	r->steps++;
	return true;
}

static bool begin_command(struct run *r, const char *name, const char *argument)
{
	struct qmp_call call = {on_answer, r, r->deadline_ms};

	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i].name, name) != 0)
			continue;
		verbs[i].begin(r, argument, call);
		return true;
	}
	return false;
}

static void next_step(struct run *r)
{
	while (*r->steps) {
		g_auto(GStrv) step = g_strsplit(*r->steps, "=", 2);

		if (begin_command(r, step[0], step[1]) || !wait_or_do(r, step[0], step[1]))
			return;
	}
	g_main_loop_quit(r->loop);
}

/* --- the client ------------------------------------------------------------------------------- */

static void on_ready(void *ctx)
{
	struct run *r = ctx;
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_line("step", "ready");

	jsonmsg_put_text(w, "version", qmp_version(r->qmp));
	jsonmsg_put_u64(w, "number", qmp_version_number(r->qmp));
	jsonmsg_put_i64(w, "pid", qmp_peer_pid(r->qmp));
	print(w);
	next_step(r);
}

static void on_event(void *ctx, const struct qmp_event *e)
{
	struct run *r = ctx;
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_line("event", e->name);

	jsonmsg_put_i64(w, "kind", e->kind);
	jsonmsg_put_text(w, "status", e->status);
	print(w);
	if (!r->wanted || strcmp(r->wanted, e->name) != 0) {
		g_hash_table_add(r->seen, g_strdup(e->name));
		return;
	}
	r->wanted = NULL;
	r->steps++;
	next_step(r);
}

static void on_closed(void *ctx, const char *why)
{
	struct run *r = ctx;
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_line("closed", why);

	print(w);
	r->failed = !r->wants_end;
	g_main_loop_quit(r->loop);
}

static gboolean tell_waits(gpointer data)
{
	struct run *r = data;
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = NULL;

	if (!qmp_waits_for(r->qmp))
		return G_SOURCE_REMOVE;
	w = begin_line("waits", qmp_waits_for(r->qmp));
	print(w);
	return G_SOURCE_CONTINUE;
}

int main(int argc, char **argv)
{
	static const struct qmp_ops ops = {on_ready, on_event, on_closed};
	struct run run = {.steps = argv + 2, .deadline_ms = QMP_PATIENCE_MS};

	if (argc < 2) {
		fprintf(stderr, "usage: monitor PATH STEP...\n");
		return 2;
	}
	run.loop = g_main_loop_new(NULL, FALSE);
	run.seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
	run.qmp = qmp_new(argv[1], &ops, &run);
	g_timeout_add(100, tell_waits, &run);
	g_main_loop_run(run.loop);
	qmp_free(run.qmp);
	while (g_main_context_iteration(NULL, FALSE))
		;
	g_hash_table_unref(run.seen);
	g_main_loop_unref(run.loop);
	return run.failed;
}
