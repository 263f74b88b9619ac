/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a back-end has a region, by what /proc shows: as libraries map it.  (P16, P17, P19)
 */
#include "config.h"

#include "daemon/vhost_repair.h"

#include <sys/mman.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/mem.h"
#include "sys/uffd.h"

#define K UINT64_C(1024)

static const struct vhost_region low = { .offset = 0, .length = 640 * K };
static const struct vhost_region high = { .offset = 768 * K, .length = 256 * K };

/* A part of the file from @offset on, at @start. */
static struct maps_vma vma(uint64_t start, uint64_t offset, uint64_t length)
{
	return (struct maps_vma){ .start = start, .end = start + length, .offset = offset };
}

/* libvhost-user 7.2 and DPDK: each region from the beginning of the file on. */
Test(vhost_repair, P19_from_the_beginning)
{
	const struct maps_vma v[] = { vma(0x70000000, 0, 1024 * K), vma(0x60000000, 0, 640 * K) };

	cr_assert_eq(vhost_repair_address(&low, v, 2), 0x60000000);
	cr_assert_eq(vhost_repair_address(&high, v, 2), 0x70000000 + 768 * K);
}

/* libvhost-user 10: each region alone. */
Test(vhost_repair, P19_alone)
{
	const struct maps_vma v[] = { vma(0x60000000, 768 * K, 256 * K),
				      vma(0x70000000, 0, 640 * K) };

	cr_assert_eq(vhost_repair_address(&low, v, 2), 0x70000000);
	cr_assert_eq(vhost_repair_address(&high, v, 2), 0x60000000);
}

/* The kernel joined two that were neighbours in the file, too. */
Test(vhost_repair, P19_joined)
{
	const struct vhost_region second = { .offset = 640 * K, .length = 128 * K };
	const struct maps_vma v[] = { vma(0x60000000, 0, 1024 * K), vma(0x50000000, 0, 4096 * K) };

	cr_assert_eq(vhost_repair_address(&low, v, 2), 0x60000000);
	cr_assert_eq(vhost_repair_address(&second, v, 2), 0x60000000 + 640 * K);
}

Test(vhost_repair, P19_nowhere)
{
	const struct maps_vma v[] = { vma(0x60000000, 0, 640 * K),
				      vma(0x70000000, 832 * K, 192 * K) };

	cr_assert_eq(vhost_repair_address(&high, v, 2), 0, "only a part of it");
	cr_assert_eq(vhost_repair_address(&low, v, 0), 0);
}

/* --- of a process ----------------------------------------------------------------------------- */

static uint64_t found_at;

static void found(void *ctx, const char *wrong, const uint64_t *address)
{
	(void)ctx;
	cr_assert_null(wrong, "%s", wrong);
	found_at = *address;
}

static uint64_t ask_of_ourselves(struct vhost_repair *r, const struct vhost_region *told)
{
	found_at = 0;
	vhost_repair_find(r, getpid(), told, 1);
	while (!found_at)
		g_main_context_iteration(NULL, TRUE);
	return found_at;
}

static uint64_t map_all(int file)
{
	return (uint64_t)(uintptr_t)mmap(NULL, 1024 * K, PROT_READ | PROT_WRITE, MAP_SHARED, file,
					 0);
}

/*
 * Whichever of the two is another back-end's, which is registered; alone it may be registered
 * itself.
 */
Test(vhost_repair, P19_of_two_back_ends, .timeout = 30)
{
	static const struct vhost_repair_ops ops = { .found = found };
	struct vhost_repair *r = vhost_repair_new(10, &ops, NULL);
	int file = memfd_create("guest", MFD_CLOEXEC);
	uint64_t at[2];
	struct mem_identity id;

	cr_assert_eq(ftruncate(file, 1024 * K), 0);
	cr_assert_eq(mem_identify(file, &id), 0);
	at[0] = map_all(file);
	at[1] = map_all(file);
	for (unsigned other = 0; other < 2; other++) {
		const struct vhost_region told = { .dev = id.dev,
						   .inode = id.inode,
						   .length = 1024 * K };
		int uffd = uffd_open(0, false);
		unsigned can;

		if (uffd < 0)
			cr_skip_test("no userfaultfd here: %d", uffd);
		cr_assert_eq(uffd_register(uffd, at[other], 1024 * K, &can), 0);
		cr_assert_eq(ask_of_ourselves(r, &told), at[!other]);
		cr_assert_eq(uffd_register(uffd, at[!other], 1024 * K, &can), 0);
		ask_of_ourselves(r, &told);
		close(uffd);
	}
	vhost_repair_free(r);
	close(file);
}
