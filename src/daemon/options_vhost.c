/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * --vhost-user: a back-end, and how it is to be treated.
 */
#include "config.h"
#include "daemon/options_parts.h"
#include <string.h>
#include "core/guard.h"
#include "wire/keyval.h"
#include "wire/regmsg.h"

#define ANSWER_MAX_S 86400
#define ANSWER_DEFAULT_S 30

/* One of some words; *out stays when there is none. */
static bool read_word(struct keyval *kv, const char *key, const char *const *words, unsigned n,
		      unsigned *out, GError **error)
{
	const char *text = keyval_get(kv, key);
	g_autoptr(GString) all = g_string_new("");

	for (unsigned i = 0; text && i < n; i++) {
		if (words[i] && strcmp(text, words[i]) == 0) {
			*out = i;
			return true;
		}
		if (words[i])
			g_string_append_printf(all, "%s%s", all->len ? ", " : "", words[i]);
	}
	return !text || options_fail(error, "%s: '%s' is none of %s", key, text, all->str);
}

static bool read_path(struct keyval *kv, const char *key, char **out, GError **error)
{
	const char *path = keyval_get(kv, key);

	if (!path)
		return options_fail(error, "%s=PATH is missing", key);
	if (!options_check_socket_path(path, error)) {
		g_prefix_error(error, "%s: ", key);
		return false;
	}
	*out = g_strdup(path);
	return true;
}

static bool read_name(struct keyval *kv, struct options_vhost *v, GError **error)
{
	const char *name = keyval_get(kv, "name");

	if (!name || *name == '\0' || strlen(name) >= REGMSG_NAME)
		return options_fail(error,
				    "name=NAME is missing, or not a sharer's name (1 to %d bytes)",
				    REGMSG_NAME - 1);
	v->name = g_strdup(name);
	return true;
}

static bool read_all(struct keyval *kv, struct options_vhost *v, GError **error)
{
	static const char *const policies[] = {
		[REGMSG_POLICY_IGNORE] = "ignore",
		[REGMSG_POLICY_DISABLE] = "disable",
		[REGMSG_POLICY_FAIL] = "fail",
	};
	const char *dialects[VHOSTFRONT_DIALECTS];
	uint64_t answer_s = ANSWER_DEFAULT_S;
	unsigned dialect = VHOSTFRONT_UNIVERSAL;

	for (unsigned i = 0; i < VHOSTFRONT_DIALECTS; i++)
		dialects[i] = vhostfront_dialect_name((enum vhostfront_dialect)i);
	if (!read_name(kv, v, error) || !read_path(kv, "front", &v->front, error) ||
	    !read_path(kv, "back", &v->back, error))
		return false;
	if (strcmp(v->front, v->back) == 0)
		return options_fail(error, "front and back are the same socket: %s", v->front);
	if (!read_word(kv, "dialect", dialects, VHOSTFRONT_DIALECTS, &dialect, error) ||
	    !read_word(kv, "policy", policies, ARRAY_LEN(policies), &v->policy, error))
		return false;
	if (keyval_bool(kv, "gate", &v->may_gate) < 0 ||
	    keyval_bool(kv, "repair", &v->repair) < 0 ||
	    keyval_number(kv, "answer-timeout", 1, ANSWER_MAX_S, &answer_s) < 0)
		return options_fail(error, "%s", kv->error);
	if (v->repair && (v->may_gate || keyval_get(kv, "dialect")))
		return options_fail(
			error,
			"repair: the VMM speaks its own dialect, and waits for nobody: neither dialect nor gate goes with it");
	v->dialect = (enum vhostfront_dialect)dialect;
	v->answer_s = (unsigned)answer_s;
	v->group = g_strdup(keyval_get(kv, "group"));
	return true;
}

/**
 * options_parse_vhost - the value of --vhost-user
 *
 * Return: options_free_vhost() it; NULL with *error.
 */
struct options_vhost *options_parse_vhost(const char *text, GError **error)
{
	static const char *const known[] = { "name",   "front",		 "back",  "dialect", "gate",
					     "policy", "answer-timeout", "group", "repair",  NULL };
	struct options_vhost *v = g_new0(struct options_vhost, 1);
	struct keyval kv cleanup_keyval;
	bool ok = false;

	v->policy = REGMSG_POLICY_IGNORE;
	if (keyval_parse(&kv, text, known, NULL) < 0)
		options_fail(error, "%s", kv.error);
	else
		ok = read_all(&kv, v, error);
	if (ok)
		return v;
	options_free_vhost(v);
	return NULL;
}

/**
 * options_meet_vhost - can both be there?
 */
bool options_meet_vhost(const struct options_vhost *a, const struct options_vhost *b,
			GError **error)
{
	if (strcmp(a->name, b->name) == 0)
		return !options_fail(error, "two vhost-user back-ends are named %s", a->name);
	if (strcmp(a->front, b->front) == 0 || strcmp(a->front, b->back) == 0 ||
	    strcmp(a->back, b->front) == 0)
		return !options_fail(error, "a path of %s is that of %s", b->name, a->name);
	return false;
}

/**
 * options_add_vhost - one more, if it can be there beside the others
 */
bool options_add_vhost(GPtrArray *all, const char *text, GError **error)
{
	struct options_vhost *v = options_parse_vhost(text, error);

	if (!v)
		return false;
	g_ptr_array_add(all, v);
	for (unsigned i = 0; i + 1 < all->len; i++)
		if (options_meet_vhost(g_ptr_array_index(all, i), v, error))
			return false;
	return true;
}

/**
 * options_copy_vhost - for whoever keeps it
 */
struct options_vhost *options_copy_vhost(const struct options_vhost *v)
{
	struct options_vhost *copy = g_memdup2(v, sizeof(*v));

	copy->name = g_strdup(v->name);
	copy->front = g_strdup(v->front);
	copy->back = g_strdup(v->back);
	copy->group = g_strdup(v->group);
	return copy;
}

/**
 * options_free_vhost - NULL is fine
 */
void options_free_vhost(struct options_vhost *v)
{
	if (!v)
		return;
	g_free(v->name);
	g_free(v->front);
	g_free(v->back);
	g_free(v->group);
	g_free(v);
}
