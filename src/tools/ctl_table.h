/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_TABLE_H
#define PC_TOOLS_CTL_TABLE_H
/* Columns for people: every one as wide as its widest cell. */
#include <stdint.h>
#include <glib.h>

struct ctl_table {
	GPtrArray *rows;		/* GPtrArray of char *; the first is the head */
};
#define cleanup_ctl_table __attribute__((cleanup(ctl_table_clear)))

/*
 * @head: the first row, its cells separated by '\t'; a '>' before a cell aligns its column to the
 * right.  NULL: no head, everything to the left.
 */
void ctl_table_init(struct ctl_table *t, const char *head);
void ctl_table_clear(struct ctl_table *t);

/* Begin a row.  The cells that follow belong to it. */
void ctl_table_row(struct ctl_table *t);
void ctl_table_text(struct ctl_table *t, const char *text);
void ctl_table_printf(struct ctl_table *t, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* A row of a name and its value; none when there is nothing to say. */
void ctl_table_pair(struct ctl_table *t, const char *name, const char *fmt, ...)
	G_GNUC_PRINTF(3, 4);
void ctl_table_counts(struct ctl_table *t, const uint64_t *counts, unsigned n);
#define CTL_TABLE_COUNTS(t, ...)                                           \
	ctl_table_counts(t, (const uint64_t[]){__VA_ARGS__},               \
			 sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))
void ctl_table_bytes(struct ctl_table *t, uint64_t bytes);
void ctl_table_time(struct ctl_table *t, uint64_t ns);

void ctl_table_print(const struct ctl_table *t, GString *out);

#endif
