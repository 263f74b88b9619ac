/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One monitor, one connection, in four states: no connection yet, waiting for the greeting, waiting
 * for the answer to qmp_capabilities, ready.  Then it is over: whoever finds out says why once, and
 * the main loop tells every command that waits and then the owner.
 *
 * Commands carry ids, counted up; a reply with an id that was given out but is not waited for came
 * after its deadline and is dropped.  An id that was never given out is somebody else's
 * conversation: it ends the connection, as everything does that is not understood.
 *
 * The owner may free the client out of any callback.  It is silenced at once; what is still on the
 * stack (lineconn hands out the lines of one read in a row) stays until the main loop turns.
 */
#include "config.h"
#include "daemon/qmp.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <glib-unix.h>
#include "core/guard.h"
#include "daemon/lineconn.h"
#include "sys/fd.h"

#define RETRY_MS 50

enum state { CONNECTING, GREETING, NEGOTIATING, READY, OVER };

/* A command that is not answered yet. */
struct pending {
	struct qmp *qmp;
	int64_t id; /* 0: it was never sent */
	char *command;
	struct qmp_call call;
	guint source; /* its deadline; of one never sent: its answer */
};

struct qmp {
	char *path;
	const struct qmp_ops *ops;
	void *ctx;
	enum state state;
	char *waits; /* for what, in words; until READY */
	char *over;  /* why it ended */
	struct lineconn *conn;
	GQueue pending;
	int64_t last_id;
	guint retry_source, over_source, bury_source;
	unsigned calling; /* callbacks of the owner on the stack */
	bool freed;
	pid_t peer;
	char version[40];
	unsigned version_number;
};

static void pending_free(struct pending *p)
{
	g_clear_handle_id(&p->source, g_source_remove);
	g_free(p->command);
	g_free(p);
}

static void set_waits(struct qmp *q, const char *format, const char *detail)
{
	g_free(q->waits);
	q->waits = g_strdup_printf("%s%s%s", format, detail ? ": " : "", detail ? detail : "");
}

/* --- answers and the end ---------------------------------------------------------------------- */

/* Out of the queue, answered, freed. */
static void answer(struct qmp *q, struct pending *p, const struct qmp_answer *a)
{
	g_queue_remove(&q->pending, p);
	if (p->call.done) {
		q->calling++;
		p->call.done(p->call.ctx, a);
		q->calling--;
	}
	pending_free(p);
}

static void answer_closed(struct qmp *q, struct pending *p)
{
	g_autofree char *text = g_strdup_printf("%s: %s", p->command,
						q->over ? q->over : "the monitor is not ready");

	answer(q, p, &(struct qmp_answer){.outcome = QMP_CLOSED, .text = text});
}

static gboolean tell_over(gpointer data)
{
	struct qmp *q = data;
	struct pending *p;

	q->over_source = 0;
	q->calling++;
	while (!q->freed && (p = g_queue_peek_head(&q->pending)))
		answer_closed(q, p);
	if (!q->freed)
		q->ops->closed(q->ctx, q->over);
	q->calling--;
	return G_SOURCE_REMOVE;
}

/* From here on nothing is read or sent; the main loop tells. */
G_GNUC_PRINTF(2, 3)
static void end(struct qmp *q, const char *format, ...)
{
	va_list ap;

	if (q->state == OVER || q->freed)
		return; /* a connection that is finished for a client that was freed ends, too */
	va_start(ap, format);
	q->over = g_strdup_vprintf(format, ap);
	va_end(ap);
	q->state = OVER;
	g_clear_handle_id(&q->retry_source, g_source_remove);
	if (q->conn)
		lineconn_finish(q->conn);
	q->over_source = g_idle_add_full(G_PRIORITY_DEFAULT, tell_over, q, NULL);
}

/* --- commands --------------------------------------------------------------------------------- */

static gboolean on_deadline(gpointer data)
{
	struct pending *p = data;
	g_autofree char *text = g_strdup_printf("%s: QEMU has not answered within %u ms",
						p->command, p->call.deadline_ms);

	p->source = 0;
	answer(p->qmp, p, &(struct qmp_answer){.outcome = QMP_DEADLINE, .text = text});
	return G_SOURCE_REMOVE;
}

static gboolean on_never_sent(gpointer data)
{
	struct pending *p = data;

	p->source = 0;
	answer_closed(p->qmp, p);
	return G_SOURCE_REMOVE;
}

static void send_line(struct qmp *q, const struct pending *p, const struct jsonmsg *arguments)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	char *line cleanup_free = NULL;
	size_t len;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "execute", p->command);
	if (arguments)
		jsonmsg_put_value(w, "arguments", arguments);
	jsonmsg_put_i64(w, "id", p->id);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, &len);
	lineconn_send(q->conn, line, len);
}

static struct pending *add_pending(struct qmp *q, const char *command, struct qmp_call call)
{
	struct pending *p = g_new0(struct pending, 1);

	*p = (struct pending){.qmp = q, .command = g_strdup(command), .call = call};
	g_queue_push_tail(&q->pending, p);
	return p;
}

static void send_command(struct qmp *q, const char *command, const struct jsonmsg *arguments,
			 struct qmp_call call)
{
	struct pending *p = add_pending(q, command, call);

	p->id = ++q->last_id;
	if (call.deadline_ms)
		p->source = g_timeout_add(call.deadline_ms, on_deadline, p);
	send_line(q, p, arguments);
}

/**
 * qmp_send - a command
 * @arguments: an object, not kept; NULL: none
 * @call: who is called with the answer, once, unless the client is freed before
 */
void qmp_send(struct qmp *q, const char *command, const struct jsonmsg *arguments,
	      struct qmp_call call)
{
	struct pending *p;

	if (q->state == READY) {
		send_command(q, command, arguments, call);
		return;
	}
	p = add_pending(q, command, call);
	p->source = g_idle_add_full(G_PRIORITY_DEFAULT, on_never_sent, p, NULL);
}

static struct pending *find_pending(struct qmp *q, int64_t id)
{
	for (GList *at = q->pending.head; at; at = at->next)
		if (((struct pending *)at->data)->id == id)
			return at->data;
	return NULL;
}

/* --- messages --------------------------------------------------------------------------------- */

static void take_refusal(struct qmp *q, struct pending *p, const struct jsonmsg *error)
{
	const char *desc = jsonmsg_text(error, "desc", "it does not say why");
	g_autofree char *text = g_strdup_printf("%s: %s", p->command, desc);

	answer(q, p, &(struct qmp_answer){
			     .outcome = QMP_REFUSED,
			     .class = jsonmsg_text(error, "class", "GenericError"),
			     .text = text,
		     });
}

static void take_reply(struct qmp *q, const struct jsonmsg *message)
{
	const struct jsonmsg *error = jsonmsg_member(message, "error");
	int64_t id = jsonmsg_i64(message, "id", 0);
	struct pending *p = id > 0 ? find_pending(q, id) : NULL;

	if (id <= 0 || id > q->last_id)
		end(q, "QEMU's monitor %s answers a command that was not sent: %s", q->path,
		    jsonmsg_text(error, "desc", "no error"));
	else if (p && error)
		take_refusal(q, p, error);
	else if (p)
		answer(q, p, &(struct qmp_answer){
				     .outcome = QMP_OK,
				     .value = jsonmsg_member(message, "return"),
				     .text = "",
			     });
}

static enum qmp_event_kind event_kind(const char *name)
{
	static const struct {
		const char *name;
		enum qmp_event_kind kind;
	} kinds[] = {
		{"MIGRATION", QMP_EVENT_MIGRATION}, {"STOP", QMP_EVENT_STOP},
		{"RESUME", QMP_EVENT_RESUME},	    {"SHUTDOWN", QMP_EVENT_SHUTDOWN},
		{"RESET", QMP_EVENT_RESET},
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			return kinds[i].kind;
	return QMP_EVENT_OTHER;
}

static void take_event(struct qmp *q, const char *name, const struct jsonmsg *message)
{
	struct qmp_event e = {
		.kind = event_kind(name),
		.name = name,
		.data = jsonmsg_member(message, "data"),
	};

	if (e.kind == QMP_EVENT_MIGRATION)
		e.status = jsonmsg_text(e.data, "status", "");
	q->calling++;
	q->ops->event(q->ctx, &e);
	q->calling--;
}

static void on_capabilities(void *ctx, const struct qmp_answer *a)
{
	struct qmp *q = ctx;

	if (a->outcome == QMP_CLOSED)
		return; /* why is told already */
	if (a->outcome != QMP_OK) {
		end(q, "QEMU's monitor %s is not to be had: %s", q->path, a->text);
		return;
	}
	q->state = READY;
	g_clear_pointer(&q->waits, g_free);
	q->ops->ready(q->ctx);
}

static void take_greeting(struct qmp *q, const struct jsonmsg *message)
{
	const struct jsonmsg *qmp = jsonmsg_member(message, "QMP");
	const struct jsonmsg *v = jsonmsg_member(jsonmsg_member(qmp, "version"), "qemu");
	unsigned major = (unsigned)jsonmsg_u64(v, "major", 0) % 1000;
	unsigned minor = (unsigned)jsonmsg_u64(v, "minor", 0) % 100;

	if (!v) {
		end(q, "%s is no monitor of a QEMU: it greets with something else than QMP",
		    q->path);
		return;
	}
	g_snprintf(q->version, sizeof(q->version), "%u.%u.%u", major, minor,
		   (unsigned)jsonmsg_u64(v, "micro", 0));
	q->version_number = major * 100 + minor;
	q->state = NEGOTIATING;
	set_waits(q, "QEMU's answer to qmp_capabilities", q->path);
	send_command(q, "qmp_capabilities", NULL, (struct qmp_call){on_capabilities, q, 0});
}

static void take_message(struct qmp *q, const struct jsonmsg *message)
{
	const char *event = jsonmsg_text(message, "event", NULL);

	if (q->state == GREETING)
		take_greeting(q, message);
	else if (event)
		take_event(q, event, message);
	else if (jsonmsg_member(message, "return") || jsonmsg_member(message, "error"))
		take_reply(q, message);
	else
		end(q, "QEMU's monitor %s says something that is no reply and no event", q->path);
}

static void on_line(void *ctx, const char *line, size_t len)
{
	struct jsonmsg *message cleanup_jsonmsg = NULL;
	const char *why = NULL;
	struct qmp *q = ctx;

	if (q->state == OVER || q->freed)
		return;
	q->calling++;
	if (jsonmsg_parse_fractions(&message, line, len, &why) == 0)
		take_message(q, message);
	else if (q->state == GREETING)
		end(q, "%s does not speak QMP (%s): is it a monitor for people? It must be one of "
		    "-qmp or -mon mode=control", q->path, why);
	else
		end(q, "QEMU's monitor %s sends what cannot be read: %s", q->path, why);
	q->calling--;
}

static void explain_failure(struct qmp *q, int error);

/*
 * A process that ends listens for a moment longer than it lives: nobody was there, and somebody may
 * come.
 */
static bool met_nobody(const struct qmp *q)
{
	return q->state == GREETING && !lineconn_heard(q->conn);
}

static void on_eof(void *ctx)
{
	struct qmp *q = ctx;

	if (met_nobody(q))
		return; /* on_conn_closed() */
	end(q, q->state == READY ? "QEMU has closed its monitor %s" :
				   "QEMU has closed its monitor %s before it was ready", q->path);
}

static void on_conn_closed(void *ctx, const char *why)
{
	struct qmp *q = ctx;

	if (!met_nobody(q)) {
		end(q, "QEMU's monitor %s: %s", q->path, why);
		return;
	}
	lineconn_free(q->conn);
	q->conn = NULL;
	q->peer = 0;
	q->state = CONNECTING;
	explain_failure(q, ECONNREFUSED);
}

static const struct lineconn_ops conn_ops = {on_line, on_eof, on_conn_closed};

/* --- the connection --------------------------------------------------------------------------- */

static gboolean on_retry(gpointer data);

static void explain_failure(struct qmp *q, int error)
{
	switch (error) {
	case ENOENT:
		set_waits(q, "the monitor's socket to appear", q->path);
		break;
	case ECONNREFUSED:
		set_waits(q, "a QEMU to listen on the monitor's socket", q->path);
		break;
	case EAGAIN:
		set_waits(q, "QEMU to take one of the connections to its monitor", q->path);
		break;
	default:
		end(q, "cannot connect to QEMU's monitor %s: %s", q->path, g_strerror(error));
		return;
	}
	q->retry_source = g_timeout_add(RETRY_MS, on_retry, q);
}

static void adopt(struct qmp *q, int fd)
{
	struct ucred peer = {0};
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0)
		q->peer = peer.pid;
	q->conn = lineconn_new(fd, &conn_ops, q);
	lineconn_set_line_max(q->conn, QMP_LINE_MAX);
	q->state = GREETING;
	set_waits(
		q,
		"QEMU's greeting; it serves one client at a time, is there another on this monitor?",
		q->path);
}

static void try_connect(struct qmp *q)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd cleanup_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0) {
		end(q, "cannot make a socket for QEMU's monitor: %s", g_strerror(errno));
		return;
	}
	g_strlcpy(address.sun_path, q->path, sizeof(address.sun_path));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		explain_failure(q, errno);
	else
		adopt(q, steal_fd(&fd));
}

static gboolean on_retry(gpointer data)
{
	struct qmp *q = data;

	q->retry_source = 0;
	try_connect(q);
	return G_SOURCE_REMOVE;
}

/**
 * qmp_new - talk to the monitor of a QEMU that may not be there yet
 * @path: of its UNIX socket
 * @ops, @ctx: must outlive it
 *
 * Tries again for as long as nobody listens there; the caller decides when to give up, and
 * qmp_waits_for() says on what.  A path that can never become a connection ends in ops->closed.
 */
struct qmp *qmp_new(const char *path, const struct qmp_ops *ops, void *ctx)
{
	struct qmp *q = g_new0(struct qmp, 1);

	q->path = g_strdup(path);
	q->ops = ops;
	q->ctx = ctx;
	g_queue_init(&q->pending);
	if (strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		end(q, "the path %s is too long for a socket", path);
	else
		try_connect(q);
	return q;
}

static gboolean bury(gpointer data)
{
	struct qmp *q = data;

	lineconn_free(q->conn);
	g_free(q->path);
	g_free(q->waits);
	g_free(q->over);
	g_free(q);
	return G_SOURCE_REMOVE;
}

/**
 * qmp_free - end the connection; no callback comes any more
 *
 * Commands that were sent may have been done.  NULL is fine.
 */
void qmp_free(struct qmp *q)
{
	struct pending *p;

	if (!q || q->freed)
		return;
	q->freed = true;
	g_clear_handle_id(&q->retry_source, g_source_remove);
	g_clear_handle_id(&q->over_source, g_source_remove);
	while ((p = g_queue_pop_head(&q->pending)))
		pending_free(p);
	if (q->calling == 0) {
		bury(q);
		return;
	}
	if (q->conn)
		lineconn_finish(q->conn);
	q->bury_source = g_idle_add_full(G_PRIORITY_DEFAULT, bury, q, NULL);
}

/* --- what is known ---------------------------------------------------------------------------- */

bool qmp_is_ready(const struct qmp *q)
{
	return q->state == READY;
}

/**
 * qmp_waits_for - what keeps it from being ready, in words with the path
 *
 * Return: belongs to @q and is good until the main loop turns; NULL when it is ready or over.
 */
const char *qmp_waits_for(const struct qmp *q)
{
	return q->state == OVER ? NULL : q->waits;
}

/**
 * qmp_peer_pid - the process that made the socket listen; 0: there is no connection yet
 */
pid_t qmp_peer_pid(const struct qmp *q)
{
	return q->peer;
}

const char *qmp_version(const struct qmp *q)
{
	return q->version;
}

unsigned qmp_version_number(const struct qmp *q)
{
	return q->version_number;
}
