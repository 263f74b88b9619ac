/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PACKAGE_H
#define PC_DAEMON_PACKAGE_H
/* The device state package of a snapshot, once it is whole: a sealed memfd that nobody changes. */
#include "daemon/devspool.h"
#include "daemon/snapshot.h"

/* Write it to @fd, which is at its beginning; @name is for messages. */
void package_save(const struct snapshot *s, int fd, const char *name);
/* Put the state of devices that is in it into the spool.  0, or -errno with a text in @why. */
int package_spool(const struct snapshot *s, struct devspool *spool, char why[256]);

#endif
