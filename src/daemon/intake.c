/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main lane until faults are served: the source's blocks, what precopy brings, what the
 * switch-over takes back, and the package.  One handler per record; a record that has no business
 * here halts the session with its position.
 *
 * The lane stands still twice, while the main thread does what only it can do: matching the block
 * list with what sharers registered (NEED_BLOCKS), and proving every sharer once the package is
 * here (NEED_ARM).  The source just waits; before the package it also goes on running its VM.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "daemon/inject.h"
#include "daemon/memoir.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/mem.h"
#include "wire/devsection.h"
#include "wire/qstream.h"

#define TARGET_PAGE	4096u
/* bytes reserved for the tail of a precopy, doubled as it grows */
#define TAIL_FIRST	(1u << 20)

static void need(struct faultloop *f, enum snapshot_need what)
{
	f->need = what;
	f->times.need = clock_ns();
	faultloop_changed(f);
}

/* --- records ---------------------------------------------------------------------------------- */

static int on_header(struct faultloop *f, const struct lane *l)
{
	memcpy(f->machine, l->rec.header.machine, sizeof(f->machine));
	f->page_bits = l->rec.header.page_bits;
	return 0;
}

/*
 * The capability is not on the wire, and a 7.2 source takes the message for an error: the operator
 * says whether it is wanted.
 */
static int on_open_return_path(struct faultloop *f, const struct lane *l)
{
	(void)l;
	if (!f->options.switchover_ack)
		return 0;
	if (!outbox_room(&f->outbox)) {
		verdict_halt(
			f, EPROTO,
			"the source opens its return path again and again, and does not read it");
		return -EPROTO;
	}
	outbox_switchover_ack(&f->outbox);
	return 0;
}

/* O15: -ENODATA when a page has neither come nor been named as one that will. */
static int refuse_never_sent(struct faultloop *f, uint64_t page)
{
	const struct block *b;

	if (page == f->engine.blocks.pages)
		return 0;
	b = block_of_page(&f->engine.blocks, page);
	verdict_halt(f, ENODATA,
		     "block %s offset 0x%" PRIx64
		     " was neither sent nor discarded before the switch-over (a "
		     "virtio-mem device's unplugged range is not supported yet): refused",
		     b->name, block_offset(b, page));
	return -ENODATA;
}

/*
 * A source older than 10.2 has no way back once its package is sent, so what engine_package() would
 * refuse is looked for as soon as the discards are over: QEMU has a PING there, and saves its
 * devices only then.
 */
static int check_named(struct faultloop *f)
{
	uint64_t pages = f->engine.blocks.pages;

	return refuse_never_sent(f, ledger_find(&f->engine.ledger, 0, pages, PAGE_NEVER));
}

/*
 * Answered at once.  A preempt source waits for one PONG before it opens its urgent channel,
 * whatever the value.
 */
static int on_ping(struct faultloop *f, const struct lane *l)
{
	if (!outbox_room(&f->outbox)) {
		verdict_halt(f, EPROTO, "the source sends PINGs faster than it reads the answers");
		return -EPROTO;
	}
	outbox_pong(&f->outbox, l->rec.ping);
	return f->engine.session.state == SESSION_DISCARDING ? check_named(f) : 0;
}

static int on_advise(struct faultloop *f, const struct lane *l)
{
	if (l->rec.advise.page_size != TARGET_PAGE) {
		verdict_halt(f, EPROTO,
			     "the source's target pages are %" PRIu64
			     " bytes; only %u is supported",
			     l->rec.advise.page_size, TARGET_PAGE);
		return -EPROTO;
	}
	if (faultloop_feed(f, SESSION_ADVISE) < 0)
		return -EPROTO;
	inject_moment(f->faults, FAULTPLAN_AT_ADVISED);
	return 0;
}

static int on_block(struct faultloop *f, const struct lane *l)
{
	f->listed[f->n_listed++] = l->rec.block;
	return 0;
}

static int on_blocks_end(struct faultloop *f, const struct lane *l)
{
	f->ram_section = l->stream.ram_section;
	inject_moment(f->faults, FAULTPLAN_AT_BLOCKS);
	f->footers = l->stream.footers;
	need(f, NEED_BLOCKS);
	return 0;
}

static bool has_data(const struct faultloop *f, unsigned block, uint64_t offset)
{
	enum page_state state = ledger_get(&f->engine.ledger,
					   block_page(&f->engine.blocks.block[block], offset));

	return state == PAGE_PRESENT || state == PAGE_STORED;
}

/*
 * Precopy data is written, not placed: nobody may touch the memory before LISTENING.  Pages come
 * any number of times and in any state, so zeroes must take effect where something was written
 * before.
 */
static int on_page(struct faultloop *f, const struct lane *l)
{
	unsigned block = l->rec.page.block;
	uint64_t offset = l->rec.page.offset;
	bool zero = l->event == QSTREAM_ZERO;
	int ret;

	if (l->event == QSTREAM_XBZRLE)
		ret = backing_delta(&f->backing[block], offset, TARGET_PAGE, l->rec.page.data,
				    l->rec.page.len);
	else
		ret = backing_write(&f->backing[block], offset, zero ? NULL : l->rec.page.data,
				    TARGET_PAGE, has_data(f, block, offset));
	if (ret < 0) {
		verdict_halt(f, -ret, "block %s offset 0x%" PRIx64 ": cannot take precopy data: %s",
			     f->engine.blocks.block[block].name, offset,
			     ret == -EFAULT ? "its file was truncated, or has no room" :
					      strerror(-ret));
		return ret;
	}
	engine_received(&f->engine, block, offset, TARGET_PAGE, zero);
	return 0;
}

/*
 * Engine first: it knows whether the session allows it (O7).  The first discard is where the
 * switch-over begins.
 */
static int on_discard(struct faultloop *f, const struct lane *l)
{
	unsigned block = l->rec.discard.block;
	bool first = f->engine.session.state == SESSION_ADVISED;
	int ret = engine_discard(&f->engine, block, l->rec.discard.start, l->rec.discard.length);

	if (ret == 0)
		ret = backing_discard(&f->backing[block], l->rec.discard.start,
				      l->rec.discard.length);
	if (ret < 0) {
		verdict_halt(f, -ret,
			     "discard of block %s, 0x%" PRIx64 " bytes at 0x%" PRIx64
			     " is not possible in "
			     "state %s: %s",
			     f->engine.blocks.block[block].name, l->rec.discard.length,
			     l->rec.discard.start, session_state_name(f->engine.session.state),
			     strerror(-ret));
		return ret;
	}
	if (first) {
		f->times.state = clock_ns();
		faultloop_changed(f);
		inject_moment(f->faults, FAULTPLAN_AT_SWITCHOVER);
	}
	return 0;
}

static int on_nothing(struct faultloop *f, const struct lane *l)
{
	(void)f;
	(void)l;
	return 0;
}

/* Its length is known, so the body is gathered in one piece. */
static int on_packaged(struct faultloop *f, const struct lane *l)
{
	uint32_t size = l->rec.packaged;
	int ret = check_named(f);

	if (ret < 0)
		return ret;
	if (size == 0 || size > f->options.max_package) {
		verdict_halt(f, EFBIG,
			     "the package has %" PRIu32 " bytes; --max-package allows %" PRIu64,
			     size, f->options.max_package);
		return -EFBIG;
	}
	f->body = malloc(size);
	if (!f->body) {
		verdict_halt(f, ENOMEM, "no memory for a package of %" PRIu32 " bytes", size);
		return -ENOMEM;
	}
	f->body_size = size;
	f->body_have = 0;
	inject_moment(f->faults, FAULTPLAN_AT_PACKAGE_BEGUN);
	return 0;
}

/*
 * It finished as precopy: from here on there is device state without lengths, up to the end that
 * only its own tail shows.
 */
static int on_tail(struct faultloop *f, const struct lane *l)
{
	(void)l;
	if (f->tail) {
		verdict_halt(f, EPROTO, "bytes behind the end of the device state");
		return -EPROTO;
	}
	f->tail = true;
	f->body_size = TAIL_FIRST;
	f->body_have = 0;
	f->body = malloc(f->body_size);
	if (!f->body)
		verdict_halt(f, ENOMEM, "no memory for the device state");
	return f->body ? 0 : -ENOMEM;
}

static int on_eof(struct faultloop *f, const struct lane *l)
{
	(void)l;
	f->main_eof = true;
	faultloop_changed(f);
	return 0;
}

typedef int record_handler(struct faultloop *f, const struct lane *l);

/**
 * intake_record - handle the record that lane_next() found
 * @l: the main lane, with event and record
 *
 * Return: false when nothing more may be read now: the session was halted, or the main thread has
 * to do something first (f->need).
 */
bool intake_record(struct faultloop *f, struct lane *l)
{
	static record_handler *const handlers[] = {
		[QSTREAM_HEADER] = on_header,	  [QSTREAM_OPEN_RETURN_PATH] = on_open_return_path,
		[QSTREAM_PING] = on_ping,	  [QSTREAM_ADVISE] = on_advise,
		[QSTREAM_BLOCK] = on_block,	  [QSTREAM_BLOCKS_END] = on_blocks_end,
		[QSTREAM_PAGE] = on_page,	  [QSTREAM_ZERO] = on_page,
		[QSTREAM_XBZRLE] = on_page,	  [QSTREAM_DISCARD] = on_discard,
		[QSTREAM_SECTION] = on_nothing,	  [QSTREAM_SWITCHOVER_START] = on_nothing,
		[QSTREAM_PACKAGED] = on_packaged, [QSTREAM_RAM_END] = on_nothing,
		[QSTREAM_TAIL] = on_tail,	  [QSTREAM_EOF] = on_eof,
	};
	record_handler *handler = (unsigned)l->event < ARRAY_LEN(handlers) ? handlers[l->event] :
									     NULL;

	if (!handler) {
		verdict_halt(f, EPROTO, "unexpected record at byte %" PRIu64 " of the stream",
			     l->stream.position);
		return false;
	}
	if (handler(f, l) < 0)
		return false;
	return f->need == NEED_NOTHING;
}

/* --- the package ------------------------------------------------------------------------------ */

/* Everything of the switch-over is here: the session listens as soon as every sharer is proven. */
static void package_complete(struct faultloop *f)
{
	uint64_t page;
	int ret = engine_package(&f->engine, &page);

	if (ret == -ENODATA) {
		refuse_never_sent(f, page);
		return;
	}
	if (ret < 0) {
		verdict_halt(f, -ret, "a package in state %s",
			     session_state_name(f->engine.session.state));
		return;
	}
	f->times.switchover = f->times.state = clock_ns();
	if (f->engine.session.committed)
		ledger_commit(&f->engine.ledger);
	memoir_write_blocks(f);
	inject_moment(f->faults, FAULTPLAN_AT_PACKAGE);
	need(f, NEED_ARM);
}

/*
 * What the main sharer will get: a copy, which was never mapped.  A mapping that can write would
 * keep it from being sealed as long as a child that was forked meanwhile has it, too.  Where there
 * is one, in the memfd that outlives us.
 */
static int blob_of(struct faultloop *f, const char *name, const uint8_t *bytes, uint64_t len)
{
	cleanup_fd int fd = f->package_kept < 0 ? mem_blob_new(name, len) :
						  steal_fd(&f->package_kept);
	int ret;

	if (fd < 0)
		return fd;
	for (uint64_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, bytes + done, len - done, (off_t)done);

		if (n < 0)
			return -errno;
		done += (uint64_t)n;
	}
	ret = mem_blob_seal(fd);
	return ret < 0 ? ret : steal_fd(&fd);
}

/*
 * A section that our own source puts in front of the VM's is ours: the device part that a main
 * sharer hears of, and that an unmodified QEMU is sent, begins behind it.
 */
static int split_states(struct faultloop *f, const struct qstream_package *p, uint64_t at)
{
	struct devsection states;
	const char *why;
	int ret = devsection_find(p->device, p->device_len, &states, &why);

	f->device_offset = at;
	f->device_size = p->device_len;
	if (ret < 0)
		verdict_halt(f, EPROTO, "%s", why);
	if (ret <= 0)
		return ret;
	f->states_offset = at + states.at;
	f->states_size = states.len;
	f->device_offset += states.end;
	f->device_size -= states.end;
	return 0;
}

/*
 * The package is whole.  Its closing PINGs are kept for the moment when the VMM has loaded the
 * device state (on_loaded() in errands.c); whether PING 0x42 is among them decides where the commit
 * lies.
 */
static void split_package(struct faultloop *f)
{
	cleanup_free uint8_t *body = steal_ptr(&f->body);
	struct qstream_package p;

	f->package_size = f->body_size;
	if (qstream_package(body, f->body_size, &p) < 0) {
		verdict_halt(f, EPROTO,
			     "the package is not LISTEN ... RUN: this is no QEMU migration source");
		return;
	}
	if (split_states(f, &p, (uint64_t)(p.device - body)) < 0)
		return;
	f->engine.session.answer_commits = p.has_commit_ping;
	f->n_pings = p.n_pings;
	memcpy(f->pings, p.pings, p.n_pings * sizeof(p.pings[0]));
	f->package_fd = blob_of(f, "postcopy-package", body, f->body_size);
	if (f->package_fd < 0)
		verdict_halt(f, ENOMEM, "cannot keep the package of %" PRIu64 " bytes: %s",
			     f->body_size, strerror(-f->package_fd));
	else
		package_complete(f);
}

static void take_package(struct faultloop *f, struct lane *l)
{
	size_t n = mem_ring_used(&l->in);

	if (n > f->body_size - f->body_have)
		n = f->body_size - f->body_have;
	memcpy(f->body + f->body_have, mem_ring_read(&l->in), n);
	f->body_have += n;
	l->in.head += n;
	qstream_took(&l->stream, n);
	if (f->body_have == f->body_size)
		split_package(f);
}

/*
 * The last thing that a source sends before it waits for SHUT; so losing it until then makes it
 * resume its VM.
 */
static void tail_complete(struct faultloop *f, size_t device_len)
{
	cleanup_free uint8_t *body = steal_ptr(&f->body);

	f->package_fd = blob_of(f, "postcopy-device-state", body, device_len);
	if (f->package_fd < 0) {
		verdict_halt(f, ENOMEM, "no memory for the device state");
		return;
	}
	f->package_size = f->device_size = device_len;
	f->device_offset = 0;
	f->engine.session.answer_commits = true;
	f->main_eof = true;
	package_complete(f);
}

/*
 * The tail has no length: it is gathered until qstream_tail() finds its end, bounded by
 * --max-package.
 */
static void take_tail(struct faultloop *f, struct lane *l)
{
	size_t n = mem_ring_used(&l->in), device_len;

	if (f->body_have + n > f->options.max_package) {
		verdict_halt(f, EFBIG, "the device state has more bytes than --max-package allows");
		return;
	}
	while (f->body_have + n > f->body_size) {
		uint8_t *more = realloc(f->body, f->body_size * 2);

		if (!more) {
			verdict_halt(f, ENOMEM, "no memory for the device state");
			return;
		}
		f->body = more;
		f->body_size *= 2;
	}
	memcpy(f->body + f->body_have, mem_ring_read(&l->in), n);
	f->body_have += n;
	l->in.head += n;
	if (qstream_tail(f->body, f->body_have, &device_len) == 1)
		tail_complete(f, device_len);
}

/**
 * intake_body - take bytes of the package or tail out of the lane's buffer
 */
void intake_body(struct faultloop *f, struct lane *l)
{
	if (mem_ring_used(&l->in) == 0)
		return;
	if (f->tail)
		take_tail(f, l);
	else
		take_package(f, l);
}

/**
 * intake_holds_package - the main connection has ended: is a whole package among what was received?
 *
 * Then the source has given its VM away, however early it seems to us.  Looks ahead with a decoder
 * of its own; nothing is taken.
 */
bool intake_holds_package(const struct lane *l)
{
	struct qstream ahead = l->stream;
	const uint8_t *at = mem_ring_read(&l->in);
	size_t left = mem_ring_used(&l->in);
	struct qstream_record rec;
	int event;

	/* At the tail of a precopy the decoder stops, and says so for ever; no package follows. */
	while ((event = qstream_next(&ahead, at, left, &rec)) > QSTREAM_NEED_MORE &&
	       event != QSTREAM_TAIL) {
		at += rec.used;
		left -= rec.used;
		if (event == QSTREAM_PACKAGED)
			return left >= rec.packaged;
	}
	return false;
}

/* --- what the main thread answered ------------------------------------------------------------ */

/**
 * intake_urgent - the urgent lane's decoder learns the blocks
 *
 * Called when the lane arrives and when the block list is matched; whichever comes last does the
 * work.
 *
 * Return: 0 or -ENOMEM.
 */
int intake_urgent(struct faultloop *f)
{
	if (!f->has_urgent || f->n_backings == 0)
		return 0;
	qstream_init(&f->urgent.stream, QSTREAM_URGENT, &f->main.stream);
	return lane_use_pages(&f->urgent, f->zeroes_size);
}

/**
 * intake_armed - every sharer is proven: from here on nobody but UFFDIO_* writes guest memory (O14)
 *
 * What somebody wrote too early is found and punched, and our own mappings are registered before
 * the first fault is served.  A failure halts the session.
 *
 * Return: as faultloop_feed(), or -errno.
 */
int intake_armed(struct faultloop *f)
{
	int ret;

	for (unsigned i = 0; i < f->n_backings; i++) {
		struct block *b = &f->engine.blocks.block[i];
		ret = backing_sweep(&f->backing[i], b, &f->engine.ledger, &f->strays);

		if (ret == 0)
			ret = backing_arm(&f->backing[i], f->own_uffd);
		if (ret < 0) {
			verdict_halt(f, -ret, "block %s cannot be put under our own watch: %s",
				     b->name, strerror(-ret));
			return ret;
		}
	}
	f->need = NEED_NOTHING;
	f->times.listening = clock_ns();
	f->held_left = true;
	ret = faultloop_feed(f, SESSION_ARMED);
	inject_moment(f->faults, FAULTPLAN_AT_LISTENING);
	return ret;
}
