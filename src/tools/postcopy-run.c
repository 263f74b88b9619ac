/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * postcopy-run: an unmodified QEMU, or another program that shares its memory, with all that
 * postcopyd needs of it.
 */
#include "config.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/run_options.h"
#include "tools/run_vmm.h"

enum status { FAILED = 1, USAGE = 2, NOT_STARTED = 127 };

/* A sharer needs nobody to watch over it: it takes our place. */
static int become_sharer(const struct run_options *o)
{
	g_auto(GStrv) environment = run_options_environment(o, o->run_dir);

	execvpe(o->program[0], o->program, environment);
	fprintf(stderr, "postcopy-run: %s: %s\n", o->program[0], strerror(errno));
	return NOT_STARTED;
}

/*
 * The dynamic linker only warns of a library that is not there, and then nobody would serve the
 * program's faults.
 */
static int run(const struct run_options *o)
{
	if (!g_file_test(o->preload, G_FILE_TEST_IS_REGULAR) || access(o->preload, R_OK) < 0) {
		fprintf(stderr,
			"postcopy-run: %s is no file that can be read (--preload PATH names another)\n",
			o->preload);
		return FAILED;
	}
	return o->sharer ? become_sharer(o) : run_vmm(o);
}

int main(int argc, char **argv)
{
	g_autoptr(GError) error = NULL;
	struct run_options options;
	int status = USAGE;

	(void)argc;
	setlocale(LC_ALL, "");
	if (!run_options_parse(&options, argv, &error)) {
		fprintf(stderr, "postcopy-run: %s\nTry 'postcopy-run --help'.\n", error->message);
	} else if (options.version) {
		puts("postcopy-run " PACKAGE_VERSION " " PC_FEATURES);
		status = 0;
	} else {
		status = run(&options);
	}
	run_options_clear(&options);
	return status;
}
