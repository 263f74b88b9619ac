/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_FORKER_H
#define PC_TESTS_FORKER_H
/*
 * A process whose mappings are locked most of the time: one of its threads forks it for ever, and
 * there is a lot to fork.  fork() locks mapping after mapping, from the lowest address on, until it
 * has copied the last; so what is to be locked for long lies below what takes long.
 */
#include <stddef.h>

/* Where to map @len bytes (MAP_FIXED) that are to be locked. */
void *forker_reserve(size_t len);
/* Begin.  @reserved, @len as before.  The thread ends with the process. */
void forker_start(void *reserved, size_t len);

#endif
