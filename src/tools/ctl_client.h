/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_CLIENT_H
#define PC_TOOLS_CTL_CLIENT_H
/* The client's end of postcopyd's control socket (postcopyd-control(7)). */
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "wire/jsonmsg.h"

struct ctl_client {
	int fd; /* -1 */
	char *path;
	GString *in; /* bytes of lines that were not taken yet */
	struct jsonmsg *greeting;
	char *error; /* of the last call that failed, for people */
};
#define CTL_CLIENT_INIT {.fd = -1}
#define cleanup_ctl_client __attribute__((cleanup(ctl_client_close)))

/* Connect and take the greeting.  0, or -errno with c->error saying which path and what to do. */
int ctl_client_open(struct ctl_client *c, const char *path);
void ctl_client_close(struct ctl_client *c);

/* An argument of a request: a text, or true. */
struct ctl_argument {
	const char *name; /* NULL: there is none, nor any behind it */
	const char *text; /* NULL: true */
};

/* Send one request, as a whole.  @flag: name of an argument that is set to true, or NULL. */
int ctl_client_send(struct ctl_client *c, int64_t id, const char *command, const char *flag);
/* Take what the socket has.  1 something came, 0 nothing yet, -EPIPE no daemon any more, -errno. */
int ctl_client_read(struct ctl_client *c);
/* The next line that is complete.  1 with *out, 0 none, -EBADMSG not our protocol. */
int ctl_client_take(struct ctl_client *c, struct jsonmsg **out);
/* Wait for the next line.  0, -ETIMEDOUT, or as the two above. */
int ctl_client_wait(struct ctl_client *c, struct jsonmsg **out, int timeout_ms);
/* Send a request and wait for its reply.  0, -EREMOTEIO refused, or as above. */
int ctl_client_ask(struct ctl_client *c, const char *command, const char *flag,
		   struct jsonmsg **reply);
/* The same with arguments; the last one has no name. */
int ctl_client_ask_with(struct ctl_client *c, const char *command,
			const struct ctl_argument *arguments, struct jsonmsg **reply);

#endif
