/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control socket over a real listening socket, with a daemon that is only a snapshot (F54, F55,
 * F64). Client and server share the thread: whoever waits for a line turns the main loop.
 */
#include "config.h"
#include "daemon/control.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include <criterion/criterion.h>
#include "core/guard.h"
#include "daemon/report.h"
#include "sys/fd.h"
#include "wire/jsonmsg.h"
#include "wire/regmsg.h"

#define PATIENCE_US (20 * G_USEC_PER_SEC) /* until a test gives up; nothing is measured by it */

/* --- the fake daemon ---------------------------------------------------------------------- */

struct fake {
	struct control *control;
	char *dir, *path;
	struct snapshot *snapshot; /* NULL: there is none */
	unsigned refreshes, quits;
	bool hold; /* refreshes are asked for but never come */
	bool forced;
	const char *refusal;
	unsigned n_blockers;
	const char *phase; /* of the hand-over; NULL: there is none */
};

static struct fake fake;

static void fake_refresh(void *ctx)
{
	struct fake *f = ctx;

	f->refreshes++;
	if (!f->hold)
		control_refreshed(f->control);
}

static const struct snapshot *fake_snapshot(void *ctx)
{
	return ((struct fake *)ctx)->snapshot;
}

static unsigned list_blockers(void *ctx, struct control_blocker *out, unsigned max)
{
	struct fake *f = ctx;

	cr_assert_leq(f->n_blockers, max);
	for (unsigned i = 0; i < f->n_blockers; i++) {
		snprintf(out[i].name, sizeof(out[i].name), "sharer:s%u", i);
		strcpy(out[i].step, "listening");
		strcpy(out[i].text, "it has not said hello");
		out[i].since_ns = 100 + i;
	}
	return f->n_blockers;
}

static bool fake_handover(void *ctx, const char *name, const struct jsonmsg *arguments,
			  struct jsonmsg_writer *w, const char *key, GError **error)
{
	struct fake *f = ctx;

	(void)name;
	cr_assert_null(arguments);
	jsonmsg_begin_object(w, key);
	jsonmsg_put_text(w, "phase", f->phase ? f->phase : "");
	jsonmsg_end(w);
	if (!f->phase)
		g_set_error(error, g_quark_from_static_string("test"), 0, "no phase");
	return f->phase;
}

static bool fake_blockers(void *ctx, const char *name, const struct jsonmsg *arguments,
			  struct jsonmsg_writer *w, const char *key, GError **error)
{
	g_autofree struct control_blocker *b = g_new0(struct control_blocker, 128);

	(void)name;
	(void)arguments;
	(void)error;
	report_blockers(w, key, b, list_blockers(ctx, b, 128));
	return true;
}

static bool fake_quit(void *ctx, bool force, const char **why)
{
	struct fake *f = ctx;

	f->quits++;
	f->forced = force;
	if (!f->refusal || force)
		return true;
	*why = f->refusal;
	return false;
}

static bool fake_change(void *ctx, const char *name, const struct jsonmsg *arguments,
			struct jsonmsg_writer *w, const char *key, GError **error)
{
	(void)ctx;
	jsonmsg_begin_object(w, key);
	jsonmsg_end(w);
	if (strcmp(jsonmsg_text(arguments, "device", ""), "x"))
		return true;
	g_set_error(error, g_quark_from_static_string("test"), 0, "%s x", name);
	return false;
}

static const char *const nothing[] = { NULL };
static const char *const device[] = { "device", NULL };
static const struct control_command fake_commands[] = {
	{ "blockers", nothing, true, fake_blockers },
	{ "handover", nothing, true, fake_handover },
	{ "change", device, false, fake_change },
};
static const struct control_ops fake_ops = { fake_refresh, fake_snapshot, fake_quit };

static struct sockaddr_un address(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", fake.path);
	return sun;
}

static void set_up(void)
{
	struct sockaddr_un sun;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	fake.dir = g_dir_make_tmp("test-control-XXXXXX", NULL);
	fake.path = g_build_filename(fake.dir, "control", NULL);
	fake.snapshot = g_new0(struct snapshot, 1);
	sun = address();
	cr_assert_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	cr_assert_eq(listen(fd, 64), 0);
	cr_assert_eq(control_new(&fake.control, fd, &fake_ops, &fake), 0);
	control_add(fake.control, fake_commands, ARRAY_LEN(fake_commands), &fake);
}

static void tear_down(void)
{
	control_free(fake.control);
	unlink(fake.path);
	rmdir(fake.dir);
	g_free(fake.path);
	g_free(fake.dir);
	g_free(fake.snapshot);
}

TestSuite(control, .init = set_up, .fini = tear_down);

/* --- the client --------------------------------------------------------------------------- */

struct peer {
	int fd;
	GString *in;
};

static void peer_close(struct peer *p)
{
	close_fd(&p->fd);
	if (p->in)
		g_string_free(p->in, TRUE);
	p->in = NULL;
}
#define cleanup_peer __attribute__((cleanup(peer_close)))

static void turn(void)
{
	if (!g_main_context_iteration(NULL, FALSE))
		g_usleep(200);
}

static void settle(void)
{
	for (int i = 0; i < 50; i++)
		while (g_main_context_iteration(NULL, FALSE))
			;
}

/* A line, parsed; NULL at the end of the connection. */
static struct jsonmsg *next(struct peer *p)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_US;
	char buf[65536], *nl;

	while (!(nl = strchr(p->in->str, '\n'))) {
		ssize_t n = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return NULL;
		if (n > 0)
			g_string_append_len(p->in, buf, n);
		cr_assert_lt(g_get_monotonic_time(), end, "nothing came");
		turn();
	}
	struct jsonmsg *v;
	const char *why = NULL;

	cr_assert_eq(jsonmsg_parse(&v, p->in->str, (size_t)(nl - p->in->str), &why), 0, "%s: %s",
		     why, p->in->str);
	g_string_erase(p->in, 0, nl - p->in->str + 1);
	return v;
}

static void say(struct peer *p, const char *text, size_t len)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_US;

	while (len > 0) {
		ssize_t n = send(p->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* closed on us: next() will tell */
		if (n > 0) {
			text += n;
			len -= (size_t)n;
		}
		cr_assert_lt(g_get_monotonic_time(), end, "nobody reads");
		turn();
	}
}

static void say_line(struct peer *p, const char *text)
{
	say(p, text, strlen(text));
	say(p, "\n", 1);
}

static struct jsonmsg *ask(struct peer *p, const char *text)
{
	say_line(p, text);
	return next(p);
}

static struct peer dial_raw(void)
{
	struct sockaddr_un sun = address();
	struct peer p = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), g_string_new(NULL)};

	cr_assert_eq(connect(p.fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return p;
}

static struct peer dial(void)
{
	struct peer p = dial_raw();
	struct jsonmsg *greeting cleanup_jsonmsg = next(&p);

	cr_assert_not_null(jsonmsg_member(greeting, "postcopyd"));
	return p;
}

static void expect_error(const struct jsonmsg *v, const char *class, const char *part)
{
	const struct jsonmsg *error = jsonmsg_member(v, "error");

	cr_assert_not_null(error, "no error; expected %s", class);
	cr_assert_null(jsonmsg_member(v, "return"));
	cr_assert_str_eq(jsonmsg_text(error, "class", "?"), class);
	cr_assert(strstr(jsonmsg_text(error, "desc", ""), part), "expected '%s', got '%s'", part,
		  jsonmsg_text(error, "desc", ""));
}

static void expect_refused(struct peer *p, const char *line, const char *class, const char *part)
{
	struct jsonmsg *v cleanup_jsonmsg = ask(p, line);

	expect_error(v, class, part);
}

/* --- greeting, requests, errors ----------------------------------------------------------- */

Test(control, greets_with_version_and_capabilities)
{
	static const char *const names[] = {
		"status", "sharers", "blocks", "stats", "events", "quit", "capabilities",
		"blockers", "handover", "change",
	};
	struct peer p cleanup_peer = dial_raw();
	struct jsonmsg *greeting cleanup_jsonmsg = next(&p);
	const struct jsonmsg *us = jsonmsg_member(greeting, "postcopyd"),
			     *list = jsonmsg_member(us, "capabilities");
	struct jsonmsg *again cleanup_jsonmsg = ask(&p, "{\"execute\":\"capabilities\"}");
	char *one cleanup_free = jsonmsg_print(us, NULL);
	char *two cleanup_free = jsonmsg_print(jsonmsg_member(again, "return"), NULL);

	fake.phase = "loading";
	cr_assert_str_eq(jsonmsg_text(us, "version", "?"), PACKAGE_VERSION);
	cr_assert_str_eq(jsonmsg_text(us, "features", "?"), PC_FEATURES);
	cr_assert_eq(jsonmsg_count(list), ARRAY_LEN(names));
	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		g_autofree char *request =
			g_strdup_printf("{\"execute\":\"%s\",\"id\":%u}", names[i], i);
		struct jsonmsg *v cleanup_jsonmsg = ask(&p, request);

		cr_assert_not_null(jsonmsg_member(v, "return"), "%s is announced but fails",
				   names[i]);
	}
	cr_assert_str_eq(one, two);
}

Test(control, the_id_comes_back)
{
	struct peer p cleanup_peer = dial();
	struct jsonmsg *text cleanup_jsonmsg =
		ask(&p, "{\"execute\":\"capabilities\",\"id\":\"a\\n\\\"b\"}");
	struct jsonmsg *number cleanup_jsonmsg =
		ask(&p, "{\"execute\":\"status\",\"id\":-9223372036854775808}");
	struct jsonmsg *none cleanup_jsonmsg = ask(&p, "{\"execute\":\"status\"}");
	struct jsonmsg *error cleanup_jsonmsg = ask(&p, "{\"execute\":\"x\",\"id\":7}");

	cr_assert_str_eq(jsonmsg_text(text, "id", "?"), "a\n\"b");
	cr_assert_eq(jsonmsg_i64(number, "id", 0), INT64_MIN);
	cr_assert_null(jsonmsg_member(none, "id"));
	cr_assert_eq(jsonmsg_i64(error, "id", 0), 7);
}

Test(control, says_what_is_wrong_and_goes_on)
{
	struct peer p cleanup_peer = dial();

	expect_refused(&p, "{", "BadJSON", "no partner");
	expect_refused(&p, "\xff", "BadJSON", "UTF-8");
	expect_refused(&p, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "BadJSON", "deeply");
	expect_refused(&p, "[]", "BadRequest", "execute");
	expect_refused(&p, "7", "BadRequest", "execute");
	expect_refused(&p, "{\"execute\":7}", "BadRequest", "execute");
	expect_refused(&p, "{\"execute\":\"status\",\"id\":{}}", "BadRequest", "'id'");
	expect_refused(&p, "{\"execute\":\"status\",\"id\":null}", "BadRequest", "'id'");
	expect_refused(&p, "{\"execute\":\"status\",\"x\":1}", "BadRequest", "member 'x'");
	expect_refused(&p, "{\"execute\":\"status\",\"arguments\":[]}", "BadRequest",
		       "'arguments'");
	expect_refused(&p, "{\"execute\":\"status\",\"arguments\":{\"x\":1}}", "BadArgument",
		       "'status' has no argument 'x'");
	expect_refused(&p, "{\"execute\":\"quit\",\"arguments\":{\"force\":1}}", "BadArgument",
		       "'force'");
	expect_refused(&p, "{\"execute\":\"events\",\"arguments\":{\"enable\":\"on\"}}",
		       "BadArgument", "'enable'");
	expect_refused(&p, "{\"execute\":\"Status\"}", "CommandNotFound", "'Status'");
	cr_assert_eq(fake.quits, 0);
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"status\"}");

	cr_assert_not_null(jsonmsg_member(v, "return"));
}

Test(control, lines_may_come_in_pieces_and_in_bunches)
{
	static const char text[] = "\r\n\n{\"execute\":\"capabilities\",\"id\":1}\r\n{\"execute\":"
				   "\"status\",\"id\":2}\n";
	struct peer p cleanup_peer = dial();

	for (size_t i = 0; i < sizeof(text) - 1; i++)
		say(&p, text + i, 1);
	say(&p, text, sizeof(text) - 1);
	for (int i = 0; i < 4; i++) {
		struct jsonmsg *v cleanup_jsonmsg = next(&p);

		cr_assert_eq(jsonmsg_i64(v, "id", 0), i % 2 + 1);
	}
}

/* --- refresh ------------------------------------------------------------------------------ */

Test(control, one_refresh_answers_everybody)
{
	struct peer a cleanup_peer = dial(), b cleanup_peer = dial();

	fake.hold = true;
	say_line(&a, "{\"execute\":\"status\",\"id\":1}\n{\"execute\":\"blocks\",\"id\":2}");
	say_line(&b, "{\"execute\":\"sharers\",\"id\":3}\n{\"execute\":\"capabilities\",\"id\":4}");
	settle();
	cr_assert_eq(fake.refreshes, 1, "%u refreshes", fake.refreshes);
	struct jsonmsg *first cleanup_jsonmsg = next(&b);

	cr_assert_eq(jsonmsg_i64(first, "id", 0), 4,
		     "what needs no snapshot does not wait for one");
	cr_assert_eq(recv(a.fd, (char[1]){0}, 1, MSG_DONTWAIT | MSG_PEEK), -1,
		     "answered without a snapshot");
	fake.snapshot->now_ns = 77;
	control_refreshed(fake.control);
	struct jsonmsg *one cleanup_jsonmsg = next(&a), *two cleanup_jsonmsg = next(&a);
	struct jsonmsg *three cleanup_jsonmsg = next(&b);

	cr_assert_eq(jsonmsg_i64(one, "id", 0), 1);
	cr_assert_eq(jsonmsg_u64(jsonmsg_member(one, "return"), "now_ns", 0), 77);
	cr_assert_eq(jsonmsg_i64(two, "id", 0), 2);
	cr_assert_eq(jsonmsg_i64(three, "id", 0), 3);
	fake.hold = false;
	struct jsonmsg *four cleanup_jsonmsg = ask(&a, "{\"execute\":\"status\",\"id\":5}");

	cr_assert_not_null(four);
	cr_assert_eq(fake.refreshes, 2);
}

Test(control, a_refresh_that_never_comes_times_out)
{
	struct peer p cleanup_peer = dial();

	fake.hold = true;
	control_set_refresh_timeout(fake.control, 20);
	expect_refused(&p, "{\"execute\":\"status\"}", "Timeout", "20 ms");
	control_refreshed(fake.control);
	fake.hold = false;
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"status\"}");

	cr_assert_not_null(jsonmsg_member(v, "return"), "the next one works");
}

Test(control, without_a_snapshot_there_is_an_error)
{
	struct peer p cleanup_peer = dial();

	g_clear_pointer(&fake.snapshot, g_free);
	expect_refused(&p, "{\"execute\":\"status\"}", "Unavailable", "no snapshot");
}

Test(control, parked_requests_are_limited)
{
	struct peer p cleanup_peer = dial();

	fake.hold = true;
	for (int i = 0; i < 64; i++)
		say_line(&p, "{\"execute\":\"status\",\"id\":1}");
	expect_refused(&p, "{\"execute\":\"status\",\"id\":2}", "Busy", "64 requests");
	control_refreshed(fake.control);
	for (int i = 0; i < 64; i++) {
		struct jsonmsg *v cleanup_jsonmsg = next(&p);

		cr_assert_eq(jsonmsg_i64(v, "id", 0), 1);
	}
}

Test(control, a_client_may_vanish_while_it_waits)
{
	struct peer a cleanup_peer = dial(), b cleanup_peer = dial();

	fake.hold = true;
	say_line(&a, "{\"execute\":\"status\"}");
	say_line(&b, "{\"execute\":\"status\"}");
	settle();
	peer_close(&a);
	settle();
	control_refreshed(fake.control);
	struct jsonmsg *v cleanup_jsonmsg = next(&b);

	cr_assert_not_null(jsonmsg_member(v, "return"));
}

/* --- what the commands tell --------------------------------------------------------------- */

static void fill_link(struct snapshot *s)
{
	s->source_qmp = (struct snapshot_source_qmp){ "/run/s", SOURCE_ASKED, 55, "so" };
	s->link = (struct snapshot_link){
		.on = true, .interface = "eth0", .local = "10.0.0.2",
		.peer = "10.0.0.1", .since_ns = 47, .cause = "interface eth0 has no carrier",
		.measured = true,
		.tcp = { .rtt_us = 48, .rttvar_us = 49, .retransmits = 50, .retrying = 51,
			 .unacked = 52, .ack_age_ms = 53, .data_age_ms = 54, .congestion = 4 },
	};
}

static const struct snapshot_worker some_worker = { 48, 49, 50, "exit 1", "keeper", "" };
#define WORKER_JSON                                                                                \
	"\"worker\":{\"pid\":48,\"keeper\":\"keeper\",\"generation\":49,\"restarts\":50,"           \
	"\"last\":\"exit 1\",\"upgrade\":null}"

Test(control, status)
{
	struct snapshot *s = fake.snapshot;
	struct peer p cleanup_peer = dial();

	s->now_ns = 1000;
	s->state = SESSION_PAUSED;
	s->state_ns = 900;
	s->started_ns = 10;
	s->running_ns = 20;
	s->committed = s->urgent_lane = s->held = true;
	s->paused_ns = 901, s->recoveries = 47;
	s->worker = some_worker;
	s->error = ECONNRESET;
	strcpy(s->reason, "the source is gone");
	strcpy(s->machine, "pc-i440fx-7.2");
	strcpy(s->source, "tcp:[::1]:55");
	s->package_bytes = 31;
	s->package_device_offset = 32;
	s->package_device_bytes = 33;
	s->owed = 40;
	s->owed_left = 41;
	s->faults_in_flight = 42;
	s->requests_in_flight = 43;
	s->store_bytes = 44;
	s->strays = 45;
	s->pool_waits = 46;
	fill_link(s);
	s->source_closed = true;
	s->n_blocks = 2;
	s->n_sharers = 3;
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"status\"}");
	char *line cleanup_free = jsonmsg_print(jsonmsg_member(v, "return"), NULL);

	cr_assert_str_eq(
		line,
		"{\"now_ns\":1000,\"state\":\"paused\",\"state_since_ns\":900,"
		"\"paused_since_ns\":901,\"times\":{\"started_ns\":10,"
		"\"switchover_ns\":null,\"listening_ns\":null,\"first_fault_ns\":null,"
		"\"first_served_ns\":null,"
		"\"running_ns\":20,\"complete_ns\":null},\"committed\":true,\"commit_ping\":false,"
		"\"urgent_lane\":true,\"ownership_unknown\":false,\"held\":true,"
		"\"running_told\":false,\"main_eof\":false,\"shut_sent\":false,\"source_closed\":true,"
		"\"error\":{\"errno\":104,\"reason\":\"the source is "
		"gone\"},\"machine\":\"pc-i440fx-7.2\","
		"\"source\":\"tcp:[::1]:55\",\"package\":{\"bytes\":31,\"device_offset\":32,"
		"\"device_bytes\":33},"
		"\"link\":{\"path\":\"down\",\"since_ns\":47,"
		"\"cause\":\"interface eth0 has no carrier\",\"interface\":\"eth0\","
		"\"local\":\"10.0.0.2\",\"peer\":\"10.0.0.1\",\"via\":null,"
		"\"rtt_us\":48,\"rttvar_us\":49,\"retransmits\":50,\"retrying\":51,\"unacked\":52,"
		"\"ack_age_ms\":53,\"data_age_ms\":54,\"congestion\":\"loss\"},"
		"\"source_qmp\":{\"socket\":\"/run/s\",\"step\":\"asked\",\"tries\":55,\"text\":\"so\"},"
		"\"owed_pages\":40,\"owed_pages_left\":41,\"faults_in_flight\":42,\"requests_in_"
		"flight\":43,"
		"\"store_bytes\":44,\"stray_pages\":45,\"pool_waits\":46,\"recoveries\":47,\"recover\":null,\"blocks\":2,\"sharers\":3,"
		"\"salvage\":null,\"device_channel\":null,\"faults\":null,\"device_states\":[]," WORKER_JSON "}\n");
}

Test(control, sharers)
{
	struct snapshot *s = fake.snapshot;
	struct peer p cleanup_peer = dial();

	s->n_sharers = 2;
	s->sharer[0] = (struct snapshot_sharer){.id = 1,
						.generation = 2,
						.name = "vmm",
						.pid = 3,
						.main = true,
						.policy = REGMSG_POLICY_FAIL,
						.state = SHARER_ACTIVE,
						.state_ns = 4,
						.mappings = 5,
						.mapped_bytes = 6,
						.waiting = 7,
						.oldest_wait_ns = 8};
	s->sharer[1] = (struct snapshot_sharer){.id = 9,
						.name = "\",\n\xff",
						.policy = REGMSG_POLICY_IGNORE,
						.state = SHARER_DEAD,
						.error = ESRCH,
						.reason = "killed"};
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"sharers\"}");
	char *line cleanup_free = jsonmsg_print(jsonmsg_member(v, "return"), NULL);

	cr_assert_str_eq(line, "[{\"id\":1,\"generation\":2,\"name\":\"vmm\",\"pid\":3,\"main\":"
			       "true,\"policy\":\"fail\","
			       "\"state\":\"active\",\"state_since_ns\":4,\"error\":null,"
			       "\"mappings\":5,\"mapped_bytes\":6,"
			       "\"waiting\":7,\"oldest_wait_ns\":8},{\"id\":9,\"generation\":0,"
			       "\"name\":\"\\\",\\n\357\277\275\","
			       "\"pid\":0,\"main\":false,\"policy\":\"ignore\",\"state\":\"dead\","
			       "\"state_since_ns\":null,"
			       "\"error\":{\"errno\":3,\"reason\":\"killed\"},\"mappings\":0,"
			       "\"mapped_bytes\":0,\"waiting\":0,"
			       "\"oldest_wait_ns\":0}]\n");
}

Test(control, blocks)
{
	struct snapshot *s = fake.snapshot;
	struct peer p cleanup_peer = dial();

	s->n_blocks = 1;
	s->block[0] = (struct snapshot_block){.name = "pc.ram",
					      .kind = BLOCK_SHARED,
					      .sharers = 2,
					      .length = 1 << 20,
					      .page_size = 4096,
					      .pages = 256,
					      .owed = 100,
					      .present = 150,
					      .missing = 90,
					      .requested = 5,
					      .stored = 4,
					      .zero = 6,
					      .lost = 1,
					      .unplaced = 2};
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"blocks\"}");
	char *line cleanup_free = jsonmsg_print(jsonmsg_member(v, "return"), NULL);

	cr_assert_str_eq(line, "[{\"name\":\"pc.ram\",\"kind\":\"shared\",\"sharers\":2,\"length\":"
			       "1048576,\"page_size\":4096,"
			       "\"pages\":256,\"owed\":100,\"present\":150,\"missing\":90,"
			       "\"requested\":5,\"stored\":4,\"zero\":6,"
			       "\"lost\":1,\"unplaced\":2}]\n");
}

Test(control, a_snapshot_that_counts_too_many_is_cut)
{
	struct peer p cleanup_peer = dial();

	fake.snapshot->n_blocks = fake.snapshot->n_sharers = 1000;
	struct jsonmsg *blocks cleanup_jsonmsg = ask(&p, "{\"execute\":\"blocks\"}");
	struct jsonmsg *sharers cleanup_jsonmsg = ask(&p, "{\"execute\":\"sharers\"}");
	struct jsonmsg *stats cleanup_jsonmsg = ask(&p, "{\"execute\":\"stats\"}");

	cr_assert_eq(jsonmsg_count(jsonmsg_member(blocks, "return")), SNAPSHOT_BLOCKS);
	cr_assert_eq(jsonmsg_count(jsonmsg_member(sharers, "return")), SNAPSHOT_SHARERS);
	cr_assert_eq(jsonmsg_count(jsonmsg_member(jsonmsg_member(stats, "return"), "sharers")),
		     SNAPSHOT_SHARERS);
}

static void expect_counts(const struct jsonmsg *v, const char *const *names, uint64_t first)
{
	for (; *names; names++, first++)
		cr_assert_eq(jsonmsg_u64(v, *names, 0), first, "%s", *names);
}

static struct sharer_stats some_sharer_stats(uint64_t first)
{
	struct sharer_stats s = {
		.faults = first,
		.reads = first + 1,
		.writes = first + 2,
		.duplicates = first + 3,
		.refaults = first + 4,
		.present = first + 5,
		.requests = first + 6,
		.wakes = first + 7,
		.spurious = first + 8,
		.blocked_ns = first + 9,
		.blocked_threads_ns = first + 10,
	};

	for (unsigned i = 0; i < STAGE_COUNT; i++)
		for (uint64_t ns = 1; ns <= 1000; ns++)
			histogram_add(&s.stage[i], ns * 100 * (i + 1));
	return s;
}

static void expect_sharer_stats(const struct jsonmsg *v, uint64_t first)
{
	static const char *const names[] = {
		"faults", "reads", "writes", "duplicates", "refaults", "present",
		"requests", "wakes", "spurious", "blocked_ns", "blocked_threads_ns", NULL,
	};
	static const char *const stages[] = {"total", "queue", "wire", "placement", "wake"};

	expect_counts(v, names, first);
	for (unsigned i = 0; i < STAGE_COUNT; i++) {
		const struct jsonmsg *h = jsonmsg_member(jsonmsg_member(v, "latency"), stages[i]);
		uint64_t unit = 1000 * 100 * (i + 1);

		cr_assert_not_null(h, "%s", stages[i]);
		cr_assert_eq(jsonmsg_u64(h, "count", 0), 1000);
		cr_assert_eq(jsonmsg_u64(h, "mean_ns", 0), unit / 2 + 50 * (i + 1));
		cr_assert_eq(jsonmsg_u64(h, "max_ns", 0), unit);
		cr_assert_geq(jsonmsg_u64(h, "p50_ns", 0), unit / 2);
		cr_assert_leq(jsonmsg_u64(h, "p50_ns", 0), unit * 54 / 100);
		cr_assert_geq(jsonmsg_u64(h, "p90_ns", 0), unit * 90 / 100);
		cr_assert_leq(jsonmsg_u64(h, "p90_ns", 0), unit * 96 / 100);
		cr_assert_geq(jsonmsg_u64(h, "p99_ns", 0), unit * 99 / 100);
		cr_assert_leq(jsonmsg_u64(h, "p99_ns", 0), unit);
	}
}

/* F64 */
Test(control, stats)
{
	static const char *const lanes[] = {"main", "urgent", "store"};
	static const char *const counts[] = {
		"requests", "requested_pages", "rerequested", "removed", "alarms", "lost",
		"again",    "place_fallbacks", "return_bytes", NULL,
	};
	struct snapshot *s = fake.snapshot;
	struct peer p cleanup_peer = dial();

	s->now_ns = 5;
	s->total = some_sharer_stats(100);
	s->n_sharers = 1;
	s->sharer[0].id = 6;
	strcpy(s->sharer[0].name, "net");
	s->sharer[0].stats = some_sharer_stats(200);
	s->stats = (struct stats){.requests = 10, .requested_pages = 11,
				  .rerequested = 12,
				  .removed = 13, .alarms = 14, .lost = 15,
				  .again = 16,
				  .place_fallbacks = 17,
				  .return_bytes = 18,
				  .ring_syscalls = 19, .other_syscalls = 20};
	for (unsigned i = 0; i < LANE_COUNT; i++)
		s->stats.lane[i] = (struct lane_stats){
			.bytes = 20 * i + 1, .duplicates = 20 * i + 6, .batches = 20 * i + 7,
			.pages = { 20 * i + 2, 20 * i + 3, 20 * i + 4, 20 * i + 5 } };
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"stats\"}");
	const struct jsonmsg *r = jsonmsg_member(v, "return");
	const struct jsonmsg *sharer = jsonmsg_element(jsonmsg_member(r, "sharers"), 0);

	cr_assert_eq(jsonmsg_u64(r, "now_ns", 0), 5);
	expect_sharer_stats(jsonmsg_member(r, "total"), 100);
	cr_assert_eq(jsonmsg_u64(sharer, "id", 0), 6);
	cr_assert_str_eq(jsonmsg_text(sharer, "name", "?"), "net");
	expect_sharer_stats(sharer, 200);
	expect_counts(r, counts, 10);
	cr_assert_eq(jsonmsg_u64(jsonmsg_member(r, "syscalls"), "ring", 0), 19);
	cr_assert_eq(jsonmsg_u64(jsonmsg_member(r, "syscalls"), "other", 0), 20);
	for (unsigned i = 0; i < LANE_COUNT; i++) {
		const struct jsonmsg *lane = jsonmsg_member(jsonmsg_member(r, "lanes"), lanes[i]);

		cr_assert_eq(jsonmsg_u64(lane, "bytes", 0), 20 * i + 1);
		expect_counts(jsonmsg_member(lane, "pages"),
			      (const char *const[]){ "copy", "zero", "already", "noted", NULL },
			      20 * i + 2);
		expect_counts(lane, (const char *const[]){"duplicates", "batches", NULL},
			      20 * i + 6);
	}
}

Test(control, added_commands)
{
	struct peer p cleanup_peer = dial();
	struct jsonmsg *done cleanup_jsonmsg =
		ask(&p, "{\"execute\":\"change\",\"arguments\":{\"device\":\"y\"}}");

	cr_assert_eq(jsonmsg_kind(jsonmsg_member(done, "return")), JSONMSG_OBJECT);
	expect_refused(&p, "{\"execute\":\"change\",\"arguments\":{\"device\":\"x\"}}",
		       "Refused", "change x");
	expect_refused(&p, "{\"execute\":\"change\",\"arguments\":{\"nonsense\":1}}",
		       "BadArgument", "nonsense");
}

/* F55 */
Test(control, handover)
{
	struct peer p cleanup_peer = dial();
	struct jsonmsg *none cleanup_jsonmsg = ask(&p, "{\"execute\":\"handover\"}");
	fake.phase = "loading";
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"handover\"}");
	cr_assert_str_eq(jsonmsg_text(jsonmsg_member(none, "error"), "class", ""), "Unavailable");
	cr_assert_str_eq(jsonmsg_text(jsonmsg_member(v, "return"), "phase", ""), "loading");
}

Test(control, blockers)
{
	struct peer p cleanup_peer = dial();

	struct jsonmsg *none cleanup_jsonmsg = ask(&p, "{\"execute\":\"blockers\"}");
	fake.n_blockers = 128;
	struct jsonmsg *v cleanup_jsonmsg = ask(&p, "{\"execute\":\"blockers\"}");
	const struct jsonmsg *list = jsonmsg_member(v, "return"),
			     *last = jsonmsg_element(list, 127);

	cr_assert_eq(jsonmsg_kind(jsonmsg_member(none, "return")), JSONMSG_ARRAY);
	cr_assert_eq(jsonmsg_count(jsonmsg_member(none, "return")), 0);
	cr_assert_eq(jsonmsg_count(list), 128);
	cr_assert_str_eq(jsonmsg_text(last, "name", "?"), "sharer:s127");
	cr_assert_str_eq(jsonmsg_text(last, "step", "?"), "listening");
	cr_assert_str_eq(jsonmsg_text(last, "text", "?"), "it has not said hello");
	cr_assert_eq(jsonmsg_u64(last, "since_ns", 0), 227);
}

Test(control, quit_is_refused_with_the_reason_unless_forced)
{
	struct peer p cleanup_peer = dial();

	fake.refusal = "the VM runs here and owes 7 pages";
	expect_refused(&p, "{\"execute\":\"quit\"}", "Refused", "owes 7 pages");
	cr_assert_not(fake.forced);
	struct jsonmsg *v cleanup_jsonmsg =
		ask(&p, "{\"execute\":\"quit\",\"arguments\":{\"force\":true}}");

	cr_assert_not_null(jsonmsg_member(v, "return"));
	cr_assert(fake.forced);
	cr_assert_eq(fake.quits, 2);
}

Test(control, events_reach_only_who_asked)
{
	struct peer a cleanup_peer = dial(), b cleanup_peer = dial();
	struct jsonmsg *on cleanup_jsonmsg = ask(&a, "{\"execute\":\"events\"}");

	cr_assert(jsonmsg_bool(jsonmsg_member(on, "return"), "enabled", false));
	fake.snapshot->state = SESSION_RUNNING;
	control_event(fake.control, "state", "the VM runs here");
	struct jsonmsg *e cleanup_jsonmsg = next(&a);
	const struct jsonmsg *data = jsonmsg_member(e, "data"),
			     *when = jsonmsg_member(e, "timestamp");

	cr_assert_str_eq(jsonmsg_text(e, "event", "?"), "state");
	cr_assert_str_eq(jsonmsg_text(data, "state", "?"), "running");
	cr_assert_str_eq(jsonmsg_text(data, "text", "?"), "the VM runs here");
	cr_assert_gt(jsonmsg_u64(when, "seconds", 0), 1000000000);
	cr_assert_lt(jsonmsg_u64(when, "microseconds", 1000000), 1000000);
	struct jsonmsg *off cleanup_jsonmsg =
		ask(&a, "{\"execute\":\"events\",\"arguments\":{\"enable\":false}}");

	cr_assert_not(jsonmsg_bool(jsonmsg_member(off, "return"), "enabled", true));
	control_event(fake.control, "state", "unheard");
	struct jsonmsg *va cleanup_jsonmsg = ask(&a, "{\"execute\":\"capabilities\",\"id\":1}");
	struct jsonmsg *vb cleanup_jsonmsg = ask(&b, "{\"execute\":\"capabilities\",\"id\":1}");

	cr_assert_eq(jsonmsg_u64(va, "id", 0), 1, "an event after it was turned off");
	cr_assert_eq(jsonmsg_u64(vb, "id", 0), 1, "an event for who never asked");
}

Test(control, an_event_without_a_snapshot_has_no_state)
{
	struct peer p cleanup_peer = dial();
	struct jsonmsg *on cleanup_jsonmsg = ask(&p, "{\"execute\":\"events\"}");

	cr_assert_not_null(on);
	g_clear_pointer(&fake.snapshot, g_free);
	control_event(fake.control, "state", NULL);
	struct jsonmsg *e cleanup_jsonmsg = next(&p);

	cr_assert_eq(jsonmsg_kind(jsonmsg_member(jsonmsg_member(e, "data"), "state")),
		     JSONMSG_NULL);
}

/* --- limits and bad peers ----------------------------------------------------------------- */

Test(control, the_longest_line_is_taken_and_a_longer_one_ends_it)
{
	static char line[65537 + 2];
	struct peer p cleanup_peer = dial();

	memset(line, ' ', sizeof(line));
	memcpy(line, "{\"execute\":\"capabilities\"}", 26);
	line[65536] = '\n';
	say(&p, line, 65537);
	struct jsonmsg *v cleanup_jsonmsg = next(&p);

	cr_assert_not_null(jsonmsg_member(v, "return"));
	line[65536] = ' ';
	line[65537] = '\n';
	say(&p, line, 65538);
	cr_assert_null(next(&p), "65537 bytes in a line");
}

Test(control, a_line_without_end_ends_the_connection)
{
	static char junk[200000];
	struct peer p cleanup_peer = dial(), other cleanup_peer = dial();

	memset(junk, 'x', sizeof(junk));
	say(&p, junk, sizeof(junk));
	cr_assert_null(next(&p));
	struct jsonmsg *v cleanup_jsonmsg = ask(&other, "{\"execute\":\"status\"}");

	cr_assert_not_null(v);
}

Test(control, who_does_not_read_is_dropped_alone)
{
	struct peer deaf cleanup_peer = dial(), other cleanup_peer = dial();
	struct jsonmsg *on cleanup_jsonmsg = ask(&deaf, "{\"execute\":\"events\"}");
	g_autofree char *text = g_strnfill(10000, 'e');
	char buf[65536];
	size_t got = 0;
	ssize_t n;

	cr_assert_not_null(on);
	for (int i = 0; i < 300; i++) {
		control_event(fake.control, "state", text);
		turn();
	}
	settle();
	struct jsonmsg *v cleanup_jsonmsg = ask(&other, "{\"execute\":\"status\"}");

	cr_assert_not_null(v);
	while ((n = recv(deaf.fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
		got += (size_t)n;
	cr_assert(n == 0 || (n < 0 && errno == ECONNRESET), "still connected after %zu bytes", got);
	cr_assert_lt(got, 2 << 20, "more than the queue and the socket hold");
}

Test(control, a_slow_reader_gets_everything)
{
	struct peer p cleanup_peer = dial();
	struct jsonmsg *on cleanup_jsonmsg = ask(&p, "{\"execute\":\"events\"}");
	g_autofree char *text = g_strnfill(10000, 'e');

	cr_assert_not_null(on);
	for (int i = 0; i < 90; i++)
		control_event(fake.control, "state", text);
	for (int i = 0; i < 90; i++) {
		struct jsonmsg *e cleanup_jsonmsg = next(&p);

		cr_assert_not_null(e, "event %d is missing", i);
		cr_assert_eq(strlen(jsonmsg_text(jsonmsg_member(e, "data"), "text", "")), 10000);
	}
}

Test(control, a_half_closed_client_gets_its_replies)
{
	struct peer p cleanup_peer = dial();

	fake.hold = true;
	say_line(&p, "{\"execute\":\"status\",\"id\":1}");
	shutdown(p.fd, SHUT_WR);
	settle();
	control_refreshed(fake.control);
	struct jsonmsg *v cleanup_jsonmsg = next(&p);

	cr_assert_eq(jsonmsg_u64(v, "id", 0), 1);
	cr_assert_null(next(&p), "and then it is over");
}

Test(control, thirty_two_clients_and_no_more)
{
	struct peer p[33];

	for (int i = 0; i < 32; i++)
		p[i] = dial();
	p[32] = dial_raw();
	struct jsonmsg *busy cleanup_jsonmsg = next(&p[32]);

	expect_error(busy, "Busy", "too many clients");
	cr_assert_null(next(&p[32]));
	peer_close(&p[32]);
	peer_close(&p[7]);
	settle();
	p[7] = dial();
	for (int i = 0; i < 32; i++) {
		struct jsonmsg *v cleanup_jsonmsg = ask(&p[i], "{\"execute\":\"status\"}");

		cr_assert_not_null(v);
		peer_close(&p[i]);
	}
}

Test(control, only_root_and_the_owner_are_let_in)
{
	struct peer p cleanup_peer = {-1, NULL};

	if (geteuid() != 0)
		cr_skip_test("needs root to be somebody else");
	cr_assert_eq(chmod(fake.dir, 0755), 0);
	cr_assert_eq(chmod(fake.path, 0777), 0);
	cr_assert_eq(seteuid(65534), 0);
	p = dial_raw();
	cr_assert_eq(seteuid(0), 0);
	struct jsonmsg *v cleanup_jsonmsg = next(&p);

	expect_error(v, "AccessDenied", "only root");
	cr_assert_null(next(&p));
}

Test(control, the_last_reply_leaves_before_the_socket_closes)
{
	struct peer p cleanup_peer = dial();

	say_line(&p, "{\"execute\":\"quit\"}");
	settle();
	control_free(fake.control);
	fake.control = NULL;
	struct jsonmsg *v cleanup_jsonmsg = next(&p);

	cr_assert_not_null(jsonmsg_member(v, "return"));
	cr_assert_null(next(&p));
}
