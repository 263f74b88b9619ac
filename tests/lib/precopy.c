/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * precopy RECORDING [BLOCK...]: what a hand-over would send to a destination QEMU, made of a
 * recorded migration.
 *
 * RECORDING holds what a source sent on its main connection.  The synthetic stream goes to standard
 * output; the blocks named are listed in it and their pages are left out.  What the source's VM did
 * when it was stopped goes to standard error.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "wire/qglobalstate.h"
#include "wire/qprecopy.h"
#include "wire/qstream.h"

struct recording {
	uint8_t *bytes;
	size_t len, at;
	struct qstream stream;
	struct qstream_record rec;
	char machine[256];
	uint8_t *ram[QSTREAM_MAX_BLOCKS];
	const uint8_t *device;
	size_t device_len;
};

static int fail(const char *what, const char *detail)
{
	fprintf(stderr, "precopy: %s: %s\n", what, detail);
	return 1;
}

static int load(struct recording *r, const char *path)
{
	FILE *f = fopen(path, "rb");
	size_t got;

	if (!f)
		return fail(path, strerror(errno));
	do {
		uint8_t *more = realloc(r->bytes, r->len + (1 << 20));

		if (!more)
			abort();
		r->bytes = more;
		got = fread(r->bytes + r->len, 1, 1 << 20, f);
		r->len += got;
	} while (got == 1 << 20);
	return fclose(f) ? fail(path, strerror(errno)) : 0;
}

/* Every block is kept, also those that are left out in the end. */
static void add_block(struct recording *r)
{
	unsigned i = r->stream.n_blocks - 1;

	r->ram[i] = calloc(1, r->rec.block.length);
	if (!r->ram[i])
		abort();
}

static void add_page(struct recording *r, int what)
{
	uint8_t *page = r->ram[r->rec.page.block] + r->rec.page.offset;

	if (what == QSTREAM_PAGE)
		memcpy(page, r->rec.page.data, r->rec.page.len);
	else
		memset(page, 0, r->stream.target_page);
}

static int take_package(struct recording *r)
{
	struct qstream_package package;

	if (r->rec.packaged > r->len - r->at ||
	    qstream_package(r->bytes + r->at, r->rec.packaged, &package) < 0)
		return fail("package", "cut off or not to be split");
	r->device = package.device;
	r->device_len = package.device_len;
	qstream_took(&r->stream, r->rec.packaged);
	r->at += r->rec.packaged;
	return 0;
}

/* One record; 1 at the end of the stream. */
static int take_record(struct recording *r, int what)
{
	r->at += r->rec.used;
	switch (what) {
	case QSTREAM_HEADER:
		memcpy(r->machine, r->rec.header.machine, sizeof(r->machine));
		return 0;
	case QSTREAM_BLOCK:
		add_block(r);
		return 0;
	case QSTREAM_PAGE:
	case QSTREAM_ZERO:
		add_page(r, what);
		return 0;
	case QSTREAM_PACKAGED:
		return take_package(r) ? -1 : 0;
	case QSTREAM_TAIL:
		r->device = r->bytes + r->at;
		return qstream_tail(r->device, r->len - r->at, &r->device_len) ? 1 : -1;
	default:
		return what == QSTREAM_EOF;
	}
}

static int decode(struct recording *r)
{
	int end = 0, what;

	qstream_init(&r->stream, QSTREAM_MAIN, NULL);
	while (!end) {
		what = qstream_next(&r->stream, r->bytes + r->at, r->len - r->at, &r->rec);
		if (what == QSTREAM_NEED_MORE)
			return fail("recording", "it is cut off");
		if (what < 0)
			return fail("recording", r->stream.reason);
		end = take_record(r, what);
	}
	return end == 1 && r->device ? 0 : fail("recording", "no device state");
}

static int give_page(void *ctx, unsigned block, uint64_t offset, const uint8_t **data)
{
	struct recording *r = ctx;
	const uint8_t *page = r->ram[block] + offset;

	for (uint64_t i = 0; i < r->stream.target_page && !*data; i++)
		if (page[i])
			*data = page;
	return 0;
}

static int write_stream(const struct qprecopy_plan *plan)
{
	cleanup_free struct qprecopy *w = malloc(sizeof(*w));
	struct qprecopy_piece piece;
	const char *why;

	if (!w || qprecopy_init(w, plan, &why) < 0)
		return fail("plan", why);
	while (qprecopy_next(w, &piece, 1) > 0) {
		if (fwrite(piece.at, 1, piece.len, stdout) != piece.len)
			return fail("standard output", strerror(errno));
		qprecopy_sent(w, piece.len);
	}
	return fflush(stdout) ? fail("standard output", strerror(errno)) : 0;
}

static bool is_named(char *const *names, const char *name)
{
	for (; *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

static int convert(struct recording *r, char *const *lazy)
{
	struct qprecopy_block blocks[QSTREAM_MAX_BLOCKS];
	struct qprecopy_plan plan = {
		.machine = r->machine,
		.page_bits = r->stream.page_bits,
		.ram_section = r->stream.ram_section,
		.target_page = r->stream.target_page,
		.blocks = blocks,
		.n_blocks = r->stream.n_blocks,
		.device = r->device,
		.device_len = r->device_len,
		.page = give_page,
		.ctx = r,
	};
	struct qglobalstate state;

	for (unsigned i = 0; i < plan.n_blocks; i++)
		blocks[i] = (struct qprecopy_block){
			r->stream.blocks[i].name,
			r->stream.blocks[i].length,
			!is_named(lazy, r->stream.blocks[i].name),
		};
	qglobalstate_find(r->device, r->device_len, &state);
	fprintf(stderr, "state %s%s%s\n", state.text, state.reason ? ": " : "",
		state.reason ? state.reason : "");
	return write_stream(&plan);
}

int main(int argc, char **argv)
{
	cleanup_free struct recording *r = calloc(1, sizeof(*r));
	int err;

	if (argc < 2)
		return fail("usage", "precopy RECORDING [BLOCK...]");
	if (!r)
		abort();
	err = load(r, argv[1]);
	if (!err)
		err = decode(r);
	if (!err)
		err = convert(r, argv + 2);
	for (unsigned i = 0; i < QSTREAM_MAX_BLOCKS; i++)
		free(r->ram[i]);
	free(r->bytes);
	return err;
}
