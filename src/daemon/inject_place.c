/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's answers to a placement, made up.  What is made up has not happened: but for EAGAIN
 * behind some pages, which the kernel was asked to place and did.
 */
#include "config.h"
#include "daemon/placer.h"

#include <errno.h>

#include "daemon/inject.h"

/* EAGAIN after so many pages. */
static enum uffd_outcome stop_after(struct placer *p, const struct placer_call *c, uint64_t pages,
				    struct uffd_result *result)
{
	uint64_t len = pages * p->page_size;
	enum uffd_outcome outcome = UFFD_AGAIN;

	if (len >= c->len)
		return uffd_place(p->ops, c->uffd, c->how, c->dst, c->len, c->src, true, result);
	if (pages)
		outcome = uffd_place(p->ops, c->uffd, c->how, c->dst, len, c->src, true, result);
	if (outcome == UFFD_DONE)
		outcome = UFFD_AGAIN;
	if (outcome == UFFD_AGAIN)
		result->err = EAGAIN;
	return outcome;
}

/**
 * inject_place - place, or have the kernel seem not to
 */
enum uffd_outcome inject_place(struct placer *p, const struct placer_call *c,
			       struct uffd_result *result)
{
	static const struct {
		enum uffd_outcome outcome;
		int err;
	} answers[FAULTPLAN_ACTIONS] = {
		[FAULTPLAN_ENOMEM] = { UFFD_NOMEM, ENOMEM },
		[FAULTPLAN_EEXIST] = { UFFD_EXISTS, EEXIST },
		[FAULTPLAN_ESRCH] = { UFFD_GONE, ESRCH },
		[FAULTPLAN_ENOENT] = { UFFD_UNMAPPED, ENOENT },
	};
	struct faultplan_event e = { .page = c->page, .n = c->len / p->page_size };
	enum faultplan_point point = c->how == UFFD_COPY ? FAULTPLAN_AT_COPY : FAULTPLAN_AT_ZERO;
	struct faultplan_order order;

	if (!inject_at(p->faults, point, &e, &order))
		return uffd_place(p->ops, c->uffd, c->how, c->dst, c->len, c->src, true, result);
	if (order.action == FAULTPLAN_EAGAIN)
		return stop_after(p, c, order.arg, result);
	result->err = answers[order.action].err;
	return answers[order.action].outcome;
}
