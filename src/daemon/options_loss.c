/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --on-loss: what becomes of a VM whose source is gone for good.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <string.h>
#include "wire/keyval.h"

#define AFTER_MAX_S 86400

static bool read_all(struct keyval *kv, struct options_loss *l, GError **error)
{
	const char *name = keyval_get(kv, "policy");
	uint64_t after = l->after_s;

	if (keyval_number(kv, "after", 1, AFTER_MAX_S, &after) < 0)
		return options_fail(error, "%s", kv->error);
	l->after_s = (unsigned)after;
	for (unsigned i = 0; name && i < OPTIONS_LOSS_POLICIES; i++)
		if (!strcmp(name, options_loss_names[i])) {
			l->policy = (enum options_on_loss)i;
			return true;
		}
	return options_fail(error, "'%s' is none of wait, poison, freeze, kill", name ? name : "");
}

const char *const options_loss_names[OPTIONS_LOSS_POLICIES] = {
	[OPTIONS_LOSS_WAIT] = "wait", [OPTIONS_LOSS_POISON] = "poison",
	[OPTIONS_LOSS_FREEZE] = "freeze", [OPTIONS_LOSS_KILL] = "kill",
};

/**
 * options_parse_loss - the value of --on-loss
 *
 * Return: false with *error; *out then stays as it was.
 */
bool options_parse_loss(const char *text, struct options_loss *out, GError **error)
{
	static const char *const known[] = {"policy", "after", NULL};
	struct options_loss l = {.after_s = OPTIONS_LOSS_AFTER_S};
	struct keyval kv cleanup_keyval;

	if (keyval_parse(&kv, text, known, "policy") < 0)
		return options_fail(error, "%s", kv.error);
	if (!read_all(&kv, &l, error))
		return false;
	*out = l;
	return true;
}
