/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * It stands first, so that finding it does not take an understanding of the sections of a VM, of
 * which only their owners know the length.
 */
#include "config.h"

#include "wire/devsection.h"

#include <errno.h>
#include <string.h>

#define FULL	0x04
#define FOOTER	0x7e
#define FORMAT  1

static const char name[] = "postcopy-device-state";

/**
 * devsection_put - the whole section
 * @id: like that of no other one
 */
void devsection_put(struct pen *p, uint32_t id, const uint8_t *records, size_t len)
{
	pen_u8(p, FULL);
	pen_be32(p, id);
	pen_cstr(p, name);
	pen_be32(p, 0);
	pen_be32(p, FORMAT);
	pen_be64(p, len);
	pen_bytes(p, records, len);
	pen_u8(p, FOOTER);
	pen_be32(p, id);
}

static int fail(const char **why, const char *text)
{
	*why = text;
	return -EPROTO;
}

/**
 * devsection_find - is it there?
 * @part: the device part of a package, from its beginning
 *
 * A section that has its name has its form, too, or is refused.
 */
int devsection_find(const uint8_t *part, size_t len, struct devsection *out, const char **why)
{
	struct cursor c = cursor_init(part, len);
	uint8_t type = cursor_u8(&c);
	uint32_t id = cursor_be32(&c), instance, version;
	uint64_t length;
	char text[256];

	cursor_cstr(&c, text);
	if (c.bad || type != FULL || strcmp(text, name) != 0)
		return 0;
	instance = cursor_be32(&c);
	version = cursor_be32(&c);
	length = cursor_be64(&c);
	if (c.bad || length > cursor_left(&c))
		return fail(why, "the section with the state of devices is cut off");
	if (instance != 0 || version != FORMAT)
		return fail(why, "another version of the section with the state of devices");
	out->at = len - cursor_left(&c);
	out->len = (size_t)length;
	cursor_bytes(&c, out->len);
	if (cursor_u8(&c) != FOOTER || cursor_be32(&c) != id || c.bad)
		return fail(why, "the section with the state of devices has no end");
	out->end = len - cursor_left(&c);
	return 1;
}
