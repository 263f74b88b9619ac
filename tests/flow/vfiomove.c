/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device from one vfio-user server to another, as core/devgroup.h plans it and sys/migdev.h does
 * it, in both generations (F29, F34, F36); and with one answer, any of them, that is wrong.  Then
 * one thing counts: the device at the destination has the state that was saved and runs, or nobody
 * believes that it has (S3-08, S3-46).
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/guard.h"
#include "devmove.h"
#include "tap.h"
#include "vfiouser.h"
#include "vfiouser_side.h"

#define STEPS 400 /* answers of any conversation here */

struct end {
	struct side side;
	struct migdev mig;
	struct devgroup group;
};

static struct devmove_stream saved;

static int end_up(struct end *e, const char *server, bool arriving)
{
	const struct devgroup_config config = { .limit = 1 };
	struct devio_dma dma = { SIDE_IOVA, SIDE_MEMORY, PROT_READ | PROT_WRITE, NULL, -1, 0 };
	struct devgroup_facts facts = { .vpri = false };
	int err = side_open(&e->side, server);

	e->mig = (struct migdev){ .io = NULL };
	devgroup_init(&e->group, &config, arriving);
	err = err ? err : devio_dma_map(&e->side.dev, &dma);
	err = err ? err : migdev_probe(&e->mig, &e->side.dev);
	facts.caps = e->mig.caps;
	return err ? err : devgroup_add(&e->group, &facts);
}

static void end_down(struct end *e)
{
	migdev_deinit(&e->mig);
	side_close(&e->side);
}

/* To a stage, if all went well until it. */
static int go(struct end *e, enum devgroup_stage goal)
{
	int err = devgroup_go(&e->group, goal);

	err = err ? err : devmove_run(&e->group, &e->mig, &saved);
	err = err ? err : e->group.error;
	return err ? err : e->group.stage == goal ? 0 : -EBADE;
}

static int depart(struct end *e)
{
	int err = go(e, DEVGROUP_PRECOPY);

	if (!err && e->mig.state == VFIOSTATE_PRECOPY)
		err = devmove_save(&e->mig, &saved);
	return err ? err : go(e, DEVGROUP_STOPPED);
}

static int arrive(struct end *e)
{
	int err = go(e, DEVGROUP_LOADED);

	err = err ? err : go(e, DEVGROUP_RUNNING);
	return !err && e->group.device[0].lost ? -EBADE : err;
}

/* What the device at @dest is in the end, if everybody believes that it came over. */
static int move(const char *source, const char *dest, uint64_t *sum)
{
	static struct end a, b;
	int err;

	saved.len = saved.n = 0;
	err = end_up(&a, source, false);
	err = err ? err : depart(&a);
	end_down(&a);
	if (err)
		return err;
	err = end_up(&b, dest, true);
	err = err ? err : arrive(&b);
	err = err ? err : side_digest(&b.side, sum);
	end_down(&b);
	return err;
}

static uint64_t digest_of(const char *server)
{
	struct side s;
	uint64_t sum = 0;

	if (side_open(&s, server) || side_digest(&s, &sum))
		tap_bail_out("%s does not answer", server);
	side_close(&s);
	return sum;
}

static void moves(const char *source, const char *dest)
{
	uint64_t want = digest_of(source), sum = 0;
	int err = move(source, dest, &sum);

	tap_ok(err == 0 && sum == want && want != digest_of(dest),
	       "F29 F34 F36 %s goes to %s: %d, %zu bytes in %u segments", source, dest, err,
	       saved.len, saved.n);
}

/* --- back ----------------------------------------------------------------------------------- */

static void comes_back(const char *server)
{
	static struct end a;
	uint64_t want = digest_of(server), sum = 0;
	int err;

	saved.len = saved.n = 0;
	err = end_up(&a, server, false);
	err = err ? err : depart(&a);
	err = err ? err : devgroup_abort(&a.group);
	err = err ? err : devmove_run(&a.group, &a.mig, &saved);
	err = err ? err : side_digest(&a.side, &sum);
	tap_ok(err == 0 && sum == want && a.mig.state == VFIOSTATE_RUNNING &&
		       !a.group.device[0].lost,
	       "F60 S0-22 %s was saved, and runs on: %d", server, err);
	end_down(&a);
}

/* What is no state: the device is reset, runs as nobody's, and is known to be lost. */
static void nonsense(const char *source, const char *dest)
{
	static struct end b;
	uint64_t sum = 0;
	int err = move(source, dest, &sum);

	saved.bytes[saved.len / 2] ^= 1;
	err = err ? err : end_up(&b, dest, true);
	err = err ? err : arrive(&b);
	tap_ok(err < 0 && b.group.device[0].lost && b.mig.state == VFIOSTATE_RUNNING &&
		       side_digest(&b.side, &sum) == 0 && sum == digest_of(dest),
	       "F30 S3-46 %s with one bit turned costs the device: %d", source, err);
	end_down(&b);
}

/* --- one wrong answer ----------------------------------------------------------------------- */

static const char *const vices[] = {
	"die-half", "id", "short", "error", "error-body", "command",
};

/* With the @at-th answer of one side wrong; the other side is as it should be. */
static int move_with(unsigned generation, const char *vice, unsigned at, bool loading,
		     uint64_t *sum)
{
	char good[64], bad[128];

	snprintf(good, sizeof(good), "generation=%u,seed=%u,size=9000", generation,
		 loading ? 7 : 8);
	snprintf(bad, sizeof(bad), "generation=%u,seed=%u,size=9000,vice=%s,at=%u", generation,
		 loading ? 8 : 7, vice, at);
	return loading ? move(good, bad, sum) : move(bad, good, sum);
}

/* Answers of a conversation that goes well. */
static unsigned answers(unsigned generation, bool loading)
{
	uint64_t sum;
	unsigned n = 0;

	while (n < STEPS && move_with(generation, "die", n, loading, &sum))
		n++;
	return n;
}

/* How often the wrong state was believed in; *refusals: how often it came to nothing. */
static unsigned believed(unsigned generation, const char *vice, bool loading, unsigned n,
			 unsigned *refusals)
{
	uint64_t want = digest_of("seed=7,size=9000");
	unsigned wrong = 0;

	*refusals = 0;
	for (unsigned at = 0; at < n; at++) {
		uint64_t sum = 0;
		int err = move_with(generation, vice, at, loading, &sum);

		*refusals += err < 0;
		if (err >= 0 && sum != want) {
			tap_note("%s at %u: believed (%d)", vice, at, err);
			wrong++;
		}
	}
	return wrong;
}

static void vicious(unsigned generation, bool loading)
{
	unsigned n = answers(generation, loading), refusals;

	tap_note("generation %u: %u answers when %s", generation, n, loading ? "loaded" : "saved");
	for (unsigned i = 0; i < ARRAY_LEN(vices); i++) {
		unsigned wrong = believed(generation, vices[i], loading, n, &refusals);

		tap_ok(n > 10 && n < STEPS && wrong == 0 && refusals > n / 2,
		       "S3-08 S3-46 %s, generation %u, %s: refused %u of %u times", vices[i],
		       generation, loading ? "loaded" : "saved", refusals, n);
	}
}

int main(void)
{
	moves("generation=2,seed=7", "generation=2,seed=8");
	moves("generation=2,seed=7,pad=off,data=1000", "generation=2,seed=8,data=513");
	moves("generation=2,seed=7,size=0,twin=off", "generation=2,seed=8,reset=keep");
	moves("generation=1,seed=7", "generation=1,seed=8");
	moves("generation=1,seed=7,map=off,segment=1001,data=300", "generation=1,seed=8");
	moves("generation=1,seed=7,segment=16K", "generation=1,seed=8,map=off,segment=16K");
	comes_back("generation=2,seed=7");
	comes_back("generation=1,seed=7");
	nonsense("generation=2,seed=7", "generation=2,seed=8");
	nonsense("generation=1,seed=7", "generation=1,seed=8");
	for (unsigned generation = 1; generation <= 2; generation++) {
		vicious(generation, false);
		vicious(generation, true);
	}
	return tap_done();
}
