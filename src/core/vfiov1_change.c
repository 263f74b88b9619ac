/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A write to device_state may change several bits at once.  A device does them one after the other,
 * and each order has two rules to keep (S3-51): what excludes a bit is cleared before it is set.
 * Clearing all that is to be cleared before anything is set does that.  NDMA stands next to
 * RUNNING on its inner side, cleared after it and set before it: then no step of a way between two
 * values that forbid transfers allows them (S3-55).
 *
 * The orders differ in what is set first.  With VFIOV1_ZERO_FIRST saving has begun when the device
 * starts to run, and nothing it does escapes; but it then makes more ways pass the step from
 * stop-copy to pre-copy, which many devices do not have.  Consumers must not care which it is;
 * those of this project change one state at a time.
 *
 * When a step fails, what was done is undone by a way back from where the device is to where it
 * came from, made by the same rule; when a step of that fails as well there is no way out but ERROR
 * (S3-53).  A way back is one between valid values, like every other, so what holds for all of them
 * holds for it.
 */
#include "config.h"
#include "core/vfiov1.h"

#include <assert.h>
#include <errno.h>

/* One bit after the other, those of @set are set, others cleared, as far as @to says so. */
static void flip(struct vfiov1_path *path, uint32_t *now, uint32_t to, const uint32_t *bits,
		 bool set)
{
	for (unsigned i = 0; i < VFIOV1_STEPS; i++) {
		uint32_t differ = (*now ^ to) & bits[i];

		if (!differ || !(to & bits[i]) == set)
			continue;
		*now ^= differ;
		path->step[path->n++] = *now;
	}
}

/**
 * vfiov1_expand - the single bits of a change
 * @from: and @to: valid, without reserved bits
 */
void vfiov1_expand(uint32_t from, uint32_t to, enum vfiov1_order order, struct vfiov1_path *path)
{
	static const uint32_t clear[VFIOV1_STEPS] = {
		VFIOV1_RUNNING, VFIOV1_NDMA, VFIOV1_SAVING, VFIOV1_RESUMING,
	};
	static const uint32_t set[VFIOV1_ORDERS][VFIOV1_STEPS] = {
		{ VFIOV1_RESUMING, VFIOV1_SAVING, VFIOV1_NDMA, VFIOV1_RUNNING },
		{ VFIOV1_RESUMING, VFIOV1_NDMA, VFIOV1_RUNNING, VFIOV1_SAVING },
	};

	*path = (struct vfiov1_path){ .n = 0 };
	flip(path, &from, to, clear, false);
	flip(path, &from, to, set[order], true);
	assert(from == to);
}

/**
 * vfiov1_begin - a write to device_state
 *
 * Return: 0, and vfiov1_next() says where to go; -EINVAL: no state has that value, or the device is
 * in ERROR.
 */
int vfiov1_begin(struct vfiov1_change *c, uint32_t now, uint32_t to, bool ndma,
		 enum vfiov1_order order)
{
	if ((to & ~vfiov1_mask(ndma)) || !vfiov1_valid(to, ndma) || !vfiov1_valid(now, ndma))
		return -EINVAL;
	*c = (struct vfiov1_change){ .order = order, .before = now, .now = now };
	vfiov1_expand(now, to, order, &c->path);
	return 0;
}

/**
 * vfiov1_next - the next value that the device goes to
 *
 * Return: false: the write is over, with c->error; the register reads c->now.
 */
bool vfiov1_next(const struct vfiov1_change *c, uint32_t *step)
{
	if (c->at == c->path.n)
		return false;
	*step = c->path.step[c->at];
	return true;
}

/**
 * vfiov1_went - how the step that vfiov1_next() gave ended
 * @err: 0; or -errno, and the device is where it was before the step
 */
void vfiov1_went(struct vfiov1_change *c, int err)
{
	assert(c->at < c->path.n);
	if (!err) {
		c->now = c->path.step[c->at++];
		return;
	}
	c->at = 0;
	if (c->unwinding) {
		c->path.n = 0;
		c->now = VFIOV1_ERROR;
		c->error = err;
		return;
	}
	c->unwinding = true;
	c->error = -EIO;
	vfiov1_expand(c->now, c->before, c->order, &c->path);
}
