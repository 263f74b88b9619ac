/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_HUGEPAGES_H
#define PC_TESTS_HUGEPAGES_H
/*
 * Huge pages of 2 MiB for the time of a test.  The pool is raised and lowered by differences under
 * a lock, so tests that run side by side do not take each other's pages away.  One that needs to
 * know what is free in the pool has it alone: it waits for those that have borrowed, and those that
 * come later wait for it.
 */

enum hugepages_use {
	HUGEPAGES_BESIDE,	/* others may borrow, too */
	HUGEPAGES_ALONE,	/* nobody else borrows meanwhile */
	HUGEPAGES_MORE,		/* for whoever has it alone already */
};

/*
 * Raise the pool by @n pages until this process ends or calls hugepages_return(), however it ends:
 * a keeper process gives them back.  0, or -errno (-ENOMEM: the kernel could not find that many;
 * nothing is kept).
 */
int hugepages_borrow(unsigned n, enum hugepages_use use);
void hugepages_return(void);

#endif
