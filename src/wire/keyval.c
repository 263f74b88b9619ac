/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Options are read by people's shells and scripts, so the parser guesses nothing: an unknown key, a
 * key given twice, a number with anything around it are errors, and the error names the key and
 * what would have been right.
 *
 * One copy of the text is all the memory there is.  It is unescaped and cut in place: ',,' only
 * shrinks it, and keys and values are pointers into it.
 */
#include "config.h"
#include "wire/keyval.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "core/guard.h"

static int fail(struct keyval *kv, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(struct keyval *kv, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(kv->error, sizeof(kv->error), fmt, ap);
	va_end(ap);
	return code;
}

static bool is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '_' || c == '.';
}

/*
 * Cut the next element off *at: up to a lone comma, ',,' becoming ',' in place.  *at is NULL after
 * the last one. The text only shrinks, so the write position never passes the read position.
 */
static char *cut_element(char **at)
{
	char *element = *at, *in = *at, *out = *at;

	for (; *in && !(in[0] == ',' && in[1] != ','); in++) {
		if (*in == ',')
			in++;
		*out++ = *in;
	}
	*at = *in ? in + 1 : NULL;
	*out = '\0';
	return element;
}

static size_t key_length(const char *element)
{
	size_t n = 0;

	while (is_key_char(element[n]))
		n++;
	return element[n] == '=' ? n : 0;
}

static bool is_known(const char *const *known, const char *key)
{
	for (; *known; known++)
		if (!strcmp(*known, key))
			return true;
	return false;
}

static int fail_unknown(struct keyval *kv, const char *key, const char *const *known)
{
	size_t used = (size_t)snprintf(kv->error, sizeof(kv->error),
				       "unknown key '%.64s', expected", key);

	for (const char *sep = " "; *known && used < sizeof(kv->error); known++, sep = ", ")
		used += (size_t)snprintf(kv->error + used, sizeof(kv->error) - used, "%s%s", sep,
					 *known);
	return -EINVAL;
}

static int add_pair(struct keyval *kv, const char *key, const char *value, const char *const *known)
{
	if (!is_known(known, key))
		return fail_unknown(kv, key, known);
	if (keyval_get(kv, key))
		return fail(kv, -EINVAL, "key '%s' is given twice", key);
	if (kv->n == KEYVAL_MAX_PAIRS)
		return fail(kv, -E2BIG, "more than %d keys", KEYVAL_MAX_PAIRS);
	kv->pair[kv->n++] = (struct keyval_pair){key, value};
	return 0;
}

/**
 * keyval_parse - take an option apart
 * @kv: filled; owns a copy of the text until keyval_clear(), after a failure too
 * @text: the option's argument; an empty one has no pairs
 * @known: NULL-terminated keys that may occur, each at most once
 * @implied: key of a first element without '=', or NULL when there is none
 *
 * A key consists of letters, digits, '-', '_' and '.'.
 *
 * Return: 0; -EINVAL or -E2BIG (too many pairs) with kv->error set; -ENOMEM.
 */
int keyval_parse(struct keyval *kv, const char *text, const char *const *known, const char *implied)
{
	*kv = (struct keyval){.text = strdup(text)};
	if (!kv->text)
		return -ENOMEM;
	for (char *at = *kv->text ? kv->text : NULL; at;) {
		char *element = cut_element(&at);
		size_t key = key_length(element);
		int r;

		if (key) {
			element[key] = '\0';
			r = add_pair(kv, element, element + key + 1, known);
		} else if (implied && element == kv->text && *element && !strchr(element, '=')) {
			r = add_pair(kv, implied, element, known);
		} else {
			r = fail(kv, -EINVAL,
				 "'%.64s' is not key=value (write ',,' for a comma in a value)",
				 element);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/**
 * keyval_clear - free the text; keys and values are gone with it
 *
 * Once more is harmless.  kv->error stays readable.
 */
void keyval_clear(struct keyval *kv)
{
	free(kv->text);
	kv->text = NULL;
	kv->n = 0;
}

/**
 * keyval_get - the value of a key, NULL when it was not given
 *
 * Belongs to @kv.
 */
const char *keyval_get(const struct keyval *kv, const char *key)
{
	for (unsigned i = 0; i < kv->n; i++)
		if (!strcmp(kv->pair[i].key, key))
			return kv->pair[i].value;
	return NULL;
}

struct range {
	uint64_t min, max;
};

static int get_ranged(struct keyval *kv, const char *key, int (*read)(const char *, uint64_t *),
		      const struct range *range, uint64_t *out)
{
	const char *text = keyval_get(kv, key);
	uint64_t v;
	int r;

	if (!text)
		return 0;
	r = read(text, &v);
	if (r == -EINVAL)
		return fail(kv, r, "%s='%.64s' is not a %s", key, text,
			    read == keyval_read_size ? "size (number with K, M, G or T)"
						     : "number");
	if (r < 0 || v < range->min || v > range->max)
		return fail(kv, -ERANGE, "%s=%.64s is not between %llu and %llu", key, text,
			    (unsigned long long)range->min, (unsigned long long)range->max);
	*out = v;
	return 1;
}

/**
 * keyval_number - a value as a number of [min, max]
 * @out: left alone when the key was not given
 *
 * Return: 1 given, 0 not given, -EINVAL or -ERANGE with kv->error set.
 */
int keyval_number(struct keyval *kv, const char *key, uint64_t min, uint64_t max, uint64_t *out)
{
	return get_ranged(kv, key, keyval_read_number, &(struct range){min, max}, out);
}

/**
 * keyval_size - the same for bytes, with a suffix as keyval_read_size() takes it
 */
int keyval_size(struct keyval *kv, const char *key, uint64_t min, uint64_t max, uint64_t *out)
{
	return get_ranged(kv, key, keyval_read_size, &(struct range){min, max}, out);
}

/**
 * keyval_bool - a value as on or off
 * @out: left alone when the key was not given
 *
 * Return: 1 given, 0 not given, -EINVAL with kv->error set.
 */
int keyval_bool(struct keyval *kv, const char *key, bool *out)
{
	const char *text = keyval_get(kv, key);

	if (!text)
		return 0;
	if (keyval_read_bool(text, out) < 0)
		return fail(kv, -EINVAL, "%s='%.64s' is neither on nor off", key, text);
	return 1;
}

static int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return 99;
}

/* Digits at the start of @text; *end is behind them.  strtoull() would take signs and blanks. */
static int read_digits(const char *text, const char **end, uint64_t *out)
{
	uint64_t base = 10, v = 0;
	const char *at = text;
	int r = 0;

	if (at[0] == '0' && (at[1] == 'x' || at[1] == 'X')) {
		base = 16;
		at += 2;
	}
	text = at;
	for (; (uint64_t)digit_of(*at) < base; at++)
		if (!mul_u64(v, base, &v) || !add_u64(v, (uint64_t)digit_of(*at), &v))
			r = -ERANGE;
	if (at == text)
		return -EINVAL;
	*end = at;
	*out = v;
	return r;
}

/**
 * keyval_read_number - decimal or 0x hexadecimal, nothing else around it
 * @out: set on success only
 *
 * Return: 0, -EINVAL, -ERANGE for what does not fit.
 */
int keyval_read_number(const char *text, uint64_t *out)
{
	const char *end;
	uint64_t v;
	int r = read_digits(text, &end, &v);

	/* What stands behind the digits is wrong even where they do not fit: say that first. */
	if (r == -EINVAL || *end)
		return -EINVAL;
	if (r == 0)
		*out = v;
	return r;
}

/**
 * keyval_read_size - the same with an optional suffix K, M, G or T: powers of 1024, either case
 * @out: bytes
 */
int keyval_read_size(const char *text, uint64_t *out)
{
	static const char suffixes[] = "KMGT";
	const char *end, *suffix;
	unsigned shift = 0;
	uint64_t v;
	int r = read_digits(text, &end, &v);

	if (r == -EINVAL)
		return r;
	if (*end) {
		suffix = strchr(suffixes, *end & ~0x20);
		if (!suffix || !*suffix || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (r < 0 || !mul_u64(v, 1ull << shift, &v))
		return -ERANGE;
	*out = v;
	return 0;
}

/**
 * keyval_read_bool - on/off, yes/no, true/false
 *
 * Return: 0 or -EINVAL.
 */
int keyval_read_bool(const char *text, bool *out)
{
	static const struct {
		const char *word;
		bool value;
	} words[] = {
		{"on", true},
		{"off", false},
		{"yes", true},
		{"no", false},
		{"true", true},
		{"false", false},
	};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		if (!strcmp(words[i].word, text)) {
			*out = words[i].value;
			return 0;
		}
	}
	return -EINVAL;
}
