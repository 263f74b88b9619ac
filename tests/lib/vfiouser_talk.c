/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Messages of the vfio-user server: how they come and go, and what can be wrong with them. */
#include "config.h"

#include "vfiouser.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"

/* All of @len bytes; a descriptor may come with the first.  0, -ECONNRESET at the end. */
static int receive_all(int sock, void *buf, size_t len, int *fd)
{
	char control[CMSG_SPACE(sizeof(int))];
	size_t done = 0;

	while (done < len) {
		struct iovec iov = { (uint8_t *)buf + done, len - done };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
				      .msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
		struct cmsghdr *c;

		if (n <= 0)
			return -ECONNRESET;
		c = CMSG_FIRSTHDR(&msg);
		if (c && c->cmsg_type == SCM_RIGHTS && fd)
			memcpy(fd, CMSG_DATA(c), sizeof(*fd));
		done += (size_t)n;
	}
	return 0;
}

int vfiouser_receive(int sock, struct vfiomsg *m, uint8_t **body, int *fd,
		     const struct vfiomsg_terms *terms)
{
	size_t len;
	int err;

	memset(m, 0, sizeof(*m));
	err = receive_all(sock, &m->head, VFIOMSG_HEAD, fd);
	err = err ? err : vfiomsg_check_head(&m->head, terms, NULL);
	if (err)
		return err;
	m->fds = fd && *fd >= 0;
	len = m->head.size - VFIOMSG_HEAD;
	free(*body);
	*body = malloc(len ? len : 1);
	return *body ? receive_all(sock, *body, len, NULL) : -ENOMEM;
}

/* @limit: bytes of it that go out. */
static int send_bytes(int sock, const void *front, size_t n, const struct vfiomsg *m, int fd)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov[2] = { { (void *)front, n }, { (void *)m->data, m->len } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	size_t left = n + m->len;

	if (fd >= 0) {
		msg.msg_control = control.bytes;
		msg.msg_controllen = sizeof(control.bytes);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET,
							 SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	while (left) {
		ssize_t sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
		size_t first;

		if (sent <= 0)
			return -ECONNRESET;
		left -= (size_t)sent;
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		first = (size_t)sent < iov[0].iov_len ? (size_t)sent : iov[0].iov_len;
		iov[0].iov_base = (uint8_t *)iov[0].iov_base + first;
		iov[0].iov_len -= first;
		if ((size_t)sent == first)
			continue;
		iov[1].iov_base = (uint8_t *)iov[1].iov_base + ((size_t)sent - first);
		iov[1].iov_len -= (size_t)sent - first;
	}
	return 0;
}

int vfiouser_send(int sock, struct vfiomsg *m, int fd)
{
	uint8_t front[VFIOMSG_FRONT];
	size_t n = vfiomsg_front(m, front);

	return send_bytes(sock, front, n, m, fd);
}

/* --- vices -------------------------------------------------------------------------------- */

static void put_size(uint8_t *front, uint32_t size)
{
	memcpy(front + offsetof(struct vfiomsg_head, size), &size, sizeof(size));
}

static void wrong_head(enum vfiouser_vice vice, struct vfiomsg_head *head)
{
	switch (vice) {
	case VICE_ID:
		head->id ^= 1;
		break;
	case VICE_TYPE:
		head->flags = 0;
		break;
	case VICE_COMMAND:
		head->command ^= 1;
		break;
	case VICE_TINY:
		head->size = 15;
		break;
	case VICE_HUGE:
		head->size = UINT32_MAX;
		break;
	case VICE_ERROR:
	case VICE_ERROR_BODY:
		head->flags |= VFIOMSG_ERROR;
		head->error = EBUSY;
		break;
	default:
		break;
	}
}

/* What a failure looks like: a head, or a head and four bytes. */
static size_t only_head(struct vfiomsg *m, uint8_t *front, size_t more)
{
	m->len = 0;
	memset(front + VFIOMSG_HEAD, 0, more);
	put_size(front, (uint32_t)(VFIOMSG_HEAD + more));
	return VFIOMSG_HEAD + more;
}

static size_t wrong_length(enum vfiouser_vice vice, struct vfiomsg *m, uint8_t *front, size_t n)
{
	switch (vice) {
	case VICE_ERROR:
		return only_head(m, front, 0);
	case VICE_ERROR_BODY:
		return only_head(m, front, 4);
	case VICE_SHORT: /* a head alone only says so, or it would be waited for */
		put_size(front, m->head.size - 1);
		if (m->len)
			m->len--;
		else if (n > VFIOMSG_HEAD)
			n--;
		return n;
	case VICE_LONG:
		put_size(front, (uint32_t)(n + 1));
		m->len = 0;
		front[n] = 0;
		return n + 1;
	case VICE_DIE_HALF:
		m->len = 0;
		return n / 2;
	default:
		return n;
	}
}

/* Ask for nothing, want no answer, never stop. */
static int flood(struct vfiouser *s)
{
	struct vfiomsg ask;
	int err;

	vfiomsg_ask(&ask, VFIOMSG_DMA_READ, 0x8000);
	ask.head.flags = VFIOMSG_NO_REPLY;
	do {
		err = vfiouser_send(s->twin >= 0 ? s->twin : s->sock, &ask, -1);
	} while (err == 0);
	return err;
}

static int answer_wrongly(struct vfiouser *s, struct vfiomsg *m)
{
	uint8_t front[VFIOMSG_FRONT + 1];
	struct vfiomsg_head head;
	size_t n;
	int err;

	if (s->vice == VICE_DIE)
		_exit(0);
	if (s->vice == VICE_SILENT)
		return 0;
	if (s->vice == VICE_FLOOD)
		return flood(s);
	if (s->vice == VICE_VERSION)
		m->fixed.version.major ^= 1;
	n = vfiomsg_front(m, front);
	memcpy(&head, front, sizeof(head));
	wrong_head(s->vice, &head);
	memcpy(front, &head, sizeof(head));
	n = wrong_length(s->vice, m, front, n);
	if (s->vice == VICE_ERROR || s->vice == VICE_ERROR_BODY)
		close_fd(&s->gift);
	err = send_bytes(s->sock, front, n, m, s->gift);
	if (s->vice == VICE_DIE_AFTER || s->vice == VICE_DIE_HALF)
		_exit(0);
	return err;
}

/* Kept until the next one goes; its tail is forgotten, as nobody will look at it. */
static int keep(struct vfiouser *s, struct vfiomsg *m)
{
	s->late = malloc(sizeof(*m));
	if (!s->late)
		return -ENOMEM;
	vfiomsg_fail(s->late, &m->head, -EBUSY);
	return 0;
}

static int send_late(struct vfiouser *s)
{
	cleanup_free struct vfiomsg *m = steal_ptr(&s->late);

	return m ? vfiouser_send(s->sock, m, -1) : 0;
}

int vfiouser_answer(struct vfiouser *s, struct vfiomsg *m)
{
	bool wrong = s->vice && s->heard++ == s->vice_at;
	int err = send_late(s);

	if (err)
		return err;
	if (wrong && s->vice == VICE_LATE)
		err = keep(s, m);
	else
		err = wrong ? answer_wrongly(s, m) : vfiouser_send(s->sock, m, s->gift);
	close_fd(&s->gift);
	return err;
}

enum vfiouser_vice vfiouser_vice(const char *name)
{
	static const char *const names[VICES] = {
		[VICE_NONE] = "none",	    [VICE_DIE] = "die",
		[VICE_DIE_AFTER] = "die-after", [VICE_DIE_HALF] = "die-half",
		[VICE_SILENT] = "silent",   [VICE_LATE] = "late",
		[VICE_FLOOD] = "flood",
		[VICE_ID] = "id",
		[VICE_TYPE] = "type",	    [VICE_COMMAND] = "command",
		[VICE_TINY] = "tiny",	    [VICE_HUGE] = "huge",
		[VICE_SHORT] = "short",	    [VICE_LONG] = "long",
		[VICE_ERROR] = "error",	    [VICE_ERROR_BODY] = "error-body",
		[VICE_VERSION] = "version",
	};
	unsigned i = 0;

	while (i < VICES && strcmp(names[i], name))
		i++;
	return (enum vfiouser_vice)i;
}
