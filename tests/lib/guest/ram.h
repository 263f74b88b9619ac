/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_GUEST_RAM_H
#define PC_TESTS_GUEST_RAM_H
/*
 * Memory as a daemon has it: a file, which the VMM has mapped so that missing pages fault, and the
 * daemon so that none does.
 */
#include <stdbool.h>
#include <stdint.h>

enum { RAM_PAGE = 4096 };

struct ram {
	int fd, uffd;
	uint64_t pages;
	uint8_t *vmm;  /* missing pages wait for ram_place() */
	uint8_t *ours; /* missing pages are made up */
};

/* All pages are missing.  0 or -errno. */
int ram_init(struct ram *r, uint64_t pages);
void ram_deinit(struct ram *r);
/* Its content is known by its number.  0; -EEXIST: it was there; -EIO. */
int ram_place(struct ram *r, uint64_t page);
int ram_place_all(struct ram *r);
/* Is that what was placed there, from byte @from on? */
bool ram_is(const uint8_t *at, uint64_t page, uint64_t from, uint64_t len);
/* Did anybody fault? */
bool ram_asked(const struct ram *r);
/* Is the page nowhere: not in the file? */
bool ram_is_hole(const struct ram *r, uint64_t page);
/* The frame of what is mapped there, 0: none. */
uint64_t ram_frame(const void *at);

#endif
