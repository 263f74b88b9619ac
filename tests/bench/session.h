/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_BENCH_SESSION_H
#define PC_TESTS_BENCH_SESSION_H
/*
 * What every measured process has to do with postcopyd before and after it is measured.
 */
#include <stdint.h>

#include "postcopy/postcopy.h"

/* Says so; 1, for main to return. */
int session_fail(const char *what, const char *text);
/*
 * Until an event of that type; 0, or 1 and said why.  A package on the way is taken, and loaded; a
 * range for a device is as good as mapped when it is asked for.
 */
int session_wait(postcopy *p, uint32_t type);

#endif
