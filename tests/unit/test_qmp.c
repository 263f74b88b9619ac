/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The monitor's client against a monitor with a script: what it says, what it makes of the answers,
 * each way it can end.  Both share the thread: whoever waits turns the main loop.
 */
#include "config.h"
#include "daemon/qmp.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include <criterion/criterion.h>
#include "core/guard.h"
#include "sys/fd.h"

#define PATIENCE_US (20 * G_USEC_PER_SEC) /* until a test gives up; nothing is measured by it */
#define GREETING                                                                                   \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n"

/* --- both sides ------------------------------------------------------------------------------- */

enum { FREE_NEVER, FREE_IN_READY, FREE_IN_EVENT, FREE_IN_ANSWER, FREE_IN_CLOSED };

struct seen {
	enum qmp_outcome outcome;
	char *text, *class, *value;
};

struct stage {
	struct qmp *qmp;
	char *dir, *path;
	int listener, fd; /* the monitor's */
	GString *in;
	unsigned ready, events, closed, answers;
	enum qmp_event_kind event;
	char *event_name, *event_status, *event_data, *why;
	struct seen seen[8]; /* of the last answers, in order */
	int free_in;
	unsigned answers_at_close;
};

static struct stage stage;

static void maybe_free(int where)
{
	if (stage.free_in == where)
		g_clear_pointer(&stage.qmp, qmp_free);
}

static void on_ready(void *ctx)
{
	cr_assert_eq(ctx, &stage);
	stage.ready++;
	maybe_free(FREE_IN_READY);
}

static void on_event(void *ctx, const struct qmp_event *e)
{
	cr_assert_eq(ctx, &stage);
	stage.events++;
	stage.event = e->kind;
	g_free(stage.event_name);
	g_free(stage.event_status);
	g_free(stage.event_data);
	stage.event_name = g_strdup(e->name);
	stage.event_status = g_strdup(e->status);
	stage.event_data = e->data ? jsonmsg_print(e->data, NULL) : NULL;
	maybe_free(FREE_IN_EVENT);
}

static void on_closed(void *ctx, const char *why)
{
	cr_assert_eq(ctx, &stage);
	stage.closed++;
	stage.answers_at_close = stage.answers;
	g_free(stage.why);
	stage.why = g_strdup(why);
	maybe_free(FREE_IN_CLOSED);
}

static const struct qmp_ops ops = {on_ready, on_event, on_closed};

static void on_answer(void *ctx, const struct qmp_answer *a)
{
	struct seen *s = &stage.seen[stage.answers++ % ARRAY_LEN(stage.seen)];

	cr_assert_eq(ctx, &stage);
	cr_assert_eq(a->value != NULL, a->outcome == QMP_OK);
	cr_assert_eq(a->class != NULL, a->outcome == QMP_REFUSED);
	s->outcome = a->outcome;
	g_free(s->text);
	g_free(s->class);
	g_free(s->value);
	s->text = g_strdup(a->text);
	s->class = g_strdup(a->class);
	s->value = a->value ? jsonmsg_print(a->value, NULL) : NULL;
	maybe_free(FREE_IN_ANSWER);
}

static struct qmp_call call(unsigned deadline_ms)
{
	return (struct qmp_call){on_answer, &stage, deadline_ms};
}

static void turn(void)
{
	if (!g_main_context_iteration(NULL, FALSE))
		g_usleep(200);
}

#define WAIT(condition)                                                                            \
	do {                                                                                       \
		gint64 end_ = g_get_monotonic_time() + PATIENCE_US;                                \
		while (!(condition)) {                                                             \
			turn();                                                                    \
			cr_assert_lt(g_get_monotonic_time(), end_, "never: " #condition);          \
		}                                                                                  \
	} while (0)

static void settle(void)
{
	for (int i = 0; i < 20; i++)
		while (g_main_context_iteration(NULL, FALSE))
			;
}

/* --- the monitor ------------------------------------------------------------------------------ */

static struct sockaddr_un address(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	g_strlcpy(sun.sun_path, stage.path, sizeof(sun.sun_path));
	return sun;
}

static void monitor_listen(void)
{
	struct sockaddr_un sun = address();

	stage.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	cr_assert_eq(bind(stage.listener, (struct sockaddr *)&sun, sizeof(sun)), 0);
	cr_assert_eq(listen(stage.listener, 4), 0);
}

static bool monitor_accept(void)
{
	stage.fd = accept4(stage.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	return stage.fd >= 0;
}

static void say(const char *text)
{
	gint64 end = g_get_monotonic_time() + PATIENCE_US;
	size_t len = strlen(text);

	while (len > 0 && !stage.closed) {
		ssize_t n = send(stage.fd, text, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* it has closed on us; the test looks at why */
		text += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
		cr_assert_lt(g_get_monotonic_time(), end, "nobody reads");
		turn();
	}
}

static bool has_line(void)
{
	char buf[4096];
	ssize_t n = recv(stage.fd, buf, sizeof(buf), 0);

	if (n > 0)
		g_string_append_len(stage.in, buf, n);
	return strchr(stage.in->str, '\n') != NULL;
}

/* The next command, which must be this one. */
static void hear(const char *want)
{
	char *nl;

	WAIT(has_line());
	nl = strchr(stage.in->str, '\n');
	*nl = '\0';
	cr_assert_str_eq(stage.in->str, want);
	g_string_erase(stage.in, 0, nl - stage.in->str + 1);
}

static void set_up(void)
{
	stage = (struct stage){.listener = -1, .fd = -1, .in = g_string_new(NULL)};
	stage.dir = g_dir_make_tmp("test-qmp-XXXXXX", NULL);
	stage.path = g_build_filename(stage.dir, "qmp", NULL);
}

static void tear_down(void)
{
	qmp_free(stage.qmp);
	settle();
	close_fd(&stage.fd);
	close_fd(&stage.listener);
	g_unlink(stage.path);
	g_rmdir(stage.dir);
	g_string_free(stage.in, TRUE);
	g_free(stage.path);
	g_free(stage.dir);
	g_free(stage.why);
	g_free(stage.event_name);
	g_free(stage.event_status);
	g_free(stage.event_data);
	for (size_t i = 0; i < ARRAY_LEN(stage.seen); i++) {
		g_free(stage.seen[i].text);
		g_free(stage.seen[i].class);
		g_free(stage.seen[i].value);
	}
}

static void connect_client(void)
{
	monitor_listen();
	stage.qmp = qmp_new(stage.path, &ops, &stage);
	WAIT(monitor_accept());
}

static void make_ready(void)
{
	connect_client();
	say(GREETING);
	hear("{\"execute\":\"qmp_capabilities\",\"id\":1}");
	say("{\"return\": {}, \"id\": 1}\r\n");
	WAIT(stage.ready == 1 || !stage.qmp);
}

TestSuite(qmp, .init = set_up, .fini = tear_down);

#define HAS(text, part) cr_assert(strstr((text), (part)), "no '%s' in '%s'", (part), (text))

/* --- coming to life --------------------------------------------------------------------------- */

Test(qmp, waits_for_the_socket_and_says_so)
{
	stage.qmp = qmp_new(stage.path, &ops, &stage);
	settle();
	HAS(qmp_waits_for(stage.qmp), "socket to appear");
	HAS(qmp_waits_for(stage.qmp), stage.path);
	monitor_listen();
	close_fd(&stage.listener);
	WAIT(strstr(qmp_waits_for(stage.qmp), "to listen"));
	g_unlink(stage.path);
	WAIT(strstr(qmp_waits_for(stage.qmp), "to appear"));
	monitor_listen();
	WAIT(monitor_accept());
	WAIT(strstr(qmp_waits_for(stage.qmp), "greeting"));
	cr_assert_eq(qmp_peer_pid(stage.qmp), getpid());
	cr_assert_not(qmp_is_ready(stage.qmp));
	say(GREETING);
	WAIT(strstr(qmp_waits_for(stage.qmp), "qmp_capabilities"));
	hear("{\"execute\":\"qmp_capabilities\",\"id\":1}");
	say("{\"return\": {}, \"id\": 1}\r\n");
	WAIT(stage.ready == 1);
	cr_assert_str_eq(qmp_version(stage.qmp), "7.2.22");
	cr_assert_eq(qmp_version_number(stage.qmp), 702);
	cr_assert_eq(stage.closed, 0);
}

Test(qmp, a_full_queue_of_connections_is_waited_out)
{
	int clients[32], n = 0;
	struct sockaddr_un sun = address();

	monitor_listen();
	do {
		cr_assert_lt(n, 32);
		clients[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	} while (connect(clients[n++], (struct sockaddr *)&sun, sizeof(sun)) == 0);
	cr_assert_eq(errno, EAGAIN);
	stage.qmp = qmp_new(stage.path, &ops, &stage);
	HAS(qmp_waits_for(stage.qmp), "to take one");
	while (n > 0)
		close(clients[--n]);
	while (monitor_accept())
		close_fd(&stage.fd);
	WAIT(monitor_accept());
	WAIT(strstr(qmp_waits_for(stage.qmp), "greeting"));
}

static void expect_closed(const char *part)
{
	WAIT(stage.closed == 1);
	HAS(stage.why, part);
	cr_assert_not(stage.qmp && qmp_is_ready(stage.qmp));
	settle();
	cr_assert_eq(stage.closed, 1);
}

Test(qmp, what_can_never_be_a_monitor_ends_it)
{
	char longest[200];

	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	stage.qmp = qmp_new(longest, &ops, &stage);
	cr_assert_eq(stage.closed, 0, "never out of qmp_new()");
	expect_closed("too long");
	qmp_free(stage.qmp);
	stage.closed = 0;
	stage.qmp = qmp_new("/dev/null/qmp", &ops, &stage);
	expect_closed("cannot connect to QEMU's monitor /dev/null/qmp: Not a directory");
	cr_assert_null(qmp_waits_for(stage.qmp));
}

Test(qmp, what_greets_otherwise_is_no_monitor)
{
	connect_client();
	say("QEMU 7.2.22 monitor - type 'help' for more information\r\n(qemu) ");
	expect_closed("mode=control");
	tear_down();
	set_up();
	connect_client();
	say("{\"postcopyd\": {\"version\": \"1\"}}\n");
	expect_closed("greets with something else");
}

Test(qmp, closed_before_it_was_ready)
{
	connect_client();
	close_fd(&stage.fd); /* without a word, as a QEMU does that ends: tried again */
	WAIT(monitor_accept());
	say("{");
	close_fd(&stage.fd);
	expect_closed("before it was ready");
}

Test(qmp, capabilities_refused)
{
	connect_client();
	say(GREETING);
	hear("{\"execute\":\"qmp_capabilities\",\"id\":1}");
	say("{\"id\": 1, \"error\": {\"class\": \"GenericError\", \"desc\": \"not today\"}}\n");
	expect_closed("not today");
	cr_assert_eq(stage.ready, 0);
}

/* --- commands --------------------------------------------------------------------------------- */

Test(qmp, commands_as_qemu_spells_them)
{
	make_ready();
	qmp_migrate_incoming(stage.qmp, "unix:/run/a\"b", call(0));
	hear("{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"unix:/run/a\\\"b\"},\"id\":2}");
	qmp_set_capability(stage.qmp, "events", true, call(0));
	hear("{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":"
	     "[{\"capability\":\"events\",\"state\":true}]},\"id\":3}");
	qmp_query_status(stage.qmp, call(0));
	hear("{\"execute\":\"query-status\",\"id\":4}");
	qmp_query_migrate(stage.qmp, call(0));
	hear("{\"execute\":\"query-migrate\",\"id\":5}");
	qmp_query_memdev(stage.qmp, call(0));
	hear("{\"execute\":\"query-memdev\",\"id\":6}");
	qmp_cont(stage.qmp, call(0));
	hear("{\"execute\":\"cont\",\"id\":7}");
	qmp_stop(stage.qmp, call(0));
	hear("{\"execute\":\"stop\",\"id\":8}");
	qmp_human(stage.qmp, "info ramblock", call(0));
	hear("{\"execute\":\"human-monitor-command\",\"arguments\":"
	     "{\"command-line\":\"info ramblock\"},\"id\":9}");
	qmp_qom_get(stage.qmp, "/objects/m0", "share", call(0));
	hear("{\"execute\":\"qom-get\",\"arguments\":{\"path\":\"/objects/m0\",\"property\":\"share\"},"
	     "\"id\":10}");
	cr_assert_eq(stage.answers, 0);
}

Test(qmp, answers_find_their_commands)
{
	make_ready();
	qmp_query_status(stage.qmp, call(QMP_PATIENCE_MS));
	qmp_human(stage.qmp, "info ramblock", call(QMP_PATIENCE_MS));
	qmp_cont(stage.qmp, (struct qmp_call){0}); /* nobody asks */
	say("{\"id\": 3, \"return\": \"Block\\r\\n\"}\r\n{\"return\": {}, \"id\": 4}\r\n"
	    "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such thing\"}, \"id\": 2}\n");
	WAIT(stage.answers == 2);
	cr_assert_eq(stage.seen[0].outcome, QMP_OK);
	cr_assert_str_eq(stage.seen[0].value, "\"Block\\r\\n\"\n");
	cr_assert_str_eq(stage.seen[0].text, "");
	cr_assert_eq(stage.seen[1].outcome, QMP_REFUSED);
	cr_assert_str_eq(stage.seen[1].class, "CommandNotFound");
	cr_assert_str_eq(stage.seen[1].text, "query-status: no such thing");
	cr_assert_eq(stage.closed, 0);
}

/* query-migrate of a source tells rates as fractions, and nests. */
Test(qmp, fractions_and_depth_pass)
{
	make_ready();
	qmp_query_migrate(stage.qmp, call(0));
	say("{\"return\": {\"status\": \"active\", \"ram\": {\"mbps\": 1234.5, \"x\": 1e-05, "
	    "\"list\": [[{\"a\": [1, -2.5E+10]}]]}}, \"id\": 2}\n");
	WAIT(stage.answers == 1);
	HAS(stage.seen[0].value, "active");
}

Test(qmp, a_deadline_passes_and_a_late_answer_is_dropped)
{
	make_ready();
	qmp_query_status(stage.qmp, call(20));
	WAIT(stage.answers == 1);
	cr_assert_eq(stage.seen[0].outcome, QMP_DEADLINE);
	cr_assert_str_eq(stage.seen[0].text, "query-status: QEMU has not answered within 20 ms");
	say("{\"return\": {\"status\": \"running\"}, \"id\": 2}\n");
	qmp_query_status(stage.qmp, call(QMP_PATIENCE_MS));
	say("{\"return\": {\"status\": \"paused\"}, \"id\": 3}\n");
	WAIT(stage.answers == 2);
	HAS(stage.seen[1].value, "paused");
	cr_assert_eq(stage.closed, 0);
}

Test(qmp, a_command_too_early_or_too_late_is_answered_closed)
{
	connect_client();
	qmp_cont(stage.qmp, call(0));
	cr_assert_eq(stage.answers, 0, "never out of the call");
	WAIT(stage.answers == 1);
	cr_assert_eq(stage.seen[0].outcome, QMP_CLOSED);
	HAS(stage.seen[0].text, "cont: the monitor is not ready");
	say("{");
	close_fd(&stage.fd);
	WAIT(stage.closed == 1);
	qmp_cont(stage.qmp, call(0));
	WAIT(stage.answers == 2);
	HAS(stage.seen[1].text, "has closed its monitor");
}

/* --- events ----------------------------------------------------------------------------------- */

Test(qmp, events)
{
	static const struct {
		const char *name;
		enum qmp_event_kind kind;
	} events[] = {{"STOP", QMP_EVENT_STOP}, {"RESUME", QMP_EVENT_RESUME},
		      {"SHUTDOWN", QMP_EVENT_SHUTDOWN}, {"RESET", QMP_EVENT_RESET},
		      {"NIC_RX_FILTER_CHANGED", QMP_EVENT_OTHER}};

	make_ready();
	for (unsigned i = 0; i < ARRAY_LEN(events); i++) {
		g_autofree char *line = g_strdup_printf(
			"{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"%s\"}\r\n",
			events[i].name);

		say(line);
		WAIT(stage.events == i + 1);
		cr_assert_eq(stage.event, events[i].kind);
		cr_assert_str_eq(stage.event_name, events[i].name);
		cr_assert(!stage.event_data && !stage.event_status);
	}
	say("{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}\n");
	WAIT(stage.events == ARRAY_LEN(events) + 1);
	cr_assert_eq(stage.event, QMP_EVENT_MIGRATION);
	cr_assert_str_eq(stage.event_status, "completed");
	say("{\"event\": \"MIGRATION\"}\n");
	WAIT(stage.events == ARRAY_LEN(events) + 2);
	cr_assert_str_eq(stage.event_status, "");
}

/* --- ends ------------------------------------------------------------------------------------- */

Test(qmp, the_end_answers_whoever_waits_first)
{
	make_ready();
	qmp_cont(stage.qmp, call(QMP_PATIENCE_MS));
	qmp_query_status(stage.qmp, call(0));
	hear("{\"execute\":\"cont\",\"id\":2}");
	hear("{\"execute\":\"query-status\",\"id\":3}");
	close_fd(&stage.fd);
	WAIT(stage.closed == 1);
	cr_assert_eq(stage.answers_at_close, 2);
	cr_assert_eq(stage.seen[0].outcome, QMP_CLOSED);
	HAS(stage.seen[0].text, "cont: QEMU has closed its monitor");
	HAS(stage.seen[0].text, stage.path);
	HAS(stage.seen[1].text, "query-status: ");
	tear_down();
	set_up();
	make_ready();
	qmp_cont(stage.qmp, call(0));
	settle();
	close_fd(&stage.fd); /* with a command unread: the kernel tells by a reset */
	expect_closed("the peer is gone");
	HAS(stage.seen[0].text, "cont: QEMU's monitor");
}

Test(qmp, what_is_not_understood_ends_it)
{
	static const struct {
		const char *line, *part;
	} lines[] = {
		{ "{\"return\": {}, \"id\": 99}\n", "not sent" },
		{ "{\"return\": {}, \"id\": -1}\n", "not sent" },
		{ "{\"return\": {}}\n", "not sent" },
		{ "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n",
		  "JSON parse error" },
		{ "{\"hello\": 1}\n", "no reply and no event" },
		{ "[]\n", "no reply and no event" },
		{ "{\"event\": 7}\n", "no reply and no event" },
		{ "{\"return\": 18446744073709551615, \"id\": 1}\n", "a number is too large" },
		{ "garbage\n", "cannot be read" },
		{ "[[[[[[[[[[[[[[[[[[[[[[[[[[\n", "nested too deeply" },
	};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		make_ready();
		say(lines[i].line);
		expect_closed(lines[i].part);
		tear_down();
		set_up();
	}
}

Test(qmp, a_long_answer_passes_and_an_endless_one_does_not)
{
	g_autofree char *text = g_strnfill(300000, 'x');
	g_autofree char *line = g_strdup_printf("{\"return\": \"%s\", \"id\": 2}\n", text);

	make_ready();
	qmp_human(stage.qmp, "info mtree -f", call(0));
	say(line);
	WAIT(stage.answers == 1);
	cr_assert_eq(strlen(stage.seen[0].value), 300003);
	for (unsigned i = 0; i < QMP_LINE_MAX / 300000 + 2 && !stage.closed; i++)
		say(text);
	expect_closed("a line is too long");
}

Test(qmp, may_be_freed_in_any_callback)
{
	for (int where = FREE_IN_READY; where <= FREE_IN_CLOSED; where++) {
		stage.free_in = where;
		make_ready();
		if (stage.qmp) {
			qmp_cont(stage.qmp, call(0));
			qmp_stop(stage.qmp, call(0));
			say("{\"event\": \"STOP\"}\n{\"return\": {}, \"id\": 2}\n"
			    "{\"event\": \"RESUME\"}\n{\"return\": {}, \"id\": 3}\n{\"what\": 1}\n");
		}
		WAIT(!stage.qmp);
		settle();
		cr_assert_eq(stage.ready, 1);
		cr_assert_leq(stage.events, where > FREE_IN_EVENT ? 2 : where == FREE_IN_EVENT);
		cr_assert_eq(stage.answers, where == FREE_IN_CLOSED ? 2 : where == FREE_IN_ANSWER);
		cr_assert_eq(stage.closed, where == FREE_IN_CLOSED);
		tear_down();
		set_up();
	}
}

Test(qmp, may_be_freed_while_answers_are_told_the_end)
{
	stage.free_in = FREE_IN_ANSWER;
	make_ready();
	qmp_cont(stage.qmp, call(0));
	qmp_stop(stage.qmp, call(0));
	close_fd(&stage.fd);
	WAIT(!stage.qmp);
	settle();
	cr_assert_eq(stage.answers, 1);
	cr_assert_eq(stage.closed, 0);
}

Test(qmp, may_be_freed_in_a_deadline_and_while_it_connects)
{
	stage.free_in = FREE_IN_ANSWER;
	make_ready();
	qmp_cont(stage.qmp, call(10));
	WAIT(!stage.qmp);
	tear_down();
	set_up();
	stage.qmp = qmp_new(stage.path, &ops, &stage);
	qmp_cont(stage.qmp, call(0));
	g_clear_pointer(&stage.qmp, qmp_free);
	settle();
	cr_assert_eq(stage.answers, 0);
	qmp_free(NULL);
}

/* A monitor that reads nothing costs a bounded queue, then the connection. */
Test(qmp, a_monitor_that_does_not_read)
{
	g_autofree char *text = g_strnfill(60000, 'x');

	make_ready();
	for (unsigned i = 0; i < 100 && !stage.closed; i++) {
		qmp_human(stage.qmp, text, (struct qmp_call){0});
		settle();
	}
	expect_closed("does not read");
}
