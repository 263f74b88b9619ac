/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhost_relay: whatever a VMM, a back-end and the daemon around them do, in whatever order, the
 * relay between the two keeps its promises (relaylife.c): no ring begins before the proof, each
 * question has one answer at most and nobody waits for ever, what is owned is closed, and nothing
 * grows for somebody who does not read.
 *
 * The input: how the back-end is driven, what it offers, then a script of steps, each a byte and
 * its own arguments (the table below).  The first steps say what VMMs say; `w' and `b' say
 * anything.
 */
#include "config.h"

#include <dirent.h>
#include <string.h>

#include "byhand.h"
#include "core/guard.h"
#include "relaylife.h"

#define STEPS 300
#define TICK  (100 * BYHAND_MS)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct script {
	const uint8_t *at, *end;
};

static uint8_t next(struct script *s)
{
	return s->at < s->end ? *s->at++ : 0;
}

/* --- what a VMM says -------------------------------------------------------------------------- */

static struct vhostmsg_region region(unsigned i)
{
	const uint64_t mib = 1 << 20;

	return (struct vhostmsg_region){ .gpa = i * mib, .size = mib, .va = (i + 16) * mib,
					 .offset = i % 16 * mib };
}

/* The body, by what the request is about; how many descriptors go along. */
static unsigned fill(struct vhostmsg *m, const struct relaylife *l, uint8_t a, uint8_t b)
{
	switch (m->head.request) {
	case VHOSTMSG_SET_MEM_TABLE:
		if (a == 0xff) {
			m->head.size = sizeof(m->body.u64); /* the addresses are accepted */
			return 0;
		}
		for (unsigned i = 0; i < 1u + b % 8; i++) {
			const struct vhostmsg_region r = region(a + i);

			(void)vhostmsg_add_region(m, &r);
		}
		return m->body.memory.n;
	case VHOSTMSG_ADD_MEM_REG:
	case VHOSTMSG_REM_MEM_REG:
		m->body.memreg.region = region(a);
		return m->head.request == VHOSTMSG_ADD_MEM_REG;
	case VHOSTMSG_SET_VRING_KICK:
	case VHOSTMSG_SET_VRING_CALL:
	case VHOSTMSG_SET_VRING_ERR:
		m->body.u64 = a | (b & 1 ? VHOSTMSG_NO_FD : 0);
		return !(b & 1);
	case VHOSTMSG_SET_FEATURES:
		m->body.u64 = VHOSTMSG_F_PROTOCOL_FEATURES | (a & 1 ? VHOSTFRONT_NET_MQ : 0);
		return 0;
	case VHOSTMSG_SET_PROTOCOL_FEATURES:
		m->body.u64 = l->vmm.shown & ~((uint64_t)a << 8);
		return 0;
	case VHOSTMSG_GET_CONFIG:
	case VHOSTMSG_SET_CONFIG:
		m->body.config.size = b % 16;
		m->head.size = 12u + b % 16;
		return 0;
	case VHOSTMSG_SET_LOG_BASE:
		m->body.log.size = 4096;
		return !!(l->vmm.protocol & VHOSTMSG_P_LOG_SHMFD);
	case VHOSTMSG_GET_INFLIGHT_FD:
	case VHOSTMSG_SET_INFLIGHT_FD:
		m->body.inflight.size = 4096;
		return m->head.request == VHOSTMSG_SET_INFLIGHT_FD;
	case VHOSTMSG_SET_LOG_FD:
	case VHOSTMSG_SET_BACKEND_REQ_FD:
	case VHOSTMSG_GPU_SET_SOCKET:
	case VHOSTMSG_SET_DEVICE_STATE_FD:
		return 1;
	default: /* most begin with the ring */
		m->body.state = (struct vhostmsg_state){ .index = a, .num = b };
		return 0;
	}
}

static void say_request(struct relaylife *l, struct script *s)
{
	uint8_t request = next(s), a = next(s), b = next(s);
	bool may_urge = l->vmm.protocol & VHOSTMSG_P_REPLY_ACK;
	uint32_t urged = b & 0x40 && may_urge ? VHOSTMSG_NEED_REPLY : 0;
	struct vhostmsg m;
	unsigned fds;

	request = (uint8_t)(1 + request % VHOSTMSG_CHECK_DEVICE_STATE);
	if (request == VHOSTMSG_POSTCOPY_LISTEN)
		urged = VHOSTMSG_NEED_REPLY;
	vhostmsg_ask(&m, (enum vhostmsg_request)request, urged);
	fds = fill(&m, l, a, b & 0x3f);
	relaylife_vmm_says(l, &m, fds, b & 0x80 ? 5 + a % 20u : 0);
}

/* --- anything --------------------------------------------------------------------------------- */

static unsigned anything(struct vhostmsg *m, struct script *s)
{
	uint8_t fds = next(s);
	size_t have;

	memset(m, 0, sizeof(*m));
	m->head.request = next(s);
	m->head.flags = next(s);
	m->head.size = (uint32_t)next(s) << (fds & 0x80 ? 8 : 0);
	have = (size_t)(s->end - s->at);
	have = have < m->head.size ? have : m->head.size;
	have = have < sizeof(m->body) ? have : sizeof(m->body);
	memcpy(&m->body, s->at, have);
	s->at += have;
	return fds & 0xf;
}

static void vmm_says_anything(struct relaylife *l, struct script *s)
{
	struct vhostmsg m;
	unsigned fds = anything(&m, s);

	relaylife_vmm_says(l, &m, fds, 0);
}

static void back_says_anything(struct relaylife *l, struct script *s)
{
	struct vhostmsg m;
	unsigned fds = anything(&m, s);

	relayback_says(l, &m, fds);
}

/* --- the others ------------------------------------------------------------------------------- */

static void answer(struct relaylife *l, struct script *s)
{
	relayback_answer(l, next(s));
}

static void prove(struct relaylife *l, struct script *s)
{
	relaylife_prove(l, next(s) & 1 ? "a mapping is not registered" : NULL);
}

static void find(struct relaylife *l, struct script *s)
{
	relaylife_find(l, next(s) & 1 ? "it does not map that" : NULL);
}

static void pass_time(struct relaylife *l, struct script *s)
{
	for (unsigned n = next(s) % 16; n > 0; n--) {
		byhand_pass(TICK);
		relaylife_settle(l);
	}
}

/* A bit for each thing that can be so or not. */
static void turn_switches(struct relaylife *l, struct script *s)
{
	uint8_t bits = next(s);

	l->good = bits & 1;
	l->quiet = bits & 2;
	l->waits = bits & 4;
	l->vmm.reads = !(bits & 8);
	l->back.reads = !(bits & 16);
	vhost_relay_go_on(l->relay);
}

static void serve(struct relaylife *l, struct script *s)
{
	(void)s;
	l->early = false;
	vhost_relay_serving(l->relay);
}

static void all_there(struct relaylife *l, struct script *s)
{
	(void)s;
	l->resident = true;
	vhost_relay_resident(l->relay);
}

static void lose(struct relaylife *l, struct script *s)
{
	(void)s;
	vhost_relay_lost(l->relay, "its process ended");
}

static void join(struct relaylife *l, struct script *s)
{
	(void)s;
	relaylife_join(l);
}

static void end_back(struct relaylife *l, struct script *s)
{
	(void)s;
	relaylife_hang_up(&l->back.sock);
}

static void end_vmm(struct relaylife *l, struct script *s)
{
	(void)s;
	relaylife_hang_up(&l->vmm.sock);
}

static const struct {
	uint8_t name;
	void (*take)(struct relaylife *l, struct script *s);
} steps[] = {
	{ 'q', say_request },	   { 'a', answer },    { 'p', prove },	  { 'f', find },
	{ 't', pass_time },	   { 'g', turn_switches }, { 's', serve }, { 'r', all_there },
	{ 'l', lose },		   { 'j', join },	   { 'y', end_back },
	{ 'w', vmm_says_anything }, { 'b', back_says_anything }, { 'x', end_vmm },
};

static void take_step(struct relaylife *l, struct script *s)
{
	uint8_t name = next(s);

	for (unsigned i = 0; i < ARRAY_LEN(steps); i++)
		if (steps[i].name == name) {
			steps[i].take(l, s);
			return;
		}
	say_request(l, s);
}

/* --- all of it -------------------------------------------------------------------------------- */

static unsigned open_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	relaylife_need(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct relaylife l;
	struct script s = { data, data + size };
	unsigned before = open_descriptors();
	uint8_t how = next(&s), offers = next(&s);
	const struct vhostfront_config config = {
		.dialect = (enum vhostfront_dialect)(how % VHOSTFRONT_DIALECTS),
		.repair = (how & 0xc) == 0xc,
		.begun = (how & 0x1c) == 0x1c,
		.may_gate = !(how & 0x20),
		.early = how & 0x40,
		.protocol = VHOSTMSG_PROTOCOL_KNOWN,
		.answer_limit = 5 * TICK,
		.proof_limit = 9 * TICK,
	};

	relaylife_begin(&l, &config, how & 0x80);
	l.back.offers = VHOSTMSG_PROTOCOL_KNOWN & ~((uint64_t)(offers & 0x3f) << 3);
	if (offers & 0x40)
		l.back.offers &= ~VHOSTMSG_P_MEM_SLOTS;
	for (unsigned i = 0; i < STEPS && s.at < s.end && !l.over; i++) {
		take_step(&l, &s);
		relaylife_settle(&l);
	}
	relaylife_end(&l);
	relaylife_need(open_descriptors() == before);
	return 0;
}
