/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_HOLDER_H
#define PC_TESTS_HOLDER_H
/*
 * A process that keeps its address space locked for as long as the test wants: it maps a file whose
 * file system (FUSE, served by the test) does not answer.  Before that kind of mapping is made its
 * cached pages have to go, one of them is being read, and the lock is held meanwhile.
 */

struct holder;

/*
 * The file system.  Before the processes are forked that are to use it; skips where there can be
 * none.
 */
struct holder *holder_new(void);
/* First thing in every process that is forked: the file system ends with its server, the test. */
void holder_forked(const struct holder *h);
/*
 * In such a process: when this returns its address space is locked.  It must not map, unmap or grow
 * anything then.
 */
void holder_lock(struct holder *h);
/* In the test: whoever is locked goes on, for good. */
void holder_let_go(struct holder *h);

#endif
