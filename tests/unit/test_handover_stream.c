/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stream on its way to QEMU's incoming socket: every byte once and in order, whoever is slow,
 * and each way that QEMU's end can be lost.  What the bytes are is test_qprecopy's.
 */
#include "config.h"
#include "daemon/handover_stream.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <glib.h>
#include <glib/gstdio.h>

#include "lib/rng.h"
#include "sys/fd.h"
#include "wire/qprecopy.h"

#define PATIENCE_US (20 * G_USEC_PER_SEC) /* until a test gives up; nothing is measured by it */
#define PAGE	    4096u
#define HELD_PAGES  600u
#define FRONT	    100u /* of the package: what stands before the device part */
#define DEVICE	    70000u

struct stage {
	char *dir, *path;
	int listener, fd; /* QEMU's; fd: what it accepted */
	struct snapshot *s;
	uint8_t *held;
	uint8_t package[FRONT + DEVICE];
	struct handover_stream *stream;
	unsigned sent, closed;
	const char *why;	/* of closed */
	char problem[512];	/* of a stream that could not be made */
};

static struct stage stage;

static void on_sent(void *ctx)
{
	cr_assert_eq(ctx, &stage);
	stage.sent++;
}

static void on_closed(void *ctx, const char *why)
{
	cr_assert_eq(ctx, &stage);
	stage.closed++;
	stage.why = why;
}

static void add_block(const char *name, enum block_kind kind, uint64_t pages, const uint8_t *store)
{
	struct snapshot_block *b = &stage.s->block[stage.s->n_blocks++];

	strcpy(b->name, name);
	b->kind = kind;
	b->page_size = PAGE;
	b->length = pages * PAGE;
	b->store = store;
}

/* Held: of three pages one is zero, and one is zero but for its last byte. */
static void fill(void)
{
	for (unsigned page = 0; page < HELD_PAGES; page++) {
		uint8_t *at = stage.held + page * PAGE;

		if (page % 3 == 0)
			memset(at, (int)(1 + page % 255), PAGE);
		else if (page % 3 == 1)
			at[PAGE - 1] = 0xa5;
	}
	for (unsigned i = 0; i < sizeof(stage.package); i++)
		stage.package[i] = (uint8_t)(i * 7 + i / 251);
}

static void set_up(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	stage = (struct stage){ .fd = -1 };
	stage.dir = g_dir_make_tmp("pc-stream-XXXXXX", NULL);
	stage.path = g_build_filename(stage.dir, "incoming", NULL);
	stage.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(addr.sun_path, stage.path);
	cr_assert_eq(bind(stage.listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(listen(stage.listener, 1), 0);
	stage.held = g_malloc0(HELD_PAGES * PAGE);
	fill();
	stage.s = g_new0(struct snapshot, 1);
	stage.s->package_fd = memfd_create("package", MFD_CLOEXEC);
	cr_assert_eq(write(stage.s->package_fd, stage.package, sizeof(stage.package)),
		     (ssize_t)sizeof(stage.package));
	stage.s->package_bytes = sizeof(stage.package);
	stage.s->package_device_offset = FRONT;
	stage.s->package_device_bytes = DEVICE;
	stage.s->ram_section = 2;
	strcpy(stage.s->machine, "pc-i440fx-7.2");
	add_block("pc.ram", BLOCK_SHARED, 1024, NULL);
	add_block("vga", BLOCK_HELD, HELD_PAGES, stage.held);
}

static void tear_down(void)
{
	handover_stream_free(stage.stream);
	close_fd(&stage.fd);
	close_fd(&stage.listener);
	close_fd(&stage.s->package_fd);
	g_unlink(stage.path);
	g_rmdir(stage.dir);
	g_free(stage.path);
	g_free(stage.dir);
	g_free(stage.held);
	g_free(stage.s);
}

TestSuite(handover_stream, .init = set_up, .fini = tear_down);

static void connect_to(pid_t pid)
{
	const struct handover_target to = { stage.path, pid };
	const struct handover_stream_ops ops = { on_sent, on_closed, &stage };

	stage.stream = handover_stream_new(&to, stage.s, &ops, stage.problem);
}

/* QEMU accepts, with room for no more than @room bytes (0: what the system gives). */
static void begin(int room)
{
	if (room)
		cr_assert_eq(setsockopt(stage.listener, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room)),
			     0);
	connect_to(getpid());
	cr_assert_not_null(stage.stream, "%s", stage.problem);
	stage.fd = accept4(stage.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	cr_assert_geq(stage.fd, 0);
}

/* Turn the main loop until nothing is to be done at once. */
static void turn(void)
{
	while (g_main_context_iteration(NULL, FALSE))
		;
}

static void wait_closed(void)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_US;

	while (!stage.closed) {
		cr_assert_lt(g_get_monotonic_time(), until, "the end was not told");
		g_main_context_iteration(NULL, FALSE);
	}
}

/* What @out lacks of @total bytes, in reads of up to @most. */
static void read_up_to(GByteArray *out, size_t total, size_t most, struct rng *rng)
{
	gint64 until = g_get_monotonic_time() + PATIENCE_US;
	uint8_t buffer[65536];

	while (out->len < total) {
		size_t left = total - out->len;
		ssize_t n = recv(stage.fd, buffer, MIN(rng_between(rng, 1, most), left), 0);

		if (n > 0)
			g_byte_array_append(out, buffer, (guint)n);
		cr_assert(n > 0 || errno == EAGAIN, "%s", g_strerror(errno));
		cr_assert_lt(g_get_monotonic_time(), until, "%u bytes came", out->len);
		turn();
	}
}

/* --- what is to come -------------------------------------------------------------------------- */

static int give_page(void *ctx, unsigned block, uint64_t offset, const uint8_t **data)
{
	(void)ctx;
	cr_assert_eq(block, 1);
	*data = offset / PAGE % 3 == 2 ? NULL : stage.held + offset;
	return 0;
}

/* All of it in one piece, from what this file knows and not from the snapshot. */
static GByteArray *expected(void)
{
	static const struct qprecopy_block blocks[] = {
		{ "pc.ram", 1024 * PAGE, false },
		{ "vga", HELD_PAGES * PAGE, true },
	};
	const struct qprecopy_plan plan = {
		.machine = "pc-i440fx-7.2", .ram_section = 2, .target_page = PAGE, .blocks = blocks,
		.n_blocks = 2, .device = stage.package + FRONT, .device_len = DEVICE,
		.page = give_page,
	};
	g_autofree struct qprecopy *w = g_new0(struct qprecopy, 1);
	GByteArray *all = g_byte_array_new();
	struct qprecopy_piece piece;
	const char *why = NULL;

	cr_assert_eq(qprecopy_init(w, &plan, &why), 0, "%s", why);
	while (qprecopy_next(w, &piece, 1) == 1) {
		g_byte_array_append(all, piece.at, (guint)piece.len);
		qprecopy_sent(w, piece.len);
	}
	return all;
}

static void check_same(const GByteArray *got, const GByteArray *want)
{
	cr_assert_eq(got->len, want->len);
	for (guint i = 0; i < got->len; i++)
		cr_assert_eq(got->data[i], want->data[i], "byte %u of %u", i, got->len);
}

/* --- tests ------------------------------------------------------------------------------------ */

Test(handover_stream, every_byte_once_however_it_is_read)
{
	g_autoptr(GByteArray) want = expected(), got = g_byte_array_new();
	struct rng rng = { rng_seed() };

	begin(4096);
	read_up_to(got, want->len, 9000, &rng);
	turn();
	check_same(got, want);
	cr_assert_eq(stage.sent, 1);
	cr_assert_eq(stage.closed, 0);
	cr_assert_eq(handover_stream_bytes(stage.stream), want->len);
	cr_assert_eq(recv(stage.fd, got->data, 1, 0), -1, "nothing comes behind the end");
	cr_assert_eq(errno, EAGAIN);
}

Test(handover_stream, who_closes_behind_the_end_lost_nothing)
{
	g_autoptr(GByteArray) want = expected(), got = g_byte_array_new();
	struct rng rng = { rng_seed() };

	begin(0);
	read_up_to(got, want->len, 65536, &rng);
	turn();
	close_fd(&stage.fd);
	wait_closed();
	turn();
	cr_assert_null(stage.why);
	cr_assert_eq(stage.sent, 1);
	cr_assert_eq(stage.closed, 1);
}

Test(handover_stream, one_that_does_not_read_holds_nobody_up)
{
	g_autoptr(GByteArray) want = expected(), got = g_byte_array_new();
	struct rng rng = { rng_seed() };
	uint64_t stood;

	begin(4096);
	turn(); /* returns: nothing in it waits for QEMU */
	stood = handover_stream_bytes(stage.stream);
	cr_assert(stood > 0 && stood < want->len, "%lu of %u", (unsigned long)stood, want->len);
	turn();
	cr_assert_eq(handover_stream_bytes(stage.stream), stood);
	cr_assert(!stage.sent && !stage.closed);
	read_up_to(got, want->len, 65536, &rng);
	turn();
	check_same(got, want);
	cr_assert_eq(stage.sent, 1);
}

Test(handover_stream, who_closes_in_the_middle_is_lost_and_told_once)
{
	g_autoptr(GByteArray) want = expected();
	struct rng rng = { rng_seed() };

	for (unsigned i = 0; i < 20; i++) {
		g_autoptr(GByteArray) got = g_byte_array_new();

		stage.closed = 0;
		begin(4096);
		read_up_to(got, rng_between(&rng, 1, want->len / 2), 9000, &rng);
		close_fd(&stage.fd);
		wait_closed();
		turn();
		cr_assert_eq(stage.closed, 1);
		cr_assert_eq(stage.sent, 0);
		cr_assert(stage.why && strstr(stage.why, "in the middle of the stream"));
		cr_assert_lt(handover_stream_bytes(stage.stream), want->len);
		handover_stream_free(g_steal_pointer(&stage.stream));
	}
}

/* It says nothing on this connection; what it says all the same changes nothing. */
Test(handover_stream, what_it_says_is_not_heard)
{
	g_autoptr(GByteArray) want = expected(), got = g_byte_array_new();
	struct rng rng = { rng_seed() };

	begin(4096);
	cr_assert_eq(send(stage.fd, "hello", 5, MSG_NOSIGNAL), 5);
	read_up_to(got, want->len, 65536, &rng);
	turn();
	check_same(got, want);
	cr_assert_eq(stage.sent, 1);
	cr_assert_eq(stage.closed, 0);
}

/* Who listens is known by its process: memory and secrets go through the socket. */
Test(handover_stream, another_process_gets_nothing)
{
	char byte;

	connect_to(getppid());
	cr_assert_null(stage.stream);
	cr_assert(strstr(stage.problem, "not QEMU"), "%s", stage.problem);
	cr_assert(strstr(stage.problem, stage.path), "%s", stage.problem);
	stage.fd = accept4(stage.listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert_geq(stage.fd, 0);
	cr_assert_eq(recv(stage.fd, &byte, 1, 0), 0);
}

Test(handover_stream, nobody_listens)
{
	close_fd(&stage.listener);
	connect_to(getpid());
	cr_assert_null(stage.stream);
	cr_assert(strstr(stage.problem, "cannot connect to the incoming socket"), "%s",
		  stage.problem);
	cr_assert(strstr(stage.problem, stage.path), "%s", stage.problem);
}

Test(handover_stream, the_device_part_can_be_read_while_it_lasts)
{
	const uint8_t *device;
	size_t len;

	begin(0);
	device = handover_stream_device(stage.stream, &len);
	cr_assert_eq(len, DEVICE);
	cr_assert_eq(memcmp(device, stage.package + FRONT, DEVICE), 0);
}

/* What a source must not have sent: refused with a reason, and nothing is connected to. */
Test(handover_stream, a_plan_that_cannot_be_written)
{
	stage.s->n_blocks = 0;
	connect_to(getpid());
	cr_assert_null(stage.stream);
	cr_assert(strstr(stage.problem, "no stream can be made of what the source sent"), "%s",
		  stage.problem);
}
