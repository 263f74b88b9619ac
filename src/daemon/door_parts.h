/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DOOR_PARTS_H
#define PC_DAEMON_DOOR_PARTS_H
/*
 * What the files of the native door share: door_native.c talks, door_declare.c takes what sharers have, door_session.c knows
 * where the session stands.
 */
#include "daemon/door_native.h"
#include "wire/regmsg.h"

/* A block of the source, as the sharers' offers were matched with it. */
struct matched {
	struct offer offer;		/* of the first who offered it; its file is not owned */
	enum block_kind kind;
};

struct door {
	int listen_fd;
	guint watch;
	unsigned max_sharers;
	uint32_t next_id;
	struct faultloop *loop;
	struct door_ops ops;
	GPtrArray *clients;		/* struct client */
	GPtrArray *peers;		/* struct peer */
	bool ran;			/* a VM was told to run */
	bool is_matched;
	unsigned n_matched;
	struct matched matched[BLOCK_MAX];
};

/* The connection of a client. */
struct peer {
	struct door *door;
	struct client *client;
	int sock;
	guint watch, death, linger;
};

void door_send(struct peer *p, const union regmsg *m, size_t len, int fd);
void door_send_text(struct peer *p, enum regmsg_type type, uint32_t serial, int error, const char *text);
const struct matched *door_find_matched(const struct door *d, const char *name);
/* Why no sharer of this name and role can come in now, or NULL. */
const char *door_place_taken(struct door *d, const char *name, bool main);

#endif
