/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MAPS_QUERY_H
#define PC_SYS_MAPS_QUERY_H
/*
 * The mappings of files in a process, one by one, without their text: an ioctl of Linux 6.11 on
 * /proc/PID/maps.
 */
#include "sys/maps.h"

/*
 * The next mapping of (dev, inode) behind @vma, at first {0}, which is replaced by it.  @maps_fd:
 * /proc/PID/maps.  1; 0: there is none; -ENODATA: the task has no mappings at all; -ENOTTY: the
 * text has to be asked.
 */
int maps_query_of_file(int maps_fd, uint64_t dev, uint64_t inode, struct maps_vma *vma);

#endif
