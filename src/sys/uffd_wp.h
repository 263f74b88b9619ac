/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_UFFD_WP_H
#define PC_SYS_UFFD_WP_H
/*
 * Write protection that lifts itself and reports nothing (WP_ASYNC, 6.7): the kernel only remembers
 * that a page was written to.  sys/dirty_cpu.h asks for it.
 */
#include <stdint.h>

/* A userfaultfd of our own address space that can do it; -EOPNOTSUPP on kernels that cannot. */
int uffd_wp_open(void);
/* 0, or -errno: -EINVAL for memory whose pages cannot be protected. */
int uffd_wp_register(int uffd, uint64_t addr, uint64_t len);

#endif
