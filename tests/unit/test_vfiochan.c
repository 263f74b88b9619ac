/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages of vfio-user on a socket: in pieces, with descriptors, too many of them, from a peer
 * that does not read.  (F39)
 */
#include "config.h"

#include "sys/vfiochan.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define ROOM 8192

static const struct vfiomsg_terms terms = { .max_data = 4096, .max_fds = 8 };

struct ends {
	struct vfiochan ours;
	int theirs;
};

static void ends_init(struct ends *e)
{
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(vfiochan_init(&e->ours, pair[0], ROOM), 0);
	e->theirs = pair[1];
}

static void ends_deinit(struct ends *e)
{
	vfiochan_deinit(&e->ours);
	close_fd(&e->theirs);
}

/* A reply of number 7 with @len bytes behind its head. */
static size_t make(uint8_t *bytes, uint32_t len)
{
	struct vfiomsg_head head = { 7, VFIOMSG_RESET, VFIOMSG_HEAD + len, VFIOMSG_REPLY, 0 };

	memset(bytes, 0x5a, VFIOMSG_HEAD + len);
	memcpy(bytes, &head, sizeof(head));
	return VFIOMSG_HEAD + len;
}

static void send_with(int sock, const void *bytes, size_t len, const int *fds, size_t n)
{
	union {
		char bytes[CMSG_SPACE(16 * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)bytes, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
			      .msg_controllen = CMSG_SPACE(n * sizeof(int)) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&msg);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(n * sizeof(int));
	memcpy(CMSG_DATA(h), fds, n * sizeof(int));
	cr_assert_eq(sendmsg(sock, &msg, 0), (ssize_t)len);
}

static bool open_now(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

/* A byte at a time; what came is kept, whatever happens between two of them. */
Test(vfiochan, a_message_in_pieces)
{
	uint8_t bytes[VFIOMSG_HEAD + 5];
	size_t len = make(bytes, 5);
	struct ends e;
	struct vfiomsg m;

	ends_init(&e);
	for (size_t i = 0; i < len; i++) {
		cr_expect_eq(vfiochan_pump(&e.ours, &terms), 0, "%zu bytes", i);
		cr_assert_eq(write(e.theirs, bytes + i, 1), 1);
	}
	cr_assert_eq(vfiochan_pump(&e.ours, &terms), 1);
	cr_assert_eq(vfiochan_pump(&e.ours, &terms), 1, "it stays");
	cr_expect_arr_eq(vfiochan_message(&e.ours, &m), bytes + VFIOMSG_HEAD, 5);
	cr_expect_eq(m.head.id, 7);
	cr_expect_eq(m.fds, 0);
	vfiochan_done(&e.ours);
	cr_expect_eq(vfiochan_pump(&e.ours, &terms), 0);
	ends_deinit(&e);
}

enum { TAIL = 9, FIXED = 4 };

/*
 * F39: the tail of the answer that is waited for, and no byte else, lies where it is wanted: cut
 * anywhere, shorter or longer than what was made ready, and not once the place was taken back.
 */
static void into_a_place(uint32_t len, size_t cut, bool taken_back)
{
	uint8_t bytes[VFIOMSG_HEAD + FIXED + TAIL + 3], to[TAIL + 1];
	size_t total = make(bytes, FIXED + len), n = len < TAIL ? len : TAIL;
	size_t there = VFIOMSG_HEAD + FIXED, before = cut > there ? cut - there : 0;
	const uint8_t *body;
	struct vfiomsg m;
	struct ends e;

	for (size_t i = 0; i < len; i++)
		bytes[there + i] = (uint8_t)(i + 1);
	memset(to, 0xee, sizeof(to));
	ends_init(&e);
	e.ours.into = (struct vfiochan_into){ .id = 7, .at = there, .len = TAIL, .to = to };
	cr_assert_eq(write(e.theirs, bytes, cut), (ssize_t)cut);
	cr_assert_eq(vfiochan_pump(&e.ours, &terms), cut == total);
	if (taken_back)
		e.ours.into.to = NULL;
	cr_assert_eq(write(e.theirs, bytes + cut, total - cut), (ssize_t)(total - cut));
	cr_assert_eq(vfiochan_pump(&e.ours, &terms), 1);
	body = vfiochan_message(&e.ours, &m);
	cr_expect_eq(m.head.size, total);
	cr_expect_arr_eq(body, bytes + VFIOMSG_HEAD, FIXED);
	if (taken_back && before < n)
		n = before;
	cr_expect_arr_eq(to, bytes + there, n);
	for (size_t i = n; i < sizeof(to); i++)
		cr_expect_eq(to[i], 0xee, "%u bytes, cut %zu: byte %zu", len, cut, i);
	ends_deinit(&e);
}

Test(vfiochan, F39_an_answer_goes_where_it_is_wanted)
{
	for (uint32_t len = 0; len < TAIL + 3; len++)
		for (size_t cut = 1; cut <= VFIOMSG_HEAD + FIXED + len; cut++) {
			into_a_place(len, cut, false);
			into_a_place(len, cut, true);
		}
}

/* What is no such answer lies in the channel. */
Test(vfiochan, F39_nothing_else_goes_there)
{
	static const struct vfiomsg_head heads[] = {
		{ 8, VFIOMSG_RESET, VFIOMSG_HEAD + 5, VFIOMSG_REPLY, 0 },
		{ 7, VFIOMSG_DMA_READ, VFIOMSG_HEAD + 5, 0, 0 },
		{ 7, VFIOMSG_RESET, VFIOMSG_HEAD + 5, VFIOMSG_REPLY | VFIOMSG_ERROR, EIO },
	};

	for (unsigned i = 0; i < ARRAY_LEN(heads); i++) {
		uint8_t bytes[VFIOMSG_HEAD + 5] = { 0 }, to[5];
		struct vfiomsg m;
		struct ends e;

		memset(bytes, 0x5a, sizeof(bytes));
		memset(to, 0xee, sizeof(to));
		memcpy(bytes, &heads[i], sizeof(heads[i]));
		ends_init(&e);
		e.ours.into = (struct vfiochan_into){ .id = 7, .at = VFIOMSG_HEAD, .len = 5,
						      .to = to };
		cr_assert_eq(write(e.theirs, bytes, sizeof(bytes)), sizeof(bytes));
		cr_assert_eq(vfiochan_pump(&e.ours, &terms), 1);
		cr_expect_arr_eq(vfiochan_message(&e.ours, &m), bytes + VFIOMSG_HEAD, 5);
		cr_expect_eq(to[0], 0xee, "head %u", i);
		ends_deinit(&e);
	}
}

/* Two that come at once are two. */
Test(vfiochan, one_message_at_a_time)
{
	uint8_t bytes[2 * VFIOMSG_HEAD];
	struct ends e;

	ends_init(&e);
	make(bytes, 0);
	make(bytes + VFIOMSG_HEAD, 0);
	cr_assert_eq(write(e.theirs, bytes, sizeof(bytes)), sizeof(bytes));
	for (int i = 0; i < 2; i++) {
		cr_expect_eq(vfiochan_pump(&e.ours, &terms), 1);
		vfiochan_done(&e.ours);
	}
	cr_expect_eq(vfiochan_pump(&e.ours, &terms), 0);
	ends_deinit(&e);
}

Test(vfiochan, F39_heads_are_judged_before_their_bodies_come)
{
	static const uint32_t sizes[] = { 0, 15, VFIOMSG_FRONT + 65536 + 1, UINT32_MAX,
					  ROOM + 1 /* agreed on, but no room */ };

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		struct vfiomsg_head head = { 7, VFIOMSG_RESET, sizes[i], VFIOMSG_REPLY, 0 };
		struct ends e;

		ends_init(&e);
		cr_assert_eq(write(e.theirs, &head, sizeof(head)), sizeof(head));
		cr_expect_eq(vfiochan_pump(&e.ours, &terms), -EPROTO, "%u", sizes[i]);
		ends_deinit(&e);
	}
}

Test(vfiochan, a_peer_that_goes)
{
	uint8_t bytes[VFIOMSG_HEAD];
	struct ends e;

	for (size_t len = 0; len < VFIOMSG_HEAD; len += 5) {
		make(bytes, 0);
		ends_init(&e);
		cr_assert_eq(write(e.theirs, bytes, len), (ssize_t)len);
		close_fd(&e.theirs);
		cr_expect_eq(vfiochan_pump(&e.ours, &terms), -ECONNRESET, "after %zu", len);
		ends_deinit(&e);
	}
}

/* Those that came are ours until they are taken; what is forgotten is closed. */
Test(vfiochan, descriptors_have_an_owner)
{
	uint8_t bytes[VFIOMSG_HEAD];
	struct ends e;
	struct vfiomsg m;
	int fds[2], kept, dropped;

	ends_init(&e);
	cr_assert_eq(pipe(fds), 0);
	send_with(e.theirs, bytes, make(bytes, 0), fds, 2);
	cr_assert_eq(vfiochan_pump(&e.ours, &terms), 1);
	vfiochan_message(&e.ours, &m);
	cr_expect_eq(m.fds, 2);
	dropped = e.ours.fds[1];
	kept = vfiochan_steal(&e.ours);
	cr_expect(kept >= 0 && open_now(kept));
	cr_expect_lt(vfiochan_steal(&e.ours), 0, "only the first can be taken");
	vfiochan_done(&e.ours);
	cr_expect(open_now(kept));
	cr_expect_not(open_now(dropped));
	close(kept);
	close(fds[0]);
	close(fds[1]);
	ends_deinit(&e);
}

/* Nine in one go do not even fit; four and five come one after the other. */
Test(vfiochan, F39_more_descriptors_than_a_message_has)
{
	uint8_t bytes[VFIOMSG_HEAD];
	int fds[9];
	struct ends e;

	for (size_t i = 0; i < 9; i++)
		fds[i] = STDERR_FILENO;
	make(bytes, 0);
	ends_init(&e);
	send_with(e.theirs, bytes, VFIOMSG_HEAD, fds, 9);
	cr_expect_eq(vfiochan_pump(&e.ours, &terms), -EPROTO, "nine at once");
	ends_deinit(&e);
	ends_init(&e);
	send_with(e.theirs, bytes, 8, fds, 4);
	send_with(e.theirs, bytes + 8, 8, fds, 5);
	cr_expect_eq(vfiochan_pump(&e.ours, &terms), -EPROTO, "four, then five");
	ends_deinit(&e);
}

Test(vfiochan, a_peer_that_does_not_read)
{
	static const uint8_t data[4096];
	struct ends e;
	struct vfiomsg m;
	int err = 0;

	ends_init(&e);
	for (int i = 0; i < 4096 && err == 0; i++) { /* 16 MiB: no socket holds that */
		vfiomsg_ask(&m, VFIOMSG_MIG_WRITE, 1);
		m.data = data;
		m.len = sizeof(data);
		err = vfiochan_send(&e.ours, &m, -1, clock_ns());
	}
	cr_expect_eq(err, -ETIMEDOUT);
	close_fd(&e.theirs);
	cr_expect_eq(vfiochan_send(&e.ours, &m, -1, VFIOCHAN_NEVER), -ECONNRESET);
	ends_deinit(&e);
}

Test(vfiochan, waiting_ends_with_the_time_or_the_peer)
{
	struct ends e;
	struct vfiochan *all[1] = { &e.ours };

	ends_init(&e);
	cr_expect_eq(vfiochan_wait(all, 1, clock_ns()), -ETIMEDOUT);
	cr_expect_eq(vfiochan_wait(all, 1, clock_ns() + 2000000), -ETIMEDOUT);
	close_fd(&e.theirs);
	cr_expect_eq(vfiochan_wait(all, 1, VFIOCHAN_NEVER), 0, "there is an end to be read");
	ends_deinit(&e);
}
