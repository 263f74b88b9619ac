/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_OPTIONS_PARTS_H
#define PC_DAEMON_OPTIONS_PARTS_H
/*
 * What the files of the options share: options.c reads them, options_address.c the addresses,
 * options_qemu.c the hand-over, options_vhost.c the vhost-user back-ends.
 */
#include "daemon/options.h"

/* Set *error and say false. */
bool options_fail(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
bool options_check_socket_path(const char *path, GError **error);
void options_clear_address(struct options_address *a);
/* "qmp=PATH,incoming=unix:PATH,cont=auto|yes|no,retry=SECONDS"; *out is written on success only. */
bool options_parse_qemu(const char *text, struct options_qemu *out, GError **error);
void options_clear_qemu(struct options_qemu *q);

/* "URI[,session=UUID]"; *out is written on success only. */
bool options_parse_channel(const char *text, struct options_channel *out, GError **error);
void options_clear_channel(struct options_channel *c);

#endif
