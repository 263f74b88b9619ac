/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * keyval: no text may crash the parser; what it accepts must survive being written out (','
 * doubled) and read again.
 */
#include "config.h"
#include "wire/keyval.h"
#include <stdlib.h>
#include <string.h>
#include "core/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const known[] = {"a", "b", "name", "path", "size", "x.y", "on-end", NULL};

/* 2 bytes per byte of value, key, '=' and ',' fit: the caller sized @out for the worst case. */
static void write_out(const struct keyval *kv, char *out)
{
	for (unsigned i = 0; i < kv->n; i++) {
		if (i)
			*out++ = ',';
		out = stpcpy(out, kv->pair[i].key);
		*out++ = '=';
		for (const char *v = kv->pair[i].value; *v; v++) {
			if (*v == ',')
				*out++ = ',';
			*out++ = *v;
		}
	}
	*out = '\0';
}

static void read_again(const struct keyval *kv, size_t size)
{
	char *text cleanup_free = malloc(2 * size + 64);
	struct keyval again cleanup_keyval;

	if (!text)
		abort();
	write_out(kv, text);
	if (keyval_parse(&again, text, known, NULL) != 0 || again.n != kv->n)
		abort();
	for (unsigned i = 0; i < kv->n; i++)
		if (strcmp(kv->pair[i].key, again.pair[i].key) ||
		    strcmp(kv->pair[i].value, again.pair[i].value))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text cleanup_free = strndup((const char *)data, size);
	struct keyval kv cleanup_keyval;
	uint64_t v;
	bool on;

	if (!text)
		abort();
	if (keyval_parse(&kv, text, known, size & 1 ? "name" : NULL) < 0)
		return 0;
	(void)keyval_number(&kv, "a", 1, 1000, &v);
	(void)keyval_size(&kv, "size", 0, UINT64_MAX, &v);
	(void)keyval_bool(&kv, "b", &on);
	read_again(&kv, size);
	return 0;
}
