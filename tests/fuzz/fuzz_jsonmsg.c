/* SPDX-License-Identifier: GPL-2.0-or-later */
/* jsonmsg: no line of a peer may crash it; what is accepted is printed as a line that reads the
 * same again. */
#include "config.h"
#include "wire/jsonmsg.h"
#include <stdlib.h>
#include <string.h>
#include "core/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct jsonmsg *v)
{
	static const char *const known[] = {"id", "execute", "arguments", NULL};

	(void)jsonmsg_text(v, "execute", "");
	(void)jsonmsg_u64(v, "id", 0);
	(void)jsonmsg_bool(jsonmsg_member(v, "arguments"), "force", false);
	(void)jsonmsg_stranger(v, known);
	for (unsigned i = 0; i < jsonmsg_count(v); i++)
		walk(jsonmsg_element(v, i));
}

static void print_again(const struct jsonmsg *v)
{
	struct jsonmsg *again cleanup_jsonmsg = NULL;
	char *one cleanup_free = NULL, *two cleanup_free = NULL;
	size_t len;

	one = jsonmsg_print(v, &len);
	if (strlen(one) != len || strchr(one, '\n') != one + len - 1)
		abort();
	if (jsonmsg_parse(&again, one, len, NULL) < 0)
		abort();
	two = jsonmsg_print(again, NULL);
	if (strcmp(one, two))
		abort();
}

/* What is read strictly is read here too, and what is read can be walked. */
static void read_fractions(const char *text, size_t len, bool strict)
{
	struct jsonmsg *v cleanup_jsonmsg = NULL;
	const char *why = NULL;
	int r = jsonmsg_parse_fractions(&v, text, len, &why);

	if ((r == 0) != (v != NULL) || (r == 0) != (why == NULL) || (strict && r))
		abort();
	if (v)
		walk(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct jsonmsg *v cleanup_jsonmsg = NULL;
	const char *why = NULL;
	int r = jsonmsg_parse(&v, (const char *)data, size, &why);

	if ((r == 0) != (v != NULL) || (r == 0) != (why == NULL))
		abort();
	read_fractions((const char *)data, size, r == 0);
	if (v) {
		walk(v);
		print_again(v);
	}
	return 0;
}
