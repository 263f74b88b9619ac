/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_SOCK_H
#define PC_SYS_SOCK_H
#include <stdint.h>

/* What the peer has not acknowledged yet, bytes (SIOCOUTQ; TCP and UNIX sockets).  Negative: -errno. */
int sock_unsent(int fd);
/*
 * A long-lived connection to another host: no delay for small messages, and a peer that vanished is noticed (QEMU has no
 * heartbeat): keepalive and TCP_USER_TIMEOUT.  Does nothing on UNIX sockets.
 */
void sock_tune(int fd);

#endif
