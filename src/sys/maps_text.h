/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MAPS_TEXT_H
#define PC_SYS_MAPS_TEXT_H
/*
 * How the lines of /proc/PID/maps and smaps read.  Apart from maps.c, so that odd text can be
 * tried without a process that has it.
 */
#include <stdio.h>

#include "sys/maps.h"

/* The head line of a mapping; false for any other line. */
bool maps_text_vma(const char *line, struct maps_vma *vma);

/* Is it the VmFlags line?  Then *um says whether the mapping is registered for missing faults. */
bool maps_text_flags(const char *line, bool *um);

struct maps_list {
	struct maps_vma *vma;	/* malloc()ed; {0}: empty */
	size_t n, room;
};
/* 0 or -ENOMEM. */
int maps_list_add(struct maps_list *l, const struct maps_vma *vma);

/* maps_of_file(), maps_proven(), maps_released(), maps_at() over an open text. */
int maps_text_of_file(FILE *maps, uint64_t dev, uint64_t inode, struct maps_vma **out);
int maps_text_proven(FILE *smaps, uint64_t start, uint64_t end, uint64_t *at);
int maps_text_released(FILE *smaps, uint64_t start, uint64_t end);
int maps_text_at(FILE *maps, uint64_t address, struct maps_vma *out);
/* Does it show the file?  1, 0, -ENODATA when it is empty, or -errno. */
int maps_text_uses(FILE *maps, uint64_t dev, uint64_t inode);

#endif
