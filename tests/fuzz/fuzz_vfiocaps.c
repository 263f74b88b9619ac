/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfiocaps: whatever a device or container answers, what is taken from it keeps the promises of the
 * header.  The first byte of the input says which of the two it is, the rest is the answer.
 */
#include "config.h"

#include "wire/vfiocaps.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool promise)
{
	if (!promise)
		abort();
}

/* What is common to both: true when there is a record. */
static bool taken(int err, size_t more, size_t size, const char *why)
{
	if (err == VFIOCAPS_AGAIN)
		need(more > size && more <= VFIOCAPS_MAX && !why);
	else if (err)
		need((err == -EPROTO || err == -E2BIG || err == -EOPNOTSUPP) && why && *why);
	else
		need(!why);
	return err == 0;
}

static void region(const uint8_t *data, size_t size)
{
	struct vfiocaps_region r;
	const char *why = NULL;
	size_t more = 0;

	if (!taken(vfiocaps_region(&r, data, size, &more, &why), more, size, why))
		return;
	need(size >= VFIOCAPS_REGION_HEAD && r.n_areas <= VFIOCAPS_AREAS);
	need(r.sparse || r.n_areas == 0);
	need(r.flags & VFIOCAPS_REGION_CAPS || (!r.sparse && !r.typed && !r.ndma));
	for (unsigned i = 0; i < r.n_areas; i++)
		need(r.areas[i].size && r.areas[i].offset < r.size &&
		     r.areas[i].size <= r.size - r.areas[i].offset);
	need(!vfiocaps_is_migration(&r) || r.typed);
}

static void container(const uint8_t *data, size_t size)
{
	struct vfiocaps_iommu io;
	const char *why = NULL;
	size_t more = 0;

	if (!taken(vfiocaps_iommu(&io, data, size, &more, &why), more, size, why))
		return;
	need(size >= VFIOCAPS_IOMMU_HEAD && io.n_ranges <= VFIOCAPS_RANGES);
	need(!io.migration || (io.dirty_pgsizes && io.dirty_bitmap_max));
	for (unsigned i = 0; i < io.n_ranges; i++) {
		need(io.ranges[i].first <= io.ranges[i].last);
		need(i == 0 || io.ranges[i].first > io.ranges[i - 1].last);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (data[0] & 1)
		container(data + 1, size - 1);
	else
		region(data + 1, size - 1);
	return 0;
}
