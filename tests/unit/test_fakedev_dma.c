/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a device is let reach, and whether it may begin (S2-09, F47): each error of a mapping as the
 * kernel and as servers have it, and what the model notes about who maps at the wrong time.
 */
#include "config.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "fakedev.h"
#include "sys/devio_pci.h"

#define RW (PROT_READ | PROT_WRITE)

static struct fakedev f;
static char here[1]; /* an address of ours; nobody looks behind it */

static void start(unsigned version, enum fakedev_reach reach)
{
	struct fakedev_config c = {
		.version = version, .flags = 7, .reach = reach,
		.dma_limit = 3, .memlock = 0x10000, .idle = true,
	};

	fakedev_init(&f, &c);
}

static void noted(const char *words)
{
	cr_assert(strstr(f.wrong, words), "'%s' instead of %s", f.wrong, words);
	f.wrong[0] = '\0';
}

static int map(uint64_t iova, uint64_t size)
{
	struct devio_dma m = { iova, size, RW, here, 5, 0 };

	return devio_dma_map(&f.dev, &m);
}

static bool missing(void *arg, const struct devio_dma *m)
{
	(void)arg;
	return m->iova != 0x666000;
}

/* What the kernel says, in the order in which it looks. */
Test(fakedev_dma, the_kernels_errors)
{
	struct devio_dma none = { 0x1000, 0x1000, RW, NULL, 5, 0 };

	start(2, FAKEDEV_KERNEL);
	f.resident = missing;
	cr_assert_eq(devio_dma_map(&f.dev, &none), -EINVAL, "a descriptor is no memory");
	cr_assert_eq(map(0x1000, 0x2000), 0);
	cr_assert_eq(map(0x1000, 0x2000), -EEXIST);
	cr_assert_eq(map(0x2000, 0x1000), -EEXIST);
	cr_assert_eq(map(0x1800, 0x1000), -EINVAL);
	cr_assert_eq(map(0x100000, 0xf000), -ENOMEM);
	cr_assert_null(fakedev_wrong(&f));
	cr_assert_eq(map(0x666000, 0x1000), -EFAULT);
	noted("F47");
	cr_assert_eq(map(0x3000, 0x1000), 0);
	cr_assert_eq(map(0x4000, 0x1000), 0);
	cr_assert_eq(map(0x5000, 0x1000), -ENOSPC);
	cr_assert_eq(devio_dma_unmap(&f.dev, 0x1000, 0x1000), -EINVAL);
	cr_assert_eq(devio_dma_unmap(&f.dev, 0x1000, 0x3000), 0, "two of them");
	cr_assert_eq(devio_dma_unmap(&f.dev, 0x1000, 0x3000), -ENOENT);
	cr_assert_eq(f.n_dma, 1);
	fakedev_deinit(&f);
}

/* What makes no sense to anybody never comes to the device. */
Test(fakedev_dma, what_is_no_range)
{
	struct devio_dma m = { 0, 0x1000, 0, here, -1, 0 };

	start(2, FAKEDEV_KERNEL);
	cr_assert_eq(devio_dma_map(&f.dev, &m), -EINVAL, "for no access");
	m.prot = RW | PROT_EXEC;
	cr_assert_eq(devio_dma_map(&f.dev, &m), -EINVAL);
	cr_assert_eq(map(0x1000, 0), -EINVAL);
	cr_assert_eq(map(UINT64_MAX - 0xfff, 0x2000), -EINVAL);
	cr_assert_eq(devio_dma_unmap(&f.dev, UINT64_MAX - 0xfff, 0x2000), -EINVAL);
	cr_assert_eq(f.count[FAKEDEV_DMA_MAP] + f.count[FAKEDEV_DMA_UNMAP], 0);
	cr_assert_eq(map(UINT64_MAX - 0xfff, 0x1000), 0, "the last page there is");
	fakedev_deinit(&f);
}

/* Each error that can be explained is, and no other. */
Test(fakedev_dma, errors_in_words)
{
	static const struct {
		int err;
		const char *word;
	} row[] = {
		{ -EFAULT, "missing" },		{ -ENOMEM, "RLIMIT_MEMLOCK" },
		{ -ENOSPC, "dma_entry_limit" }, { -EEXIST, "already" },
		{ -EINVAL, "whole pages" },	{ -ENOENT, "not mapped" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		const char *why = devio_dma_why(row[i].err);

		cr_assert(why && strstr(why, row[i].word), "%s: %s", row[i].word, why);
	}
	cr_assert_null(devio_dma_why(-ECONNRESET));
	cr_assert_null(devio_dma_why(0));
}

/* @states: those in which servers map nothing; each version has its way there. */
static void restricted(unsigned version, const uint32_t *states, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		start(version, FAKEDEV_SERVER);
		cr_assert_eq(map(0x1000, 0x1000), 0);
		f.state = states[i];
		cr_assert_eq(map(0x8000, 0x1000), -EINVAL);
		noted("5.3: maps");
		cr_assert_eq(devio_dma_unmap(&f.dev, 0x1000, 0x1000), -EINVAL);
		noted("5.3: unmaps");
		cr_assert_eq(f.n_dma, 1);
		fakedev_deinit(&f);
	}
}

static void allowed(unsigned version, enum fakedev_reach reach, const uint32_t *states, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		start(version, reach);
		f.state = states[i];
		cr_assert_eq(map(0x1000, 0x1000), 0, "state %u", states[i]);
		cr_assert_eq(devio_dma_unmap(&f.dev, 0x1000, 0x1000), 0);
		cr_assert_null(fakedev_wrong(&f));
		fakedev_deinit(&f);
	}
}

/* devices.md 5.3: servers map where the device runs or is loaded; the kernel does everywhere. */
Test(fakedev_dma, states)
{
	static const uint32_t v1_stopped[] = { 0, 2 }, v1_open[] = { 1, 3, 4, 9 };
	static const uint32_t v2_stopped[] = { 1, 3 }, v2_open[] = { 2, 4, 5, 6, 7 };

	restricted(1, v1_stopped, ARRAY_LEN(v1_stopped));
	restricted(2, v2_stopped, ARRAY_LEN(v2_stopped));
	allowed(1, FAKEDEV_SERVER, v1_open, ARRAY_LEN(v1_open));
	allowed(2, FAKEDEV_SERVER, v2_open, ARRAY_LEN(v2_open));
	allowed(1, FAKEDEV_KERNEL, v1_stopped, ARRAY_LEN(v1_stopped));
	allowed(2, FAKEDEV_KERNEL, v2_stopped, ARRAY_LEN(v2_stopped));
}

/* Servers: the same again is fine, anything else there is not; what asks needs no page. */
Test(fakedev_dma, a_servers_own_rules)
{
	struct devio_dma by_message = { 0x666000, 0x1000, RW, NULL, -1, 0 };

	start(2, FAKEDEV_SERVER);
	f.resident = missing;
	cr_assert_eq(map(0x1000, 0x2000), 0);
	cr_assert_eq(map(0x1000, 0x2000), 0);
	cr_assert_eq(map(0x1000, 0x1000), -EINVAL);
	cr_assert_eq(devio_dma_map(&f.dev, &by_message), 0);
	cr_assert_null(fakedev_wrong(&f));
	cr_assert_eq(devio_dma_unmap(&f.dev, 0x666000, 0x1000), 0);
	cr_assert_eq(map(0x666000, 0x1000), 0, "a server does not know");
	noted("F47");
	fakedev_deinit(&f);
}

Test(fakedev_dma, told_to_fail)
{
	start(2, FAKEDEV_KERNEL);
	fakedev_fail(&f, FAKEDEV_DMA_MAP, 1, FAKEDEV_FAIL, ENOMEM);
	fakedev_fail(&f, FAKEDEV_DMA_UNMAP, 1, FAKEDEV_HANG, 0);
	cr_assert_eq(map(0x1000, 0x1000), -ENOMEM);
	cr_assert_eq(map(0x1000, 0x1000), 0);
	cr_assert_eq(devio_dma_unmap(&f.dev, 0x1000, 0x1000), -ETIMEDOUT);
	cr_assert_eq(f.n_dma, 1);
	cr_assert_str_eq(f.trace, "dma-map dma-unmap");
	fakedev_deinit(&f);
}

/* devices.md 4.3: a device is loaded with bus mastering off; a reset leaves it so. */
Test(fakedev_dma, bus_mastering)
{
	uint32_t resuming[2] = { 4, UINT32_MAX };

	start(2, FAKEDEV_KERNEL);
	cr_assert_eq(devio_pci_bus_master(&f.dev, false), 0);
	cr_assert_eq(f.count[FAKEDEV_COMMAND], 1, "nothing to be written");
	f.command = 0x403;
	cr_assert_eq(devio_pci_bus_master(&f.dev, true), 0);
	cr_assert_eq(f.command, 0x407, "no other bit");
	cr_assert_eq(devio_feature_set(&f.dev, 2, resuming, sizeof(resuming)), 0);
	noted("4.3");
	cr_assert_eq(devio_pci_bus_master(&f.dev, false), 0);
	cr_assert_eq(f.command, 0x403);
	f.command = 7;
	cr_assert_eq(devio_reset(&f.dev), 0);
	cr_assert_eq(f.command, 0);
	cr_assert_eq(devio_feature_set(&f.dev, 2, resuming, sizeof(resuming)), 0);
	cr_assert_null(fakedev_wrong(&f));
	fakedev_fail(&f, FAKEDEV_COMMAND, 1, FAKEDEV_FAIL, EIO);
	cr_assert_eq(devio_pci_bus_master(&f.dev, true), -EIO);
	fakedev_deinit(&f);
}

/* Who has no configuration space has nothing to switch. */
Test(fakedev_dma, no_configuration_space)
{
	start(2, FAKEDEV_KERNEL);
	fakedev_fail(&f, FAKEDEV_DESCRIBE, 1, FAKEDEV_FAIL, EINVAL);
	cr_assert_eq(devio_pci_bus_master(&f.dev, true), -EOPNOTSUPP);
	fakedev_fail(&f, FAKEDEV_DESCRIBE, 1, FAKEDEV_FAIL, ECONNRESET);
	cr_assert_eq(devio_pci_bus_master(&f.dev, true), -ECONNRESET);
	fakedev_deinit(&f);
}
