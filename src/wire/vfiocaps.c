/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A capability begins with {u16 id, u16 version, u32 next}; `next` counts from the beginning of the
 * struct the chain hangs on, and 0 ends it.  Kernels lay chains out upwards, so one that does not
 * climb is refused: it could go round for ever, or have one capability lie in another.  Climbing
 * gives each capability its extent too, which ends where the next one begins, and what a capability
 * says it holds has to fit in there.
 *
 * What is not known is passed over, with what it holds.  What is known may stand there once.
 */
#include "config.h"

#include "wire/vfiocaps.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

struct region_head {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};
struct iommu_head {
	uint32_t argsz, flags;
	uint64_t pgsizes;
	uint32_t cap_offset, pad;
};
struct cap_head {
	uint16_t id, version;
	uint32_t next;
};
struct sparse_head {
	struct cap_head head;
	uint32_t n, reserved;
};
struct type_cap {
	struct cap_head head;
	uint32_t type, subtype;
};
struct migration_cap {
	struct cap_head head;
	uint32_t flags, pad;
	uint64_t pgsizes, bitmap_max;
};
struct dma_avail_cap {
	struct cap_head head;
	uint32_t avail;
};
_Static_assert(sizeof(struct region_head) == VFIOCAPS_REGION_HEAD, "region");
_Static_assert(sizeof(struct iommu_head) == VFIOCAPS_IOMMU_HEAD, "container");
_Static_assert(sizeof(struct sparse_head) == 16, "sparse");
_Static_assert(sizeof(struct migration_cap) == 32, "migration");

/* A capability, its head included, up to the next one. */
struct extent {
	const uint8_t *at;
	size_t len;
};

/* @least: bytes without which it is not one; @take knows the type of @out */
struct kind {
	uint16_t id;
	size_t least;
	int (*take)(void *out, const struct extent *cap, const char **why);
};

/* The bytes of one answer: where its chain begins, and where everything ends. */
struct chain {
	const uint8_t *base;
	size_t head, first, end;
};

static int refuse(int err, const char *text, const char **why)
{
	if (why)
		*why = text;
	return err;
}

/* Pairs of u64 behind a sparse_head; both lists that have this form are read by it. */
static int count_pairs(const struct extent *cap, unsigned room, const char **why)
{
	struct sparse_head head;

	memcpy(&head, cap->at, sizeof(head));
	if (head.n > (cap->len - sizeof(head)) / (2 * sizeof(uint64_t)))
		return refuse(-EPROTO, "capability is shorter than what it says it lists", why);
	if (head.n > room)
		return refuse(-E2BIG, "capability lists more than any device or container has",
			      why);
	return (int)head.n;
}

static void read_pair(const struct extent *cap, unsigned i, uint64_t pair[2])
{
	memcpy(pair, cap->at + sizeof(struct sparse_head) + i * 2 * sizeof(uint64_t),
	       2 * sizeof(uint64_t));
}

static int take_sparse(void *out, const struct extent *cap, const char **why)
{
	struct vfiocaps_region *r = out;
	int n = count_pairs(cap, VFIOCAPS_AREAS, why);

	for (int i = 0; i < n; i++) {
		uint64_t pair[2];

		read_pair(cap, (unsigned)i, pair);
		if (pair[1] == 0) /* some drivers list what they cannot map now like this */
			continue;
		if (!range_inside(pair[0], pair[1], r->size))
			return refuse(-EPROTO, "area to be mapped is not inside its region", why);
		r->areas[r->n_areas++] = (struct vfiocaps_area){ pair[0], pair[1] };
	}
	r->sparse = true;
	return n < 0 ? n : 0;
}

static int take_type(void *out, const struct extent *cap, const char **why)
{
	struct vfiocaps_region *r = out;
	struct type_cap type;

	(void)why;
	memcpy(&type, cap->at, sizeof(type));
	r->typed = true;
	r->type = type.type;
	r->subtype = type.subtype;
	return 0;
}

static int take_ndma(void *out, const struct extent *cap, const char **why)
{
	struct vfiocaps_region *r = out;

	(void)cap;
	(void)why;
	r->ndma = true;
	return 0;
}

static int take_ranges(void *out, const struct extent *cap, const char **why)
{
	struct vfiocaps_iommu *io = out;
	int n = count_pairs(cap, VFIOCAPS_RANGES, why);

	for (int i = 0; i < n; i++) {
		uint64_t pair[2];

		read_pair(cap, (unsigned)i, pair);
		if (pair[0] > pair[1] || (i && pair[0] <= io->ranges[i - 1].last))
			return refuse(-EPROTO, "ranges of I/O addresses do not ascend", why);
		io->ranges[i] = (struct vfiocaps_range){ pair[0], pair[1] };
		io->n_ranges++;
	}
	return n < 0 ? n : 0;
}

static int take_migration(void *out, const struct extent *cap, const char **why)
{
	struct vfiocaps_iommu *io = out;
	struct migration_cap migration;

	memcpy(&migration, cap->at, sizeof(migration));
	if (!migration.pgsizes || !migration.bitmap_max)
		return refuse(-EPROTO, "dirty pages are tracked in no size, or in no bitmap", why);
	io->migration = true;
	io->dirty_pgsizes = migration.pgsizes;
	io->dirty_bitmap_max = migration.bitmap_max;
	return 0;
}

static int take_dma_avail(void *out, const struct extent *cap, const char **why)
{
	struct vfiocaps_iommu *io = out;
	struct dma_avail_cap dma;

	(void)why;
	memcpy(&dma, cap->at, sizeof(dma));
	io->limited = true;
	io->dma_avail = dma.avail;
	return 0;
}

/* Each list ends with an entry that takes nothing. */
static const struct kind region_kinds[] = {
	{ 1, sizeof(struct sparse_head), take_sparse },
	{ 2, sizeof(struct type_cap), take_type },
	{ 6, sizeof(struct cap_head), take_ndma },
	{ 0 },
};
static const struct kind iommu_kinds[] = {
	{ 1, sizeof(struct sparse_head), take_ranges },
	{ 2, sizeof(struct migration_cap), take_migration },
	{ 3, sizeof(struct dma_avail_cap), take_dma_avail },
	{ 0 },
};

/* One capability at @off; *next is the offset of the one behind it, 0 at the end. */
static int step(const struct chain *c, size_t off, struct extent *cap, size_t *next,
		const char **why)
{
	struct cap_head head;

	if (off < c->head || off > c->end || c->end - off < sizeof(head))
		return refuse(-EPROTO, "capability is not behind the struct it belongs to", why);
	memcpy(&head, c->base + off, sizeof(head));
	if (head.next && (head.next < off + sizeof(head) || head.next > c->end))
		return refuse(-EPROTO, "chain of capabilities goes back, or leaves the answer",
			      why);
	*cap = (struct extent){ c->base + off, (head.next ? head.next : c->end) - off };
	*next = head.next;
	return 0;
}

static int take(const struct kind *kinds, uint32_t *seen, void *out, const struct extent *cap,
		const char **why)
{
	struct cap_head head;

	memcpy(&head, cap->at, sizeof(head));
	for (const struct kind *k = kinds; k->take; k++) {
		if (k->id != head.id)
			continue;
		if (head.version != 1)
			return refuse(-EOPNOTSUPP, "capability has a version that is not known",
				      why);
		if (cap->len < k->least)
			return refuse(-EPROTO, "capability is too short", why);
		if (*seen & UINT32_C(1) << k->id)
			return refuse(-EPROTO, "capability stands there twice", why);
		*seen |= UINT32_C(1) << k->id;
		return k->take(out, cap, why);
	}
	return 0;
}

static int walk(const struct chain *c, const struct kind *kinds, void *out, const char **why)
{
	size_t off = c->first;
	uint32_t seen = 0;

	do {
		struct extent cap;
		size_t next;
		int err = step(c, off, &cap, &next, why);

		err = err ? err : take(kinds, &seen, out, &cap, why);
		if (err)
			return err;
		off = next;
	} while (off);
	return 0;
}

/*
 * An answer begins with its own length, whatever it describes; that length against what came of it.
 * @least: shorter than the head where older kernels leave out its end
 */
static int measure(struct chain *c, size_t least, size_t len, size_t *need, const char **why)
{
	uint32_t argsz;

	if (len < c->head)
		return refuse(-EPROTO, "answer is shorter than what it is to describe", why);
	memcpy(&argsz, c->base, sizeof(argsz));
	if (argsz < least || argsz > VFIOCAPS_MAX)
		return refuse(-EPROTO, "answer says it has a length that none has", why);
	c->end = argsz;
	if (argsz <= len)
		return 0;
	*need = argsz;
	return VFIOCAPS_AGAIN;
}

/**
 * vfiocaps_region - the answer to GET_REGION_INFO
 * @len: bytes of the buffer that was given along, or that came
 */
int vfiocaps_region(struct vfiocaps_region *out, const void *buf, size_t len, size_t *need,
		    const char **why)
{
	struct region_head head;
	struct chain chain = { .base = buf, .head = sizeof(head) };
	int err;

	memset(out, 0, sizeof(*out));
	err = measure(&chain, sizeof(head), len, need, why);
	if (err)
		return err;
	memcpy(&head, buf, sizeof(head));
	out->flags = head.flags;
	out->index = head.index;
	out->size = head.size;
	out->offset = head.offset;
	chain.first = head.cap_offset;
	return head.flags & VFIOCAPS_REGION_CAPS ? walk(&chain, region_kinds, out, why) : 0;
}

/**
 * vfiocaps_iommu - the answer to VFIO_IOMMU_GET_INFO
 * @len: bytes of the buffer, all of them set before the question: a kernel that knows no
 *	capabilities leaves the end of the struct as it was
 */
int vfiocaps_iommu(struct vfiocaps_iommu *out, const void *buf, size_t len, size_t *need,
		   const char **why)
{
	struct iommu_head head;
	struct chain chain = { .base = buf, .head = sizeof(head) };
	int err;

	memset(out, 0, sizeof(*out));
	err = measure(&chain, offsetof(struct iommu_head, cap_offset), len, need, why);
	if (err)
		return err;
	memcpy(&head, buf, sizeof(head));
	out->flags = head.flags;
	out->pgsizes = head.flags & VFIOCAPS_PGSIZES ? head.pgsizes : 0;
	chain.first = head.cap_offset;
	return head.flags & VFIOCAPS_IOMMU_CAPS ? walk(&chain, iommu_kinds, out, why) : 0;
}

/**
 * vfiocaps_is_migration - is it the region of the first generation of device state?
 */
bool vfiocaps_is_migration(const struct vfiocaps_region *r)
{
	return r->typed && r->type == VFIOCAPS_TYPE_MIGRATION &&
	       r->subtype == VFIOCAPS_SUBTYPE_MIGRATION;
}
