/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_RUN_H
#define PC_TOOLS_SOURCE_RUN_H
/* A whole migration, from the first connection to SHUT. */
#include "tools/source_session.h"

/* 0, or -errno when there was no connection at all; how it ended is in @s. */
int source_run(struct source_session *s);

#endif
