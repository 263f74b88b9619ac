/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option parser: every way to write a pair, and every way to get it wrong. */
#include "config.h"
#include "wire/keyval.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <criterion/criterion.h>
#include "core/guard.h"

static const char *const known[] = {"name", "path", "size", "on-end", "a", "b", NULL};

static void expect_error(const char *text, int code, const char *part)
{
	struct keyval kv cleanup_keyval;

	cr_assert_eq(keyval_parse(&kv, text, known, NULL), code, "%s", text);
	cr_assert(strstr(kv.error, part), "'%s' says: %s", text, kv.error);
}

Test(keyval, takes_pairs_apart)
{
	struct keyval kv cleanup_keyval;

	cr_assert_eq(keyval_parse(&kv, "name=pc.ram,path=/tmp/x=y,on-end=", known, NULL), 0);
	cr_assert_eq(kv.n, 3);
	cr_assert_str_eq(keyval_get(&kv, "name"), "pc.ram");
	cr_assert_str_eq(keyval_get(&kv, "path"), "/tmp/x=y");
	cr_assert_str_eq(keyval_get(&kv, "on-end"), "");
	cr_assert_null(keyval_get(&kv, "size"));
}

Test(keyval, empty_text_has_no_pairs)
{
	struct keyval kv cleanup_keyval;

	cr_assert_eq(keyval_parse(&kv, "", known, NULL), 0);
	cr_assert_eq(kv.n, 0);
}

Test(keyval, double_comma_is_a_comma)
{
	static const struct {
		const char *text, *a, *b;
	} rows[] = {
		{"a=x,,y,b=z", "x,y", "z"}, {"a=,,,b=z", ",", "z"}, {"a=x,,,,y", "x,,y", NULL},
		{"a=x,,", "x,", NULL},	    {"a=,,", ",", NULL},    {"a=x,,b=1", "x,b=1", NULL},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct keyval kv cleanup_keyval;

		cr_assert_eq(keyval_parse(&kv, rows[i].text, known, NULL), 0, "%s: %s",
			     rows[i].text, kv.error);
		cr_assert_str_eq(keyval_get(&kv, "a"), rows[i].a);
		if (rows[i].b)
			cr_assert_str_eq(keyval_get(&kv, "b"), rows[i].b);
		else
			cr_assert_null(keyval_get(&kv, "b"));
	}
}

Test(keyval, implied_key_only_first)
{
	struct keyval kv cleanup_keyval;

	cr_assert_eq(keyval_parse(&kv, "x,,y,size=4", known, "name"), 0, "%s", kv.error);
	cr_assert_str_eq(keyval_get(&kv, "name"), "x,y");
	keyval_clear(&kv);
	cr_assert_eq(keyval_parse(&kv, "size=4,x", known, "name"), -EINVAL);
	keyval_clear(&kv);
	cr_assert_eq(keyval_parse(&kv, "x,name=y", known, "name"), -EINVAL);
	cr_assert(strstr(kv.error, "twice"));
}

Test(keyval, says_what_is_wrong)
{
	expect_error("a", -EINVAL, "'a' is not key=value");
	expect_error("a=1,", -EINVAL, "'' is not key=value");
	expect_error(",a=1", -EINVAL, "'' is not key=value");
	expect_error("=1", -EINVAL, "'=1' is not key=value");
	expect_error("a b=1", -EINVAL, "is not key=value");
	expect_error("x,,y=1", -EINVAL, "is not key=value");
	expect_error("c=1", -EINVAL, "unknown key 'c', expected name, path, size, on-end, a, b");
	expect_error("a=1,a=2", -EINVAL, "'a' is given twice");
}

Test(keyval, too_many_pairs)
{
	char names[KEYVAL_MAX_PAIRS + 1][8], text[1024] = "";
	const char *many[KEYVAL_MAX_PAIRS + 2] = {NULL};
	struct keyval kv cleanup_keyval;
	size_t used = 0;

	for (unsigned i = 0; i <= KEYVAL_MAX_PAIRS; i++) {
		snprintf(names[i], sizeof(names[i]), "k%u", i);
		many[i] = names[i];
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%sk%u=v", i ? "," : "",
					 i);
	}
	cr_assert_eq(keyval_parse(&kv, text, many, NULL), -E2BIG);
	keyval_clear(&kv);
	*strrchr(text, ',') = '\0';
	cr_assert_eq(keyval_parse(&kv, text, many, NULL), 0);
	cr_assert_eq(kv.n, KEYVAL_MAX_PAIRS);
}

Test(keyval, numbers)
{
	static const struct {
		const char *text;
		int result;
		uint64_t value;
	} rows[] = {
		{"0", 0, 0},
		{"42", 0, 42},
		{"0x1f", 0, 31},
		{"0XfF", 0, 255},
		{"18446744073709551615", 0, UINT64_MAX},
		{"18446744073709551616", -ERANGE, 0},
		{"99999999999999999999999", -ERANGE, 0},
		{"0x10000000000000000", -ERANGE, 0},
		{"", -EINVAL, 0},
		{"0x", -EINVAL, 0},
		{"-1", -EINVAL, 0},
		{"+1", -EINVAL, 0},
		{" 1", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"1K", -EINVAL, 0},
		{"f", -EINVAL, 0},
		{"99999999999999999999999x", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t v = 0;

		cr_assert_eq(keyval_read_number(rows[i].text, &v), rows[i].result, "%s",
			     rows[i].text);
		cr_assert_eq(v, rows[i].value, "%s", rows[i].text);
	}
}

Test(keyval, sizes)
{
	static const struct {
		const char *text;
		int result;
		uint64_t value;
	} rows[] = {
		{"512", 0, 512},
		{"4K", 0, 4096},
		{"2m", 0, 2 << 20},
		{"1G", 0, 1ull << 30},
		{"3T", 0, 3ull << 40},
		{"0x10K", 0, 16384},
		{"16777215T", 0, 16777215ull << 40},
		{"16777216T", -ERANGE, 0},
		{"18446744073709551616K", -ERANGE, 0},
		{"1KB", -EINVAL, 0},
		{"K", -EINVAL, 0},
		{"1P", -EINVAL, 0},
		{"1.5G", -EINVAL, 0},
		{"1 ", -EINVAL, 0},
		{"", -EINVAL, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t v = 0;

		cr_assert_eq(keyval_read_size(rows[i].text, &v), rows[i].result, "%s",
			     rows[i].text);
		cr_assert_eq(v, rows[i].value, "%s", rows[i].text);
	}
}

Test(keyval, typed_access)
{
	struct keyval kv cleanup_keyval;
	uint64_t v = 7;
	bool on = false;

	cr_assert_eq(keyval_parse(&kv, "size=2M,a=12,b=on,name=x", known, NULL), 0);
	cr_assert_eq(keyval_size(&kv, "size", 1, UINT64_MAX, &v), 1);
	cr_assert_eq(v, 2 << 20);
	cr_assert_eq(keyval_number(&kv, "a", 0, 12, &v), 1);
	cr_assert_eq(v, 12);
	cr_assert_eq(keyval_number(&kv, "path", 0, 12, &v), 0, "not given: the default stays");
	cr_assert_eq(v, 12);
	cr_assert_eq(keyval_bool(&kv, "b", &on), 1);
	cr_assert(on);
	cr_assert_eq(keyval_bool(&kv, "on-end", &on), 0);
	cr_assert_eq(keyval_number(&kv, "a", 0, 11, &v), -ERANGE);
	cr_assert_str_eq(kv.error, "a=12 is not between 0 and 11");
	cr_assert_eq(keyval_number(&kv, "size", 0, 11, &v), -EINVAL);
	cr_assert_eq(keyval_size(&kv, "name", 0, 11, &v), -EINVAL);
	cr_assert(strstr(kv.error, "size"));
	cr_assert_eq(keyval_bool(&kv, "name", &on), -EINVAL);
	cr_assert_eq(v, 12, "a failure leaves the value alone");
}

Test(keyval, clear_twice_is_harmless)
{
	struct keyval kv;

	cr_assert_eq(keyval_parse(&kv, "a=1", known, NULL), 0);
	keyval_clear(&kv);
	keyval_clear(&kv);
	cr_assert_null(keyval_get(&kv, "a"));
}
