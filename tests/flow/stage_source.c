/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The source of a stage: what it sends, what it hears, and how it comes again. */
#include "config.h"

#include "stage_parts.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/guard.h"
#include "facts.h"
#include "sys/clock.h"

#define SECTION 3u
/* so that the whole package without PING 0x42 has two pages */
#define DEVICE	(2 * PAGE - 19)
#define STREAM_ROOM (STAGE_PAGES * (PAGE + 64) + 4096)

uint64_t stage_word(unsigned page)
{
	return stage_zero(page) ? 0 : (page + 1) * 0x9e3779b97f4a7c15ull;
}

void stage_write(int fd, const struct pen *p)
{
	size_t left = pen_used(p);

	expect(!p->bad);
	for (const uint8_t *at = p->start; left;) {
		ssize_t n = send(fd, at, left, MSG_NOSIGNAL);

		expect(n > 0);
		at += n;
		left -= (size_t)n;
	}
}

void stage_send_opening(struct stage *s)
{
	const struct qstream_block block = { .name = NAME, .length = LENGTH, .page_size = PAGE };
	uint8_t buf[1024];
	struct pen p = pen_init(buf, sizeof(buf));

	qstream_put_header(&p, "pc-q35-10.2");
	qstream_put_command(&p, QCMD_OPEN_RETURN_PATH, NULL, 0);
	qstream_put_ping(&p, 1);
	qstream_put_advise(&p, PAGE, PAGE);
	qstream_put_blocks(&p, SECTION, &block, 1, PAGE);
	stage_write(s->main, &p);
}

static void put_page(struct pen *p, unsigned page)
{
	uint64_t word[PAGE / 8];

	qstream_put_page_head(p, (uint64_t)page * PAGE, NAME, stage_zero(page));
	if (stage_zero(page))
		return;
	for (size_t i = 0; i < ARRAY_LEN(word); i++)
		word[i] = stage_word(page);
	pen_bytes(p, word, sizeof(word));
}

void stage_send_switch_over(struct stage *s)
{
	const uint64_t owed[1][2] = { { 0,
					s->options.row_known ? STAGE_ROW_FIRST * PAGE : LENGTH } };
	static const uint8_t device[DEVICE] = "device state";
	uint8_t buf[sizeof(device) + STAGE_ROW_N * 64 + 1024];
	struct pen p = pen_init(buf, sizeof(buf));

	if (s->options.row_known) {
		qstream_put_ram_begin(&p, false, SECTION);
		for (unsigned i = STAGE_ROW_FIRST; i < STAGE_ROW_FIRST + STAGE_ROW_N; i++)
			put_page(&p, i);
		qstream_put_ram_end(&p, SECTION);
	}
	qstream_put_discard(&p, NAME, owed, 1);
	qstream_put_package(&p, device, sizeof(device), s->options.commit_ping);
	stage_write(s->main, &p);
}

static void put_end(struct pen *p)
{
	qstream_put_ram_begin(p, true, SECTION);
	qstream_put_ram_end(p, SECTION);
	pen_u8(p, 0);
}

void stage_send_last(struct stage *s, unsigned first, unsigned n)
{
	cleanup_free uint8_t *buf = malloc(STREAM_ROOM);
	struct pen p = pen_init(buf, STREAM_ROOM);

	expect(buf);
	qstream_put_ram_begin(&p, false, SECTION);
	for (unsigned i = first; i < first + n; i++)
		put_page(&p, i);
	qstream_put_ram_end(&p, SECTION);
	put_end(&p);
	stage_write(s->main, &p);
}

void stage_send(struct stage *s, bool urgent, unsigned first, unsigned n)
{
	cleanup_free uint8_t *buf = malloc(STREAM_ROOM);
	struct pen p = pen_init(buf, STREAM_ROOM);

	expect(buf);
	if (!urgent)
		qstream_put_ram_begin(&p, false, SECTION);
	for (unsigned i = first; i < first + n; i++)
		put_page(&p, i);
	if (!urgent)
		qstream_put_ram_end(&p, SECTION);
	stage_write(urgent ? s->urgent : s->main, &p);
}

void stage_end(struct stage *s)
{
	uint8_t buf[64];
	struct pen p = pen_init(buf, sizeof(buf));

	put_end(&p);
	stage_write(s->main, &p);
}

static void on_request(struct stage *s, const struct qreturn_message *m)
{
	unsigned first = (unsigned)(m->start / PAGE), n = m->length / PAGE;

	expect(first + n <= STAGE_PAGES && m->start % PAGE == 0 && n > 0);
	expect_eq(strcmp(m->name, NAME), 0);
	for (unsigned i = first; i < first + n; i++) {
		s->n_requested_twice += s->requested[i];
		s->n_requested += !s->requested[i];
		s->requested[i] = true;
	}
}

/* The bitmap is read here as a whole, with the end mark behind it. */
static void on_bitmap(struct stage *s, const struct qreturn_message *m)
{
	uint8_t bits[STAGE_PAGES / 8 + 8];

	expect_eq(m->bitmap_size, STAGE_PAGES / 8);
	expect_eq(strcmp(m->name, NAME), 0);
	while (s->n_back < m->used + sizeof(bits)) {
		ssize_t n = recv(s->main, s->back + s->n_back, sizeof(s->back) - s->n_back, 0);

		expect(n > 0);
		s->n_back += (size_t)n;
	}
	memcpy(bits, s->back + m->used, sizeof(bits));
	memmove(s->back + m->used, s->back + m->used + sizeof(bits),
		s->n_back - m->used - sizeof(bits));
	s->n_back -= sizeof(bits);
	qreturn_took(&s->reader, sizeof(bits));
	for (unsigned i = 0; i < STAGE_PAGES; i++)
		s->received[i] = bits[i / 8] >> i % 8 & 1;
}

static void on_message(struct stage *s, int type, const struct qreturn_message *m)
{
	expect(!s->shut || (s->may_repeat && type == QRETURN_SHUT));
	if (type == QRETURN_RECV_BITMAP) {
		on_bitmap(s, m);
		return;
	}
	if (type == QRETURN_RESUME_ACK) {
		s->resumed = true;
		return;
	}
	if (type == QRETURN_REQ_PAGES || type == QRETURN_REQ_PAGES_ID) {
		on_request(s, m);
	} else if (type == QRETURN_PONG) {
		expect(s->n_pongs < ARRAY_LEN(s->pong));
		s->pong[s->n_pongs++] = m->value;
	} else {
		expect_eq(type, QRETURN_SHUT);
		s->shut = true;
		s->shut_value = m->value;
	}
}

void stage_hear(struct stage *s, int ms)
{
	struct pollfd ready = { .fd = s->main, .events = POLLIN };
	struct qreturn_message m;
	ssize_t n;
	int type;

	if (s->hung_up || poll(&ready, 1, ms) < 1)
		return;
	n = recv(s->main, s->back + s->n_back, sizeof(s->back) - s->n_back, 0);
	s->hung_up = n <= 0;
	if (n > 0)
		s->n_back += (size_t)n;
	while ((type = qreturn_next(&s->reader, s->back, s->n_back, &m)) != QRETURN_NEED_MORE) {
		expect(type > 0);
		on_message(s, type, &m);
		s->n_back -= m.used;
		memmove(s->back, s->back + m.used, s->n_back);
	}
}

/* --- again --------------------------------------------------------------------------------- */

static int connect_again(struct stage *s, bool urgent)
{
	struct message m = { .kind = MESSAGE_LANE };
	int pair[2];

	expect_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	m.lane.urgent = urgent;
	m.lane.recovery = true;
	m.lane.fd = pair[1];
	strcpy(m.lane.peer, "the test again");
	faultloop_post(s->loop, &m);
	return pair[0];
}

void stage_resume(struct stage *s)
{
	static const uint8_t name[] = { sizeof(NAME) - 1, NAME[0] };
	uint64_t until = stage_deadline();
	uint8_t buf[64];
	struct pen p = pen_init(buf, sizeof(buf));

	close(s->main);
	s->main = connect_again(s, false);
	if (s->options.urgent) {
		close(s->urgent);
		s->urgent = connect_again(s, true);
	}
	qreturn_reader_init(&s->reader);
	s->n_back = 0;
	s->hung_up = s->resumed = false;
	memset(s->requested, 0, sizeof(s->requested));
	s->n_requested = s->n_requested_twice = 0;
	qstream_put_command(&p, QCMD_RECV_BITMAP, name, sizeof(name));
	qstream_put_command(&p, QCMD_RESUME, NULL, 0);
	stage_write(s->main, &p);
	while (!s->resumed) {
		expect(clock_ns() < until && !s->hung_up);
		stage_hear(s, 10);
	}
	stage_wait_state(s, SESSION_RUNNING);
}
