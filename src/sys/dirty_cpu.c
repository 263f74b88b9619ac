/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One call finds the pages that were written to, and protects them again in the same step, so no
 * write falls between the two.  It gives ranges, as many as there is room for, and says how far it
 * came; it is asked until it came to the end.
 */
#include "config.h"

#include "sys/dirty_cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/uapi.h"
#include "sys/uffd_wp.h"

#define REGIONS 256

static const char *const texts[] = {
	[DIRTY_CPU_FIT] = "writes of CPUs can be tracked",
	[DIRTY_CPU_NO_WP_ASYNC] = "this kernel cannot track writes: no UFFD_FEATURE_WP_ASYNC, "
				  "which is there from 6.7 on",
	[DIRTY_CPU_NO_SCAN] = "this kernel cannot say what was written: no PAGEMAP_SCAN, which is "
			      "there from 6.7 on",
	[DIRTY_CPU_NO_UFFD] = "no right to a userfaultfd, not even for our own faults",
	[DIRTY_CPU_NO_PAGEMAP] = "/proc/self/pagemap cannot be opened",
};

/**
 * dirty_cpu_text - what is missing, for people
 */
const char *dirty_cpu_text(enum dirty_cpu_fitness f)
{
	return texts[f];
}

/* The pages that were written to, of @arg's range; protected again. */
static int scan(int pagemap, struct pm_scan_arg *arg, struct page_region *found, unsigned room)
{
	int n;

	arg->size = sizeof(*arg);
	arg->flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC;
	arg->vec = (uintptr_t)found;
	arg->vec_len = room;
	arg->category_mask = PAGE_IS_WRITTEN;
	arg->return_mask = PAGE_IS_WRITTEN;
	n = ioctl(pagemap, PAGEMAP_SCAN, arg);
	return n < 0 ? -errno : n;
}

/* A kernel that does not know the request says ENOTTY, whatever is asked. */
static bool can_scan(int pagemap)
{
	struct page_region found[1];
	struct pm_scan_arg arg = { .start = 0, .end = 0 };

	return scan(pagemap, &arg, found, ARRAY_LEN(found)) != -ENOTTY;
}

/**
 * dirty_cpu_init - is this a kernel that can?
 */
enum dirty_cpu_fitness dirty_cpu_init(struct dirty_cpu *d)
{
	cleanup_fd int uffd = uffd_wp_open();
	cleanup_fd int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	*d = (struct dirty_cpu){ .uffd = -1, .pagemap = -1 };
	if (uffd < 0)
		return uffd == -EOPNOTSUPP ? DIRTY_CPU_NO_WP_ASYNC : DIRTY_CPU_NO_UFFD;
	if (pagemap < 0)
		return DIRTY_CPU_NO_PAGEMAP;
	if (!can_scan(pagemap))
		return DIRTY_CPU_NO_SCAN;
	d->uffd = steal_fd(&uffd);
	d->pagemap = steal_fd(&pagemap);
	return DIRTY_CPU_FIT;
}

/**
 * dirty_cpu_deinit - watch nothing any more
 */
void dirty_cpu_deinit(struct dirty_cpu *d)
{
	close_fd(&d->uffd);
	close_fd(&d->pagemap);
}

/* Everything that was written in [addr, end), to @m at @start, or nowhere. */
static int pass(struct dirty_cpu *d, uint64_t addr, uint64_t end, uint64_t start,
		struct dirtymark *m)
{
	struct page_region found[REGIONS];
	struct pm_scan_arg arg = { .start = addr, .end = end };

	while (arg.start < end) {
		int n = scan(d->pagemap, &arg, found, ARRAY_LEN(found));

		if (n < 0)
			return n;
		for (int i = 0; i < n && m; i++)
			dirtymark_range(m, start + (found[i].start - addr),
					found[i].end - found[i].start);
		if (arg.walk_end <= arg.start)
			return -EPROTO;
		arg.start = arg.walk_end;
	}
	return 0;
}

/**
 * dirty_cpu_watch - begin with a range, all of which is clean from now on
 */
int dirty_cpu_watch(struct dirty_cpu *d, uint64_t addr, uint64_t len)
{
	uint64_t end;
	int err;

	if (!add_u64(addr, len, &end))
		return -EINVAL;
	err = uffd_wp_register(d->uffd, addr, len);
	return err ? err : pass(d, addr, end, 0, NULL);
}

/**
 * dirty_cpu_collect - add what was written
 */
int dirty_cpu_collect(struct dirty_cpu *d, uint64_t addr, uint64_t len, uint64_t start,
		      struct dirtymark *m)
{
	uint64_t end;
	int err = add_u64(addr, len, &end) ? pass(d, addr, end, start, m) : -EINVAL;

	if (err)
		dirtymark_range(m, start, len);
	return err;
}
