/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "sys/ends.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

/* What a socket for every address calls ::ffff:10.0.0.1 is 10.0.0.1 to routes and interfaces. */
static void unmap(union ends_address *a)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = a->in6.sin6_port };

	if (a->any.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return;
	memcpy(&in.sin_addr, &a->in6.sin6_addr.s6_addr[12], sizeof(in.sin_addr));
	memset(a, 0, sizeof(*a));
	a->in = in;
}

/**
 * ends_of - both addresses of a connection
 *
 * Return: 0, or -errno: it is not connected (any more).
 */
int ends_of(int fd, struct ends *out)
{
	socklen_t len = sizeof(out->local), peer_len = sizeof(out->peer);

	memset(out, 0, sizeof(*out));
	if (getsockname(fd, &out->local.any, &len) < 0 ||
	    getpeername(fd, &out->peer.any, &peer_len) < 0)
		return -errno;
	unmap(&out->local);
	unmap(&out->peer);
	return 0;
}

bool ends_networked(const struct ends *e)
{
	size_t len;

	return ends_bytes(&e->local, &len) && ends_bytes(&e->peer, &len);
}

const void *ends_bytes(const union ends_address *a, size_t *len)
{
	if (a->any.sa_family == AF_INET) {
		*len = sizeof(a->in.sin_addr);
		return &a->in.sin_addr;
	}
	*len = a->any.sa_family == AF_INET6 ? sizeof(a->in6.sin6_addr) : 0;
	return *len ? &a->in6.sin6_addr : NULL;
}

void ends_text(const union ends_address *a, char *out, size_t len)
{
	socklen_t size = a->any.sa_family == AF_INET ? sizeof(a->in) : sizeof(a->in6);
	size_t bytes;

	*out = '\0';
	if (ends_bytes(a, &bytes) &&
	    getnameinfo(&a->any, size, out, (socklen_t)len, NULL, 0, NI_NUMERICHOST) != 0)
		*out = '\0';
}

void ends_uri(const union ends_address *a, char *out, size_t len)
{
	char host[ENDS_TEXT];

	ends_text(a, host, sizeof(host));
	*out = '\0';
	if (a->any.sa_family == AF_UNIX && a->un.sun_path[0])
		snprintf(out, len, "unix:%.*s", (int)sizeof(a->un.sun_path), a->un.sun_path);
	else if (*host)
		snprintf(out, len, strchr(host, ':') ? "tcp:[%s]:%u" : "tcp:%s:%u", host,
			 ntohs(a->in.sin_port));
}
