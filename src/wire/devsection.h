/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_DEVSECTION_H
#define PC_WIRE_DEVSECTION_H
/*
 * The state of devices inside a package: a section of the device part, its first one, written by
 * our own source and taken out by the daemon.  No VMM knows it, so none may see it.
 *
 *	04 | be32 id | "postcopy-device-state" | be32 instance 0 | be32 version 1
 *	be64 bytes | the records of devstate.h, session all zero | 7e be32 id
 */
#include <stddef.h>
#include <stdint.h>

#include "wire/cursor.h"

enum { DEVSECTION_ROOM = 64 }; /* bytes around the records */

struct devsection {
	size_t at, len; /* the records, in the bytes that were looked at */
	size_t end;	/* of the section */
};

void devsection_put(struct pen *p, uint32_t id, const uint8_t *records, size_t len);
/* 1: the device part begins with it; 0: it does not; -EPROTO with *why. */
int devsection_find(const uint8_t *part, size_t len, struct devsection *out, const char **why);

#endif
