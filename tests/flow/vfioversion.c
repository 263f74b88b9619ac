/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first exchange of vfio-user, word for word: what a server takes, what it refuses and hangs up
 * on.  Our own server is held to what the one in use was seen to do.  (F29, F39)
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/vfiochan.h"
#include "tap.h"
#include "vfiouser_spawn.h"
#include "wire/vfioterms.h"

#define LIMIT (UINT64_C(60) * 1000000000)

static const struct vfiomsg_terms terms = { .max_data = 1 << 16, .max_fds = VFIOMSG_FDS };

#define SAY(text) "{\"capabilities\":{" text "}}"

static const struct {
	const char *name, *text; /* text: NULL: nothing is said */
	uint16_t major, minor;
	int answers; /* with this minor version; -1: refused, and hung up */
	bool no_nul, twin;
} rows[] = {
	{ "as everybody says it", SAY("\"max_msg_fds\":8"), 0, 1, 1, false, false },
	{ "nothing", NULL, 0, 1, 1, false, false },
	{ "an older minor version", "{}", 0, 0, 0, false, false },
	{ "a later minor version", "{}", 0, 7, 1, false, false },
	{ "what nobody knows", SAY("\"colour\":\"blue\""), 0, 1, 1, false, false },
	{ "a wish for a second socket", SAY("\"twin_socket\":{\"supported\":true}"), 0, 1, 1, false,
	  true },
	{ "pages of 4 KiB", SAY("\"migration\":{\"pgsize\":4096}"), 0, 1, 1, false, false },
	{ "another major version", "{}", 1, 0, -1, false, false },
	{ "JSON that is none", "{\"capabilities\":", 0, 1, -1, false, false },
	{ "no NUL", "{}", 0, 1, -1, true, false },
	{ "pages of 8 KiB", SAY("\"migration\":{\"pgsize\":8192}"), 0, 1, -1, false, false },
	{ "too many descriptors", SAY("\"max_msg_fds\":1025"), 0, 1, -1, false, false },
};

/* What comes next: 1 a message, -ECONNRESET the end. */
static int next(struct vfiochan *c)
{
	uint64_t until = clock_ns() + LIMIT;
	int ret = vfiochan_pump(c, &terms);

	while (ret == 0) {
		ret = vfiochan_wait(&c, 1, until);
		ret = ret ? ret : vfiochan_pump(c, &terms);
	}
	return ret;
}

static bool refused(struct vfiochan *c, const struct vfiomsg *answer)
{
	bool so = vfiomsg_error(&answer->head) == -EINVAL;

	vfiochan_done(c);
	return so && next(c) == -ECONNRESET;
}

static bool accepted(size_t i, struct vfiochan *c, const struct vfiomsg *answer)
{
	struct vfioterms said;

	if (vfiomsg_error(&answer->head) || answer->fixed.version.minor != rows[i].answers)
		return false;
	if (vfioterms_read(&said, answer->data, answer->len, NULL))
		return false;
	return said.twin == rows[i].twin && c->n_fds == rows[i].twin && said.pgsize == 4096;
}

static void try(size_t i)
{
	struct vfiouser_child child;
	struct vfiochan c;
	struct vfiomsg ask, answer;
	bool good = false;

	vfiouser_spawn(&child, "generation=2");
	if (vfiochan_init(&c, steal_fd(&child.sock), 1 << 17))
		tap_bail_out("no memory");
	vfiomsg_ask(&ask, VFIOMSG_VERSION, 5);
	ask.fixed.version = (struct vfiomsg_version){ rows[i].major, rows[i].minor };
	ask.data = (const uint8_t *)rows[i].text;
	ask.len = rows[i].text ? strlen(rows[i].text) + !rows[i].no_nul : 0;
	if (vfiochan_send(&c, &ask, -1, clock_ns() + LIMIT) == 0 && next(&c) == 1) {
		const uint8_t *body = vfiochan_message(&c, &answer);
		int err = vfiomsg_take_reply(&answer, body, &ask, &terms, NULL);

		/* What is refused need not have been a question that may be asked. */
		if (rows[i].answers < 0)
			good = err == 0 && refused(&c, &answer);
		else
			good = err == 0 && accepted(i, &c, &answer);
	}
	tap_ok(good, "F29 VERSION with %s", rows[i].name);
	vfiochan_deinit(&c);
	vfiouser_reap(&child);
}

/* Nothing is answered before it, and it is not asked twice. */
static void out_of_turn(void)
{
	struct vfiouser_child child;
	struct vfiochan c;
	struct vfiomsg ask, answer;

	vfiouser_spawn(&child, "generation=2");
	if (vfiochan_init(&c, steal_fd(&child.sock), 1 << 17))
		tap_bail_out("no memory");
	vfiomsg_ask(&ask, VFIOMSG_RESET, 5);
	tap_ok(vfiochan_send(&c, &ask, -1, clock_ns() + LIMIT) == 0 && next(&c) == -ECONNRESET,
	       "F29 nothing before VERSION");
	vfiochan_deinit(&c);
	vfiouser_reap(&child);
	vfiouser_spawn(&child, "generation=2");
	if (vfiochan_init(&c, steal_fd(&child.sock), 1 << 17))
		tap_bail_out("no memory");
	for (int i = 0; i < 2; i++) {
		vfiomsg_ask(&ask, VFIOMSG_VERSION, 5);
		ask.fixed.version.minor = 1;
		if (vfiochan_send(&c, &ask, -1, clock_ns() + LIMIT) || next(&c) != 1)
			tap_bail_out("no answer");
		vfiochan_message(&c, &answer);
		tap_ok(!vfiomsg_error(&answer.head) == !i, "F29 VERSION, time %d", i + 1);
		vfiochan_done(&c);
	}
	vfiochan_deinit(&c);
	vfiouser_reap(&child);
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		try(i);
	out_of_turn();
	return tap_done();
}
