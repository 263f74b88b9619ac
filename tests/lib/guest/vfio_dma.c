/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_dma ALONE ONE TWO: what the kernel does about memory that a real device reaches, and what we
 * do about that.  The devices are edu, behind the guest's IOMMU: ALONE in its group, ONE and TWO in
 * one.  They copy memory by themselves, so what is believed of pins is seen in bytes and frames.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/gate.h"
#include "core/guard.h"
#include "edu.h"
#include "ram.h"
#include "sys/devio_pci.h"
#include "sys/devio_vfio.h"
#include "told.h"

enum { PAGES = 16, SPAN = 4, IOVA = 0x100000 };
#define RW     (PROT_READ | PROT_WRITE)
#define SECOND UINT64_C(1000000000)

static struct told t;

static int opened(struct devio *d, const char *path, const struct devio *beside)
{
	const char *why = "";
	int ret = beside ? devio_vfio_open_beside(d, path, beside, &why)
			 : devio_vfio_open(d, path, &why);

	if (ret < 0)
		printf("# %s: %s (%d)\n", path, why, ret);
	else
		devio_set_limit(d, 60 * SECOND);
	return ret;
}

/* @n pages at @iova are those at @at. */
static int map(struct devio *d, uint64_t iova, uint8_t *at, uint64_t n)
{
	struct devio_dma m = { iova, n * RAM_PAGE, RW, at, -1, 0 };

	return devio_dma_map(d, &m);
}

static int unmap(struct devio *d, uint64_t iova, uint64_t n)
{
	return devio_dma_unmap(d, iova, n * RAM_PAGE);
}

/* The kernel waits for no page, and maps a range whole or not at all. */
static void missing(const char *alone)
{
	struct devio d;
	struct ram r;

	EXPECT(&t, opened(&d, alone, NULL), 0);
	EXPECT(&t, ram_init(&r, 8), 0);
	EXPECT(&t, map(&d, IOVA, r.vmm, 8), -EFAULT);
	for (uint64_t page = 0; page < 8; page++)
		EXPECT(&t, page == 3 ? 0 : ram_place(&r, page), 0);
	EXPECT(&t, map(&d, IOVA, r.vmm, 8), -EFAULT);
	EXPECT(&t, ram_asked(&r), false);
	EXPECT(&t, ram_is_hole(&r, 3), true);
	EXPECT(&t, unmap(&d, IOVA, 8), -ENOENT);
	EXPECT(&t, ram_place(&r, 3), 0);
	EXPECT(&t, map(&d, IOVA, r.vmm, 8), 0);
	EXPECT(&t, unmap(&d, IOVA, 8), 0);
	devio_close(&d);
	ram_deinit(&r);
	told(&t, "K4.1 S2-09 a range with a page missing is refused at once, and is free again");
}

/*
 * Through a mapping that nobody registered, as the daemon's own is, the kernel makes the page up
 * instead: nothing but the gate is in the way of that.
 */
static void made_up(const char *alone)
{
	struct devio d;
	struct ram r;

	EXPECT(&t, opened(&d, alone, NULL), 0);
	EXPECT(&t, ram_init(&r, 8), 0);
	EXPECT(&t, map(&d, IOVA, r.ours, 8), 0);
	EXPECT(&t, ram_is_hole(&r, 3), false);
	EXPECT(&t, ram_place(&r, 3), -EEXIST);
	EXPECT(&t, r.vmm[3 * RAM_PAGE], 0);
	devio_close(&d);
	ram_deinit(&r);
	told(&t, "K4.1 a missing page is made up through a mapping that is not registered");
}

/* --- the gate, as the daemon drives it --- */

struct gated {
	struct ram ram;
	struct devio d;
	struct gate gate;
	struct block_table blocks;
	struct ledger ledger;
	uint64_t words[64], memory[1024];
	bool placed[PAGES];
	uint64_t frame[PAGES]; /* when it was placed */
	unsigned mapped;
};

static void gated_init(struct gated *g, const char *alone)
{
	const struct gate_config config = {
		.ledger = &g->ledger, .blocks = &g->blocks, .ranges = 8, .enforced = true,
	};

	memset(g, 0, sizeof(*g));
	EXPECT(&t, ram_init(&g->ram, PAGES), 0);
	EXPECT(&t, opened(&g->d, alone, NULL), 0);
	EXPECT(&t, block_add(&g->blocks, "ram", PAGES * RAM_PAGE, RAM_PAGE, BLOCK_SHARED), 0);
	EXPECT(&t, ledger_init(&g->ledger, g->words, sizeof(g->words), PAGES), 0);
	ledger_set(&g->ledger, 0, PAGES, PAGE_MISSING);
	EXPECT(&t, gate_size(config.ranges, g->blocks.pages) <= sizeof(g->memory), true);
	gate_init(&g->gate, g->memory, &config);
	for (unsigned i = 0; i < PAGES; i += SPAN) {
		const struct gate_span span = {
			.iova = IOVA + i * RAM_PAGE, .length = SPAN * RAM_PAGE,
			.offset = i * RAM_PAGE, .directions = GATE_READS | GATE_WRITES,
		};

		EXPECT(&t, gate_map(&g->gate, &span), 0);
	}
	gate_seal(&g->gate);
	gate_serve(&g->gate);
}

/* Whoever maps does not look; whoever watches does. */
static void map_ready(struct gated *g)
{
	uint64_t iova;

	while (gate_next(&g->gate, &iova) == GATE_READY) {
		uint64_t first = (iova - IOVA) / RAM_PAGE;

		for (uint64_t page = first; page < first + SPAN; page++)
			EXPECT(&t, g->placed[page] && !ram_is_hole(&g->ram, page), true);
		EXPECT(&t, gate_mapped(&g->gate, iova, map(&g->d, iova, g->ram.ours +
							   first * RAM_PAGE, SPAN)), 0);
		g->mapped++;
	}
}

static unsigned whole_spans(const struct gated *g)
{
	unsigned whole = 0, n = 0;

	for (unsigned page = 0; page < PAGES; page++) {
		n = page % SPAN ? n + g->placed[page] : g->placed[page];
		whole += page % SPAN == SPAN - 1 && n == SPAN;
	}
	return whole;
}

static void page_came(struct gated *g, unsigned page)
{
	EXPECT(&t, gate_may_run(&g->gate), -EBUSY);
	EXPECT(&t, ram_place(&g->ram, page), 0);
	ledger_set(&g->ledger, page, 1, PAGE_PRESENT);
	g->placed[page] = true;
	g->frame[page] = ram_frame(g->ram.vmm + page * RAM_PAGE);
	EXPECT(&t, g->frame[page] != 0, true);
	gate_present(&g->gate, page, 1);
	map_ready(g);
	EXPECT(&t, g->mapped, whole_spans(g));
}

static void same_frames(struct gated *g)
{
	for (unsigned page = 0; page < PAGES; page++) {
		EXPECT(&t, ram_frame(g->ram.vmm + page * RAM_PAGE), g->frame[page]);
		EXPECT(&t, ram_is(g->ram.ours + page * RAM_PAGE, page, 0, 8), page != 9);
		EXPECT(&t, ram_frame(g->ram.ours + page * RAM_PAGE), g->frame[page]);
	}
}

/* The device sees what was placed, and what it writes is there for everybody. */
static void device_copies(struct gated *g)
{
	EXPECT(&t, devio_pci_bus_master(&g->d, true), 0);
	EXPECT(&t, edu_fetch(&g->d, IOVA + 5 * RAM_PAGE + 1024, EDU_BUFFER), 0);
	EXPECT(&t, edu_store(&g->d, IOVA + 9 * RAM_PAGE, EDU_BUFFER), 0);
	EXPECT(&t, ram_is(g->ram.vmm + 9 * RAM_PAGE, 5, 1024, EDU_BUFFER), true);
	EXPECT(&t, ram_is(g->ram.vmm + 9 * RAM_PAGE + EDU_BUFFER, 9, EDU_BUFFER,
			  RAM_PAGE - EDU_BUFFER), true);
}

static void gated(const char *alone)
{
	static struct gated g;

	gated_init(&g, alone);
	map_ready(&g);
	EXPECT(&t, g.mapped, 0);
	for (unsigned i = 0; i < PAGES; i++)
		page_came(&g, (i * 7 + 3) % PAGES);
	EXPECT(&t, gate_may_run(&g.gate), 0);
	EXPECT(&t, ram_asked(&g.ram), false);
	told(&t, "F47 S2-09 nothing is mapped before all of it is there");
	device_copies(&g);
	same_frames(&g);
	told(&t, "F47 the device reaches the very frames that were placed");
	EXPECT(&t, gate_discard(&g.gate, 6, 1), -EBUSY);
	EXPECT(&t, gate_unmap(&g.gate, IOVA, PAGES * RAM_PAGE), PAGES / SPAN);
	EXPECT(&t, unmap(&g.d, IOVA, PAGES), 0);
	EXPECT(&t, gate_discard(&g.gate, 6, 1), 0);
	told(&t, "S2-10 no discard under a mapping");
	devio_close(&g.d);
	ram_deinit(&g.ram);
}

/* --- why there is no discard --- */

static int drop(struct ram *r, uint8_t *anon)
{
	if (anon)
		return madvise(anon, RAM_PAGE, MADV_DONTNEED);
	return fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, RAM_PAGE);
}

/* The page at @at is given back under the device, and comes again. */
static void orphaned(struct devio *d, struct ram *r, uint8_t *at, bool anon)
{
	uint64_t frame;

	memset(at, 0x5a, RAM_PAGE);
	EXPECT(&t, map(d, IOVA, at, 1), 0);
	frame = ram_frame(at);
	EXPECT(&t, drop(r, anon ? at : NULL), 0);
	memset(at, 0x77, RAM_PAGE);
	EXPECT(&t, ram_frame(at) != 0 && ram_frame(at) != frame, true);
	EXPECT(&t, edu_fetch(d, IOVA, EDU_BUFFER), 0);
	EXPECT(&t, edu_store(d, IOVA + 2 * RAM_PAGE, EDU_BUFFER), 0);
	EXPECT(&t, r->ours[2 * RAM_PAGE], 0x5a);
	EXPECT(&t, edu_fetch(d, IOVA + 3 * RAM_PAGE, EDU_BUFFER), 0);
	EXPECT(&t, edu_store(d, IOVA, EDU_BUFFER), 0);
	EXPECT(&t, at[0], 0x77);
	EXPECT(&t, unmap(d, IOVA, 1), 0);
}

/* What was discarded under a pin is still what the device has, and nobody else. */
static void discarded(const char *alone)
{
	uint8_t *anon = mmap(NULL, RAM_PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct devio d;
	struct ram r;
	uint64_t frame;

	EXPECT(&t, ram_init(&r, 4), 0);
	EXPECT(&t, ram_place_all(&r), 0);
	EXPECT(&t, opened(&d, alone, NULL), 0);
	EXPECT(&t, devio_pci_bus_master(&d, true), 0);
	EXPECT(&t, map(&d, IOVA + RAM_PAGE, r.ours + RAM_PAGE, 3), 0);
	orphaned(&d, &r, r.ours, false);
	orphaned(&d, &r, anon, true);
	frame = ram_frame(r.vmm + RAM_PAGE);
	EXPECT(&t, madvise(r.vmm + RAM_PAGE, RAM_PAGE, MADV_DONTNEED), 0);
	EXPECT(&t, ram_is(r.vmm + RAM_PAGE, 1, 0, RAM_PAGE), true);
	EXPECT(&t, ram_frame(r.vmm + RAM_PAGE), frame);
	devio_close(&d);
	ram_deinit(&r);
	munmap(anon, RAM_PAGE);
	told(&t, "K4.3 S2-10 a page discarded under a pin: the device has another one");
}

/* --- errors --- */

/* May this process lock what it likes? */
static void may_lock(bool may)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	uint32_t bit = UINT32_C(1) << CAP_IPC_LOCK;

	EXPECT(&t, syscall(SYS_capget, &head, data), 0);
	data[0].effective = may ? data[0].effective | bit : data[0].effective & ~bit;
	EXPECT(&t, syscall(SYS_capset, &head, data), 0);
}

static void limited(struct devio *d, struct ram *r)
{
	const struct rlimit four = { SPAN * RAM_PAGE, SPAN * RAM_PAGE };

	EXPECT(&t, setrlimit(RLIMIT_MEMLOCK, &four), 0);
	may_lock(false);
	EXPECT(&t, map(d, IOVA, r->ours, SPAN + 1), -ENOMEM);
	EXPECT(&t, map(d, IOVA, r->ours, SPAN), 0);
	EXPECT(&t, map(d, 2 * IOVA, r->ours + SPAN * RAM_PAGE, 1), -ENOMEM);
	may_lock(true);
	EXPECT(&t, map(d, 2 * IOVA, r->ours + SPAN * RAM_PAGE, 1), 0);
	EXPECT(&t, unmap(d, 2 * IOVA, 1), 0);
	EXPECT(&t, unmap(d, IOVA, SPAN), 0);
}

static void entry_limit(const char *text)
{
	FILE *f = fopen("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "w");

	EXPECT(&t, f && fputs(text, f) >= 0 && fclose(f) == 0, true);
}

/* Each error that devio_dma_map() names, from the kernel itself. */
static void errors(const char *alone)
{
	struct devio d;
	struct ram r;

	EXPECT(&t, ram_init(&r, 8), 0);
	EXPECT(&t, ram_place_all(&r), 0);
	entry_limit("3");
	EXPECT(&t, opened(&d, alone, NULL), 0);
	entry_limit("65535");
	for (unsigned i = 0; i < 3; i++)
		EXPECT(&t, map(&d, IOVA + i * RAM_PAGE, r.ours + i * RAM_PAGE, 1), 0);
	EXPECT(&t, map(&d, IOVA + 3 * RAM_PAGE, r.ours, 1), -ENOSPC);
	EXPECT(&t, map(&d, IOVA, r.ours, 1), -EEXIST);
	EXPECT(&t, unmap(&d, IOVA, 3), 0);
	EXPECT(&t, unmap(&d, IOVA, 3), -ENOENT);
	EXPECT(&t, map(&d, IOVA, r.ours, 8), 0);
	EXPECT(&t, unmap(&d, IOVA, 1), -EINVAL);
	EXPECT(&t, unmap(&d, IOVA, 8), 0);
	EXPECT(&t, map(&d, IOVA + 1, r.ours, 1), -EINVAL);
	EXPECT(&t, map(&d, IOVA, NULL, 1), -EINVAL);
	EXPECT(&t, map(&d, UINT64_C(1) << 60, r.ours, 1), -EINVAL);
	limited(&d, &r);
	devio_close(&d);
	ram_deinit(&r);
	told(&t, "F46 each error of a mapping, as the kernel has it");
}

/* --- what a device may do by itself --- */

/* 4.3: a device that was just opened, or reset, may begin nothing; and reaches what is mapped. */
static void restrained(const char *alone)
{
	struct devio d;
	struct ram r;

	EXPECT(&t, ram_init(&r, 3), 0);
	EXPECT(&t, ram_place_all(&r), 0);
	EXPECT(&t, opened(&d, alone, NULL), 0);
	EXPECT(&t, map(&d, IOVA, r.ours, 2), 0);
	EXPECT(&t, edu_store(&d, IOVA, EDU_BUFFER), 0);
	EXPECT(&t, ram_is(r.ours, 0, 0, RAM_PAGE), true);
	EXPECT(&t, devio_pci_bus_master(&d, true), 0);
	EXPECT(&t, edu_fetch(&d, IOVA + RAM_PAGE, EDU_BUFFER), 0);
	EXPECT(&t, edu_store(&d, IOVA, EDU_BUFFER), 0);
	EXPECT(&t, ram_is(r.ours, 1, 0, EDU_BUFFER), true);
	EXPECT(&t, edu_store(&d, IOVA + 2 * RAM_PAGE, EDU_BUFFER), 0);
	EXPECT(&t, ram_is(r.ours + 2 * RAM_PAGE, 2, 0, RAM_PAGE), true);
	EXPECT(&t, devio_pci_bus_master(&d, false), 0);
	EXPECT(&t, edu_store(&d, IOVA + RAM_PAGE + EDU_BUFFER, EDU_BUFFER), 0);
	EXPECT(&t, ram_is(r.ours + RAM_PAGE, 1, 0, RAM_PAGE), true);
	devio_close(&d);
	ram_deinit(&r);
	told(&t, "4.3 a device begins nothing before it may, and reaches nothing unmapped");
}

/* Two of one group: opened beside each other, with one space of addresses. */
static void group(const char *alone, const char *one, const char *two)
{
	struct devio a, b, c;
	const char *why = "";
	struct ram r;

	EXPECT(&t, ram_init(&r, 2), 0);
	EXPECT(&t, ram_place_all(&r), 0);
	EXPECT(&t, devio_vfio_group(one, &why), devio_vfio_group(two, &why));
	EXPECT(&t, devio_vfio_group(one, &why) == devio_vfio_group(alone, &why), false);
	EXPECT(&t, opened(&a, one, NULL), 0);
	EXPECT(&t, opened(&b, two, NULL), -EBUSY);
	EXPECT(&t, opened(&b, alone, &a), -EXDEV);
	EXPECT(&t, opened(&b, two, &a), 0);
	EXPECT(&t, map(&a, IOVA, r.ours, 2), 0);
	EXPECT(&t, map(&b, IOVA, r.ours, 2), -EEXIST);
	devio_close(&a);
	EXPECT(&t, opened(&c, one, NULL), -EBUSY);
	EXPECT(&t, devio_pci_bus_master(&b, true), 0);
	EXPECT(&t, edu_fetch(&b, IOVA + RAM_PAGE, EDU_BUFFER), 0);
	EXPECT(&t, edu_store(&b, IOVA, EDU_BUFFER), 0);
	EXPECT(&t, ram_is(r.ours, 1, 0, EDU_BUFFER), true);
	EXPECT(&t, unmap(&b, IOVA, 2), 0);
	devio_close(&b);
	EXPECT(&t, opened(&c, one, NULL), 0);
	devio_close(&c);
	ram_deinit(&r);
	told(&t, "F29 devices of one group share what they reach");
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 1;
	missing(argv[1]);
	made_up(argv[1]);
	gated(argv[1]);
	discarded(argv[1]);
	errors(argv[1]);
	restrained(argv[1]);
	group(argv[1], argv[2], argv[3]);
	return told_done(&t);
}
