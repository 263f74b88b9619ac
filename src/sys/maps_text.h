/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MAPS_TEXT_H
#define PC_SYS_MAPS_TEXT_H
/*
 * How the lines of /proc/PID/maps and smaps read.  Inside of maps.c; apart, so that odd text can be
 * tried without a process that has it.
 */
#include <stdio.h>

#include "sys/maps.h"

/* The head line of a mapping; false for any other line. */
bool maps_text_vma(const char *line, struct maps_vma *vma);

/* Is it the VmFlags line?  Then *um says whether the mapping is registered for missing faults. */
bool maps_text_flags(const char *line, bool *um);

/* maps_of_file(), maps_proven(), maps_released() over an open text. */
int maps_text_of_file(FILE *maps, uint64_t dev, uint64_t inode, struct maps_vma **out);
int maps_text_proven(FILE *smaps, uint64_t start, uint64_t end, uint64_t *at);
int maps_text_released(FILE *smaps, uint64_t start, uint64_t end);

#endif
