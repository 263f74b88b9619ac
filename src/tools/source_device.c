// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a destination that is no QEMU gets as device state: enough to be split and passed on.
 * globalstate is the one section that every QEMU sends, with a layout of its own; an opaque one of
 * any size stands for a real machine's.
 */
#include "config.h"

#include "source_device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "core/guard.h"
#include "tools/source_pattern.h"
#include "wire/cursor.h"
#include "wire/devsection.h"
#include "wire/keyval.h"

#define FULL	       4
#define FOOTER	       0x7e
#define DEVICE_SECTION 48u  /* far from the id of ram */
#define STATE_SECTION  49u
#define RUNSTATE       100u /* bytes of text in globalstate */
#define SECTION_ROOM   64u  /* head and footer of the sections made here */

static const char no_devices[] = "{\"page_size\": 4096, \"devices\": []}";
static const char globalstate_only[] =
	"{\"page_size\": 4096, \"devices\": [{\"name\": \"globalstate\", \"instance_id\": 0, "
	"\"vmsd_name\": \"globalstate\", \"version\": 1, \"fields\": ["
	"{\"name\": \"size\", \"type\": \"uint32\", \"size\": 4}, "
	"{\"name\": \"runstate\", \"type\": \"buffer\", \"size\": 100}]}]}";

static void begin_section(struct pen *p, const char *name)
{
	pen_u8(p, FULL);
	pen_be32(p, DEVICE_SECTION);
	pen_cstr(p, name);
	pen_be32(p, 0);
	pen_be32(p, 1);
}

static void end_section(struct pen *p)
{
	pen_u8(p, FOOTER);
	pen_be32(p, DEVICE_SECTION);
}

static int make_globalstate(struct source_device *d)
{
	uint8_t text[RUNSTATE] = "running";
	size_t room = SECTION_ROOM + 4 + RUNSTATE;
	struct pen p;

	d->sections = malloc(room);
	if (!d->sections)
		return -ENOMEM;
	p = pen_init(d->sections, room);
	begin_section(&p, "globalstate");
	pen_be32(&p, sizeof("running"));
	pen_bytes(&p, text, sizeof(text));
	end_section(&p);
	d->len = pen_used(&p);
	d->description = globalstate_only;
	return 0;
}

/* A section nobody can parse; its content is a pattern, so that a receiver can compare it. */
static int make_opaque(struct source_device *d, uint64_t size)
{
	uint64_t key = source_pattern_key(size, "postcopy-source/opaque");
	uint8_t page[SOURCE_TARGET_PAGE];
	struct pen p;

	d->sections = malloc(size + SECTION_ROOM);
	if (!d->sections)
		return -ENOMEM;
	p = pen_init(d->sections, size + SECTION_ROOM);
	begin_section(&p, "postcopy-source/opaque");
	for (uint64_t at = 0; at < size; at += sizeof(page)) {
		source_pattern_fill(key, at / sizeof(page), SOURCE_FINAL, page);
		pen_bytes(&p, page, MIN(size - at, sizeof(page)));
	}
	end_section(&p);
	d->len = pen_used(&p);
	return 0;
}

static int load_file(struct source_device *d, const char *path)
{
	g_autofree char *text = NULL;

	if (!g_file_get_contents(path, &text, &d->len, NULL))
		return -EIO;
	d->sections = malloc(d->len + 1);
	if (!d->sections)
		return -ENOMEM;
	memcpy(d->sections, text, d->len);
	return 0;
}

/**
 * source_device_init - make or load the device part
 * @what: a file that holds the sections as they are; or a size, one section with that many bytes of
 *   made-up content; or NULL, QEMU's globalstate of a running VM
 *
 * Return: 0 or -errno; source_device_deinit() after either.
 */
int source_device_init(struct source_device *d, const char *what)
{
	uint64_t size;

	*d = (struct source_device){.description = no_devices};
	if (!what)
		return make_globalstate(d);
	if (keyval_read_size(what, &size) < 0)
		return load_file(d, what);
	return size <= UINT32_MAX / 2 ? make_opaque(d, size) : -E2BIG;
}

/**
 * source_device_put_first - another section, before all others
 */
int source_device_put_first(struct source_device *d, const uint8_t *records, size_t len)
{
	size_t room = DEVSECTION_ROOM + len + d->len;
	uint8_t *sections = malloc(room);
	struct pen p = pen_init(sections, room);

	if (!sections)
		return -ENOMEM;
	devsection_put(&p, STATE_SECTION, records, len);
	pen_bytes(&p, d->sections, d->len);
	free(d->sections);
	d->sections = sections;
	d->len = pen_used(&p);
	return 0;
}

void source_device_deinit(struct source_device *d)
{
	free(steal_ptr(&d->sections));
}
