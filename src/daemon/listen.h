/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_LISTEN_H
#define PC_DAEMON_LISTEN_H
/* Makes the daemon's listening sockets. */
#include <glib.h>
#include "daemon/options.h"

/* Where the source connects; *shown is newly allocated.  -1 with *error. */
int listen_incoming(const struct options_address *address, char **shown, GError **error);
/* The same for a socket that listens there already. */
char *listen_shown(int fd, const struct options_address *address);
/* A UNIX socket of @type, mode 0600, or 0660 and @group when given.  -1 with *error. */
int listen_unix(const char *path, int type, const char *group, GError **error);

/* What a listening socket is called in a migration URI, HOST for any; newly allocated. */
char *listen_uri(int fd);

#endif
