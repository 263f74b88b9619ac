/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_TOUCH_H
#define PC_SYS_TOUCH_H
#include <stddef.h>
#include <stdint.h>

/*
 * Write to each page of [at, at + length) without changing what is in it, beside whoever else
 * writes there.  Every tracker of writes sees it; where a page is missing it is a fault.
 */
void touch_pages(void *at, size_t length, size_t page);

#endif
