/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mremap(), in between.
 *
 * The kernel drops the registration of what it moves, without a word, and of what is grown in place
 * the daemon does not know the new end (tests/kernel/remapping.c).  So guest memory is closed
 * before it is moved or grown, and opened again when the daemon has registered it as it is then.
 * Closed, because nobody may touch it meanwhile: neither another thread, nor the kernel, which
 * fills what is grown of a locked mapping.
 *
 * Whose memory it is stands in /proc/self/maps, and whether it is guest memory the daemon knows.
 * As in preload_map.c there is no lock and no heap.
 */
#include "config.h"

#include "client/preload.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "sys/fd.h"

#define PUBLIC __attribute__((visibility("default")))
#define HEAD   128			/* bytes of a line of maps before the name */

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

PUBLIC void *preload_mremap(void *old, size_t old_size, size_t new_size, int flags,
			    ...) __asm__("mremap");

struct move {
	void *from, *to;		/* @to: with MREMAP_FIXED */
	size_t old_size, new_size;
	int flags;
};

struct vma {
	uintptr_t start, end;
	struct preload_mapping file;	/* .address is not used */
	int prot;
};

static void *issue(const struct move *m)
{
	return (void *)syscall(SYS_mremap, m->from, m->old_size, m->new_size, m->flags, m->to);
}

static bool read_head(const char *line, struct vma *v)
{
	unsigned major, minor;
	char perms[5];
	uint64_t offset;

	if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64, &v->start,
		   &v->end, perms, &offset, &major, &minor, &v->file.inode) != 7)
		return false;
	v->file.dev = makedev(major, minor);
	v->file.offset = (off_t)offset;
	v->prot = (perms[0] == 'r' ? PROT_READ : 0) | (perms[1] == 'w' ? PROT_WRITE : 0) |
		  (perms[2] == 'x' ? PROT_EXEC : 0);
	return true;
}

/* What of a text comes in pieces is put together to heads of lines. */
struct head {
	char text[HEAD];
	size_t used;
};

/* True at the end of a line. */
static bool take(struct head *h, char c)
{
	if (c != '\n' && h->used < HEAD - 1)
		h->text[h->used++] = c;
	if (c != '\n')
		return false;
	h->text[h->used] = '\0';
	h->used = 0;
	return true;
}

/* The mapping that holds an address of ours: 1, 0 when there is none, or -errno. */
static int find_vma(uintptr_t at, struct vma *v)
{
	cleanup_fd int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	struct head head = { .used = 0 };
	char text[2048];
	ssize_t n;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, text, sizeof(text))) > 0)
		for (ssize_t i = 0; i < n; i++)
			if (take(&head, text[i]) && read_head(head.text, v) && at >= v->start &&
			    at < v->end)
				return 1;
	return n < 0 ? -errno : 0;
}

static int refuse(const struct move *m, int err, const char *why)
{
	preload_complain("mremap of %zu bytes fails: %s", m->old_size, why);
	return err;
}

/* What cannot be had of guest memory, by anybody. */
static int allow(const struct preload_line *l, const struct move *m, const struct vma *v)
{
	if (m->old_size == 0 || m->flags & MREMAP_DONTUNMAP)
		return refuse(m, -EINVAL, "a second mapping of guest memory comes by mmap only");
	if (m->old_size > v->end - (uintptr_t)m->from)
		return refuse(m, -EFAULT, "more than one mapping");
	if (l->main && atomic_load(&l->listening))
		return refuse(m, -EBUSY,
			      "the memory of a VM stays where it is while it is moving here");
	return 0;
}

/* Nobody serves it as it is now: as it was, or not at all.  @err: -errno, which is returned. */
static int undo(const struct move *m, void *now, int prot, int err)
{
	if (now != m->from)
		munmap(now, m->new_size);
	else if (syscall(SYS_mremap, now, m->new_size, m->old_size, 0) != (long)now ||
		 mprotect(now, m->old_size, prot) < 0)
		munmap(now, m->new_size);
	return err;
}

/* Guest memory: 0 with its new place, or -errno. */
static int carry(struct preload_line *l, const struct move *m, const struct vma *v, void **out)
{
	struct preload_mapping now = v->file;
	char why[PRELOAD_WHY] = "";
	int ret;

	if (mprotect(m->from, m->old_size, PROT_NONE) < 0)
		return -errno;
	now.address = issue(m);
	if (now.address == MAP_FAILED) {
		ret = -errno;
		(void)mprotect(m->from, m->old_size, v->prot);
		return ret;
	}
	now.length = m->new_size;
	ret = preload_line_mapped(l, &now, why);
	if (ret >= 0)
		ret = preload_map_open(&now, v->prot, 0, ret > 0);
	if (ret < 0)
		return undo(m, now.address, v->prot, refuse(m, ret, why[0] ? why : strerror(-ret)));
	*out = now.address;
	return 0;
}

/* 1: the kernel's own mremap() will do; 0 with *out; -errno. */
static int remap(const struct move *m, void **out)
{
	char why[PRELOAD_WHY] = "";
	struct preload_line *l;
	int err = 0, ret;
	struct vma v;

	/* The end of a mapping can go: that is noticed. */
	if (m->new_size && m->new_size <= m->old_size &&
	    !(m->flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)))
		return 1;
	l = preload_line(&err, why);
	if (err < 0)
		return refuse(m, err, why);
	if (!l)
		return 1;
	ret = find_vma((uintptr_t)m->from, &v);
	if (ret < 0)
		return refuse(m, ret, "/proc/self/maps cannot be read");
	if (ret == 0 || v.file.inode == 0)
		return 1;
	v.file.offset += (off_t)((uintptr_t)m->from - v.start);
	v.file.address = m->from;
	v.file.length = v.end - (uintptr_t)m->from;
	ret = preload_line_mapped(l, &v.file, why);
	if (ret <= 0)
		return ret < 0 ? refuse(m, ret, why) : 1;
	ret = allow(l, m, &v);
	return ret < 0 ? ret : carry(l, m, &v, out);
}

void *preload_mremap(void *old, size_t old_size, size_t new_size, int flags, ...)
{
	struct move m = { .from = old, .old_size = old_size, .new_size = new_size, .flags = flags };
	void *out = MAP_FAILED;
	int ret;

	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) {
		va_list args;

		va_start(args, flags);
		m.to = va_arg(args, void *);
		va_end(args);
	}
	ret = remap(&m, &out);
	if (ret > 0)
		return issue(&m);
	if (ret < 0)
		errno = -ret;
	return out;
}
