/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The spine of the stream decoder: what may come next, and the words of a ram section.
 *
 * Two things decide that.  The phase says how to read the byte at hand: a record of its own, or
 * something that only has a meaning inside one (an entry of the block list, a page, a discard
 * range, a package body).  The stage says how far the migration is, and with it which records are
 * at home.  A record is read in one go or not at all, so neither needs to remember half a record.
 *
 * A ram section has no length and may hold any number of pages; its brackets (head, EOS word with
 * the footer) are records too.  The only sections read here are ram's.  Whatever else a source may
 * put before the package has a body without a length that only the device knows how to read, so it
 * is refused by name while the source can still resume its VM.
 *
 *   main      header . commands . START ram, blocks . PART ram* . discards . PACKAGED
 *             . PART ram* . END ram . EOF             (or END ram without PACKAGED: the tail)
 *   urgent    pages, EOS
 *   recovery  RECV_BITMAP* . RESUME . PART ram* . END ram . EOF
 *
 * A page costs one table call and five predictable branches; see read_page().
 */
#include "config.h"

#include "wire/qstream.h"

#include <assert.h>

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define TARGET_PAGE_DEFAULT 4096

const char qstream_multifd_channel[] =
	"multifd channel: turn off the multifd capability at the source";

static int record_fail(struct qstream *q, const char *reason, const uint8_t *name, size_t len)
{
	q->reason = reason;
	q->phase = PHASE_FAILED;
	for (size_t i = 0; i < len; i++)
		q->detail[i] = name[i] >= ' ' && name[i] < 0x7f ? (char)name[i] : '?';
	q->detail[len] = '\0';
	return -EPROTO;
}

/**
 * qstream_fail - the stream is refused, for good
 * @reason: static text for people: what is wrong and, where they can, what to change at the source
 *
 * Return: -EPROTO.
 */
int qstream_fail(struct qstream *q, const char *reason)
{
	return record_fail(q, reason, NULL, 0);
}

/**
 * qstream_fail_name - the same, about a name in the window
 *
 * The name is copied, with a '?' for what is not printable: it ends in logs and on terminals.
 */
int qstream_fail_name(struct qstream *q, const char *reason, struct qstream_name name)
{
	return record_fail(q, reason, name.bytes, name.len);
}

/**
 * qstream_fail_text - the same, about a text of at most 255 bytes
 */
int qstream_fail_text(struct qstream *q, const char *reason, const char *detail)
{
	return record_fail(q, reason, (const uint8_t *)detail, strlen(detail));
}

/**
 * qstream_take_name - u8 length and bytes, where they lie in the window
 */
struct qstream_name qstream_take_name(struct cursor *c)
{
	size_t len = cursor_u8(c);

	return (struct qstream_name){cursor_bytes(c, len), len};
}

/**
 * qstream_name_is_sane - not empty and no control characters (a NUL is one)
 *
 * What is above 0x7f passes: QEMU takes any idstr that its user gave, and UTF-8 is one.
 */
bool qstream_name_is_sane(struct qstream_name name)
{
	for (size_t i = 0; i < name.len; i++)
		if (name.bytes[i] < ' ' || name.bytes[i] == 0x7f)
			return false;
	return name.len > 0;
}

static bool is_named(const struct qstream_block *block, struct qstream_name name)
{
	return memcmp(block->name, name.bytes, name.len) == 0 && block->name[name.len] == '\0';
}

/**
 * qstream_find_block - number of the block of that name, -1 when there is none
 *
 * The last block first: a 7.2 source names it again on every urgent page.
 */
int qstream_find_block(const struct qstream *q, struct qstream_name name)
{
	if (!qstream_name_is_sane(name))
		return -1;
	if (q->last_block >= 0 && is_named(&q->blocks[q->last_block], name))
		return q->last_block;
	for (unsigned i = 0; i < q->n_blocks; i++)
		if (is_named(&q->blocks[i], name))
			return (int)i;
	return -1;
}

/*
 * Which page is a word about?  1, with rec->used behind word and name, and rec->page.block and
 * offset set; else as a reader.
 */
static inline int locate(struct qstream *q, uint64_t word, const uint8_t *buf, size_t len,
			 struct qstream_record *rec)
{
	int block = q->last_block;

	rec->used = WORD_LEN;
	if (!(word & FLAG_CONTINUE)) {
		struct cursor c = cursor_init(buf + WORD_LEN, len - WORD_LEN);
		struct qstream_name name = qstream_take_name(&c);

		if (c.bad)
			return qstream_short(rec, len + 1);
		rec->used += 1 + name.len;
		block = qstream_find_block(q, name);
		if (block < 0)
			return qstream_fail_name(q, "page of a block that is not in the list",
						 name);
	} else if (block < 0) {
		return qstream_fail(q, "page without a block name before any with one");
	}
	rec->page.block = (unsigned)block;
	rec->page.offset = word & ~(q->target_page - 1);
	if (rec->page.offset >= q->blocks[block].length)
		return qstream_fail_text(q, "page beyond the end of its block",
					 q->blocks[block].name);
	return 1;
}

/*
 * The record that the decoder is made for.  Order matters: the name and the offset are judged
 * before the data is there, so a page that is no page is refused at its head, and last_block moves
 * only with the whole record.
 */
static inline int read_page(struct qstream *q, uint64_t word, const uint8_t *buf, size_t len,
			    struct qstream_record *rec)
{
	int found = locate(q, word, buf, len, rec);

	if (found <= 0)
		return found;
	if (len - rec->used < q->target_page)
		return qstream_short(rec, rec->used + q->target_page);
	rec->page.data = buf + rec->used;
	rec->page.len = q->target_page;
	rec->used += q->target_page;
	q->last_block = (int)rec->page.block;
	return QSTREAM_PAGE;
}

/* QEMU writes a fill byte behind the word and has never written another than 0 there. */
static int read_zero(struct qstream *q, uint64_t word, const uint8_t *buf, size_t len,
		     struct qstream_record *rec)
{
	int found = locate(q, word, buf, len, rec);

	if (found <= 0)
		return found;
	if (len == rec->used)
		return qstream_short(rec, rec->used + 1);
	if (buf[rec->used] != 0)
		return qstream_fail(q, "page filled with a byte other than zero");
	rec->page.data = NULL;
	rec->page.len = 0;
	rec->used++;
	q->last_block = (int)rec->page.block;
	return QSTREAM_ZERO;
}

/* u8 encoding (1), be16 length, delta. */
static int read_xbzrle(struct qstream *q, uint64_t word, const uint8_t *buf, size_t len,
		       struct qstream_record *rec)
{
	int found;

	if (q->packaged)
		return qstream_fail(q, "XBZRLE page after the package");
	found = locate(q, word, buf, len, rec);
	if (found <= 0)
		return found;

	struct cursor c = cursor_init(buf + rec->used, len - rec->used);
	uint8_t encoding = cursor_u8(&c);
	uint16_t n = cursor_be16(&c);

	if (c.bad)
		return qstream_short(rec, rec->used + 3);
	if (encoding != 1)
		return qstream_fail(q, "unknown encoding of an XBZRLE page");
	if (n == 0 || n > q->target_page)
		return qstream_fail(q, "XBZRLE delta is empty or longer than a page");
	if (cursor_left(&c) < n)
		return qstream_short(rec, rec->used + 3 + n);
	rec->page.data = c.at;
	rec->page.len = n;
	rec->used += 3u + n;
	q->last_block = (int)rec->page.block;
	return QSTREAM_XBZRLE;
}

/* The last word of a section body, with the footer where the source writes footers. */
static int read_eos(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec)
{
	bool footer = q->footers && q->phase != PHASE_URGENT;
	size_t used = WORD_LEN + (footer ? FOOTER_LEN : 0);

	if (len < used)
		return qstream_short(rec, used);
	if (footer &&
	    (buf[WORD_LEN] != TYPE_FOOTER || qstream_be32(buf + WORD_LEN + 1) != q->ram_section))
		return qstream_fail(q, "section of ram does not end with its footer");
	rec->used = used;
	if (q->phase == PHASE_URGENT) {
		q->phase = PHASE_EOF;
		return QSTREAM_EOF;
	}
	if (q->phase == PHASE_END) {
		q->stage = q->packaged ? STAGE_DONE : STAGE_TAIL;
		q->phase = PHASE_RECORD;
		return QSTREAM_RAM_END;
	}
	q->phase = PHASE_RECORD;
	return QSTREAM_SECTION;
}

/* A ram word that is none of those we serve: say which capability made it, if one did. */
static int refuse_word(struct qstream *q, uint64_t word)
{
	uint64_t flags = word & (q->target_page - 1);
	static const struct {
		uint64_t flag;
		const char *reason;
	} refusals[] = {
		{FLAG_FULL, "page in a form obsolete since 2009"},
		{FLAG_MEM_SIZE, "block list outside of the START section of ram"},
		{FLAG_HOOK, "page hook of an RDMA migration: migrate over tcp, unix or vsock"},
		{FLAG_COMPRESS, "compressed page: turn off the compress capability at the source"},
		{FLAG_MULTIFD_FLUSH,
		 "multifd flush: turn off the multifd capability at the source"},
	};

	if (q->channel == QSTREAM_URGENT && q->position == 0 && word >> 32 == QSTREAM_MAGIC)
		return qstream_fail(q, "a new migration where an urgent channel was expected");
	if (q->channel == QSTREAM_URGENT && q->position == 0 && word >> 32 == QSTREAM_MULTIFD_MAGIC)
		return qstream_fail(q, qstream_multifd_channel);
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++)
		if (flags & refusals[i].flag)
			return qstream_fail(q, refusals[i].reason);
	if (flags & ~(uint64_t)(2 * FLAG_MULTIFD_FLUSH - 1))
		return qstream_fail(q, "unknown flag in a ram word");
	return qstream_fail(q, "flags of a ram word contradict each other");
}

/* Every page of every lane comes by here; what is not a page is rare. */
static int read_word(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec)
{
	uint64_t word, flags;

	if (len < WORD_LEN)
		return qstream_short(rec, WORD_LEN);
	word = qstream_be64(buf);
	flags = word & (q->target_page - 1);
	if (__builtin_expect((flags & ~FLAG_CONTINUE) == FLAG_PAGE, 1))
		return read_page(q, word, buf, len, rec);
	if ((flags & ~FLAG_CONTINUE) == FLAG_ZERO)
		return read_zero(q, word, buf, len, rec);
	if ((flags & ~FLAG_CONTINUE) == FLAG_XBZRLE)
		return read_xbzrle(q, word, buf, len, rec);
	if (word == FLAG_EOS)
		return read_eos(q, buf, len, rec);
	return refuse_word(q, word);
}

/* START or FULL: the idstr decides.  START of ram goes on in the block list. */
static int read_named(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec)
{
	struct cursor c = cursor_init(buf, len);
	struct qstream_name name;

	cursor_bytes(&c, BRACKET_LEN);
	name = qstream_take_name(&c);
	if (c.bad)
		return qstream_short(rec, len + 1);
	if (q->stage != STAGE_SETUP && q->stage != STAGE_PRECOPY)
		return qstream_fail_name(q, "only PART and END of ram may follow the package",
					 name);
	if (buf[0] == TYPE_FULL || name.len != strlen(RAM_IDSTR) ||
	    memcmp(name.bytes, RAM_IDSTR, name.len) != 0)
		return qstream_fail_name(q, "device state before the package is not supported",
					 name);
	if (q->stage != STAGE_SETUP)
		return qstream_fail(q, "second START section of ram");
	return qstream_read_list_head(q, buf, len, rec);
}

/* PART or END of ram. */
static int read_bracket(struct qstream *q, const uint8_t *buf, size_t len,
			struct qstream_record *rec)
{
	if (len < BRACKET_LEN)
		return qstream_short(rec, BRACKET_LEN);
	if (q->stage == STAGE_SETUP)
		return qstream_fail(q, "section goes on that has not begun");
	if (q->stage == STAGE_RECOVERY)
		return qstream_fail(q, "pages before the recovery is resumed");
	if (q->stage == STAGE_DONE)
		return qstream_fail(q, "section after the END section of ram");
	if (qstream_be32(buf + 1) != q->ram_section)
		return qstream_fail(q, "section goes on that has not begun");
	q->phase = buf[0] == TYPE_END ? PHASE_END : PHASE_PART;
	rec->used = BRACKET_LEN;
	return QSTREAM_SECTION;
}

/* The zero byte; after a package nothing but END of ram may be before it. */
static int read_end_of_stream(struct qstream *q, const uint8_t *buf, size_t len,
			      struct qstream_record *rec)
{
	(void)buf;
	(void)len;
	if (q->stage != STAGE_DONE)
		return qstream_fail(q, "stream ends before the END section of ram");
	q->phase = PHASE_EOF;
	rec->used = 1;
	return QSTREAM_EOF;
}

/*
 * Records of their own.  After an END of ram without a package, device state follows naked: the
 * tail, where this decoder stops.
 */
static int read_record(struct qstream *q, const uint8_t *buf, size_t len,
		       struct qstream_record *rec)
{
	static int (*const by_type[])(struct qstream * q, const uint8_t *buf, size_t len,
				      struct qstream_record *rec) = {
		[TYPE_EOF] = read_end_of_stream, [TYPE_START] = read_named,
		[TYPE_PART] = read_bracket,	 [TYPE_END] = read_bracket,
		[TYPE_FULL] = read_named,	 [TYPE_COMMAND] = qstream_read_command,
	};

	if (len == 0)
		return qstream_short(rec, 1);
	if (q->stage == STAGE_TAIL && (buf[0] == TYPE_FULL || buf[0] == TYPE_EOF)) {
		q->phase = PHASE_TAIL;
		rec->used = 0;
		return QSTREAM_TAIL;
	}
	if (q->stage == STAGE_TAIL)
		return qstream_fail(
			q, "neither device state nor the end after the END section of ram");
	if (q->channel == QSTREAM_RECOVERY && q->position == 0 && buf[0] == (QSTREAM_MAGIC >> 24))
		return qstream_fail(q,
				    "a new migration, but a paused one is waiting to be recovered");
	if (buf[0] >= ARRAY_LEN(by_type) || !by_type[buf[0]])
		return qstream_fail(q, "unknown record type");
	return by_type[buf[0]](q, buf, len, rec);
}

/*
 * A package can be 4 GiB and the window is not: ask for no more than the longest record, so that
 * the caller takes the body in pieces.
 */
static int wait_for_body(struct qstream *q, const uint8_t *buf, size_t len,
			 struct qstream_record *rec)
{
	(void)buf;
	(void)len;
	return qstream_short(rec,
			     q->body_left < QSTREAM_RECORD_MAX ? q->body_left : QSTREAM_RECORD_MAX);
}

static int stay_at_tail(struct qstream *q, const uint8_t *buf, size_t len,
			struct qstream_record *rec)
{
	(void)q;
	(void)buf;
	(void)len;
	rec->used = 0;
	return QSTREAM_TAIL;
}

static int expect_nothing(struct qstream *q, const uint8_t *buf, size_t len,
			  struct qstream_record *rec)
{
	(void)buf;
	if (len > 0)
		return qstream_fail(q, "bytes after the end of the stream");
	return qstream_short(rec, 1);
}

static int stay_failed(struct qstream *q, const uint8_t *buf, size_t len,
		       struct qstream_record *rec)
{
	(void)q;
	(void)buf;
	(void)len;
	rec->used = 0;
	return -EPROTO;
}

/**
 * qstream_next - decode the next record of a window
 * @buf, @len: bytes from q->position on; the caller drops rec->used of them and calls again
 * @rec: filled as the event says; pointers in it point into @buf
 *
 * Return: the enum qstream_event of a whole record; QSTREAM_NEED_MORE with rec->need, nothing
 * consumed; -EPROTO with q->reason, q->detail and q->position at the first byte of the offending
 * record, now and ever after.
 */
int qstream_next(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec)
{
	static int (*const by_phase[])(struct qstream * q, const uint8_t *buf, size_t len,
				       struct qstream_record *rec) = {
		[PHASE_HEADER] = qstream_read_header,
		[PHASE_RECORD] = read_record,
		[PHASE_LIST] = qstream_read_list,
		[PHASE_PART] = read_word,
		[PHASE_END] = read_word,
		[PHASE_RANGES] = qstream_read_range,
		[PHASE_BODY] = wait_for_body,
		[PHASE_URGENT] = read_word,
		[PHASE_TAIL] = stay_at_tail,
		[PHASE_EOF] = expect_nothing,
		[PHASE_FAILED] = stay_failed,
	};
	int what = by_phase[q->phase](q, buf, len, rec);

	if (what > 0)
		q->position += rec->used;
	else if (what == QSTREAM_NEED_MORE && rec->need > QSTREAM_RECORD_MAX)
		return qstream_fail(q, "record is longer than any can be");
	return what;
}

/**
 * qstream_took - the caller took @n bytes of a package's body out of the window
 *
 * After the last of them the next record is at the window's start.
 */
void qstream_took(struct qstream *q, size_t n)
{
	assert(q->phase == PHASE_BODY && n <= q->body_left);
	q->body_left -= (uint32_t)n;
	q->position += n;
	if (q->body_left == 0)
		q->phase = PHASE_RECORD;
}

/**
 * qstream_init - begin a connection
 * @blocks_of: for QSTREAM_URGENT and QSTREAM_RECOVERY the main channel's decoder, whose block list,
 *   page sizes and section id are copied; it must have seen BLOCKS_END.  NULL for QSTREAM_MAIN.
 *
 * What a connection remembers is its own: the "same block" flag starts anew on each, as it does at
 * the source.
 */
void qstream_init(struct qstream *q, enum qstream_channel channel, const struct qstream *blocks_of)
{
	assert((channel == QSTREAM_MAIN) == !blocks_of);
	if (channel == QSTREAM_MAIN) {
		*q = (struct qstream){.phase = PHASE_HEADER, .stage = STAGE_SETUP};
		q->target_page = TARGET_PAGE_DEFAULT;
	} else {
		assert(blocks_of->n_blocks > 0 && blocks_of->list_left == 0);
		*q = *blocks_of;
		q->packaged = true;
		q->stage = STAGE_RECOVERY;
		q->phase = channel == QSTREAM_URGENT ? PHASE_URGENT : PHASE_RECORD;
		q->position = 0;
		q->body_left = 0;
		q->discard_left = 0;
		q->reason = NULL;
		q->detail[0] = '\0';
	}
	q->channel = channel;
	q->last_block = -1;
}

/**
 * qstream_restore - what is known of a connection that is over: its blocks, and how it numbers them
 * @known: copied
 */
void qstream_restore(struct qstream *q, const struct qstream_known *known)
{
	assert(known->n_blocks > 0 && known->n_blocks <= QSTREAM_MAX_BLOCKS);
	qstream_init(q, QSTREAM_MAIN, NULL);
	q->phase = PHASE_RECORD;
	q->stage = STAGE_RECOVERY;
	q->packaged = true;
	q->ram_section = known->ram_section;
	q->page_bits = known->page_bits;
	q->footers = known->footers;
	q->n_blocks = known->n_blocks;
	memcpy(q->blocks, known->blocks, known->n_blocks * sizeof(q->blocks[0]));
}
