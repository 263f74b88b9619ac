/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What another process has mapped is behind the lock of its address space, and so is registering
 * it.  Who keeps that lock (a mapping of a file system that does not answer, a fork of much) keeps
 * everybody who asks waiting, for as long as it likes, and no call has a timeout.  So the main
 * thread asks nothing of the kind: a thread does, one for each question, and the main loop goes on
 * with its control socket and with everybody else.
 *
 * A thread that hangs cannot be ended.  It is given up instead: its owner is told at the deadline,
 * refuses who is to blame, and the thread goes on alone, with a job that nobody else has.  The
 * main thread reads of a job that is out only what never changes in it.  When the thread does come
 * back the owner hears it once more, unless it has ended meanwhile, and the job is disposed of.
 * Reading /proc waits in a way that the end of this process interrupts, registering does not;
 * therefore a job begins with reading.
 *
 * All but the thread's function is the main thread's, GLib too.  The thread rings the question's
 * own bell, which is the last that it does, and reading the bell takes the job back.
 */
#include "config.h"
#include "daemon/prover.h"

#include <errno.h>
#include <stdbool.h>

#include <glib.h>
#include <glib-unix.h>

#include "daemon/mailbox.h"
#include "sys/fd.h"

#define OUT_MAX 128		/* threads; more than there may be sharers */

struct prover {
	unsigned deadline_s;
	void *ctx;
	GPtrArray *out;		/* struct question */
};

struct question {
	struct prover *prover;	/* NULL: it has ended */
	const struct prover_ops *ops;
	void *job;
	int bell;		/* rung when the work is over */
	pid_t about;
	guint deadline;		/* 0: it has passed */
};

/**
 * prover_new - nothing has been asked
 */
struct prover *prover_new(unsigned deadline_s, void *ctx)
{
	struct prover *p = g_new0(struct prover, 1);

	p->deadline_s = deadline_s;
	p->ctx = ctx;
	p->out = g_ptr_array_new();
	return p;
}

/**
 * prover_deadline - in seconds
 */
unsigned prover_deadline(const struct prover *p)
{
	return p->deadline_s;
}

/**
 * prover_free - nobody is told of what is still out
 */
void prover_free(struct prover *p)
{
	if (!p)
		return;
	for (unsigned i = 0; i < p->out->len; i++) {
		struct question *q = g_ptr_array_index(p->out, i);

		g_clear_handle_id(&q->deadline, g_source_remove);
		q->prover = NULL;
	}
	g_ptr_array_unref(p->out);
	g_free(p);
}

static void question_free(struct question *q)
{
	q->ops->dispose(q->job);
	close_fd(&q->bell);
	g_free(q);
}

static gboolean on_answer(gint fd, GIOCondition condition, gpointer data)
{
	struct question *q = data;
	struct prover *p = q->prover;

	(void)condition;
	if (doorbell_clear(fd) == 0)
		return G_SOURCE_CONTINUE;
	if (p) {
		g_clear_handle_id(&q->deadline, g_source_remove);
		g_ptr_array_remove_fast(p->out, q);
		q->ops->done(p->ctx, q->job);
	}
	question_free(q);
	return G_SOURCE_REMOVE;
}

static gboolean on_deadline(gpointer data)
{
	struct question *q = data;

	q->deadline = 0;
	q->ops->overdue(q->prover->ctx, q->job);
	return G_SOURCE_REMOVE;
}

static gpointer run(gpointer data)
{
	struct question *q = data;

	q->ops->work(q->job);
	doorbell_ring(q->bell);
	return NULL;
}

static int may_ask(const struct prover *p, pid_t about)
{
	for (unsigned i = 0; i < p->out->len; i++) {
		const struct question *q = g_ptr_array_index(p->out, i);

		if (about && q->about == about && !q->deadline)
			return -EBUSY;
	}
	return p->out->len < OUT_MAX ? 0 : -EAGAIN;
}

/**
 * prover_ask - have a thread work on @job
 * @about: 0: about nobody in particular
 *
 * Neither done() nor overdue() is called before this returns.
 *
 * Return: 0; after -EBUSY, -EAGAIN the job is disposed of and nobody is told.
 */
int prover_ask(struct prover *p, const struct prover_ops *ops, void *job, pid_t about)
{
	struct question *q = g_new0(struct question, 1);
	GThread *thread = NULL;
	int ret = may_ask(p, about);

	*q = (struct question){ .prover = p, .ops = ops, .job = job, .bell = -1, .about = about };
	if (ret == 0)
		q->bell = doorbell_new();
	if (q->bell >= 0)
		thread = g_thread_try_new("postcopyd-prove", run, q, NULL);
	if (!thread) {
		question_free(q);
		return ret < 0 ? ret : -EAGAIN;
	}
	/* The answer cannot come in between: it comes through the main loop. */
	g_unix_fd_add(q->bell, G_IO_IN, on_answer, q);
	g_ptr_array_add(p->out, q);
	q->deadline = g_timeout_add_seconds(p->deadline_s, on_deadline, q);
	g_thread_unref(thread);
	return 0;
}
