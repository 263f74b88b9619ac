/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhostmsg: whatever two peers say, what passes keeps the promises of the checks, restated here;
 * what does not pass has an error and a text.  The input: who asks, how memory is told, how many
 * descriptors come with the request and its answer, eight bytes of agreed features, the request as
 * it goes over the wire, then its answer.
 */
#include "config.h"

#include "wire/vhostmsg.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool promise)
{
	if (!promise)
		abort();
}

static void need_refusal(int err, const char *why)
{
	need(err == -EPROTO || err == -EOPNOTSUPP || err == -E2BIG || err == -EBADMSG);
	need(why && *why);
}

static void need_regions(const struct vhostmsg *m)
{
	need(vhostmsg_regions(m) >= 1 && vhostmsg_regions(m) <= VHOSTMSG_REGIONS);
	for (unsigned i = 0; i < vhostmsg_regions(m); i++) {
		const struct vhostmsg_region *r = vhostmsg_region(m, i);

		need(r->size > 0 && r->gpa + r->size > r->gpa);
		need(r->va + r->size > r->va && r->offset + r->size > r->offset);
	}
}

static void promises(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	bool ack = terms->form == VHOSTMSG_BASES_ACK;

	switch (m->head.request) {
	case VHOSTMSG_SET_MEM_TABLE:
		if (ack)
			break;
		need_regions(m);
		need(m->fds == m->body.memory.n && m->head.size == 8 + 32 * m->body.memory.n);
		break;
	case VHOSTMSG_ADD_MEM_REG:
	case VHOSTMSG_REM_MEM_REG:
		need(terms->protocol & VHOSTMSG_P_MEM_SLOTS || ack);
		if (!ack)
			need_regions(m);
		break;
	case VHOSTMSG_SET_VRING_NUM:
	case VHOSTMSG_SET_VRING_ADDR:
	case VHOSTMSG_SET_VRING_BASE:
	case VHOSTMSG_SET_VRING_ENABLE:
		need(m->body.state.index < VHOSTMSG_RINGS && m->fds == 0);
		break;
	case VHOSTMSG_SET_VRING_KICK:
		need((m->body.u64 & 0xff) < VHOSTMSG_RINGS && m->fds <= 1);
		break;
	case VHOSTMSG_SET_CONFIG:
		need(m->body.config.size <= VHOSTMSG_CONFIG &&
		     m->head.size == 12 + m->body.config.size);
		break;
	case VHOSTMSG_POSTCOPY_ADVISE:
	case VHOSTMSG_POSTCOPY_LISTEN:
	case VHOSTMSG_POSTCOPY_END:
		need(terms->protocol & VHOSTMSG_P_PAGEFAULT && m->head.size == 0);
		break;
	default:
		break;
	}
	if (m->head.size && ack && (m->head.request == 5 || m->head.request == 37))
		need(m->head.size == 8 && m->body.u64 == 0 && m->fds == 0);
}

/* A message from the wire; 0 when the bytes end or the head is refused. */
static size_t take(struct vhostmsg *m, const uint8_t *data, size_t size, enum vhostmsg_way way,
		   bool reply)
{
	const char *why = NULL;
	int err;

	if (size < sizeof(m->head))
		return 0;
	memset(m, 0xff, sizeof(*m));
	memcpy(&m->head, data, sizeof(m->head));
	err = vhostmsg_check_head(&m->head, way, reply, &why);
	if (err)
		need_refusal(err, why);
	if (err || size - sizeof(m->head) < m->head.size)
		return 0;
	memcpy(&m->body, data + sizeof(m->head), m->head.size);
	return sizeof(m->head) + m->head.size;
}

static void answer(const struct vhostmsg *asked, const struct vhostmsg *m, enum vhostmsg_way way,
		   const struct vhostmsg_terms *terms)
{
	const char *why = NULL;
	int err = vhostmsg_check_reply(m, asked, way, terms, &why);

	if (err) {
		need_refusal(err, why);
		return;
	}
	need(m->head.request == asked->head.request);
	need(vhostmsg_expects(asked, way, terms) != VHOSTMSG_SILENCE);
	if (way == VHOSTMSG_TO_BACKEND && m->head.request == VHOSTMSG_SET_MEM_TABLE &&
	    terms->form == VHOSTMSG_BASES) {
		need_regions(m);
		need(m->head.size == asked->head.size && m->fds == 0);
		vhostmsg_bases_echoed(m, asked);
	}
	if (way == VHOSTMSG_TO_BACKEND && m->head.request == VHOSTMSG_POSTCOPY_ADVISE)
		need(m->fds == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vhostmsg_terms terms;
	struct vhostmsg m, reply;
	const char *why = NULL;
	enum vhostmsg_way way;
	size_t used;
	int err;

	if (size < 12)
		return 0;
	way = data[0] & 1 ? VHOSTMSG_FROM_BACKEND : VHOSTMSG_TO_BACKEND;
	terms.form = (enum vhostmsg_form)(data[1] % 3);
	memcpy(&terms.protocol, data + 4, sizeof(terms.protocol));
	used = take(&m, data + 12, size - 12, way, false);
	if (!used)
		return 0;
	m.fds = data[2];
	err = vhostmsg_check(&m, way, &terms, &why);
	if (err) {
		need_refusal(err, why);
		return 0;
	}
	if (way == VHOSTMSG_TO_BACKEND)
		promises(&m, &terms);
	need(strcmp(vhostmsg_name(way, m.head.request), "unknown"));
	if (take(&reply, data + 12 + used, size - 12 - used, way, true)) {
		reply.fds = data[3];
		answer(&m, &reply, way, &terms);
	}
	return 0;
}
