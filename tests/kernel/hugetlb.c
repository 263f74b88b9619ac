/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Huge pages of 2 MiB: whole pages only, no ZEROPAGE (O3: COPY of a zero slot instead), SEEK_DATA
 * tells nothing, and a pool that runs dry shows as ENOMEM.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "hugepages.h"
#include "scene.h"
#include "sys/maps.h"
#include "sys/mem.h"
#include "tap.h"

#define BORROWED 6

static int huge_fd(unsigned n)
{
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);

	if (fd < 0)
		fact_skip("memfd_create(MFD_HUGETLB): %s", strerror(errno));
	expect_eq(ftruncate(fd, n * HUGE), 0);
	return fd;
}

static uint8_t *huge_map(int fd, unsigned n, int flags)
{
	uint8_t *p = mmap(NULL, n * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);

	expect(p != MAP_FAILED);
	return p;
}

static uint8_t *arena(unsigned n, int *fd, int *uffd)
{
	uint8_t *p;

	*fd = huge_fd(n);
	*uffd = k_uffd(0);
	p = huge_map(*fd, n, 0);
	expect_eq(k_register(*uffd, at(p), n * HUGE, NULL), 0);
	return p;
}

static void no_zeropage(void)
{
	int fd = huge_fd(1), uffd = k_uffd(0);
	uint8_t *p = huge_map(fd, 1, 0);
	uint64_t ioctls = 0;
	struct moved m;

	expect_eq(k_register(uffd, at(p), HUGE, &ioctls), 0);
	expect(ioctls & 1 << _UFFDIO_COPY);
	expect(ioctls & 1 << _UFFDIO_WAKE);
	expect(!(ioctls & 1 << _UFFDIO_ZEROPAGE));
	m = k_zero(uffd, at(p), HUGE, 0);
	expect_eq(m.err, EINVAL);
	/* The zero slot instead. */
	m = k_copy(uffd, at(p), k_source(0, HUGE / PAGE), HUGE, 0);
	expect_eq(m.err, 0);
	expect_eq(m.field, HUGE);
	expect_eq(act_load(p + HUGE - 1), 0);
}

static void whole_pages_only(void)
{
	uint8_t *src = k_source(0x11, HUGE / PAGE + 1);
	int fd, uffd;
	uint8_t *p = arena(2, &fd, &uffd);
	struct moved m;

	expect_eq(k_copy(uffd, at(p), src, PAGE, 0).err, EINVAL);
	expect_eq(k_copy(uffd, at(p) + PAGE, src, HUGE, 0).err, EINVAL);
	m = k_copy(uffd, at(p), src + 7, HUGE, 0);
	expect_eq(m.err, 0);
	expect_eq(m.field, HUGE);
	expect_eq(memcmp(p, src + 7, HUGE), 0);
}

static void registration_is_by_huge_pages(void)
{
	int fd = huge_fd(2), uffd = k_uffd(0);
	uint8_t *p = huge_map(fd, 2, 0);
	uint64_t first;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), EINVAL);
	expect_eq(k_register(uffd, at(p) + PAGE, HUGE, NULL), EINVAL);
	expect_eq(k_register(uffd, at(p), HUGE, NULL), 0);
	expect_eq(maps_proven(getpid(), at(p), at(p) + HUGE, &first), 1);
	expect_eq(maps_proven(getpid(), at(p), at(p) + 2 * HUGE, &first), 0);
	expect_eq(first, at(p) + HUGE);
}

/* The address of the message is the beginning of the huge page, wherever in it the touch was. */
static void one_fault_per_huge_page(void)
{
	int fd, uffd;
	uint8_t *p = arena(2, &fd, &uffd);
	struct actor a, b;

	actor_start(&a, act_load, p + HUGE + 5 * PAGE + 3);
	expect_eq(k_fault(uffd), at(p + HUGE));
	actor_start(&b, act_load, p + 2 * HUGE - 1);
	expect_eq(k_fault(uffd), at(p + HUGE));
	expect_eq(k_copy(uffd, at(p + HUGE), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
	expect_eq(actor_result(&b), 0x11);
}

static void exact_addresses(void)
{
	int fd = huge_fd(1), uffd = k_uffd(UFFD_FEATURE_EXACT_ADDRESS);
	uint8_t *p = huge_map(fd, 1, 0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), HUGE, NULL), 0);
	actor_start(&a, act_load, p + 5 * PAGE + 3);
	expect_eq(k_fault(uffd), at(p + 5 * PAGE + 3));
	expect_eq(k_copy(uffd, at(p), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

static void waking_and_eexist(void)
{
	uint8_t *src = k_source(0x11, HUGE / PAGE);
	int fd, uffd;
	uint8_t *p = arena(2, &fd, &uffd);
	struct moved m;
	struct actor a;

	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_copy(uffd, at(p), src, HUGE, UFFDIO_COPY_MODE_DONTWAKE).err, 0);
	actor_asleep(&a);
	expect_eq(k_wake(uffd, at(p), HUGE), 0);
	expect_eq(actor_result(&a), 0x11);
	m = k_copy(uffd, at(p), src, HUGE, 0);
	expect_eq(m.err, EEXIST);
	expect_eq(m.field, -EEXIST);
}

/* A WAKE of one small page inside reaches nobody: wakes are by the block's page, too. */
static void wake_of_a_small_part(void)
{
	int fd, uffd;
	uint8_t *p = arena(1, &fd, &uffd);
	struct actor a;

	actor_start(&a, act_load, p + 5 * PAGE);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_wake(uffd, at(p + PAGE), PAGE), 0);
	actor_asleep(&a);
	expect_eq(k_wake(uffd, at(p), HUGE), 0);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_copy(uffd, at(p), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

static void second_mapping_and_punch(void)
{
	int fd, uffd;
	uint8_t *p = arena(1, &fd, &uffd), *own = huge_map(fd, 1, 0);
	struct actor a;

	expect_eq(k_copy(uffd, at(p), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(act_load(own + PAGE), 0x11);
	expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
	actor_start(&a, act_load, p);
	expect_eq(k_fault(uffd), at(p));
	expect_eq(k_copy(uffd, at(p), k_source(0x22, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x22);
	expect_eq(act_load(own + PAGE), 0x22);
}

static void unregistered_mapping_instantiates(void)
{
	int fd, uffd;
	uint8_t *p = arena(1, &fd, &uffd), *own = huge_map(fd, 1, 0);

	expect_eq(act_load(own), 0);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, HUGE / PAGE), HUGE, 0).err, EEXIST);
	expect_eq(act_load(p), 0);
}

/* design.md 3: so strays cannot be found by extents there; the file is punched first. */
static void seek_data_does_not_tell(void)
{
	int fd, uffd;
	uint8_t *p = arena(2, &fd, &uffd);
	off_t before = lseek(fd, 0, SEEK_DATA), after;

	expect_eq(k_copy(uffd, at(p + HUGE), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	after = lseek(fd, 0, SEEK_DATA);
	expect_eq(before, after);
	expect(after != (off_t)HUGE);
}

static void page_size_is_the_file_systems_block(void)
{
	struct statfs fs;

	expect_eq(fstatfs(huge_fd(1), &fs), 0);
	expect_eq(fs.f_type, 0x958458f6);
	expect_eq(fs.f_bsize, HUGE);
}

/* What SEEK_DATA cannot, the block count can: how much of the file is there, in all. */
static void block_count_tells_how_much(void)
{
	int fd, uffd;
	uint8_t *p = arena(3, &fd, &uffd), *own = huge_map(fd, 3, 0);
	uint64_t held;

	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, 0);
	expect_eq(k_copy(uffd, at(p + HUGE), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, HUGE);
	expect_eq(act_load(own), 0);
	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, 2 * HUGE);
	expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 3 * HUGE), 0);
	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, 0);
}

/*
 * Memory that no mapping reserved, and a pool that is empty (of a hugetlbfs with a limit of its
 * own, since the machine's pool is not ours to drain).  One would expect ENOMEM; 6.18 says EEXIST,
 * as if the page were there: its check finds the page table entry that it has just made.  So on
 * hugetlbfs EEXIST for a page that nobody placed is no proof of a stray: the block count decides.
 * Nobody is woken; with a page given back the same COPY works.
 */
static void empty_pool_is_enomem_or_eexist(void)
{
	uint8_t *src = k_source(0x11, HUGE / PAGE);
	int fd = k_file(k_mount("hugetlbfs", "pagesize=2M,size=2M"), 2 * HUGE), uffd = k_uffd(0);
	uint8_t *p = huge_map(fd, 2, MAP_NORESERVE);
	struct moved m;
	struct actor a;
	uint64_t held;

	expect_eq(k_register(uffd, at(p), 2 * HUGE, NULL), 0);
	expect_eq(k_copy(uffd, at(p), src, HUGE, 0).err, 0);
	actor_start(&a, act_load, p + HUGE);
	expect_eq(k_fault(uffd), at(p + HUGE));
	m = k_copy(uffd, at(p + HUGE), src, HUGE, 0);
	tap_note("COPY with an empty pool: %s", strerror(m.err));
	expect(m.err == ENOMEM || m.err == EEXIST);
	expect_eq(m.field, -m.err);
	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, HUGE);
	actor_asleep(&a);
	expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE), 0);
	expect_eq(k_copy(uffd, at(p + HUGE), src, HUGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x11);
}

static int k_continue(int uffd, uint64_t start)
{
	struct uffdio_continue arg = { .range = { .start = start, .len = HUGE } };

	return ioctl(uffd, UFFDIO_CONTINUE, &arg) < 0 ? errno : 0;
}

/*
 * What does tell is CONTINUE through a mapping of our own that is registered (for missing pages is
 * enough): it maps a page that is in the file, and nothing else.  It makes no page, writes none and
 * takes none from the pool.
 */
static void continue_tells_what_is_there(void)
{
	int fd = k_file(k_mount("hugetlbfs", "pagesize=2M,size=2M"), 2 * HUGE), uffd = k_uffd(0),
	    own_uffd = k_uffd(0);
	uint8_t *p = huge_map(fd, 2, MAP_NORESERVE), *own = huge_map(fd, 2, MAP_NORESERVE);
	uint64_t held;

	expect_eq(k_register(uffd, at(p), 2 * HUGE, NULL), 0);
	expect_eq(k_register(own_uffd, at(own), 2 * HUGE, NULL), 0);
	expect_eq(k_continue(own_uffd, at(own)), EFAULT);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, HUGE / PAGE), HUGE, 0).err, 0);
	expect_eq(k_continue(own_uffd, at(own)), 0);
	expect_eq(k_continue(own_uffd, at(own)), EEXIST);
	expect_eq(act_load(own), 0x11);
	/* the pool is empty now */
	expect(k_copy(uffd, at(p + HUGE), k_source(0x22, HUGE / PAGE), HUGE, 0).err != 0);
	expect_eq(k_continue(own_uffd, at(own + HUGE)), EFAULT);
	expect_eq(mem_held(fd, &held), 0);
	expect_eq(held, HUGE);
}

/* One mapping that reserves (ours, by mem_map_shared) is enough for everybody's COPY. */
static void reserved_pages_cannot_run_out(void)
{
	uint8_t *src = k_source(0x11, 2 * HUGE / PAGE);
	int root = k_mount("hugetlbfs", "pagesize=2M,size=6M"), uffd = k_uffd(0);
	int fd = k_file(root, 2 * HUGE), hog = k_file(root, 2 * HUGE);
	uint8_t *own = mem_map_shared(fd, 0, 2 * HUGE);
	uint8_t *p = huge_map(fd, 2, MAP_NORESERVE), *q = huge_map(hog, 2, MAP_NORESERVE);

	expect(own != NULL);
	expect_eq(k_register(uffd, at(p), 2 * HUGE, NULL), 0);
	expect_eq(k_register(uffd, at(q), 2 * HUGE, NULL), 0);
	expect_eq(k_copy(uffd, at(q), src, HUGE, 0).err, 0);
	expect(k_copy(uffd, at(q + HUGE), src, HUGE, 0).err != 0);
	expect_eq(k_copy(uffd, at(p), src, 2 * HUGE, 0).err, 0);
	expect_eq(act_load(p + HUGE), 0x11);
}

/* And a mapping that cannot reserve is refused at once. */
static void reserving_too_much_is_enomem(void)
{
	int fd = k_file(k_mount("hugetlbfs", "pagesize=2M,size=2M"), 2 * HUGE);

	expect(mem_map_shared(fd, 0, 2 * HUGE) == NULL);
	expect_eq(errno, ENOMEM);
}

static const struct fact facts[] = {
	{ "no ZEROPAGE: neither offered nor accepted; COPY of zeroes instead", no_zeropage },
	{ "COPY of whole huge pages only, from any source", whole_pages_only },
	{ "REGISTER by whole huge pages", registration_is_by_huge_pages },
	{ "a message holds the beginning of the huge page", one_fault_per_huge_page },
	{ "with EXACT_ADDRESS it holds the very address", exact_addresses },
	{ "DONTWAKE, WAKE and EEXIST as with small pages", waking_and_eexist },
	{ "a WAKE that misses the beginning of the huge page", wake_of_a_small_part },
	{ "PUNCH_HOLE makes it missing again", second_mapping_and_punch },
	{ "an unregistered mapping instantiates zeroes", unregistered_mapping_instantiates },
	{ "SEEK_DATA does not tell what is there", seek_data_does_not_tell },
	{ "f_bsize is the page size", page_size_is_the_file_systems_block },
	{ "the block count tells how much is there", block_count_tells_how_much },
	{ "an empty pool: ENOMEM, or EEXIST without a page; waiters sleep on",
	  empty_pool_is_enomem_or_eexist },
	{ "O2 CONTINUE through a mapping of our own tells whether a page is there",
	  continue_tells_what_is_there },
	{ "what one mapping reserved, any COPY gets", reserved_pages_cannot_run_out },
	{ "a mapping that cannot reserve: ENOMEM", reserving_too_much_is_enomem },
};

int main(void)
{
	int err = hugepages_borrow(BORROWED, HUGEPAGES_BESIDE);

	if (err < 0)
		tap_skip_all("cannot borrow 2 MiB pages");
	facts_run(facts, ARRAY_LEN(facts));
	hugepages_return();
	return tap_done();
}
