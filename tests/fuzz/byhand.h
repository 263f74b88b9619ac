/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_FUZZ_BYHAND_H
#define PC_FUZZ_BYHAND_H
/*
 * GLib's main loop and the clock, turned by hand: who links this has g_unix_fd_add(),
 * g_timeout_add(), g_source_remove() and clock_gettime() wrapped (BYHAND_LDFLAGS), so that a life
 * which takes hours passes at once, and the same way each time.
 */
#include <stdbool.h>
#include <stdint.h>

#define BYHAND_MS UINT64_C(1000000)

/* No source, and the clock at its beginning. */
void byhand_reset(void);
/* Dispatch what is ready now, once; false: nothing was. */
bool byhand_turn(void);
/* Time passes, and what is due then is dispatched. */
void byhand_pass(uint64_t ns);
unsigned byhand_sources(void);

#endif
