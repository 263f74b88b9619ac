/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_LOGMEM_H
#define PC_SYS_LOGMEM_H
/* The memory of a dirty log (core/dirtylog.h): a file that back-ends map, and our own mapping of
 * it. */
#include <stdint.h>

struct logmem {
	int fd;		 /* goes out with SET_LOG_BASE; -1: none */
	uint64_t *words; /* NULL: none */
	uint64_t bytes;
};

void logmem_init(struct logmem *l);
/* All zero, as large as @bytes rounded up to whole pages, and of that size for good.  0 or -errno.
 */
int logmem_make(struct logmem *l, uint64_t bytes);
/* Idempotent. */
void logmem_deinit(struct logmem *l);

#endif
