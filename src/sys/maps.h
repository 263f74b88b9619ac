/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MAPS_H
#define PC_SYS_MAPS_H
/*
 * What other processes have mapped: /proc/PID/maps and smaps.  Sharing is keyed by (device, inode,
 * file offset), never by an address somebody sent.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct maps_vma {
	uint64_t start, end;
	uint64_t offset;     /* in the file */
	uint64_t dev, inode; /* dev in st_dev form */
	bool readable, writable, shared;
	bool uffd_missing; /* `um` in VmFlags; only from maps_proven() */
};

/* All mappings of (dev, inode) in @pid, by address.  *out is malloc()ed.  Number or -errno. */
int maps_of_file(pid_t pid, uint64_t dev, uint64_t inode, struct maps_vma **out);

/*
 * Is every byte of [start, end) of @pid inside VMAs that are registered for missing faults (VmFlags
 * `um`)?  1 yes, 0 no (*at = first address that is not), -errno when it cannot be read.
 */
int maps_proven(pid_t pid, uint64_t start, uint64_t end, uint64_t *at);

/*
 * Wait as long as @pid keeps its address space locked.  0, -ENODATA when none is shown, or -errno.
 */
int maps_wait(pid_t pid);

/* Does no VMA of [start, end) show `um` any more?  1 yes, 0 no, -errno. */
int maps_released(pid_t pid, uint64_t start, uint64_t end);

/*
 * Every process that maps (dev, inode), but our own: pids to *out (malloc()ed).  Number or -errno.
 * Processes that cannot be looked into are counted in *hidden; *@at is the one being looked at.
 */
int maps_users(uint64_t dev, uint64_t inode, pid_t **out, unsigned *hidden, _Atomic pid_t *at);

/* The mapping that holds @address in @pid.  1, 0 when there is none, or -errno. */
int maps_at(pid_t pid, uint64_t address, struct maps_vma *out);

/*
 * The file behind a mapping of @pid, opened for reading and writing: a descriptor, -ENOENT when
 * neither the mapping nor a descriptor of the process leads to it, or -errno.
 */
int maps_open(pid_t pid, const struct maps_vma *vma);

/* How many small pages of [start, end) are there (in memory or swapped out)?  0 or -errno. */
int maps_present(pid_t pid, uint64_t start, uint64_t end, uint64_t *pages);

/* The comm of a process, for messages; not printable bytes become '?'.  0 or -errno. */
int maps_name(pid_t pid, char *out, size_t len);

#endif
