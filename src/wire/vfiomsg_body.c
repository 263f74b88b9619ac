/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bodies of vfio-user messages, a row for each command.
 *
 * The rule for answers is that they never hold more than was asked for: `argsz` or a count in the
 * request says how much the asker has room for.  They may hold less where the protocol knows short
 * transfers (regions, memory, device state), and who asked looks at the count.  Two servers differ
 * in one place: an answer of device state may be as long as what was asked for, filled up with
 * zeroes, or end with its content; the inner size counts.
 */
#include "config.h"

#include "wire/vfiomsg_parts.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

static bool wraps(uint64_t start, uint64_t len)
{
	uint64_t end;

	/* The last byte of the address space may belong to it. */
	return len && !add_u64(start, len - 1, &end);
}

/* --- VERSION ------------------------------------------------------------------------------ */

static bool is_text(const struct vfiomsg *m)
{
	return m->len == 0 || memchr(m->data, '\0', m->len) == m->data + m->len - 1;
}

static int ask_version(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
		       const char **why)
{
	(void)terms;
	return is_text(m) ? 0 :
			    vfiomsg_refuse(-EBADMSG, "capabilities are no text with a NUL", why);
}

static int got_version(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	const struct vfiomsg_version *v = &m->fixed.version, *ours = &asked->fixed.version;

	if (v->major != ours->major || v->minor > ours->minor)
		return vfiomsg_refuse(-EPROTO, "version is not one that was offered", why);
	return is_text(m) ? 0 : vfiomsg_refuse(-EPROTO, "capabilities are no text with a NUL", why);
}

/* --- memory of the client ------------------------------------------------------------------- */

static int ask_map(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why)
{
	const struct vfiomsg_map *map = &m->fixed.map;
	uint32_t known = VFIOMSG_MAP_READ | VFIOMSG_MAP_WRITE | VFIOMSG_MAP_MMAP |
			 VFIOMSG_MAP_FILE_IO;

	(void)terms;
	if (m->len)
		return vfiomsg_refuse(-EPROTO, "body is too long for its command", why);
	if (map->argsz != sizeof(*map) || map->flags & ~known)
		return vfiomsg_refuse(-EBADMSG, "argsz or flags are not those of DMA_MAP", why);
	if (map->size == 0 || wraps(map->iova, map->size) || wraps(map->offset, map->size))
		return vfiomsg_refuse(-EBADMSG, "range to be mapped is empty or wraps", why);
	return 0;
}

static int ask_unmap(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why)
{
	const struct vfiomsg_unmap *u = &m->fixed.unmap;
	bool all = u->flags == VFIOMSG_UNMAP_ALL;

	if (m->len)
		return vfiomsg_refuse(-EPROTO, "body is too long for its command", why);
	if (!all && u->flags & ~(uint32_t)VFIOMSG_UNMAP_BITMAP)
		return vfiomsg_refuse(-EBADMSG, "flags are not those of DMA_UNMAP", why);
	if (u->argsz < 24)
		return vfiomsg_refuse(-EBADMSG, "argsz is not that of DMA_UNMAP", why);
	if (u->bitmap > terms->max_data)
		return vfiomsg_refuse(-EBADMSG, "more data than was agreed on", why);
	if (all ? u->iova || u->size : u->size == 0 || wraps(u->iova, u->size))
		return vfiomsg_refuse(-EBADMSG, "range to be unmapped is empty or wraps", why);
	return 0;
}

/* The request comes back, and behind it the bitmap that was asked for. */
static int got_unmap(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	const struct vfiomsg_unmap *u = &m->fixed.unmap, *ours = &asked->fixed.unmap;
	size_t bitmap = ours->flags & VFIOMSG_UNMAP_BITMAP ? ours->bitmap : 0;

	if (u->flags != ours->flags || (u->iova != ours->iova || u->size != ours->size))
		return vfiomsg_refuse(-EPROTO, "reply is about another range", why);
	if (m->len != bitmap)
		return vfiomsg_refuse(-EPROTO, "bitmap has not the size that was asked for", why);
	return 0;
}

static int check_dma(const struct vfiomsg *m, const struct vfiomsg_terms *terms, size_t tail,
		     const char **why)
{
	const struct vfiomsg_dma *dma = &m->fixed.dma;

	if (m->len != tail)
		return vfiomsg_refuse(-EPROTO, "body has not the size that its count says", why);
	if (dma->count > terms->max_data)
		return vfiomsg_refuse(-EBADMSG, "more data than was agreed on", why);
	if (wraps(dma->address, dma->count))
		return vfiomsg_refuse(-EBADMSG, "range of memory wraps", why);
	return 0;
}

static int ask_dma_read(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
			const char **why)
{
	return check_dma(m, terms, 0, why);
}

static int ask_dma_write(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
			 const char **why)
{
	return check_dma(m, terms, m->fixed.dma.count, why);
}

static int check_dma_reply(const struct vfiomsg *m, const struct vfiomsg *asked, size_t tail,
			   const char **why)
{
	if (m->fixed.dma.address != asked->fixed.dma.address ||
	    m->fixed.dma.count > asked->fixed.dma.count)
		return vfiomsg_refuse(-EPROTO, "reply is about other memory", why);
	if (m->len != tail)
		return vfiomsg_refuse(-EPROTO, "body has not the size that its count says", why);
	return 0;
}

static int got_dma_read(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	return check_dma_reply(m, asked, m->fixed.dma.count, why);
}

static int got_dma_write(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	return check_dma_reply(m, asked, 0, why);
}

/* --- the device and its regions ------------------------------------------------------------- */

static int ask_info(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why)
{
	(void)terms;
	if (m->len)
		return vfiomsg_refuse(-EPROTO, "body is too long for its command", why);
	if (m->fixed.info.argsz < sizeof(m->fixed.info))
		return vfiomsg_refuse(-EBADMSG, "argsz has no room for an answer", why);
	return 0;
}

static int got_info(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	(void)asked;
	if (m->len)
		return vfiomsg_refuse(-EPROTO, "reply is longer than what was asked for", why);
	if (m->fixed.info.regions > VFIOMSG_REGIONS)
		return vfiomsg_refuse(-EPROTO, "device has more regions than any", why);
	return 0;
}

static int ask_region(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
		      const char **why)
{
	(void)terms;
	if (m->len)
		return vfiomsg_refuse(-EPROTO, "body is too long for its command", why);
	if (m->fixed.region.argsz < sizeof(m->fixed.region))
		return vfiomsg_refuse(-EBADMSG, "argsz has no room for an answer", why);
	return 0;
}

/* An answer that would fit has to be there; one that would not may be cut anywhere in its tail. */
static int got_region(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	const struct vfiomsg_region *r = &m->fixed.region, *ours = &asked->fixed.region;
	size_t len = sizeof(*r) + m->len;

	if (r->index != ours->index)
		return vfiomsg_refuse(-EPROTO, "reply is about another region", why);
	if (r->argsz < sizeof(*r) || len > ours->argsz)
		return vfiomsg_refuse(-EPROTO, "reply is longer than what was asked for", why);
	if (r->argsz <= ours->argsz && len < r->argsz)
		return vfiomsg_refuse(-EPROTO, "reply is shorter than it says", why);
	return 0;
}

static int check_access(const struct vfiomsg *m, const struct vfiomsg_terms *terms, size_t tail,
			const char **why)
{
	const struct vfiomsg_access *a = &m->fixed.access;

	if (m->len != tail)
		return vfiomsg_refuse(-EPROTO, "body has not the size that its count says", why);
	if (a->count > terms->max_data)
		return vfiomsg_refuse(-EBADMSG, "more data than was agreed on", why);
	if (a->region >= VFIOMSG_REGIONS || wraps(a->offset, a->count))
		return vfiomsg_refuse(-EBADMSG, "no region has that number, or the range wraps",
				      why);
	return 0;
}

static int ask_read(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why)
{
	return check_access(m, terms, 0, why);
}

static int ask_write(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why)
{
	return check_access(m, terms, m->fixed.access.count, why);
}

static int check_access_reply(const struct vfiomsg *m, const struct vfiomsg *asked, size_t tail,
			      const char **why)
{
	const struct vfiomsg_access *a = &m->fixed.access, *ours = &asked->fixed.access;

	if (a->offset != ours->offset || a->region != ours->region || a->count > ours->count)
		return vfiomsg_refuse(-EPROTO, "reply is about another part of the device", why);
	if (m->len != tail)
		return vfiomsg_refuse(-EPROTO, "body has not the size that its count says", why);
	return 0;
}

static int got_read(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	return check_access_reply(m, asked, m->fixed.access.count, why);
}

static int got_write(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	return check_access_reply(m, asked, 0, why);
}

/* --- dirty pages, first generation ---------------------------------------------------------- */

static int ask_dirty(const struct vfiomsg *m, const struct vfiomsg_terms *terms, const char **why)
{
	const struct vfiomsg_dirty *d = &m->fixed.dirty;

	if (m->len)
		return vfiomsg_refuse(-EPROTO, "body is too long for its command", why);
	if (!is_power_of_two(d->flags) || d->flags > VFIOMSG_DIRTY_GET)
		return vfiomsg_refuse(-EBADMSG, "one of start, stop and get has to be said", why);
	if (d->argsz < (d->flags & VFIOMSG_DIRTY_GET ? sizeof(*d) : 8))
		return vfiomsg_refuse(-EBADMSG, "argsz is not that of DIRTY_PAGES", why);
	if (d->bitmap > terms->max_data)
		return vfiomsg_refuse(-EBADMSG, "more data than was agreed on", why);
	if (d->flags & VFIOMSG_DIRTY_GET && (d->size == 0 || wraps(d->iova, d->size)))
		return vfiomsg_refuse(-EBADMSG, "range of dirty pages is empty or wraps", why);
	return 0;
}

/* Where argsz was too small nothing but argsz and flags comes back: then `bitmap` is 0 here. */
static int got_dirty(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	const struct vfiomsg_dirty *d = &m->fixed.dirty, *ours = &asked->fixed.dirty;
	size_t echo = sizeof(*d) - 8;

	if (m->len == 0)
		return 0;
	if (!(ours->flags & VFIOMSG_DIRTY_GET) || m->len < echo ||
	    m->len - echo != ours->bitmap)
		return vfiomsg_refuse(-EPROTO, "bitmap has not the size that was asked for", why);
	if (memcmp(m->data, &ours->iova, echo))
		return vfiomsg_refuse(-EPROTO, "reply is about another range", why);
	return 0;
}

/* --- device state, second generation -------------------------------------------------------- */

static int ask_feature(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
		       const char **why)
{
	const struct vfiomsg_feature *f = &m->fixed.feature;

	if (m->len > terms->max_data)
		return vfiomsg_refuse(-EBADMSG, "more data than was agreed on", why);
	if (f->argsz < sizeof(*f) + m->len)
		return vfiomsg_refuse(-EBADMSG, "argsz is less than what it counts", why);
	return 0;
}

static int got_feature(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	const struct vfiomsg_feature *f = &m->fixed.feature, *ours = &asked->fixed.feature;

	if (f->flags != ours->flags)
		return vfiomsg_refuse(-EPROTO, "reply is about another feature", why);
	if (sizeof(*f) + m->len > ours->argsz)
		return vfiomsg_refuse(-EPROTO, "reply is longer than what was asked for", why);
	return 0;
}

static int check_stretch(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
			 const char **why)
{
	const struct vfiomsg_stretch *s = &m->fixed.stretch;

	if (s->size > terms->max_data)
		return vfiomsg_refuse(-EBADMSG, "more data than was agreed on", why);
	if (s->argsz < sizeof(*s) || s->argsz - sizeof(*s) < s->size)
		return vfiomsg_refuse(-EBADMSG, "argsz is less than what it counts", why);
	return 0;
}

static int ask_mig_read(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
			const char **why)
{
	if (m->len)
		return vfiomsg_refuse(-EPROTO, "body is too long for its command", why);
	return check_stretch(m, terms, why);
}

static int got_mig_read(const struct vfiomsg *m, const struct vfiomsg *asked, const char **why)
{
	uint32_t size = m->fixed.stretch.size, room = asked->fixed.stretch.size;

	if (size > room || m->len > room)
		return vfiomsg_refuse(-EPROTO, "reply is longer than what was asked for", why);
	if (m->len < size)
		return vfiomsg_refuse(-EPROTO, "reply is shorter than it says", why);
	return 0;
}

static int ask_mig_write(const struct vfiomsg *m, const struct vfiomsg_terms *terms,
			 const char **why)
{
	if (m->len != m->fixed.stretch.size)
		return vfiomsg_refuse(-EPROTO, "body has not the size that its count says", why);
	return check_stretch(m, terms, why);
}

/* -------------------------------------------------------------------------------------------- */

/* A fixed part of @n bytes, and one of @n or, when @flag is set, of @n + @more. */
#define BYTES(n)	      { n, 0, 0 }
#define MORE(n, more, flag) { n, more, flag }
#define ROW(NAME, way, fds, answer_fds, ask, answer, asks, answers)                                \
	[VFIOMSG_##NAME] = { #NAME, VFIOMSG_TO_##way, fds, answer_fds, ask, answer, asks, answers }

static const struct vfiomsg_row rows[] = {
	ROW(VERSION, SERVER, 0, 1, BYTES(4), BYTES(4), ask_version, got_version),
	ROW(DMA_MAP, SERVER, 1, 0, BYTES(32), BYTES(0), ask_map, NULL),
	ROW(DMA_UNMAP, SERVER, 0, 0, MORE(24, 16, VFIOMSG_UNMAP_BITMAP),
	    MORE(24, 16, VFIOMSG_UNMAP_BITMAP), ask_unmap, got_unmap),
	ROW(GET_INFO, SERVER, 0, 0, BYTES(16), BYTES(16), ask_info, got_info),
	ROW(GET_REGION_INFO, SERVER, 0, VFIOMSG_FDS, BYTES(32), BYTES(32), ask_region, got_region),
	ROW(REGION_READ, SERVER, 0, 0, BYTES(16), BYTES(16), ask_read, got_read),
	ROW(REGION_WRITE, SERVER, 0, 0, BYTES(16), BYTES(16), ask_write, got_write),
	ROW(DMA_READ, CLIENT, 0, 0, BYTES(16), BYTES(16), ask_dma_read, got_dma_read),
	ROW(DMA_WRITE, CLIENT, 0, 0, BYTES(16), BYTES(16), ask_dma_write, got_dma_write),
	ROW(RESET, SERVER, 0, 0, BYTES(0), BYTES(0), NULL, NULL),
	ROW(DIRTY_PAGES, SERVER, 0, 0, MORE(8, 32, VFIOMSG_DIRTY_GET), BYTES(8), ask_dirty,
	    got_dirty),
	ROW(FEATURE, SERVER, 0, 0, BYTES(8), BYTES(8), ask_feature, got_feature),
	ROW(MIG_READ, SERVER, 0, 0, BYTES(8), BYTES(8), ask_mig_read, got_mig_read),
	ROW(MIG_WRITE, SERVER, 0, 0, BYTES(8), BYTES(0), ask_mig_write, NULL),
};
_Static_assert(ARRAY_LEN(rows) == VFIOMSG_COMMANDS, "a command has no row");

const struct vfiomsg_row *vfiomsg_row(unsigned command)
{
	return command < ARRAY_LEN(rows) && rows[command].name ? &rows[command] : NULL;
}
