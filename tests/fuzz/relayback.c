/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "relaylife.h"

#include <string.h>

#include "core/guard.h"

#define need relaylife_need

void relayback_forget(struct relaylife *l)
{
	relaylife_hang_up(&l->back.sock);
	vhost_frame_clear(l->back.hears);
	l->back.agreed = 0;
	l->back.advised = l->back.ack_due = l->back.proof = l->back.asked = false;
	l->back.listening = false;
	memset(l->back.running, 0, sizeof(l->back.running));
	l->proving = false;
	l->finding = 0;
}

/* --- hearing ---------------------------------------------------------------------------------- */

static bool is_memory(const struct vhostmsg *m)
{
	return m->head.request == VHOSTMSG_SET_MEM_TABLE || m->head.request == VHOSTMSG_ADD_MEM_REG;
}

static struct vhostmsg_terms back_terms(const struct relaylife *l)
{
	const struct relaylife_back *b = &l->back;
	bool bases = b->listening && (l->config.repair || l->config.dialect == VHOSTFRONT_SPEC);

	return (struct vhostmsg_terms){
		.protocol = b->agreed,
		.form = !bases	   ? VHOSTMSG_PLAIN :
			b->ack_due ? VHOSTMSG_BASES_ACK :
				     VHOSTMSG_BASES,
	};
}

static uint64_t *ring_word(struct relaylife_back *b, unsigned ring)
{
	return &b->running[ring / 64];
}

static void hears_ring(struct relaylife *l, const struct vhostmsg *m)
{
	struct relaylife_back *b = &l->back;
	bool safe = l->resident || (b->proof && !l->early) || (l->config.repair && !b->listening);
	unsigned ring = m->head.request == VHOSTMSG_SET_VRING_KICK ?
				(unsigned)(m->body.u64 & (VHOSTFRONT_RINGS - 1)) :
				m->body.state.index;

	need(safe);
	if (m->head.request == VHOSTMSG_SET_VRING_KICK)
		*ring_word(b, ring) |= UINT64_C(1) << (ring % 64);
}

static void hears_memory(struct relaylife *l, const struct vhostmsg *m,
			 const struct vhostmsg_terms *terms)
{
	struct relaylife_back *b = &l->back;
	bool ours = !l->config.repair && !l->resident;
	enum vhostfront_dialect dialect = vhost_relay_state(l->relay)->dialect;

	if (terms->form == VHOSTMSG_BASES_ACK) {
		b->ack_due = false;
		return;
	}
	need(!ours || dialect != VHOSTFRONT_GATED);
	need(!ours || b->advised || dialect == VHOSTFRONT_RUST);
	for (unsigned i = 0; i < ARRAY_LEN(b->running); i++)
		need(!ours || m->head.request != VHOSTMSG_SET_MEM_TABLE || !b->running[i]);
	b->proof = false;
}

static void hears_postcopy(struct relaylife *l, const struct vhostmsg *m)
{
	struct relaylife_back *b = &l->back;
	uint32_t request = m->head.request;

	if (l->config.repair)
		return;
	need(request != VHOSTMSG_POSTCOPY_ADVISE || !b->advised);
	need(request != VHOSTMSG_POSTCOPY_LISTEN || (b->advised && !b->listening));
	need(request != VHOSTMSG_POSTCOPY_END || (b->advised && l->resident));
	b->advised = request != VHOSTMSG_POSTCOPY_END;
}

/* One at a time, nothing that was not agreed on, and no ring without a proof. */
static void back_hears(struct relaylife *l, const struct vhostmsg *m)
{
	const struct vhostmsg_terms terms = back_terms(l);
	struct relaylife_back *b = &l->back;

	need(!b->asked);
	need(l->vmm.fickle || vhostmsg_check(m, VHOSTMSG_TO_BACKEND, &terms, NULL) == 0);
	b->asked = vhostmsg_expects(m, VHOSTMSG_TO_BACKEND, &terms) != VHOSTMSG_SILENCE;
	b->owes = *m;
	switch (m->head.request) {
	case VHOSTMSG_SET_VRING_ADDR:
	case VHOSTMSG_SET_VRING_KICK:
	case VHOSTMSG_SET_VRING_ENABLE:
		hears_ring(l, m);
		break;
	case VHOSTMSG_SET_MEM_TABLE:
	case VHOSTMSG_ADD_MEM_REG:
		hears_memory(l, m, &terms);
		break;
	case VHOSTMSG_POSTCOPY_ADVISE:
	case VHOSTMSG_POSTCOPY_LISTEN:
	case VHOSTMSG_POSTCOPY_END:
		hears_postcopy(l, m);
		break;
	case VHOSTMSG_SET_PROTOCOL_FEATURES:
		b->agreed = m->body.u64;
		break;
	default:
		break;
	}
}

bool relayback_reads(struct relaylife *l)
{
	const char *why = NULL;
	int ret;

	if (l->back.sock < 0 || !l->back.reads)
		return false;
	ret = vhost_frame_recv(l->back.hears, l->back.sock, false, &why);
	need(!why);
	if (ret < 0)
		relayback_forget(l);
	if (ret <= 0)
		return false;
	back_hears(l, &l->back.hears->m);
	vhost_frame_clear(l->back.hears);
	return true;
}

/* What a right answer makes of it. */
static void note_said(struct relaylife *l, const struct vhostmsg *m)
{
	const struct vhostmsg_terms terms = back_terms(l);
	struct relaylife_back *b = &l->back;
	uint64_t bit = UINT64_C(1) << (m->body.state.index % 64);

	if (!b->asked || vhostmsg_check_reply(m, &b->owes, VHOSTMSG_TO_BACKEND, &terms, NULL) < 0)
		return;
	b->asked = false;
	if (m->head.request == VHOSTMSG_GET_VRING_BASE)
		*ring_word(b, m->body.state.index) &= ~bit;
	if (m->head.request == VHOSTMSG_POSTCOPY_LISTEN && m->body.u64 == 0)
		b->listening = true, b->proof = false;
	if (m->head.request == VHOSTMSG_POSTCOPY_END)
		b->listening = false;
	if (is_memory(m) && terms.form == VHOSTMSG_BASES)
		b->ack_due = true;
}

/* --- saying ----------------------------------------------------------------------------------- */

static void back_speaks(struct relaylife *l, const struct vhostmsg *m)
{
	uint8_t bytes[RELAYLIFE_BYTES];

	note_said(l, m);
	relaylife_say(l, l->back.sock, bytes, relaylife_bytes(bytes, m), m->fds);
}

/* Who speaks has heard all that it was told. */
void relayback_says(struct relaylife *l, const struct vhostmsg *m, unsigned fds)
{
	struct vhostmsg said = *m;

	l->back.reads = true;
	relaylife_settle(l);
	if (l->back.sock < 0)
		return;
	said.fds = fds;
	back_speaks(l, &said);
}

/* Of the shape that the question has, with the question's own bytes where it repeats them. */
static void make_answer(const struct relaylife *l, struct vhostmsg *m, uint64_t value)
{
	const struct vhostmsg_terms terms = back_terms(l);
	const struct vhostmsg *asked = &l->back.owes;

	vhostmsg_reply_u64(m, asked->head.request, value);
	if (vhostmsg_expects(asked, VHOSTMSG_TO_BACKEND, &terms) == VHOSTMSG_ACK)
		return;
	switch (asked->head.request) {
	case VHOSTMSG_GET_PROTOCOL_FEATURES:
		m->body.u64 = l->back.offers;
		break;
	case VHOSTMSG_POSTCOPY_ADVISE:
		m->head.size = 0;
		m->fds = 1;
		break;
	case VHOSTMSG_GET_VRING_BASE:
		m->body.state = (struct vhostmsg_state){ asked->body.state.index, (uint32_t)value };
		break;
	case VHOSTMSG_SET_DEVICE_STATE_FD:
		m->body.u64 = VHOSTMSG_NO_FD;
		break;
	case VHOSTMSG_SET_MEM_TABLE:
	case VHOSTMSG_ADD_MEM_REG:
	case VHOSTMSG_GET_CONFIG:
	case VHOSTMSG_CREATE_CRYPTO_SESSION:
	case VHOSTMSG_GET_INFLIGHT_FD:
	case VHOSTMSG_GET_SHARED_OBJECT:
	case VHOSTMSG_SET_LOG_BASE:
		m->head.size = asked->head.size;
		m->body = asked->body;
		m->fds = asked->head.request == VHOSTMSG_GET_INFLIGHT_FD &&
			 asked->body.inflight.size;
		break;
	default:
		break;
	}
}

void relayback_answer_now(struct relaylife *l, uint64_t value)
{
	struct vhostmsg m;

	make_answer(l, &m, value);
	back_speaks(l, &m);
}

void relayback_answer(struct relaylife *l, uint64_t value)
{
	l->back.reads = true;
	while (relayback_reads(l))
		;
	if (l->back.asked && l->back.sock >= 0)
		relayback_answer_now(l, value);
}
