/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CLIENT_HANDLE_H
#define PC_CLIENT_HANDLE_H
/*
 * What a handle is made of, for the files that have its functions: client.c, dma.c.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/conn.h"
#include "client/shares.h"

/* The symbols of libpostcopy.map; everything else stays inside. */
#define PUBLIC __attribute__((visibility("default")))

/* Where a struct of the public header ends with this member. */
#define END_OF(type, member) (offsetof(struct type, member) + sizeof(((struct type *)0)->member))

struct postcopy {
	struct conn conn;
	int uffd;
	uint32_t role;
	bool backend;
	uint64_t token;
	uint64_t features;	/* of the daemon: enum regmsg_features */
	struct shares shares;	/* of a back-end */
};

/* Nothing was wrong yet with this call. */
static inline void handle_begin(struct postcopy *p)
{
	p->conn.text[0] = '\0';
}

/* A name into a field of @room bytes.  0, or -errno with the text set. */
int handle_put_name(struct conn *c, char *field, size_t room, const char *name);

#endif
