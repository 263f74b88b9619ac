/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plan is the main thread's to change and everybody's to ask, without a lock
 * (core/faultplan.c).  A thread that holds something back for a rule is rung when one was removed.
 *
 * That rules fire is told from their counters, a few times a second: a rule that fires at every
 * page must not drown whoever listens.
 */
#include "config.h"
#include "daemon/faults.h"

#include <inttypes.h>
#include <string.h>

#include <gio/gio.h>

#include "sys/clock.h"
#include "wire/faultrule.h"
#include "wire/keyval.h"

#define TELL_MS 500

struct faults {
	struct faultplan *plan;		/* NULL: not enabled */
	struct faults_ops ops;
	guint timer;
	uint64_t told[FAULTPLAN_RULES];	/* fires, by slot */
	uint32_t told_id[FAULTPLAN_RULES];
};

static void tell(struct faults *f, unsigned i, const struct faultplan_slot *s)
{
	uint64_t fires = __atomic_load_n(&s->fires, __ATOMIC_RELAXED);
	char rule[FAULTRULE_TEXT_MAX];
	g_autofree char *text = NULL;

	if (f->told_id[i] != s->id)
		f->told[i] = 0;
	f->told_id[i] = s->id;
	if (fires == f->told[i])
		return;
	faultrule_print(&s->rule, rule);
	text = g_strdup_printf("rule %u (%s) fired %" PRIu64 " times", s->id, rule, fires);
	f->told[i] = fires;
	g_message("fault injection: %s", text);
	f->ops.fired(f->ops.ctx, "fault", text);
}

static gboolean on_timer(gpointer data)
{
	const struct faultplan_slot *slot;
	struct faults *f = data;
	unsigned at = 0;

	while (faultplan_list(f->plan, &at, &slot))
		tell(f, at - 1, slot);
	return G_SOURCE_CONTINUE;
}

static uint64_t some_seed(void)
{
	return ((uint64_t)g_random_int() << 32 | g_random_int()) & INT64_MAX;
}

/**
 * faults_new - the plan, with the rules of the command line, which were found to be right
 * @again: an earlier process had them
 *
 * Who follows a process that died begins without rules: the one that it died of would strike again.
 */
struct faults *faults_new(const struct options *o, bool again, const struct faults_ops *ops)
{
	struct faults *f = g_new0(struct faults, 1);

	f->ops = *ops;
	if (!o->enable_faults)
		return f;
	f->plan = g_new0(struct faultplan, 1);
	faultplan_init(f->plan, o->fault_seed ? o->fault_seed : some_seed(), NULL);
	f->timer = g_timeout_add(TELL_MS, on_timer, f);
	g_warning("faults may be injected (--enable-faults): this is for tests; --fault-seed %" PRIu64,
		  f->plan->seed);
	for (unsigned i = 0; i < o->faults->len && !again; i++)
		(void)faults_add(f, g_ptr_array_index(o->faults, i), NULL);
	return f;
}

/**
 * faults_free - the plan with it; NULL is fine
 */
void faults_free(struct faults *f)
{
	if (!f)
		return;
	g_clear_handle_id(&f->timer, g_source_remove);
	g_free(f->plan);
	g_free(f);
}

/**
 * faults_plan - for whoever comes past points; NULL: there is none
 */
struct faultplan *faults_plan(struct faults *f)
{
	return f->plan;
}

/**
 * faults_fill - what status shows of it
 */
void faults_fill(const struct faults *f, struct snapshot_faults *s)
{
	const struct faultplan_slot *slot;
	unsigned at = 0;

	*s = (struct snapshot_faults){ .enabled = f->plan != NULL };
	while (f->plan && faultplan_list(f->plan, &at, &slot)) {
		s->rules++;
		s->fires += __atomic_load_n(&slot->fires, __ATOMIC_RELAXED);
	}
}

static bool enabled(const struct faults *f, GError **error)
{
	if (!f->plan)
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_NOT_SUPPORTED,
				    "no faults are injected: start postcopyd with --enable-faults");
	return f->plan;
}

/**
 * faults_add - a rule as people write it
 *
 * Return: its number, or -1 with *error.
 */
int faults_add(struct faults *f, const char *text, GError **error)
{
	struct faultplan_rule rule;
	char why[256];
	int ret;

	if (!enabled(f, error))
		return -1;
	ret = faultrule_parse(&rule, text, why, sizeof(why));
	if (ret == 0)
		ret = faultplan_add(f->plan, &rule, clock_ns());
	else
		ret = -1;
	if (ret == -ENOSPC)
		g_snprintf(why, sizeof(why), "there are %d rules already", FAULTPLAN_RULES);
	if (ret < 0)
		g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, why);
	return ret < 0 ? -1 : ret;
}

static int remove_all(struct faults *f)
{
	const struct faultplan_slot *slot;
	unsigned at = 0;
	int n = 0;

	while (faultplan_list(f->plan, &at, &slot))
		n += faultplan_remove(f->plan, slot->id) == 0;
	return n;
}

/**
 * faults_remove - rules hold no longer; what was held back for them goes on
 * @which: a number, or "all"
 *
 * Return: how many, or -1 with *error.
 */
int faults_remove(struct faults *f, const char *which, GError **error)
{
	uint64_t id;
	int n;

	if (!enabled(f, error))
		return -1;
	if (strcmp(which, "all") == 0)
		n = remove_all(f);
	else if (keyval_read_number(which, &id) < 0 || id > UINT32_MAX ||
		 faultplan_remove(f->plan, (uint32_t)id) < 0)
		n = -1;
	else
		n = 1;
	if (n < 0)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "there is no rule '%.32s'",
			    which);
	else
		f->ops.removed(f->ops.ctx);
	return n;
}
