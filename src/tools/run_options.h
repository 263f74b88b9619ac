/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_RUN_OPTIONS_H
#define PC_TOOLS_RUN_OPTIONS_H
/* The command line of postcopy-run, checked. */
#include <stdbool.h>

#include <glib.h>

struct run_options {
	char *incoming;	  /* of the source; "tcp::0" */
	char *run_dir;	  /* NULL: one is made, and removed at the end */
	char *name;	  /* of the main sharer; "vmm" */
	/* run PROGRAM as a sharer of this name of a daemon that runs; NULL: as the VMM */
	char *sharer;
	char *cont;	  /* auto, yes, no; NULL: auto, or no when the program is told -S */
	char *group;	  /* that PROGRAM runs with, when it gives up its rights; NULL */
	char *config;	  /* --config of postcopyd, or NULL */
	char **expect;	  /* passed on; may be NULL */
	char *postcopyd;  /* program */
	char *preload;	  /* libpostcopy-preload.so */
	int ready_fd;	  /* gets one line of JSON once a source may connect; -1 */
	bool told_stopped; /* PROGRAM's arguments have -S */
	char **program;	  /* with its arguments, NULL-terminated */
	bool version;
};

/* False with @error on a usage error; run_options_clear() after either. */
bool run_options_parse(struct run_options *o, char **argv, GError **error);
void run_options_clear(struct run_options *o);
/* The environment PROGRAM runs in, preload and all; newly allocated. */
char **run_options_environment(const struct run_options *o, const char *run_dir);
/* As a value of key=value,...; newly allocated. */
char *run_options_escape(const char *text);

#endif
