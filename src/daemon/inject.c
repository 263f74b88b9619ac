/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What any thread can do at any point: sleep, which is what a service that hangs looks like, and
 * die.  Nothing is flushed or told before it dies: whoever survives us must live with what stands
 * at that very moment.
 */
#include "config.h"
#include "daemon/inject.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "sys/clock.h"

static void die(enum faultplan_point point, const struct faultplan_order *order)
{
	static const int signals[FAULTPLAN_DEATHS] = {
		[FAULTPLAN_KILL] = SIGKILL, [FAULTPLAN_ABORT] = SIGABRT, [FAULTPLAN_SEGV] = SIGSEGV,
	};

	dprintf(STDERR_FILENO, "postcopyd: dies at %s, as rule %u says\n",
		faultplan_points[point].name, order->rule);
	signal(signals[order->arg], SIG_DFL);
	kill(getpid(), signals[order->arg]);
	while (true)
		pause();
}

static void stall(uint64_t ms)
{
	struct timespec left = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		continue;
}

/**
 * inject_meet - somebody comes past a point that has rules
 * @e: the time is filled in
 * @out: what the caller has to do
 *
 * Return: is there anything for the caller to do?  To sleep and to die is done here.
 */
bool inject_meet(struct faultplan *plan, enum faultplan_point point, struct faultplan_event *e,
		 struct faultplan_order *out)
{
	e->now = clock_ns();
	if (!faultplan_ask(plan, point, e, out))
		return false;
	if (out->action == FAULTPLAN_DIE)
		die(point, out);
	if (out->action == FAULTPLAN_STALL)
		stall(out->arg);
	return out->action != FAULTPLAN_DIE && out->action != FAULTPLAN_STALL;
}
