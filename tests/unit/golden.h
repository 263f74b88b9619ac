/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_GOLDEN_H
#define PC_TESTS_GOLDEN_H
/* Recorded migrations (tests/fixtures), unpacked. */
#include <stddef.h>
#include <stdint.h>

struct golden {
	uint8_t *bytes; /* the caller frees */
	size_t len;
};

/* @name without ".gz", e.g. "q72-plain.c0.s2d".  Fails the test when it cannot be read. */
struct golden golden_load(const char *name);
/* For cleanup_golden. */
void golden_free(struct golden *g);
#define cleanup_golden __attribute__((cleanup(golden_free)))

#endif
