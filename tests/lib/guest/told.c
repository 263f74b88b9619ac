/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "told.h"

#include <stdarg.h>
#include <stdio.h>

void told_wrong(struct told *t, const char *text, ...)
{
	va_list ap;

	t->wrong = true;
	printf("# ");
	va_start(ap, text);
	vprintf(text, ap);
	va_end(ap);
	printf("\n");
}

void told(struct told *t, const char *what)
{
	printf("%sok %u - %s\n", t->wrong ? "not " : "", ++t->number, what);
	fflush(stdout);
	t->wrong = false;
}

int told_done(const struct told *t)
{
	printf("1..%u\ndone\n", t->number);
	return 0;
}
