/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests are of two kinds.  Those about the session need a fresh snapshot: they are parked per
 * client, one refresh is asked for however many wait, and control_refreshed() answers them all. The
 * others are answered at once, so replies may overtake each other; the id tells them apart.  A
 * fault thread that never answers costs the parked requests a Timeout, not the socket.
 */
#include "config.h"
#include "daemon/control.h"
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <glib-unix.h>
#include "core/guard.h"
#include "daemon/lineconn.h"
#include "daemon/report.h"
#include "sys/fd.h"
#include "wire/jsonmsg.h"

#define MAX_CLIENTS	   32
#define MAX_PARKED	   64 /* requests of one client that wait for a snapshot */
#define REFRESH_TIMEOUT_MS 5000
#define ACCEPT_PAUSE_MS	   1000 /* when the process is out of descriptors */

/* Commands that others answer. */
struct added {
	const struct control_command *commands;
	unsigned n;
	void *ctx;
};

struct control {
	int fd;
	unsigned n_added;
	struct added added[CONTROL_TABLES];
	const struct control_ops *ops;
	void *ctx;
	GPtrArray *clients; /* struct client, freed on removal */
	guint accept_source, pause_source, deadline_source;
	unsigned refresh_timeout_ms;
};

struct client {
	struct control *control;
	struct lineconn *conn;
	GQueue parked; /* struct request */
	bool events, eof;
};

/* What is asked: a row of our own table, or one that was added. */
struct question {
	const struct command *own;
	const struct control_command *other;
	void *ctx;
};

struct request {
	struct jsonmsg *id; /* NULL: none was given */
	struct question question;
};

typedef void (*report_fn)(struct jsonmsg_writer *w, const char *key, const struct snapshot *s);

/* A row has one of report (a snapshot as JSON) and at_once. */
struct command {
	const char *name;
	const char *const *arguments; /* members that "arguments" may have */
	report_fn report;
	void (*at_once)(struct client *c, const struct request *r, const struct jsonmsg *arguments);
};

static void request_free(struct request *r)
{
	jsonmsg_free(r->id);
	g_free(r);
}

/* --- replies ------------------------------------------------------------------------------ */

static struct jsonmsg_writer *begin_reply(const struct jsonmsg *id)
{
	struct jsonmsg_writer *w = jsonmsg_writer_new();

	jsonmsg_begin_object(w, NULL);
	if (id)
		jsonmsg_put_value(w, "id", id);
	return w;
}

static void send_reply(struct client *c, struct jsonmsg_writer *w)
{
	char *line cleanup_free = NULL;
	size_t len;

	jsonmsg_end(w);
	line = jsonmsg_finish(w, &len);
	lineconn_send(c->conn, line, len);
}

static void put_failure(struct jsonmsg_writer *w, const char *class, const char *desc)
{
	jsonmsg_begin_object(w, "error");
	jsonmsg_put_text(w, "class", class);
	jsonmsg_put_text(w, "desc", desc);
	jsonmsg_end(w);
}

G_GNUC_PRINTF(4, 5)
static void reply_error(struct client *c, const struct jsonmsg *id, const char *class,
			const char *fmt, ...)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_reply(id);
	g_autofree char *desc = NULL;
	va_list ap;

	va_start(ap, fmt);
	desc = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	put_failure(w, class, desc);
	send_reply(c, w);
}

/* --- commands ----------------------------------------------------------------------------- */

static void put_identity(const struct control *control, struct jsonmsg_writer *w, const char *key);

/* Ask whoever added the command. */
static void ask_other(struct client *c, const struct request *r, const struct jsonmsg *arguments)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_reply(r->id);
	const struct control_command *command = r->question.other;
	g_autoptr(GError) error = NULL;

	if (command->run(r->question.ctx, command->name, arguments, w, "return", &error))
		send_reply(c, w);
	else
		reply_error(c, r->id, command->fresh ? "Unavailable" : "Refused", "%s",
			    error ? error->message : "not now");
}

static void answer_capabilities(struct client *c, const struct request *r,
				const struct jsonmsg *arguments)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_reply(r->id);

	(void)arguments;
	put_identity(c->control, w, "return");
	send_reply(c, w);
}

/* An argument that is there must be a boolean. */
static bool read_flag(struct client *c, const struct request *r, const struct jsonmsg *arguments,
		      const char *name, bool *flag)
{
	const struct jsonmsg *v = jsonmsg_member(arguments, name);

	*flag = jsonmsg_bool(arguments, name, *flag);
	if (!v || jsonmsg_kind(v) == JSONMSG_BOOL)
		return true;
	reply_error(c, r->id, "BadArgument", "'%s' is not true or false", name);
	return false;
}

static void answer_events(struct client *c, const struct request *r,
			  const struct jsonmsg *arguments)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = NULL;
	bool enable = true;

	if (!read_flag(c, r, arguments, "enable", &enable))
		return;
	c->events = enable;
	w = begin_reply(r->id);
	jsonmsg_begin_object(w, "return");
	jsonmsg_put_bool(w, "enabled", enable);
	jsonmsg_end(w);
	send_reply(c, w);
}

static void answer_quit(struct client *c, const struct request *r, const struct jsonmsg *arguments)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = NULL;
	const char *why = NULL;
	bool force = false;

	if (!read_flag(c, r, arguments, "force", &force))
		return;
	if (!c->control->ops->quit(c->control->ctx, force, &why)) {
		reply_error(c, r->id, "Refused", "%s", why ? why : "not now");
		return;
	}
	w = begin_reply(r->id);
	jsonmsg_begin_object(w, "return");
	jsonmsg_end(w);
	send_reply(c, w);
}

static const char *const no_arguments[] = {NULL};

static const struct command commands[] = {
	{ "status", no_arguments, report_status, NULL },
	{ "sharers", no_arguments, report_sharers, NULL },
	{ "blocks", no_arguments, report_blocks, NULL },
	{ "stats", no_arguments, report_stats, NULL },
	{ "events", (const char *const[]){ "enable", NULL }, NULL, answer_events },
	{ "quit", (const char *const[]){ "force", NULL }, NULL, answer_quit },
	{ "capabilities", no_arguments, NULL, answer_capabilities },
};

static bool find_question(const struct control *control, const char *name, struct question *q)
{
	*q = (struct question){ .own = NULL };
	for (size_t i = 0; name && i < ARRAY_LEN(commands); i++)
		if (!strcmp(commands[i].name, name))
			q->own = &commands[i];
	for (unsigned i = 0; name && i < control->n_added; i++) {
		const struct added *a = &control->added[i];

		for (unsigned k = 0; k < a->n; k++)
			if (!strcmp(a->commands[k].name, name))
				*q = (struct question){ NULL, &a->commands[k], a->ctx };
	}
	return q->own || q->other;
}

static void put_identity(const struct control *control, struct jsonmsg_writer *w, const char *key)
{
	jsonmsg_begin_object(w, key);
	jsonmsg_put_text(w, "version", PACKAGE_VERSION);
	jsonmsg_put_text(w, "features", PC_FEATURES);
	jsonmsg_begin_array(w, "capabilities");
	for (size_t i = 0; i < ARRAY_LEN(commands); i++)
		jsonmsg_put_text(w, NULL, commands[i].name);
	for (unsigned i = 0; i < control->n_added; i++)
		for (unsigned k = 0; k < control->added[i].n; k++)
			jsonmsg_put_text(w, NULL, control->added[i].commands[k].name);
	jsonmsg_end(w);
	jsonmsg_end(w);
}

/* --- parked requests ---------------------------------------------------------------------- */

static void answer_parked(struct client *c, const struct request *r)
{
	const struct snapshot *s = c->control->ops->snapshot(c->control->ctx);
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = NULL;

	const struct command *own = r->question.own;

	if (!own) {
		ask_other(c, r, NULL);
	} else if (!s) {
		reply_error(c, r->id, "Unavailable", "there is no snapshot of the session");
	} else {
		w = begin_reply(r->id);
		own->report(w, "return", s);
		send_reply(c, w);
	}
}

static void answer_timeout(struct client *c, const struct request *r)
{
	reply_error(c, r->id, "Timeout", "the fault thread did not report within %u ms",
		    c->control->refresh_timeout_ms);
}

static void answer_all(struct control *control,
		       void (*answer)(struct client *, const struct request *))
{
	for (guint i = 0; i < control->clients->len; i++) {
		struct client *c = control->clients->pdata[i];
		struct request *r;

		while ((r = g_queue_pop_head(&c->parked))) {
			answer(c, r);
			request_free(r);
		}
		if (c->eof && !c->events)
			lineconn_finish(c->conn);
	}
}

static gboolean on_deadline(gpointer data)
{
	struct control *control = data;

	control->deadline_source = 0;
	answer_all(control, answer_timeout);
	return G_SOURCE_REMOVE;
}

/**
 * control_refreshed - a fresh snapshot is there: answer everything that was parked
 *
 * May be called at any time, from inside ops->refresh too, and with nothing parked.
 */
void control_refreshed(struct control *control)
{
	g_clear_handle_id(&control->deadline_source, g_source_remove);
	answer_all(control, answer_parked);
}

/* The deadline runs exactly while a refresh is owed to us. */
static void park(struct client *c, struct request *r)
{
	struct control *control = c->control;

	g_queue_push_tail(&c->parked, r);
	if (control->deadline_source)
		return;
	control->deadline_source = g_timeout_add(control->refresh_timeout_ms, on_deadline, control);
	control->ops->refresh(control->ctx);
}

/* --- requests ----------------------------------------------------------------------------- */

static void run(struct client *c, const struct question *q, const struct jsonmsg *id,
		const struct jsonmsg *arguments)
{
	struct request at_once = { (struct jsonmsg *)id, *q };
	const char *stranger = jsonmsg_stranger(arguments, q->own ? q->own->arguments :
								    q->other->arguments);

	if (stranger) {
		reply_error(c, id, "BadArgument", "'%s' has no argument '%s'",
			    q->own ? q->own->name : q->other->name, stranger);
	} else if (q->own && q->own->at_once) {
		q->own->at_once(c, &at_once, arguments);
	} else if (q->other && !q->other->fresh) {
		ask_other(c, &at_once, arguments);
	} else if (g_queue_get_length(&c->parked) >= MAX_PARKED) {
		reply_error(c, id, "Busy", "%d requests of this client are waiting already",
			    MAX_PARKED);
	} else {
		struct request *r = g_new0(struct request, 1);

		r->id = jsonmsg_copy(id);
		r->question = *q;
		park(c, r);
	}
}

static void take_request(struct client *c, const struct jsonmsg *v)
{
	static const char *const known[] = {"id", "execute", "arguments", NULL};
	const struct jsonmsg *arguments = jsonmsg_member(v, "arguments");
	const struct jsonmsg *id = jsonmsg_member(v, "id");
	const char *name = jsonmsg_text(v, "execute", NULL), *stranger = jsonmsg_stranger(v, known);
	struct question q;

	if (id && jsonmsg_kind(id) != JSONMSG_TEXT && jsonmsg_kind(id) != JSONMSG_NUMBER)
		reply_error(c, NULL, "BadRequest", "'id' is neither a string nor a number");
	else if (!name)
		reply_error(c, id, "BadRequest",
			    "a request is an object with the string 'execute'");
	else if (stranger)
		reply_error(c, id, "BadRequest", "a request has no member '%s'", stranger);
	else if (arguments && jsonmsg_kind(arguments) != JSONMSG_OBJECT)
		reply_error(c, id, "BadRequest", "'arguments' is not an object");
	else if (!find_question(c->control, name, &q))
		reply_error(c, id, "CommandNotFound", "there is no command '%.64s'", name);
	else
		run(c, &q, id, arguments);
}

static bool is_blank(const char *line, size_t len)
{
	return len == 0 || (len == 1 && *line == '\r');
}

static void on_line(void *ctx, const char *line, size_t len)
{
	struct jsonmsg *v cleanup_jsonmsg = NULL;
	const char *why;

	if (is_blank(line, len))
		return;
	if (jsonmsg_parse(&v, line, len, &why) < 0)
		reply_error(ctx, NULL, "BadJSON", "%s", why);
	else
		take_request(ctx, v);
}

/* --- clients ------------------------------------------------------------------------------ */

static void client_free(gpointer data)
{
	struct client *c = data;
	struct request *r;

	while ((r = g_queue_pop_head(&c->parked)))
		request_free(r);
	lineconn_free(c->conn);
	g_free(c);
}

/* A peer that only closed its sending side still gets what it asked for. */
static void on_eof(void *ctx)
{
	struct client *c = ctx;

	c->eof = true;
	if (!c->events && g_queue_is_empty(&c->parked))
		lineconn_finish(c->conn);
}

static void on_closed(void *ctx, const char *why)
{
	struct client *c = ctx;

	g_debug("control: client closed: %s", why);
	g_ptr_array_remove_fast(c->control->clients, c);
}

static void greet(struct client *c)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_reply(NULL);

	put_identity(c->control, w, "postcopyd");
	send_reply(c, w);
}

static void add_client(struct control *control, int fd)
{
	static const struct lineconn_ops ops = {on_line, on_eof, on_closed};
	struct client *c = g_new0(struct client, 1);

	c->control = control;
	g_queue_init(&c->parked);
	c->conn = lineconn_new(fd, &ops, c);
	g_ptr_array_add(control->clients, c);
	greet(c);
}

/* --- accepting ---------------------------------------------------------------------------- */

/* Who was turned away hears why, if the socket takes it at once. */
static void turn_away(int fd, const char *class, const char *desc)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_reply(NULL);
	char *line cleanup_free = NULL;
	size_t len;

	put_failure(w, class, desc);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, &len);
	(void)!send(fd, line, len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static bool peer_is_owner(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

static gboolean on_connection(gint fd, GIOCondition condition, gpointer data);

static gboolean resume_accepting(gpointer data)
{
	struct control *control = data;

	control->pause_source = 0;
	control->accept_source = g_unix_fd_add(control->fd, G_IO_IN, on_connection, control);
	return G_SOURCE_REMOVE;
}

/* The connection stays in the backlog and the socket readable: without a pause this would spin. */
static gboolean pause_accepting(struct control *control, int error)
{
	g_warning("control: cannot accept a connection: %s", g_strerror(error));
	control->accept_source = 0;
	control->pause_source = g_timeout_add(ACCEPT_PAUSE_MS, resume_accepting, control);
	return G_SOURCE_REMOVE;
}

static bool is_transient(int error)
{
	return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ECONNABORTED;
}

static gboolean on_connection(gint fd, GIOCondition condition, gpointer data)
{
	struct control *control = data;
	int peer cleanup_fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)condition;
	if (peer < 0 && !is_transient(errno))
		return pause_accepting(control, errno);
	if (peer < 0)
		return G_SOURCE_CONTINUE;
	if (!peer_is_owner(peer))
		turn_away(peer, "AccessDenied",
			  "only root and the daemon's own user may control it");
	else if (control->clients->len >= MAX_CLIENTS)
		turn_away(peer, "Busy", "too many clients are connected");
	else
		add_client(control, steal_fd(&peer));
	return G_SOURCE_CONTINUE;
}

/* --- life --------------------------------------------------------------------------------- */

/**
 * control_new - serve the control socket
 * @listen_fd: a listening UNIX stream socket, owned from here on, also on failure
 * @ops, @ctx: must outlive it
 *
 * Return: 0 or -errno.
 */
int control_new(struct control **out, int listen_fd, const struct control_ops *ops, void *ctx)
{
	struct control *control;
	int fd cleanup_fd = listen_fd;

	*out = NULL;
	if (!g_unix_set_fd_nonblocking(fd, TRUE, NULL))
		return -errno;
	control = g_new0(struct control, 1);
	control->fd = steal_fd(&fd);
	control->ops = ops;
	control->ctx = ctx;
	control->clients = g_ptr_array_new_with_free_func(client_free);
	control->refresh_timeout_ms = REFRESH_TIMEOUT_MS;
	resume_accepting(control);
	*out = control;
	return 0;
}

/**
 * control_add - commands that others answer
 * @list: used as long as @control lives, with @ctx
 */
void control_add(struct control *control, const struct control_command *list, unsigned n,
		 void *ctx)
{
	assert(control->n_added < CONTROL_TABLES);
	control->added[control->n_added++] = (struct added){ list, n, ctx };
}

/**
 * control_set_refresh_timeout - how long a request waits for control_refreshed() before it gets a
 * Timeout
 */
void control_set_refresh_timeout(struct control *control, unsigned ms)
{
	control->refresh_timeout_ms = ms;
}

/**
 * control_free - end every connection; NULL is fine
 *
 * Replies that the sockets take at once are still sent.  Not from inside an op.
 */
void control_free(struct control *control)
{
	if (!control)
		return;
	g_clear_handle_id(&control->accept_source, g_source_remove);
	g_clear_handle_id(&control->pause_source, g_source_remove);
	g_clear_handle_id(&control->deadline_source, g_source_remove);
	g_ptr_array_unref(control->clients);
	close_fd(&control->fd);
	g_free(control);
}

/* --- events ------------------------------------------------------------------------------- */

/**
 * control_event - tell every client that turned events on
 *
 *   {"event": @name, "data": {"state": …, "text": @text}, "timestamp": …}
 *
 * The line is the same for all and is made once.  The state is that of the last snapshot.
 */
void control_event(struct control *control, const char *name, const char *text)
{
	const struct snapshot *s = control->ops->snapshot(control->ctx);
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = begin_reply(NULL);
	char *line cleanup_free = NULL;
	size_t len;

	report_event(w, name, text, s);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, &len);
	for (guint i = 0; i < control->clients->len; i++) {
		struct client *c = control->clients->pdata[i];

		if (c->events)
			lineconn_send(c->conn, line, len);
	}
}
