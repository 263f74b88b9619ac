/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Most of what a line of /proc/PID/maps costs is the name of the file, and nobody here wants to
 * know it.  A look at every process of a host reads thousands of lines, with a VM standing still.
 */
#include "config.h"

#include "sys/maps_query.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "sys/uapi.h"

/*
 * ESRCH of the kernel stands for a task without an address space (any more), which the text shows
 * by being empty.  Whatever else goes wrong is for the text to say: a process that was not looked
 * at must not pass for one that maps nothing.
 */
static int query_next(int maps_fd, uint64_t at, struct maps_vma *out)
{
	struct procmap_query q = {
		.size = sizeof(q), .query_addr = at,
		.query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA | PROCMAP_QUERY_FILE_BACKED_VMA,
	};

	if (ioctl(maps_fd, PROCMAP_QUERY, &q) < 0) {
		if (errno == ENOENT)
			return 0;
		return errno == ESRCH ? -ENODATA : -ENOTTY;
	}
	*out = (struct maps_vma){
		.start = q.vma_start,
		.end = q.vma_end,
		.offset = q.vma_offset,
		.inode = q.inode,
		.dev = makedev(q.dev_major, q.dev_minor),
		.readable = q.vma_flags & PROCMAP_QUERY_VMA_READABLE,
		.writable = q.vma_flags & PROCMAP_QUERY_VMA_WRITABLE,
		.shared = q.vma_flags & PROCMAP_QUERY_VMA_SHARED,
	};
	return 1;
}

/**
 * maps_query_of_file - the next mapping of this one file
 * @vma: behind which one to look, at first {0}; then the one that was found
 */
int maps_query_of_file(int maps_fd, uint64_t dev, uint64_t inode, struct maps_vma *vma)
{
	int rc;

	while ((rc = query_next(maps_fd, vma->end, vma)) > 0)
		if (vma->inode == inode && vma->dev == dev)
			return 1;
	return rc;
}
