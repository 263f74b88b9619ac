/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_REACH_H
#define PC_SYS_REACH_H
/* Does the host at the other end of a connection that is over answer again? */
#include "sys/ends.h"

/* Ask it; a descriptor to look for the answer at, or -1: nothing leaves here. */
int reach_ask(const struct ends *e);
/* 1: it answers; 0: not yet; -1: it is not reached.  The descriptor stays the caller's. */
int reach_answer(int fd);

#endif
