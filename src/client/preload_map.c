/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmap(), in between: a mapping of guest memory is not given to the program before the daemon has
 * registered it and seen that it is.
 *
 * Until then it is PROT_NONE, so that nobody can touch it: neither another thread, nor the kernel
 * on behalf of MAP_POPULATE, MAP_LOCKED or an earlier mlockall(MCL_FUTURE), which would fill every
 * hole with a page of zeroes, for all who share the memory (MAP_POPULATE is left out for good: the
 * pages of a mapping that is served come by themselves).  Afterwards it gets the protection that
 * was asked for, and is not inherited by forks: in a child's address space nothing is registered.
 *
 * Only files that userfaultfd can serve are looked at, however they are mapped: also a private
 * mapping would instantiate pages, and the daemon refuses it.  Everything else goes straight to the
 * kernel, by the system call: no lookup of another mmap(), no lock, no heap, so that it does not
 * matter who maps, how early, or in which handler.
 */
#include "config.h"

#include "client/preload.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#define PUBLIC __attribute__((visibility("default")))

_Static_assert(sizeof(off_t) == 8 && sizeof(long) == 8,
	       "the system call takes the offset in bytes");

PUBLIC void *preload_mmap(void *at, size_t length, int prot, int flags, int fd,
			  off_t offset) __asm__("mmap");
PUBLIC void *preload_mmap64(void *at, size_t length, int prot, int flags, int fd,
			    off_t offset) __asm__("mmap64") __attribute__((alias("mmap")));

static void *map(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, at, length, prot, flags, fd, offset);
}

/* Can it be guest memory: a file of memory? */
static bool may_be_guest(int fd, struct preload_mapping *m)
{
	struct statfs fs;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || fstatfs(fd, &fs) < 0)
		return false;
	m->dev = st.st_dev;
	m->inode = st.st_ino;
	return fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC;
}

/* What could not be had before it was known whose memory it is. */
static void populate(const struct preload_mapping *m, int prot)
{
	(void)madvise(m->address, m->length,
		      prot & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
}

/**
 * preload_map_open - give a mapping that is closed the protection that was asked for
 */
int preload_map_open(const struct preload_mapping *m, int prot, int flags, bool served)
{
	if (served && madvise(m->address, m->length, MADV_DONTFORK) < 0)
		return -errno;
	if (prot != PROT_NONE && mprotect(m->address, m->length, prot) < 0)
		return -errno;
	if (!served && flags & MAP_POPULATE)
		populate(m, prot);
	return 0;
}

/* The mapping is there and closed: have it proven, then open it.  0 or -errno. */
static int have_it_served(struct preload_line *l, const struct preload_mapping *m, int prot,
			  int flags)
{
	char why[PRELOAD_WHY] = "";
	int ret = preload_line_mapped(l, m, why);

	if (ret >= 0) {
		ret = preload_map_open(m, prot, flags, ret > 0);
		if (ret < 0)
			strcpy(why, strerror(-ret));
	}
	if (ret < 0)
		preload_complain("mmap of %zu bytes fails: %s", m->length, why);
	return ret;
}

void *preload_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct preload_mapping m = { .length = length, .offset = offset };
	char why[PRELOAD_WHY] = "";
	struct preload_line *l;
	int err = 0;

	if (flags & MAP_ANONYMOUS || !may_be_guest(fd, &m))
		return map(at, length, prot, flags, fd, offset);
	l = preload_line(&err, why);
	if (err < 0) {
		preload_complain("mmap of %zu bytes fails: %s", length, why);
		errno = -err;
		return MAP_FAILED;
	}
	if (!l)
		return map(at, length, prot, flags, fd, offset);
	m.address = map(at, length, PROT_NONE, flags & ~MAP_POPULATE, fd, offset);
	if (m.address == MAP_FAILED)
		return MAP_FAILED;
	err = have_it_served(l, &m, prot, flags);
	if (err == 0)
		return m.address;
	munmap(m.address, length);
	errno = -err;
	return MAP_FAILED;
}
