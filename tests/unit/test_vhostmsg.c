/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhost-user messages: every request with its number, size, descriptors and answer as a table of
 * its own; then each way in which a message can be wrong.  (P09, P14, P16, F21)
 */
#include "config.h"

#include "wire/vhostmsg.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define ALL ((UINT64_C(1) << 20) - 1)
#define NONE (-1)
#define ANY (-2)

/* What front-ends and back-ends agreed on, by the numbers of the protocol's text. */
static const struct expected {
	unsigned request;
	const char *name;
	int bit;	/* of the protocol features; NONE: no such condition */
	int size, fds;	/* of the request as make() fills it */
	int answer;	/* bytes of its own answer; NONE: it has none, a u64 may be asked for */
	int answer_fds;
} all[] = {
	{ 1, "GET_FEATURES", NONE, 0, 0, 8, 0 },
	{ 2, "SET_FEATURES", NONE, 8, 0, NONE, 0 },
	{ 3, "SET_OWNER", NONE, 0, 0, NONE, 0 },
	{ 4, "RESET_OWNER", NONE, 0, 0, NONE, 0 },
	{ 5, "SET_MEM_TABLE", NONE, 72, 2, NONE, 0 },
	{ 6, "SET_LOG_BASE", NONE, 16, 1, 16, 0 },
	{ 7, "SET_LOG_FD", NONE, 0, 1, NONE, 0 },
	{ 8, "SET_VRING_NUM", NONE, 8, 0, NONE, 0 },
	{ 9, "SET_VRING_ADDR", NONE, 40, 0, NONE, 0 },
	{ 10, "SET_VRING_BASE", NONE, 8, 0, NONE, 0 },
	{ 11, "GET_VRING_BASE", NONE, 8, 0, 8, 0 },
	{ 12, "SET_VRING_KICK", NONE, 8, 1, NONE, 0 },
	{ 13, "SET_VRING_CALL", NONE, 8, 1, NONE, 0 },
	{ 14, "SET_VRING_ERR", NONE, 8, 1, NONE, 0 },
	{ 15, "GET_PROTOCOL_FEATURES", NONE, 0, 0, 8, 0 },
	{ 16, "SET_PROTOCOL_FEATURES", NONE, 8, 0, NONE, 0 },
	{ 17, "GET_QUEUE_NUM", 0, 0, 0, 8, 0 },
	{ 18, "SET_VRING_ENABLE", NONE, 8, 0, NONE, 0 },
	{ 19, "SEND_RARP", 2, 8, 0, NONE, 0 },
	{ 20, "NET_SET_MTU", 4, 8, 0, NONE, 0 },
	{ 21, "SET_BACKEND_REQ_FD", 5, 0, 1, NONE, 0 },
	{ 22, "IOTLB_MSG", NONE, 32, 0, NONE, 0 },
	{ 23, "SET_VRING_ENDIAN", 6, 8, 0, NONE, 0 },
	{ 24, "GET_CONFIG", 9, 12 + 60, 0, 12 + 60, 0 },
	{ 25, "SET_CONFIG", 9, 12 + 60, 0, NONE, 0 },
	{ 26, "CREATE_CRYPTO_SESSION", 7, ANY, 0, ANY, 0 },
	{ 27, "CLOSE_CRYPTO_SESSION", 7, 8, 0, NONE, 0 },
	{ 28, "POSTCOPY_ADVISE", 8, 0, 0, 0, 1 },
	{ 29, "POSTCOPY_LISTEN", 8, 0, 0, 8, 0 },
	{ 30, "POSTCOPY_END", 8, 0, 0, 8, 0 },
	{ 31, "GET_INFLIGHT_FD", 12, 24, 0, 24, 1 },
	{ 32, "SET_INFLIGHT_FD", 12, 24, 1, NONE, 0 },
	{ 33, "GPU_SET_SOCKET", NONE, 0, 1, NONE, 0 },
	{ 34, "RESET_DEVICE", 13, 0, 0, NONE, 0 },
	{ 35, "VRING_KICK", 14, 8, 0, NONE, 0 },
	{ 36, "GET_MAX_MEM_SLOTS", 15, 0, 0, 8, 0 },
	{ 37, "ADD_MEM_REG", 15, 40, 1, NONE, 0 },
	{ 38, "REM_MEM_REG", 15, 40, ANY, NONE, 0 },
	{ 39, "SET_STATUS", 16, 8, 0, NONE, 0 },
	{ 40, "GET_STATUS", 16, 0, 0, 8, 0 },
	{ 41, "GET_SHARED_OBJECT", 18, 16, 0, ANY, ANY },
	{ 42, "SET_DEVICE_STATE_FD", 19, 8, 1, 8, 1 },
	{ 43, "CHECK_DEVICE_STATE", 19, 0, 0, 8, 0 },
};

static const struct expected channel[] = {
	{ 1, "IOTLB_MSG", 5, 32, 0, NONE, 0 },
	{ 2, "CONFIG_CHANGE", 5, 0, 0, NONE, 0 },
	{ 3, "HOST_NOTIFIER", 11, 24, ANY, NONE, 0 },
	{ 4, "VRING_CALL", 14, 8, 0, NONE, 0 },
	{ 5, "VRING_ERR", 14, 8, 0, NONE, 0 },
	{ 6, "OBJECT_ADD", 18, 16, 0, NONE, 0 },
	{ 7, "OBJECT_REMOVE", 18, 16, 0, NONE, 0 },
	{ 8, "OBJECT_LOOKUP", 18, 16, 0, NONE, ANY },
};

static const struct vhostmsg_terms everything = { .protocol = ALL, .form = VHOSTMSG_PLAIN };
static const struct vhostmsg_terms bases = { .protocol = ALL, .form = VHOSTMSG_BASES };
static const struct vhostmsg_terms bases_ack = { .protocol = ALL, .form = VHOSTMSG_BASES_ACK };

static const struct vhostmsg_region low = { 0, 0xa0000, 0x7f0000000000, 0 };
static const struct vhostmsg_region high = { 0xc0000, 0x3f40000, 0x7f00000c0000, 0xc0000 };

/* The body of a request or answer of that number, good in every field. */
static void fill(struct vhostmsg *m)
{
	switch (m->head.request) {
	case VHOSTMSG_SET_MEM_TABLE:
		m->body.memory = (struct vhostmsg_memory){ .n = 2, .regions = { low, high } };
		break;
	case VHOSTMSG_SET_LOG_BASE:
		m->body.log.size = 4096;
		break;
	case VHOSTMSG_GET_CONFIG:
	case VHOSTMSG_SET_CONFIG:
		m->body.config.size = 60;
		break;
	case VHOSTMSG_GET_INFLIGHT_FD:
	case VHOSTMSG_SET_INFLIGHT_FD:
		m->body.inflight = (struct vhostmsg_inflight){ .size = 8192,
							       .queues = 1,
							       .queue_size = 128 };
		break;
	case VHOSTMSG_ADD_MEM_REG:
	case VHOSTMSG_REM_MEM_REG:
		m->body.memreg.region = high;
		break;
	default:
		m->body.u64 = 0;
		break;
	}
}

static void make(struct vhostmsg *m, const struct expected *e)
{
	memset(m, 0, sizeof(*m));
	m->head = (struct vhostmsg_head){ e->request, VHOSTMSG_VERSION,
					  e->size == ANY ? 600 : (uint32_t)e->size };
	m->fds = e->fds == ANY ? 0 : (unsigned)e->fds;
	fill(m);
	if (e->request == VHOSTMSG_POSTCOPY_LISTEN && e->bit == 8)
		m->head.flags |= VHOSTMSG_NEED_REPLY;
}

static void make_answer(struct vhostmsg *m, const struct expected *e)
{
	memset(m, 0, sizeof(*m));
	m->head = (struct vhostmsg_head){ e->request, VHOSTMSG_VERSION | VHOSTMSG_REPLY, 8 };
	if (e->answer == ANY)
		m->head.size = 100;
	else if (e->answer != NONE)
		m->head.size = (uint32_t)e->answer;
	m->fds = e->answer_fds > 0 ? (unsigned)e->answer_fds : 0;
	fill(m);
}

static void refused(const struct vhostmsg *m, const struct vhostmsg_terms *terms, int err,
		    const char *word)
{
	const char *why = "nothing";

	cr_assert_eq(vhostmsg_check(m, VHOSTMSG_TO_BACKEND, terms, &why), err, "%s: %s",
		     vhostmsg_name(VHOSTMSG_TO_BACKEND, m->head.request), why);
	cr_assert(strstr(why, word), "'%s' does not name '%s'", why, word);
	cr_assert_eq(vhostmsg_check(m, VHOSTMSG_TO_BACKEND, terms, NULL), err);
}

static void answer_refused(const struct vhostmsg *m, const struct vhostmsg *asked,
			   const struct vhostmsg_terms *terms, int err, const char *word)
{
	const char *why = "nothing";

	cr_assert_eq(vhostmsg_check_reply(m, asked, VHOSTMSG_TO_BACKEND, terms, &why), err,
		     "%s: %s", vhostmsg_name(VHOSTMSG_TO_BACKEND, m->head.request), why);
	cr_assert(strstr(why, word), "'%s' does not name '%s'", why, word);
}

static void passes_as_sent(const struct expected *e, enum vhostmsg_way way)
{
	const char *why = "untouched";
	struct vhostmsg m, answer;
	enum vhostmsg_answer wanted;

	make(&m, e);
	cr_assert_eq(vhostmsg_check(&m, way, &everything, &why), 0, "%s: %s", e->name, why);
	cr_assert_str_eq(why, "untouched");
	cr_assert_str_eq(vhostmsg_name(way, e->request), e->name);
	wanted = e->answer == NONE ? VHOSTMSG_SILENCE : VHOSTMSG_DATA;
	cr_assert_eq(vhostmsg_expects(&m, way, &everything), wanted, "%s", e->name);
	if (e->answer == NONE)
		m.head.flags |= VHOSTMSG_NEED_REPLY;
	cr_assert_eq(vhostmsg_check(&m, way, &everything, &why), 0, "%s: %s", e->name, why);
	cr_assert_neq(vhostmsg_expects(&m, way, &everything), VHOSTMSG_SILENCE, "%s", e->name);
	make_answer(&answer, e);
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, way, &everything, &why), 0, "%s: %s",
		     e->name, why);
	answer.head.flags |= VHOSTMSG_NEED_REPLY;
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, way, &everything, &why), 0,
		     "the echo of libvhost-user");
}

Test(vhostmsg, every_request_and_answer_passes)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		passes_as_sent(&all[i], VHOSTMSG_TO_BACKEND);
	for (size_t i = 0; i < ARRAY_LEN(channel); i++)
		passes_as_sent(&channel[i], VHOSTMSG_FROM_BACKEND);
}

Test(vhostmsg, numbers_outside_the_tables_are_refused)
{
	static const struct {
		enum vhostmsg_way way;
		unsigned last;
	} tables[] = { { VHOSTMSG_TO_BACKEND, ARRAY_LEN(all) },
		       { VHOSTMSG_FROM_BACKEND, ARRAY_LEN(channel) } };

	for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
		for (unsigned request = 0; request < 70000; request++) {
			struct vhostmsg_head head = { request, VHOSTMSG_VERSION, 0 };
			bool known = request >= 1 && request <= tables[i].last;

			cr_assert_eq(vhostmsg_check_head(&head, tables[i].way, false, NULL),
				     known ? 0 : -EPROTO);
			cr_assert_eq(!strcmp(vhostmsg_name(tables[i].way, request), "unknown"),
				     !known);
		}
	}
}

Test(vhostmsg, heads)
{
	struct vhostmsg_head head = { VHOSTMSG_GET_FEATURES, 0, 0 };
	const char *why = NULL;

	for (head.flags = 0; head.flags < 64; head.flags++) {
		cr_assert_eq(vhostmsg_check_head(&head, VHOSTMSG_TO_BACKEND, false, NULL) == 0,
			     head.flags == 0x1 || head.flags == 0x9, "request %#x", head.flags);
		cr_assert_eq(vhostmsg_check_head(&head, VHOSTMSG_TO_BACKEND, true, NULL) == 0,
			     head.flags == 0x5 || head.flags == 0xd, "answer %#x", head.flags);
	}
	head = (struct vhostmsg_head){ VHOSTMSG_CREATE_CRYPTO_SESSION, 1, VHOSTMSG_BODY_MAX };
	cr_assert_eq(vhostmsg_check_head(&head, VHOSTMSG_TO_BACKEND, false, &why), 0);
	head.size++;
	cr_assert_eq(vhostmsg_check_head(&head, VHOSTMSG_TO_BACKEND, false, &why), -EPROTO);
	cr_assert(strstr(why, "longer"));
	head.size = UINT32_MAX;
	cr_assert_eq(vhostmsg_check_head(&head, VHOSTMSG_TO_BACKEND, true, NULL), -EPROTO);
}

Test(vhostmsg, other_sizes_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct vhostmsg m;

		if (all[i].size == ANY)
			continue;
		make(&m, &all[i]);
		for (m.head.size = 0; m.head.size < 400; m.head.size++) {
			int err = vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL);

			cr_assert_eq(err, (int)m.head.size == all[i].size ? 0 : -EPROTO,
				     "%s of %u bytes: %d", all[i].name, m.head.size, err);
		}
	}
}

Test(vhostmsg, other_sizes_of_answers_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		int size = all[i].answer == NONE ? 8 : all[i].answer;
		struct vhostmsg m, answer;

		if (size == ANY || all[i].request == VHOSTMSG_SET_LOG_BASE ||
		    all[i].request == VHOSTMSG_GET_CONFIG)
			continue;
		make(&m, &all[i]);
		m.head.flags |= VHOSTMSG_NEED_REPLY;
		make_answer(&answer, &all[i]);
		for (answer.head.size = 0; answer.head.size < 100; answer.head.size++) {
			int err = vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND,
						       &everything, NULL);

			cr_assert_eq(err, (int)answer.head.size == size ? 0 : -EPROTO, "%s",
				     all[i].name);
		}
	}
}

Test(vhostmsg, other_counts_of_descriptors_are_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct vhostmsg m, answer;

		make(&m, &all[i]);
		make_answer(&answer, &all[i]);
		for (unsigned fds = 0; fds < 12; fds++) {
			bool fits = all[i].fds == ANY ? fds < 2 : (int)fds == all[i].fds;
			bool fits_answer = all[i].answer_fds == ANY ? fds < 2 :
								      (int)fds == all[i].answer_fds;

			make(&m, &all[i]);
			m.fds = fds;
			cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL),
				     fits ? 0 : -EPROTO, "%s with %u", all[i].name, fds);
			make(&m, &all[i]);
			m.head.flags |= VHOSTMSG_NEED_REPLY;
			answer.fds = fds;
			cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND,
							  &everything, NULL),
				     fits_answer ? 0 : -EPROTO, "%s answered with %u", all[i].name,
				     fds);
		}
	}
}

Test(vhostmsg, what_was_not_negotiated_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct vhostmsg_terms without = everything, nothing = { 0 };
		struct vhostmsg m;

		make(&m, &all[i]);
		if (all[i].bit == NONE) {
			m.fds = all[i].request == VHOSTMSG_SET_LOG_BASE ? 0 : m.fds;
			cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &nothing, NULL), 0,
				     "%s", all[i].name);
			continue;
		}
		without.protocol &= ~VHOSTMSG_BIT(all[i].bit);
		refused(&m, &without, -EOPNOTSUPP, "not negotiated");
	}
}

/* Rings kicked in band, Xen's regions, bits of the future. */
Test(vhostmsg, what_is_never_negotiated)
{
	cr_assert_eq(VHOSTMSG_PROTOCOL_KNOWN, ALL & ~(UINT64_C(1) << 14) & ~(UINT64_C(1) << 17));
}

Test(vhostmsg, need_reply_needs_reply_ack)
{
	struct vhostmsg_terms quiet = everything;

	quiet.protocol &= ~VHOSTMSG_P_REPLY_ACK;
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		struct vhostmsg m;

		make(&m, &all[i]);
		if (all[i].request == VHOSTMSG_SET_LOG_BASE)
			continue;
		m.head.flags |= VHOSTMSG_NEED_REPLY;
		if (all[i].answer == NONE)
			refused(&m, &quiet, -EPROTO, "REPLY_ACK");
		else
			cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &quiet, NULL), 0, "%s",
				     all[i].name);
	}
}

Test(vhostmsg, P14_listen_asks_for_its_reply)
{
	struct vhostmsg m;

	vhostmsg_ask(&m, VHOSTMSG_POSTCOPY_LISTEN, 0);
	refused(&m, &everything, -EPROTO, "ask for a reply");
	vhostmsg_ask(&m, VHOSTMSG_POSTCOPY_LISTEN, VHOSTMSG_NEED_REPLY);
	cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	cr_assert_eq(vhostmsg_expects(&m, VHOSTMSG_TO_BACKEND, &everything), VHOSTMSG_DATA);
}

static void make_table(struct vhostmsg *m)
{
	vhostmsg_ask(m, VHOSTMSG_SET_MEM_TABLE, 0);
	cr_assert_eq(vhostmsg_add_region(m, &low), 0);
	cr_assert_eq(vhostmsg_add_region(m, &high), 0);
	m->fds = 2;
}

/* The bytes of devices.md 1.4. */
Test(vhostmsg, P16_a_table_byte_by_byte)
{
	static const uint8_t head[] = { 5, 0, 0, 0, 1, 0, 0, 0, 0x48, 0, 0, 0 };
	static const uint8_t begin[] = {
		2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a
	};
	struct vhostmsg m;

	make_table(&m);
	cr_assert_arr_eq(&m.head, head, sizeof(head));
	cr_assert_arr_eq(&m.body, begin, sizeof(begin));
	cr_assert_eq(vhostmsg_regions(&m), 2);
	cr_assert_arr_eq(vhostmsg_region(&m, 1), &high, sizeof(high));
}

Test(vhostmsg, P16_the_exchange_of_addresses)
{
	struct vhostmsg table, answer, ack;

	make_table(&table);
	cr_assert_eq(vhostmsg_check(&table, VHOSTMSG_TO_BACKEND, &bases, NULL), 0);
	cr_assert_eq(vhostmsg_expects(&table, VHOSTMSG_TO_BACKEND, &bases), VHOSTMSG_DATA);
	cr_assert_eq(vhostmsg_expects(&table, VHOSTMSG_TO_BACKEND, &everything), VHOSTMSG_SILENCE);

	answer = table;
	answer.head.flags = 5;
	answer.fds = 0;
	cr_assert_eq(vhostmsg_check_reply(&answer, &table, VHOSTMSG_TO_BACKEND, &bases, NULL), 0);
	cr_assert(vhostmsg_bases_echoed(&answer, &table));
	answer.body.memory.regions[1].va += 4096;
	cr_assert(!vhostmsg_bases_echoed(&answer, &table));
	cr_assert_eq(vhostmsg_check_reply(&answer, &table, VHOSTMSG_TO_BACKEND, &bases, NULL), 0);

	vhostmsg_ask_u64(&ack, VHOSTMSG_SET_MEM_TABLE, 0, 0);
	cr_assert_eq(vhostmsg_check(&ack, VHOSTMSG_TO_BACKEND, &bases_ack, NULL), 0);
	cr_assert_eq(vhostmsg_expects(&ack, VHOSTMSG_TO_BACKEND, &bases_ack), VHOSTMSG_SILENCE);
	refused(&ack, &bases, -EBADMSG, "no regions");
	refused(&table, &bases_ack, -EPROTO, "too large");
	ack.body.u64 = 1;
	refused(&ack, &bases_ack, -EBADMSG, "not accepted");
	vhostmsg_ask_u64(&ack, VHOSTMSG_ADD_MEM_REG, 0, 0);
	cr_assert_eq(vhostmsg_check(&ack, VHOSTMSG_TO_BACKEND, &bases_ack, NULL), 0);
	ack.fds = 1;
	refused(&ack, &bases_ack, -EPROTO, "descriptors");
}

Test(vhostmsg, P16_a_slot_is_answered_with_itself)
{
	struct vhostmsg m, answer;

	vhostmsg_ask(&m, VHOSTMSG_ADD_MEM_REG, 0);
	m.body.memreg.region = high;
	m.fds = 1;
	cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &bases, NULL), 0);
	answer = m;
	answer.head.flags = 5;
	answer.fds = 0;
	answer.body.memreg.region.va = 0x1000;
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &bases, NULL), 0);
	cr_assert(!vhostmsg_bases_echoed(&answer, &m));
	answer.body.memreg.region.gpa++;
	answer_refused(&answer, &m, &bases, -EPROTO, "repeat");
}

/* libvhost-user would answer twice, DPDK once. */
Test(vhostmsg, no_second_answer_in_the_exchange)
{
	struct vhostmsg m;

	make_table(&m);
	m.head.flags |= VHOSTMSG_NEED_REPLY;
	refused(&m, &bases, -EPROTO, "own answers");
	vhostmsg_ask_u64(&m, VHOSTMSG_SET_MEM_TABLE, VHOSTMSG_NEED_REPLY, 0);
	refused(&m, &bases_ack, -EPROTO, "own answers");
}

Test(vhostmsg, answers_that_answer_something_else)
{
	struct vhostmsg m, answer;

	make_table(&m);
	answer = m;
	answer.head.flags = 5;
	answer.fds = 1;
	answer_refused(&answer, &m, &bases, -EPROTO, "descriptors");
	answer.fds = 0;
	answer.body.memory.regions[0] = high;
	answer.body.memory.regions[1] = low;
	answer_refused(&answer, &m, &bases, -EPROTO, "repeat");
	answer.body.memory = m.body.memory;
	answer.body.memory.n = 1;
	answer.head.size -= 32;
	answer_refused(&answer, &m, &bases, -EPROTO, "repeat");
	answer.head.request = VHOSTMSG_ADD_MEM_REG;
	answer_refused(&answer, &m, &bases, -EPROTO, "another request");
	vhostmsg_reply_u64(&answer, VHOSTMSG_SET_MEM_TABLE, 0);
	answer_refused(&answer, &m, &everything, -EPROTO, "has none");
	answer.head.flags = 1;
	answer_refused(&answer, &m, &everything, -EPROTO, "flags");
	vhostmsg_ask(&m, VHOSTMSG_GET_VRING_BASE, 0);
	answer = m;
	answer.head.flags = 5;
	answer.body.state.index = 1;
	answer_refused(&answer, &m, &everything, -EPROTO, "repeat");
}

Test(vhostmsg, tables_with_bad_regions)
{
	struct vhostmsg m;
	struct vhostmsg_region *r = &m.body.memory.regions[1];

#define BAD(field, value, err, word)                                                               \
	do {                                                                                       \
		make_table(&m);                                                                    \
		r->field = (value);                                                                \
		refused(&m, &everything, err, word);                                               \
	} while (0)
	BAD(size, 0, -EBADMSG, "no bytes");
	BAD(gpa, UINT64_MAX - 4096, -EBADMSG, "wraps");
	BAD(va, UINT64_MAX - 4096, -EBADMSG, "wraps");
	BAD(offset, UINT64_MAX - 4096, -EBADMSG, "wraps");
	BAD(size, UINT64_MAX, -EBADMSG, "wraps");
	BAD(gpa, 0x9f000, -EBADMSG, "overlap");
	BAD(gpa, 0, -EBADMSG, "overlap");
#undef BAD
	make_table(&m);
	r->gpa = 0xa0000; /* they touch */
	cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	vhostmsg_ask(&m, VHOSTMSG_ADD_MEM_REG, 0);
	m.fds = 1;
	refused(&m, &everything, -EBADMSG, "no bytes");
}

Test(vhostmsg, a_ninth_region)
{
	struct vhostmsg m;
	struct vhostmsg_region r = { .size = 4096 };

	vhostmsg_ask(&m, VHOSTMSG_SET_MEM_TABLE, 0);
	for (; m.fds < VHOSTMSG_REGIONS; m.fds++, r.gpa += 4096)
		cr_assert_eq(vhostmsg_add_region(&m, &r), 0);
	cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	cr_assert_eq(vhostmsg_add_region(&m, &r), -E2BIG);
	m.body.memory.n++;
	m.head.size += sizeof(r);
	m.fds++;
	refused(&m, &everything, -E2BIG, "8 regions");
	m.body.memory.n = UINT32_MAX;
	refused(&m, &everything, -E2BIG, "8 regions");
}

Test(vhostmsg, rings)
{
	struct vhostmsg m;

	for (unsigned request = VHOSTMSG_SET_VRING_KICK; request <= VHOSTMSG_SET_VRING_ERR;
	     request++) {
		vhostmsg_ask_u64(&m, (enum vhostmsg_request)request, 0, 255 | VHOSTMSG_NO_FD);
		cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
		m.fds = 1;
		refused(&m, &everything, -EPROTO, "descriptors");
		m.body.u64 = 512;
		refused(&m, &everything, -EBADMSG, "bits");
	}
	vhostmsg_ask(&m, VHOSTMSG_SET_VRING_ADDR, 0);
	m.body.addr.index = 256;
	refused(&m, &everything, -EBADMSG, "no ring");
	vhostmsg_ask(&m, VHOSTMSG_SET_VRING_ENABLE, 0);
	m.body.state.index = 256;
	refused(&m, &everything, -EBADMSG, "no ring");
}

/* u64, the log itself, or nothing, by library; without LOG_SHMFD there is no answer. */
Test(vhostmsg, logs)
{
	struct vhostmsg_terms unshared = { .protocol = VHOSTMSG_P_REPLY_ACK };
	struct vhostmsg m, answer;

	make(&m, &all[VHOSTMSG_SET_LOG_BASE - 1]);
	vhostmsg_reply_u64(&answer, VHOSTMSG_SET_LOG_BASE, 77);
	for (answer.head.size = 0; answer.head.size <= 40; answer.head.size++)
		cr_assert_eq(
			vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL),
			answer.head.size <= 16 ? 0 : -EPROTO);
	m.body.log.size = 0;
	refused(&m, &everything, -EBADMSG, "empty");
	m.body.log = (struct vhostmsg_log){ 4096, UINT64_MAX };
	refused(&m, &everything, -EBADMSG, "overflow");
	vhostmsg_ask_u64(&m, VHOSTMSG_SET_LOG_BASE, 0, 0x1000);
	cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &unshared, NULL), 0);
	cr_assert_eq(vhostmsg_expects(&m, VHOSTMSG_TO_BACKEND, &unshared), VHOSTMSG_SILENCE);
	refused(&m, &everything, -EPROTO, "descriptors");
}

Test(vhostmsg, configuration)
{
	struct vhostmsg m, answer;

	make(&m, &all[VHOSTMSG_GET_CONFIG - 1]);
	answer = m;
	answer.head.flags = 5;
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	answer.head.size = 0; /* the device has none */
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	answer.head.size = 8;
	answer_refused(&answer, &m, &everything, -EPROTO, "too small");
	answer.head.size = 12 + 30;
	answer.body.config.size = 30;
	answer_refused(&answer, &m, &everything, -EPROTO, "repeat");
	m.body.config.size = 257;
	m.head.size = 12 + 60;
	refused(&m, &everything, -EBADMSG, "more configuration");
}

Test(vhostmsg, inflight_regions)
{
	struct vhostmsg m, answer;

	make(&m, &all[VHOSTMSG_GET_INFLIGHT_FD - 1]);
	make_answer(&answer, &all[VHOSTMSG_GET_INFLIGHT_FD - 1]);
	answer.body.inflight.offset = UINT64_MAX;
	answer_refused(&answer, &m, &everything, -EBADMSG, "wraps");
	answer.body.inflight = (struct vhostmsg_inflight){ .queues = 1 };
	answer_refused(&answer, &m, &everything, -EPROTO, "descriptors");
	answer.fds = 0; /* the device has none */
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	m.head.size = 20; /* as the text adds up; libvhost-user panics */
	refused(&m, &everything, -EPROTO, "too small");
}

Test(vhostmsg, device_state)
{
	struct vhostmsg m, answer;

	make(&m, &all[VHOSTMSG_SET_DEVICE_STATE_FD - 1]);
	vhostmsg_reply_u64(&answer, VHOSTMSG_SET_DEVICE_STATE_FD, VHOSTMSG_NO_FD);
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	answer.fds = 1;
	answer_refused(&answer, &m, &everything, -EPROTO, "descriptors");
	answer.body.u64 = 0;
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	answer.fds = 0;
	answer_refused(&answer, &m, &everything, -EPROTO, "descriptors");
	answer.body.u64 = 1;
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	m.body.transfer.direction = 2;
	refused(&m, &everything, -EBADMSG, "direction");
	m.body.transfer = (struct vhostmsg_transfer){ 1, 1 };
	refused(&m, &everything, -EBADMSG, "phase");
}

/* P09: an answer without the userfaultfd is what rust-vmm sends when it has none. */
Test(vhostmsg, P09_advise_brings_one_descriptor)
{
	struct vhostmsg m, answer = { .head = { VHOSTMSG_POSTCOPY_ADVISE, 5, 0 } };

	vhostmsg_ask(&m, VHOSTMSG_POSTCOPY_ADVISE, 0);
	cr_assert_eq(vhostmsg_check(&m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	answer_refused(&answer, &m, &everything, -EPROTO, "descriptors");
	answer.fds = 2;
	answer_refused(&answer, &m, &everything, -EPROTO, "descriptors");
	answer.fds = 1;
	cr_assert_eq(vhostmsg_check_reply(&answer, &m, VHOSTMSG_TO_BACKEND, &everything, NULL), 0);
	answer.head.size = 8;
	answer_refused(&answer, &m, &everything, -EPROTO, "too large");
}

/* What the makers make is what the checks take. */
Test(vhostmsg, round_trip)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		uint32_t urged = all[i].request == VHOSTMSG_POSTCOPY_LISTEN ? VHOSTMSG_NEED_REPLY :
									      0;
		uint8_t wire[12 + VHOSTMSG_BODY_MAX];
		struct vhostmsg sent, got;

		vhostmsg_ask(&sent, (enum vhostmsg_request)all[i].request, urged);
		sent.fds = all[i].fds == ANY ? 0 : (unsigned)all[i].fds;
		if (all[i].request == VHOSTMSG_SET_MEM_TABLE)
			make_table(&sent);
		else if (all[i].size > 0)
			sent.head.size = (uint32_t)all[i].size;
		fill(&sent);
		memcpy(wire, &sent.head, 12);
		memcpy(wire + 12, &sent.body, sent.head.size);
		memset(&got, 0xa5, sizeof(got));
		memcpy(&got.head, wire, 12);
		cr_assert_eq(vhostmsg_check_head(&got.head, VHOSTMSG_TO_BACKEND, false, NULL), 0);
		memcpy(&got.body, wire + 12, got.head.size);
		got.fds = sent.fds;
		cr_assert_eq(vhostmsg_check(&got, VHOSTMSG_TO_BACKEND, &everything, NULL), 0, "%s",
			     all[i].name);
		cr_assert_arr_eq(&got.body, &sent.body, sent.head.size);
	}
}
