/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_STREAM_H
#define PC_TOOLS_SOURCE_STREAM_H
/* The records around the pages, in QEMU's order.  Each returns 0 or -ECONNABORTED. */
#include "tools/source_device.h"
#include "tools/source_session.h"

/* Header, return path, PING 1, ADVISE and the block list. */
int source_stream_open(struct source_session *s);
/* The switch-over, up to PING 2: what is owed is discarded. */
int source_stream_discard(struct source_session *s);
/* The package and PING 4. */
int source_stream_package(struct source_session *s, const struct source_device *d);
/* END of ram and the end of the stream; @d: naked device state and its description in between. */
int source_stream_close(struct source_session *s, const struct source_device *d);

#endif
