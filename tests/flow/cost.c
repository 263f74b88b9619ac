/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a fault costs in the fault thread, once the VM runs: no call to the allocator, no copy of a
 * 4 KiB page in user space, at most five system calls for one urgent fault.  (design 6 and 11;
 * judge card 21)
 *
 * The allocator is interposed for the whole program, and memcpy and memmove in what is linked into
 * it; both are shown to count before the VM runs, so that a zero afterwards says something.
 */
#include "config.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "stage.h"
#include "tap.h"

#define PAGE	 4096
#define SYSCALLS 5
#define ROUNDS	 4
#define ROUND_N	 (STAGE_PAGES / 2 / ROUNDS)

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

/* The stage whose fault thread is watched; set once it has one. */
static _Atomic(const struct faultloop *) watched;
static _Atomic uint64_t heap_calls, page_copies;

static void count(_Atomic uint64_t *what)
{
	const struct faultloop *f = atomic_load(&watched);

	if (f && pthread_equal(pthread_self(), f->thread))
		atomic_fetch_add(what, 1);
}

#ifndef SANITIZED
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

void *malloc(size_t size)
{
	count(&heap_calls);
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	count(&heap_calls);
	return __libc_calloc(n, size);
}

void *realloc(void *p, size_t size)
{
	count(&heap_calls);
	return __libc_realloc(p, size);
}

void free(void *p)
{
	if (p)
		count(&heap_calls);
	__libc_free(p);
}
#endif

void *__real_memcpy(void *to, const void *from, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__real_memmove(void *to, const void *from, size_t n);
void *__wrap_memmove(void *to, const void *from, size_t n);

void *__wrap_memcpy(void *to, const void *from, size_t n)
{
	if (n && n % PAGE == 0)
		count(&page_copies);
	return __real_memcpy(to, from, n);
}

void *__wrap_memmove(void *to, const void *from, size_t n)
{
	if (n && n % PAGE == 0)
		count(&page_copies);
	return __real_memmove(to, from, n);
}

/* --- the checks --------------------------------------------------------------------------- */

static void need_interposition(void)
{
#ifdef SANITIZED
	fact_skip("a sanitizer has an allocator and copies of its own");
#endif
}

/* Everything counts from the connection on; the VM runs from the second half on. */
static void begin(struct stage *s, bool urgent)
{
	stage_open(s, &(struct stage_options){ .urgent = urgent, .watch = &watched });
	for (int i = 0; urgent && i < 1000 && !s->loop->bulk; i++)
		usleep(1000);
}

static void whole_session(struct stage *s, bool urgent)
{
	stage_touch(s, STAGE_MAIN, 0, STAGE_PAGES / 2);
	stage_touch(s, 1, 0, STAGE_PAGES / 2);
	stage_wait_parked(s, STAGE_PAGES);
	stage_send(s, urgent, 0, STAGE_PAGES / 4);
	stage_send(s, false, STAGE_PAGES / 4, STAGE_PAGES - STAGE_PAGES / 4);
	for (unsigned who = 0; who < 2; who++)
		stage_wait_seen(s, who, 0, STAGE_PAGES / 2);
	/* one leaves, one is told off: that is not set-up either */
	stage_gone(s, 1);
	stage_look(s);
	stage_end(s);
	stage_wait_shut(s);
	stage_wait_state(s, SESSION_COMPLETE);
}

static void no_heap(bool urgent)
{
	struct stage s;

	need_interposition();
	begin(&s, urgent);
	/* the bulk thread was started by the fault thread */
	expect(!urgent || atomic_load(&heap_calls) > 0);
	atomic_store(&heap_calls, 0);
	whole_session(&s, urgent);
	expect_eq(atomic_load(&heap_calls), 0);
	stage_close(&s);
}

static void no_copy(bool urgent)
{
	struct stage s;

	need_interposition();
	begin(&s, urgent);
	/* the package was gathered there */
	expect(atomic_load(&page_copies) > 0);
	atomic_store(&page_copies, 0);
	whole_session(&s, urgent);
	expect_eq(atomic_load(&page_copies), 0);
	stage_close(&s);
}

static uint64_t system_calls(struct stage *s)
{
	const struct snapshot *look = stage_look(s);

	return look->stats.ring_syscalls + look->stats.other_syscalls;
}

/* One fault after the other, each answered alone. */
static double calls_of_a_fault(struct stage *s, unsigned first, unsigned n)
{
	/* looking costs some, too */
	uint64_t idle = system_calls(s), before = system_calls(s), calls;

	for (unsigned page = first; page < first + n; page++) {
		stage_touch(s, STAGE_MAIN, page, 1);
		while (!s->requested[page])
			stage_hear(s, 100);
		stage_send(s, s->options.urgent, page, 1);
		stage_wait_seen(s, STAGE_MAIN, page, 1);
	}
	calls = system_calls(s) - before - (before - idle);
	return (double)calls / n;
}

/* The best of some rounds: a busy machine may split what could be received at once. */
static void system_calls_of_a_fault(bool urgent)
{
	double best = 1000;
	struct stage s;

	begin(&s, urgent);
	for (unsigned round = 0; round < ROUNDS; round++) {
		double now = calls_of_a_fault(&s, round * ROUND_N, ROUND_N);

		best = now < best ? now : best;
	}
	tap_note("%.2f system calls for an urgent fault", best);
	expect(best > 1);
	expect(best <= SYSCALLS);
	stage_close(&s);
}

static void no_heap_single(void)
{
	no_heap(false);
}

static void no_heap_urgent(void)
{
	no_heap(true);
}

static void no_copy_single(void)
{
	no_copy(false);
}

static void no_copy_urgent(void)
{
	no_copy(true);
}

static void system_calls_single(void)
{
	system_calls_of_a_fault(false);
}

static void system_calls_urgent(void)
{
	system_calls_of_a_fault(true);
}

static const struct fact facts[] = {
	{ "no heap call in the fault thread after RUN, single lane", no_heap_single },
	{ "no heap call in the fault thread after RUN, urgent lane", no_heap_urgent },
	{ "no copy of a 4 KiB page in user space, single lane", no_copy_single },
	{ "no copy of a 4 KiB page in user space, urgent lane", no_copy_urgent },
	{ "at most 5 system calls for an urgent fault, single lane", system_calls_single },
	{ "at most 5 system calls for an urgent fault, urgent lane", system_calls_urgent },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
