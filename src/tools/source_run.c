// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The order of a migration, as QEMU keeps it:
 *
 *	main thread					return thread
 *	header, ADVISE, block list
 *	precopy						PONG 1
 *	[urgent connection, once a PONG came]
 *	devices stop and are saved
 *	discards, package				from here on: requests -> pages
 *	background, until nothing is owed
 *	[wait for PONG 0x42]
 *	END, end of the stream
 *	wait						SHUT -> wakes the main thread
 *	close our direction				sees the destination close
 *
 * A loss behind the package may be a pause (source_resume.c): then both threads begin anew on the
 * next connection, at the background.
 */
#include "config.h"

#include "source_run.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "core/guard.h"
#include "tools/source_device.h"
#include "tools/source_pace.h"
#include "tools/source_pager.h"
#include "tools/source_precopy.h"
#include "tools/source_resume.h"
#include "tools/source_return.h"
#include "tools/source_stream.h"

#define MS 1000000u /* ns */
#define GLANCE (20 * MS) /* how often a signal is looked for */

static bool has_pong(const struct source_session *s)
{
	return atomic_load(&s->check.pongs) > 0;
}

static bool is_committed(const struct source_session *s)
{
	return atomic_load(&s->check.committed);
}

static bool is_served(const struct source_session *s)
{
	return atomic_load(&s->owed) == 0 || atomic_load(&s->early_eof);
}

static bool never(const struct source_session *s)
{
	(void)s;
	return false;
}

static int dial_urgent(struct source_session *s)
{
	int r = source_lane_dial(&s->urgent, s->options->to);

	if (r < 0)
		source_session_end(s, SOURCE_LOST, "urgent connection: %s", strerror(-r));
	return r < 0 ? -ECONNABORTED : 0;
}

/* --- the postcopy phase --------------------------------------------------------------------- */

/* SIGUSR1 is blocked in every thread: that it is pending says all, and goes on saying it. */
static bool told_to_go_on(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1;
}

/* Until @done, or no request came for the time to linger, or we are told; <0: it is over. */
static int linger(struct source_session *s, bool (*done)(const struct source_session *s))
{
	uint64_t now = source_session_now(), until, next;
	int r = 0;

	atomic_store(&s->asked_at, now);
	while (r == 0 && !told_to_go_on()) {
		until = atomic_load(&s->asked_at) + s->options->linger_ms * MS;
		if (now >= until)
			break;
		next = now + GLANCE;
		r = source_session_wait(s, done, until < next ? until : next);
		now = source_session_now();
	}
	return r;
}

/* Only requests.  Ends when all is served, or with the time to linger. */
static int serve_only(struct source_session *s)
{
	return s->options->has_linger ? linger(s, is_served)
				      : source_session_wait(s, is_served, UINT64_MAX);
}

/* What is claimed but not yet sent at the end is the return thread's: wait for it. */
static int push_rest(struct source_session *s, struct source_pager *p)
{
	struct source_pace pace = source_pace_begin(s->options->rate);
	size_t portion = source_pace_portion(&pace, SOURCE_PAGER_BUFFER);
	int64_t sent;

	while ((sent = source_pager_background(p, portion)) > 0)
		if (source_pace_wait(&pace, s, (uint64_t)sent) < 0)
			return -ECONNABORTED;
	return sent < 0 ? -ECONNABORTED : source_session_wait(s, is_served, UINT64_MAX);
}

static int serve(struct source_session *s, struct source_pager *p)
{
	const struct source_options *o = s->options;

	if (o->no_background && serve_only(s) < 0)
		return -ECONNABORTED;
	if (push_rest(s, p) < 0)
		return -ECONNABORTED;
	if (o->has_linger && !o->no_background && linger(s, never) < 0)
		return -ECONNABORTED;
	return o->commit_ping ? source_session_wait(s, is_committed, UINT64_MAX) : 0;
}

/* --- devices -------------------------------------------------------------------------------- */

/* What is wrong with devices ends the migration. */
static int minded(struct source_session *s, int r)
{
	if (r < 0)
		source_session_end(s, SOURCE_FAILED, "%s", source_devices_problem(s->devices));
	return r < 0 ? -ECONNABORTED : 0;
}

/*
 * The memory is nobody's to write: our vCPUs have always stood still, and what devices may have
 * written is sent as if it had been.  So these steps take no doing, only their order counts.
 */
static int leave(struct source_session *s)
{
	static const enum cutover_step after[] = { CUTOVER_SYNC, CUTOVER_UNTRACK };
	int r;

	source_devices_did(s->devices, CUTOVER_VCPUS_STOP);
	r = source_devices_save(s->devices);
	for (unsigned i = 0; i < ARRAY_LEN(after) && r == 0; i++) {
		r = source_devices_may(s->devices, after[i]);
		source_devices_did(s->devices, after[i]);
	}
	return minded(s, r == 0 ? source_devices_may(s->devices, CUTOVER_DISCARD) : r);
}

/* Behind the discards. */
static int pack(struct source_session *s, struct source_device *d)
{
	size_t len;
	const uint8_t *records = source_devices_records(s->devices, &len);

	source_devices_did(s->devices, CUTOVER_DISCARD);
	if (records && source_device_put_first(d, records, len) < 0) {
		source_session_end(s, SOURCE_FAILED, "out of memory");
		return -ECONNABORTED;
	}
	return minded(s, source_devices_may(s->devices, CUTOVER_PACKAGE));
}

static int postcopy(struct source_session *s, struct source_pager *p, struct source_device *d)
{
	const struct source_options *o = s->options;

	if (source_precopy_run(p, false) < 0 ||
	    minded(s, source_devices_precopy(s->devices)) < 0)
		return -ECONNABORTED;
	if (o->preempt && !o->old_preempt &&
	    (source_session_wait(s, has_pong, UINT64_MAX) < 0 || dial_urgent(s) < 0))
		return -ECONNABORTED;
	if (leave(s) < 0 || source_stream_discard(s) < 0 || pack(s, d) < 0 ||
	    source_stream_package(s, d) < 0)
		return -ECONNABORTED;
	source_devices_did(s->devices, CUTOVER_PACKAGE);
	return serve(s, p) < 0 ? -ECONNABORTED : source_stream_close(s, NULL);
}

static int precopy(struct source_session *s, struct source_pager *p, struct source_device *d)
{
	if (minded(s, source_devices_precopy(s->devices)) < 0 || leave(s) < 0 ||
	    source_precopy_run(p, true) < 0)
		return -ECONNABORTED;
	source_devices_did(s->devices, CUTOVER_DISCARD);
	source_devices_did(s->devices, CUTOVER_PACKAGE);
	return source_stream_close(s, d);
}

/* --- around it ------------------------------------------------------------------------------ */

static void migrate(struct source_session *s, struct source_pager *p)
{
	struct source_device device cleanup_source_device = {0};
	const struct source_options *o = s->options;
	int r = source_device_init(&device, o->device_state);

	if (r < 0) {
		source_session_end(s, SOURCE_FAILED, "device state %s: %s", o->device_state,
				   strerror(-r));
		return;
	}
	source_devices_did(s->devices, CUTOVER_TRACK);
	if (source_stream_open(s) < 0)
		return;
	if ((o->finish_as_precopy ? precopy : postcopy)(s, p, &device) < 0)
		return;
	source_session_wait(s, never, UINT64_MAX);
}

/* Who has the VM now has the devices: they stay as they are, or run again. */
static void hand_over(struct source_session *s)
{
	if (strcmp(source_session_outcome(s), "source-resumes") == 0)
		source_devices_back(s->devices);
	else
		source_devices_did(s->devices, CUTOVER_HAND_OVER);
}

/* After a pause: what the destination lacks, and the end. */
static void go_on(struct source_session *s, struct source_pager *p)
{
	source_pager_start_over(p);
	if (source_resume_shake(s) < 0 || serve(s, p) < 0 || source_stream_close(s, NULL) < 0)
		return;
	source_session_wait(s, never, UINT64_MAX);
}

/* As long as the connections last.  @talk: the main thread's part. */
static int with_return(struct source_session *s, struct source_pager *p,
		       void (*talk)(struct source_session *s, struct source_pager *p))
{
	pthread_t thread;
	int r = -pthread_create(&thread, NULL, source_return_main, s);

	if (r < 0)
		return r;
	talk(s, p);
	source_lane_finish(&s->urgent);
	source_lane_finish(&s->main);
	pthread_join(thread, NULL);
	return 0;
}

static int with_pager(struct source_session *s)
{
	struct source_pager pager;
	int r = source_pager_init(&pager, s, &s->main, false);

	if (r == 0)
		r = with_return(s, &pager, migrate);
	while (r == 0 && source_resume_is_due(s) && source_resume_connect(s) == 0)
		r = with_return(s, &pager, go_on);
	if (r == 0) {
		hand_over(s);
		if (strcmp(source_session_outcome(s), "completed") == 0)
			source_check_complete(&s->check);
	}
	source_pager_deinit(&pager);
	return r;
}

/**
 * source_run - a whole migration, from the first connection to SHUT
 *
 * Return: 0, however it ended (that is in @s); -errno when there was no connection at all.
 */
int source_run(struct source_session *s)
{
	int r = source_lane_dial(&s->main, s->options->to);

	if (r < 0)
		return r;
	if (s->options->old_preempt && dial_urgent(s) < 0)
		return -ECONNREFUSED;
	return with_pager(s);
}
