/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_JSONMSG_H
#define PC_WIRE_JSONMSG_H
/*
 * JSON in and out, one value a line.  Only its .c knows the JSON library; nothing here knows what
 * is said.  Numbers are whole (int64): everything we count or measure is.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSONMSG_MAX_DEPTH 16

/* --- reading ------------------------------------------------------------------------------ */

/* A tree of values; members and elements belong to the tree they are in. */
struct jsonmsg;

enum jsonmsg_kind {
	JSONMSG_NULL,
	JSONMSG_BOOL,
	JSONMSG_NUMBER,
	JSONMSG_FRACTION, /* a number that is not whole: none of the readers gives it out */
	JSONMSG_TEXT,
	JSONMSG_ARRAY,
	JSONMSG_OBJECT,
};

/* Read one value into a tree.  0, or -EBADMSG and *why, static text. */
int jsonmsg_parse(struct jsonmsg **out, const char *text, size_t len, const char **why);
/* The same for a peer that has fractions in what it says (QEMU's rates): they are let pass. */
int jsonmsg_parse_fractions(struct jsonmsg **out, const char *text, size_t len, const char **why);
struct jsonmsg *jsonmsg_copy(const struct jsonmsg *v);
void jsonmsg_free(struct jsonmsg *v);
static inline void jsonmsg_freep(struct jsonmsg **v)
{
	jsonmsg_free(*v);
}
#define cleanup_jsonmsg __attribute__((cleanup(jsonmsg_freep)))

/* Everything below takes NULL for a value that is not there. */
enum jsonmsg_kind jsonmsg_kind(const struct jsonmsg *v);
const struct jsonmsg *jsonmsg_member(const struct jsonmsg *object, const char *key);
unsigned jsonmsg_count(const struct jsonmsg *array);
const struct jsonmsg *jsonmsg_element(const struct jsonmsg *array, unsigned i);
/* The text of a value that is one, else NULL. */
const char *jsonmsg_string(const struct jsonmsg *v);
/* Name of a member that @known (NULL-terminated) does not list, or NULL. */
const char *jsonmsg_stranger(const struct jsonmsg *object, const char *const *known);

/* Members by name; @otherwise when there is none or of another kind (no u64 is negative). */
const char *jsonmsg_text(const struct jsonmsg *object, const char *key, const char *otherwise);
uint64_t jsonmsg_u64(const struct jsonmsg *object, const char *key, uint64_t otherwise);
int64_t jsonmsg_i64(const struct jsonmsg *object, const char *key, int64_t otherwise);
bool jsonmsg_bool(const struct jsonmsg *object, const char *key, bool otherwise);

/* One line with its '\n', to be free()d.  @len may be NULL. */
char *jsonmsg_print(const struct jsonmsg *v, size_t *len);

/* --- writing ------------------------------------------------------------------------------ */

struct jsonmsg_writer;

struct jsonmsg_writer *jsonmsg_writer_new(void);
void jsonmsg_writer_free(struct jsonmsg_writer *w);
static inline void jsonmsg_writer_freep(struct jsonmsg_writer **w)
{
	jsonmsg_writer_free(*w);
}
#define cleanup_jsonmsg_writer __attribute__((cleanup(jsonmsg_writer_freep)))

/* @key: NULL at the top and inside an array, the member's name inside an object. */
void jsonmsg_begin_object(struct jsonmsg_writer *w, const char *key);
void jsonmsg_begin_array(struct jsonmsg_writer *w, const char *key);
void jsonmsg_end(struct jsonmsg_writer *w);
/* Bytes that are not UTF-8 are replaced (names come from peers); NULL is written as null. */
void jsonmsg_put_text(struct jsonmsg_writer *w, const char *key, const char *text);
/* Values above INT64_MAX are written as INT64_MAX. */
void jsonmsg_put_u64(struct jsonmsg_writer *w, const char *key, uint64_t v);
void jsonmsg_put_i64(struct jsonmsg_writer *w, const char *key, int64_t v);
void jsonmsg_put_bool(struct jsonmsg_writer *w, const char *key, bool v);
/* A copy of @v (NULL: null). */
void jsonmsg_put_value(struct jsonmsg_writer *w, const char *key, const struct jsonmsg *v);
/* What was written, as a tree to be freed.  The writer may only be freed then. */
struct jsonmsg *jsonmsg_finish_tree(struct jsonmsg_writer *w);
/* What was written: one line with its '\n', to be free()d.  The writer may only be freed then. */
char *jsonmsg_finish(struct jsonmsg_writer *w, size_t *len);

#endif
