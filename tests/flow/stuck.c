/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Something does not go on for a while, and everything else does.  (O1, O6)
 */
#include "config.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "sys/uffd.h"
#include "tap.h"

#define SOME 16u			/* pages that are not of the row */

/* A kernel that takes no page of the row of zeroes for as long as it likes. */
struct kernel {
	struct uffd_ops ops;
	struct stage *stage;
	_Atomic bool dry;
	_Atomic unsigned refused;
};

static int issue(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len, const void *src,
		 bool wake, int64_t *moved)
{
	struct kernel *k = ctx;

	if (atomic_load(&k->dry) && how != UFFD_WAKE && stage_page_at(k->stage, uffd, dst) >= STAGE_ROW_FIRST) {
		atomic_fetch_add(&k->refused, 1);
		*moved = -EAGAIN;
		return -EAGAIN;
	}
	return uffd_kernel_ops.issue(NULL, uffd, how, dst, len, src, wake, moved);
}

/*
 * As many pages as can be kept for a retry are known to be zero, wanted, and refused by the kernel: they wait, and nobody else
 * does.
 */
static void refused_zeroes_block_nobody(void)
{
	struct kernel k = { .dry = true };
	struct stage s;

	static_assert(STAGE_ROW_N >= FAULTLOOP_PENDING, "the row fills what can be kept");
	k.ops = (struct uffd_ops){ .issue = issue, .ctx = &k };
	k.stage = &s;
	stage_open(&s, &(struct stage_options){ .row_known = true, .ops = &k.ops });
	stage_touch(&s, 1, STAGE_ROW_FIRST, STAGE_ROW_N);
	stage_wait_parked(&s, STAGE_ROW_N);
	stage_touch(&s, STAGE_MAIN, 0, SOME);
	stage_wait_parked(&s, STAGE_ROW_N + SOME);
	stage_send(&s, false, 0, SOME);
	stage_wait_seen(&s, STAGE_MAIN, 0, SOME);
	for (unsigned i = STAGE_ROW_FIRST; i < STAGE_ROW_FIRST + STAGE_ROW_N; i++)
		expect(!stage_seen(&s, 1, i));
	expect(atomic_load(&k.refused) >= STAGE_ROW_N);
	expect_eq(stage_look(&s)->block[0].zero, STAGE_ROW_N);
	atomic_store(&k.dry, false);
	stage_wait_seen(&s, 1, STAGE_ROW_FIRST, STAGE_ROW_N);
	stage_send(&s, false, SOME, STAGE_ROW_FIRST - SOME);
	stage_end(&s);
	stage_wait_shut(&s);
	stage_wait_state(&s, SESSION_COMPLETE);
	expect_eq(stage_look(&s)->block[0].zero, (STAGE_ROW_FIRST - SOME) / 4);
	stage_check_content(&s);
	stage_close(&s);
}

static const struct fact facts[] = {
	{ "O6 refused zero pages wait, and nobody waits for them", refused_zeroes_block_nobody },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
