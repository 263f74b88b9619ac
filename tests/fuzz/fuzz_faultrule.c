/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * faultrule: no text may crash the parser; a rule that is taken fits its point, and survives being
 * written out and read again.
 */
#include "config.h"
#include "wire/faultrule.h"
#include <stdlib.h>
#include <string.h>
#include "core/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_again(const struct faultplan_rule *rule)
{
	char text[FAULTRULE_TEXT_MAX], again_text[FAULTRULE_TEXT_MAX], why[256];
	struct faultplan_rule again;

	faultrule_print(rule, text);
	if (faultrule_parse(&again, text, why, sizeof(why)) != 0)
		abort();
	faultrule_print(&again, again_text);
	if (strcmp(text, again_text) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text cleanup_free = strndup((const char *)data, size);
	static struct faultplan plan;
	struct faultplan_rule rule;
	char why[256];

	if (!text)
		abort();
	if (faultrule_parse(&rule, text, why, sizeof(why)) < 0) {
		if (strnlen(why, sizeof(why)) == sizeof(why))
			abort();
		return 0;
	}
	faultplan_init(&plan, 1, NULL);
	if (faultplan_add(&plan, &rule, 0) != 1)
		abort();
	read_again(&rule);
	return 0;
}
