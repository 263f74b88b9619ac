/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_HANDOVER_RAM_H
#define PC_DAEMON_HANDOVER_RAM_H
/*
 * What RAM a QEMU has, asked of its monitor: every block by name and, as far as it tells, by
 * address in its process.
 */
#include "daemon/qmp.h"
#include "wire/qmonitor.h"

#define RAM_BLOCKS 128		/* also those that never migrate */

struct ram_list {
	unsigned n;
	struct qmonitor_block block[RAM_BLOCKS];
};

struct ram_query;

/*
 * @done: once, from the main loop: the list, or NULL with @why; it may free the query.  Not when
 * the monitor closed.
 *
 * @known: one of the same QEMU that is done, or NULL; what it found out makes this one shorter.
 */
struct ram_query *
ram_query_new(struct qmp *q, struct ram_query *known,
	      void (*done)(void *ctx, const struct ram_list *list, const char *why), void *ctx);
/*
 * After @done was called, or after the monitor's client was freed: its answers come here.  NULL is
 * fine.
 */
void ram_query_free(struct ram_query *r);

#endif
