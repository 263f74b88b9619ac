/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_FAULTRULE_H
#define PC_WIRE_FAULTRULE_H
/*
 * A rule of core/faultplan.h as people write it:
 *
 *	point=NAME[,page=N|BLOCK/OFFSET][,sharer=NAME][,every=N][,probability=P][,after=MS]
 *		[,count=N],action=NAME[=ARGUMENT]
 */
#include <stddef.h>
#include "core/faultplan.h"

#define FAULTRULE_TEXT_MAX 1024

/* 0; -EINVAL with why[@size], for people; -ENOMEM. */
int faultrule_parse(struct faultplan_rule *out, const char *text, char *why, size_t size);
/* Write it in that form, such that it can be parsed again. */
void faultrule_print(const struct faultplan_rule *r, char text[FAULTRULE_TEXT_MAX]);

#endif
