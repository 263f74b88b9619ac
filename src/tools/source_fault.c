// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The faults as tables: what each kind is called, where it may strike, and what it does.  Here it
 * is only decided that one fires; the sender at that point acts (source_pager.c for pages,
 * source_record.c for records, source_session.c for bytes).
 *
 * Two threads send, so firing is an exchange: a fault strikes once, whoever gets there first.
 */
#include "config.h"

#include "source_fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "wire/keyval.h"

#define PAGE   SOURCE_AT_PAGE
#define RECORD SOURCE_AT_RECORD
#define BYTE   SOURCE_AT_BYTE
#define ANY    (PAGE | RECORD | BYTE | SOURCE_AT_CHANNEL)

static const struct source_fault_kind kinds[] = {
	{"delay", SOURCE_DELAY, ANY, NULL, true, false, "wait ARG milliseconds before going on"},
	{"drop", SOURCE_DROP, ANY, NULL, false, false, "close the connections"},
	{"truncate", SOURCE_TRUNCATE, ANY, NULL, false, false, "send half of it, then close"},
	{"corrupt", SOURCE_CORRUPT, ANY, NULL, false, false, "flip the bits of one byte"},
	{"reorder", SOURCE_REORDER, PAGE, NULL, false, false,
	 "swap with the next page (large pages: swap its first two target pages)"},
	{"duplicate", SOURCE_DUPLICATE, PAGE, NULL, false, false, "send the page twice"},
	{"never-answer", SOURCE_WITHHOLD, PAGE, NULL, false, false, "never send the page"},
	{"die", SOURCE_DIE, ANY, NULL, false, false, "reset the connections and exit"},
	{"early-eof", SOURCE_EARLY_EOF, PAGE, "page:0", false, false,
	 "end the stream while pages are still owed"},
	{"wrong-section", SOURCE_WRONG_SECTION, PAGE, "page:0", false, true,
	 "close the page's section with another section id"},
	{"wrong-offset", SOURCE_WRONG_OFFSET, PAGE, "page:0", false, false,
	 "give the page an offset just behind its block"},
	{"wrong-name", SOURCE_WRONG_NAME, PAGE, "page:0", false, false,
	 "put the page in a block that does not exist"},
	{"unknown-flag", SOURCE_UNKNOWN_FLAG, PAGE, "page:0", false, false,
	 "set flag 0x800 on the page"},
	{"unknown-command", SOURCE_UNKNOWN_COMMAND, RECORD, "record:package", false, true,
	 "send command 99 before the record"},
	{"huge-length", SOURCE_HUGE_LENGTH, 0, "record:package", false, true,
	 "announce a package of 4 GiB - 1"},
	{"no-eof", SOURCE_SKIP, 0, "record:eof", false, true, "never send the end of the stream"},
	{"extra-after-eof", SOURCE_EXTRA, 0, "record:eof", false, true,
	 "send another section behind the end of the stream"},
	{"drop-after-eof", SOURCE_DROP, 0, "record:shut", false, true,
	 "close between the end of the stream and SHUT"},
	{"die-before-package", SOURCE_DIE, 0, "record:package", false, true,
	 "reset the connections instead of sending the package"},
	{"die-after-package", SOURCE_DIE, 0, "record:ping4", false, true,
	 "reset the connections once the package is delivered"},
};

static const char *const records[] = {
	"header",  "return-path", "ping1", "advise", "blocks", "switchover", "discard", "ping2",
	"package", "ping4",	  "end",   "device", "eof",    "eos",	     "shut",
	"reconnect", "recv-bitmap", "bitmap", "resume", "resumed",
};

/**
 * source_fault_kinds - the table of kinds
 */
const struct source_fault_kind *source_fault_kinds(unsigned *n)
{
	*n = ARRAY_LEN(kinds);
	return kinds;
}

/**
 * source_fault_records - names of the records that can be a point
 */
const char *const *source_fault_records(unsigned *n)
{
	*n = ARRAY_LEN(records);
	return records;
}

static const struct source_fault_kind *find_kind(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return &kinds[i];
	return NULL;
}

static bool known_record(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(records); i++)
		if (strcmp(records[i], name) == 0)
			return true;
	return false;
}

/* page:N or page:BLOCK/N; a block's name may hold slashes itself, so the last one counts. */
static int parse_page(struct source_fault *f, const char *text)
{
	const char *slash = strrchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : 0;

	if (slash && (len == 0 || len >= sizeof(f->name)))
		return -EINVAL;
	memcpy(f->name, text, len);
	f->name[len] = '\0';
	return keyval_read_number(slash ? slash + 1 : text, &f->number);
}

static int parse_record(struct source_fault *f, const char *text)
{
	if (!known_record(text))
		return -EINVAL;
	strcpy(f->name, text);
	return 0;
}

static int parse_byte(struct source_fault *f, const char *text)
{
	return keyval_read_number(text, &f->number);
}

static const struct {
	const char *prefix;
	enum source_point point;
	int (*parse)(struct source_fault *f, const char *text);
} point_forms[] = {
	{"page:", SOURCE_AT_PAGE, parse_page},
	{"record:", SOURCE_AT_RECORD, parse_record},
	{"byte:", SOURCE_AT_BYTE, parse_byte},
	{"channel:", SOURCE_AT_CHANNEL, parse_byte},
};

static int parse_point(struct source_fault *f, const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(point_forms); i++) {
		size_t len = strlen(point_forms[i].prefix);

		if (strncmp(text, point_forms[i].prefix, len) != 0)
			continue;
		f->point = point_forms[i].point;
		return point_forms[i].parse(f, text + len);
	}
	return -EINVAL;
}

/* KIND[=ARG][@POINT]; cuts @text up. */
static int parse_what(struct source_fault *f, char *text, const char **why)
{
	char *point = strchr(text, '@');
	char *arg;

	if (point)
		*point++ = '\0';
	arg = strchr(text, '=');
	if (arg)
		*arg++ = '\0';
	f->kind = find_kind(text);
	*why = "unknown kind (see --fault help)";
	if (!f->kind)
		return -EINVAL;
	*why = "this kind needs a number: KIND=ARG";
	if (f->kind->takes_arg && (!arg || keyval_read_number(arg, &f->arg) < 0))
		return -EINVAL;
	*why = "this kind takes no argument";
	if (!f->kind->takes_arg && arg)
		return -EINVAL;
	*why = "this kind needs a point: @page:N, @record:NAME, @byte:N or @channel:N";
	if (!point && !f->kind->where)
		return -EINVAL;
	*why = "bad point (see --fault help)";
	if (parse_point(f, point ? point : f->kind->where) < 0)
		return -EINVAL;
	*why = "this kind cannot happen at that point";
	return !point || (f->kind->points & f->point) ? 0 : -EINVAL;
}

/* What follows the first comma: trigger=FILE and nothing else. */
static int parse_trigger(struct source_fault *f, const char *text, const char **why)
{
	static const char *const known[] = {"trigger", NULL};
	struct keyval kv cleanup_keyval;
	const char *file;
	int r = keyval_parse(&kv, text, known, NULL);

	*why = "only trigger=FILE may follow the kind";
	if (r < 0)
		return r;
	file = keyval_get(&kv, "trigger");
	if (!file || !*file)
		return -EINVAL;
	f->trigger = strdup(file);
	return f->trigger ? 0 : -ENOMEM;
}

/**
 * source_faults_add - one --fault argument
 *
 * Return: 0, or -EINVAL / -ENOSPC with @why, static text.
 */
int source_faults_add(struct source_faults *f, const char *text, const char **why)
{
	cleanup_free char *what = strdup(text);
	struct source_fault *fault = &f->list[f->n];
	char *rest;
	int r;

	*why = "too many faults";
	if (f->n == SOURCE_MAX_FAULTS || !what)
		return -ENOSPC;
	memset(fault, 0, sizeof(*fault));
	rest = strchr(what, ',');
	if (rest)
		*rest++ = '\0';
	r = parse_what(fault, what, why);
	if (r == 0 && rest)
		r = parse_trigger(fault, rest, why);
	if (r == 0)
		f->n++;
	return r;
}

void source_faults_deinit(struct source_faults *f)
{
	for (unsigned i = 0; i < f->n; i++)
		free(steal_ptr(&f->list[i].trigger));
}

static bool triggered(const struct source_fault *f)
{
	return !f->trigger || access(f->trigger, F_OK) == 0;
}

/* The point is reached.  Is the trigger there, and are we the first thread to see it? */
static bool fire(struct source_fault *f)
{
	return triggered(f) && !atomic_exchange(&f->fired, true);
}

static bool pending(struct source_fault *f, enum source_point point)
{
	return f->point == point && !atomic_load_explicit(&f->fired, memory_order_relaxed);
}

static bool page_matches(const struct source_fault *f, uint64_t ordinal, const char *block,
			 uint64_t page)
{
	if (f->name[0])
		return page == f->number && strcmp(f->name, block) == 0;
	return ordinal >= f->number;
}

/**
 * source_faults_at_page - the fault that strikes the page about to leave, marked as fired, or NULL
 * @ordinal: how many pages left before it, on both lanes
 * @urgent: it leaves on the urgent lane, where some kinds make no sense
 */
struct source_fault *source_faults_at_page(struct source_faults *f, uint64_t ordinal,
					   const char *block, uint64_t page, bool urgent)
{
	for (unsigned i = 0; i < f->n; i++) {
		struct source_fault *one = &f->list[i];

		if (pending(one, SOURCE_AT_PAGE) && !(urgent && one->kind->main_only) &&
		    page_matches(one, ordinal, block, page) && fire(one))
			return one;
	}
	return NULL;
}

/**
 * source_faults_awaits - would one fire at that record, as things are?  It is not marked
 */
bool source_faults_awaits(struct source_faults *f, const char *record)
{
	for (unsigned i = 0; i < f->n; i++)
		if (pending(&f->list[i], SOURCE_AT_RECORD) &&
		    strcmp(f->list[i].name, record) == 0 && triggered(&f->list[i]))
			return true;
	return false;
}

/**
 * source_faults_at_record - the fault that strikes here, marked as fired, or NULL
 */
struct source_fault *source_faults_at_record(struct source_faults *f, const char *record)
{
	for (unsigned i = 0; i < f->n; i++)
		if (pending(&f->list[i], SOURCE_AT_RECORD) &&
		    strcmp(f->list[i].name, record) == 0 && fire(&f->list[i]))
			return &f->list[i];
	return NULL;
}

/**
 * source_faults_at_byte - the fault that strikes within the bytes [at, at + len) of a connection
 * @point: which connection: SOURCE_AT_BYTE, the main one, or SOURCE_AT_CHANNEL
 * @offset: how far into them; 0 for one that was due before its trigger came
 */
struct source_fault *source_faults_at_byte(struct source_faults *f, enum source_point point,
					   uint64_t at, uint64_t len, uint64_t *offset)
{
	for (unsigned i = 0; i < f->n; i++) {
		struct source_fault *one = &f->list[i];

		if (!pending(one, point) || one->number >= at + len || !fire(one))
			continue;
		*offset = one->number > at ? one->number - at : 0;
		return one;
	}
	return NULL;
}
