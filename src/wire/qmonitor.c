/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A line is taken apart from both ends: what stands in the middle is a name, which may hold blanks,
 * brackets and at-signs, and what stands around it has a fixed form.  Nothing that is about the
 * guest's memory is skipped: each line is one of the forms below, or the answer is refused.
 *
 *   ramblock  NAME  4 KiB  0xOFFSET 0xUSED 0xTOTAL [0xADDRESS rw|ro]      under one of two headings
 *   mtree -f  FlatView #N / AS "NAME", root: NAME / Root memory region: NAME / a range, or
 *             No rendered FlatView
 *     range   START-LAST (prio N, KIND): NAME [@OFFSET] [KVM]...         16 hexadecimal digits each
 *   gpa2hva   Host virtual address for 0xGUEST (NAME) is 0xADDRESS, or one of two refusals
 */
#include "config.h"

#include "wire/qmonitor.h"

#include <errno.h>
#include <string.h>

#include "core/guard.h"

/* A part of the text. */
struct span {
	const char *at, *end;
};

static size_t span_len(struct span s)
{
	return (size_t)(s.end - s.at);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static struct span trim(struct span s)
{
	while (s.at < s.end && is_blank(*s.at))
		s.at++;
	while (s.at < s.end && is_blank(s.end[-1]))
		s.end--;
	return s;
}

/* The next line without its end; false when there is none. */
static bool take_line(struct span *text, struct span *line)
{
	const char *nl;

	if (text->at == text->end)
		return false;
	nl = memchr(text->at, '\n', span_len(*text));
	*line = (struct span){text->at, nl ? nl : text->end};
	text->at = nl ? nl + 1 : text->end;
	if (line->at < line->end && line->end[-1] == '\r')
		line->end--;
	return true;
}

static bool is_text(struct span s, const char *text)
{
	return span_len(s) == strlen(text) && !memcmp(s.at, text, span_len(s));
}

/* @text off the front; false when it does not stand there. */
static bool take_text(struct span *s, const char *text)
{
	size_t len = strlen(text);

	if (span_len(*s) < len || memcmp(s->at, text, len) != 0)
		return false;
	s->at += len;
	return true;
}

/* The last word, off the end. */
static struct span take_last(struct span *s)
{
	struct span word;

	*s = trim(*s);
	word = *s;
	while (s->at < s->end && !is_blank(s->end[-1]))
		s->end--;
	word.at = s->end;
	return word;
}

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *found = c ? strchr(digits, c) : NULL;

	return found ? (int)(found - digits) : -1;
}

/* All of it, 1 to 16 digits; QEMU writes small letters. */
static bool read_hex(struct span s, uint64_t *out)
{
	uint64_t v = 0;

	if (span_len(s) == 0 || span_len(s) > 16)
		return false;
	for (; s.at < s.end; s.at++) {
		if (hex_digit(*s.at) < 0)
			return false;
		v = v << 4 | (uint64_t)hex_digit(*s.at);
	}
	*out = v;
	return true;
}

static bool read_0x(struct span s, uint64_t *out)
{
	return take_text(&s, "0x") && read_hex(s, out);
}

/* Printable, and neither empty nor too long to be a name. */
static bool copy_name(struct span s, char out[QMONITOR_NAME_MAX])
{
	size_t len = span_len(s);

	if (len == 0 || len >= QMONITOR_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)s.at[i] < 0x20 || s.at[i] == 0x7f)
			return false;
	memcpy(out, s.at, len);
	out[len] = '\0';
	return true;
}

static int refuse(const char **why, const char *reason)
{
	*why = reason;
	return -EPROTO;
}

/* --- info ramblock ---------------------------------------------------------------------------- */

/* "4" and "KiB": a page size. */
static bool read_size(struct span number, struct span unit, uint64_t *out)
{
	static const struct {
		const char *name;
		unsigned shift;
	} units[] = {{"B", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
	uint64_t v = 0;

	if (span_len(number) == 0 || span_len(number) > 4)
		return false;
	for (; number.at < number.end; number.at++) {
		if (*number.at < '0' || *number.at > '9')
			return false;
		v = v * 10 + (uint64_t)(*number.at - '0');
	}
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (!is_text(unit, units[i].name))
			continue;
		*out = v << units[i].shift;
		return is_power_of_two(*out);
	}
	return false;
}

/* The words of a heading, whatever is between them; 0 when it is none. */
static unsigned heading_columns(struct span line)
{
	static const char *const words[] = {"Block", "Name", "PSize", "Offset",
					    "Used",  "Total", "HVA",  "RO"};
	unsigned n = 0;

	for (line = trim(line); n < ARRAY_LEN(words) && span_len(line) > 0; n++) {
		if (!take_text(&line, words[n]) || (span_len(line) > 0 && !is_blank(*line.at)))
			return 0;
		line = trim(line);
	}
	return span_len(line) == 0 && (n == 6 || n == 8) ? n : 0;
}

static bool read_address(struct span *line, struct qmonitor_block *b)
{
	struct span word = take_last(line);
	uint64_t end;

	b->has_address = true;
	b->read_only = is_text(word, "ro");
	if (!b->read_only && !is_text(word, "rw"))
		return false;
	return read_0x(take_last(line), &b->address) && b->address != 0 &&
	       add_u64(b->address, b->total, &end);
}

static bool read_block(struct span line, bool has_address, struct qmonitor_block *b)
{
	struct span address, unit;

	*b = (struct qmonitor_block){0};
	line = trim(line);
	address = line;
	if (has_address) {
		(void)take_last(&line);
		(void)take_last(&line);
	}
	if (!read_0x(take_last(&line), &b->total) || !read_0x(take_last(&line), &b->used) ||
	    !read_0x(take_last(&line), &b->offset))
		return false;
	unit = take_last(&line);
	if (!read_size(take_last(&line), unit, &b->page_size))
		return false;
	if (b->used > b->total || !copy_name(trim(line), b->name))
		return false;
	return !has_address || read_address(&address, b);
}

static bool name_is_new(const struct qmonitor_block *list, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return false;
	return true;
}

/**
 * qmonitor_ramblock - the answer to `info ramblock`
 * @out: room for @max blocks
 * @why: what is not as known, static text; set with -EPROTO only
 *
 * Return: how many blocks there are, -EPROTO, or -E2BIG for more than @max.
 */
int qmonitor_ramblock(const char *text, size_t len, struct qmonitor_block *out, unsigned max,
		      const char **why)
{
	struct span rest = {text, text + len}, line;
	unsigned columns = take_line(&rest, &line) ? heading_columns(line) : 0;
	int n = 0;

	*why = NULL;
	if (!columns)
		return refuse(why, "'info ramblock' begins with a heading that is not known");
	while (take_line(&rest, &line)) {
		if (span_len(trim(line)) == 0)
			continue;
		if ((unsigned)n == max)
			return -E2BIG;
		if (!read_block(line, columns == 8, &out[n]))
			return refuse(why, "'info ramblock' has a row in a form that is not known");
		if (!name_is_new(out, n, out[n].name))
			return refuse(why, "'info ramblock' has two blocks of the same name");
		n++;
	}
	return n;
}

/* --- info mtree -f ---------------------------------------------------------------------------- */

static bool read_kind(struct span s, enum qmonitor_kind *out)
{
	static const struct {
		const char *name;
		enum qmonitor_kind kind;
	} kinds[] = {
		{"ram", QMONITOR_RAM},	   {"rom", QMONITOR_ROM},    {"romd", QMONITOR_ROMD},
		{"nv-ram", QMONITOR_NV_RAM}, {"nv-rom", QMONITOR_ROM}, {"i/o", QMONITOR_OTHER},
		{"ramd", QMONITOR_OTHER},
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		if (!is_text(s, kinds[i].name))
			continue;
		*out = kinds[i].kind;
		return true;
	}
	return false;
}

/* 16 digits off the front. */
static bool take_address(struct span *s, uint64_t *out)
{
	struct span digits = {s->at, s->at + 16};

	if (span_len(*s) < 16 || !read_hex(digits, out))
		return false;
	s->at += 16;
	return true;
}

/* "(prio -1, ram): " off the front. */
static bool take_kind(struct span *s, enum qmonitor_kind *kind)
{
	struct span word;
	const char *comma, *close;

	if (!take_text(s, "(prio ") || !(comma = memchr(s->at, ',', span_len(*s))))
		return false;
	word = (struct span){s->at, comma};
	(void)take_text(&word, "-");
	if (span_len(word) == 0)
		return false;
	for (; word.at < word.end; word.at++)
		if (*word.at < '0' || *word.at > '9')
			return false;
	s->at = comma;
	if (!take_text(s, ", ") || !(close = memchr(s->at, ')', span_len(*s))))
		return false;
	word = (struct span){s->at, close};
	s->at = close;
	return read_kind(word, kind) && take_text(s, "): ");
}

/* " @OFFSET" off the end, where it stands. */
static uint64_t take_offset(struct span *s)
{
	struct span before = *s, word = take_last(&before);
	uint64_t offset = 0;

	if (!take_text(&word, "@") || span_len(word) != 16 || !read_hex(word, &offset))
		return 0;
	*s = trim(before);
	return offset;
}

static bool read_range(struct span line, struct qmonitor_range *r)
{
	uint64_t end;

	*r = (struct qmonitor_range){0};
	line = trim(line);
	if (!take_address(&line, &r->start) || !take_text(&line, "-") ||
	    !take_address(&line, &r->last) || !take_text(&line, " ") || !take_kind(&line, &r->kind))
		return false;
	for (struct span before = line; is_text(take_last(&before), "KVM"); line = before)
		; /* one for each address space in which KVM knows the range */
	line = trim(line);
	r->offset = take_offset(&line);
	return r->start <= r->last && add_u64(r->offset, r->last - r->start, &end) &&
	       copy_name(line, r->name);
}

struct view_reader {
	const struct qmonitor_view *view;
	bool wanted;   /* the view that the lines are of is the guest's memory */
	bool found;
	bool body;     /* behind "Root memory region" */
	bool full;     /* no range may follow: the last one reached the end */
	uint64_t next; /* a range must not begin before it */
	int n;
};

static const char *read_view_head(struct view_reader *v, struct span line)
{
	if (take_text(&line, "AS \"memory\", root: system") && span_len(line) == 0) {
		if (v->found)
			return "'info mtree -f' has the guest's memory in two views";
		v->found = v->wanted = true;
		return NULL;
	}
	if (take_text(&line, "AS \""))
		return NULL;
	if (!take_text(&line, "Root memory region: "))
		return "'info mtree -f' has a line in a form that is not known";
	v->body = true;
	return NULL;
}

static const char *read_view_range(struct view_reader *v, struct span line)
{
	struct qmonitor_range r;

	if (!v->wanted || is_text(line, "No rendered FlatView"))
		return NULL;
	if (!read_range(line, &r))
		return "'info mtree -f' has a range in a form that is not known";
	if (v->full || r.start < v->next)
		return "'info mtree -f' has ranges that are not in order";
	v->full = r.last == UINT64_MAX;
	v->next = r.last + 1;
	if (r.kind == QMONITOR_OTHER && !v->view->devices)
		return NULL;
	if ((unsigned)v->n < v->view->max)
		v->view->out[v->n] = r;
	v->n++;
	return NULL;
}

static const char *read_view_line(struct view_reader *v, struct span line)
{
	line = trim(line);
	if (span_len(line) == 0)
		return NULL;
	if (take_text(&line, "FlatView #")) {
		v->wanted = v->body = false;
		return NULL;
	}
	return v->body ? read_view_range(v, line) : read_view_head(v, line);
}

/**
 * qmonitor_flatview - what the guest's address space is made of, from `info mtree -f`
 * @view: where the ranges go
 * @why: what is not as known, static text; set with -EPROTO only
 *
 * Return: how many ranges, -EPROTO, -ENOENT for a text without the guest's memory, or -E2BIG for
 * more than there is room for.
 */
int qmonitor_flatview(const char *text, size_t len, const struct qmonitor_view *view,
		      const char **why)
{
	struct span rest = {text, text + len}, line;
	struct view_reader v = {.view = view};

	*why = NULL;
	while (!*why && take_line(&rest, &line))
		*why = read_view_line(&v, line);
	if (*why)
		return -EPROTO;
	if (!v.found)
		return -ENOENT;
	return (unsigned)v.n > view->max ? -E2BIG : v.n;
}

/* --- gpa2hva ---------------------------------------------------------------------------------- */

/**
 * qmonitor_gpa2hva - where the guest's address lies in QEMU's process
 * @why: what is not as known, static text; set with -EPROTO only
 *
 * QEMU answers for mapped RAM and ROM only, and for the one byte: how far the mapping reaches is
 * for `info ramblock` and the flat view to say.
 *
 * Return: 0, -ENOENT nothing there that has an address, or -EPROTO.
 */
int qmonitor_gpa2hva(const char *text, size_t len, struct qmonitor_place *out, const char **why)
{
	struct span rest = {text, text + len}, line = {text, text}, word;

	*why = NULL;
	*out = (struct qmonitor_place){0};
	(void)take_line(&rest, &line);
	if (take_text(&line, "No memory is mapped at address 0x") ||
	    (take_text(&line, "Memory at address 0x") && is_text(take_last(&line), "RAM")))
		return -ENOENT;
	if (!take_text(&line, "Host virtual address for ") ||
	    !read_0x(take_last(&line), &out->address) || out->address == 0 ||
	    !is_text(take_last(&line), "is") || span_len(trim(rest)) != 0)
		return refuse(why, "'gpa2hva' answers in a form that is not known");
	line = trim(line);
	word = (struct span){line.at, memchr(line.at, ' ', span_len(line))};
	if (!word.end || !read_0x(word, &out->guest))
		return refuse(why, "'gpa2hva' answers in a form that is not known");
	line.at = word.end;
	if (!take_text(&line, " (") || span_len(line) == 0 || *--line.end != ')' ||
	    !copy_name(line, out->name))
		return refuse(why, "'gpa2hva' answers in a form that is not known");
	return 0;
}
