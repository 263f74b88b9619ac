// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * --vfio: which device, by what way it is reached, and how long a call on it may take.
 */
#include "config.h"

#include "source_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "wire/devstate.h"
#include "wire/keyval.h"

#define DEADLINE_MS	10000u
#define DEADLINE_MAX_MS 86400000u

static int take(char **out, const char *text)
{
	*out = text ? strdup(text) : NULL;
	return text && !*out ? -ENOMEM : 0;
}

/* 1 to 63 printable characters: what a record's head can hold. */
static bool good_id(const char *id)
{
	const char *at = id;

	while (g_ascii_isprint(*at))
		at++;
	return at > id && !*at && at - id < DEVSTATE_NAME;
}

static int read_spec(struct source_vfio_spec *spec, struct keyval *kv, const char **why)
{
	const char *id = keyval_get(kv, "id"), *socket = keyval_get(kv, "vfio-user");
	const char *sysfs = keyval_get(kv, "sysfs");

	*why = "id is 1 to 63 printable ASCII characters";
	if (!id || !good_id(id))
		return -EINVAL;
	*why = "one of vfio-user=PATH and sysfs=PATH is needed";
	if (!socket == !sysfs)
		return -EINVAL;
	*why = kv->error;
	spec->deadline_ms = DEADLINE_MS;
	if (keyval_number(kv, "deadline", 1, DEADLINE_MAX_MS, &spec->deadline_ms) < 0)
		return -EINVAL;
	*why = "out of memory";
	if (take(&spec->id, id) < 0 || take(&spec->socket, socket) < 0 ||
	    take(&spec->sysfs, sysfs) < 0)
		return -ENOMEM;
	return 0;
}

/**
 * source_options_vfio - one --vfio argument
 * @spec: source_options_vfio_deinit() after a failure too
 * @why: what is wrong
 *
 * Return: 0 or -errno.
 */
int source_options_vfio(struct source_vfio_spec *spec, const char *text, char why[256])
{
	static const char *const known[] = { "id", "vfio-user", "sysfs", "deadline", NULL };
	struct keyval kv cleanup_keyval;
	const char *problem = kv.error;
	int r = keyval_parse(&kv, text, known, "id");

	*spec = (struct source_vfio_spec){ .id = NULL };
	if (r == 0)
		r = read_spec(spec, &kv, &problem);
	g_strlcpy(why, problem, 256);
	return r;
}

void source_options_vfio_deinit(struct source_vfio_spec *spec)
{
	free(steal_ptr(&spec->id));
	free(steal_ptr(&spec->socket));
	free(steal_ptr(&spec->sysfs));
}
