/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A rule is put together here and read by the daemon: what is wrong with it is said in its words.
 */
#include "config.h"
#include "tools/ctl_fault.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "core/guard.h"
#include "tools/ctl_format.h"
#include "tools/ctl_table.h"

static const struct {
	const char *key;
	size_t at;
} keys[] = {
	{ "page", offsetof(struct ctl_fault_options, page) },
	{ "sharer", offsetof(struct ctl_fault_options, sharer) },
	{ "every", offsetof(struct ctl_fault_options, every) },
	{ "probability", offsetof(struct ctl_fault_options, probability) },
	{ "after", offsetof(struct ctl_fault_options, after) },
	{ "count", offsetof(struct ctl_fault_options, count) },
};

static char *value(const struct ctl_fault_options *o, size_t i)
{
	return *(char *const *)((const char *)o + keys[i].at);
}

/**
 * ctl_fault_given - has any option of it been given?
 */
bool ctl_fault_given(const struct ctl_fault_options *o)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (value(o, i))
			return true;
	return false;
}

void ctl_fault_clear(struct ctl_fault_options *o)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		g_free(value(o, i));
	memset(o, 0, sizeof(*o));
}

static bool is(const char *word, const char *wanted)
{
	return word && strcmp(word, wanted) == 0;
}

/* One word that is a whole rule. */
static bool is_rule(char *const *words)
{
	return words[1] && !words[2] && g_str_has_prefix(words[1], "point=");
}

/**
 * ctl_fault_check - are these the words of a command, with the options that it has?
 */
bool ctl_fault_check(char *const *words, const struct ctl_fault_options *o)
{
	unsigned n = g_strv_length((char **)words);

	if (n == 0 || (n == 1 && is(words[0], "list")))
		return !ctl_fault_given(o);
	if (is(words[0], "add"))
		return is_rule(words) ? !ctl_fault_given(o) : n == 3;
	return n == 2 && is(words[0], "remove") && !ctl_fault_given(o);
}

/* ',' is written ',,'. */
static void add_pair(GString *rule, const char *key, const char *text)
{
	g_string_append_printf(rule, "%s%s=", rule->len ? "," : "", key);
	for (; *text; text++)
		g_string_append_printf(rule, "%s%c", *text == ',' ? "," : "", *text);
}

static char *make_rule(char *const *words, const struct ctl_fault_options *o)
{
	GString *rule = g_string_new(NULL);

	add_pair(rule, "point", words[1]);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		if (value(o, i))
			add_pair(rule, keys[i].key, value(o, i));
	add_pair(rule, "action", words[2]);
	return g_string_free(rule, FALSE);
}

static int print_answer(const struct jsonmsg *reply, bool json, const char *what)
{
	const struct jsonmsg *answer = jsonmsg_member(reply, "return");
	char *line cleanup_free = json ? jsonmsg_print(answer, NULL) : NULL;

	if (json)
		fputs(line, stdout);
	else
		printf("%s %" PRId64 "\n", what, jsonmsg_i64(answer, what, 0));
	return 0;
}

static int add(struct ctl_client *c, char *const *words, const struct ctl_fault_options *o,
	       bool json)
{
	g_autofree char *rule = is_rule(words) ? g_strdup(words[1]) : make_rule(words, o);
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	const struct ctl_argument arguments[] = { { "rule", rule }, { NULL, NULL } };
	int r = ctl_client_ask_with(c, "fault-add", arguments, &reply);

	return r < 0 ? r : print_answer(reply, json, "id");
}

static int take_away(struct ctl_client *c, char *const *words, bool json)
{
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	const struct ctl_argument arguments[] = { { "id", words[1] }, { NULL, NULL } };
	int r = ctl_client_ask_with(c, "fault-remove", arguments, &reply);

	return r < 0 ? r : print_answer(reply, json, "removed");
}

static void put_rule(struct ctl_table *t, const struct jsonmsg *rule, uint64_t now)
{
	g_autofree char *text = ctl_format_plain(jsonmsg_text(rule, "rule", "?"));
	uint64_t since = jsonmsg_u64(rule, "since_ns", 0);

	ctl_table_row(t);
	CTL_TABLE_COUNTS(t, jsonmsg_u64(rule, "id", 0), jsonmsg_u64(rule, "hits", 0),
			 jsonmsg_u64(rule, "fires", 0));
	ctl_table_time(t, now > since ? now - since : 0);
	ctl_table_text(t, text);
}

static void put_list(GString *out, const struct jsonmsg *all)
{
	const struct jsonmsg *rules = jsonmsg_member(all, "rules");
	struct ctl_table t cleanup_ctl_table = { NULL };

	if (!jsonmsg_bool(all, "enabled", false)) {
		g_string_append(out, "no faults are injected: --enable-faults was not given\n");
		return;
	}
	g_string_append_printf(out, "seed %" PRIu64 "\n", jsonmsg_u64(all, "seed", 0));
	if (jsonmsg_count(rules) == 0) {
		g_string_append(out, "no rules\n");
		return;
	}
	ctl_table_init(&t, ">ID\t>HITS\t>FIRES\t>AGE\tRULE");
	for (unsigned i = 0; i < jsonmsg_count(rules); i++)
		put_rule(&t, jsonmsg_element(rules, i), jsonmsg_u64(all, "now_ns", 0));
	ctl_table_print(&t, out);
}

static int list(struct ctl_client *c, bool json)
{
	static const struct ctl_argument none = { NULL, NULL };
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	char *line cleanup_free = NULL;
	g_autoptr(GString) out = g_string_new(NULL);
	int r = ctl_client_ask_with(c, "fault-list", &none, &reply);

	if (r < 0)
		return r;
	if (json)
		line = jsonmsg_print(jsonmsg_member(reply, "return"), NULL);
	else
		put_list(out, jsonmsg_member(reply, "return"));
	fputs(line ? line : out->str, stdout);
	return 0;
}

/**
 * ctl_fault_run - do what ctl_fault_check() found right
 */
int ctl_fault_run(struct ctl_client *c, char *const *words, const struct ctl_fault_options *o,
		  bool json)
{
	if (is(words[0], "add"))
		return add(c, words, o, json);
	if (is(words[0], "remove"))
		return take_away(c, words, json);
	return list(c, json);
}
