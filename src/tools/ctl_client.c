/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection to a daemon that may be gone, busy or somebody else's.  Whatever fails is put into
 * words once, in c->error, with the path and what to do about it; the callers only pass the code
 * on.  What the daemon says goes through jsonmsg_parse() like any peer's, and what of it is shown
 * goes through ctl_format_plain().
 */
#include "config.h"
#include "tools/ctl_client.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "core/guard.h"
#include "sys/fd.h"
#include "tools/ctl_format.h"

#define ANSWER_TIMEOUT_MS 10000 /* the daemon itself gives up on its fault thread after 5 s */
#define MAX_LINE	  (8u << 20)

G_GNUC_PRINTF(3, 4)
static int fail(struct ctl_client *c, int code, const char *fmt, ...)
{
	va_list ap;

	g_free(c->error);
	va_start(ap, fmt);
	c->error = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	return code;
}

/* --- connecting --------------------------------------------------------------------------- */

static int explain_connect(struct ctl_client *c, int error)
{
	g_autofree char *dir = g_path_get_dirname(c->path);

	switch (error) {
	case ENOENT:
		return fail(c, -error,
			    "no postcopyd at %s: there is no such socket; start one with "
			    "'postcopyd --incoming tcp::PORT --run-dir %s'",
			    c->path, dir);
	case ECONNREFUSED:
		return fail(c, -error,
			    "no postcopyd at %s: it has ended and left its socket behind; "
			    "start one with 'postcopyd --incoming tcp::PORT --run-dir %s'",
			    c->path, dir);
	case EACCES:
	case EPERM:
		return fail(c, -error,
			    "may not open %s: only root and the daemon's own user may control it",
			    c->path);
	default:
		return fail(c, -error, "cannot connect to %s: %s", c->path, g_strerror(error));
	}
}

static int dial(struct ctl_client *c)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd cleanup_fd = -1;

	if (strlen(c->path) >= sizeof(address.sun_path))
		return fail(c, -ENAMETOOLONG, "the path %s is too long for a socket", c->path);
	strcpy(address.sun_path, c->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail(c, -errno, "cannot make a socket: %s", g_strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return explain_connect(c, errno);
	c->fd = steal_fd(&fd);
	return 0;
}

/* A daemon that turns us away says why instead of greeting. */
static int take_greeting(struct ctl_client *c)
{
	int r = ctl_client_wait(c, &c->greeting, ANSWER_TIMEOUT_MS);
	g_autofree char *desc = NULL;

	if (r < 0)
		return r;
	if (jsonmsg_member(c->greeting, "error")) {
		desc = ctl_format_plain(
			jsonmsg_text(jsonmsg_member(c->greeting, "error"), "desc", "turned away"));
		return fail(c, -EACCES, "%s: %s", c->path, desc);
	}
	if (!jsonmsg_member(c->greeting, "postcopyd"))
		return fail(c, -EBADMSG, "%s is not the control socket of a postcopyd", c->path);
	return 0;
}

/**
 * ctl_client_open - connect and take the greeting
 * @c: ctl_client_close() it, also after a failure
 *
 * Return: 0, or -errno with c->error saying which path and what to do.
 */
int ctl_client_open(struct ctl_client *c, const char *path)
{
	int r;

	*c = (struct ctl_client){.fd = -1, .path = g_strdup(path), .in = g_string_new(NULL)};
	r = dial(c);
	return r < 0 ? r : take_greeting(c);
}

/**
 * ctl_client_close - once more is harmless
 */
void ctl_client_close(struct ctl_client *c)
{
	close_fd(&c->fd);
	g_clear_pointer(&c->path, g_free);
	g_clear_pointer(&c->error, g_free);
	g_clear_pointer(&c->greeting, jsonmsg_free);
	if (c->in)
		g_string_free(c->in, TRUE);
	c->in = NULL;
}

/* --- talking ------------------------------------------------------------------------------ */

/* Requests are a few hundred bytes: a daemon that lives takes them at once. */
static int send_all(struct ctl_client *c, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(c->fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(c, -errno, "%s: %s", c->path, g_strerror(errno));
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static void put_arguments(struct jsonmsg_writer *w, const struct ctl_argument *a)
{
	jsonmsg_begin_object(w, "arguments");
	for (; a->name; a++) {
		if (a->text)
			jsonmsg_put_text(w, a->name, a->text);
		else
			jsonmsg_put_bool(w, a->name, true);
	}
	jsonmsg_end(w);
}

static int send_with(struct ctl_client *c, int64_t id, const char *command,
		     const struct ctl_argument *arguments)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	char *line cleanup_free = NULL;
	size_t len;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_i64(w, "id", id);
	jsonmsg_put_text(w, "execute", command);
	if (arguments->name)
		put_arguments(w, arguments);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, &len);
	return send_all(c, line, len);
}

/**
 * ctl_client_send - send one request, as a whole
 * @flag: name of an argument that is set to true, or NULL
 *
 * Return: 0 or -errno.
 */
int ctl_client_send(struct ctl_client *c, int64_t id, const char *command, const char *flag)
{
	return send_with(c, id, command, (const struct ctl_argument[]){{flag, NULL}, {NULL, NULL}});
}

/**
 * ctl_client_read - take what the socket has, never waiting
 *
 * Return: 1 something came, 0 nothing yet, -EPIPE no daemon any more, another -errno.
 */
int ctl_client_read(struct ctl_client *c)
{
	char buf[65536];
	ssize_t n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0) {
		g_string_append_len(c->in, buf, n);
		return 1;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	if (n == 0 || errno == ECONNRESET)
		return fail(c, -EPIPE, "postcopyd at %s has ended", c->path);
	return fail(c, -errno, "%s: %s", c->path, g_strerror(errno));
}

/**
 * ctl_client_take - the next line that is complete
 * @out: to be freed; NULL when there is none
 *
 * Return: 1, 0 none, -EBADMSG what came is not our protocol.
 */
int ctl_client_take(struct ctl_client *c, struct jsonmsg **out)
{
	const char *nl = memchr(c->in->str, '\n', c->in->len), *why;

	*out = NULL;
	if (!nl && c->in->len > MAX_LINE)
		return fail(c, -EBADMSG, "%s: the daemon's answer has no end", c->path);
	if (!nl)
		return 0;
	if (jsonmsg_parse(out, c->in->str, (size_t)(nl - c->in->str), &why) < 0)
		return fail(c, -EBADMSG, "%s: the daemon's answer cannot be read: %s", c->path,
			    why);
	g_string_erase(c->in, 0, nl - c->in->str + 1);
	return 1;
}

/* 0 when it is worth looking for a line again. */
static int wait_for_bytes(struct ctl_client *c, int timeout_ms)
{
	struct pollfd ready = {.fd = c->fd, .events = POLLIN};
	int r = poll(&ready, 1, timeout_ms);

	if (r == 0)
		return fail(c, -ETIMEDOUT, "postcopyd at %s does not answer", c->path);
	if (r < 0)
		return errno == EINTR ? 0 : fail(c, -errno, "poll: %s", g_strerror(errno));
	r = ctl_client_read(c);
	return r < 0 ? r : 0;
}

/**
 * ctl_client_wait - wait for the next line
 * @timeout_ms: for each of its parts; < 0: for ever
 *
 * What came before the daemon ended is still given out.
 *
 * Return: 0, -ETIMEDOUT, or as ctl_client_read() and ctl_client_take().
 */
int ctl_client_wait(struct ctl_client *c, struct jsonmsg **out, int timeout_ms)
{
	int r = 0;

	for (;;) {
		int taken = ctl_client_take(c, out);

		if (taken)
			return taken < 0 ? taken : 0;
		if (r < 0)
			return r;
		r = wait_for_bytes(c, timeout_ms);
	}
}

static int check_reply(struct ctl_client *c, const struct jsonmsg *reply)
{
	g_autofree char *desc = NULL;

	if (jsonmsg_member(reply, "error")) {
		desc = ctl_format_plain(
			jsonmsg_text(jsonmsg_member(reply, "error"), "desc", "refused"));
		return fail(c, -EREMOTEIO, "%s", desc);
	}
	if (!jsonmsg_member(reply, "return"))
		return fail(c, -EBADMSG, "%s: the daemon's answer has no content", c->path);
	return 0;
}

/**
 * ctl_client_ask - send a request and wait for its reply; events meanwhile are dropped
 * @flag: as in ctl_client_send()
 * @reply: the whole reply, whose "return" is there; to be freed
 *
 * Return: 0, -EREMOTEIO when the daemon refused, or as ctl_client_wait(); c->error has the text.
 */
int ctl_client_ask(struct ctl_client *c, const char *command, const char *flag,
		   struct jsonmsg **reply)
{
	return ctl_client_ask_with(
		c, command, (const struct ctl_argument[]){ { flag, NULL }, { NULL, NULL } }, reply);
}

/**
 * ctl_client_ask_with - the same with arguments
 * @arguments: the last one has no name
 */
int ctl_client_ask_with(struct ctl_client *c, const char *command,
			const struct ctl_argument *arguments, struct jsonmsg **reply)
{
	struct jsonmsg *v cleanup_jsonmsg = NULL;
	int r = send_with(c, 1, command, arguments);

	*reply = NULL;
	while (r == 0 && !v) {
		r = ctl_client_wait(c, &v, ANSWER_TIMEOUT_MS);
		if (r == 0 && jsonmsg_member(v, "event"))
			g_clear_pointer(&v, jsonmsg_free);
	}
	if (r == 0)
		r = check_reply(c, v);
	if (r == 0)
		*reply = steal_ptr(&v);
	return r;
}
