/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One question at a time, and what the device asks meanwhile.
 *
 * Answers come in the order of the questions.  So a question whose time ran out is not the end: its
 * answer is the next one to come, whenever that is, and is thrown away then; nothing else may come
 * in its place.  A message that went out in part, or makes no sense, is the end: nobody could say
 * any more what the bytes that follow belong to.
 */
#include "config.h"

#include "sys/devio_vfiouser_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/vfioterms.h"

/* An access to the largest register needs as much in one message. */
#define LEAST_DATA 8

static int end(struct vfiouser_link *l, int err)
{
	l->dead = err;
	vfiochan_deinit(&l->main);
	vfiochan_deinit(&l->twin);
	l->in_hand = false;
	return err;
}

/* --- what the device asks -------------------------------------------------------------------- */

static int access_memory(struct vfiouser_link *l, const struct vfiomsg *m, struct vfiomsg *answer)
{
	const struct vfiomsg_dma *dma = &m->fixed.dma;
	bool write = m->head.command == VFIOMSG_DMA_WRITE;

	answer->fixed.dma = *dma;
	if (write)
		return l->memory.write ? l->memory.write(l->memory.ctx, dma->address, m->data,
							 m->len) : -EFAULT;
	answer->data = l->data;
	answer->len = dma->count;
	return l->memory.read ? l->memory.read(l->memory.ctx, dma->address, l->data,
					       dma->count) : -EFAULT;
}

static int serve(struct vfiouser_link *l, struct vfiochan *c, uint64_t until)
{
	struct vfiomsg m, answer;
	const uint8_t *body = vfiochan_message(c, &m);
	int err = vfiomsg_take(&m, body, VFIOMSG_TO_CLIENT, &l->terms, NULL);
	bool silent = m.head.flags & VFIOMSG_NO_REPLY;

	if (err == -EPROTO)
		return err;
	vfiomsg_answer(&answer, &m);
	err = err ? err : access_memory(l, &m, &answer);
	if (err)
		vfiomsg_fail(&answer, &m.head, err == -EBADMSG ? -EINVAL : err);
	vfiochan_done(c);
	return silent ? 0 : vfiochan_send(c, &answer, -1, until);
}

/* --- answers --------------------------------------------------------------------------------- */

static bool holds_command(const struct vfiochan *c)
{
	struct vfiomsg m;

	vfiochan_message(c, &m);
	return vfiomsg_is_command(&m.head);
}

/* 1: an answer is in hand; 2: a request was answered; 0: there is nothing now; -errno: the end. */
static int look(struct vfiouser_link *l, uint64_t until)
{
	int ret = vfiochan_pump(&l->main, &l->terms), err;

	if (ret < 0)
		return ret;
	if (ret && !holds_command(&l->main))
		return 1;
	if (!ret && l->twin.fd >= 0) {
		ret = vfiochan_pump(&l->twin, &l->terms);
		if (ret < 0)
			return ret;
		if (ret && !holds_command(&l->twin))
			return -EPROTO;
		err = ret ? serve(l, &l->twin, until) : 0;
	} else {
		err = ret ? serve(l, &l->main, until) : 0;
	}
	return err ? err : ret * 2;
}

/* A device that never stops asking does not get more time by it. */
static int look_or_wait(struct vfiouser_link *l, uint64_t until)
{
	struct vfiochan *all[2] = { &l->main, &l->twin };
	int ret = look(l, until);

	if (ret < 0)
		return end(l, ret);
	if (ret == 2 && clock_ns() >= until)
		return -ETIMEDOUT;
	return ret ? ret : vfiochan_wait(all, l->twin.fd >= 0 ? 2 : 1, until);
}

/* An answer is in hand.  Is it the one to @id?  Then 1; 0: it came late and is forgotten. */
static int claim(struct vfiouser_link *l, uint16_t id)
{
	struct vfiomsg m;
	bool late = l->due != id;

	vfiochan_message(&l->main, &m);
	if (l->due == l->next_id || m.head.id != l->due)
		return -EPROTO;
	l->due++;
	if (late)
		vfiochan_done(&l->main);
	return !late;
}

static int await(struct vfiouser_link *l, uint16_t id, uint64_t until)
{
	int ret = 0;

	while (ret == 0) {
		ret = look_or_wait(l, until);
		if (ret < 0)
			return ret;
		ret = ret == 1 ? claim(l, id) : 0;
	}
	return ret < 0 ? end(l, ret) : 0;
}

/* What the device says of itself must not look like what became of the connection. */
static int said(int err)
{
	switch (err) {
	case -ENOSYS:
	case -ENOTTY:
		return -EOPNOTSUPP;
	case -ETIMEDOUT:
	case -ECONNRESET:
	case -EPROTO:
	case -EINTR:
	case -ENOMSG:
		return -EIO;
	default:
		return err;
	}
}

/**
 * vfiouser_link_ask - a question and its answer
 */
int vfiouser_link_ask(struct vfiouser_link *l, struct vfiomsg *ask, int fd, struct vfiomsg *answer,
		      uint64_t until)
{
	const uint8_t *body;
	int err;

	if (l->dead)
		return l->dead;
	if (l->in_hand)
		vfiochan_done(&l->main);
	l->in_hand = false;
	ask->head.id = l->next_id++;
	err = vfiochan_send(&l->main, ask, fd, until);
	if (err)
		return end(l, err);
	err = await(l, ask->head.id, until);
	if (err)
		return err;
	l->in_hand = true;
	body = vfiochan_message(&l->main, answer);
	err = vfiomsg_take_reply(answer, body, ask, &l->terms, NULL);
	return err ? end(l, err) : said(vfiomsg_error(&answer->head));
}

/**
 * vfiouser_link_ask_into - a question whose answer goes where it is wanted
 *
 * What lies there means something only after an answer that went well, and nothing comes there
 * later.
 */
int vfiouser_link_ask_into(struct vfiouser_link *l, struct vfiomsg *ask,
			   const struct vfiochan_into *into, struct vfiomsg *answer,
			   uint64_t until)
{
	int err;

	l->main.into = *into;
	l->main.into.id = l->next_id;
	err = vfiouser_link_ask(l, ask, -1, answer, until);
	l->main.into.to = NULL;
	if (!err && into->to)
		answer->data = into->to;
	return err;
}

/**
 * vfiouser_link_serve - answer one request of the device
 */
int vfiouser_link_serve(struct vfiouser_link *l, uint64_t until)
{
	int ret = 0;

	if (l->dead)
		return l->dead;
	if (l->in_hand)
		vfiochan_done(&l->main);
	l->in_hand = false;
	while (ret == 0) {
		ret = look_or_wait(l, until);
		if (ret < 0)
			return ret;
		ret = ret == 1 ? claim(l, l->next_id) : ret;
	}
	return ret < 0 ? end(l, ret) : 0;
}

/* --- the first exchange ---------------------------------------------------------------------- */

static int take_twin(struct vfiouser_link *l, const struct vfioterms *theirs)
{
	int fd;

	if (!theirs->twin || !theirs->twin_fd)
		return 0;
	fd = theirs->twin_index == 0 ? vfiochan_steal(&l->main) : -1;
	return fd < 0 ? -EPROTO : vfiochan_init(&l->twin, fd, l->main.room);
}

static int agree(struct vfiouser_link *l, const struct vfioterms *ours,
		 const struct vfiomsg *answer)
{
	struct vfioterms theirs;

	if (vfioterms_read(&theirs, answer->data, answer->len, NULL))
		return -EPROTO;
	if (ours->twin && take_twin(l, &theirs))
		return -EPROTO;
	l->terms.max_data = vfioterms_agree(ours, &theirs).max_data;
	return l->terms.max_data < LEAST_DATA ? -EPROTO : 0;
}

/**
 * vfiouser_link_agree - say who we are, and hear who it is
 */
int vfiouser_link_agree(struct vfiouser_link *l, bool no_twin, uint64_t until)
{
	struct vfioterms ours = vfioterms_default();
	cleanup_free char *text = NULL;
	struct vfiomsg ask, answer;
	size_t len = 0;
	int err;

	ours.max_data = l->terms.max_data;
	ours.max_fds = VFIOMSG_FDS;
	ours.twin = !no_twin;
	text = vfioterms_print(&ours, &len);
	if (!text)
		return -ENOMEM;
	vfiomsg_ask(&ask, VFIOMSG_VERSION, 0);
	ask.fixed.version = (struct vfiomsg_version){ VFIOMSG_MAJOR, VFIOMSG_MINOR };
	ask.data = (const uint8_t *)text;
	ask.len = len;
	err = vfiouser_link_ask(l, &ask, -1, &answer, until);
	if (err)
		return l->dead || err == -ETIMEDOUT ? err : -EPROTO;
	err = agree(l, &ours, &answer);
	return err ? end(l, err) : 0;
}
