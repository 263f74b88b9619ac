/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A round asks for every part of the view at once and shows it when the last answer is in; the next
 * round begins with the next tick, or at once when an event says that the state changed.  Nothing
 * waits for the daemon: signals, keys and the terminal's size are looked after meanwhile.
 */
#include "config.h"
#include "tools/ctl_watch.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <glib-unix.h>
#include "core/guard.h"
#include "tools/ctl_format.h"
#include "tools/ctl_screen.h"
#include "tools/ctl_term.h"
#include "tools/ctl_view.h"

#define TTY_INTERVAL_MS	  250
#define PLAIN_INTERVAL_MS 1000
#define MAX_SOURCES	  8
#define EVENTS_ID	  1000 /* ids below CTL_WATCHED are the parts of a round */

struct watch {
	struct ctl_client *client;
	const struct ctl_watch_options *options;
	GMainLoop *loop;
	guint sources[MAX_SOURCES];
	unsigned n_sources;
	struct ctl_term term;
	struct ctl_view *view; /* of the last round */
	struct ctl_pace pace;
	struct jsonmsg *answer[CTL_WATCHED]; /* replies of this round */
	unsigned waiting;		   /* answers that are not in yet */
	bool again;			   /* an event came meanwhile: another round at once */
	bool shown;
	char state[24]; /* last one heard of, by view or by event */
	int exit_code;
};

/* --- showing ------------------------------------------------------------------------------ */

static void show_json(struct watch *w)
{
	struct jsonmsg_writer *writer cleanup_jsonmsg_writer = jsonmsg_writer_new();
	char *line cleanup_free = NULL;

	jsonmsg_begin_object(writer, NULL);
	for (int i = 0; i < CTL_WATCHED; i++)
		jsonmsg_put_value(writer, ctl_view_command(i),
				  jsonmsg_member(w->answer[i], "return"));
	jsonmsg_end(writer);
	line = jsonmsg_finish(writer, NULL);
	fputs(line, stdout);
}

static void draw(struct watch *w)
{
	g_autoptr(GString) page = g_string_new(NULL);
	struct ctl_rates rates = ctl_pace_rates(&w->pace);
	struct ctl_size size = ctl_term_size();

	ctl_screen_page(page, w->view, &rates, &size);
	ctl_term_draw(page->str);
}

static void show_line(struct watch *w)
{
	g_autoptr(GString) line = g_string_new(NULL);
	struct ctl_rates rates = ctl_pace_rates(&w->pace);

	ctl_screen_line(line, w->view, &rates);
	fputs(line->str, stdout);
}

/* The picture that stays when the second screen is gone. */
static void leave_last_page(struct watch *w)
{
	g_autoptr(GString) page = g_string_new(NULL);
	struct ctl_rates rates = ctl_pace_rates(&w->pace);
	struct ctl_size size = ctl_term_size();

	size.rows = 0;
	ctl_screen_page(page, w->view, &rates, &size);
	fputs(page->str, stdout);
}

static void show(struct watch *w)
{
	if (w->options->json)
		show_json(w);
	else if (w->term.on)
		draw(w);
	else
		show_line(w);
	fflush(stdout);
	w->shown = true;
}

/* --- rounds ------------------------------------------------------------------------------- */

static void finish(struct watch *w, int exit_code)
{
	w->exit_code = exit_code;
	g_main_loop_quit(w->loop);
}

static void begin_round(struct watch *w)
{
	if (w->waiting) {
		w->again = true;
		return;
	}
	w->again = false;
	for (int i = 0; i < CTL_WATCHED; i++) {
		g_clear_pointer(&w->answer[i], jsonmsg_free);
		if (ctl_client_send(w->client, i, ctl_view_command(i), NULL) < 0)
			return; /* reading will tell how it ended */
	}
	w->waiting = CTL_WATCHED;
}

/* What one of the answers of a round said instead of answering, or NULL. */
static const char *refusal(const struct watch *w)
{
	for (int i = 0; i < CTL_WATCHED; i++) {
		const struct jsonmsg *error = jsonmsg_member(w->answer[i], "error");

		if (error)
			return jsonmsg_text(error, "desc", "refused");
	}
	return NULL;
}

/* The two states that end a session; PAUSED waits for an operator, so it is watched on. */
static void look_at_state(struct watch *w, const char *state)
{
	g_strlcpy(w->state, state, sizeof(w->state));
	if (!strcmp(state, "complete"))
		finish(w, 0);
	else if (!strcmp(state, "failed"))
		finish(w, 1);
}

static void complain(const struct watch *w, const char *why)
{
	g_autofree char *plain = ctl_format_plain(why);

	if (!w->term.on)
		g_printerr("postcopyctl: %s\n", plain);
}

/* A daemon that cannot answer now is asked again with the next tick. */
static void end_round(struct watch *w)
{
	const char *why = refusal(w);

	if (why) {
		complain(w, why);
		return;
	}
	memset(w->view, 0, sizeof(*w->view));
	for (int i = 0; i < CTL_WATCHED; i++)
		ctl_view_read(w->view, i, jsonmsg_member(w->answer[i], "return"));
	ctl_pace_add(&w->pace, w->view);
	show(w);
	look_at_state(w, w->view->status.state);
	if (w->again)
		begin_round(w);
}

/* The event is remembered, for the daemon may end before the next round does. */
static void take_event(struct watch *w, const struct jsonmsg *event)
{
	const char *state = jsonmsg_text(jsonmsg_member(event, "data"), "state", NULL);

	if (state)
		g_strlcpy(w->state, state, sizeof(w->state));
	begin_round(w);
}

static void take_line(struct watch *w, struct jsonmsg *line)
{
	struct jsonmsg *v cleanup_jsonmsg = line;
	int64_t id = jsonmsg_i64(v, "id", -1);

	if (jsonmsg_member(v, "event")) {
		take_event(w, v);
	} else if (id >= 0 && id < CTL_WATCHED && w->waiting && !w->answer[id]) {
		w->answer[id] = steal_ptr(&v);
		if (--w->waiting == 0)
			end_round(w);
	}
}

/* The daemon may end before its last state was shown; an event has told it then. */
static void lose_daemon(struct watch *w)
{
	if (!strcmp(w->state, "complete")) {
		finish(w, 0);
		return;
	}
	if (!strcmp(w->state, "failed"))
		g_clear_pointer(&w->client->error, g_free);
	finish(w, 1);
}

/* --- sources ------------------------------------------------------------------------------ */

static gboolean on_socket(gint fd, GIOCondition condition, gpointer data)
{
	struct watch *w = data;
	int gone = ctl_client_read(w->client), taken;
	struct jsonmsg *line;

	(void)fd;
	(void)condition;
	while ((taken = ctl_client_take(w->client, &line)) > 0)
		take_line(w, line);
	if (gone < 0 || taken < 0) {
		if (g_main_loop_is_running(w->loop))
			lose_daemon(w);
		return G_SOURCE_CONTINUE;
	}
	return G_SOURCE_CONTINUE;
}

static gboolean on_tick(gpointer data)
{
	struct watch *w = data;

	if (!w->waiting)
		begin_round(w);
	return G_SOURCE_CONTINUE;
}

static gboolean on_stop(gpointer data)
{
	finish(data, 0);
	return G_SOURCE_CONTINUE;
}

static gboolean on_resize(gpointer data)
{
	struct watch *w = data;

	if (w->term.on && w->shown)
		draw(w);
	return G_SOURCE_CONTINUE;
}

static gboolean on_key(gint fd, GIOCondition condition, gpointer data)
{
	char key;

	(void)condition;
	if (read(fd, &key, 1) <= 0)
		return G_SOURCE_REMOVE;
	if (key == 'q' || key == 'Q')
		finish(data, 0);
	return G_SOURCE_CONTINUE;
}

static void add_source(struct watch *w, guint id)
{
	g_assert(w->n_sources < MAX_SOURCES);
	w->sources[w->n_sources++] = id;
}

static void add_sources(struct watch *w)
{
	unsigned interval = w->options->interval_ms;

	if (!interval)
		interval = w->term.on ? TTY_INTERVAL_MS : PLAIN_INTERVAL_MS;
	add_source(w, g_unix_signal_add(SIGINT, on_stop, w));
	add_source(w, g_unix_signal_add(SIGTERM, on_stop, w));
	add_source(w, g_unix_signal_add(SIGHUP, on_stop, w));
	add_source(w, g_unix_signal_add(SIGWINCH, on_resize, w));
	add_source(w, g_unix_fd_add(w->client->fd, G_IO_IN, on_socket, w));
	add_source(w, g_timeout_add(interval, on_tick, w));
}

static void watch_clear(struct watch *w)
{
	for (unsigned i = 0; i < w->n_sources; i++)
		g_source_remove(w->sources[i]);
	for (int i = 0; i < CTL_WATCHED; i++)
		jsonmsg_free(w->answer[i]);
	g_main_loop_unref(w->loop);
	g_free(w->view);
}

/**
 * ctl_watch_run - show the session until it ends
 * @c: open; its connection is used up
 *
 * Return: the exit code: 0 when it is complete or the user ends it, 1 when it failed or the daemon
 * ended, with c->error set when there is more to say than the last view did.
 */
int ctl_watch_run(struct ctl_client *c, const struct ctl_watch_options *o)
{
	struct watch w __attribute__((cleanup(watch_clear))) = {
		.client = c,
		.options = o,
		.loop = g_main_loop_new(NULL, FALSE),
		.view = g_new0(struct ctl_view, 1),
	};
	bool tty = !o->json && ctl_term_usable();
	guint keys = 0;

	if (ctl_client_send(c, EVENTS_ID, "events", NULL) < 0)
		return 1;
	if (tty)
		ctl_term_enter(&w.term);
	if (w.term.keys)
		keys = g_unix_fd_add(STDIN_FILENO, G_IO_IN, on_key, &w);
	add_sources(&w);
	begin_round(&w);
	g_main_loop_run(w.loop);
	if (keys && g_main_context_find_source_by_id(NULL, keys))
		g_source_remove(keys);
	ctl_term_leave(&w.term);
	if (tty && w.shown)
		leave_last_page(&w);
	return w.exit_code;
}

/* --- events ------------------------------------------------------------------------------- */

static void print_event(const struct jsonmsg *event)
{
	const struct jsonmsg *when = jsonmsg_member(event, "timestamp");
	const struct jsonmsg *data = jsonmsg_member(event, "data");
	g_autoptr(GDateTime) time =
		g_date_time_new_from_unix_local(jsonmsg_i64(when, "seconds", 0));
	g_autofree char *stamp = time ? g_date_time_format(time, "%F %T") : NULL;
	g_autofree char *name = ctl_format_plain(jsonmsg_text(event, "event", "?"));
	g_autofree char *state = ctl_format_plain(jsonmsg_text(data, "state", name));
	g_autofree char *text = ctl_format_plain(jsonmsg_text(data, "text", ""));

	printf("%s.%03u %s", stamp ? stamp : "?",
	       (unsigned)(jsonmsg_u64(when, "microseconds", 0) / 1000), name);
	if (strcmp(state, name))
		printf(" (%s)", state);
	printf("%s%s\n", *text ? ": " : "", text);
}

/**
 * ctl_watch_events - print events as they come, until the daemon or the user ends it
 *
 * Return: 0, or 1 with c->error.
 */
int ctl_watch_events(struct ctl_client *c, bool json)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	int r = ctl_client_ask(c, "events", NULL, &reply);

	while (r == 0) {
		struct jsonmsg *event cleanup_jsonmsg = NULL;
		char *line cleanup_free = NULL;

		r = ctl_client_wait(c, &event, -1);
		if (r < 0 || !jsonmsg_member(event, "event"))
			continue;
		line = json ? jsonmsg_print(event, NULL) : NULL;
		if (line)
			fputs(line, stdout);
		else
			print_event(event);
		fflush(stdout);
	}
	return r == -EPIPE ? 0 : 1;
}
