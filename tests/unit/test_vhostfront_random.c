/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front-end of a vhost-user back-end against a watcher that knows no plan, only what must never
 * happen: every sequence of four requests (five with POSTCOPY_TESTS_LONG), then long random lives
 * in which back-ends lie, stall, die and return, and VMMs connect anew.  The watcher's own notes
 * are made from the actions alone.
 */
#include "config.h"

#include "core/vhostfront.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

#define OFFERS (VHOSTFRONT_REPLY_ACK | VHOSTFRONT_PAGEFAULT | VHOSTFRONT_MEM_SLOTS)
#define LIST 4096

struct list {
	struct vhostfront_said said[LIST];
	unsigned n;
};

struct watcher {
	struct vhostfront v;
	struct vhostfront_config config;
	uint64_t now, offers;
	/* the back-end, by what it was told */
	bool advised, listening, proof, connected;
	bool running[4];
	bool resident, ended;
	bool owed; /* the VMM waits */
	struct vhostfront_said said; /* the request being worked on */
	struct list kept, held, feed;
	unsigned long seen[VHOSTFRONT_VERBS];
};

static void add(struct list *l, struct vhostfront_said said)
{
	said.fed = true;
	if (l->n == LIST) /* an old one may be forgotten: it changes nothing that is watched */
		memmove(l->said, l->said + 1, --l->n * sizeof(l->said[0]));
	l->said[l->n++] = said;
}

static bool is_memory(const struct watcher *w)
{
	return w->said.what == VHOSTFRONT_TABLE || w->said.what == VHOSTFRONT_ADD_SLOT;
}

/* What a request that reaches the back-end must find. */
static void watch_relay(struct watcher *w, bool with_bases)
{
	bool ours = !w->config.repair && !w->resident;
	bool safe = w->proof || w->resident || (w->config.repair && !w->listening);

	if (w->said.what == VHOSTFRONT_RING_ADDR || w->said.what == VHOSTFRONT_RING_KICK ||
	    w->said.what == VHOSTFRONT_RING_ENABLE)
		cr_assert(safe, "a ring before the proof");
	if (w->said.what == VHOSTFRONT_RING_KICK)
		w->running[w->said.ring] = true;
	if (!is_memory(w))
		return;
	if (ours) {
		cr_assert_neq(w->v.dialect, VHOSTFRONT_GATED, "memory before it is there");
		cr_assert(w->advised || w->v.dialect == VHOSTFRONT_RUST, "a table before ADVISE");
		cr_assert_eq(with_bases, w->v.dialect == VHOSTFRONT_SPEC);
	}
	for (unsigned i = 0; ours && w->said.what == VHOSTFRONT_TABLE && i < 4; i++)
		cr_assert(!w->running[i], "a new table under ring %u", i);
	if (w->config.repair)
		cr_assert_eq(with_bases, w->listening);
	w->proof = false;
}

static void forget_connection(struct watcher *w)
{
	w->advised = w->proof = w->connected = false;
	memset(w->running, 0, sizeof(w->running));
}

static void watch_back_end(struct watcher *w, const struct vhostfront_action *a)
{
	cr_assert(w->connected, "told to nobody: %d", a->verb);
	switch (a->verb) {
	case VHOSTFRONT_DO_RELAY:
		watch_relay(w, false);
		break;
	case VHOSTFRONT_DO_RELAY_BASES:
		watch_relay(w, true);
		break;
	case VHOSTFRONT_DO_ADVISE:
		cr_assert(!w->advised && !w->config.repair, "ADVISE twice");
		w->advised = true;
		break;
	case VHOSTFRONT_DO_LISTEN:
		cr_assert(w->advised);
		break;
	case VHOSTFRONT_DO_END:
		cr_assert(w->resident && w->advised && !w->config.repair,
			  "END before everything is there");
		w->ended = true;
		break;
	default:
		break;
	}
}

static void watch_quarantine(struct watcher *w, bool urged)
{
	cr_assert(w->v.reason && w->connected);
	cr_assert_eq(urged, w->owed, "who waits is told");
	w->owed = false;
	for (unsigned i = 0; i < w->held.n; i++)
		add(&w->kept, w->held.said[i]);
	w->held.n = w->feed.n = 0;
	forget_connection(w);
}

static void watch_rest(struct watcher *w, const struct vhostfront_action *a)
{
	switch (a->verb) {
	case VHOSTFRONT_DO_KEEP:
		if (!w->said.fed)
			add(&w->kept, w->said);
		break;
	case VHOSTFRONT_DO_HOLD:
		cr_assert(!w->resident, "held for ever");
		add(&w->held, w->said);
		break;
	case VHOSTFRONT_DO_RELEASE:
		w->feed = w->held;
		w->held.n = 0;
		break;
	case VHOSTFRONT_DO_REPLAY:
		w->feed = w->kept;
		break;
	case VHOSTFRONT_DO_RESTART:
		cr_assert(w->proof || w->resident);
		break;
	case VHOSTFRONT_DO_DROP:
		w->advised = false;
		/* fallthrough */
	case VHOSTFRONT_DO_DROP_ORPHANS:
		cr_assert(w->resident && !w->config.repair,
			  "a userfaultfd is closed while pages are missing");
		break;
	case VHOSTFRONT_DO_QUARANTINE:
		watch_quarantine(w, a->urged);
		break;
	default:
		break;
	}
}

static void watch(struct watcher *w)
{
	struct vhostfront_action a;

	while (vhostfront_next(&w->v, &a)) {
		w->seen[a.verb]++;
		if (a.verb <= VHOSTFRONT_DO_ACK_BASES) {
			watch_back_end(w, &a);
		} else if (a.verb >= VHOSTFRONT_DO_ANSWER) {
			cr_assert(w->owed, "an answer to nobody");
			w->owed = false;
		} else {
			watch_rest(w, &a);
		}
	}
	if (vhostfront_ready(&w->v, false))
		cr_assert(!w->owed, "the VMM is left waiting for %d", w->said.what);
}

static void start(struct watcher *w, enum vhostfront_dialect dialect, bool repair, uint64_t offers)
{
	w->config = (struct vhostfront_config){
		.dialect = dialect, .repair = repair, .may_gate = true, .protocol = OFFERS,
		.answer_limit = 5, .proof_limit = 9, .begun = repair && w->listening,
	};
	vhostfront_init(&w->v, &w->config);
	w->offers = offers;
	w->kept.n = w->held.n = w->feed.n = 0;
	w->owed = w->listening = false;
	forget_connection(w);
	w->connected = true;
	if (w->resident)
		vhostfront_resident(&w->v, w->now);
}

static bool hear(struct watcher *w, struct vhostfront_said said)
{
	if (vhostfront_hear(&w->v, &said, w->now))
		return false;
	w->said = said;
	w->owed = said.wants && !said.fed;
	watch(w);
	return true;
}

static void note_vmm_postcopy(struct watcher *w, uint64_t value)
{
	if (w->config.repair && w->said.what == VHOSTFRONT_LISTEN && value == 0) {
		w->listening = true;
		w->proof = false;
	}
	if (w->config.repair && w->said.what == VHOSTFRONT_END)
		w->listening = false;
}

static void answer(struct watcher *w, const char *wrong, uint64_t value)
{
	if (w->said.what == VHOSTFRONT_GET_PROTOCOL)
		value = w->offers;
	if (!wrong)
		note_vmm_postcopy(w, value);
	if (!wrong && w->v.plan[w->v.at - 1].verb == VHOSTFRONT_DO_STOP_RING)
		w->running[w->v.plan[w->v.at - 1].ring] = false;
	if (!wrong && w->said.what == VHOSTFRONT_RING_STOP)
		w->running[w->said.ring] = false;
	vhostfront_answered(&w->v, wrong, value, w->now);
	watch(w);
}

static void prove(struct watcher *w, const char *wrong)
{
	w->proof = !wrong;
	vhostfront_proved(&w->v, wrong, w->now);
	watch(w);
}

static void be_good(struct watcher *w)
{
	for (unsigned guard = 0; w->v.wait != VHOSTFRONT_IDLE && guard < 1000; guard++) {
		if (w->v.wait == VHOSTFRONT_AWAITS_ANSWER)
			answer(w, NULL, 0);
		else
			prove(w, NULL);
	}
	cr_assert_eq(w->v.wait, VHOSTFRONT_IDLE, "it never ends");
}

static void feed_one(struct watcher *w)
{
	struct vhostfront_said said;

	if (w->feed.n == 0) {
		vhostfront_fed(&w->v, w->now);
		watch(w);
		return;
	}
	said = w->feed.said[0];
	memmove(w->feed.said, w->feed.said + 1, --w->feed.n * sizeof(said));
	cr_assert(hear(w, said), "refused what it took before: %s", w->v.refusal);
}

static void settle(struct watcher *w)
{
	be_good(w);
	while (w->v.feeding) {
		feed_one(w);
		be_good(w);
	}
}

static void all_there(struct watcher *w)
{
	w->resident = true;
	vhostfront_resident(&w->v, w->now);
	watch(w);
}

static void negotiate(struct watcher *w)
{
	hear(w, (struct vhostfront_said){
			.what = VHOSTFRONT_GET_PROTOCOL, .wants = true, .data = true });
	settle(w);
	hear(w, (struct vhostfront_said){ .what = VHOSTFRONT_SET_PROTOCOL });
	settle(w);
}

static struct vhostfront_said request(unsigned what, unsigned ring, bool wants)
{
	bool data = what == VHOSTFRONT_GET_PROTOCOL || what == VHOSTFRONT_RING_STOP ||
		    what >= VHOSTFRONT_ADVISE;

	if (what == VHOSTFRONT_BASES_ACK)
		wants = false; /* the codec lets no other pass */
	return (struct vhostfront_said){
		.what = (enum vhostfront_what)what,
		.ring = ring,
		.data = data,
		.wants = data || wants,
	};
}

/* --- every sequence --- */

static void run_sequence(struct watcher *w, unsigned long number, unsigned setting, unsigned length)
{
	bool repair = setting == VHOSTFRONT_DIALECTS;

	memset(&w->v, 0, offsetof(struct watcher, kept) - offsetof(struct watcher, v));
	start(w, repair ? VHOSTFRONT_UNIVERSAL : (enum vhostfront_dialect)setting, repair, OFFERS);
	negotiate(w);
	for (unsigned i = 0; i < length; i++) {
		struct vhostfront_said said = request(number % VHOSTFRONT_WHATS, 0, number & 1);

		number /= VHOSTFRONT_WHATS;
		if (repair && w->listening && (said.what == VHOSTFRONT_TABLE))
			said.wants = said.data = true;
		hear(w, said);
		settle(w);
		cr_assert(vhostfront_ready(&w->v, false));
	}
	all_there(w);
	settle(w);
	cr_assert_eq(w->held.n, 0, "something is held for ever");
	cr_assert(repair || w->ended || w->seen[VHOSTFRONT_DO_ADVISE] == 0 || !w->advised);
}

Test(vhostfront_random, every_sequence)
{
	static struct watcher w;
	unsigned length = getenv("POSTCOPY_TESTS_LONG") ? 5 : 4;
	unsigned long sequences = 1;

	for (unsigned i = 0; i < length; i++)
		sequences *= VHOSTFRONT_WHATS;
	for (unsigned setting = 0; setting <= VHOSTFRONT_DIALECTS; setting++)
		for (unsigned long number = 0; number < sequences; number++)
			run_sequence(&w, number, setting, length);
	cr_assert(w.seen[VHOSTFRONT_DO_END] && w.seen[VHOSTFRONT_DO_HOLD] &&
		  w.seen[VHOSTFRONT_DO_RELEASE]);
}

/* --- random lives --- */

static void back_end_does_something(struct watcher *w, struct rng *rng)
{
	uint64_t luck = rng_below(rng, 100);

	if (luck < 2) {
		vhostfront_lost(&w->v, "it died", w->now);
		watch(w);
	} else if (luck < 5) {
		w->now += 1 + rng_below(rng, 8);
		vhostfront_tick(&w->v, w->now);
		watch(w);
	} else if (w->v.wait == VHOSTFRONT_AWAITS_PROOF) {
		prove(w, luck < 7 ? "a mapping has no um" : NULL);
	} else if (w->v.wait == VHOSTFRONT_AWAITS_ANSWER) {
		answer(w, luck < 7 ? "nonsense" : NULL, luck < 12 ? luck : 0);
	}
}

static void vmm_speaks(struct watcher *w, struct rng *rng)
{
	struct vhostfront_said said;

	said = request((unsigned)rng_below(rng, VHOSTFRONT_WHATS), (unsigned)rng_below(rng, 4),
		       rng_below(rng, 2));
	said.same = w->proof && rng_below(rng, 4) == 0;
	if (w->config.repair && w->listening && said.what == VHOSTFRONT_TABLE)
		said.wants = said.data = true;
	hear(w, said);
}

static void reconnect(struct watcher *w, struct rng *rng)
{
	if (rng_below(rng, 3) && vhostfront_joined(&w->v) == 0) {
		w->connected = true;
		watch(w);
		return;
	}
	start(w, w->config.dialect, w->config.repair, w->offers);
	negotiate(w);
}

static void live(struct watcher *w, struct rng *rng)
{
	memset(&w->v, 0, offsetof(struct watcher, kept) - offsetof(struct watcher, v));
	start(w, (enum vhostfront_dialect)rng_below(rng, VHOSTFRONT_DIALECTS),
	      rng_below(rng, 4) == 0,
	      rng_below(rng, 8) ? OFFERS : OFFERS & ~(VHOSTFRONT_PAGEFAULT << rng_below(rng, 2)));
	negotiate(w);
	for (unsigned i = 0; i < 400; i++) {
		if (i == 300)
			all_there(w);
		if (w->v.reason)
			reconnect(w, rng);
		else if (w->v.wait != VHOSTFRONT_IDLE)
			back_end_does_something(w, rng);
		else if (w->v.feeding)
			feed_one(w);
		else
			vmm_speaks(w, rng);
	}
	if (!w->v.reason)
		settle(w);
	cr_assert(w->v.reason || w->held.n == 0);
}

Test(vhostfront_random, lives)
{
	static struct watcher w;
	struct rng rng = { .state = rng_seed() };
	unsigned lives = getenv("POSTCOPY_TESTS_LONG") ? 100000 : 5000;

	for (unsigned i = 0; i < lives; i++)
		live(&w, &rng);
	for (unsigned verb = 0; verb < VHOSTFRONT_VERBS; verb++)
		cr_assert(w.seen[verb], "verb %u was never used: the test sees too little", verb);
}
