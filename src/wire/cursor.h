/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_CURSOR_H
#define PC_WIRE_CURSOR_H
/*
 * Bounded big-endian reader and writer.  Short input is an outcome, never a crash: a read past the
 * end sets `bad`, returns zero and every later read does the same, so a decoder reads a whole
 * record and looks once.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cursor {
	const uint8_t *at, *end;
	bool bad;
};

struct cursor cursor_init(const void *buf, size_t len);
size_t cursor_left(const struct cursor *c);
uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_be16(struct cursor *c);
uint32_t cursor_be32(struct cursor *c);
uint64_t cursor_be64(struct cursor *c);
/* Points into the buffer; NULL (and bad) when fewer than @len bytes are left. */
const uint8_t *cursor_bytes(struct cursor *c, size_t len);
/* u8 length + bytes, copied with a NUL into @out (256 bytes).  An embedded NUL makes the cursor
 * bad. */
void cursor_cstr(struct cursor *c, char out[256]);

struct pen {
	uint8_t *start, *at, *end;
	bool bad;
};

struct pen pen_init(void *buf, size_t len);
size_t pen_used(const struct pen *p);
void pen_u8(struct pen *p, uint8_t v);
void pen_be16(struct pen *p, uint16_t v);
void pen_be32(struct pen *p, uint32_t v);
void pen_be64(struct pen *p, uint64_t v);
void pen_bytes(struct pen *p, const void *bytes, size_t len);
void pen_cstr(struct pen *p, const char *text);

#endif
