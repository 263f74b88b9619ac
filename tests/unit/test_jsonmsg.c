/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON lines: what is refused before the library sees it, and what is written back unchanged. */
#include "config.h"
#include "wire/jsonmsg.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <criterion/criterion.h>
#include "core/guard.h"

static struct jsonmsg *must_parse(const char *text)
{
	const char *why = NULL;
	struct jsonmsg *v;

	cr_assert_eq(jsonmsg_parse(&v, text, strlen(text), &why), 0, "%s: %s", text, why);
	cr_assert_not_null(v);
	cr_assert_null(why);
	return v;
}

static void expect_bad(const char *text, const char *part)
{
	const char *why = NULL;
	struct jsonmsg *v = (struct jsonmsg *)&v;

	cr_assert_eq(jsonmsg_parse(&v, text, strlen(text), &why), -EBADMSG, "accepted: %.60s",
		     text);
	cr_assert_null(v);
	cr_assert(why && strstr(why, part), "%.60s: expected '%s', got '%s'", text, part, why);
}

Test(jsonmsg, reads_members_by_name_and_kind)
{
	struct jsonmsg *v cleanup_jsonmsg =
		must_parse(" {\"t\":\"x\\u00e9\\ud83d\\ude00\",\"n\":42,\"m\":-7,\"y\":true,\"z\":"
			   "null,\"a\":[1,\"b\",{}],\"o\":{\"t\":\"y\"}}\r");

	cr_assert_eq(jsonmsg_kind(v), JSONMSG_OBJECT);
	cr_assert_str_eq(jsonmsg_text(v, "t", "?"), "x\xc3\xa9\xf0\x9f\x98\x80");
	cr_assert_eq(jsonmsg_u64(v, "n", 1), 42);
	cr_assert_eq(jsonmsg_i64(v, "m", 1), -7);
	cr_assert(jsonmsg_bool(v, "y", false));
	cr_assert_eq(jsonmsg_kind(jsonmsg_member(v, "z")), JSONMSG_NULL);
	cr_assert_eq(jsonmsg_count(jsonmsg_member(v, "a")), 3);
	cr_assert_eq(jsonmsg_kind(jsonmsg_element(jsonmsg_member(v, "a"), 0)), JSONMSG_NUMBER);
	cr_assert_eq(jsonmsg_kind(jsonmsg_element(jsonmsg_member(v, "a"), 1)), JSONMSG_TEXT);
	cr_assert_eq(jsonmsg_kind(jsonmsg_member(v, "y")), JSONMSG_BOOL);
	cr_assert_str_eq(jsonmsg_text(jsonmsg_member(v, "o"), "t", "?"), "y");
}

Test(jsonmsg, what_is_not_there_is_the_default)
{
	struct jsonmsg *v cleanup_jsonmsg = must_parse("{\"t\":\"x\",\"n\":-1,\"a\":[]}");

	cr_assert_str_eq(jsonmsg_text(v, "n", "other"), "other");
	cr_assert_null(jsonmsg_text(v, "none", NULL));
	cr_assert_eq(jsonmsg_u64(v, "n", 9), 9, "a negative number is no count");
	cr_assert_eq(jsonmsg_u64(v, "t", 9), 9);
	cr_assert_eq(jsonmsg_i64(v, "a", 9), 9);
	cr_assert(jsonmsg_bool(v, "n", true));
	cr_assert_eq(jsonmsg_count(v), 0);
	cr_assert_null(jsonmsg_element(v, 0));
	cr_assert_null(jsonmsg_element(jsonmsg_member(v, "a"), 0));
	cr_assert_null(jsonmsg_member(jsonmsg_member(v, "t"), "t"));
	cr_assert_null(jsonmsg_member(NULL, "t"));
	cr_assert_eq(jsonmsg_kind(NULL), JSONMSG_NULL);
	cr_assert_null(jsonmsg_copy(NULL));
}

Test(jsonmsg, names_strangers)
{
	static const char *const known[] = {"a", "b", NULL};
	struct jsonmsg *good cleanup_jsonmsg = must_parse("{\"b\":1}");
	struct jsonmsg *bad cleanup_jsonmsg = must_parse("{\"a\":1,\"c\":1}");
	struct jsonmsg *array cleanup_jsonmsg = must_parse("[1]");

	cr_assert_null(jsonmsg_stranger(good, known));
	cr_assert_str_eq(jsonmsg_stranger(bad, known), "c");
	cr_assert_null(jsonmsg_stranger(array, known));
	cr_assert_null(jsonmsg_stranger(NULL, known));
}

Test(jsonmsg, refuses_what_is_not_plain_json)
{
	static const char *const rows[][2] = {
		{"", "nothing there"},	    {" \r\n", "nothing there"}, {"{", "no partner"},
		{"}", "no partner"},	    {"{\"a\":1,}", "not JSON"}, {"[1,", "no partner"},
		{"[1,]", "not JSON"},	    {"{\"a\" 1}", "not JSON"},	{"{a:1}", "not JSON"},
		{"{} {}", "more than one"}, {"1 2", "more than one"},	{"{}}", "more than one"},
		{",1", "more than one"},    {"nul", "not JSON"},	{"True", "not JSON"},
		{"{]", "not JSON"},	    {"/* c */ {}", "not JSON"}, {"// c\n{}", "not JSON"},
		{"# c\n{}", "not JSON"},    {"var x = {}", "not JSON"}, {"{'a':1}", "not JSON"},
		{"NaN", "not JSON"},	    {"-Infinity", "whole"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		expect_bad(rows[i][0], rows[i][1]);
}

Test(jsonmsg, refuses_bad_strings)
{
	static const char *const rows[][2] = {
		{"\"a", "no end"},
		{"\"a\\\"", "no end"},
		{"\"\\", "unknown escape"},
		{"\"\\x41\"", "unknown escape"},
		{"\"\t\"", "control character"},
		{"\"\n\"", "control character"},
		{"\"\\u12g4\"", "four hexadecimal"},
		{"\"\\u12", "four hexadecimal"},
		{"\"\\u0000\"", "no character"},
		{"\"\\udc00\"", "no character"},
		{"\"\\ud800\"", "no partner"},
		{"\"\\ud800\\u0041\"", "no partner"},
		{"\"\\ud800\\n12345\"", "no partner"},
		{"\"\xff\"", "UTF-8"},
		{"\"\xc3\"", "UTF-8"},
		{"\"\xed\xa0\x80\"", "UTF-8"},
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		expect_bad(rows[i][0], rows[i][1]);
}

Test(jsonmsg, embedded_nul_is_refused)
{
	struct jsonmsg *v;

	cr_assert_eq(jsonmsg_parse(&v, "{}\0{}", 5, NULL), -EBADMSG);
	cr_assert_eq(jsonmsg_parse(&v, "\"a\0b\"", 5, NULL), -EBADMSG);
	cr_assert_eq(jsonmsg_parse(&v, "1\0", 2, NULL), -EBADMSG);
}

Test(jsonmsg, numbers_are_whole_and_fit)
{
	static const char *const bad[] = {
		"1.5",
		"1e3",
		"1E3",
		"-",
		"--1",
		"+1",
		"01",
		"-01",
		"0x10",
		"1-1",
		"9223372036854775808",
		"-9223372036854775809",
		"99999999999999999999999999",
		".5",
		"1.",
	};
	struct jsonmsg *v cleanup_jsonmsg =
		must_parse("{\"max\":9223372036854775807,\"min\":-9223372036854775808,\"zero\":0,"
			   "\"minus\":-0}");

	cr_assert_eq(jsonmsg_u64(v, "max", 0), INT64_MAX);
	cr_assert_eq(jsonmsg_i64(v, "min", 0), INT64_MIN);
	cr_assert_eq(jsonmsg_i64(v, "zero", 1), 0);
	cr_assert_eq(jsonmsg_i64(v, "minus", 1), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct jsonmsg *none;

		cr_assert_eq(jsonmsg_parse(&none, bad[i], strlen(bad[i]), NULL), -EBADMSG, "%s",
			     bad[i]);
	}
}

static void nest(char *text, unsigned depth)
{
	memset(text, '[', depth);
	memset(text + depth, ']', depth);
	text[2 * depth] = '\0';
}

Test(jsonmsg, depth_is_limited)
{
	static char text[131073];
	struct jsonmsg *v;

	nest(text, JSONMSG_MAX_DEPTH);
	v = must_parse(text);
	jsonmsg_free(v);
	nest(text, JSONMSG_MAX_DEPTH + 1);
	expect_bad(text, "too deeply");
	nest(text, 65536);
	expect_bad(text, "too deeply");
	memcpy(text, "[\"]]]]\\\"]]\",", 12);
	expect_bad(text, "too deeply");
}

Test(jsonmsg, writes_what_it_read)
{
	static const char text[] =
		"{\"id\":\"x\\\"\\\\\\n\",\"a\":[1,-2,true,null,{\"b\":[]}],\"o\":{}}\n";
	struct jsonmsg *v cleanup_jsonmsg = must_parse(text);
	struct jsonmsg *copy cleanup_jsonmsg = jsonmsg_copy(v);
	char *line cleanup_free = jsonmsg_print(copy, NULL);

	cr_assert_str_eq(line, text);
}

Test(jsonmsg, builds_a_line)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	struct jsonmsg *v cleanup_jsonmsg = must_parse("[7]");
	char *line cleanup_free = NULL;
	size_t len = 0;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_value(w, "id", v);
	jsonmsg_put_value(w, "none", NULL);
	jsonmsg_put_text(w, "text", "a\nb\x01\"");
	jsonmsg_put_text(w, "null", NULL);
	jsonmsg_put_u64(w, "big", UINT64_MAX);
	jsonmsg_put_i64(w, "min", INT64_MIN);
	jsonmsg_put_bool(w, "yes", true);
	jsonmsg_begin_array(w, "list");
	jsonmsg_put_u64(w, NULL, 1);
	jsonmsg_begin_object(w, NULL);
	jsonmsg_end(w);
	jsonmsg_end(w);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, &len);
	cr_assert_str_eq(line,
			 "{\"id\":[7],\"none\":null,\"text\":\"a\\nb\\u0001\\\"\",\"null\":null,"
			 "\"big\":9223372036854775807,\"min\":-9223372036854775808,\"yes\":true,"
			 "\"list\":[1,{}]}\n");
	cr_assert_eq(len, strlen(line));
}

/* A sharer chooses its own name: it must not be able to break the line. */
Test(jsonmsg, hostile_names_stay_inside_their_string)
{
	static const char *const names[] = {"\",\"x\":\"", "\n{}",	   "\xff\xfe", "\\",
					    "\x7f",	   "\xed\xa0\x80", "</script>"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
		struct jsonmsg *v cleanup_jsonmsg = NULL;
		char *line cleanup_free = NULL;

		jsonmsg_begin_object(w, NULL);
		jsonmsg_put_text(w, "name", names[i]);
		jsonmsg_end(w);
		line = jsonmsg_finish(w, NULL);
		cr_assert_eq(strchr(line, '\n'), line + strlen(line) - 1);
		v = must_parse(line);
		cr_assert_null(jsonmsg_member(v, "x"));
		cr_assert_not_null(jsonmsg_text(v, "name", NULL));
	}
}

static const char *fraction_fault(const char *text)
{
	struct jsonmsg *v cleanup_jsonmsg = NULL;
	const char *why = "?";
	int r = jsonmsg_parse_fractions(&v, text, strlen(text), &why);

	cr_assert_eq(r == 0, why == NULL);
	return why;
}

Test(jsonmsg, fractions_pass_where_asked_for_and_are_no_numbers)
{
	static const char text[] = "{\"a\":1.5,\"b\":-1e-05,\"c\":2E+3,\"d\":0.0,\"e\":7,"
				   "\"f\":-1.2345678901234567e-308}";
	static const char *const keys[] = {"a", "b", "c", "d", "f"};
	struct jsonmsg *v cleanup_jsonmsg = NULL;

	cr_assert_eq(jsonmsg_parse(&v, text, sizeof(text) - 1, NULL), -EBADMSG);
	cr_assert_eq(jsonmsg_parse_fractions(&v, text, sizeof(text) - 1, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		cr_assert_eq(jsonmsg_kind(jsonmsg_member(v, keys[i])), JSONMSG_FRACTION, "%s",
			     keys[i]);
		cr_assert_eq(jsonmsg_u64(v, keys[i], 42), 42);
		cr_assert_eq(jsonmsg_i64(v, keys[i], -42), -42);
		cr_assert_str_eq(jsonmsg_text(v, keys[i], "none"), "none");
	}
	cr_assert_eq(jsonmsg_u64(v, "e", 0), 7);
}

Test(jsonmsg, fractions_have_a_grammar_and_a_length)
{
	static const char *const bad[] = { "1.",
					   ".5",
					   "-",
					   "-.5",
					   "1e",
					   "1e+",
					   "1.5.2",
					   "1.e5",
					   "01.5",
					   "-00.5",
					   "1-2",
					   "1e5e",
					   "0.1234567890123456789012345678901",
					   "9223372036854775808",
					   "-9223372036854775809" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		cr_assert_not_null(fraction_fault(bad[i]), "%s", bad[i]);
	cr_assert_null(fraction_fault("9223372036854775807"));
	cr_assert_null(fraction_fault("0.5"));
	cr_assert_null(fraction_fault("-0e0"));
}

Test(jsonmsg, a_tree_is_what_was_written)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	struct jsonmsg *v cleanup_jsonmsg = NULL;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "a", "b");
	jsonmsg_end(w);
	v = jsonmsg_finish_tree(w);
	cr_assert_str_eq(jsonmsg_string(jsonmsg_member(v, "a")), "b");
	cr_assert_null(jsonmsg_string(v));
	cr_assert_null(jsonmsg_string(NULL));
}
