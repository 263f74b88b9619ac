/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device behind vfio-user, against a server of our own: its state is saved and loaded in both
 * generations, its DMA is answered, and whatever the server does wrong, at whichever answer, ends
 * in a named error and never in a wrong state.  (F29, F38, F39, S3-33)
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "tap.h"
#include "vfiouser.h"
#include "vfiouser_side.h"

#define SHORT (UINT64_C(1) * 1000000000) /* for a server that says nothing */
#define STEPS 400			 /* of any conversation here */

/* --- from one to the other ------------------------------------------------------------------ */

/* What every conversation has before and after: the device is looked at, has memory, is told. */
static int greet(struct side *s)
{
	struct devio_dma r = { SIDE_IOVA, SIDE_MEMORY, PROT_READ | PROT_WRITE, NULL, -1, 0 };
	struct devio_info info;
	struct vfiocaps_region bar;
	int err = devio_info(&s->dev, &info);

	if (!err && !(info.flags & DEVIO_RESET))
		return -EBADF;
	err = err ? err : devio_region(&s->dev, VFIOUSER_BAR, &bar);
	err = err ? err : devio_dma_map(&s->dev, &r);
	err = err ? err : side_bar_write(s, VFIOUSER_REG_ADDRESS, SIDE_IOVA + 8);
	err = err ? err : side_bar_write(s, VFIOUSER_REG_VALUE, 42);
	return err ? err : side_bar_write(s, VFIOUSER_REG_COMMAND, 1);
}

static int finish(struct side *s, uint64_t *sum)
{
	int err = side_digest(s, sum);

	err = err ? err : devio_dma_unmap(&s->dev, SIDE_IOVA, SIDE_MEMORY);
	return err ? err : devio_reset(&s->dev);
}

static int out_of(const char *server, uint64_t limit, struct carried *c)
{
	bool first = strstr(server, "generation=1") != NULL;
	struct side s;
	int err = side_open_for(&s, server, limit, false);

	c->len = c->n = 0;
	err = err ? err : greet(&s);
	err = err ? err : side_save(&s, first ? 1 : 2, c);
	side_close(&s);
	return err;
}

static int into(const char *server, uint64_t limit, const struct carried *c, uint64_t *sum)
{
	bool first = strstr(server, "generation=1") != NULL;
	struct side s;
	int err = side_open_for(&s, server, limit, false);

	err = err ? err : greet(&s);
	err = err ? err : side_load(&s, first ? 1 : 2, c);
	err = err ? err : finish(&s, sum);
	side_close(&s);
	return err;
}

static int digest_of(const char *server, uint64_t *sum)
{
	struct side s;
	int err = side_open(&s, server);

	err = err ? err : side_digest(&s, sum);
	side_close(&s);
	return err;
}

static void carry(const char *source, const char *dest)
{
	static struct carried c;
	uint64_t want = 0, was = 0, sum = 0;
	int err = digest_of(source, &want);

	err = err ? err : digest_of(dest, &was);
	err = err ? err : out_of(source, SIDE_LIMIT, &c);
	err = err ? err : into(dest, SIDE_LIMIT, &c, &sum);
	tap_ok(err == 0 && sum == want && want != was, "F29 from %s to %s: %d, %zu bytes", source,
	       dest, err, c.len);
}

static void carries(void)
{
	carry("generation=2,seed=7", "generation=2,seed=8");
	carry("generation=2,seed=7,pad=off,data=1000", "generation=2,seed=8,data=513");
	carry("generation=2,seed=7,size=0", "generation=2,seed=8");
	carry("generation=2,seed=7,twin=off", "generation=2,seed=8,reset=keep");
	carry("generation=1,seed=7", "generation=1,seed=8");
	carry("generation=1,seed=7,map=off,segment=1001,data=300", "generation=1,seed=8,segment=1001");
	carry("generation=1,seed=7,segment=16K", "generation=1,seed=8,map=off,segment=16K");
}

/* --- what the server does wrong ------------------------------------------------------------- */

static const struct {
	const char *vice;
	int err; /* of the conversation */
} vices[] = {
	{ "die", -ECONNRESET },	  { "die-half", -ECONNRESET }, { "id", -EPROTO },
	{ "type", -EPROTO },	  { "command", -EPROTO },      { "tiny", -EPROTO },
	{ "huge", -EPROTO },	  { "short", -EPROTO },	       { "long", -EPROTO },
	{ "error-body", -EPROTO }, { "error", -EBUSY },
};

/* One byte more or less can be padding: then the state has to be the right one. */
static bool harmless(const char *vice)
{
	return strcmp(vice, "short") == 0 || strcmp(vice, "long") == 0;
}

/* Answers of a conversation that goes well. */
static unsigned steps(const char *server, const struct carried *c)
{
	static struct carried scratch;
	char text[128];
	uint64_t sum;
	unsigned n = 0;
	int err;

	do {
		snprintf(text, sizeof(text), "%s,vice=die,at=%u", server, n);
		err = c ? into(text, SIDE_LIMIT, c, &sum) : out_of(text, SIDE_LIMIT, &scratch);
	} while (err && ++n < STEPS);
	return n;
}

/* How many answers led to something else than they should. */
static unsigned astray(const char *server, unsigned i, unsigned n, const struct carried *good,
		       bool loading)
{
	static struct carried c;
	unsigned wrong = 0;

	for (unsigned at = 0; at < n; at++) {
		char text[128];
		uint64_t sum = 0, want = 0;
		int expect = at == 0 && vices[i].err == -EBUSY ? -EPROTO : vices[i].err, err;
		bool same;

		snprintf(text, sizeof(text), "%s,vice=%s,at=%u", server, vices[i].vice, at);
		err = loading ? into(text, SIDE_LIMIT, good, &sum) : out_of(text, SIDE_LIMIT, &c);
		if (err == expect)
			continue;
		same = loading || (c.len == good->len && !memcmp(c.bytes, good->bytes, c.len));
		if (err == 0 && harmless(vices[i].vice) && same &&
		    (!loading || (digest_of("seed=7,size=9000", &want) == 0 && sum == want)))
			continue;
		tap_note("%s: %d, not %d", text, err, expect);
		wrong++;
	}
	return wrong;
}

static void go_wrong(const char *server, bool loading)
{
	static struct carried good;
	unsigned n;

	if (out_of(server, SIDE_LIMIT, &good))
		tap_bail_out("%s cannot be saved", server);
	n = steps(server, loading ? &good : NULL);
	tap_note("%s: %u answers when %s", server, n, loading ? "loaded" : "saved");
	for (unsigned i = 0; i < ARRAY_LEN(vices); i++)
		tap_ok(n > 10 && n < STEPS && astray(server, i, n, &good, loading) == 0,
		       "F39 %s at each answer, %s %s", vices[i].vice, server,
		       loading ? "loaded" : "saved");
}

static void vicious(void)
{
	go_wrong("generation=2,seed=7,size=9000", false);
	go_wrong("generation=2,seed=7,size=9000", true);
	go_wrong("generation=1,seed=7,size=9000", false);
	go_wrong("generation=1,seed=7,size=9000", true);
}

static void silent(void)
{
	static const char *const servers[] = {
		"generation=2,vice=silent,at=0",
		"generation=2,vice=silent,at=1",
		"generation=2,vice=silent,at=9",
		"generation=1,vice=silent,at=9",
		"generation=2,vice=flood,at=5",
		"generation=2,vice=flood,at=5,twin=off",
	};
	static struct carried c;

	for (size_t i = 0; i < ARRAY_LEN(servers); i++)
		tap_ok(out_of(servers[i], SHORT, &c) == -ETIMEDOUT, "no hang with %s", servers[i]);
}

/* An answer that comes after its time is the answer to nothing, and what follows is not harmed. */
static void late(void)
{
	struct side s;
	struct devio_info info;
	uint64_t sum;
	int err = side_open_for(&s, "generation=2,vice=late,at=1", SHORT, false), second = -1;

	if (!err) {
		err = devio_info(&s.dev, &info);
		devio_set_limit(&s.dev, SIDE_LIMIT);
		second = side_digest(&s, &sum);
		second = second ? second : devio_info(&s.dev, &info);
	}
	tap_ok(err == -ETIMEDOUT && second == 0, "a late answer is thrown away: %d, %d", err,
	       second);
	side_close(&s);
}

/* What is over stays over, and says how it ended. */
static void over(void)
{
	struct devio_info info;
	struct side s;
	int err = side_open(&s, "vice=id,at=2"), again = 0;

	err = err ? err : devio_info(&s.dev, &info);
	if (!err) {
		err = devio_info(&s.dev, &info);
		again = devio_info(&s.dev, &info);
	}
	tap_ok(err == -EPROTO && again == -EPROTO, "a breach is for good: %d, %d", err, again);
	side_close(&s);
	err = side_open(&s, "vice=die-after,at=1");
	err = err ? err : devio_info(&s.dev, &info);
	if (!err) {
		err = devio_info(&s.dev, &info);
		again = devio_reset(&s.dev);
	}
	tap_ok(err == -ECONNRESET && again == -ECONNRESET, "so is a death: %d, %d", err, again);
	side_close(&s);
	tap_ok(side_open(&s, "vice=version,at=0") == -EPROTO, "a version that was not offered");
	side_close(&s);
}

/* --- what servers restrict ------------------------------------------------------------------ */

static void stopped(void)
{
	struct devio_dma r = { SIDE_IOVA, SIDE_MEMORY, PROT_READ, NULL, -1, 0 };
	struct devio_info info;
	struct side s;
	uint64_t sum;
	uint32_t state = 0;
	int err = side_open(&s, "generation=2");

	err = err ? err : side_set_state(&s, VFIOUSER_STOP);
	tap_ok(!err && devio_dma_map(&s.dev, &r) == -EINVAL &&
		       devio_info(&s.dev, &info) == -EINVAL && devio_reset(&s.dev) == -EINVAL &&
		       side_digest(&s, &sum) == 0,
	       "in STOP only regions and features are left");
	err = err ? err : side_set_state(&s, VFIOUSER_STOP_COPY);
	tap_ok(!err && side_digest(&s, &sum) == -EINVAL &&
		       devio_dma_map(&s.dev, &r) == -EINVAL &&
		       side_get_state(&s, &state) == 0 && state == VFIOUSER_STOP_COPY,
	       "in STOP_COPY not even regions");
	tap_ok(side_set_state(&s, VFIOUSER_PRE_COPY) == -EINVAL &&
		       side_get_state(&s, &state) == 0 && state == VFIOUSER_STOP_COPY,
	       "no way from STOP_COPY to PRE_COPY");
	err = side_set_state(&s, VFIOUSER_RESUMING);
	tap_ok(!err && devio_dma_map(&s.dev, &r) == 0, "in RESUMING memory can be mapped");
	tap_ok(side_set_state(&s, VFIOUSER_RUNNING) == -EINVAL &&
		       side_get_state(&s, &state) == 0 && state == VFIOUSER_RESUMING,
	       "nothing loaded is no state");
	tap_ok(devio_reset(&s.dev) == 0 && side_get_state(&s, &state) == 0 &&
		       state == VFIOUSER_RUNNING,
	       "RESET leads out, to RUNNING");
	side_close(&s);
}

static void resets(void)
{
	struct side s;
	uint32_t state = 0;
	int err = side_open(&s, "generation=2,reset=keep");

	err = err ? err : side_set_state(&s, VFIOUSER_RESUMING);
	err = err ? err : devio_reset(&s.dev);
	tap_ok(!err && side_get_state(&s, &state) == 0 && state == VFIOUSER_RESUMING,
	       "a newer server keeps the state over RESET: who resets looks again");
	side_close(&s);
}

static void features(void)
{
	struct side s;
	uint64_t flags;
	int err = side_open(&s, "generation=2");

	tap_ok(!err && devio_feature_has(&s.dev, 1, DEVIO_GET) == 1 &&
		       devio_feature_has(&s.dev, 2, DEVIO_GET | DEVIO_SET) == 1 &&
		       devio_feature_has(&s.dev, 9, DEVIO_GET) == 0,
	       "F29 features of the second generation");
	side_close(&s);
	err = side_open(&s, "generation=1");
	tap_ok(!err && devio_feature_get(&s.dev, 1, &flags, 8) == -EOPNOTSUPP &&
		       devio_feature_has(&s.dev, 2, DEVIO_GET) == 0,
	       "F29 the first generation has none");
	side_close(&s);
}

/* --- memory --------------------------------------------------------------------------------- */

/* The device writes a value to memory, and reads another one from there. */
static void dma(const char *name, const char *server, bool no_twin, int fd)
{
	struct devio_dma r = { SIDE_IOVA, SIDE_MEMORY, PROT_READ | PROT_WRITE, NULL, fd, 0 };
	struct side s;
	uint64_t there = 0, value = 0;
	int err = side_open_for(&s, server, SIDE_LIMIT, no_twin);

	err = err ? err : devio_dma_map(&s.dev, &r);
	err = err ? err : side_bar_write(&s, VFIOUSER_REG_ADDRESS, SIDE_IOVA + 0x1230);
	err = err ? err : side_bar_write(&s, VFIOUSER_REG_VALUE, 0x1122334455667788);
	err = err ? err : side_bar_write(&s, VFIOUSER_REG_COMMAND, 1);
	if (fd >= 0 && pread(fd, &there, 8, 0x1230) != 8)
		err = -EIO;
	if (fd < 0)
		memcpy(&there, s.memory + 0x1230, 8);
	err = err ? err : side_bar_write(&s, VFIOUSER_REG_VALUE, 0);
	err = err ? err : side_bar_write(&s, VFIOUSER_REG_COMMAND, 2);
	err = err ? err : side_bar_read(&s, VFIOUSER_REG_VALUE, &value);
	tap_ok(!err && there == 0x1122334455667788 && value == there &&
		       s.asked == (fd < 0 ? 2 : 0),
	       "DMA %s: %d, asked %u times", name, err, s.asked);
	err = side_bar_write(&s, VFIOUSER_REG_ADDRESS, SIDE_IOVA + SIDE_MEMORY);
	err = err ? err : side_bar_write(&s, VFIOUSER_REG_COMMAND, 1);
	tap_ok(err == -EFAULT, "DMA %s outside of what is mapped is refused: %d", name, err);
	side_close(&s);
}

static void memory(void)
{
	cleanup_fd int fd = memfd_create("vfiouser-memory", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, SIDE_MEMORY))
		tap_bail_out("no memory");
	dma("on a socket of its own", "generation=2", false, -1);
	dma("between question and answer", "generation=2,twin=off", false, -1);
	dma("not asked to be on its own", "generation=2", true, -1);
	dma("through a descriptor", "generation=2", false, fd);
}

/* --- what the device wrote -------------------------------------------------------------------- */

struct log_report {
	uint64_t iova, length, page_size, bitmap;
};

static int report(struct side *s, uint64_t iova, uint64_t length, uint64_t *bits)
{
	struct log_report r = { iova, length, 4096, (uintptr_t)bits };

	return devio_feature_get(&s->dev, 8, &r, sizeof(r));
}

static int log_start(struct side *s)
{
	uint64_t start[3] = { 4096, 0, 0 }; /* no range is every range */

	return devio_feature_set(&s->dev, 6, start, sizeof(start));
}

static int write_page(struct side *s, unsigned page)
{
	int err = side_bar_write(s, VFIOUSER_REG_ADDRESS, SIDE_IOVA + page * 4096);

	return err ? err : side_bar_write(s, VFIOUSER_REG_COMMAND, 1);
}

static void written(void)
{
	cleanup_fd int fd = memfd_create("vfiouser-memory", MFD_CLOEXEC);
	struct devio_dma r = { SIDE_IOVA, SIDE_MEMORY, PROT_WRITE, NULL, fd, 0 };
	uint64_t bits = UINT64_C(1) << 3;
	struct side s;
	int err = side_open(&s, "generation=2");

	if (fd < 0 || ftruncate(fd, SIDE_MEMORY))
		tap_bail_out("no memory");
	err = err ? err : devio_dma_map(&s.dev, &r);
	tap_ok(!err && report(&s, SIDE_IOVA, SIDE_MEMORY, &bits) == -EINVAL,
	       "F42 nothing is told of what nobody watched: that is an error");
	err = err ? err : log_start(&s);
	err = err ? err : write_page(&s, 1);
	err = err ? err : report(&s, SIDE_IOVA, SIDE_MEMORY, &bits);
	tap_ok(!err && bits == 0xa, "S4-18 what is told adds to what was known: %d, %#llx", err,
	       (unsigned long long)bits);
	bits = 0;
	err = err ? err : report(&s, SIDE_IOVA, SIDE_MEMORY, &bits);
	tap_ok(!err && bits == 0, "S4-18 and is told once: %d, %#llx", err,
	       (unsigned long long)bits);
	tap_ok(report(&s, SIDE_IOVA, 0x1000, &bits) == -EINVAL &&
		       report(&s, 0x10000000, 0x1000, &bits) == -ENOENT &&
		       report(&s, SIDE_IOVA, 0x1001, &bits) == -EINVAL &&
		       report(&s, SIDE_IOVA, UINT64_C(1) << 40, &bits) == -E2BIG,
	       "F42 a part of a mapping, none, no pages, and too many are errors");
	err = devio_feature_set(&s.dev, 7, NULL, 0);
	tap_ok(!err && report(&s, SIDE_IOVA, SIDE_MEMORY, &bits) == -EINVAL && bits == 0,
	       "F42 after the end nothing is told");
	side_close(&s);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	carries();
	stopped();
	resets();
	features();
	memory();
	written();
	over();
	silent();
	late();
	vicious();
	return tap_done();
}
