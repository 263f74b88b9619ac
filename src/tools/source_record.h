/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_RECORD_H
#define PC_TOOLS_SOURCE_RECORD_H
/* A named record (source_fault_records()), sent as it is or with a fault. */
#include <stddef.h>
#include <stdint.h>

#include "tools/source_session.h"

/*
 * Send @len bytes as the record @name, in a turn of its own.  @buf may be changed by a fault.
 * Nothing to send (@len 0) is a place where faults can strike.  0 or -ECONNABORTED, the session
 * being over.
 */
int source_record_send(struct source_session *s, struct source_lane *l, const char *name,
		       uint8_t *buf, size_t len);

#endif
