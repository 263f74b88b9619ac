/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What sharers ask for.
 *
 * A packet is taken apart by regmsg_check() first; what does not fit the client's state ends the
 * connection with its reason, and nobody else's.
 */
#include "config.h"
#include "daemon/door_parts.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/fdpass.h"
#include "sys/uffd.h"

/**
 * door_welcome - the answer to a hello
 */
void door_welcome(struct peer *p, uint32_t serial)
{
	union regmsg m;
	size_t len = regmsg_init(&m, REGMSG_WELCOME, serial);

	m.welcome.sharer = p->client->id;
	m.welcome.generation = 1;
	m.welcome.token = p->client->token;
	m.welcome.features = p->door->gates ? REGMSG_FEATURE_DMA : 0;
	door_send(p, &m, len, -1);
}

/* A refusal ends the connection: there is no second try on the same socket. */
static int on_hello(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	struct client *c = p->client;
	int error = EPROTO;
	const char *problem = "hello was said before";

	if (c->state == CLIENT_NEW)
		problem = door_hello_problem(p->door, &m->hello, fds->fd[0], &error);
	if (problem) {
		g_message("sharer %s (process %d) refused: %s", m->hello.name, (int)c->pid,
			  problem);
		door_send_text(p, REGMSG_REFUSED, m->head.serial, error, problem);
		return -EPERM;
	}
	c->uffd = fdpass_steal(fds, 0);
	c->main = m->hello.role == REGMSG_ROLE_MAIN;
	c->policy = m->hello.policy;
	c->needs_kernel = m->hello.flags & REGMSG_HELLO_KERNEL;
	c->unaware = m->hello.flags & REGMSG_HELLO_UNAWARE;
	if (door_is_heir(p->door, &m->hello))
		c->token = m->hello.token;
	g_strlcpy(c->name, m->hello.name, sizeof(c->name));
	door_keep_uffd(p->door, c);
	/*
	 * A main sharer that declares nothing is declared by somebody else; the memory of the
	 * others is looked for.
	 */
	c->state = c->unaware && !c->main ? CLIENT_READY : CLIENT_DECLARING;
	door_welcome(p, m->head.serial);
	/* Somebody here may wait for it, to speak for it. */
	if (c->unaware)
		p->door->ops.changed(p->door->ops.ctx);
	return 0;
}

/* Who is spoken for, or looked at, has no say in what it has. */
static bool speaks_for_itself(struct peer *p, const union regmsg *m)
{
	if (p->client->unaware)
		door_result(p, m->head.serial, EPERM,
		       "said UNAWARE in its hello: its memory is declared for it");
	return !p->client->unaware;
}

static int on_block(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	const struct regmsg_block *b = &m->block;
	struct door_block declared = {
		.name = b->name,
		.length = b->length,
		.page_size = b->page_size,
		.file_offset = b->file_offset,
		.file = -1,
	};
	const char *why;
	int ret;

	if (!speaks_for_itself(p, m))
		return 0;
	if (!(b->flags & REGMSG_BLOCK_PRIVATE))
		declared.file = fdpass_steal(fds, 0);
	ret = door_declare(p->door, p->client, &declared, &why);
	door_result(p, m->head.serial, ret, ret < 0 ? why : "");
	return 0;
}

static int on_mapping(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	const struct regmsg_mapping *g = &m->mapping;
	const struct door_mapping declared = {
		.block = g->name,
		.address = g->address,
		.length = g->length,
		.block_offset = g->block_offset,
	};
	const char *why;
	int ret;

	(void)fds;
	if (!speaks_for_itself(p, m))
		return 0;
	ret = door_declare_mapping(p->client, &declared, &why);
	door_result(p, m->head.serial, ret, ret < 0 ? why : "");
	return 0;
}

static int on_ready(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	int ret;

	(void)fds;
	if (!speaks_for_itself(p, m))
		return 0;
	p->awaited = m->head.serial;
	ret = door_ready(p->door, p->client);
	if (ret < 0)
		door_answer(p->door, p->client, ret, p->client->problem);
	return 0;
}

/* A hint: it is answered when it was taken, not when the pages are there. */
static int on_want(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	const struct matched *b = door_find_matched(p->door, m->want.name);
	struct message want = { .kind = MESSAGE_WANT };

	(void)fds;
	if (!b || !range_inside(m->want.block_offset, m->want.length, b->offer.length)) {
		door_result(p, m->head.serial, EINVAL, "no such range");
		return 0;
	}
	want.want.block = (unsigned)(b - p->door->matched);
	want.want.offset = m->want.block_offset;
	want.want.length = m->want.length;
	want.want.class = (enum request_class)m->want.klass;
	faultloop_post(p->door->loop, &want);
	door_result(p, m->head.serial, 0, "");
	return 0;
}

/*
 * Only of who declares nothing: the others are told at LISTENING what they may touch, and map
 * before.
 */
static int on_mapped(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	if (p->client->unaware)
		door_mapped(p->door, p->client, &m->mapped, fdpass_steal(fds, 0));
	else
		door_result(p, m->head.serial, EPERM, "for a program that said UNAWARE in its hello");
	return 0;
}

/*
 * For a process that may not open it itself.  Who may connect here may have it: see
 * postcopy-protocol(7).
 */
static int on_ask_device(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	cleanup_fd int dev = uffd_device();
	union regmsg device;
	size_t len;

	(void)fds;
	if (dev < 0) {
		door_result(p, m->head.serial, dev,
		       "postcopyd cannot open /dev/userfaultfd (Linux 6.1 or later, and the right to it)");
		return 0;
	}
	len = regmsg_init(&device, REGMSG_DEVICE, m->head.serial);
	door_send(p, &device, len, dev);
	return 0;
}

/* Neither has an answer; of who may not say it, it is not heard. */
static int on_loaded(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	(void)m;
	(void)fds;
	if (!p->client->unaware)
		(void)door_loaded(p->door, p->client);
	return 0;
}

static int on_load_failed(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	(void)fds;
	if (!p->client->unaware)
		(void)door_load_failed(p->door, p->client, m->text.text);
	return 0;
}

/*
 * Leaving needs no pages: who unmapped everything cannot fault, so its userfaultfd may be closed.
 */
static int on_leave(struct peer *p, const union regmsg *m, struct fdpass *fds)
{
	int ret;

	(void)fds;
	p->awaited = m->head.serial;
	ret = door_ask(p->door, p->client, DOOR_MAY_LEAVE, NULL);
	if (ret < 0)
		door_answer(p->door, p->client, ret, p->client->problem);
	return 0;
}

typedef int request_handler(struct peer *p, const union regmsg *m, struct fdpass *fds);

/* From hello on, while it is or may become a sharer. */
#define DECLARES (1u << CLIENT_DECLARING | 1u << CLIENT_READY | 1u << CLIENT_JOINED)

/* Which requests are legal in which state of the client. */
static const struct {
	request_handler *handler;
	unsigned states;
} requests[] = {
	[REGMSG_HELLO] = { on_hello, 1u << CLIENT_NEW | 1u << CLIENT_DECLARING },
	[REGMSG_BLOCK] = { on_block, 1u << CLIENT_DECLARING },
	[REGMSG_MAPPING] = { on_mapping, 1u << CLIENT_DECLARING },
	[REGMSG_READY] = { on_ready, 1u << CLIENT_DECLARING },
	[REGMSG_WANT] = { on_want, 1u << CLIENT_JOINED },
	[REGMSG_LOADED] = { on_loaded, 1u << CLIENT_JOINED },
	[REGMSG_LOAD_FAILED] = { on_load_failed, 1u << CLIENT_JOINED },
	[REGMSG_LEAVE] = { on_leave, DECLARES },
	[REGMSG_MAPPED] = { on_mapped, DECLARES | 1u << CLIENT_REFUSED },
	[REGMSG_ASK_DEVICE] = { on_ask_device, 1u << CLIENT_NEW },
	[REGMSG_DMA_MAP] = { door_dma, DECLARES },
	[REGMSG_DMA_UNMAP] = { door_dma, DECLARES },
	[REGMSG_DMA_SYNC] = { door_dma, DECLARES },
	[REGMSG_DMA_SEAL] = { door_dma, DECLARES },
	[REGMSG_DMA_MAPPED] = { door_dma, DECLARES },
	[REGMSG_DMA_RETRY] = { door_dma, DECLARES },
	[REGMSG_DMA_RESET] = { door_dma, DECLARES },
};

/**
 * door_handle - a packet of a sharer
 *
 * Return: 0, or a negative code when the connection must end.
 */
int door_handle(struct peer *p, union regmsg *m, size_t len, struct fdpass *fds)
{
	const char *why = "";
	int ret = regmsg_check(m, len, &why);

	if (ret == 0 && (m->head.type >= ARRAY_LEN(requests) || !requests[m->head.type].handler))
		ret = -EPROTO, why = "not a request";
	if (ret == 0 && fds->n != regmsg_fds(m))
		ret = -EBADMSG, why = "wrong number of descriptors";
	if (ret == 0 && !(requests[m->head.type].states & 1u << p->client->state))
		ret = -EPROTO, why = "not possible now";
	if (ret == 0)
		return requests[m->head.type].handler(p, m, fds);
	g_message("process %d on the register socket: %s (%s)", (int)p->client->pid, why,
		  strerror(-ret));
	if (len >= sizeof(m->head))
		door_send_text(p, p->client->state == CLIENT_NEW ? REGMSG_REFUSED : REGMSG_RESULT,
			       m->head.serial, -ret, why);
	return ret;
}
