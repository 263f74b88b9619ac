/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Heads of vfio-user messages, and records made of bytes and back.
 *
 * A reply is believed when it repeats the number and the command of what was asked, is marked as a
 * reply, and is not longer than both ends agreed on; anything else means that we and the peer do
 * not see the same stream any more, and nothing behind it can be understood.  A failed request is
 * answered by a head alone.
 */
#include "config.h"

#include "wire/vfiomsg_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "wire/vfiocaps.h"

_Static_assert(sizeof(struct vfiomsg_head) == VFIOMSG_HEAD, "head");
_Static_assert(sizeof(union vfiomsg_fixed) == VFIOMSG_FIXED, "fixed");
_Static_assert(sizeof(struct vfiomsg_map) == 32, "map");
_Static_assert(sizeof(struct vfiomsg_region) == VFIOCAPS_REGION_HEAD, "region");
_Static_assert(offsetof(struct vfiomsg_unmap, pgsize) == 24, "unmap");
_Static_assert(offsetof(struct vfiomsg_dirty, iova) == 8, "dirty");

#define ERRNO_MAX 4095 /* the kernel's bound of what can be an errno */

/*
 * How long a message may be.  What describes (capabilities, JSON) is not bounded by the agreement
 * on data, which may be small.
 */
static uint64_t longest(const struct vfiomsg_terms *terms)
{
	uint64_t tail = terms->max_data > VFIOCAPS_MAX ? terms->max_data : VFIOCAPS_MAX;

	return VFIOMSG_FRONT + tail;
}

/**
 * vfiomsg_check_head - may a body of this size follow?
 */
int vfiomsg_check_head(const struct vfiomsg_head *head, const struct vfiomsg_terms *terms,
		       const char **why)
{
	uint32_t known = VFIOMSG_TYPE | VFIOMSG_NO_REPLY | VFIOMSG_ERROR;
	uint32_t allowed = vfiomsg_is_command(head) ? VFIOMSG_NO_REPLY :
						      VFIOMSG_REPLY | VFIOMSG_ERROR;

	if (head->size < VFIOMSG_HEAD)
		return vfiomsg_refuse(-EPROTO, "message is shorter than its head", why);
	if (head->size > longest(terms))
		return vfiomsg_refuse(-EPROTO, "message is longer than was agreed on", why);
	if (head->flags & ~known)
		return vfiomsg_refuse(-EPROTO, "flags of the message are unknown", why);
	if (head->flags & ~allowed)
		return vfiomsg_refuse(-EPROTO, "flags are neither a command's nor a reply's", why);
	return 0;
}

/* Bytes of the fixed part; @flags is the u32 at offset 4, where there is one. */
static size_t fixed_size(const struct vfiomsg_shape *shape, uint32_t flags)
{
	return shape->size + (flags & shape->flag ? shape->more : 0);
}

static uint32_t flags_of(const void *body, size_t len)
{
	uint32_t flags = 0;

	if (len >= 8)
		memcpy(&flags, (const uint8_t *)body + 4, sizeof(flags));
	return flags;
}

/* Cut a body into its fixed part and the tail. */
static int split(struct vfiomsg *m, const struct vfiomsg_shape *shape, const void *body,
		 const char **why)
{
	size_t len = m->head.size - VFIOMSG_HEAD;
	size_t size = fixed_size(shape, flags_of(body, len));

	memset(&m->fixed, 0, sizeof(m->fixed));
	m->data = NULL;
	m->len = 0;
	if (len < size)
		return vfiomsg_refuse(-EPROTO, "body is too short for its command", why);
	if (size)
		memcpy(&m->fixed, body, size);
	m->len = len - size;
	if (m->len)
		m->data = (const uint8_t *)body + size;
	return 0;
}

/**
 * vfiomsg_take - may a received request be used?
 */
int vfiomsg_take(struct vfiomsg *m, const void *body, enum vfiomsg_way way,
		 const struct vfiomsg_terms *terms, const char **why)
{
	int err = vfiomsg_check_head(&m->head, terms, why);
	const struct vfiomsg_row *row;

	if (err)
		return err;
	if (!vfiomsg_is_command(&m->head))
		return vfiomsg_refuse(-EPROTO, "reply to nothing", why);
	row = vfiomsg_row(m->head.command);
	if (!row)
		return vfiomsg_refuse(-EOPNOTSUPP, "command is not known", why);
	if (row->way != way)
		return vfiomsg_refuse(-EPROTO, "command belongs to the other end", why);
	if (m->fds > row->ask_fds || m->fds > terms->max_fds)
		return vfiomsg_refuse(-EPROTO, "command came with too many descriptors", why);
	err = split(m, &row->ask, body, why);
	if (err)
		return err;
	if (row->asks)
		return row->asks(m, terms, why);
	return m->len ? vfiomsg_refuse(-EPROTO, "body is too long for its command", why) : 0;
}

/* Is the head that of the answer to this very request? */
static int match(const struct vfiomsg_head *head, const struct vfiomsg_head *asked,
		 const char **why)
{
	if (vfiomsg_is_command(head))
		return vfiomsg_refuse(-EPROTO, "a reply was awaited, a command came", why);
	if (head->id != asked->id)
		return vfiomsg_refuse(-EPROTO, "reply has the number of another request", why);
	if (head->command != asked->command)
		return vfiomsg_refuse(-EPROTO, "reply is to another command", why);
	if (head->flags & VFIOMSG_ERROR && head->size != VFIOMSG_HEAD)
		return vfiomsg_refuse(-EPROTO, "reply says failure and has a body", why);
	return 0;
}

/**
 * vfiomsg_take_reply - is a received message the answer to @asked?
 * @asked: our own request, for which an answer was not waived
 */
int vfiomsg_take_reply(struct vfiomsg *m, const void *body, const struct vfiomsg *asked,
		       const struct vfiomsg_terms *terms, const char **why)
{
	const struct vfiomsg_row *row = vfiomsg_row(asked->head.command);
	int err = vfiomsg_check_head(&m->head, terms, why);

	assert(row);
	err = err ? err : match(&m->head, &asked->head, why);
	if (err)
		return err;
	if (m->fds > row->answer_fds || m->fds > terms->max_fds ||
	    (m->fds && m->head.flags & VFIOMSG_ERROR))
		return vfiomsg_refuse(-EPROTO, "reply came with too many descriptors", why);
	if (m->head.flags & VFIOMSG_ERROR) {
		memset(&m->fixed, 0, sizeof(m->fixed));
		m->data = NULL;
		m->len = 0;
		return 0;
	}
	err = split(m, &row->answer, body, why);
	if (err)
		return err;
	if (row->answers)
		return row->answers(m, asked, why);
	return m->len ? vfiomsg_refuse(-EPROTO, "reply is too long for its command", why) : 0;
}

/**
 * vfiomsg_error - how the request failed, by the head of its answer
 *
 * What is no errno becomes EINVAL, so that nothing a peer sends can be taken for success.
 */
int vfiomsg_error(const struct vfiomsg_head *reply)
{
	if (!(reply->flags & VFIOMSG_ERROR))
		return 0;
	return reply->error && reply->error <= ERRNO_MAX ? -(int)reply->error : -EINVAL;
}

/**
 * vfiomsg_ask - begin a request
 * @id: any number that no unanswered request has
 */
void vfiomsg_ask(struct vfiomsg *m, enum vfiomsg_command command, uint16_t id)
{
	memset(m, 0, sizeof(*m));
	m->head.id = id;
	m->head.command = (uint16_t)command;
}

/**
 * vfiomsg_answer - begin the answer to a request
 */
void vfiomsg_answer(struct vfiomsg *m, const struct vfiomsg *asked)
{
	vfiomsg_ask(m, (enum vfiomsg_command)asked->head.command, asked->head.id);
	m->head.flags = VFIOMSG_REPLY;
}

/**
 * vfiomsg_fail - a whole answer that says: it failed
 */
void vfiomsg_fail(struct vfiomsg *m, const struct vfiomsg_head *asked, int err)
{
	memset(m, 0, sizeof(*m));
	m->head = (struct vfiomsg_head){
		.id = asked->id,
		.command = asked->command,
		.flags = VFIOMSG_REPLY | VFIOMSG_ERROR,
		.error = (uint32_t)-err,
	};
}

/**
 * vfiomsg_front - the bytes of a message that go before its tail
 *
 * Return: how many; head.size is set.  The command has a row, unless the answer says failure.
 */
size_t vfiomsg_front(struct vfiomsg *m, uint8_t front[VFIOMSG_FRONT])
{
	const struct vfiomsg_row *row = vfiomsg_row(m->head.command);
	size_t size = 0;

	if (!(m->head.flags & VFIOMSG_ERROR)) {
		assert(row);
		size = fixed_size(vfiomsg_is_command(&m->head) ? &row->ask : &row->answer,
				  flags_of(&m->fixed, sizeof(m->fixed)));
	}
	assert(m->len <= UINT32_MAX - VFIOMSG_FRONT);
	m->head.size = (uint32_t)(VFIOMSG_HEAD + size + m->len);
	memcpy(front, &m->head, VFIOMSG_HEAD);
	memcpy(front + VFIOMSG_HEAD, &m->fixed, size);
	return VFIOMSG_HEAD + size;
}

/**
 * vfiomsg_name - what the specification calls a command
 */
const char *vfiomsg_name(unsigned command)
{
	const struct vfiomsg_row *row = vfiomsg_row(command);

	return row ? row->name : "unknown";
}
