/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_LISTEN_H
#define PC_DAEMON_LISTEN_H
/* Makes the daemon's listening sockets. */
#include <glib.h>
#include "daemon/options.h"

/* Where the source connects.  *shown: the address with the port that was picked, newly allocated.  -1 with *error. */
int listen_incoming(const struct options_address *address, char **shown, GError **error);
/*
 * A UNIX socket of @type at @path, mode 0600, or 0660 and @group when given.  A stale socket there is replaced; one that somebody
 * serves is an error.
 */
int listen_unix(const char *path, int type, const char *group, GError **error);

#endif
