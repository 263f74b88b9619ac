/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The referee of postcopy-source: every rule of the return path, kept and broken (qemu-wire 8). */
#include "config.h"

#include "tools/source_check.h"

#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

static struct source_block block(uint64_t length, uint64_t page_size)
{
	struct source_block_spec spec = {.name = "ram", .length = length, .page_size = page_size};
	struct source_block b;

	cr_assert_eq(source_block_init(&b, &spec), 0);
	return b;
}

static const struct {
	enum source_phase phase;
	uint64_t start;
	uint32_t length;
	const char *breach; /* NULL: legal */
} small_pages[] = {
	{SOURCE_SETUP, 0, 4096, "before LISTEN"},
	{SOURCE_PACKAGE, 0, 4096, NULL},
	{SOURCE_ACTIVE, 4096, 4096, NULL},
	{SOURCE_ENDED, 0, 65536, NULL},
	{SOURCE_ACTIVE, 61440, 4096, NULL},
	{SOURCE_ACTIVE, 61440, 8192, "beyond"},
	{SOURCE_ACTIVE, 65536, 4096, "beyond"},
	{SOURCE_ACTIVE, UINT64_MAX - 4095, 4096, "beyond"},
	{SOURCE_ACTIVE, 0, 0, "empty"},
	{SOURCE_ACTIVE, 1, 4096, "aligned"},
	{SOURCE_ACTIVE, 0, 4095, "aligned"},
};

Test(source_check, requests)
{
	struct source_block b = block(65536, 4096);

	for (size_t i = 0; i < ARRAY_LEN(small_pages); i++) {
		struct source_check c = {0};
		bool legal = source_check_request(&c, small_pages[i].phase, &b, "ram",
						  small_pages[i].start, small_pages[i].length);

		cr_assert_eq(legal, !small_pages[i].breach, "row %zu: %s", i, c.first);
		cr_assert_eq(c.violations, !legal);
		if (!legal)
			cr_assert(strstr(c.first, small_pages[i].breach), "%s", c.first);
	}
	source_block_deinit(&b);
}

/* S1-18: never a part of a large page; a real source would abort over it. */
Test(source_check, requests_of_large_pages)
{
	struct source_block b = block(4 << 20, 2 << 20);
	struct source_check c = {0};

	cr_assert(source_check_request(&c, SOURCE_ACTIVE, &b, "ram", 2 << 20, 2 << 20));
	cr_assert(source_check_request(&c, SOURCE_ACTIVE, &b, "ram", 0, 4 << 20));
	cr_assert_not(source_check_request(&c, SOURCE_ACTIVE, &b, "ram", 0, 4096));
	cr_assert_not(source_check_request(&c, SOURCE_ACTIVE, &b, "ram", 4096, 2 << 20));
	source_block_deinit(&b);
}

Test(source_check, a_request_names_a_known_block)
{
	struct source_check c = {0};

	cr_assert_not(source_check_request(&c, SOURCE_ACTIVE, NULL, "rom", 0, 4096));
	cr_assert(strstr(c.first, "unknown block: rom"), "%s", c.first);
}

Test(source_check, a_page_is_asked_for_once)
{
	struct source_block b = block(65536, 4096);
	struct source_check c = {0};

	cr_assert(source_check_page(&c, &b, 3));
	cr_assert(source_check_page(&c, &b, 4));
	cr_assert_not(source_check_page(&c, &b, 3));
	cr_assert_eq(c.requested, 3);
	cr_assert_eq(c.requested_twice, 1);
	source_block_deinit(&b);
}

Test(source_check, pongs)
{
	struct source_check c = {0};

	cr_assert_not(source_check_pong(&c, 1));
	source_check_ping(&c, 1);
	source_check_ping(&c, 0x42);
	cr_assert(source_check_pong(&c, 1));
	cr_assert_not(source_check_pong(&c, 1));
	cr_assert_not(source_check_pong(&c, 5));
	cr_assert_not(c.committed);
	cr_assert_not(source_check_complete(&c), "0x42 is missing");
	cr_assert(source_check_pong(&c, 0x42));
	cr_assert(c.committed);
	cr_assert(source_check_complete(&c));
	cr_assert_eq(c.pongs, 2);
	cr_assert_eq(c.violations, 4);
}

Test(source_check, one_shut_of_zero_at_the_end)
{
	struct source_check good = {0}, early = {0}, error = {0};

	cr_assert(source_check_shut(&good, SOURCE_ENDED, 0));
	cr_assert_eq(good.violations, 0);
	cr_assert_not(source_check_shut(&good, SOURCE_ENDED, 0));
	cr_assert_not(source_check_shut(&early, SOURCE_ACTIVE, 0));
	cr_assert_not(source_check_shut(&error, SOURCE_ENDED, 7));
	cr_assert_eq(error.shut, 7);
	cr_assert(strstr(error.first, "SHUT 7"));
}

Test(source_check, nothing_is_asked_for_behind_shut)
{
	struct source_block b = block(65536, 4096);
	struct source_check c = {0};

	source_check_shut(&c, SOURCE_ENDED, 0);
	cr_assert_not(source_check_request(&c, SOURCE_ENDED, &b, "ram", 0, 4096));
	source_block_deinit(&b);
}

Test(source_check, the_first_breach_keeps_its_text)
{
	struct source_check c = {0};

	cr_assert(source_check_switchover_ack(&c));
	cr_assert_not(source_check_switchover_ack(&c));
	source_check_shut(&c, SOURCE_ENDED, 3);
	cr_assert_eq(c.violations, 2);
	cr_assert_str_eq(c.first, "SWITCHOVER_ACK twice");
}
