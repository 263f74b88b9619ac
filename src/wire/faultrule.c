/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything that can be wrong with a rule is found here, and said with what would have been right:
 * a rule that is taken fires.
 */
#include "config.h"
#include "wire/faultrule.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"
#include "wire/keyval.h"

#define MILLION 1000000u

struct reading {
	struct keyval kv;
	struct faultplan_rule *out;
	char *why;
	size_t size;
};

static int fail(struct reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static int fail(struct reading *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->why, r->size, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

static int read_point(struct reading *r)
{
	const char *name = keyval_get(&r->kv, "point");
	int point = name ? faultplan_find_point(name) : -ENOENT;

	if (!name)
		return fail(r, "point=NAME is missing");
	if (point < 0)
		return fail(r, "there is no point '%.64s' (see postcopy-faults(7))", name);
	r->out->point = (enum faultplan_point)point;
	return 0;
}

static int read_death(struct reading *r, const char *text)
{
	for (unsigned i = 0; i < FAULTPLAN_DEATHS; i++) {
		if (text && strcmp(text, faultplan_deaths[i]) != 0)
			continue;
		r->out->arg = i;
		return 0;
	}
	return fail(r, "die is die=kill, die=abort or die=segv");
}

static int read_argument(struct reading *r, const char *text)
{
	const struct faultplan_action_info *a = &faultplan_actions[r->out->action];

	if (a->takes == FAULTPLAN_DEATH)
		return read_death(r, text);
	if (a->takes == FAULTPLAN_NOTHING && text)
		return fail(r, "%s takes no argument", a->name);
	r->out->arg = a->min;
	if (!text && a->takes == FAULTPLAN_NUMBER)
		return fail(r, "%s needs milliseconds: %s=MS", a->name, a->name);
	if (!text)
		return 0;
	if (keyval_read_number(text, &r->out->arg) < 0 || r->out->arg < a->min ||
	    r->out->arg > a->max)
		return fail(r, "%s: '%.32s' is not a number between %" PRIu64 " and %" PRIu64,
			    a->name, text, a->min, a->max);
	return 0;
}

/* NAME[=ARGUMENT] */
static int read_action(struct reading *r)
{
	const char *text = keyval_get(&r->kv, "action");
	const char *equals = text ? strchr(text, '=') : NULL;
	char name[32];
	int action;

	if (!text)
		return fail(r, "action=NAME is missing");
	snprintf(name, sizeof(name), "%.*s", (int)(equals ? equals - text : 31), text);
	action = faultplan_find_action(name);
	if (action < 0)
		return fail(r, "there is no action '%s' (see postcopy-faults(7))", name);
	r->out->action = (enum faultplan_action)action;
	if (!(faultplan_points[r->out->point].actions >> action & 1))
		return fail(r, "%s cannot happen at %s (see postcopy-faults(7))", name,
			    faultplan_points[r->out->point].name);
	return read_argument(r, equals ? equals + 1 : NULL);
}

/* N, or BLOCK/OFFSET: a block's name may hold slashes itself, so the last one counts. */
static int read_page(struct reading *r)
{
	const char *text = keyval_get(&r->kv, "page");
	const char *slash = NULL;
	size_t len;

	if (!text)
		return 0;
	for (const char *at = text; *at; at++)
		slash = *at == '/' ? at : slash;
	len = slash ? (size_t)(slash - text) : 0;
	if (!faultplan_points[r->out->point].page)
		return fail(r, "%s is not about a page", faultplan_points[r->out->point].name);
	if ((slash && len == 0) || len >= sizeof(r->out->block) ||
	    (slash ? keyval_read_size(slash + 1, &r->out->page) :
		     keyval_read_number(text, &r->out->page)) < 0)
		return fail(r, "page is a number, or BLOCK/OFFSET");
	memcpy(r->out->block, text, len);
	r->out->paged = true;
	return 0;
}

static int read_sharer(struct reading *r)
{
	const char *name = keyval_get(&r->kv, "sharer");

	if (!name)
		return 0;
	if (!faultplan_points[r->out->point].sharer)
		return fail(r, "%s is not about a sharer", faultplan_points[r->out->point].name);
	if (!*name || strlen(name) >= sizeof(r->out->sharer))
		return fail(r, "'%.64s' is not the name of a sharer", name);
	memcpy(r->out->sharer, name, strlen(name));
	return 0;
}

/* 0.25 or 25%, to the millionth; no locale has a say in it. */
static int read_probability(struct reading *r)
{
	const char *text = keyval_get(&r->kv, "probability"), *at = text;
	uint64_t unit = MILLION, value = 0;
	bool point = false;

	if (!text)
		return 0;
	if (strchr(text, '%'))
		unit /= 100;
	for (; (*at >= '0' && *at <= '9') || (*at == '.' && !point); at++) {
		point |= *at == '.';
		if (*at == '.' || value > MILLION)
			continue;
		if (point)
			unit /= 10;
		value = point ? value + unit * (uint64_t)(*at - '0') :
				value * 10 + unit * (uint64_t)(*at - '0');
	}
	if (at == text || strcmp(at, strchr(text, '%') ? "%" : "") != 0 || value == 0 ||
	    value > MILLION)
		return fail(r, "probability is between 0.000001 and 1 (or 0.0001%% and 100%%)");
	r->out->millionths = (uint32_t)value;
	return 0;
}

static int read_number(struct reading *r, const char *key, uint64_t *out)
{
	if (keyval_number(&r->kv, key, 1, UINT32_MAX, out) < 0)
		return fail(r, "%s", r->kv.error);
	return 0;
}

static int read_all(struct reading *r)
{
	int ret = read_point(r);

	if (ret == 0)
		ret = read_action(r);
	if (ret == 0)
		ret = read_page(r);
	if (ret == 0)
		ret = read_sharer(r);
	if (ret == 0)
		ret = read_probability(r);
	if (ret == 0)
		ret = read_number(r, "every", &r->out->every);
	if (ret == 0)
		ret = read_number(r, "after", &r->out->after_ms);
	if (ret == 0)
		ret = read_number(r, "count", &r->out->count);
	return ret;
}

/**
 * faultrule_parse - a rule as it was written
 * @why: what is wrong with it, and what would have been right
 *
 * Return: 0; -EINVAL with @why; -ENOMEM.
 */
int faultrule_parse(struct faultplan_rule *out, const char *text, char *why, size_t size)
{
	static const char *const known[] = { "point", "page",  "sharer", "every", "probability",
					     "after", "count", "action", NULL };
	struct reading r = { .out = out, .why = why, .size = size };
	int ret = keyval_parse(&r.kv, text, known, NULL);

	*out = (struct faultplan_rule){ 0 };
	if (ret == 0)
		ret = read_all(&r);
	else
		snprintf(why, size, "%s", ret == -ENOMEM ? "no memory" : r.kv.error);
	keyval_clear(&r.kv);
	return ret;
}

/* --- printing --------------------------------------------------------------------------------- */

static void add(char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void add(char *text, const char *fmt, ...)
{
	size_t used = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + used, FAULTRULE_TEXT_MAX - used, fmt, ap);
	va_end(ap);
}

/* ',' is written ',,'. */
static void add_name(char *text, const char *key, const char *name)
{
	add(text, ",%s=", key);
	for (; *name; name++)
		add(text, "%s%c", *name == ',' ? "," : "", *name);
}

static void add_count(char *text, const char *key, uint64_t n)
{
	if (n)
		add(text, ",%s=%" PRIu64, key, n);
}

static void add_action(char *text, const struct faultplan_rule *r)
{
	const struct faultplan_action_info *a = &faultplan_actions[r->action];

	add(text, ",action=%s", a->name);
	if (a->takes == FAULTPLAN_DEATH)
		add(text, "=%s", faultplan_deaths[r->arg]);
	else if (a->takes == FAULTPLAN_NUMBER || (a->takes == FAULTPLAN_MAY_NUMBER && r->arg))
		add(text, "=%" PRIu64, r->arg);
}

/**
 * faultrule_print - a rule as it could have been written
 */
void faultrule_print(const struct faultplan_rule *r, char text[FAULTRULE_TEXT_MAX])
{
	text[0] = '\0';
	add(text, "point=%s", faultplan_points[r->point].name);
	if (r->paged && r->block[0]) {
		add_name(text, "page", r->block);
		add(text, "/0x%" PRIx64, r->page);
	} else if (r->paged) {
		add(text, ",page=%" PRIu64, r->page);
	}
	if (r->sharer[0])
		add_name(text, "sharer", r->sharer);
	add_count(text, "every", r->every);
	if (r->millionths)
		add(text, ",probability=%u.%06u", r->millionths / MILLION, r->millionths % MILLION);
	add_count(text, "after", r->after_ms);
	add_count(text, "count", r->count);
	add_action(text, r);
}
