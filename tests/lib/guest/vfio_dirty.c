/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_dirty EDU MTTY: what the kernel's containers say of what devices wrote (devices.md 2.5), and
 * our questions to them.  EDU is behind the IOMMU, so that all it is let reach is pinned; MTTY has
 * a driver that pins for itself, or does not.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/vfio.h>

#include "core/guard.h"
#include "ram.h"
#include "sys/devio_vfio.h"
#include "sys/dirty_container.h"
#include "told.h"

enum { PAGES = 16, IOVA = 0x100000 };
#define RW   (PROT_READ | PROT_WRITE)
#define SIZE (PAGES * UINT64_C(4096))

static struct told t;

/* A device, its memory, and its container. */
struct stage {
	struct devio d;
	struct ram r;
	int fd;
	struct dirty_container c;
};

static int map(struct stage *s, unsigned page, unsigned n)
{
	struct devio_dma m = {
		IOVA + page * RAM_PAGE, n * RAM_PAGE, RW, s->r.ours + page * RAM_PAGE, -1, 0,
	};

	return devio_dma_map(&s->d, &m);
}

static void up(struct stage *s, const char *path, bool resident)
{
	const char *why = "";

	memset(s, 0, sizeof(*s));
	EXPECT(&t, ram_init(&s->r, PAGES), 0);
	if (resident)
		EXPECT(&t, ram_place_all(&s->r), 0);
	if (devio_vfio_open(&s->d, path, &why) < 0)
		told_wrong(&t, "%s: %s", path, why);
	s->fd = devio_vfio_container(&s->d);
	EXPECT(&t, dirty_container_init(&s->c, &dirty_container_kernel_ops, &s->fd), 0);
}

static void down(struct stage *s)
{
	devio_close(&s->d);
	ram_deinit(&s->r);
}

/* A log of all addresses below the end of ours: the word with ours is looked at. */
static uint64_t words[(IOVA + SIZE) / 4096 / 64 + 1];
#define OURS words[IOVA / 4096 / 64]

static void clean(struct dirtymark *m)
{
	memset(words, 0, sizeof(words));
	dirtymark_init(m, words, sizeof(words));
}

static uint64_t collect(struct stage *s, const struct dirty_span *spans, unsigned n, int err)
{
	struct dirtymark m;

	clean(&m);
	EXPECT(&t, dirty_container_collect(&s->c, spans, n, &m), err);
	return OURS;
}

static uint64_t collect_all(struct stage *s)
{
	const struct dirty_span span = { IOVA, SIZE };

	return collect(s, &span, 1, 0);
}

static uint64_t unmap(struct stage *s, unsigned page, unsigned n, int err)
{
	const struct dirty_span span = { IOVA + page * RAM_PAGE, n * RAM_PAGE };
	struct dirtymark m;

	clean(&m);
	EXPECT(&t, dirty_container_unmap(&s->c, &span, &m), err);
	return OURS;
}

/* --- what it can --- */

static void capability(const char *edu)
{
	struct stage s;

	up(&s, edu, true);
	EXPECT(&t, s.c.page, 4096);
	EXPECT(&t, s.c.bitmap_max, 268435456);
	EXPECT(&t, dirty_container_refresh(&s.c), 0);
	EXPECT(&t, s.c.page, 4096);
	down(&s);
	told(&t, "S4-16 the container says how it tracks");
}

/* --- behind the IOMMU --- */

static void behind(const char *edu)
{
	const struct dirty_span parts[] = { { IOVA, SIZE / 2 }, { IOVA + SIZE / 2, SIZE / 2 } };
	struct stage s;

	up(&s, edu, true);
	EXPECT(&t, map(&s, 0, 8), 0);
	EXPECT(&t, map(&s, 8, 4), 0);
	EXPECT(&t, dirty_container_start(&s.c), 0);
	EXPECT(&t, dirty_container_start(&s.c), 0);
	EXPECT(&t, collect_all(&s), 0xfff);
	EXPECT(&t, collect_all(&s) & 0xfff, 0xfff); /* and stale bits behind (6.12) */
	told(&t, "S4-02 S4-03 S4-17 all that is mapped is dirty, every time");
	EXPECT(&t, map(&s, 12, 4), 0);
	EXPECT(&t, collect_all(&s), 0xffff);
	EXPECT(&t, collect(&s, parts, 2, 0), 0xffff);
	told(&t, "S4-35c F45 what is mapped meanwhile is, too; neighbours are one question");
	EXPECT(&t, unmap(&s, 8, 4, 0), 0xf00);
	EXPECT(&t, unmap(&s, 8, 4, -ENOENT), 0xf00);
	EXPECT(&t, collect_all(&s) & 0xf0ff, 0xf0ff);
	told(&t, "S4-08 what is unmapped brings its bits along");
	EXPECT(&t, dirty_container_stop(&s.c), 0);
	EXPECT(&t, dirty_container_stop(&s.c), 0);
	EXPECT(&t, collect(&s, parts, 1, -EINVAL), 0xff);
	EXPECT(&t, unmap(&s, 0, 8, 0), 0xff);
	down(&s);
	told(&t, "F42 S4-12 who does not track says so, and all is dirty");
}

/* --- what the kernel refuses --- */

struct get {
	uint32_t argsz, flags;
	uint64_t iova, size;
	struct vfio_bitmap bitmap;
};

struct row {
	const char *what;
	uint32_t flags;
	uint64_t iova, size, pgsize, bytes;
	int err;
};

static const struct row before_start[] = {
	{ "before START", 4, IOVA, SIZE, 4096, 8, EINVAL },
	{ "START and STOP", 3, 0, 0, 0, 0, EINVAL },
	{ "nothing", 0, 0, 0, 0, 0, EINVAL },
	{ "an unknown flag", 8, 0, 0, 0, 0, EINVAL },
};
static const struct row while_tracking[] = {
	{ "all of it", 4, IOVA, SIZE, 4096, 8, 0 },
	{ "more than there is", 4, IOVA, 2 * SIZE, 4096, 8, 0 },
	{ "a page size that is not the smallest", 4, IOVA, SIZE, 8192, 8, EINVAL },
	{ "a bitmap without a word", 4, IOVA, SIZE, 4096, 0, EINVAL },
	{ "a bitmap of bytes", 4, IOVA, SIZE, 4096, 2, EINVAL },
	{ "a bitmap too long", 4, IOVA, SIZE, 4096, UINT64_C(1) << 40, EINVAL },
	{ "half a page", 4, IOVA + 2048, SIZE, 4096, 8, EINVAL },
	{ "no page", 4, IOVA, 0, 4096, 8, EINVAL },
	{ "a part of a mapping", 4, IOVA, 4096, 4096, 8, EINVAL },
	{ "the end of one", 4, IOVA + 4096, SIZE - 4096, 4096, 8, EINVAL },
	{ "around the end of addresses", 4, ~UINT64_C(4095), SIZE, 4096, 8, EINVAL },
};

static void asked(int container, const struct row *row)
{
	uint64_t bits[2] = { 0, 0 };
	struct get g = {
		.argsz = row->flags == 4 ? sizeof(g) : 8,
		.flags = row->flags,
		.iova = row->iova,
		.size = row->size,
		.bitmap = { row->pgsize, row->bytes, (void *)bits },
	};
	int ret = ioctl(container, VFIO_IOMMU_DIRTY_PAGES, &g);

	if ((ret < 0 ? errno : 0) != row->err)
		told_wrong(&t, "%s: %d, not %d", row->what, ret < 0 ? errno : 0, row->err);
	EXPECT(&t, bits[0], ret < 0 ? 0 : 0xffff);
	EXPECT(&t, bits[1], 0);
}

/* A mapping goes with all its bits, or not at all. */
static void unmapped(int container, uint64_t iova, uint64_t size, int err, uint64_t went)
{
	uint64_t bits = 0;
	struct get u = {
		.argsz = sizeof(u), .flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
		.iova = iova, .size = size, .bitmap = { 4096, 8, (void *)&bits },
	};
	int ret = ioctl(container, VFIO_IOMMU_UNMAP_DMA, &u);

	EXPECT(&t, ret < 0 ? errno : 0, err);
	if (ret == 0)
		EXPECT(&t, u.size, went);
	EXPECT(&t, bits, went ? 0xffff : 0);
}

static void refused(const char *edu)
{
	struct stage s;

	up(&s, edu, true);
	EXPECT(&t, map(&s, 0, PAGES), 0);
	for (unsigned i = 0; i < ARRAY_LEN(before_start); i++)
		asked(s.fd, &before_start[i]);
	unmapped(s.fd, IOVA, SIZE, EINVAL, 0);
	EXPECT(&t, dirty_container_start(&s.c), 0);
	for (unsigned i = 0; i < ARRAY_LEN(while_tracking); i++)
		asked(s.fd, &while_tracking[i]);
	unmapped(s.fd, IOVA, SIZE / 2, EINVAL, 0);
	unmapped(s.fd, IOVA, SIZE, 0, SIZE);
	unmapped(s.fd, IOVA, SIZE, 0, 0);
	down(&s);
	told(&t, "F68 S4-09 S4-10 S4-11 S4-12 each rule of a question, by the kernel itself");
}

/* --- a driver that pins for itself --- */

static void emulated(const char *mtty)
{
	struct stage s;

	up(&s, mtty, false);
	EXPECT(&t, map(&s, 0, PAGES), 0);
	EXPECT(&t, ram_asked(&s.r), false);
	for (unsigned page = 0; page < PAGES; page++)
		EXPECT(&t, ram_is_hole(&s.r, page), true);
	told(&t, "K4.4 where a driver pins for itself, missing memory is mapped and not touched");
	EXPECT(&t, dirty_container_start(&s.c), 0);
	EXPECT(&t, collect_all(&s), 0);
	EXPECT(&t, unmap(&s, 0, PAGES, 0), 0);
	EXPECT(&t, ram_is_hole(&s.r, 0), true);
	down(&s);
	told(&t, "S4-04 and only what it pinned is dirty: nothing");
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 1;
	capability(argv[1]);
	behind(argv[1]);
	refused(argv[1]);
	emulated(argv[2]);
	return told_done(&t);
}
