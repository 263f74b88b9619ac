/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "script.h"

#include <stdlib.h>

#include <criterion/criterion.h>

#include "core/guard.h"

const struct qstream_block script_blocks[SCRIPT_BLOCKS] = {
	{.name = "small", .length = 8 * 4096, .page_size = 4096},
	{.name = "/objects/huge", .length = 4 * MIB, .page_size = 2 * MIB},
	{.name = "rom", .length = 4096, .page_size = 4096},
};

int script_next(struct script *s)
{
	int what = qstream_next(&s->q, s->buf + s->at, pen_used(&s->pen) - s->at, &s->rec);

	if (what > 0)
		s->at += s->rec.used;
	return what;
}

void script_put_list_head(struct pen *p, uint64_t total)
{
	pen_u8(p, 1);
	pen_be32(p, SCRIPT_SECTION);
	pen_cstr(p, "ram");
	pen_be32(p, 0);
	pen_be32(p, 4);
	pen_be64(p, total | 4);
}

void script_put_page(struct pen *p, uint64_t offset, const char *name)
{
	static const uint8_t page[4096] = {1};

	qstream_put_page_head(p, offset, name, false);
	pen_bytes(p, page, sizeof(page));
}

void script_put_package(struct pen *p)
{
	qstream_put_package(p, "device", 6, true);
}

/* What lies between one place and the next.  A place is reached by passing all before it... */
void script_put_step(struct script *s, enum place step)
{
	struct pen *p = &s->pen;

	switch (step) {
	case SETUP:
		qstream_put_header(p, "pc-q35-9.2");
		break;
	case ADVISED:
		qstream_put_advise(p, 2 * MIB | 4096, 4096);
		break;
	case IN_LIST:
		script_put_list_head(p, 8 * 4096);
		break;
	case PRECOPY:
		qstream_put_blocks(p, SCRIPT_SECTION, script_blocks, SCRIPT_BLOCKS, 4096);
		break;
	case IN_PART:
	case IN_POSTCOPY_PART:
		qstream_put_ram_begin(p, false, SCRIPT_SECTION);
		break;
	case IN_LATER_PART:
		qstream_put_ram_begin(p, false, SCRIPT_SECTION);
		script_put_page(p, 0, "small");
		qstream_put_ram_end(p, SCRIPT_SECTION);
		qstream_put_ram_begin(p, false, SCRIPT_SECTION);
		break;
	case IN_BODY:
		script_put_package(p);
		break;
	case DONE:
	case PRECOPY_DONE:
		qstream_put_ram_begin(p, true, SCRIPT_SECTION);
		qstream_put_ram_end(p, SCRIPT_SECTION);
		break;
	case ENDED:
		pen_u8(p, 0);
		break;
	case RESUMED:
		qstream_put_command(p, QCMD_RESUME, NULL, 0);
		break;
	case AT_CONFIGURATION:
	case FRESH:
	case POSTCOPY:
	case URGENT:
	case RECOVERY:
		break;
	}
}

/* ...of its row, which ends with a zero. */
static const enum place routes[][8] = {
	[SETUP] = {SETUP},
	[ADVISED] = {SETUP, ADVISED},
	[IN_LIST] = {SETUP, ADVISED, IN_LIST},
	[PRECOPY] = {SETUP, ADVISED, PRECOPY},
	[IN_PART] = {SETUP, ADVISED, PRECOPY, IN_PART},
	[IN_LATER_PART] = {SETUP, ADVISED, PRECOPY, IN_LATER_PART},
	[IN_BODY] = {SETUP, ADVISED, PRECOPY, IN_BODY},
	[POSTCOPY] = {SETUP, ADVISED, PRECOPY, IN_BODY, POSTCOPY},
	[IN_POSTCOPY_PART] = {SETUP, ADVISED, PRECOPY, IN_BODY, IN_POSTCOPY_PART},
	[DONE] = {SETUP, ADVISED, PRECOPY, IN_BODY, DONE},
	[ENDED] = {SETUP, ADVISED, PRECOPY, IN_BODY, DONE, ENDED},
	[PRECOPY_DONE] = {SETUP, ADVISED, PRECOPY, PRECOPY_DONE},
	[RESUMED] = {RESUMED},
};

static bool has_route(enum place to)
{
	return to < ARRAY_LEN(routes) && routes[to][0] != FRESH;
}

static void walk(struct script *s, enum place to)
{
	int what;

	for (size_t i = 0; has_route(to) && routes[to][i] != FRESH; i++)
		script_put_step(s, routes[to][i]);
	/* The header ends where something else begins. */
	if (to == SETUP)
		qstream_put_ping(&s->pen, 1);
	if (to == AT_CONFIGURATION) {
		script_put_step(s, SETUP);
		return;
	}
	while ((what = script_next(s)) != QSTREAM_NEED_MORE) {
		cr_assert_gt(what, 0, "%s (%s)", s->q.reason, s->q.detail);
		if (what != QSTREAM_PACKAGED || to == IN_BODY)
			continue;
		s->at += s->q.body_left;
		qstream_took(&s->q, s->q.body_left);
	}
}

struct script *script_begin(enum place place)
{
	struct script *s = calloc(1, sizeof(*s));
	bool later = place == URGENT || place == RECOVERY || place == RESUMED;

	cr_assert_not_null(s);
	s->pen = pen_init(s->buf, sizeof(s->buf));
	qstream_init(&s->q, QSTREAM_MAIN, NULL);
	if (later) {
		cleanup_free struct script *earlier = script_begin(POSTCOPY);

		qstream_init(&s->q, place == URGENT ? QSTREAM_URGENT : QSTREAM_RECOVERY,
			     &earlier->q);
	}
	walk(s, place);
	return s;
}
