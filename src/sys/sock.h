/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_SOCK_H
#define PC_SYS_SOCK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * What the peer has not acknowledged yet, bytes (SIOCOUTQ; TCP and UNIX sockets).  Negative:
 * -errno.
 */
int sock_unsent(int fd);
bool sock_ended(int fd);
/* Send what the socket takes at once, never waiting.  Bytes, 0 when it takes none, or -errno. */
ssize_t sock_send(int fd, const void *buf, size_t len);
/* Acknowledge what was received now, not when TCP thinks it is time. */
void sock_acknowledge(int fd);
/* No delay for small messages, and a peer that vanished is noticed. */
void sock_tune(int fd);
/* Unread bytes that a line with this round trip needs; 0: more than should be said. */
unsigned sock_backlog(uint32_t rtt_us);
/* No more than that piles up in front of a demanded page.  True when it is so. */
bool sock_bound_backlog(int fd);
/* Who is at the other end, for people. */
void sock_peer(int fd, char *out, size_t len);

#endif
