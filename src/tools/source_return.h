/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_RETURN_H
#define PC_TOOLS_SOURCE_RETURN_H
/*
 * The return thread: reads what the destination says, lets the referee look at it (source_check.h)
 * and answers requests on the lane meant for that.  It sleeps in recv(), so a request costs one
 * receive and one send.
 */
#include "tools/source_session.h"

/* Until the connection ends.  @session: struct source_session; for pthread_create(). */
void *source_return_main(void *session);

#endif
