/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The commands that a hand-over needs, with their arguments in QMP's spelling, and what is read
 * from their answers.
 */
#include "config.h"
#include "daemon/qmp.h"
#include <stddef.h>

/* An object with up to two texts; a NULL key ends it. */
static struct jsonmsg *texts(const char *key, const char *text, const char *key2, const char *text2)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, key, text);
	if (key2)
		jsonmsg_put_text(w, key2, text2);
	jsonmsg_end(w);
	return jsonmsg_finish_tree(w);
}

/**
 * qmp_migrate_incoming - listen for a migration; for a QEMU started with -incoming defer
 * @uri: "unix:/path", "tcp:host:port", ...
 *
 * Works once: QEMU ends when the migration that comes fails.
 */
void qmp_migrate_incoming(struct qmp *q, const char *uri, struct qmp_call call)
{
	struct jsonmsg *arguments cleanup_jsonmsg = texts("uri", uri, NULL, NULL);

	qmp_send(q, "migrate-incoming", arguments, call);
}

/**
 * qmp_migrate_resume - a source whose postcopy is paused connects again, and goes on
 *
 * Answered before it has connected; whether it could, query-migrate says.
 */
void qmp_migrate_resume(struct qmp *q, const char *uri, struct qmp_call call)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	struct jsonmsg *arguments cleanup_jsonmsg = NULL;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "uri", uri);
	jsonmsg_put_bool(w, "resume", true);
	jsonmsg_end(w);
	arguments = jsonmsg_finish_tree(w);
	qmp_send(q, "migrate", arguments, call);
}

/**
 * qmp_migrate_pause - end the connection of a migration that is in postcopy
 */
void qmp_migrate_pause(struct qmp *q, struct qmp_call call)
{
	qmp_send(q, "migrate-pause", NULL, call);
}

/**
 * qmp_set_capability - turn one of migration's capabilities on or off; the others stay
 */
void qmp_set_capability(struct qmp *q, const char *name, bool on, struct qmp_call call)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	struct jsonmsg *arguments cleanup_jsonmsg = NULL;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_begin_array(w, "capabilities");
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "capability", name);
	jsonmsg_put_bool(w, "state", on);
	jsonmsg_end(w);
	jsonmsg_end(w);
	jsonmsg_end(w);
	arguments = jsonmsg_finish_tree(w);
	qmp_send(q, "migrate-set-capabilities", arguments, call);
}

void qmp_query_status(struct qmp *q, struct qmp_call call)
{
	qmp_send(q, "query-status", NULL, call);
}

void qmp_query_migrate(struct qmp *q, struct qmp_call call)
{
	qmp_send(q, "query-migrate", NULL, call);
}

void qmp_query_memdev(struct qmp *q, struct qmp_call call)
{
	qmp_send(q, "query-memdev", NULL, call);
}

void qmp_cont(struct qmp *q, struct qmp_call call)
{
	qmp_send(q, "cont", NULL, call);
}

void qmp_stop(struct qmp *q, struct qmp_call call)
{
	qmp_send(q, "stop", NULL, call);
}

/**
 * qmp_human - a command of the human monitor
 * @line: "info ramblock", ...
 *
 * QEMU knows no error here: one that it does not know is answered with a text that says so.
 */
void qmp_human(struct qmp *q, const char *line, struct qmp_call call)
{
	struct jsonmsg *arguments cleanup_jsonmsg = texts("command-line", line, NULL, NULL);

	qmp_send(q, "human-monitor-command", arguments, call);
}

/**
 * qmp_qom_get - a property of an object
 * @path: "/objects/pc.ram", "/machine", ...
 */
void qmp_qom_get(struct qmp *q, const char *path, const char *property, struct qmp_call call)
{
	struct jsonmsg *arguments cleanup_jsonmsg = texts("path", path, "property", property);

	qmp_send(q, "qom-get", arguments, call);
}

/**
 * qmp_text - the text that a command was answered with; "" when it was not, or with something else
 */
const char *qmp_text(const struct qmp_answer *answer)
{
	const char *text = jsonmsg_string(answer->value);

	return text ? text : "";
}

/**
 * qmp_status - "status" of what a command was answered with, or ""
 */
const char *qmp_status(const struct qmp_answer *answer)
{
	return jsonmsg_text(answer->value, "status", "");
}
