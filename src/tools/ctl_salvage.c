/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon saves on a thread of its own, so what is asked again and again is how far it is.  The
 * daemon has another working directory: a path is made absolute here.
 */
#include "config.h"
#include "tools/ctl_salvage.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <glib.h>
#include "core/guard.h"
#include "wire/jsonmsg.h"

#define LOOK_US 200000

/* 1: it is under way; 0: it is saved; -1. */
static int look(struct ctl_client *c, bool json, bool quiet)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	const struct jsonmsg *salvage;
	const char *stage;

	if (ctl_client_ask(c, "status", NULL, &reply) < 0)
		return -1;
	salvage = jsonmsg_member(jsonmsg_member(reply, "return"), "salvage");
	stage = jsonmsg_text(salvage, "stage", "failed");
	if (!strcmp(stage, "saving")) {
		if (!quiet)
			fprintf(stderr, "\r%3.0f %%",
				100. * (double)jsonmsg_u64(salvage, "bytes_done", 0) /
					(double)MAX(jsonmsg_u64(salvage, "bytes_total", 1), 1));
		return 1;
	}
	if (!quiet)
		fputs("\r", stderr);
	if (json) {
		char *line cleanup_free = jsonmsg_print(salvage, NULL);

		fputs(line, stdout);
	} else {
		puts(jsonmsg_text(salvage, "text", ""));
	}
	return strcmp(stage, "saved") ? -1 : 0;
}

int ctl_salvage_run(struct ctl_client *c, const char *dir, bool json)
{
	g_autofree char *path = g_canonicalize_filename(dir, NULL);
	const struct ctl_argument arguments[] = { { "dir", path }, { NULL, NULL } };
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	bool quiet = json || !isatty(STDERR_FILENO);
	int r;

	if (ctl_client_ask_with(c, "salvage", arguments, &reply) < 0)
		return -1;
	while ((r = look(c, json, quiet)) > 0)
		g_usleep(LOOK_US);
	return r;
}
