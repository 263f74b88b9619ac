/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The JSON library reads more than JSON (comments, "var x =", several values), reads some JSON as
 * something else (numbers beyond int64 saturate), and descends once per bracket on our stack.  So a
 * peer's text goes through a lexer first that lets only plain, shallow, whole-numbered JSON pass;
 * grammar, trees and printing are the library's.
 */
#include "config.h"
#include "wire/jsonmsg.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <json-glib/json-glib.h>

/* A struct jsonmsg is a JsonNode by another name: callers see no type of the library. */
static JsonNode *node_of(const struct jsonmsg *v)
{
	return (JsonNode *)v;
}

static struct jsonmsg *value_of(JsonNode *node)
{
	return (struct jsonmsg *)node;
}

/* --- the lexer ---------------------------------------------------------------------------- */

struct lexer {
	const char *at, *end;
	unsigned depth;
	bool begun;	/* the one value at depth 0 */
	bool fractions; /* numbers need not be whole */
};

static const char hex_digits[] = "0123456789abcdefABCDEF";

/* The four digits of a \u escape, -1 when they are not. */
static int escape_unit(const char *at, const char *end)
{
	char digits[5] = "";

	if (end - at < 4)
		return -1;
	memcpy(digits, at, 4);
	return strspn(digits, hex_digits) == 4 ? (int)strtoul(digits, NULL, 16) : -1;
}

/* Behind "\u": a character, or a surrogate and its partner. */
static const char *skip_unicode(struct lexer *l)
{
	int unit = escape_unit(l->at, l->end), low;

	if (unit < 0)
		return "a \\u escape needs four hexadecimal digits";
	l->at += 4;
	if (unit == 0 || (unit >= 0xdc00 && unit <= 0xdfff))
		return "a \\u escape names no character";
	if (unit < 0xd800 || unit > 0xdbff)
		return NULL;
	if (l->end - l->at < 6 || l->at[0] != '\\' || l->at[1] != 'u')
		return "a surrogate has no partner";
	low = escape_unit(l->at + 2, l->end);
	if (low < 0xdc00 || low > 0xdfff)
		return "a surrogate has no partner";
	l->at += 6;
	return NULL;
}

static const char *skip_escape(struct lexer *l)
{
	char c = l->at < l->end ? *l->at++ : '\0';

	if (c == 'u')
		return skip_unicode(l);
	return c && strchr("\"\\/bfnrt", c) ? NULL : "unknown escape in a string";
}

static const char *skip_string(struct lexer *l)
{
	const char *why = NULL;

	l->at++;
	while (!why && l->at < l->end) {
		unsigned char c = (unsigned char)*l->at++;

		if (c == '"')
			return NULL;
		if (c < 0x20)
			return "control character in a string";
		if (c == '\\')
			why = skip_escape(l);
	}
	return why ? why : "a string has no end";
}

/* Digits off the front; false when there are none. */
static bool take_digits(const char **at)
{
	size_t n = strspn(*at, "0123456789");

	*at += n;
	return n > 0;
}

/* -?digits, then .digits or an exponent or both. */
static bool is_fraction(const char *at)
{
	at += *at == '-';
	if (!take_digits(&at))
		return false;
	if (*at == '.') {
		at++;
		if (!take_digits(&at))
			return false;
	}
	if (*at == 'e' || *at == 'E') {
		at++;
		at += *at == '+' || *at == '-';
		if (!take_digits(&at))
			return false;
	}
	return *at == '\0';
}

/*
 * A whole number of int64: strtoll() says when it does not fit, where the library would saturate.
 * It also takes blanks and '+', which cannot be here: a number begins with a digit or '-'.
 */
static const char *skip_number(struct lexer *l)
{
	const char *start = l->at;
	char digits[32] = "", *rest;
	size_t n = 1;

	while (n < (size_t)(l->end - start) && strchr("0123456789.eE+-", start[n]) && start[n])
		n++;
	l->at += n;
	if (n >= sizeof(digits))
		return "a number is too long";
	memcpy(digits, start, n);
	errno = 0;
	strtoll(digits, &rest, 10);
	start = digits + (*digits == '-');
	if (*start == '0' && start[1] >= '0' && start[1] <= '9')
		return "a number begins with 0";
	if (*rest && l->fractions && is_fraction(digits))
		return NULL;
	if (*rest || *start < '0' || *start > '9')
		return "a number is not whole";
	return errno ? "a number is too large" : NULL;
}

static const char *skip_word(struct lexer *l)
{
	static const char *const words[] = {"true", "false", "null"};

	for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
		size_t n = strlen(words[i]);

		if ((size_t)(l->end - l->at) >= n && !memcmp(l->at, words[i], n)) {
			l->at += n;
			return NULL;
		}
	}
	return "this is not JSON";
}

/* Counts brackets; which kind closes which is the library's grammar. */
static const char *skip_mark(struct lexer *l)
{
	char c = *l->at++;

	if (c == '{' || c == '[')
		return ++l->depth > JSONMSG_MAX_DEPTH ? "nested too deeply" : NULL;
	if (c == '}' || c == ']')
		return l->depth-- ? NULL : "a bracket has no partner";
	return NULL;
}

static const char *skip_token(struct lexer *l)
{
	char c = *l->at;

	if (l->depth == 0 && l->begun)
		return "more than one value";
	l->begun = true;
	if (strchr("{}[],:", c))
		return skip_mark(l);
	if (c == '"')
		return skip_string(l);
	if (c == '-' || (c >= '0' && c <= '9'))
		return skip_number(l);
	return skip_word(l);
}

/* What is wrong with the text as static text, or NULL. */
static const char *check_text(const char *text, size_t len, bool fractions)
{
	struct lexer l = {text, text + len, 0, false, fractions};
	const char *why = NULL;

	if (!g_utf8_validate_len(text, len, NULL))
		return "not UTF-8";
	while (!why && l.at < l.end) {
		if (strchr(" \t\r\n", *l.at))
			l.at++;
		else
			why = skip_token(&l);
	}
	return why ? why : l.depth ? "a bracket has no partner" : NULL;
}

/* --- reading ------------------------------------------------------------------------------ */

static int parse(struct jsonmsg **out, const char *text, size_t len, bool fractions,
		 const char **why)
{
	g_autoptr(JsonParser) parser = json_parser_new_immutable();
	const char *wrong = check_text(text, len, fractions);
	JsonNode *root = NULL;

	*out = NULL;
	if (!wrong && !json_parser_load_from_data(parser, text, (gssize)len, NULL))
		wrong = "this is not JSON";
	if (!wrong)
		root = json_parser_get_root(parser);
	if (!wrong && !root)
		wrong = "nothing there";
	if (why)
		*why = wrong;
	if (wrong)
		return -EBADMSG;
	*out = value_of(json_node_ref(root));
	return 0;
}

/**
 * jsonmsg_parse - read one JSON value
 * @out: the tree, freed with jsonmsg_free(); NULL on failure
 * @text, @len: need not be terminated
 * @why: what is wrong, static text, NULL on success; may be NULL
 *
 * Stricter than RFC 8259 where a peer could hurt us or lose data silently: at most
 * JSONMSG_MAX_DEPTH levels, no fractions or exponents, no number outside int64, no NUL in a text.
 * Of members with the same name the last one counts.
 *
 * Return: 0, or -EBADMSG.
 */
int jsonmsg_parse(struct jsonmsg **out, const char *text, size_t len, const char **why)
{
	return parse(out, text, len, false, why);
}

/**
 * jsonmsg_parse_fractions - jsonmsg_parse() for a peer that also counts in fractions
 *
 * Such a number is a value of kind JSONMSG_FRACTION: it is there, and no reader takes it for one of
 * its own.  A whole number outside int64 is refused as ever.
 */
int jsonmsg_parse_fractions(struct jsonmsg **out, const char *text, size_t len, const char **why)
{
	return parse(out, text, len, true, why);
}

/**
 * jsonmsg_copy - a tree of its own, to be freed; NULL of NULL
 */
struct jsonmsg *jsonmsg_copy(const struct jsonmsg *v)
{
	return v ? value_of(json_node_copy(node_of(v))) : NULL;
}

/**
 * jsonmsg_free - end a tree and all that belongs to it; NULL is fine
 */
void jsonmsg_free(struct jsonmsg *v)
{
	if (v)
		json_node_unref(node_of(v));
}

/**
 * jsonmsg_kind - what a value is; JSONMSG_NULL also for one that is not there
 */
enum jsonmsg_kind jsonmsg_kind(const struct jsonmsg *v)
{
	if (!v || JSON_NODE_HOLDS_NULL(node_of(v)))
		return JSONMSG_NULL;
	if (JSON_NODE_HOLDS_OBJECT(node_of(v)))
		return JSONMSG_OBJECT;
	if (JSON_NODE_HOLDS_ARRAY(node_of(v)))
		return JSONMSG_ARRAY;
	switch (json_node_get_value_type(node_of(v))) {
	case G_TYPE_STRING:
		return JSONMSG_TEXT;
	case G_TYPE_BOOLEAN:
		return JSONMSG_BOOL;
	case G_TYPE_DOUBLE:
		return JSONMSG_FRACTION;
	default:
		return JSONMSG_NUMBER;
	}
}

/**
 * jsonmsg_member - a member by name
 *
 * Return: belongs to @object; NULL when there is none, or @object is no object.
 */
const struct jsonmsg *jsonmsg_member(const struct jsonmsg *object, const char *key)
{
	if (jsonmsg_kind(object) != JSONMSG_OBJECT)
		return NULL;
	return value_of(json_object_get_member(json_node_get_object(node_of(object)), key));
}

/**
 * jsonmsg_count - elements of an array; 0 for what is none
 */
unsigned jsonmsg_count(const struct jsonmsg *array)
{
	if (jsonmsg_kind(array) != JSONMSG_ARRAY)
		return 0;
	return json_array_get_length(json_node_get_array(node_of(array)));
}

/**
 * jsonmsg_element - belongs to @array; NULL behind its end
 */
const struct jsonmsg *jsonmsg_element(const struct jsonmsg *array, unsigned i)
{
	if (i >= jsonmsg_count(array))
		return NULL;
	return value_of(json_array_get_element(json_node_get_array(node_of(array)), i));
}

/**
 * jsonmsg_string - the text of a value
 *
 * Return: belongs to @v; NULL for what is no text.
 */
const char *jsonmsg_string(const struct jsonmsg *v)
{
	return jsonmsg_kind(v) == JSONMSG_TEXT ? json_node_get_string(node_of(v)) : NULL;
}

/**
 * jsonmsg_stranger - the name of a member that nobody asked for
 * @known: NULL-terminated
 *
 * Return: belongs to @object; NULL when all are known.
 */
const char *jsonmsg_stranger(const struct jsonmsg *object, const char *const *known)
{
	const char *name;
	JsonObjectIter it;
	JsonNode *member;

	if (jsonmsg_kind(object) != JSONMSG_OBJECT)
		return NULL;
	json_object_iter_init(&it, json_node_get_object(node_of(object)));
	while (json_object_iter_next(&it, &name, &member))
		if (!g_strv_contains(known, name))
			return name;
	return NULL;
}

/* A member of another kind counts as absent: the typed readers then give their default. */
static const struct jsonmsg *member_of_kind(const struct jsonmsg *object, const char *key,
					    enum jsonmsg_kind kind)
{
	const struct jsonmsg *v = jsonmsg_member(object, key);

	return jsonmsg_kind(v) == kind ? v : NULL;
}

/**
 * jsonmsg_text - a member that is a text
 *
 * Return: belongs to @object; @otherwise when there is none or it is of another kind.
 */
const char *jsonmsg_text(const struct jsonmsg *object, const char *key, const char *otherwise)
{
	const char *text = jsonmsg_string(jsonmsg_member(object, key));

	return text ? text : otherwise;
}

/**
 * jsonmsg_u64 - a member that is a number; @otherwise also for a negative one
 */
uint64_t jsonmsg_u64(const struct jsonmsg *object, const char *key, uint64_t otherwise)
{
	int64_t v = jsonmsg_i64(object, key, -1);

	return v >= 0 ? (uint64_t)v : otherwise;
}

/**
 * jsonmsg_i64 - a member that is a number, or @otherwise
 */
int64_t jsonmsg_i64(const struct jsonmsg *object, const char *key, int64_t otherwise)
{
	const struct jsonmsg *v = member_of_kind(object, key, JSONMSG_NUMBER);

	return v ? json_node_get_int(node_of(v)) : otherwise;
}

/**
 * jsonmsg_bool - a member that is true or false, or @otherwise
 */
bool jsonmsg_bool(const struct jsonmsg *object, const char *key, bool otherwise)
{
	const struct jsonmsg *v = member_of_kind(object, key, JSONMSG_BOOL);

	return v ? json_node_get_boolean(node_of(v)) : otherwise;
}

/* The library's text lives in GLib's heap, which is malloc's (GLib >= 2.46): free() may have it. */
static char *print_node(JsonNode *node, size_t *len)
{
	g_autoptr(JsonGenerator) generator = json_generator_new();
	GString *line = g_string_new(NULL);

	json_generator_set_root(generator, node);
	json_generator_to_gstring(generator, line);
	g_string_append_c(line, '\n');
	if (len)
		*len = line->len;
	return g_string_free(line, FALSE);
}

/**
 * jsonmsg_print - a tree as one line with its '\n'
 * @len: bytes of the line; may be NULL
 *
 * Return: to be free()d.
 */
char *jsonmsg_print(const struct jsonmsg *v, size_t *len)
{
	return print_node(node_of(v), len);
}

/* --- writing ------------------------------------------------------------------------------ */

struct jsonmsg_writer {
	JsonBuilder *builder;
	unsigned depth;
	bool array[JSONMSG_MAX_DEPTH]; /* what is open at each level */
};

/**
 * jsonmsg_writer_new - begin one value; jsonmsg_writer_free() ends it, finished or not
 *
 * A writer out of step (a member without a name, an end without a beginning) is our bug and
 * asserted.
 */
struct jsonmsg_writer *jsonmsg_writer_new(void)
{
	struct jsonmsg_writer *w = g_new0(struct jsonmsg_writer, 1);

	w->builder = json_builder_new();
	return w;
}

/**
 * jsonmsg_writer_free - NULL is fine
 */
void jsonmsg_writer_free(struct jsonmsg_writer *w)
{
	if (!w)
		return;
	g_object_unref(w->builder);
	g_free(w);
}

static JsonBuilder *name_member(struct jsonmsg_writer *w, const char *key)
{
	assert(!key == (w->depth == 0 || w->array[w->depth - 1]));
	if (key)
		json_builder_set_member_name(w->builder, key);
	return w->builder;
}

static void open_level(struct jsonmsg_writer *w, bool array)
{
	assert(w->depth < JSONMSG_MAX_DEPTH);
	w->array[w->depth++] = array;
}

/**
 * jsonmsg_begin_object - open an object; jsonmsg_end() closes it
 * @key: its name where it stands in an object, NULL in an array and at the top; the same for every
 *   put
 */
void jsonmsg_begin_object(struct jsonmsg_writer *w, const char *key)
{
	json_builder_begin_object(name_member(w, key));
	open_level(w, false);
}

void jsonmsg_begin_array(struct jsonmsg_writer *w, const char *key)
{
	json_builder_begin_array(name_member(w, key));
	open_level(w, true);
}

void jsonmsg_end(struct jsonmsg_writer *w)
{
	assert(w->depth > 0);
	if (w->array[--w->depth])
		json_builder_end_array(w->builder);
	else
		json_builder_end_object(w->builder);
}

/**
 * jsonmsg_put_text - a text, or null for NULL
 *
 * Names come from peers: bytes that are no UTF-8 are replaced, so a line is JSON whatever they
 * sent.
 */
void jsonmsg_put_text(struct jsonmsg_writer *w, const char *key, const char *text)
{
	g_autofree char *valid = text ? g_utf8_make_valid(text, -1) : NULL;

	name_member(w, key);
	if (valid)
		json_builder_add_string_value(w->builder, valid);
	else
		json_builder_add_null_value(w->builder);
}

/**
 * jsonmsg_put_u64 - a number; above INT64_MAX, which no reader takes, it is INT64_MAX
 */
void jsonmsg_put_u64(struct jsonmsg_writer *w, const char *key, uint64_t v)
{
	jsonmsg_put_i64(w, key, v > INT64_MAX ? INT64_MAX : (int64_t)v);
}

void jsonmsg_put_i64(struct jsonmsg_writer *w, const char *key, int64_t v)
{
	json_builder_add_int_value(name_member(w, key), v);
}

void jsonmsg_put_bool(struct jsonmsg_writer *w, const char *key, bool v)
{
	json_builder_add_boolean_value(name_member(w, key), v);
}

/**
 * jsonmsg_put_value - a copy of a tree, or null for NULL
 */
void jsonmsg_put_value(struct jsonmsg_writer *w, const char *key, const struct jsonmsg *v)
{
	name_member(w, key);
	if (v)
		json_builder_add_value(w->builder, json_node_copy(node_of(v)));
	else
		json_builder_add_null_value(w->builder);
}

/**
 * jsonmsg_finish_tree - what was written, as a tree
 *
 * Everything that was begun must be ended.  The writer may only be freed then.
 *
 * Return: to be freed with jsonmsg_free().
 */
struct jsonmsg *jsonmsg_finish_tree(struct jsonmsg_writer *w)
{
	JsonNode *root = json_builder_get_root(w->builder);

	assert(w->depth == 0 && root);
	return value_of(root);
}

/**
 * jsonmsg_finish - what was written, as one line with its '\n'
 * @len: bytes of the line; may be NULL
 *
 * Everything that was begun must be ended.  The writer may only be freed then.
 *
 * Return: to be free()d.
 */
char *jsonmsg_finish(struct jsonmsg_writer *w, size_t *len)
{
	g_autoptr(JsonNode) root = json_builder_get_root(w->builder);

	assert(w->depth == 0 && root);
	return print_node(root, len);
}
