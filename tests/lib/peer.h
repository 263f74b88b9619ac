/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_PEER_H
#define PC_TESTS_PEER_H
/*
 * A scripted postcopyd for libpostcopy, without a thread: packets keep their order in the socket
 * and the serials of a handle count from 1, so answers can be laid out before they are read.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "postcopy/postcopy.h"
#include "wire/regmsg.h"

struct peer {
	int sock;		/* the daemon's end */
	int client;		/* the other end, until it is given to a handle */
	int uffd;		/* stands for a userfaultfd; the library does not look into it */
};

void peer_init(struct peer *p);
void peer_deinit(struct peer *p);

/* Send raw bytes, or a message, with @fd (-1: none). */
void peer_send_raw(struct peer *p, const void *bytes, size_t len, int fd);
void peer_send(struct peer *p, const union regmsg *m, int fd);
void peer_event(struct peer *p, enum regmsg_type type);
void peer_result(struct peer *p, uint32_t serial, int error, const char *text);
void peer_package(struct peer *p, const char *body);
/* The client's next message, checked; its descriptor or -1 to *fd.  False: nothing is there. */
bool peer_receive(struct peer *p, union regmsg *m, int *fd);

struct postcopy_options peer_options(const struct peer *p, enum postcopy_role role);
/* A handle whose HELLO (serial 1) was answered; the HELLO is read. */
postcopy *peer_welcome(struct peer *p, enum postcopy_role role);

/* Number of open descriptors of this process. */
unsigned peer_count_fds(void);
/* Does @fd poll for POLLIN now? */
bool peer_readable(int fd);

#endif
