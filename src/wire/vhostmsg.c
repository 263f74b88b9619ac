/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The requests of vhost-user, one row each: what must have been negotiated, the shape of the
 * request and of its answer, how many descriptors come with either, and when there is an answer.
 *
 * Three things are not in the head of a message and come as terms:
 *
 * - Requests belong to protocol features.  A back-end that gets one it did not agree to may panic,
 *   or stay silent for ever, so it is refused here.
 * - REPLY_ACK decides whether NEED_REPLY means anything.  Without it nobody could say whether an
 *   answer comes, so NEED_REPLY is refused then; LISTEN and END have it from the first day.
 * - The number of SET_MEM_TABLE stands for three messages (enum vhostmsg_form).  Only who knows
 *   the exchange knows which; guessing by size would take an acknowledgement for a broken table.
 *
 * One wart: back-ends built on libvhost-user return NEED_REPLY in answers that they make in place,
 * so that bit says nothing in an answer.
 */
#include "config.h"

#include "wire/vhostmsg.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "core/guard.h"
#include "wire/vhostmsg_parts.h"

enum fds_rule {
	FDS_NONE,
	FDS_ONE,
	FDS_OPTIONAL,
	FDS_REGIONS,	/* one for each region */
	FDS_RING,	/* one, unless the ring's number is marked */
	FDS_LOG,	/* one, if LOG_SHMFD */
	FDS_INFLIGHT,	/* one, if there is a region */
	FDS_TRANSFER,	/* one, if the back-end wants its own used */
	FDS_RULES,
};

enum answer_rule {
	ANSWER_ACK,	/* if NEED_REPLY */
	ANSWER_DATA,
	ANSWER_LOG,	/* data if LOG_SHMFD */
	ANSWER_BASES,	/* data in the exchange of addresses */
	ANSWER_URGED,	/* data, and NEED_REPLY must ask for it */
};

struct row {
	const char *name;
	uint64_t needs;		/* one of these features of the protocol; 0: none */
	uint8_t ask, ask_fds;	/* enum vhostmsg_shape, enum fds_rule */
	uint8_t rule;		/* enum answer_rule */
	uint8_t answer, answer_fds;
};

#define ROW(prefix, NAME, needs, ask, ask_fds, rule, answer, answer_fds)                           \
	[VHOSTMSG_##prefix##NAME] = { #NAME, needs, SHAPE_##ask, FDS_##ask_fds, ANSWER_##rule,     \
				      SHAPE_##answer, FDS_##answer_fds }
/* Answered if at all by a u64; answered always; and the requests of the back-end. */
#define TELL(NAME, needs, ask, fds) ROW(, NAME, needs, ask, fds, ACK, U64, NONE)
#define ASK(NAME, needs, ask, answer) ROW(, NAME, needs, ask, NONE, DATA, answer, NONE)
#define BACKEND(NAME, needs, ask, fds) ROW(BACKEND_, NAME, needs, ask, fds, ACK, U64, NONE)

static const struct row front_rows[] = {
	ASK(GET_FEATURES, 0, EMPTY, U64),
	TELL(SET_FEATURES, 0, U64, NONE),
	TELL(SET_OWNER, 0, EMPTY, NONE),
	TELL(RESET_OWNER, 0, EMPTY, NONE),
	ROW(, SET_MEM_TABLE, 0, MEMORY, REGIONS, BASES, MEMORY, NONE),
	ROW(, SET_LOG_BASE, 0, LOG, LOG, LOG, LOG_ANSWER, NONE),
	TELL(SET_LOG_FD, 0, EMPTY, ONE),
	TELL(SET_VRING_NUM, 0, STATE, NONE),
	TELL(SET_VRING_ADDR, 0, ADDR, NONE),
	TELL(SET_VRING_BASE, 0, STATE, NONE),
	ASK(GET_VRING_BASE, 0, STATE, STATE),
	TELL(SET_VRING_KICK, 0, RING_FD, RING),
	TELL(SET_VRING_CALL, 0, RING_FD, RING),
	TELL(SET_VRING_ERR, 0, RING_FD, RING),
	ASK(GET_PROTOCOL_FEATURES, 0, EMPTY, U64),
	TELL(SET_PROTOCOL_FEATURES, 0, U64, NONE),
	ASK(GET_QUEUE_NUM, VHOSTMSG_P_MQ, EMPTY, U64),
	TELL(SET_VRING_ENABLE, 0, STATE, NONE),
	TELL(SEND_RARP, VHOSTMSG_P_RARP, U64, NONE),
	TELL(NET_SET_MTU, VHOSTMSG_P_MTU, U64, NONE),
	TELL(SET_BACKEND_REQ_FD, VHOSTMSG_P_BACKEND_REQ, EMPTY, ONE),
	TELL(IOTLB_MSG, 0, IOTLB, NONE),
	TELL(SET_VRING_ENDIAN, VHOSTMSG_P_CROSS_ENDIAN, STATE, NONE),
	ASK(GET_CONFIG, VHOSTMSG_P_CONFIG, CONFIG, CONFIG_ANSWER),
	TELL(SET_CONFIG, VHOSTMSG_P_CONFIG, CONFIG, NONE),
	ASK(CREATE_CRYPTO_SESSION, VHOSTMSG_P_CRYPTO, OPAQUE, OPAQUE),
	TELL(CLOSE_CRYPTO_SESSION, VHOSTMSG_P_CRYPTO, U64, NONE),
	ROW(, POSTCOPY_ADVISE, VHOSTMSG_P_PAGEFAULT, EMPTY, NONE, DATA, EMPTY, ONE),
	ROW(, POSTCOPY_LISTEN, VHOSTMSG_P_PAGEFAULT, EMPTY, NONE, URGED, U64, NONE),
	ROW(, POSTCOPY_END, VHOSTMSG_P_PAGEFAULT, EMPTY, NONE, DATA, U64, NONE),
	ROW(, GET_INFLIGHT_FD, VHOSTMSG_P_INFLIGHT, INFLIGHT, NONE, DATA, INFLIGHT, INFLIGHT),
	TELL(SET_INFLIGHT_FD, VHOSTMSG_P_INFLIGHT, INFLIGHT, ONE),
	TELL(GPU_SET_SOCKET, 0, EMPTY, ONE),
	TELL(RESET_DEVICE, VHOSTMSG_P_RESET, EMPTY, NONE),
	TELL(VRING_KICK, VHOSTMSG_P_INBAND, STATE, NONE),
	ASK(GET_MAX_MEM_SLOTS, VHOSTMSG_P_MEM_SLOTS, EMPTY, U64),
	ROW(, ADD_MEM_REG, VHOSTMSG_P_MEM_SLOTS, MEMREG, ONE, BASES, MEMREG, NONE),
	/* Old front-ends send a descriptor, which back-ends close. */
	TELL(REM_MEM_REG, VHOSTMSG_P_MEM_SLOTS, MEMREG, OPTIONAL),
	TELL(SET_STATUS, VHOSTMSG_P_STATUS, U64, NONE),
	ASK(GET_STATUS, VHOSTMSG_P_STATUS, EMPTY, U64),
	ROW(, GET_SHARED_OBJECT, VHOSTMSG_P_OBJECT, UUID, NONE, DATA, OPAQUE, OPTIONAL),
	ROW(, SET_DEVICE_STATE_FD, VHOSTMSG_P_DEVICE_STATE, TRANSFER, ONE, DATA, U64, TRANSFER),
	ASK(CHECK_DEVICE_STATE, VHOSTMSG_P_DEVICE_STATE, EMPTY, U64),
};
_Static_assert(ARRAY_LEN(front_rows) == VHOSTMSG_CHECK_DEVICE_STATE + 1, "a request has no row");

static const struct row backend_rows[] = {
	BACKEND(IOTLB_MSG, VHOSTMSG_P_BACKEND_REQ, IOTLB, NONE),
	BACKEND(CONFIG_CHANGE, VHOSTMSG_P_BACKEND_REQ, EMPTY, NONE),
	BACKEND(HOST_NOTIFIER, VHOSTMSG_P_NOTIFIER, AREA, OPTIONAL),
	BACKEND(VRING_CALL, VHOSTMSG_P_INBAND, STATE, NONE),
	BACKEND(VRING_ERR, VHOSTMSG_P_INBAND, STATE, NONE),
	BACKEND(OBJECT_ADD, VHOSTMSG_P_OBJECT, UUID, NONE),
	BACKEND(OBJECT_REMOVE, VHOSTMSG_P_OBJECT, UUID, NONE),
	ROW(BACKEND_, OBJECT_LOOKUP, VHOSTMSG_P_OBJECT, UUID, NONE, ACK, U64, OPTIONAL),
};

/* The other two forms of telling memory: the row is that of the request. */
static const struct row ack_row = {
	"BASES_ACK", 0, SHAPE_ACK, FDS_NONE, ANSWER_ACK, SHAPE_U64, FDS_NONE,
};

static const struct row *row_of(enum vhostmsg_way way, uint32_t request)
{
	static const struct {
		const struct row *rows;
		size_t n;
	} tables[VHOSTMSG_WAYS] = {
		[VHOSTMSG_TO_BACKEND] = { front_rows, ARRAY_LEN(front_rows) },
		[VHOSTMSG_FROM_BACKEND] = { backend_rows, ARRAY_LEN(backend_rows) },
	};

	if (request >= tables[way].n || !tables[way].rows[request].name)
		return NULL;
	return &tables[way].rows[request];
}

static bool tells_memory(uint32_t request)
{
	return request == VHOSTMSG_SET_MEM_TABLE || request == VHOSTMSG_ADD_MEM_REG ||
	       request == VHOSTMSG_REM_MEM_REG;
}

/* The row of a whole message; NULL for none. */
static const struct row *row_for(const struct vhostmsg *m, enum vhostmsg_way way,
				 const struct vhostmsg_terms *terms)
{
	const struct row *row = row_of(way, m->head.request);

	if (row && way == VHOSTMSG_TO_BACKEND && terms->form == VHOSTMSG_BASES_ACK &&
	    tells_memory(m->head.request))
		return &ack_row;
	return row;
}

static bool fds_none(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	return m->fds == 0;
}

static bool fds_one(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	return m->fds == 1;
}

static bool fds_optional(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	return m->fds <= 1;
}

static bool fds_regions(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	return m->fds == m->body.memory.n;
}

static bool fds_ring(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	return m->fds == !(m->body.u64 & VHOSTMSG_NO_FD);
}

static bool fds_log(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	if (!(terms->protocol & VHOSTMSG_P_LOG_SHMFD))
		return m->fds == 0;
	return m->fds == 1 && m->head.size == sizeof(m->body.log);
}

static bool fds_inflight(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	return m->fds == !!m->body.inflight.size;
}

/* The low byte is an error: then nobody needs a descriptor. */
static bool fds_transfer(const struct vhostmsg *m, const struct vhostmsg_terms *terms)
{
	(void)terms;
	if (m->body.u64 & VHOSTMSG_NO_FD)
		return m->fds == 0;
	return m->fds == 1 || (m->fds == 0 && (m->body.u64 & 0xff));
}

static bool fds_fit(enum fds_rule rule, const struct vhostmsg *m,
		    const struct vhostmsg_terms *terms)
{
	static bool (*const rules[FDS_RULES])(const struct vhostmsg *,
					      const struct vhostmsg_terms *) = {
		[FDS_NONE] = fds_none,	       [FDS_ONE] = fds_one,
		[FDS_OPTIONAL] = fds_optional, [FDS_REGIONS] = fds_regions,
		[FDS_RING] = fds_ring,	       [FDS_LOG] = fds_log,
		[FDS_INFLIGHT] = fds_inflight, [FDS_TRANSFER] = fds_transfer,
	};

	return rules[rule](m, terms);
}

/**
 * vhostmsg_check_head - may a body of this size follow?
 * @reply: an answer is awaited, not a request
 */
int vhostmsg_check_head(const struct vhostmsg_head *head, enum vhostmsg_way way, bool reply,
			const char **why)
{
	uint32_t flags = head->flags & ~(uint32_t)VHOSTMSG_NEED_REPLY;

	if (flags != (reply ? VHOSTMSG_VERSION | VHOSTMSG_REPLY : VHOSTMSG_VERSION))
		return vhostmsg_refuse(-EPROTO,
				       reply ? "flags are not those of an answer of version 1" :
					       "flags are not those of a request of version 1",
				       why);
	if (head->size > VHOSTMSG_BODY_MAX)
		return vhostmsg_refuse(-EPROTO, "body is longer than any message's", why);
	if (!row_of(way, head->request))
		return vhostmsg_refuse(-EPROTO, "request is unknown", why);
	return 0;
}

static int check_terms(const struct row *row, const struct vhostmsg *m,
		       const struct vhostmsg_terms *terms, const char **why)
{
	bool urged = m->head.flags & VHOSTMSG_NEED_REPLY;

	if (row->needs && !(row->needs & terms->protocol))
		return vhostmsg_refuse(
			-EOPNOTSUPP,
			"request belongs to a protocol feature that was not negotiated", why);
	if (row->rule == ANSWER_URGED && !urged)
		return vhostmsg_refuse(-EPROTO, "request has to ask for a reply", why);
	if (!urged || row->rule == ANSWER_URGED || row->rule == ANSWER_DATA)
		return 0;
	if (row == &ack_row || (row->rule == ANSWER_BASES && terms->form == VHOSTMSG_BASES))
		return vhostmsg_refuse(
			-EPROTO, "exchange of addresses has its own answers, none may be asked for",
			why);
	if (!(terms->protocol & VHOSTMSG_P_REPLY_ACK))
		return vhostmsg_refuse(-EPROTO, "reply is asked for, REPLY_ACK was not negotiated",
				       why);
	return 0;
}

/**
 * vhostmsg_check - may a received request be used?
 */
int vhostmsg_check(const struct vhostmsg *m, enum vhostmsg_way way,
		   const struct vhostmsg_terms *terms, const char **why)
{
	int err = vhostmsg_check_head(&m->head, way, false, why);
	const struct row *row;

	if (err)
		return err;
	row = row_for(m, way, terms);
	err = check_terms(row, m, terms, why);
	if (err)
		return err;
	err = vhostmsg_shape_check((enum vhostmsg_shape)row->ask, m, why);
	if (err)
		return err;
	if (!fds_fit((enum fds_rule)row->ask_fds, m, terms))
		return vhostmsg_refuse(-EPROTO, "request came with the wrong number of descriptors",
				       why);
	return 0;
}

/**
 * vhostmsg_expects - what answers a request
 * @m: passed vhostmsg_check() under @terms, or is our own
 */
enum vhostmsg_answer vhostmsg_expects(const struct vhostmsg *m, enum vhostmsg_way way,
				      const struct vhostmsg_terms *terms)
{
	const struct row *row = row_for(m, way, terms);
	bool data;

	assert(row);
	data = row->rule == ANSWER_DATA || row->rule == ANSWER_URGED ||
	       (row->rule == ANSWER_LOG && (terms->protocol & VHOSTMSG_P_LOG_SHMFD)) ||
	       (row->rule == ANSWER_BASES && terms->form == VHOSTMSG_BASES);
	if (data)
		return VHOSTMSG_DATA;
	return m->head.flags & VHOSTMSG_NEED_REPLY ? VHOSTMSG_ACK : VHOSTMSG_SILENCE;
}

static bool regions_match(const struct vhostmsg *m, const struct vhostmsg *asked)
{
	if (m->head.size != asked->head.size || vhostmsg_regions(m) != vhostmsg_regions(asked))
		return false;
	for (unsigned i = 0; i < vhostmsg_regions(m); i++) {
		const struct vhostmsg_region *a = vhostmsg_region(asked, i),
					     *b = vhostmsg_region(m, i);

		if (a->gpa != b->gpa || a->size != b->size)
			return false;
	}
	return true;
}

/* What an answer repeats of its question; front-ends take it for theirs only then. */
static bool repeats(enum vhostmsg_shape shape, const struct vhostmsg *m,
		    const struct vhostmsg *asked)
{
	switch (shape) {
	case SHAPE_MEMORY:
	case SHAPE_MEMREG:
		return regions_match(m, asked);
	case SHAPE_STATE:
		return m->body.state.index == asked->body.state.index;
	case SHAPE_CONFIG_ANSWER:
		return m->head.size == 0 || m->head.size == asked->head.size;
	default:
		return true;
	}
}

/**
 * vhostmsg_check_reply - is this the answer to that?
 */
int vhostmsg_check_reply(const struct vhostmsg *m, const struct vhostmsg *asked,
			 enum vhostmsg_way way, const struct vhostmsg_terms *terms,
			 const char **why)
{
	enum vhostmsg_answer answer = vhostmsg_expects(asked, way, terms);
	int err = vhostmsg_check_head(&m->head, way, true, why);
	const struct row *row;
	enum vhostmsg_shape shape;

	if (err)
		return err;
	if (m->head.request != asked->head.request)
		return vhostmsg_refuse(-EPROTO, "answer is to another request", why);
	if (answer == VHOSTMSG_SILENCE)
		return vhostmsg_refuse(-EPROTO, "answer to a request that has none", why);
	row = row_for(asked, way, terms);
	shape = answer == VHOSTMSG_ACK ? SHAPE_U64 : (enum vhostmsg_shape)row->answer;
	err = vhostmsg_shape_check(shape, m, why);
	if (err)
		return err;
	if (!fds_fit((enum fds_rule)row->answer_fds, m, terms))
		return vhostmsg_refuse(-EPROTO, "answer came with the wrong number of descriptors",
				       why);
	if (!repeats(shape, m, asked))
		return vhostmsg_refuse(-EPROTO, "answer does not repeat what was asked", why);
	return 0;
}

/**
 * vhostmsg_name - a request in words; static
 */
const char *vhostmsg_name(enum vhostmsg_way way, uint32_t request)
{
	const struct row *row = row_of(way, request);

	return row ? row->name : "unknown";
}

/**
 * vhostmsg_regions - how many regions a message of memory tells
 */
unsigned vhostmsg_regions(const struct vhostmsg *m)
{
	return m->head.request == VHOSTMSG_SET_MEM_TABLE ? m->body.memory.n : 1;
}

/**
 * vhostmsg_region - the @i-th of them
 */
const struct vhostmsg_region *vhostmsg_region(const struct vhostmsg *m, unsigned i)
{
	return m->head.request == VHOSTMSG_SET_MEM_TABLE ? &m->body.memory.regions[i] :
							   &m->body.memreg.region;
}

/**
 * vhostmsg_bases_echoed - did the back-end return the addresses it was sent?
 *
 * libvhost-user does, in all its versions so far.
 */
bool vhostmsg_bases_echoed(const struct vhostmsg *reply, const struct vhostmsg *asked)
{
	for (unsigned i = 0; i < vhostmsg_regions(asked); i++)
		if (vhostmsg_region(reply, i)->va != vhostmsg_region(asked, i)->va)
			return false;
	return true;
}

/**
 * vhostmsg_ask - begin a request of the front-end
 * @need_reply: VHOSTMSG_NEED_REPLY or 0
 */
void vhostmsg_ask(struct vhostmsg *m, enum vhostmsg_request request, uint32_t need_reply)
{
	const struct row *row = row_of(VHOSTMSG_TO_BACKEND, request);

	assert(row);
	memset(m, 0, sizeof(*m));
	m->head = (struct vhostmsg_head){
		.request = request,
		.flags = VHOSTMSG_VERSION | need_reply,
		.size = vhostmsg_shape_size((enum vhostmsg_shape)row->ask),
	};
}

/**
 * vhostmsg_ask_u64 - a whole request that is one number, or closes an exchange of addresses
 */
void vhostmsg_ask_u64(struct vhostmsg *m, enum vhostmsg_request request, uint32_t need_reply,
		      uint64_t value)
{
	vhostmsg_ask(m, request, need_reply);
	m->head.size = sizeof(m->body.u64);
	m->body.u64 = value;
}

/**
 * vhostmsg_add_region - put a region into a table that vhostmsg_ask() began
 */
int vhostmsg_add_region(struct vhostmsg *m, const struct vhostmsg_region *region)
{
	struct vhostmsg_memory *t = &m->body.memory;

	if (t->n >= VHOSTMSG_REGIONS)
		return -E2BIG;
	t->regions[t->n++] = *region;
	m->head.size += sizeof(*region);
	return 0;
}

/**
 * vhostmsg_reply_u64 - a whole answer that is one number
 */
void vhostmsg_reply_u64(struct vhostmsg *m, uint32_t request, uint64_t value)
{
	memset(m, 0, sizeof(*m));
	m->head = (struct vhostmsg_head){
		.request = request,
		.flags = VHOSTMSG_VERSION | VHOSTMSG_REPLY,
		.size = sizeof(m->body.u64),
	};
	m->body.u64 = value;
}
