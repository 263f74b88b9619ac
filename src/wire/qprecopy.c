/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream in the order it is written:
 *
 *   header · [records that go early] · START ram {every block} · PART ram {pages} · END ram {} ·
 *   device part · EOF · description "{}"
 *
 * Why a destination takes it for a whole migration: it does not count the pages of a block it was
 * told of, so a block that is listed and never sent is complete to it.  Nothing in here makes it
 * answer (no OPEN_RETURN_PATH, no PING), and nothing says postcopy (no ADVISE), which is also why
 * huge blocks are listed without their page size: that field exists in advised streams only.
 *
 * The description at the end is QEMU's own trap: the source of an ordinary migration sends one, and
 * a destination reads for it as long as the connection is open.  Without these seven bytes it would
 * never say that it has loaded.
 *
 * Another trap is the sender's: from 8.0 on QEMU's main thread waits for the first four bytes of a
 * connection, and answers nobody meanwhile.  So connect when there is something to send.
 *
 * A step is one thing to write.  Steps fill a small ring of pieces until it is full; what is small
 * goes into `heads`, what is the caller's is pointed at.  All pieces must be gone before the next
 * are made, so a piece never changes under the caller's hands and a page is asked for only when the
 * one before it has left.
 */
#include "config.h"

#include "wire/qprecopy.h"

#include <assert.h>

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define HEAD_MAX 512u /* bytes one step puts into heads at most: the header with its subsection */

enum step {
	STEP_HEADER,
	STEP_EARLY,
	STEP_START,
	STEP_LIST, /* one block */
	STEP_PART,
	STEP_PAGES, /* one page */
	STEP_END,
	STEP_DEVICE,
	STEP_TAIL,
	STEP_DONE,
};

/* --- the plan --------------------------------------------------------------------------------- */

static bool length_fits(const char *text, size_t max)
{
	size_t len = text ? strnlen(text, max + 1) : 0;

	return len > 0 && len <= max;
}

static const char *check_block(const struct qprecopy_plan *plan, unsigned i, uint64_t *total)
{
	const struct qprecopy_block *b = &plan->blocks[i];

	if (!length_fits(b->name, 255))
		return "the name of a block is empty or longer than 255 bytes";
	if (b->length == 0 || b->length & (plan->target_page - 1))
		return "the length of a block is not a number of whole pages";
	if (!add_u64(*total, b->length, total) || *total > INT64_MAX)
		return "the blocks are larger than an address space";
	for (unsigned j = 0; j < i; j++)
		if (!strcmp(plan->blocks[j].name, b->name))
			return "two blocks have the same name";
	return NULL;
}

static const char *check_plan(const struct qprecopy_plan *plan)
{
	const char *why = NULL;
	uint64_t total = 0;

	if (!length_fits(plan->machine, 255))
		return "the machine type is empty or longer than 255 bytes";
	if (!is_power_of_two(plan->target_page) || plan->target_page < 1024)
		return "the target page size is none";
	if (plan->page_bits && plan->target_page >> plan->page_bits != 1)
		return "the target page size is not what the source's header says";
	if (plan->n_blocks == 0 || plan->n_blocks > QSTREAM_MAX_BLOCKS)
		return "no block at all, or more than a stream can list";
	for (unsigned i = 0; i < plan->n_blocks && !why; i++)
		why = check_block(plan, i, &total);
	return why;
}

/**
 * qprecopy_init - begin a stream
 * @plan: kept, not copied
 * @why: what cannot be written, static text; NULL on success
 *
 * Whether the device part fits the destination is for the destination to say.
 *
 * Return: 0 or -EINVAL.
 */
int qprecopy_init(struct qprecopy *w, const struct qprecopy_plan *plan, const char **why)
{
	memset(w, 0, sizeof(*w));
	*why = check_plan(plan);
	if (*why)
		return -EINVAL;
	w->plan = plan;
	w->last_block = -1;
	return 0;
}

/* --- pieces ----------------------------------------------------------------------------------- */

static void add_piece(struct qprecopy *w, const uint8_t *at, size_t len)
{
	if (len == 0)
		return;
	if (w->n > 0 && w->pieces[w->n - 1].at + w->pieces[w->n - 1].len == at) {
		w->pieces[w->n - 1].len += len; /* heads that follow each other */
		return;
	}
	w->pieces[w->n++] = (struct qprecopy_piece){at, len};
}

static struct pen begin_head(struct qprecopy *w)
{
	return pen_init(w->heads + w->heads_used, HEAD_MAX);
}

static void end_head(struct qprecopy *w, const struct pen *p)
{
	assert(!p->bad);
	w->heads_used += pen_used(p);
	add_piece(w, p->start, pen_used(p));
}

/* --- steps ------------------------------------------------------------------------------------ */

static void write_header(struct qprecopy *w)
{
	struct pen p = begin_head(w);

	qstream_put_header(&p, w->plan->machine);
	if (w->plan->page_bits)
		qstream_put_page_bits(&p, w->plan->page_bits);
	end_head(w, &p);
	w->step = STEP_EARLY;
}

static void write_early(struct qprecopy *w)
{
	add_piece(w, w->plan->early, w->plan->early_len);
	w->step = STEP_START;
}

static void write_start(struct qprecopy *w)
{
	struct pen p = begin_head(w);
	uint64_t total = 0;

	for (unsigned i = 0; i < w->plan->n_blocks; i++)
		total += w->plan->blocks[i].length;
	qstream_put_blocks_begin(&p, w->plan->ram_section, total);
	end_head(w, &p);
	w->step = STEP_LIST;
}

static void write_list(struct qprecopy *w)
{
	const struct qprecopy_block *b = &w->plan->blocks[w->block];
	struct pen p = begin_head(w);

	qstream_put_block(&p, b->name, b->length, 0);
	if (++w->block == w->plan->n_blocks) {
		qstream_put_ram_end(&p, w->plan->ram_section);
		w->step = STEP_PART;
	}
	end_head(w, &p);
}

/* To the next block that has pages to send, from @block on; n_blocks: none. */
static void find_pages(struct qprecopy *w, unsigned block)
{
	while (block < w->plan->n_blocks && !w->plan->blocks[block].in_stream)
		block++;
	w->block = block;
	w->offset = 0;
	w->step = block < w->plan->n_blocks ? STEP_PAGES : STEP_END;
}

static void write_part(struct qprecopy *w)
{
	struct pen p = begin_head(w);

	qstream_put_ram_begin(&p, false, w->plan->ram_section);
	end_head(w, &p);
	find_pages(w, 0);
}

static void write_page(struct qprecopy *w)
{
	const struct qprecopy_block *b = &w->plan->blocks[w->block];
	bool same = w->last_block == (int)w->block;
	const uint8_t *data = NULL;
	struct pen p = begin_head(w);

	w->error = w->plan->page(w->plan->ctx, w->block, w->offset, &data);
	if (w->error)
		return;
	qstream_put_page_head(&p, w->offset, same ? NULL : b->name, !data);
	end_head(w, &p);
	if (data)
		add_piece(w, data, w->plan->target_page);
	w->last_block = (int)w->block;
	w->offset += w->plan->target_page;
	if (w->offset == b->length)
		find_pages(w, w->block + 1);
}

static void write_end(struct qprecopy *w)
{
	struct pen p = begin_head(w);

	qstream_put_ram_end(&p, w->plan->ram_section);
	qstream_put_ram_begin(&p, true, w->plan->ram_section);
	qstream_put_ram_end(&p, w->plan->ram_section);
	end_head(w, &p);
	w->step = STEP_DEVICE;
}

static void write_device(struct qprecopy *w)
{
	add_piece(w, w->plan->device, w->plan->device_len);
	w->step = STEP_TAIL;
}

static void write_tail(struct qprecopy *w)
{
	struct pen p = begin_head(w);

	pen_u8(&p, TYPE_EOF);
	pen_u8(&p, TYPE_VMDESCRIPTION);
	pen_be32(&p, 2);
	pen_bytes(&p, "{}", 2);
	end_head(w, &p);
	w->step = STEP_DONE;
}

static void (*const steps[])(struct qprecopy *w) = {
	[STEP_HEADER] = write_header, [STEP_EARLY] = write_early,   [STEP_START] = write_start,
	[STEP_LIST] = write_list,     [STEP_PART] = write_part,	    [STEP_PAGES] = write_page,
	[STEP_END] = write_end,	      [STEP_DEVICE] = write_device, [STEP_TAIL] = write_tail,
};

/* --- out -------------------------------------------------------------------------------------- */

/* A step makes two pieces at most. */
static bool has_room(const struct qprecopy *w)
{
	return w->n + 2 <= QPRECOPY_PIECES && w->heads_used + HEAD_MAX <= sizeof(w->heads);
}

/**
 * qprecopy_next - what is to be sent next
 * @out: filled with at most @max pieces, for one writev()
 *
 * The same again until qprecopy_sent() says that something is gone.
 *
 * Return: how many; 0: the stream is complete and sent; or -errno of the callback, when all that
 * was before its page is sent, and for good.
 */
int qprecopy_next(struct qprecopy *w, struct qprecopy_piece *out, unsigned max)
{
	unsigned n;

	assert(max > 0);
	if (w->first == w->n) {
		w->first = w->n = 0;
		w->heads_used = 0;
		while (w->step != STEP_DONE && !w->error && has_room(w))
			steps[w->step](w);
	}
	n = w->n - w->first < max ? w->n - w->first : max;
	memcpy(out, w->pieces + w->first, n * sizeof(*out));
	return n > 0 ? (int)n : w->error;
}

/**
 * qprecopy_sent - @bytes of what qprecopy_next() gave are gone
 */
void qprecopy_sent(struct qprecopy *w, size_t bytes)
{
	w->sent += bytes;
	while (bytes > 0) {
		struct qprecopy_piece *piece = &w->pieces[w->first];
		size_t part = bytes < piece->len ? bytes : piece->len;

		assert(w->first < w->n);
		piece->at += part;
		piece->len -= part;
		bytes -= part;
		w->first += piece->len == 0;
	}
}
