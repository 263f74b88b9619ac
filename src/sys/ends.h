/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_ENDS_H
#define PC_SYS_ENDS_H
/* The two addresses of a connected stream socket, kept when the socket is somebody else's. */
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ENDS_TEXT 64	/* of an address without its port */
#define ENDS_URI  160

/* An IPv4 connection is AF_INET here, also where its socket is one of IPv6. */
union ends_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
	struct sockaddr_un un;
};

struct ends {
	union ends_address local, peer;
};

/* 0 or -errno. */
int ends_of(int fd, struct ends *out);
/* Is it TCP, as far as addresses tell? */
bool ends_networked(const struct ends *e);
/* The bytes of its IP address, and how many they are; NULL, 0: it is none. */
const void *ends_bytes(const union ends_address *a, size_t *len);
/* "10.0.0.1", "fe80::1%3"; "" for what is no IP address. */
void ends_text(const union ends_address *a, char *out, size_t len);
/* "tcp:10.0.0.1:4444", "tcp:[::1]:4444", "unix:/path"; "" where there is no way to say it. */
void ends_uri(const union ends_address *a, char *out, size_t len);

#endif
