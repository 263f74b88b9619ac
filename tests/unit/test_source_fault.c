/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The fault table of postcopy-source: how faults are written, and when they strike. */
#include "config.h"

#include "tools/source_fault.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"

static struct source_fault *add(struct source_faults *f, const char *text)
{
	const char *why;

	cr_assert_eq(source_faults_add(f, text, &why), 0, "%s: %s", text, why);
	return &f->list[f->n - 1];
}

static void refused(const char *text, const char *part)
{
	struct source_faults f = {0};
	const char *why = "";

	cr_assert_lt(source_faults_add(&f, text, &why), 0, "%s was taken", text);
	cr_assert(strstr(why, part), "%s: %s", text, why);
	cr_assert_eq(f.n, 0);
	source_faults_deinit(&f);
}

static const struct {
	const char *text;
	enum source_action action;
	uint64_t arg;
	enum source_point point;
	uint64_t number;
	const char *name;
} good[] = {
	{"delay=250@page:7", SOURCE_DELAY, 250, SOURCE_AT_PAGE, 7, ""},
	{"delay=0@record:package", SOURCE_DELAY, 0, SOURCE_AT_RECORD, 0, "package"},
	{"truncate@byte:12345", SOURCE_TRUNCATE, 0, SOURCE_AT_BYTE, 12345, ""},
	{"never-answer@page:pc.ram/9", SOURCE_WITHHOLD, 0, SOURCE_AT_PAGE, 9, "pc.ram"},
	{"corrupt@page:/rom@etc/acpi/3", SOURCE_CORRUPT, 0, SOURCE_AT_PAGE, 3, "/rom@etc/acpi"},
	{"wrong-name", SOURCE_WRONG_NAME, 0, SOURCE_AT_PAGE, 0, ""},
	{"wrong-name@page:4", SOURCE_WRONG_NAME, 0, SOURCE_AT_PAGE, 4, ""},
	{"unknown-command", SOURCE_UNKNOWN_COMMAND, 0, SOURCE_AT_RECORD, 0, "package"},
	{"unknown-command@record:ping1", SOURCE_UNKNOWN_COMMAND, 0, SOURCE_AT_RECORD, 0, "ping1"},
	{"no-eof", SOURCE_SKIP, 0, SOURCE_AT_RECORD, 0, "eof"},
	{"die-after-package", SOURCE_DIE, 0, SOURCE_AT_RECORD, 0, "ping4"},
};

Test(source_fault, reads)
{
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct source_faults f = {0};
		const struct source_fault *one = add(&f, good[i].text);

		cr_assert_eq(one->kind->action, good[i].action, "%s", good[i].text);
		cr_assert_eq(one->arg, good[i].arg);
		cr_assert_eq(one->point, good[i].point, "%s", good[i].text);
		cr_assert_eq(one->number, good[i].number);
		cr_assert_str_eq(one->name, good[i].name);
		cr_assert_null(one->trigger);
	}
}

Test(source_fault, refuses)
{
	refused("", "unknown kind");
	refused("implode@page:1", "unknown kind");
	refused("delay@page:1", "number");
	refused("delay=soon@page:1", "number");
	refused("drop=1@page:1", "no argument");
	refused("drop", "needs a point");
	refused("drop@", "bad point");
	refused("drop@page:", "bad point");
	refused("drop@page:-1", "bad point");
	refused("drop@page:/3", "bad point");
	refused("drop@page:ram/", "bad point");
	refused("drop@record:lunch", "bad point");
	refused("drop@moon:1", "bad point");
	refused("reorder@byte:1", "cannot happen");
	refused("never-answer@record:eof", "cannot happen");
	refused("no-eof@page:1", "cannot happen");
	refused("wrong-section@record:end", "cannot happen");
	refused("drop@page:1,colour=red", "trigger");
	refused("drop@page:1,trigger=", "trigger");
	refused("drop@page:1,", "trigger");
}

Test(source_fault, has_room_for_so_many)
{
	struct source_faults f = {0};
	const char *why;

	for (unsigned i = 0; i < SOURCE_MAX_FAULTS; i++)
		add(&f, "drop@page:1");
	cr_assert_eq(source_faults_add(&f, "drop@page:1", &why), -ENOSPC);
	cr_assert_eq(f.n, SOURCE_MAX_FAULTS);
}

/* Every default is a point its own parser takes, and every kind can be written somehow. */
Test(source_fault, every_kind_of_the_table_can_be_written)
{
	unsigned n;
	const struct source_fault_kind *kinds = source_fault_kinds(&n);

	for (unsigned i = 0; i < n; i++) {
		struct source_faults f = {0};
		char text[128];

		cr_assert(kinds[i].where || kinds[i].points, "%s can never strike", kinds[i].name);
		snprintf(text, sizeof(text), "%s%s%s", kinds[i].name,
			 kinds[i].takes_arg ? "=5" : "", kinds[i].where ? "" : "@page:0");
		cr_assert_eq(add(&f, text)->kind, &kinds[i]);
	}
}

/* --- when they strike ----------------------------------------------------------------------- */

Test(source_fault, a_page_by_its_turn)
{
	struct source_faults f = {0};
	struct source_fault *one = add(&f, "drop@page:5");

	for (uint64_t n = 0; n < 5; n++)
		cr_assert_null(source_faults_at_page(&f, n, "ram", 100 + n, false));
	cr_assert_eq(source_faults_at_page(&f, 5, "ram", 0, true), one);
	cr_assert_null(source_faults_at_page(&f, 6, "ram", 1, false), "it strikes once");
	cr_assert(one->fired);
}

/* Two threads count pages: the turn may be over when this one asks. */
Test(source_fault, a_turn_that_was_missed_is_made_up_for)
{
	struct source_faults f = {0};

	add(&f, "drop@page:5");
	cr_assert_not_null(source_faults_at_page(&f, 9, "ram", 0, false));
}

Test(source_fault, a_page_by_its_number)
{
	struct source_faults f = {0};

	add(&f, "drop@page:ram/5");
	cr_assert_null(source_faults_at_page(&f, 5, "ram", 4, false));
	cr_assert_null(source_faults_at_page(&f, 6, "rom", 5, false));
	cr_assert_null(source_faults_at_page(&f, 7, "ram", 6, false));
	cr_assert_not_null(source_faults_at_page(&f, 8, "ram", 5, false));
}

Test(source_fault, some_faults_wait_for_the_main_lane)
{
	struct source_faults f = {0};

	add(&f, "wrong-section");
	cr_assert_null(source_faults_at_page(&f, 0, "ram", 0, true));
	cr_assert_not_null(source_faults_at_page(&f, 1, "ram", 1, false));
}

Test(source_fault, a_record)
{
	struct source_faults f = {0};
	struct source_fault *first = add(&f, "delay=1@record:package");
	struct source_fault *second = add(&f, "corrupt@record:package");

	cr_assert_null(source_faults_at_record(&f, "ping1"));
	cr_assert_null(source_faults_at_page(&f, 0, "package", 0, false));
	cr_assert_eq(source_faults_at_record(&f, "package"), first);
	cr_assert_eq(source_faults_at_record(&f, "package"), second);
	cr_assert_null(source_faults_at_record(&f, "package"));
}

Test(source_fault, a_byte)
{
	struct source_faults f = {0};
	uint64_t offset = 0;

	add(&f, "corrupt@byte:100");
	cr_assert_null(source_faults_at_byte(&f, SOURCE_AT_BYTE, 0, 100, &offset));
	cr_assert_not_null(source_faults_at_byte(&f, SOURCE_AT_BYTE, 90, 11, &offset));
	cr_assert_eq(offset, 10);
	cr_assert_null(source_faults_at_byte(&f, SOURCE_AT_BYTE, 101, 100, &offset));
}

/* The same number on the other connection is another byte. */
Test(source_fault, a_byte_of_the_device_channel)
{
	struct source_faults f = {0};
	uint64_t offset = 0;

	add(&f, "drop@channel:100");
	cr_assert_null(source_faults_at_byte(&f, SOURCE_AT_BYTE, 90, 20, &offset));
	cr_assert_null(source_faults_at_byte(&f, SOURCE_AT_CHANNEL, 0, 100, &offset));
	cr_assert_not_null(source_faults_at_byte(&f, SOURCE_AT_CHANNEL, 90, 20, &offset));
	cr_assert_eq(offset, 10);
}

Test(source_fault, a_trigger_holds_it_back)
{
	struct source_faults f = {0};
	char dir[] = "/tmp/test_source_fault.XXXXXX", path[64], text[128];

	cr_assert_not_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/now", dir);
	snprintf(text, sizeof(text), "drop@page:2,trigger=%s", path);
	add(&f, text);
	cr_assert_null(source_faults_at_page(&f, 2, "ram", 2, false));
	close(open(path, O_CREAT | O_WRONLY, 0600));
	cr_assert_null(source_faults_at_page(&f, 1, "ram", 1, false), "not before its point");
	cr_assert_not_null(source_faults_at_page(&f, 3, "ram", 3, false));
	unlink(path);
	rmdir(dir);
	source_faults_deinit(&f);
}

Test(source_fault, a_record_is_awaited_until_it_fired)
{
	struct source_faults f = {0};

	add(&f, "drop-after-eof");
	cr_assert_not(source_faults_awaits(&f, "eof"));
	cr_assert(source_faults_awaits(&f, "shut"));
	cr_assert_not_null(source_faults_at_record(&f, "shut"));
	cr_assert_not(source_faults_awaits(&f, "shut"));
}
