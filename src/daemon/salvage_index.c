/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The index of a salvage: what was there, what was not, and of which session.
 */
#include "config.h"
#include "daemon/salvage_parts.h"

#include "core/session.h"

static void put_block(struct jsonmsg_writer *w, const struct salvage_job *j, unsigned i)
{
	static const char *const kinds[] = {
		[BLOCK_HELD] = "held", [BLOCK_SHARED] = "shared", [BLOCK_PRIVATE] = "private",
	};
	const struct salvage_block *b = &j->block[i];

	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "name", b->name);
	jsonmsg_put_text(w, "kind", kinds[b->kind]);
	jsonmsg_put_u64(w, "length", b->length);
	jsonmsg_put_u64(w, "page_size", b->page_size);
	jsonmsg_put_u64(w, "pages", b->length / SALVAGE_PAGE);
	jsonmsg_put_u64(w, "stored", b->stored);
	jsonmsg_put_u64(w, "zero", b->zero);
	jsonmsg_put_u64(w, "missing", b->missing);
	jsonmsg_put_text(w, "missing_file", b->missing_file);
	jsonmsg_put_u64(w, "bitmap_offset", j->layout[i].bitmap_at);
	jsonmsg_put_u64(w, "pages_offset", j->layout[i].pages_at);
	jsonmsg_end(w);
}

static void put_session(struct jsonmsg_writer *w, const struct salvage_job *j)
{
	jsonmsg_begin_object(w, "session");
	jsonmsg_put_text(w, "state", session_state_name(j->state));
	jsonmsg_put_text(w, "reason", *j->reason ? j->reason : NULL);
	jsonmsg_put_bool(w, "held", j->held);
	jsonmsg_put_bool(w, "ownership_unknown", j->ownership_unknown);
	jsonmsg_put_u64(w, "owed_pages", j->owed);
	jsonmsg_put_u64(w, "owed_pages_left", j->owed_left);
	jsonmsg_put_u64(w, "lost_pages", j->lost);
	jsonmsg_end(w);
}

/**
 * salvage_index - what was found, as text
 *
 * Return: to be freed.
 */
char *salvage_index(const struct salvage_job *j, size_t *len)
{
	struct jsonmsg_writer *w cleanup_jsonmsg_writer = jsonmsg_writer_new();
	g_autoptr(GDateTime) now = g_date_time_new_now_utc();
	g_autofree char *when = g_date_time_format_iso8601(now);
	uint64_t missing = 0;

	for (unsigned i = 0; i < j->n_blocks; i++)
		missing += j->block[i].missing;
	jsonmsg_begin_object(w, NULL);
	jsonmsg_put_text(w, "format", "postcopy-salvage");
	jsonmsg_put_u64(w, "version", 1);
	jsonmsg_put_text(w, "when", when);
	jsonmsg_put_text(w, "machine", j->machine);
	jsonmsg_put_text(w, "migration_file", SALVAGE_FILE);
	jsonmsg_put_u64(w, "page_size", SALVAGE_PAGE);
	jsonmsg_put_bool(w, "complete", missing == 0);
	jsonmsg_put_u64(w, "missing", missing);
	jsonmsg_put_u64(w, "device_state", j->device_len);
	put_session(w, j);
	jsonmsg_begin_array(w, "blocks");
	for (unsigned i = 0; i < j->n_blocks; i++)
		put_block(w, j, i);
	jsonmsg_end(w);
	jsonmsg_end(w);
	return jsonmsg_finish(w, len);
}
