/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What goes out lies elsewhere: heads in the writer, pages in the stores of held blocks, the device
 * state in the package.  None of it is copied on the way, and none of it changes: the package is
 * sealed, and a held block that is complete is written by nobody (snapshot.h).
 *
 * QEMU reads when it likes: its main thread may sleep in a fault of its own in the middle of the
 * stream.  So nothing waits here, and nothing here gives up by itself.
 */
#include "config.h"
#include "daemon/handover_stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <glib-unix.h>

#include "sys/fd.h"
#include "wire/qprecopy.h"

#define TARGET_PAGE 4096u
#define PIECES      16

struct handover_stream {
	struct handover_stream_ops ops;
	int fd;
	guint writable, readable;
	bool all_sent;
	struct qprecopy writer;
	struct qprecopy_plan plan;
	struct qprecopy_block block[SNAPSHOT_BLOCKS];
	char name[SNAPSHOT_BLOCKS][256];
	const uint8_t *store[SNAPSHOT_BLOCKS];
	char machine[256];
	uint8_t *package;		/* mapped */
	size_t package_len;
};

/* Equal to itself moved by one byte, and beginning with a zero. */
static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, TARGET_PAGE - 1) == 0;
}

static int give_page(void *ctx, unsigned block, uint64_t offset, const uint8_t **data)
{
	const struct handover_stream *t = ctx;
	const uint8_t *page = t->store[block] + offset;

	*data = is_zero(page) ? NULL : page;
	return 0;
}

/* --- sending ---------------------------------------------------------------------------------- */

/* The end, told once; nothing of the stream is touched after it. */
static void over(struct handover_stream *t, const char *why)
{
	g_clear_handle_id(&t->readable, g_source_remove);
	g_clear_handle_id(&t->writable, g_source_remove);
	t->ops.closed(t->ops.ctx, why);
}

/* 1: all of it is sent, 0: the socket takes no more now, or -errno. */
static int send_some(struct handover_stream *t)
{
	struct qprecopy_piece piece[PIECES];
	int n;

	while ((n = qprecopy_next(&t->writer, piece, PIECES)) > 0) {
		struct iovec iov[PIECES];
		struct msghdr m = { .msg_iov = iov, .msg_iovlen = (size_t)n };
		ssize_t sent;

		for (int i = 0; i < n; i++)
			iov[i] = (struct iovec){ (void *)piece[i].at, piece[i].len };
		sent = sendmsg(t->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (sent < 0 && errno != EINTR)
			return -errno;
		if (sent > 0)
			qprecopy_sent(&t->writer, (size_t)sent);
	}
	return n < 0 ? n : 1;
}

static gboolean on_writable(gint fd, GIOCondition condition, gpointer data)
{
	struct handover_stream *t = data;
	int ret = send_some(t);

	(void)fd;
	(void)condition;
	if (ret == 0)
		return G_SOURCE_CONTINUE;
	t->writable = 0;
	if (ret < 0) {
		over(t, "QEMU closed its incoming connection in the middle of the stream");
	} else {
		t->all_sent = true;
		t->ops.sent(t->ops.ctx);
	}
	return G_SOURCE_REMOVE;
}

/* QEMU says nothing on this connection: whatever is readable is its end. */
static gboolean on_readable(gint fd, GIOCondition condition, gpointer data)
{
	struct handover_stream *t = data;
	char rest[256];
	ssize_t n = recv(fd, rest, sizeof(rest), MSG_DONTWAIT);

	(void)condition;
	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return G_SOURCE_CONTINUE;
	t->readable = 0;
	over(t, t->all_sent ? NULL :
			      "QEMU closed its incoming connection in the middle of the stream");
	return G_SOURCE_REMOVE;
}

/* --- connecting ------------------------------------------------------------------------------- */

G_GNUC_PRINTF(2, 3)
static int fail(char *why, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, 512, fmt, args);
	va_end(args);
	return -1;
}

/* The guest's memory and secrets go through it, so who listens there has to be the QEMU we know. */
static int dial(const struct handover_target *to, char *why)
{
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t len = sizeof(peer);

	g_strlcpy(addr.sun_path, to->path, sizeof(addr.sun_path));
	/*
	 * A UNIX socket connects at once or not at all; QEMU accepts when its main thread gets
	 * there.
	 */
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return fail(why, "cannot connect to the incoming socket %s of QEMU: %s", to->path,
			    g_strerror(errno));
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid != to->pid)
		return fail(why, "process %d listens on %s, not QEMU (process %d)", (int)peer.pid,
			    to->path, (int)to->pid);
	return steal_fd(&fd);
}

/* --- the plan --------------------------------------------------------------------------------- */

static void plan_block(struct handover_stream *t, unsigned i, const struct snapshot_block *b)
{
	g_strlcpy(t->name[i], b->name, sizeof(t->name[i]));
	t->store[i] = b->store;
	t->block[i] = (struct qprecopy_block){
		.name = t->name[i], .length = b->length, .in_stream = b->kind == BLOCK_HELD,
	};
}

static int make_plan(struct handover_stream *t, const struct snapshot *s, char *why)
{
	const char *problem = "";

	t->package_len = s->package_bytes;
	t->package = mmap(NULL, t->package_len, PROT_READ, MAP_PRIVATE, s->package_fd, 0);
	if (t->package == MAP_FAILED) {
		t->package = NULL;
		return fail(why, "cannot map the package: %s", g_strerror(errno));
	}
	for (unsigned i = 0; i < s->n_blocks; i++)
		plan_block(t, i, &s->block[i]);
	g_strlcpy(t->machine, s->machine, sizeof(t->machine));
	t->plan = (struct qprecopy_plan){
		.machine = t->machine,
		.page_bits = s->page_bits,
		.ram_section = s->ram_section,
		.target_page = TARGET_PAGE,
		.blocks = t->block,
		.n_blocks = s->n_blocks,
		.device = t->package + s->package_device_offset,
		.device_len = s->package_device_bytes,
		.page = give_page,
		.ctx = t,
	};
	if (qprecopy_init(&t->writer, &t->plan, &problem) < 0)
		return fail(why, "no stream can be made of what the source sent: %s", problem);
	return 0;
}

/**
 * handover_stream_new - connect and begin to send
 * @s: read now; of it only the package and the stores are needed later, and they stay
 *
 * Return: NULL with @why when there is nobody to send it to.
 */
struct handover_stream *handover_stream_new(const struct handover_target *to,
					    const struct snapshot *s,
					    const struct handover_stream_ops *ops, char *why)
{
	struct handover_stream *t = g_new0(struct handover_stream, 1);

	t->fd = -1;
	t->ops = *ops;
	if (make_plan(t, s, why) == 0)
		t->fd = dial(to, why);
	if (t->fd < 0) {
		handover_stream_free(t);
		return NULL;
	}
	t->readable = g_unix_fd_add(t->fd, G_IO_IN | G_IO_HUP | G_IO_ERR, on_readable, t);
	t->writable = g_unix_fd_add(t->fd, G_IO_OUT, on_writable, t);
	return t;
}

/**
 * handover_stream_free - close the connection
 */
void handover_stream_free(struct handover_stream *t)
{
	if (!t)
		return;
	g_clear_handle_id(&t->readable, g_source_remove);
	g_clear_handle_id(&t->writable, g_source_remove);
	close_fd(&t->fd);
	if (t->package)
		munmap(t->package, t->package_len);
	g_free(t);
}

/**
 * handover_stream_bytes - how many QEMU has taken
 */
uint64_t handover_stream_bytes(const struct handover_stream *t)
{
	return t->writer.sent;
}

/**
 * handover_stream_device - the device part of the package, as long as the stream is there
 */
const uint8_t *handover_stream_device(const struct handover_stream *t, size_t *len)
{
	*len = t->plan.device_len;
	return t->plan.device;
}
