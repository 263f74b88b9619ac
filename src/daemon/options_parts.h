/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_OPTIONS_PARTS_H
#define PC_DAEMON_OPTIONS_PARTS_H
/* What the files of the options share: options.c reads them, options_address.c the addresses. */
#include "daemon/options.h"

/* Set *error and say false. */
bool options_fail(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
bool options_check_socket_path(const char *path, GError **error);
void options_clear_address(struct options_address *a);

#endif
