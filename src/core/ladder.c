/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two of the rungs stop a device and keep what is in it, and so does a guest that suspends it.  The
 * others are for a VM that has to leave: they end what the device does and lose what it was.
 *
 *   - Bus mastering is taken away only from a device whose pages are known (S0-20): what it was
 *     about to write is dropped, and somebody has to know where that was.
 *   - A reset happens under the guest, which has to survive it (S0-26), and it does not stop the
 *     device: it leaves it running (S3-63).  So behind it the rungs that stop are tried again, now
 *     of a device that does nothing; that also makes its pages known, of which there are none.
 *   - The IOMMU is cut only when the device has been told to end, since whatever it still does
 *     becomes errors of the host (S0-21).
 *
 * Every try is logged, and why a rung was not tried can be asked.
 */
#include "config.h"
#include "core/ladder.h"

#include <assert.h>
#include <stddef.h>

#include "core/guard.h"

#define BIT(rung) (UINT32_C(1) << (rung))

/**
 * ladder_init - nothing was tried
 */
void ladder_init(struct ladder *l, const struct ladder_facts *facts)
{
	*l = (struct ladder){ .facts = *facts };
}

static const char *no_v2(const struct ladder *l)
{
	return l->facts.v2 ? NULL : "it does not have the second version of VFIO's migration";
}

static const char *no_v1(const struct ladder *l)
{
	if (l->facts.v2)
		return "it has the second version of VFIO's migration";
	return l->facts.v1 ? NULL : "it does not have the first version of VFIO's migration";
}

static const char *no_suspend(const struct ladder *l)
{
	if (l->was_reset)
		return "it was reset under the guest";
	return l->facts.suspends ? NULL : "nobody in the guest suspends it";
}

static const char *no_bus_master(const struct ladder *l)
{
	return l->facts.set_known || l->was_reset ? NULL : "what it reaches is not known";
}

static const char *no_reset(const struct ladder *l)
{
	if (!l->facts.mandatory)
		return "the migration is not mandatory";
	if (!l->facts.resets)
		return "it cannot be reset";
	return l->facts.survives_reset ? NULL : "the guest does not survive that";
}

static const char *no_iommu(const struct ladder *l)
{
	if (!l->facts.mandatory)
		return "the migration is not mandatory";
	if (!l->facts.enforced)
		return "there is no IOMMU";
	if (!(l->done & (BIT(LADDER_BUS_MASTER) | BIT(LADDER_RESET))))
		return "it was neither reset nor taken off the bus";
	return NULL;
}

static const char *no_detach(const struct ladder *l)
{
	return l->facts.detaches ? NULL : "the VMM cannot unplug it";
}

/**
 * ladder_skipped - why a rung is not tried
 */
const char *ladder_skipped(const struct ladder *l, enum ladder_rung rung)
{
	static const char *(*const why[LADDER_RUNGS])(const struct ladder *l) = {
		[LADDER_V2] = no_v2,		 [LADDER_V1] = no_v1,
		[LADDER_SUSPEND] = no_suspend,	 [LADDER_BUS_MASTER] = no_bus_master,
		[LADDER_RESET] = no_reset,	 [LADDER_IOMMU] = no_iommu,
		[LADDER_DETACH] = no_detach,
	};

	return why[rung] ? why[rung](l) : NULL;
}

/**
 * ladder_next - what to try now
 *
 * Return: false: nothing, the device stands still; else *@rung, which is LADDER_REFUSE when nothing
 * is left.
 */
bool ladder_next(const struct ladder *l, enum ladder_rung *rung)
{
	unsigned at = LADDER_V2;

	if (l->stands)
		return false;
	while (at < LADDER_REFUSE &&
	       (l->tried & BIT(at) || ladder_skipped(l, (enum ladder_rung)at)))
		at++;
	*rung = (enum ladder_rung)at;
	return true;
}

/**
 * ladder_went - how a rung went that ladder_next() gave
 * @result: of a reset nothing but LADDER_DONE or LADDER_FAILED: that the device stands still is for
 *   another rung to say
 */
void ladder_went(struct ladder *l, enum ladder_rung rung, enum ladder_result result)
{
	assert(l->n < LADDER_TRIES && rung < LADDER_REFUSE);
	l->log[l->n].rung = rung;
	l->log[l->n++].result = result;
	l->tried |= BIT(rung);
	if (result == LADDER_FAILED)
		return;
	l->done |= BIT(rung);
	if (rung == LADDER_RESET) {
		l->was_reset = true;
		l->tried = BIT(LADDER_RESET);
		return;
	}
	l->stands = result == LADDER_STANDS;
}

/**
 * ladder_keeps_state - can the device's state still travel?
 *
 * Not behind a reset, also one that failed: nobody knows how far it came.
 */
bool ladder_keeps_state(const struct ladder *l)
{
	const uint32_t gentle = BIT(LADDER_V2) | BIT(LADDER_V1) | BIT(LADDER_SUSPEND);

	return !l->was_reset && !(l->tried & BIT(LADDER_RESET)) && !(l->done & ~gentle);
}

/**
 * ladder_rung_name - the word for a rung in reports; static, "?" for none
 */
const char *ladder_rung_name(enum ladder_rung rung)
{
	static const char *const names[LADDER_RUNGS] = {
		"v2", "v1", "suspend", "bus-master", "reset", "iommu", "detach", "refuse",
	};

	return (unsigned)rung < ARRAY_LEN(names) ? names[rung] : "?";
}
