/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a back-end has a region, by what /proc shows: as libraries map it.  (P16, P17, P19)
 */
#include "config.h"

#include "daemon/vhost_repair.h"

#include <criterion/criterion.h>

#include "core/guard.h"

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
	const struct maps_vma v[] = { vma(0x60000000, 768 * K, 256 * K), vma(0x70000000, 0, 640 * K) };

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
	const struct maps_vma v[] = { vma(0x60000000, 0, 640 * K), vma(0x70000000, 832 * K, 192 * K) };

	cr_assert_eq(vhost_repair_address(&high, v, 2), 0, "only a part of it");
	cr_assert_eq(vhost_repair_address(&low, v, 0), 0);
}
