/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_KEYVAL_H
#define PC_WIRE_KEYVAL_H
/*
 * "key=value,key=value": the one parser of every structured option.  In a value ',,' is a comma.
 * Numbers come here too, so that every program reads sizes alike.  libc only.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYVAL_MAX_PAIRS 32
#define KEYVAL_ERROR_MAX 256

struct keyval_pair {
	const char *key, *value;	/* in `text` */
};

struct keyval {
	char *text;			/* owned: the unescaped copy */
	unsigned n;
	struct keyval_pair pair[KEYVAL_MAX_PAIRS];
	char error[KEYVAL_ERROR_MAX];	/* of the last failure: the key, what is expected */
};
#define cleanup_keyval __attribute__((cleanup(keyval_clear)))

/* 0; -EINVAL, -E2BIG with kv->error set; -ENOMEM.  keyval_clear() after each. */
int keyval_parse(struct keyval *kv, const char *text, const char *const *known,
		 const char *implied);
void keyval_clear(struct keyval *kv);

/* NULL when the key was not given. */
const char *keyval_get(const struct keyval *kv, const char *key);
/* Typed access: 1 given, 0 not given (*out stays), -EINVAL or -ERANGE with kv->error set. */
int keyval_number(struct keyval *kv, const char *key, uint64_t min, uint64_t max, uint64_t *out);
int keyval_size(struct keyval *kv, const char *key, uint64_t min, uint64_t max, uint64_t *out);
int keyval_bool(struct keyval *kv, const char *key, bool *out);

/* Decimal or 0x hexadecimal, nothing else around it.  0, -EINVAL, -ERANGE (does not fit). */
int keyval_read_number(const char *text, uint64_t *out);
/* The same with an optional suffix K, M, G or T (powers of 1024, either case). */
int keyval_read_size(const char *text, uint64_t *out);
/* on/off, yes/no, true/false.  0 or -EINVAL. */
int keyval_read_bool(const char *text, bool *out);

#endif
