/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "tools/ctl_session.h"

#include <string.h>

/**
 * ctl_session_takes - are these words what the verb takes?
 */
bool ctl_session_takes(const char *verb, char *const *words)
{
	unsigned n = 0;

	while (words[n])
		n++;
	return n == 0 || (n == 1 && !strcmp(verb, "recover"));
}

/**
 * ctl_session_run - do it
 */
int ctl_session_run(struct ctl_client *c, const char *verb, char *const *words, bool force)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;

	if (words[0])
		return ctl_client_ask_with(
			c, verb,
			(const struct ctl_argument[]){ { "uri", words[0] }, { NULL, NULL } },
			&reply);
	return ctl_client_ask(c, verb, force ? "force" : NULL, &reply);
}
