/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules of fault injection: kept as they were written, once they are found to be right.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include "wire/faultrule.h"

/**
 * options_add_fault - one more rule
 */
bool options_add_fault(GPtrArray *all, const char *text, GError **error)
{
	struct faultplan_rule rule;
	char why[256];

	if (all->len == FAULTPLAN_RULES)
		return options_fail(error, "more than %d rules", FAULTPLAN_RULES);
	if (faultrule_parse(&rule, text, why, sizeof(why)) < 0)
		return options_fail(error, "%s", why);
	g_ptr_array_add(all, g_strdup(text));
	return true;
}
