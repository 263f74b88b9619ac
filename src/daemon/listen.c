/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file mode of a socket is its access rule, so a socket is never there with a wider one than it
 * should have: the umask holds while bind() makes it, and the group is let in afterwards.  At that
 * time there is no other thread whose files the umask could touch.
 */
#include "config.h"
#include "daemon/listen.h"

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <gio/gio.h>

#include "sys/fd.h"

#define BACKLOG 8

static int fail(GError **error, const char *what, const char *where, int err)
{
	g_set_error(error, G_IO_ERROR, (gint)g_io_error_from_errno(err), "%s %s: %s", what, where,
		    g_strerror(err));
	return -1;
}

/*
 * EAGAIN is a full backlog, so somebody listens; a path that refuses is left over from a daemon
 * that was killed.
 */
static gboolean is_served(const struct sockaddr_un *addr, int type)
{
	cleanup_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd >= 0 &&
	       (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN);
}

static int set_group(const char *path, const char *group, GError **error)
{
	struct group *g = getgrnam(group);

	if (!g)
		return fail(error, "no such group:", group, ENOENT);
	if (chown(path, (uid_t)-1, g->gr_gid) < 0 || chmod(path, 0660) < 0)
		return fail(error, "cannot give the group access to", path, errno);
	return 0;
}

/**
 * listen_unix - a listening UNIX socket
 * @path: at most 107 bytes; what stands there is replaced, unless somebody serves it
 * @type: SOCK_STREAM or SOCK_SEQPACKET
 * @group: may connect as well (mode 0660); NULL: the owner only (0600)
 *
 * Return: the descriptor, or -1 with *error.
 */
int listen_unix(const char *path, int type, const char *group, GError **error)
{
	cleanup_fd int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	mode_t mask;
	int ret;

	if (fd < 0)
		return fail(error, "cannot make a socket for", path, errno);
	if (strlen(path) >= sizeof(addr.sun_path))
		return fail(error, "cannot listen on", path, ENAMETOOLONG);
	strcpy(addr.sun_path, path);
	if (is_served(&addr, type))
		return fail(error, "another process serves", path, EADDRINUSE);
	unlink(path);
	mask = umask(0177);
	ret = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(mask);
	if (ret < 0 || listen(fd, BACKLOG) < 0)
		return fail(error, "cannot listen on", path, errno);
	if (group && set_group(path, group, error) < 0)
		return -1;
	return steal_fd(&fd);
}

static int try_tcp(const struct addrinfo *ai)
{
	cleanup_fd int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
	int one = 1, zero = 0;

	if (fd < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* One socket for both families when every address is meant. */
	if (ai->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -1;
	return steal_fd(&fd);
}

static char *shown_tcp(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char host[96] = "?", port[16] = "?";

	if (getsockname(fd, (struct sockaddr *)&addr, &len) == 0)
		getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
			    NI_NUMERICHOST | NI_NUMERICSERV);
	return g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

/**
 * listen_uri - where a source is to be told to come
 * @fd: a listening socket, perhaps a passed one
 *
 * An address that stands for all of this machine's is HOST, which the source's user knows.
 */
char *listen_uri(int fd)
{
	struct sockaddr_un un = { 0 };
	socklen_t len = sizeof(un);
	g_autofree char *tcp = NULL, *port = NULL;

	if (getsockname(fd, (struct sockaddr *)&un, &len) < 0)
		return g_strdup("?");
	if (un.sun_family == AF_UNIX)
		return g_strdup_printf("unix:%s", un.sun_path);
	tcp = shown_tcp(fd);
	port = g_strdup(strrchr(tcp, ':') + 1);
	if (g_str_has_prefix(tcp, "tcp:[::]:") || g_str_has_prefix(tcp, "tcp:0.0.0.0:"))
		return g_strdup_printf("tcp:HOST:%s", port);
	return g_steal_pointer(&tcp);
}

static int listen_tcp(const struct options_address *a, char **shown, GError **error)
{
	struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM },
			*list = NULL;
	int ret, fd = -1;

	/* Every address: the IPv6 wildcard serves IPv4 as well. */
	if (!a->host[0])
		hints.ai_family = AF_INET6;
	ret = getaddrinfo(a->host[0] ? a->host : NULL, a->port, &hints, &list);
	if (ret != 0) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "cannot resolve %s port %s: %s",
			    a->host, a->port, gai_strerror(ret));
		return -1;
	}
	for (struct addrinfo *ai = list; ai && fd < 0; ai = ai->ai_next)
		fd = try_tcp(ai);
	freeaddrinfo(list);
	if (fd < 0)
		return fail(error, "cannot listen on port", a->port, errno);
	*shown = shown_tcp(fd);
	return fd;
}

/**
 * listen_shown - what listen_incoming() says of a socket, newly allocated
 */
char *listen_shown(int fd, const struct options_address *address)
{
	if (address->transport == OPTIONS_TCP)
		return shown_tcp(fd);
	return g_strdup_printf("unix:%s", address->path);
}

/**
 * listen_incoming - where the source connects
 * @shown: the address, with the port that was picked where 0 was asked for; newly allocated
 *
 * An empty host is every address of both families, by one IPv6 socket.
 *
 * Return: the descriptor, or -1 with *error.
 */
int listen_incoming(const struct options_address *address, char **shown, GError **error)
{
	if (address->transport == OPTIONS_TCP)
		return listen_tcp(address, shown, error);
	*shown = listen_shown(-1, address);
	return listen_unix(address->path, SOCK_STREAM, NULL, error);
}
