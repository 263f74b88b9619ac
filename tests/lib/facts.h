/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_FACTS_H
#define PC_TESTS_FACTS_H
/*
 * A program of facts: each is checked in a process (and process group) of its own, with an alarm,
 * so that a thread that waits for a page for ever costs one failed fact and leaves nothing behind.
 *
 * Inside a check: expect() and expect_eq() end the process at the first thing that is not so;
 * fact_skip() ends it with a reason.  Both may be used on any thread and in any child of the check.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fact {
	const char *name;
	void (*check)(void);
};

#define FACT_SECONDS 30

/* Run them in order, one TAP line each. */
void facts_run(const struct fact *facts, size_t n);

_Noreturn void fact_failed(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
_Noreturn void fact_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* fork() whose child dies with the thread that called. */
pid_t fact_fork(void);

#define expect(condition)                                                                          \
	do {                                                                                       \
		if (!(condition))                                                                  \
			fact_failed(__FILE__, __LINE__, "%s", #condition);                         \
	} while (0)

#define expect_eq(have, want)                                                                      \
	do {                                                                                       \
		int64_t have_ = (int64_t)(have), want_ = (int64_t)(want);                          \
		if (have_ != want_)                                                                \
			fact_failed(__FILE__, __LINE__, "%s is %lld (0x%llx), not %lld", #have,    \
				    (long long)have_, (unsigned long long)have_,                   \
				    (long long)want_);                                             \
	} while (0)

#endif
