/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a back-end is told to log, to stop, and to finish, as words; and that whatever goes wrong
 * leaves everything dirty (F41, F42, S4-17).
 */
#include "config.h"

#include "core/vhostlog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "wire/vhostlogsay.h"

#define LOG   VHOSTLOG_F_LOG_ALL
#define SHMFD VHOSTLOG_P_LOG_SHMFD
#define ACK   VHOSTLOG_P_REPLY_ACK
#define LIMIT 10

static const char *const names[VHOSTLOG_VERBS] = {
	[VHOSTLOG_DO_SET_BASE] = "base",   [VHOSTLOG_DO_FEATURES] = "features",
	[VHOSTLOG_DO_ADDR] = "addr",	   [VHOSTLOG_DO_STOP_RING] = "stop",
	[VHOSTLOG_DO_BARRIER] = "barrier", [VHOSTLOG_DO_HARVEST] = "harvest",
	[VHOSTLOG_DO_HARVEST_OLD] = "old", [VHOSTLOG_DO_ALL_DIRTY] = "all-dirty",
	[VHOSTLOG_DO_DROP] = "drop",
};

/* A plan to its end, with a back-end that answers at once: "verb[ring]=value!", ! is answered. */
static const char *play(struct vhostlog *v)
{
	static char trace[400];
	struct vhostlog_action a;

	trace[0] = '\0';
	while (vhostlog_next(v, &a, 0)) {
		size_t len = strlen(trace);
		bool ring = a.verb == VHOSTLOG_DO_ADDR || a.verb == VHOSTLOG_DO_STOP_RING;

		snprintf(trace + len, sizeof(trace) - len, "%s%s", len ? " " : "", names[a.verb]);
		len = strlen(trace);
		if (ring)
			snprintf(trace + len, sizeof(trace) - len, "%u", a.ring);
		len = strlen(trace);
		if (a.value)
			snprintf(trace + len, sizeof(trace) - len, "=%lx", a.value);
		if (a.urged) {
			strcat(trace, "!");
			cr_assert(vhostlog_busy(v));
			vhostlog_answered(v, NULL);
		}
	}
	cr_assert_not(vhostlog_busy(v));
	return trace;
}

static void begin(struct vhostlog *v, uint64_t protocol)
{
	vhostlog_init(v, LOG | 0x100, protocol, LIMIT);
	cr_assert_eq(vhostlog_features(v, 0x100 | LOG), 0x100, "it does not log yet");
	cr_assert_eq(vhostlog_addr_flags(v, 0, 1), 0);
	cr_assert_eq(vhostlog_addr_flags(v, 65, 2), 2);
}

static void expect(struct vhostlog *v, enum vhostlog_plan plan, const char *trace)
{
	const char *said;

	cr_assert_eq(vhostlog_begin(v, plan), 0);
	said = play(v);
	cr_assert_str_eq(said, trace, "%s", said);
}

Test(vhostlog, with_acknowledgements)
{
	struct vhostlog v;

	begin(&v, SHMFD | ACK);
	expect(&v, VHOSTLOG_START, "base! features=4000100! addr0=1! addr65=1! all-dirty");
	cr_assert_eq(v.state, VHOSTLOG_ON);
	expect(&v, VHOSTLOG_RESIZE, "base! old");
	expect(&v, VHOSTLOG_STOP, "features=100! addr0! addr65! drop");
	cr_assert_eq(v.state, VHOSTLOG_OFF);
	expect(&v, VHOSTLOG_START, "base! features=4000100! addr0=1! addr65=1! all-dirty");
	expect(&v, VHOSTLOG_FINISH, "stop0! stop65! harvest");
	cr_assert_eq(v.state, VHOSTLOG_FINISHED);
}

Test(vhostlog, without)
{
	struct vhostlog v;

	begin(&v, SHMFD);
	expect(&v, VHOSTLOG_START, "base! features=4000100 addr0=1 addr65=1 barrier! all-dirty");
	expect(&v, VHOSTLOG_STOP, "features=100 addr0 addr65 barrier! drop");
	expect(&v, VHOSTLOG_START, "base! features=4000100 addr0=1 addr65=1 barrier! all-dirty");
	expect(&v, VHOSTLOG_FINISH, "stop0! stop65! harvest");
}

/* Before the device was started there is no ring to tell of. */
Test(vhostlog, without_rings)
{
	struct vhostlog v;

	vhostlog_init(&v, LOG, SHMFD | ACK, LIMIT);
	expect(&v, VHOSTLOG_START, "base! features=4000000! all-dirty");
	cr_assert_eq(vhostlog_addr_flags(&v, 255, 0), 1, "a ring that is told later is logged");
	expect(&v, VHOSTLOG_FINISH, "stop255! harvest");
}

/* What the VMM says while it logs does not undo it. */
Test(vhostlog, the_vmm_goes_on)
{
	struct vhostlog v;

	begin(&v, SHMFD | ACK);
	expect(&v, VHOSTLOG_START, "base! features=4000100! addr0=1! addr65=1! all-dirty");
	cr_assert_eq(vhostlog_features(&v, 0x300), 0x300 | LOG);
	cr_assert_eq(vhostlog_addr_flags(&v, 3, 0), 1);
	expect(&v, VHOSTLOG_STOP, "features=300! addr0! addr3! addr65! drop");
	cr_assert_eq(vhostlog_features(&v, 0x300 | LOG), 0x300);
	cr_assert_eq(vhostlog_addr_flags(&v, 3, 1), 0);
}

Test(vhostlog, what_cannot_begin)
{
	static const enum vhostlog_plan in_off[] = { VHOSTLOG_RESIZE, VHOSTLOG_STOP,
						     VHOSTLOG_FINISH };
	struct vhostlog_action a;
	struct vhostlog v;

	vhostlog_init(&v, 0x100, SHMFD, LIMIT);
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), -EOPNOTSUPP, "no LOG_ALL");
	vhostlog_init(&v, LOG, ACK, LIMIT);
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), -EOPNOTSUPP, "no LOG_SHMFD");
	begin(&v, SHMFD);
	for (unsigned i = 0; i < ARRAY_LEN(in_off); i++)
		cr_assert_eq(vhostlog_begin(&v, in_off[i]), -EINVAL);
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), 0);
	cr_assert(vhostlog_next(&v, &a, 0));
	cr_assert_not(vhostlog_next(&v, &a, 0), "it goes on without an answer");
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), -EBUSY);
	vhostlog_answered(&v, NULL);
	play(&v);
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), -EINVAL);
}

enum trouble { LATE, LOST, REFUSED };

static void trouble(struct vhostlog *v, enum trouble what)
{
	if (what == LATE)
		vhostlog_tick(v, LIMIT);
	else if (what == LOST)
		vhostlog_lost(v, "the back-end is gone");
	else
		vhostlog_answered(v, "it refuses to log");
}

/* However far a plan has come: everything is dirty, once, and nothing else happens. */
static unsigned broken(enum vhostlog_plan plan, unsigned at, enum trouble what)
{
	struct vhostlog_action a;
	struct vhostlog v;
	unsigned answers = 0;

	begin(&v, SHMFD | ACK);
	if (plan != VHOSTLOG_START) {
		cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), 0);
		play(&v);
	}
	cr_assert_eq(vhostlog_begin(&v, plan), 0);
	while (vhostlog_next(&v, &a, 0)) {
		if (!a.urged)
			continue;
		vhostlog_tick(&v, LIMIT - 1);
		if (answers++ < at) {
			vhostlog_answered(&v, NULL);
			continue;
		}
		trouble(&v, what);
		cr_assert_eq(v.state, VHOSTLOG_FAILED);
		cr_assert(vhostlog_next(&v, &a, 0));
		cr_assert_eq(a.verb, VHOSTLOG_DO_ALL_DIRTY);
		cr_assert(v.reason);
		vhostlog_answered(&v, NULL);
		vhostlog_lost(&v, "again");
		vhostlog_tick(&v, 1000);
		cr_assert_not(vhostlog_next(&v, &a, 0));
		cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), -EINVAL);
	}
	return answers;
}

Test(vhostlog, all_dirty_when_it_fails)
{
	for (unsigned plan = 0; plan < VHOSTLOG_PLANS; plan++)
		for (unsigned what = LATE; what <= REFUSED; what++) {
			unsigned at = 0;

			while (broken((enum vhostlog_plan)plan, at, (enum trouble)what) > at)
				at++;
			cr_assert_gt(at, 0);
		}
}

Test(vhostlog, lost_between_plans)
{
	struct vhostlog_action a;
	struct vhostlog v;

	begin(&v, SHMFD | ACK);
	vhostlog_lost(&v, "gone");
	cr_assert_eq(v.state, VHOSTLOG_OFF, "nothing was asked of it");
	cr_assert_not(vhostlog_next(&v, &a, 0));
	expect(&v, VHOSTLOG_START, "base! features=4000100! addr0=1! addr65=1! all-dirty");
	vhostlog_lost(&v, "gone");
	cr_assert(vhostlog_next(&v, &a, 0));
	cr_assert_eq(a.verb, VHOSTLOG_DO_ALL_DIRTY);
	cr_assert_str_eq(v.reason, "gone");
	begin(&v, SHMFD | ACK);
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_START), 0);
	play(&v);
	cr_assert_eq(vhostlog_begin(&v, VHOSTLOG_FINISH), 0);
	play(&v);
	vhostlog_lost(&v, "it may go now");
	cr_assert_eq(v.state, VHOSTLOG_FINISHED);
	cr_assert_not(vhostlog_next(&v, &a, 0));
}

/* --- the messages --- */

static void check_message(const struct vhostlog_action *a, uint32_t request, uint32_t flags,
			  struct vhostmsg *m)
{
	static const struct vhostmsg_addr rings[3] = {
		[2] = { .index = 2, .flags = 4, .desc = 16, .used = 32, .avail = 64, .log = 128 },
	};
	const struct vhostlogsay facts = { .bytes = 4096, .rings = rings };
	const struct vhostmsg_terms terms = { .protocol = SHMFD | ACK };
	const char *why = "";

	vhostlogsay(m, a, &facts);
	cr_assert_eq(m->head.request, request);
	cr_assert_eq(m->head.flags, VHOSTMSG_VERSION | flags);
	cr_assert_eq(vhostmsg_check(m, VHOSTMSG_TO_BACKEND, &terms, &why), 0, "%s", why);
	cr_assert_eq(vhostmsg_expects(m, VHOSTMSG_TO_BACKEND, &terms) != VHOSTMSG_SILENCE, a->urged,
		     "answered or not");
}

Test(vhostlog, messages)
{
	struct vhostlog_action a = { .urged = true };
	struct vhostmsg m;

	a.verb = VHOSTLOG_DO_SET_BASE;
	check_message(&a, VHOSTMSG_SET_LOG_BASE, 0, &m);
	cr_assert_eq(m.body.log.size, 4096);
	cr_assert_eq(m.body.log.offset, 0);
	a.verb = VHOSTLOG_DO_FEATURES;
	a.value = LOG | 1;
	check_message(&a, VHOSTMSG_SET_FEATURES, VHOSTMSG_NEED_REPLY, &m);
	cr_assert_eq(m.body.u64, LOG | 1);
	a.verb = VHOSTLOG_DO_ADDR;
	a.ring = 2;
	a.value = 1;
	check_message(&a, VHOSTMSG_SET_VRING_ADDR, VHOSTMSG_NEED_REPLY, &m);
	cr_assert_eq(m.body.addr.flags, 5);
	cr_assert_eq(m.body.addr.index, 2);
	cr_assert_eq(m.body.addr.log, 128);
	a.value = 0;
	a.urged = false;
	check_message(&a, VHOSTMSG_SET_VRING_ADDR, 0, &m);
	cr_assert_eq(m.body.addr.flags, 4);
	a.urged = true;
	a.verb = VHOSTLOG_DO_STOP_RING;
	check_message(&a, VHOSTMSG_GET_VRING_BASE, 0, &m);
	cr_assert_eq(m.body.state.index, 2);
	a.verb = VHOSTLOG_DO_BARRIER;
	check_message(&a, VHOSTMSG_GET_FEATURES, 0, &m);
}

/* Back-ends answer SET_LOG_BASE with whatever they have; a refusal of the others counts. */
Test(vhostlog, answers)
{
	struct vhostmsg m;

	vhostmsg_reply_u64(&m, VHOSTMSG_SET_LOG_BASE, 0x7fffdeadbeef);
	cr_assert_null(vhostlogsay_wrong(&m));
	vhostmsg_reply_u64(&m, VHOSTMSG_GET_FEATURES, LOG);
	cr_assert_null(vhostlogsay_wrong(&m));
	vhostmsg_reply_u64(&m, VHOSTMSG_SET_FEATURES, 0);
	cr_assert_null(vhostlogsay_wrong(&m));
	vhostmsg_reply_u64(&m, VHOSTMSG_SET_FEATURES, 1);
	cr_assert(vhostlogsay_wrong(&m));
	vhostmsg_reply_u64(&m, VHOSTMSG_SET_VRING_ADDR, 1);
	cr_assert(vhostlogsay_wrong(&m));
	for (uint32_t size = 0; size <= 24; size += 8) {
		struct vhostmsg asked;
		const struct vhostmsg_terms terms = { .protocol = SHMFD };

		vhostmsg_ask(&asked, VHOSTMSG_SET_LOG_BASE, 0);
		asked.head.size = sizeof(asked.body.log);
		asked.body.log.size = 8;
		asked.fds = 1;
		vhostmsg_reply_u64(&m, VHOSTMSG_SET_LOG_BASE, 0);
		m.head.size = size;
		cr_assert_eq(vhostmsg_check_reply(&m, &asked, VHOSTMSG_TO_BACKEND, &terms, NULL) ==
				     0,
			     size <= 16, "an answer of %u bytes", size);
	}
}
