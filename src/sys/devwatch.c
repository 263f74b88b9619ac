/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a call of the kernel without a timeout gets a deadline.
 *
 * A device's driver may keep an ioctl, a read or a write for as long as it likes: until its
 * firmware answers, or until page requests are answered, which need the pages that this process
 * serves.  So calls on a device are made by a thread of its own, which may wait.  The thread says
 * which call it makes and until when (devwatch_enter).  A watchdog, the main loop, looks now and
 * then; when the time has passed it does two things, in this order:
 *
 *   interrupt  A signal to the thread.  A driver that sleeps interruptibly comes back, and the call
 *              ends with -ETIMEDOUT in the thread itself.  A signal that arrives too early is lost,
 *              so the watchdog does it at every look, as long as the same call is out.
 *   give up    A driver that sleeps uninterruptibly does not come back, and nothing can make it.
 *              The watchdog goes on without the thread.  Should the call return after all, its
 *              result does not count, and the thread makes no other.
 *
 * Nobody ever waits for such a thread, the fault thread least of all: what the watchdog reads is a
 * few words that the thread writes.
 *
 * The signal is SIGURG: it is ignored by default, so that none is fatal, and nothing else here
 * uses it.  Its handler does nothing but exist, without SA_RESTART, so that the call ends.
 */
#include "config.h"

#include "sys/devwatch.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sys/clock.h"

/**
 * devwatch_init - no call is made
 */
void devwatch_init(struct devwatch *w)
{
	atomic_init(&w->since, 0);
	atomic_init(&w->until, 0);
	atomic_init(&w->what, NULL);
	atomic_init(&w->tid, 0);
	atomic_init(&w->given_up, false);
}

static uint64_t end_of(uint64_t since, uint64_t limit_ns)
{
	if (limit_ns == 0 || limit_ns >= DEVWATCH_NEVER - since)
		return DEVWATCH_NEVER;
	return since + limit_ns;
}

/**
 * devwatch_enter - say that a call begins
 *
 * Return: when it should be over (DEVWATCH_NEVER without a limit), or 0 when it must not begin.
 */
uint64_t devwatch_enter(struct devwatch *w, const char *what, uint64_t limit_ns)
{
	uint64_t since = clock_ns(), until = end_of(since, limit_ns);

	if (atomic_load_explicit(&w->given_up, memory_order_relaxed))
		return 0;
	atomic_store_explicit(&w->what, what, memory_order_relaxed);
	atomic_store_explicit(&w->tid, (pid_t)syscall(SYS_gettid), memory_order_relaxed);
	atomic_store_explicit(&w->until, until, memory_order_relaxed);
	/* Last, and never the same twice: who finds it unchanged has read what belongs to it. */
	atomic_store_explicit(&w->since, since, memory_order_release);
	return until;
}

/**
 * devwatch_leave - say that the call is over
 */
bool devwatch_leave(struct devwatch *w)
{
	atomic_store_explicit(&w->since, 0, memory_order_release);
	return !atomic_load_explicit(&w->given_up, memory_order_relaxed);
}

/**
 * devwatch_look - which call is being made, and since when?
 */
bool devwatch_look(const struct devwatch *w, struct devwatch_call *out)
{
	out->since = atomic_load_explicit(&w->since, memory_order_acquire);
	out->what = atomic_load_explicit(&w->what, memory_order_relaxed);
	out->until = atomic_load_explicit(&w->until, memory_order_relaxed);
	atomic_thread_fence(memory_order_acquire);
	return out->since != 0 &&
	       atomic_load_explicit(&w->since, memory_order_relaxed) == out->since;
}

/**
 * devwatch_interrupt - have the call that was seen end with EINTR, if it can be
 *
 * The call may end in this moment, and the signal come later: every call of a thread that is
 * watched takes EINTR for "once more" until its time has passed.
 */
int devwatch_interrupt(const struct devwatch *w, const struct devwatch_call *seen)
{
	pid_t tid = atomic_load_explicit(&w->tid, memory_order_relaxed);

	if (atomic_load_explicit(&w->since, memory_order_acquire) != seen->since)
		return -ESRCH;
	return syscall(SYS_tgkill, getpid(), tid, SIGURG) == 0 ? 0 : -errno;
}

/**
 * devwatch_give_up - nobody waits for the thread any more
 */
void devwatch_give_up(struct devwatch *w)
{
	atomic_store_explicit(&w->given_up, true, memory_order_relaxed);
}

static void exist(int signo)
{
	(void)signo;
}

/**
 * devwatch_prepare - let the signal interrupt
 */
int devwatch_prepare(void)
{
	struct sigaction act = { .sa_handler = exist };

	sigemptyset(&act.sa_mask);
	return sigaction(SIGURG, &act, NULL) == 0 ? 0 : -errno;
}
