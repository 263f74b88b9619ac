/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_UFFD_H
#define PC_SYS_UFFD_H
/*
 * userfaultfd(2), the only file that knows the ioctls (but for the handshake: uffd_open.c).  Every
 * result of the kernel is mapped once, here, to one of the outcomes below; nobody else looks at
 * errno of a placement.
 *
 * All operations go through struct uffd_ops so that a test can answer in the kernel's place (EAGAIN
 * after n bytes, EEXIST, ESRCH, ENOENT, ENOMEM at the k-th call).  NULL selects the kernel.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sys/uffd_open.h"

enum uffd_outcome {
	UFFD_DONE = 0, /* all of the range */
	UFFD_AGAIN,    /* the first *done bytes only (may be 0); retry later from there */
	UFFD_EXISTS,   /* the page at *done is there already (hugetlb: or the pool is empty) */
	UFFD_GONE,     /* ESRCH: the owner's address space has ended */
	UFFD_UNMAPPED, /* ENOENT: the range is not (or no longer) registered there */
	UFFD_NOMEM,    /* ENOMEM: no memory, or over its cgroup's limit */
	UFFD_FAILED,   /* anything else: *err holds the errno */
};

enum uffd_how {
	UFFD_COPY, /* from @src, any alignment */
	UFFD_ZERO, /* UFFDIO_ZEROPAGE; the range must offer it */
	UFFD_WAKE,
	UFFD_CONTINUE, /* map what the file has there; EFAULT when it has nothing */
	/* in this address space only: who touches it gets SIGBUS; see uffd_poison.c */
	UFFD_POISON,
};

struct uffd_result {
	uint64_t done; /* bytes placed by this call, a multiple of the page size */
	int err;       /* errno of the call, 0 when none */
};

/* What a placement asks of the kernel; tests replace `issue`. */
struct uffd_ops {
	/* Returns 0 or -errno; *moved is the kernel's copy/zeropage field as left by the call. */
	int (*issue)(void *ctx, int uffd, enum uffd_how how, uint64_t dst, uint64_t len,
		     const void *src, bool wake, int64_t *moved);
	void *ctx;
};
extern const struct uffd_ops uffd_kernel_ops;

/*
 * Place @len bytes at @dst of the address space that opened @uffd (or wake the range).  One ioctl;
 * a partial result comes back as UFFD_AGAIN / UFFD_EXISTS with result->done.
 */
enum uffd_outcome uffd_place(const struct uffd_ops *ops, int uffd, enum uffd_how how, uint64_t dst,
			     uint64_t len, const void *src, bool wake, struct uffd_result *result);

enum uffd_fitness {
	UFFD_FIT = 0,
	UFFD_NOT_A_UFFD,   /* not an anon_inode:[userfaultfd] */
	UFFD_NO_HANDSHAKE, /* UFFDIO_API was not done (poll gives POLLERR although O_NONBLOCK) */
	UFFD_USER_ONLY,	   /* opened USER_MODE_ONLY: kernel accesses would get EFAULT */
};
/*
 * Is @uffd, received from another process, fit to be served?  A blocking fd is made O_NONBLOCK (a
 * flag of the shared open file) and *was_blocking says so.
 *
 * No kernel tells an outsider whether the fd is USER_MODE_ONLY (it is neither in fdinfo nor behind
 * an ioctl), so UFFD_USER_ONLY never comes from here, whatever @need_kernel says: it takes a
 * missing page to find out, see uffd_probe_kernel().
 */
enum uffd_fitness uffd_probe(int uffd, bool need_kernel, bool *was_blocking);
/*
 * UFFD_FIT or UFFD_USER_ONLY, by a kernel access to @address of @owner, which is registered and
 * missing; -errno when it cannot be told.  Forks, may take a second.
 */
int uffd_probe_kernel(pid_t owner, uint64_t address);
/*
 * Does it ask for REMOVE, REMAP or UNMAP events?  Nothing is placed in its address space while one
 * is unread.
 */
bool uffd_reports_gone(int uffd);
const char *uffd_fitness_text(enum uffd_fitness f);

enum uffd_can { UFFD_CAN_COPY = 1, UFFD_CAN_ZERO = 2, UFFD_CAN_WAKE = 4, UFFD_CAN_POISON = 8 };
/* Register [addr, addr+len) for missing faults; *can gets enum uffd_can bits.  0 or -errno. */
int uffd_register(int uffd, uint64_t addr, uint64_t len, unsigned *can);
int uffd_unregister(int uffd, uint64_t addr, uint64_t len);
/* How many sleep on it, whether or not their message was read.  0 or -errno. */
int uffd_waiting(int uffd, unsigned *n);

enum uffd_event_kind {
	UFFD_FAULT,
	UFFD_REMOVE,
	UFFD_UNMAP,
	UFFD_REMAP,
	UFFD_FORK,
	UFFD_UNKNOWN,
};
struct uffd_event {
	enum uffd_event_kind kind;
	uint32_t tid;	  /* FAULT: thread, 0 without UFFD_FEATURE_THREAD_ID */
	uint64_t address; /* FAULT; start of the range otherwise */
	uint64_t end;	  /* REMOVE, UNMAP: end of the range; REMAP: new address */
	uint64_t length;  /* REMAP: bytes */
	uint64_t flags;	  /* FAULT: UFFD_PAGEFAULT_FLAG_* (1 write, 2 wp, 4 minor) */
	int fd;		  /* FORK: a new uffd, owned by the reader */
};
#define UFFD_READ_MAX 64
/*
 * Read up to @max (<= UFFD_READ_MAX) events without blocking.  Returns their number, 0 when there
 * is none (spurious readiness is normal), -EBADMSG on a short read (alignment lost: the fd is
 * dead), or another -errno.
 */
int uffd_read(int uffd, struct uffd_event *events, unsigned max);

/*
 * Can pages of private and of shared memory be poisoned here?  Tries it.  0, or -errno: -EOPNOTSUPP
 * where the kernel does not have it.
 */
int uffd_probe_poison(void);

/* What the running kernel offers: UFFD_FEATURE_* bits, or 0 with -errno in *err. */
uint64_t uffd_features(int *err);

#endif
