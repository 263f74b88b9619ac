/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "golden.h"

#include <stdio.h>
#include <stdlib.h>

#include <criterion/criterion.h>

struct golden golden_load(const char *name)
{
	struct golden g = {0};
	char command[512];
	size_t room = 0, got;
	FILE *pipe;

	snprintf(command, sizeof(command), "gzip -dc '%s/%s.gz'", GOLDEN_DIR, name);
	pipe = popen(command, "r");
	cr_assert_not_null(pipe);
	do {
		room += 1 << 20;
		g.bytes = realloc(g.bytes, room);
		cr_assert_not_null(g.bytes);
		got = fread(g.bytes + g.len, 1, room - g.len, pipe);
		g.len += got;
	} while (g.len == room);
	cr_assert_eq(pclose(pipe), 0, "%s", command);
	return g;
}

void golden_free(struct golden *g)
{
	free(g->bytes);
	g->bytes = NULL;
}
