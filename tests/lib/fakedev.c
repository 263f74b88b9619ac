/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The handle of the model: counts, faults, what is noted as wrong, and the bytes of its state. */
#include "config.h"

#include "fakedev.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/mem.h"

static const char *const words[FAKEDEV_OPS] = {
	[FAKEDEV_INFO] = "info",       [FAKEDEV_DESCRIBE] = "describe", [FAKEDEV_MAP] = "map",
	[FAKEDEV_RESET] = "reset",     [FAKEDEV_STATE] = "state",	[FAKEDEV_CHANGE] = "change",
	[FAKEDEV_ARC] = "arc",	       [FAKEDEV_PENDING] = "pending",	[FAKEDEV_OFFSET] = "offset",
	[FAKEDEV_LENGTH] = "length",   [FAKEDEV_TAKE] = "take",		[FAKEDEV_GIVE] = "give",
	[FAKEDEV_COMMIT] = "commit",   [FAKEDEV_FEATURE] = "feature",	[FAKEDEV_BAR] = "bar",
	[FAKEDEV_PRECOPY] = "precopy", [FAKEDEV_COMMAND] = "command",
	[FAKEDEV_DMA_MAP] = "dma-map", [FAKEDEV_DMA_UNMAP] = "dma-unmap",
};

/* --- what is seen --- */

void fakedev_note(struct fakedev *f, const char *what)
{
	if (!f->wrong[0])
		snprintf(f->wrong, sizeof(f->wrong), "%s (state %u)", what, f->state);
}

const char *fakedev_wrong(const struct fakedev *f)
{
	return f->wrong[0] ? f->wrong : NULL;
}

uint64_t fakedev_loaded(const struct fakedev *f)
{
	return f->s.finished && !f->s.bad ? f->s.seed : 0;
}

void fakedev_trace_clear(struct fakedev *f)
{
	f->trace_len = 0;
	f->trace[0] = '\0';
}

static void trace(struct fakedev *f, const char *word)
{
	size_t len = strlen(word);
	const char *last = f->trace + f->trace_len - len;

	if (f->trace_len >= len && strcmp(last, word) == 0 &&
	    (f->trace_len == len || last[-1] == ' '))
		return;
	if (f->trace_len + len + 2 > sizeof(f->trace))
		return;
	f->trace_len += (size_t)snprintf(f->trace + f->trace_len, len + 2, "%s%s",
					 f->trace_len ? " " : "", word);
}

/* --- faults --- */

void fakedev_fail(struct fakedev *f, enum fakedev_op op, unsigned nth, enum fakedev_effect effect,
		  uint64_t value)
{
	for (unsigned i = 0; i < ARRAY_LEN(f->fault); i++)
		if (!f->fault[i].effect) {
			f->fault[i] = (struct fakedev_fault){ op, nth, effect, value };
			return;
		}
	assert(!"no room for a fault");
}

/* The one for the operation that has just begun; each counts how often it was passed. */
static const struct fakedev_fault *fault_of(const struct fakedev *f, enum fakedev_op op)
{
	for (unsigned i = 0; i < ARRAY_LEN(f->fault); i++)
		if (f->fault[i].effect && f->fault[i].op == op && f->fault[i].nth <= 1)
			return &f->fault[i];
	return NULL;
}

/* After the operation: the next one is one nearer to the fault. */
static void fault_pass(struct fakedev *f, enum fakedev_op op)
{
	for (unsigned i = 0; i < ARRAY_LEN(f->fault); i++) {
		struct fakedev_fault *fault = &f->fault[i];

		if (!fault->effect || fault->op != op || fault->nth == 0)
			continue;
		if (--fault->nth == 0)
			fault->effect = 0;
	}
}

static void broken(struct fakedev *f)
{
	f->state = f->c.version == 1 ? (f->state & ~15u) | 6 : 0;
	f->s.finished = false;
}

static ssize_t faulty(struct fakedev *f, const struct fakedev_fault *fault)
{
	switch (fault->effect) {
	case FAKEDEV_BREAK:
		broken(f);
		break;
	case FAKEDEV_SKIP:
		return 0;
	case FAKEDEV_HANG:
		return -ETIMEDOUT;
	case FAKEDEV_VANISH:
		f->gone = -(int)fault->value;
		break;
	default:
		break;
	}
	return -(ssize_t)fault->value;
}

static bool is_change(enum fakedev_op op)
{
	return op == FAKEDEV_CHANGE || op == FAKEDEV_RESET;
}

/* An error of something that changes the state leaves it open which it is (S3-08). */
static void note_unread(struct fakedev *f, enum fakedev_op op)
{
	if (f->must_look && op != FAKEDEV_STATE && op != FAKEDEV_RESET && op != FAKEDEV_ARC)
		fakedev_note(f, "S3-08: goes on after a failed change without reading the state");
	if (f->must_reset && op == FAKEDEV_CHANGE)
		fakedev_note(f, "S3-46: goes on after bad data without a reset");
	if (op == FAKEDEV_STATE || op == FAKEDEV_RESET)
		f->must_look = false;
	if (op == FAKEDEV_RESET)
		f->must_reset = false;
}

enum fakedev_verdict fakedev_begin(struct fakedev *f, enum fakedev_op op, uint64_t until,
				   ssize_t *ret)
{
	const struct fakedev_fault *fault = fault_of(f, op);

	if (f->before)
		f->before(f->arg, op);
	f->count[op]++;
	trace(f, words[op]);
	note_unread(f, op);
	*ret = f->gone;
	if (f->gone)
		return FAKEDEV_ANSWERED;
	if (!fault)
		return FAKEDEV_GO;
	if (until == DEVWATCH_NEVER &&
	    (fault->effect == FAKEDEV_HANG || fault->effect == FAKEDEV_HANG_DONE))
		fakedev_note(f, "F31: waits for ever");
	if (fault->effect == FAKEDEV_LATE || fault->effect == FAKEDEV_LIE ||
	    fault->effect == FAKEDEV_SHORT || fault->effect == FAKEDEV_HANG_DONE)
		return FAKEDEV_GO;
	*ret = faulty(f, fault);
	if (is_change(op) && *ret < 0)
		f->must_look = true;
	fault_pass(f, op);
	return FAKEDEV_ANSWERED;
}

ssize_t fakedev_end(struct fakedev *f, enum fakedev_op op, ssize_t ret)
{
	const struct fakedev_fault *fault = fault_of(f, op);

	if (fault && fault->effect == FAKEDEV_LATE)
		ret = -(ssize_t)fault->value;
	else if (fault && fault->effect == FAKEDEV_HANG_DONE)
		ret = -ETIMEDOUT;
	else if (fault && fault->effect == FAKEDEV_SHORT && ret >= (ssize_t)fault->value)
		ret -= (ssize_t)fault->value;
	if (is_change(op) && ret < 0)
		f->must_look = true;
	fault_pass(f, op);
	return ret;
}

uint64_t fakedev_says(struct fakedev *f, enum fakedev_op op, uint64_t truth)
{
	const struct fakedev_fault *fault = fault_of(f, op);

	return fault && fault->effect == FAKEDEV_LIE ? fault->value : truth;
}

/* --- what it may do in its state --- */

bool fakedev_running(const struct fakedev *f)
{
	if (f->c.version == 1)
		return f->state & 1;
	return f->state == 2 || f->state >= 5;
}

bool fakedev_quiesced(const struct fakedev *f)
{
	if (f->c.version == 1)
		return f->c.ndma && (f->state & 9) == 9;
	return f->state == 5 || f->state == 7;
}

/* Does one of them begin transfers while another does not answer any (S3-64)? */
static void look_at_bus(struct fakedev *f)
{
	bool active = false, stopped = false;

	for (unsigned i = 0; i < f->bus->n; i++) {
		const struct fakedev *d = f->bus->dev[i];

		active = active || (d->busy && fakedev_running(d) && !fakedev_quiesced(d));
		stopped = stopped || (d->busy && !fakedev_running(d));
	}
	if (active && stopped)
		fakedev_note(f, "S3-64: a device runs while another of its group is stopped");
	if (f->busy && fakedev_running(f) && f->bus->gate && !f->bus->gate(f->bus->arg))
		fakedev_note(f, "F47: runs although memory is missing");
}

void fakedev_moved(struct fakedev *f)
{
	if (f->bus)
		look_at_bus(f);
}

void fakedev_join(struct fakedev *f, struct fakedev_bus *bus)
{
	assert(bus->n < FAKEDEV_BUS);
	bus->dev[bus->n++] = f;
	f->bus = bus;
}

/* --- its state, as bytes --- */

struct head {
	uint32_t magic, seq, len, last;
	uint64_t seed, sum;
};
#define MAGIC 0x6b616564u
_Static_assert(sizeof(struct head) == FAKEDEV_SEGMENT_MIN, "the head is the smallest segment");

static uint64_t rng_of(uint64_t seed, unsigned n)
{
	struct rng r = { .state = seed * 31 + n };

	return rng_next(&r);
}

unsigned fakedev_early(const struct fakedev *f)
{
	return f->c.endless ? UINT_MAX : f->c.early;
}

size_t fakedev_segment_size(const struct fakedev *f, unsigned n)
{
	return FAKEDEV_SEGMENT_MIN +
	       rng_of(f->c.seed, n) % (FAKEDEV_SEGMENT_MAX - FAKEDEV_SEGMENT_MIN);
}

static uint64_t payload(uint64_t seed, unsigned n, uint8_t *out, size_t len)
{
	struct rng r = { .state = seed ^ n };
	uint64_t sum = 0;

	for (size_t i = 0; i < len; i++) {
		out[i] = (uint8_t)rng_next(&r);
		sum = sum * 131 + out[i];
	}
	return sum;
}

void fakedev_segment(const struct fakedev *f, unsigned n, uint8_t *out)
{
	size_t len = fakedev_segment_size(f, n);
	struct head h = { .magic = MAGIC, .seq = n, .len = (uint32_t)len,
			  .last = n + 1 == f->c.segments, .seed = f->c.seed };

	h.sum = payload(h.seed, n, out + sizeof(h), len - sizeof(h));
	memcpy(out, &h, sizeof(h));
}

static bool is_next(const struct fakedev *f, const struct head *h, const uint8_t *bytes, size_t len)
{
	uint64_t sum = 0;

	for (size_t i = sizeof(*h); i < len; i++)
		sum = sum * 131 + bytes[i];
	return h->magic == MAGIC && h->seq == f->s.next && h->len == len && h->sum == sum &&
	       !f->s.last && (h->seq == 0 || h->seed == f->s.seed);
}

bool fakedev_segment_accept(struct fakedev *f, const uint8_t *bytes, size_t len)
{
	struct head h = { 0 };

	if (len >= sizeof(h))
		memcpy(&h, bytes, sizeof(h));
	if (!is_next(f, &h, bytes, len)) {
		f->s.bad = true;
		return false;
	}
	f->s.next++;
	f->s.seed = h.seed;
	f->s.last = h.last;
	return true;
}

void fakedev_session_begin(struct fakedev *f)
{
	uint8_t *seen = f->s.seen;

	memset(seen, 0, FAKEDEV_SIZE);
	f->s = (struct fakedev_session){ .seen = seen };
	f->stream_len = 0;
	if (f->region)
		memset(f->region, 0xdb, FAKEDEV_SIZE);
}

/* --- the transport --- */

static int d_info(void *ctx, struct devio_info *out, uint64_t until)
{
	struct fakedev *f = ctx;
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_INFO, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	*out = (struct devio_info){ .flags = DEVIO_RESET, .regions = FAKEDEV_REGION + 1 };
	return (int)fakedev_end(f, FAKEDEV_INFO, 0);
}

static ssize_t d_region(void *ctx, uint32_t index, void *bytes, size_t room, uint64_t until)
{
	uint8_t whole[256] = { 0 };
	struct fakedev *f = ctx;
	size_t len = 32;
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_DESCRIBE, until, &ret) == FAKEDEV_ANSWERED)
		return ret;
	memcpy(whole, &(uint32_t){ 32 }, 4);
	memcpy(whole + 8, &index, 4);
	if (index > FAKEDEV_REGION)
		return fakedev_end(f, FAKEDEV_DESCRIBE, -EINVAL);
	if (index == 0) {
		whole[4] = 3;
		whole[17] = 0x10;
	}
	if (index == FAKEDEV_CONFIG) {
		whole[4] = 3;
		whole[17] = 1;
	}
	if (index == FAKEDEV_REGION && f->c.version == 1)
		len = fakedev_v1_describe(f, whole);
	assert(len <= room);
	memcpy(bytes, whole, len);
	return fakedev_end(f, FAKEDEV_DESCRIBE, (ssize_t)len);
}

/* A region of the device itself: not to be touched while it is stopped (S3-12). */
static ssize_t bar(struct fakedev *f, size_t len, uint64_t until)
{
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_BAR, until, &ret) == FAKEDEV_ANSWERED)
		return ret;
	if (!fakedev_running(f))
		fakedev_note(f, "S3-12: touches a device that is stopped");
	return fakedev_end(f, FAKEDEV_BAR, (ssize_t)len);
}

static ssize_t d_read(void *ctx, const struct devio_at *at, void *buf, size_t len, uint64_t until)
{
	struct fakedev *f = ctx;

	if (at->region == FAKEDEV_REGION && f->c.version == 1)
		return fakedev_v1_read(f, at, buf, len, until);
	if (at->region == FAKEDEV_CONFIG)
		return fakedev_command(f, at, buf, NULL, len, until);
	if (at->region != 0)
		return -EINVAL;
	memset(buf, 0xff, len);
	return bar(f, len, until);
}

static ssize_t d_write(void *ctx, const struct devio_at *at, const void *buf, size_t len,
		       uint64_t until)
{
	struct fakedev *f = ctx;

	if (at->region == FAKEDEV_REGION && f->c.version == 1)
		return fakedev_v1_write(f, at, buf, len, until);
	if (at->region == FAKEDEV_CONFIG)
		return fakedev_command(f, at, NULL, buf, len, until);
	return at->region == 0 ? bar(f, len, until) : -EINVAL;
}

static int d_map(void *ctx, const struct vfiocaps_region *r, uint64_t offset, uint64_t len,
		 struct devio_map *out)
{
	struct fakedev *f = ctx;
	ssize_t ret;
	void *base;

	if (fakedev_begin(f, FAKEDEV_MAP, DEVWATCH_NEVER, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	if (r->index != FAKEDEV_REGION || f->c.version != 1 || f->c.window == FAKEDEV_TRAPPED)
		return -EINVAL;
	if (offset < 0x1000 ||
	    (f->c.window == FAKEDEV_PARTLY && (offset != 0x1000 || len != 0x1000)))
		fakedev_note(f, "S3-33: maps what must not be mapped");
	base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, f->file, (off_t)offset);
	if (base == MAP_FAILED)
		return -errno;
	*out = (struct devio_map){ .base = base, .len = len, .shared_file = true,
				   .fd = f->file, .at = offset };
	return (int)fakedev_end(f, FAKEDEV_MAP, 0);
}

static int d_reset(void *ctx, uint64_t until)
{
	struct fakedev *f = ctx;
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_RESET, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	f->state = f->c.version == 1 ? f->reserved | 1 : 2;
	f->busy = false;
	f->command = 0;
	fakedev_session_begin(f);
	return (int)fakedev_end(f, FAKEDEV_RESET, 0);
}

static int d_feature(void *ctx, uint32_t flags, void *data, size_t len, uint64_t until)
{
	struct fakedev *f = ctx;

	return f->c.version == 2 ? fakedev_v2_feature(f, flags, data, len, until) : -ENOTTY;
}

static ssize_t d_mig_read(void *ctx, void *buf, size_t len, uint64_t until)
{
	struct fakedev *f = ctx;
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_TAKE, until, &ret) == FAKEDEV_ANSWERED)
		return ret;
	return fakedev_end(f, FAKEDEV_TAKE, fakedev_v2_read(f, buf, len));
}

static ssize_t d_mig_write(void *ctx, const void *buf, size_t len, uint64_t until)
{
	struct fakedev *f = ctx;
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_GIVE, until, &ret) == FAKEDEV_ANSWERED) {
		f->must_reset = f->must_reset || ret < 0;
		return ret;
	}
	ret = fakedev_end(f, FAKEDEV_GIVE, fakedev_v2_write(f, buf, len));
	f->must_reset = f->must_reset || ret < 0;
	return ret;
}

static int d_precopy(void *ctx, struct devio_precopy *out, uint64_t until)
{
	struct fakedev *f = ctx;
	ssize_t ret;

	if (fakedev_begin(f, FAKEDEV_PRECOPY, until, &ret) == FAKEDEV_ANSWERED)
		return (int)ret;
	return (int)fakedev_end(f, FAKEDEV_PRECOPY, fakedev_v2_precopy(f, out));
}

static int d_dma_map(void *ctx, const struct devio_dma *m, uint64_t until)
{
	return fakedev_dma_map(ctx, m, until);
}

static int d_dma_unmap(void *ctx, uint64_t iova, uint64_t size, uint64_t until)
{
	return fakedev_dma_unmap(ctx, iova, size, until);
}

static void d_close(void *ctx)
{
	(void)ctx;
}

static const struct devio_ops model = {
	.info = d_info,
	.region = d_region,
	.read = d_read,
	.write = d_write,
	.map = d_map,
	.reset = d_reset,
	.feature = d_feature,
	.mig_read = d_mig_read,
	.mig_write = d_mig_write,
	.mig_precopy = d_precopy,
	.dma_map = d_dma_map,
	.dma_unmap = d_dma_unmap,
	.close = d_close,
};

/* Time is not real: whatever hangs comes back at once. */
void fakedev_init(struct fakedev *f, const struct fakedev_config *c)
{
	*f = (struct fakedev){ .c = *c, .file = -1, .busy = !c->idle };
	assert(c->segments <= FAKEDEV_SEGMENTS && c->early <= c->segments);
	if (!f->c.data_offset)
		f->c.data_offset = 0x1000;
	f->reserved = c->version == 1 ? UINT32_C(0x40000000) : 0;
	f->state = c->version == 1 ? f->reserved | 1 : 2;
	f->s.seen = calloc(1, FAKEDEV_SIZE);
	f->stream_room = FAKEDEV_SEGMENTS * FAKEDEV_SEGMENT_MAX;
	f->stream = malloc(f->stream_room);
	f->file = mem_blob_new("fakedev", FAKEDEV_SIZE);
	f->region = mem_map_shared(f->file, 0, FAKEDEV_SIZE);
	assert(f->s.seen && f->stream && f->region);
	fakedev_session_begin(f);
	devio_init(&f->dev, &model, f);
	devio_set_limit(&f->dev, UINT64_C(1000000000));
}

void fakedev_deinit(struct fakedev *f)
{
	devio_close(&f->dev);
	mem_unmap(f->region, FAKEDEV_SIZE);
	if (f->file >= 0)
		close(f->file);
	free(f->s.seen);
	free(f->stream);
	*f = (struct fakedev){ .file = -1 };
}
