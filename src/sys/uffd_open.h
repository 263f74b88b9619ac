/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_SYS_UFFD_OPEN_H
#define PC_SYS_UFFD_OPEN_H
/*
 * Making a userfaultfd of our own address space: all that a process needs which hands its faults to
 * somebody else.  (Apart from uffd.c, and LGPL, because libpostcopy carries it.)
 */
#include <stdbool.h>
#include <stdint.h>

/* A raw userfaultfd (O_CLOEXEC|O_NONBLOCK) without the handshake.  The fd or -errno. */
int uffd_create(bool user_only);

/* The same in two steps: whoever may open the device can lend it to who may not.  Fds or -errno. */
int uffd_device(void);
int uffd_create_from(int dev, bool user_only);

/* The handshake on a raw fd; the features that the kernel offers go to *have (may be NULL). */
int uffd_handshake(int uffd, uint64_t want, uint64_t *have);

/*
 * Both in one.  @features: UFFD_FEATURE_* wanted; @user_only: UFFD_USER_MODE_ONLY.  Tries
 * userfaultfd(2), then /dev/userfaultfd.  The fd (O_CLOEXEC|O_NONBLOCK) or -errno.
 */
int uffd_open(uint64_t features, bool user_only);

#endif
