/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Faults on the control socket: a rule is one text, the same as on the command line.
 */
#include "config.h"
#include "daemon/faults.h"

#include "core/guard.h"
#include "sys/clock.h"
#include "wire/faultrule.h"

static void put_rule(struct jsonmsg_writer *w, const struct faultplan_slot *s)
{
	char text[FAULTRULE_TEXT_MAX];

	faultrule_print(&s->rule, text);
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_u64(w, "id", s->id);
	jsonmsg_put_text(w, "rule", text);
	jsonmsg_put_u64(w, "hits", __atomic_load_n(&s->hits, __ATOMIC_RELAXED));
	jsonmsg_put_u64(w, "fires", __atomic_load_n(&s->fires, __ATOMIC_RELAXED));
	jsonmsg_put_u64(w, "since_ns", s->since_ns);
	jsonmsg_end(w);
}

static bool list(void *ctx, const char *name, const struct jsonmsg *arguments,
		 struct jsonmsg_writer *w, const char *key, GError **error)
{
	const struct faultplan *plan = faults_plan(ctx);
	const struct faultplan_slot *slot;
	unsigned at = 0;

	(void)name;
	(void)arguments;
	(void)error;
	jsonmsg_begin_object(w, key);
	jsonmsg_put_u64(w, "now_ns", clock_ns());
	jsonmsg_put_bool(w, "enabled", plan);
	jsonmsg_put_u64(w, "seed", plan ? plan->seed : 0);
	jsonmsg_begin_array(w, "rules");
	while (plan && faultplan_list(plan, &at, &slot))
		put_rule(w, slot);
	jsonmsg_end(w);
	jsonmsg_end(w);
	return true;
}

static bool add(void *ctx, const char *name, const struct jsonmsg *arguments,
		struct jsonmsg_writer *w, const char *key, GError **error)
{
	int id = faults_add(ctx, jsonmsg_text(arguments, "rule", ""), error);

	(void)name;
	jsonmsg_begin_object(w, key);
	jsonmsg_put_i64(w, "id", id);
	jsonmsg_end(w);
	return id > 0;
}

static bool take_away(void *ctx, const char *name, const struct jsonmsg *arguments,
		      struct jsonmsg_writer *w, const char *key, GError **error)
{
	int n = faults_remove(ctx, jsonmsg_text(arguments, "id", ""), error);

	(void)name;
	jsonmsg_begin_object(w, key);
	jsonmsg_put_i64(w, "removed", n);
	jsonmsg_end(w);
	return n >= 0;
}

/**
 * faults_add_commands - before anybody connects
 */
void faults_add_commands(struct faults *f, struct control *c)
{
	static const char *const nothing[] = { NULL }, *const rule[] = { "rule", NULL },
				 *const id[] = { "id", NULL };
	static const struct control_command commands[] = {
		{ "fault-add", rule, false, add },
		{ "fault-list", nothing, false, list },
		{ "fault-remove", id, false, take_away },
	};

	control_add(c, commands, ARRAY_LEN(commands), f);
}
