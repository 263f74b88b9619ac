/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_STAGE_PARTS_H
#define PC_TESTS_STAGE_PARTS_H
/* Between the files of a stage: what surrounds the daemon, and its source. */
#include "stage.h"
#include "wire/cursor.h"

#define PAGE	4096u
#define LENGTH	((uint64_t)STAGE_PAGES * PAGE)
#define NAME	"m"

void stage_write(int fd, const struct pen *p);
void stage_send_opening(struct stage *s);
void stage_send_switch_over(struct stage *s);
/* CLOCK_MONOTONIC, nanoseconds, by which what is waited for must have come. */
uint64_t stage_deadline(void);

#endif
