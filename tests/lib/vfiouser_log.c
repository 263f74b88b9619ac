/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the device wrote, as the server in use tells it: of one whole mapping that came with a
 * descriptor, once; and nothing of a range that is not exactly that.
 */
#include "config.h"

#include "vfiouser.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

struct start {
	uint64_t page_size;
	uint32_t n, reserved;
};
struct report {
	uint64_t iova, length, page_size;
};

int vfiouser_log_start(struct vfiouser *s, const struct vfiomsg *ask)
{
	struct start start;

	if (ask->len < sizeof(start))
		return -EINVAL;
	memcpy(&start, ask->data, sizeof(start));
	if (start.page_size != VFIOTERMS_PGSIZE || ask->len != sizeof(start) + start.n * 16)
		return -EINVAL;
	s->log_page = start.page_size;
	s->n_dirty = 0;
	return 0;
}

int vfiouser_log_stop(struct vfiouser *s)
{
	s->log_page = 0;
	return 0;
}

void vfiouser_log(struct vfiouser *s, uint64_t address)
{
	if (s->log_page && s->n_dirty < VFIOUSER_DIRTY)
		s->dirty[s->n_dirty++] = address;
}

static const struct vfiouser_mapping *meets(const struct vfiouser *s, const struct report *r)
{
	for (unsigned i = 0; i < s->n_mappings; i++) {
		const struct vfiouser_mapping *m = &s->mappings[i];

		if (r->iova < m->iova + m->size && m->iova < r->iova + r->length)
			return m;
	}
	return NULL;
}

/* Told once: what is in the range is forgotten. */
static void take_bits(struct vfiouser *s, const struct report *r, uint8_t *bits)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < s->n_dirty; i++) {
		uint64_t page = (s->dirty[i] - r->iova) / r->page_size;

		if (s->dirty[i] < r->iova || s->dirty[i] - r->iova >= r->length)
			s->dirty[kept++] = s->dirty[i];
		else
			bits[page / 8] |= (uint8_t)(1 << page % 8);
	}
	s->n_dirty = kept;
}

int vfiouser_log_report(struct vfiouser *s, const struct vfiomsg *ask, uint8_t *out, size_t *len)
{
	const struct vfiouser_mapping *m;
	struct report r;
	size_t size;

	if (!s->log_page || ask->len != sizeof(r))
		return -EINVAL;
	memcpy(&r, ask->data, sizeof(r));
	m = meets(s, &r);
	if (!m)
		return -ENOENT;
	if (m->fd < 0 || m->iova != r.iova || m->size != r.length || r.page_size != s->log_page)
		return -EINVAL;
	size = sizeof(r) + (r.length / r.page_size + 63) / 64 * 8;
	if (size > *len || ask->fixed.feature.argsz < 8 + size)
		return -EINVAL;
	memset(out, 0, size);
	memcpy(out, &r, sizeof(r));
	take_bits(s, &r, out + sizeof(r));
	*len = size;
	return 0;
}
