/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_CLOCK_H
#define PC_SYS_CLOCK_H
#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC, nanoseconds (vDSO: no system call). */
static inline uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
