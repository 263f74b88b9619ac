/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_TAP_H
#define PC_TESTS_TAP_H
/*
 * What a test program without a framework prints (TAP 12, as automake's driver reads it).  One plan
 * per program: at the start by tap_plan(), or at the end by tap_done().
 *
 * POSTCOPY_TESTS_MUST_RUN=1 in the environment makes every skip a failure.
 */
#include <stdbool.h>

void tap_plan(unsigned n);
/* One result; returns @good. */
bool tap_ok(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
void tap_skip(const char *name, const char *reason);
/* A comment line. */
void tap_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The whole program cannot run here; ends it. */
_Noreturn void tap_skip_all(const char *reason);
/* Nothing after this makes sense; ends the program and the test run of it. */
_Noreturn void tap_bail_out(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Close the plan.  The exit status of the program. */
int tap_done(void);

#endif
