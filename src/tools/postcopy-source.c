// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * postcopy-source: the other end of a migration, for tests and benchmarks.  It speaks QEMU's
 * protocol to any destination, watches whether the destination keeps to it, and does wrong what it
 * is told to.
 */
#include "config.h"

#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "tools/source_options.h"
#include "tools/source_report.h"
#include "tools/source_run.h"

enum status { DONE = 0, FAILED = 1, USAGE = 2 };

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "postcopy-source: %s: %s\n", what, why);
	return FAILED;
}

static int run(struct source_session *s)
{
	uint64_t began = source_session_now();
	int r;

	fprintf(stderr, "postcopy-source: seed %" G_GUINT64_FORMAT "\n", s->options->seed);
	r = source_run(s);
	if (r < 0)
		return complain(s->options->to, s->problem[0] ? s->problem : strerror(-r));
	source_report_print(s, source_session_now() - began);
	return source_report_is_good(s) ? DONE : FAILED;
}

static int refuse_devices(const struct source_options *o, const char *problem, int error)
{
	const char *text = *problem ? problem : strerror(-error);

	source_report_devices(o, NULL, "failed", text);
	return complain("set-up", text);
}

static sigset_t hold_words(void)
{
	static const int all[] = { SIGUSR1, SIGTERM, SIGINT };
	sigset_t words;

	sigemptyset(&words);
	for (unsigned i = 0; i < ARRAY_LEN(all); i++)
		sigaddset(&words, all[i]);
	return words;
}

/* Somebody else has the VM, and says what became of it. */
static bool is_handed_over(void)
{
	sigset_t words = hold_words();
	int word = 0;

	while (sigwait(&words, &word) != 0)
		;
	return word == SIGUSR1;
}

static int send_devices(struct source_options *o)
{
	sigset_t words = hold_words();
	char problem[256] = "";
	struct source_devices *d;
	int r, status;

	/* Heard when they are saved: half of the way out is no place to end. */
	if (o->hold)
		pthread_sigmask(SIG_BLOCK, &words, NULL);
	d = source_devices_new(o, &r, problem);
	if (r < 0)
		return refuse_devices(o, problem, r);
	/* Theirs who has the VM: it has stopped, and it notes what devices write until they do. */
	source_devices_did(d, CUTOVER_TRACK);
	r = source_devices_precopy(d);
	source_devices_did(d, CUTOVER_VCPUS_STOP);
	if (r == 0)
		r = source_devices_save(d);
	source_report_devices(o, d, r == 0 ? "saved" : "failed",
			      r == 0 ? NULL : source_devices_problem(d));
	status = r == 0 ? DONE : complain("devices", source_devices_problem(d));
	if (r == 0 && o->hold && !is_handed_over()) {
		source_devices_back(d);
		status = complain("devices", "they run again");
	}
	source_devices_free(d);
	return status;
}

static int migrate(struct source_options *o)
{
	struct source_session session;
	struct source_devices *devices;
	char problem[256] = "";
	int status = FAILED;
	sigset_t go_on;
	int r;

	/* Before the first thread, so that each has it blocked: see source_run.c. */
	sigemptyset(&go_on);
	sigaddset(&go_on, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &go_on, NULL);
	devices = source_devices_new(o, &r, problem);
	if (r < 0)
		return refuse_devices(o, problem, r);
	r = source_session_init(&session, o);
	session.devices = devices;

	if (r < 0) {
		const struct source_block *bad =
			session.n_ready ? &session.blocks[session.n_ready - 1] : NULL;

		complain(bad && bad->spec.file ? bad->spec.file : "set-up", strerror(-r));
	} else {
		status = run(&session);
	}
	source_session_deinit(&session);
	source_devices_free(devices);
	return status;
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct source_options options;
	int status = USAGE;

	setlocale(LC_ALL, "");
	if (!source_options_parse(&options, &argc, &argv, &error)) {
		fprintf(stderr, "postcopy-source: %s\n", error->message);
	} else if (options.version) {
		puts("postcopy-source " PACKAGE_VERSION " " PC_FEATURES);
		status = DONE;
	} else if (options.list_faults) {
		g_autofree char *help = source_options_fault_help();

		fputs(help, stdout);
		status = DONE;
	} else {
		status = source_options_devices_only(&options) ? send_devices(&options)
							       : migrate(&options);
	}
	source_options_deinit(&options);
	return status;
}
