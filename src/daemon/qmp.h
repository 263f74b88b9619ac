/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_QMP_H
#define PC_DAEMON_QMP_H
/*
 * The monitor of a QEMU, from the default GLib main context: connects (again and again while the
 * socket is not there), negotiates, sends commands, and calls back, from the main loop only and
 * never out of one of these functions.  Nothing here waits.
 *
 * QEMU's main thread may itself wait for a page of ours, so a command can be unanswered for as long
 * as the source is silent: a deadline says that a command was not answered in time, not that QEMU
 * is dead, and nothing that a page depends on may depend on an answer.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire/jsonmsg.h"

#define QMP_LINE_MAX   (4u << 20) /* bytes of a reply or event; QEMU's longest are some 100 KiB */
/* a deadline for commands that QEMU answers at once when it lives */
#define QMP_PATIENCE_MS 10000

struct qmp;

enum qmp_event_kind {
	QMP_EVENT_OTHER,
	QMP_EVENT_MIGRATION, /* .status; only with the capability "events" of migration */
	QMP_EVENT_STOP,
	QMP_EVENT_RESUME,
	QMP_EVENT_SHUTDOWN,
	QMP_EVENT_RESET,
};

struct qmp_event {
	enum qmp_event_kind kind;
	const char *name;
	const char *status;	    /* of MIGRATION, else NULL */
	const struct jsonmsg *data; /* NULL: none came with it */
};

struct qmp_ops {
	/* The monitor takes commands. */
	void (*ready)(void *ctx);
	void (*event)(void *ctx, const struct qmp_event *event);
	/*
	 * It is over, or will never be.  Once, after every command was answered with QMP_CLOSED;
	 * the callee frees the client.  @why: belongs to it.
	 */
	void (*closed)(void *ctx, const char *why);
};

/* @path: the monitor's UNIX socket.  @ops, @ctx must outlive the client. */
struct qmp *qmp_new(const char *path, const struct qmp_ops *ops, void *ctx);
/*
 * Any time, also from a callback; no callback comes after it, not even a command's.  NULL is fine.
 */
void qmp_free(struct qmp *q);

bool qmp_is_ready(const struct qmp *q);
/* What it waits for, with the path, in words; NULL once it is ready.  Belongs to @q. */
const char *qmp_waits_for(const struct qmp *q);
/*
 * The process that listens on the socket (SO_PEERCRED), 0 before there is a connection.  It is QEMU
 * itself unless its socket was made by somebody else and passed to it (libvirt does so).
 */
pid_t qmp_peer_pid(const struct qmp *q);
/* "7.2.22"; "" before it is ready. */
const char *qmp_version(const struct qmp *q);
/* Major * 100 + minor (702, 1000, 1101); 0 before it is ready. */
unsigned qmp_version_number(const struct qmp *q);

enum qmp_outcome {
	QMP_OK,	      /* .value */
	QMP_REFUSED,  /* QEMU's own error: .class, .text */
	QMP_DEADLINE, /* no answer in time; one that comes later is dropped */
	/* the monitor is gone, or was never there: it may or may not have been done */
	QMP_CLOSED,
};

struct qmp_answer {
	enum qmp_outcome outcome;
	const struct jsonmsg *value; /* of "return", until the callback returns */
	const char *class;	     /* of REFUSED: "GenericError", "CommandNotFound", ... */
	const char *text;	     /* "" when OK; else the command and what happened to it */
};

/* How an answer comes back; by value. */
struct qmp_call {
	void (*done)(void *ctx, const struct qmp_answer *answer); /* NULL: nobody asks */
	void *ctx;
	unsigned deadline_ms; /* 0: none */
};

/* @arguments: an object, not kept; NULL: none.  Before it is ready the answer is QMP_CLOSED. */
void qmp_send(struct qmp *q, const char *command, const struct jsonmsg *arguments,
	      struct qmp_call call);

/* What a hand-over says; each is qmp_send() with its arguments. */
void qmp_migrate_incoming(struct qmp *q, const char *uri, struct qmp_call call);
void qmp_set_capability(struct qmp *q, const char *name, bool on, struct qmp_call call);
void qmp_query_status(struct qmp *q, struct qmp_call call);
void qmp_query_migrate(struct qmp *q, struct qmp_call call);
/* To the source: have it connect to @uri again; its connection is gone, though it thinks not. */
void qmp_migrate_resume(struct qmp *q, const char *uri, struct qmp_call call);
void qmp_migrate_pause(struct qmp *q, struct qmp_call call);
void qmp_query_memdev(struct qmp *q, struct qmp_call call);
void qmp_cont(struct qmp *q, struct qmp_call call);
void qmp_stop(struct qmp *q, struct qmp_call call);
/* The answer's value is a text (qmp_text()), which is QEMU's error message as well. */
void qmp_human(struct qmp *q, const char *line, struct qmp_call call);
void qmp_qom_get(struct qmp *q, const char *path, const char *property, struct qmp_call call);

/* The text that qmp_human() and qmp_qom_get() are answered with; "" for what is none. */
const char *qmp_text(const struct qmp_answer *answer);
/* "status" of query-status and query-migrate; "" where there is none. */
const char *qmp_status(const struct qmp_answer *answer);

#endif
