/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Cells are collected first and measured when they are printed, in terminal columns, not bytes.
 * Alignment is said once, in the head, by a '>' that is not printed.
 */
#include "config.h"
#include "tools/ctl_table.h"
#include <inttypes.h>
#include <stdbool.h>
#include "tools/ctl_format.h"

#define MAX_COLUMNS 16

static void free_row(gpointer row)
{
	g_ptr_array_unref(row);
}

static void add_cell(struct ctl_table *t, char *cell)
{
	g_ptr_array_add(t->rows->pdata[t->rows->len - 1], cell);
}

/**
 * ctl_table_init - begin a table
 * @head: the first row, its cells separated by '\t'; a '>' before a cell aligns its column to the
 *   right.  NULL: no head, everything to the left
 */
void ctl_table_init(struct ctl_table *t, const char *head)
{
	g_auto(GStrv) cells = head ? g_strsplit(head, "\t", -1) : NULL;

	t->rows = g_ptr_array_new_with_free_func(free_row);
	ctl_table_row(t);
	for (char **cell = cells; cell && *cell; cell++)
		ctl_table_text(t, *cell);
}

void ctl_table_clear(struct ctl_table *t)
{
	g_clear_pointer(&t->rows, g_ptr_array_unref);
}

/**
 * ctl_table_row - begin a row; the cells that follow belong to it
 */
void ctl_table_row(struct ctl_table *t)
{
	g_ptr_array_add(t->rows, g_ptr_array_new_with_free_func(g_free));
}

void ctl_table_text(struct ctl_table *t, const char *text)
{
	add_cell(t, g_strdup(text));
}

void ctl_table_printf(struct ctl_table *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add_cell(t, g_strdup_vprintf(fmt, ap));
	va_end(ap);
}

void ctl_table_pair(struct ctl_table *t, const char *name, const char *fmt, ...)
{
	g_autofree char *value = NULL;
	va_list ap;

	va_start(ap, fmt);
	value = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	if (!*value)
		return;
	ctl_table_row(t);
	ctl_table_text(t, name);
	ctl_table_text(t, value);
}

void ctl_table_counts(struct ctl_table *t, const uint64_t *counts, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		ctl_table_printf(t, "%" PRIu64, counts[i]);
}

void ctl_table_bytes(struct ctl_table *t, uint64_t bytes)
{
	struct ctl_text text;

	ctl_table_text(t, ctl_format_bytes(&text, bytes));
}

void ctl_table_time(struct ctl_table *t, uint64_t ns)
{
	struct ctl_text text;

	ctl_table_text(t, ctl_format_time(&text, ns));
}

/* --- printing ----------------------------------------------------------------------------- */

struct column {
	unsigned width;
	bool right;
};

/* A head cell without the mark of its alignment. */
static const char *cell_text(const struct column *column, const GPtrArray *row, guint i, bool head)
{
	const char *text = row->pdata[i];

	return head && column->right ? text + 1 : text;
}

static void measure(struct column *columns, const GPtrArray *row, bool head)
{
	for (guint i = 0; i < row->len && i < MAX_COLUMNS; i++) {
		const char *text = row->pdata[i];

		if (head)
			columns[i].right = *text == '>';
		text = cell_text(&columns[i], row, i, head);
		columns[i].width = MAX(columns[i].width, ctl_format_width(text));
	}
}

static void pad(GString *out, unsigned n)
{
	while (n--)
		g_string_append_c(out, ' ');
}

/* Empty cells at the end of a row leave no blanks behind. */
static void print_row(GString *out, const struct column *columns, const GPtrArray *row, bool head)
{
	gsize end = out->len;

	for (guint i = 0; i < row->len && i < MAX_COLUMNS; i++) {
		const char *text = cell_text(&columns[i], row, i, head);
		unsigned gap = columns[i].width - ctl_format_width(text);

		pad(out, (i ? 2 : 0) + (columns[i].right ? gap : 0));
		g_string_append(out, text);
		if (*text)
			end = out->len;
		pad(out, columns[i].right ? 0 : gap);
	}
	g_string_truncate(out, end);
	g_string_append_c(out, '\n');
}

/**
 * ctl_table_print - append the table to @out, two blanks between columns
 */
void ctl_table_print(const struct ctl_table *t, GString *out)
{
	struct column columns[MAX_COLUMNS] = {0};
	const GPtrArray *head = t->rows->pdata[0];

	for (guint i = 0; i < t->rows->len; i++)
		measure(columns, t->rows->pdata[i], i == 0);
	for (guint i = head->len ? 0 : 1; i < t->rows->len; i++)
		print_row(out, columns, t->rows->pdata[i], i == 0);
}
