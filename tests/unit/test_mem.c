/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory objects: what counts as memory, what dropping content does, extents, sealed blobs, and the
 * ring that is mapped twice.
 */
#include "config.h"

#include "sys/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/fd.h"

#define PAGE 4096ul

static int scratch(uint64_t len)
{
	int fd = mem_blob_new("test", len);

	cr_assert_geq(fd, 0);
	return fd;
}

Test(mem, identity_of_a_memfd)
{
	cleanup_fd int fd = scratch(5 * PAGE);
	struct mem_identity id;
	struct stat st;

	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_assert_eq(id.dev, st.st_dev);
	cr_assert_eq(id.inode, st.st_ino);
	cr_assert_eq(id.size, 5 * PAGE);
	cr_assert_eq(id.page_size, (uint64_t)sysconf(_SC_PAGESIZE));
	cr_assert_not(id.hugetlb);
}

/* Needs no huge page: the file is never touched. */
Test(mem, identity_of_hugetlb)
{
	cleanup_fd int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	struct mem_identity id;

	if (fd < 0)
		cr_skip_test("no hugetlbfs for 2 MiB pages: %s", strerror(errno));
	cr_assert_eq(ftruncate(fd, 4ul << 20), 0);
	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert(id.hugetlb);
	cr_assert_eq(id.page_size, 2ul << 20);
	cr_assert_eq(id.size, 4ul << 20);
}

Test(mem, what_is_not_memory)
{
	struct mem_identity id;
	cleanup_fd int proc = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	cleanup_fd int dir = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int reader = -1, writer = -1;
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	reader = ends[0];
	writer = ends[1];
	cr_assert_eq(mem_identify(proc, &id), -EINVAL);
	cr_assert_eq(mem_identify(reader, &id), -EINVAL);
	if (dir >= 0)
		cr_assert_eq(mem_identify(dir, &id), -EINVAL, "a directory of tmpfs is not memory");
	cr_assert_eq(mem_identify(-1, &id), -EBADF);
}

Test(mem, shared_mappings_show_the_file)
{
	cleanup_fd int fd = scratch(4 * PAGE);
	uint8_t *a = mem_map_shared(fd, 0, 4 * PAGE), *b = mem_map_shared(fd, 2 * PAGE, PAGE);

	cr_assert_not_null(a);
	cr_assert_not_null(b);
	a[2 * PAGE + 7] = 0x5a;
	cr_assert_eq(b[7], 0x5a);
	mem_unmap(a, 4 * PAGE);
	mem_unmap(b, PAGE);
	cr_assert_null(mem_map_shared(-1, 0, PAGE));
	cr_assert_eq(errno, EBADF);
}

Test(mem, a_hole_is_what_nobody_instantiated)
{
	cleanup_fd int fd = scratch(300 * PAGE);
	uint8_t *ours = mem_map_shared(fd, 0, 300 * PAGE),
		*theirs = mem_map_shared(fd, 0, 300 * PAGE);

	cr_assert(ours && theirs);
	cr_assert(mem_is_hole(ours, 300 * PAGE));
	theirs[200 * PAGE] = 1;
	cr_assert_not(mem_is_hole(ours, 300 * PAGE));
	cr_assert_not(mem_is_hole(ours + 200 * PAGE, PAGE));
	cr_assert(mem_is_hole(ours, 200 * PAGE));
	cr_assert(mem_is_hole(ours + 201 * PAGE, 99 * PAGE));
	cr_assert_eq(*(volatile uint8_t *)(theirs + 3 * PAGE), 0,
		     "zeroes that were read are there, too");
	cr_assert_not(mem_is_hole(ours + 2 * PAGE, 2 * PAGE));
	cr_assert_eq(mem_punch(fd, 200 * PAGE, PAGE), 0);
	cr_assert(mem_is_hole(ours + 100 * PAGE, 200 * PAGE));
	cr_assert_eq(pwrite(fd, "x", 1, 299 * PAGE), 1);
	cr_assert_not(mem_is_hole(ours + 299 * PAGE, PAGE), "written without a mapping");
	mem_unmap(ours, 300 * PAGE);
	cr_assert_not(mem_is_hole(ours, PAGE), "what cannot be told is none");
	mem_unmap(theirs, 300 * PAGE);
}

Test(mem, punch_drops_for_everybody_drop_only_private)
{
	cleanup_fd int fd = scratch(2 * PAGE);
	uint8_t *shared = mem_map_shared(fd, 0, 2 * PAGE);
	uint8_t *private = mem_map_private(2 * PAGE);

	memset(shared, 1, 2 * PAGE);
	memset(private, 1, 2 * PAGE);
	cr_assert_eq(mem_drop(shared, PAGE), 0);
	cr_assert_eq(shared[0], 1, "MADV_DONTNEED keeps what the file holds");
	cr_assert_eq(mem_punch(fd, 0, PAGE), 0);
	cr_assert_eq(shared[0], 0);
	cr_assert_eq(shared[PAGE], 1);
	cr_assert_eq(mem_drop(private, PAGE), 0);
	cr_assert_eq(private[0], 0);
	cr_assert_eq(private[PAGE], 1);
	cr_assert_eq(mem_punch(-1, 0, PAGE), -EBADF);
	cr_assert_eq(mem_drop(private + 1, PAGE), -EINVAL);
	mem_unmap(shared, 2 * PAGE);
	mem_unmap(private, 2 * PAGE);
	mem_unmap(NULL, PAGE);
}

/* NORESERVE: address space far beyond the machine's memory is fine for a ledger. */
/* Behind a truncated file's end a plain access is SIGBUS. */
Test(mem, copies_survive_a_truncated_file)
{
	cleanup_fd int fd = memfd_create("mem", MFD_CLOEXEC);
	uint8_t have[PAGE], back[PAGE], *p;

	memset(have, 0x5a, sizeof(have));
	cr_assert(fd >= 0 && ftruncate(fd, 2 * PAGE) == 0);
	p = mem_map_shared(fd, 0, 2 * PAGE);
	cr_assert(p);
	cr_assert_eq(mem_write(p + PAGE, have, PAGE), 0);
	cr_assert_eq(mem_read(back, p + PAGE, PAGE), 0);
	cr_assert_eq(memcmp(back, have, PAGE), 0);
	cr_assert_eq(ftruncate(fd, PAGE), 0);
	cr_assert_eq(mem_write(p + PAGE, have, PAGE), -EFAULT);
	cr_assert_eq(mem_read(back, p + PAGE, PAGE), -EFAULT);
	cr_assert_eq(mem_write(p + PAGE / 2, have, PAGE), -EFAULT, "only a part of it is there");
	cr_assert_eq(mem_write(p, have, PAGE), 0);
	mem_unmap(p, 2 * PAGE);
}

Test(mem, private_memory_costs_nothing)
{
	uint64_t len = 1ull << 40;
	uint8_t *p = mem_map_private(len);

	cr_assert_not_null(p);
	p[len - 1] = 1;
	mem_unmap(p, len);
}

struct seen {
	unsigned n;
	uint64_t start[8], length[8];
	unsigned stop_at;
};

static int note(void *ctx, uint64_t start, uint64_t length)
{
	struct seen *s = ctx;

	s->start[s->n] = start;
	s->length[s->n] = length;
	s->n++;
	return s->n == s->stop_at ? 42 : 0;
}

static void put(int fd, uint64_t page)
{
	cr_assert_eq(pwrite(fd, "x", 1, (off_t)(page * PAGE)), 1);
}

Test(mem, extents)
{
	cleanup_fd int fd = scratch(100 * PAGE);
	struct seen s = { 0 };

	put(fd, 3);
	put(fd, 4);
	put(fd, 50);
	put(fd, 99);
	cr_assert_eq(mem_each_extent(fd, 0, 100 * PAGE, note, &s), 0);
	cr_assert_eq(s.n, 3);
	cr_assert_eq(s.start[0], 3 * PAGE);
	cr_assert_eq(s.length[0], 2 * PAGE);
	cr_assert_eq(s.start[1], 50 * PAGE);
	cr_assert_eq(s.length[1], PAGE);
	cr_assert_eq(s.start[2], 99 * PAGE);
	cr_assert_eq(s.length[2], PAGE);
}

Test(mem, extents_are_clipped_to_the_window)
{
	cleanup_fd int fd = scratch(100 * PAGE);
	struct seen s = { 0 };

	for (unsigned i = 10; i < 20; i++)
		put(fd, i);
	cr_assert_eq(mem_each_extent(fd, 12 * PAGE, 3 * PAGE, note, &s), 0);
	cr_assert_eq(s.n, 1);
	cr_assert_eq(s.start[0], 12 * PAGE);
	cr_assert_eq(s.length[0], 3 * PAGE);
	s.n = 0;
	cr_assert_eq(mem_each_extent(fd, 20 * PAGE, 80 * PAGE, note, &s), 0);
	cr_assert_eq(mem_each_extent(fd, 200 * PAGE, PAGE, note, &s), 0, "past the end is empty");
	cr_assert_eq(mem_each_extent(fd, 0, 0, note, &s), 0);
	cr_assert_eq(s.n, 0);
}

Test(mem, extents_stop_and_errors)
{
	cleanup_fd int fd = scratch(8 * PAGE);
	cleanup_fd int huge = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	struct seen s = { .stop_at = 1 };

	put(fd, 1);
	put(fd, 3);
	cr_assert_eq(mem_each_extent(fd, 0, 8 * PAGE, note, &s), 42);
	cr_assert_eq(s.n, 1);
	cr_assert_eq(mem_each_extent(fd, PAGE, UINT64_MAX, note, &s), -EINVAL);
	cr_assert_eq(mem_each_extent(fd, INT64_MAX, PAGE, note, &s), -EINVAL);
	cr_assert_eq(mem_each_extent(-1, 0, PAGE, note, &s), -EBADF);
	if (huge >= 0)
		cr_assert_eq(mem_each_extent(huge, 0, PAGE, note, &s), -EOPNOTSUPP);
}

Test(mem, held_counts_what_is_there)
{
	cleanup_fd int fd = scratch(100 * PAGE);
	uint64_t held = 1;

	cr_assert_eq(mem_held(fd, &held), 0);
	cr_assert_eq(held, 0);
	put(fd, 7);
	put(fd, 99);
	cr_assert_eq(mem_held(fd, &held), 0);
	cr_assert_eq(held, 2 * PAGE);
	cr_assert_eq(mem_punch(fd, 7 * PAGE, PAGE), 0);
	cr_assert_eq(mem_held(fd, &held), 0);
	cr_assert_eq(held, PAGE);
	cr_assert_eq(mem_held(-1, &held), -EBADF);
}

Test(mem, sealed_blob_is_immutable)
{
	cleanup_fd int fd = scratch(PAGE);
	uint8_t *map = mem_map_shared(fd, 0, PAGE);

	memcpy(map, "package", 8);
	cr_assert_eq(mem_blob_seal(fd), -EBUSY, "a writable mapping is in the way");
	mem_unmap(map, PAGE);
	cr_assert_eq(mem_blob_seal(fd), 0);
	cr_assert_eq(pwrite(fd, "x", 1, 0), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(ftruncate(fd, 0), -1);
	cr_assert_eq(ftruncate(fd, 2 * PAGE), -1);
	cr_assert_eq(mem_punch(fd, 0, PAGE), -EPERM);
	cr_assert_eq(fcntl(fd, F_GET_SEALS),
		     F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	cr_assert_null(mem_map_shared(fd, 0, PAGE));
	map = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(map, MAP_FAILED);
	cr_assert_str_eq((char *)map, "package");
	munmap(map, PAGE);
}

Test(mem, blob_lengths)
{
	cleanup_fd int fd = mem_blob_new("odd", 12345);
	struct stat st;

	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	cr_assert_eq(st.st_size, 12345);
	cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	cr_assert_lt(mem_blob_new("vast", UINT64_MAX), 0);
}

Test(mem, ring_sizes)
{
	static const size_t bad[] = { 0,	1,	  PAGE - 1, PAGE + 1,
				      3 * PAGE, PAGE / 2, SIZE_MAX, 1ul << 63 };
	struct mem_ring r;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		cr_assert_eq(mem_ring_init(&r, bad[i]), -EINVAL, "size %zu", bad[i]);
		mem_ring_deinit(&r);
	}
	cr_assert_eq(mem_ring_init(&r, PAGE), 0);
	mem_ring_deinit(&r);
	mem_ring_deinit(&r);
}

Test(mem, ring_is_contiguous_across_its_end)
{
	struct mem_ring r;

	cr_assert_eq(mem_ring_init(&r, 2 * PAGE), 0);
	r.head = r.tail = 2 * PAGE - 5;
	memcpy(mem_ring_write(&r), "0123456789", 10);
	r.tail += 10;
	cr_assert_eq(mem_ring_used(&r), 10);
	cr_assert_eq(mem_ring_room(&r), 2 * PAGE - 10);
	cr_assert_eq(memcmp(mem_ring_read(&r), "0123456789", 10), 0);
	r.head += 5;
	cr_assert_eq(mem_ring_read(&r), r.base);
	cr_assert_eq(memcmp(mem_ring_read(&r), "56789", 5), 0);
	cr_assert_eq(memcmp(r.base + 2 * PAGE, "56789", 5), 0, "the second image");
	mem_ring_deinit(&r);
}

Test(mem, ring_begins_anew_only_when_empty)
{
	struct mem_ring r;

	cr_assert_eq(mem_ring_init(&r, PAGE), 0);
	r.head = r.tail = 3 * PAGE + 7;
	r.tail++;
	mem_ring_rewind(&r);
	cr_assert_eq(r.head, 3 * PAGE + 7, "a byte is in it");
	r.head++;
	mem_ring_rewind(&r);
	cr_assert_eq(mem_ring_used(&r), 0);
	cr_assert_eq(mem_ring_write(&r), r.base);
	mem_ring_deinit(&r);
}

/* Head and tail never wrap by themselves; a full ring may be written in one piece anywhere. */
Test(mem, ring_full_at_every_start)
{
	struct mem_ring r;

	cr_assert_eq(mem_ring_init(&r, PAGE), 0);
	for (size_t start = 0; start < PAGE; start += 97) {
		r.head = r.tail = start;
		memset(mem_ring_write(&r), (int)(start & 0xff), PAGE);
		r.tail += PAGE;
		cr_assert_eq(mem_ring_room(&r), 0);
		for (size_t i = 0; i < PAGE; i++)
			cr_assert_eq(mem_ring_read(&r)[i], start & 0xff);
	}
	mem_ring_deinit(&r);
}
