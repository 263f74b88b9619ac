/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MIGDEV_PARTS_H
#define PC_SYS_MIGDEV_PARTS_H
/*
 * The two versions behind migdev.h.  Each finds out whether the device has it: 0, or -EOPNOTSUPP.
 */
#include "sys/migdev.h"

int migdev_v1_probe(struct migdev *m);
int migdev_v2_probe(struct migdev *m);

#endif
