/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream decoder up to the first page: header, configuration, and the list of RAM blocks.
 *
 * The VM still runs at the source while this is read, and a refusal costs nothing.  So every doubt
 * ends here: another version, a capability that changes the stream, a part of the configuration
 * that nobody knows, page sizes that do not add up.
 *
 * Two things are in the stream without being announced, and both are decided once, in this file:
 * whether a block carries its page size (is_page_size()) and whether sections end with a footer
 * (read_list_end()).
 */
#include "config.h"

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define PAGE_BITS	   12
#define TLS_HANDSHAKE	   0x16 /* first byte of a ClientHello */

/* What else might have been at the other end of the connection? */
static const char *opening_fault(const uint8_t *buf)
{
	uint32_t magic = qstream_be32(buf);

	if (magic == QSTREAM_MAGIC)
		return NULL;
	if (magic == QSTREAM_MULTIFD_MAGIC)
		return qstream_multifd_channel;
	if (buf[0] == TLS_HANDSHAKE)
		return "TLS handshake: take the tls-creds parameter away at the source";
	if (buf[0] == TYPE_COMMAND)
		return "recovery of a migration, but none is paused here";
	return "not a migration stream: wrong magic";
}

static const char *version_fault(uint32_t version)
{
	if (version == QSTREAM_VERSION)
		return NULL;
	return version < QSTREAM_VERSION ? "obsolete version of the migration stream"
					 : "unknown version of the migration stream";
}

/* Present where a target's page size is not fixed, which is arm; we serve pages of 4 KiB. */
static int read_page_bits(struct qstream *q, struct cursor *c, struct qstream_record *rec)
{
	uint32_t bits = cursor_be32(c);

	if (!c->bad && bits != PAGE_BITS)
		return qstream_fail(q, "target page size other than 4 KiB");
	rec->header.page_bits = bits;
	return 0;
}

/* Only capabilities that change the stream are listed, and we support none of those. */
static int read_capabilities(struct qstream *q, struct cursor *c, struct qstream_record *rec)
{
	uint32_t count = cursor_be32(c);
	struct qstream_name name;

	(void)rec;
	if (c->bad || count == 0)
		return 0;
	name = qstream_take_name(c);
	if (c->bad)
		return 0;
	return qstream_fail_name(q, "turn off this capability at the source", name);
}

/* Present with validate-uuid: kept for whoever wants to compare it. */
static int read_uuid(struct qstream *q, struct cursor *c, struct qstream_record *rec)
{
	const uint8_t *uuid = cursor_bytes(c, sizeof(rec->header.uuid));

	(void)q;
	if (!uuid)
		return 0;
	memcpy(rec->header.uuid, uuid, sizeof(rec->header.uuid));
	rec->header.has_uuid = true;
	return 0;
}

static const struct subsection {
	const char *name;
	int (*read)(struct qstream *q, struct cursor *c, struct qstream_record *rec);
} subsections[] = {
	{PAGE_BITS_NAME, read_page_bits},
	{"configuration/capabilities", read_capabilities},
	{"configuration/uuid", read_uuid},
};

static const struct subsection *find_subsection(struct qstream_name name)
{
	for (size_t i = 0; i < ARRAY_LEN(subsections); i++)
		if (strlen(subsections[i].name) == name.len &&
		    memcmp(subsections[i].name, name.bytes, name.len) == 0)
			return &subsections[i];
	return NULL;
}

/* Behind its marker.  0 also when it is not all there: the cursor knows. */
static int read_subsection(struct qstream *q, struct cursor *c, struct qstream_record *rec)
{
	struct qstream_name name = qstream_take_name(c);
	uint32_t version = cursor_be32(c);
	const struct subsection *s;

	if (c->bad)
		return 0;
	s = find_subsection(name);
	if (!s)
		return qstream_fail_name(q, "unknown part of the configuration", name);
	if (version != SUBSECTION_VERSION)
		return qstream_fail_name(q, "unknown version of a part of the configuration", name);
	return s->read(q, c, rec);
}

static int read_machine(struct qstream *q, struct cursor *c, struct qstream_record *rec)
{
	uint32_t len = cursor_be32(c);
	struct qstream_name name = {.len = len};

	if (c->bad)
		return 0;
	if (len == 0 || len >= sizeof(rec->header.machine))
		return qstream_fail(q, "length of the machine type's name");
	name.bytes = cursor_bytes(c, len);
	if (c->bad)
		return 0;
	if (!qstream_name_is_sane(name))
		return qstream_fail_name(q, "malformed name of a machine type", name);
	memcpy(rec->header.machine, name.bytes, len);
	rec->header.machine[len] = '\0';
	return 0;
}

/* The subsections end where something else begins, so that byte has to be there too. */
static int read_configuration(struct qstream *q, struct cursor *c, struct qstream_record *rec)
{
	int err = read_machine(q, c, rec);

	while (!err && cursor_left(c) > 0 && *c->at == TYPE_SUBSECTION) {
		cursor_u8(c);
		err = read_subsection(q, c, rec);
	}
	if (cursor_left(c) == 0)
		c->bad = true;
	return err;
}

/**
 * qstream_read_header - magic, version and the configuration section; a reader
 *
 * Old machine types have no configuration section: then the record is just magic and version.
 */
int qstream_read_header(struct qstream *q, const uint8_t *buf, size_t len,
			struct qstream_record *rec)
{
	struct cursor c = cursor_init(buf, len);
	const char *fault;

	if (len < 4)
		return qstream_short(rec, 4);
	fault = opening_fault(buf);
	if (fault)
		return qstream_fail(q, fault);
	if (len < 9)
		return qstream_short(rec, 9);
	cursor_be32(&c);
	fault = version_fault(cursor_be32(&c));
	if (fault)
		return qstream_fail(q, fault);

	memset(&rec->header, 0, sizeof(rec->header));
	if (*c.at == TYPE_CONFIGURATION) {
		cursor_u8(&c);
		if (read_configuration(q, &c, rec))
			return -EPROTO;
		if (c.bad)
			return qstream_short(rec, len + 1);
	}
	q->page_bits = rec->header.page_bits;
	q->phase = PHASE_RECORD;
	rec->used = (size_t)(c.at - buf);
	return QSTREAM_HEADER;
}

/**
 * qstream_read_list_head - START of ram, up to the word with the sum of all block lengths; a reader
 *
 * The caller saw the idstr already.
 */
int qstream_read_list_head(struct qstream *q, const uint8_t *buf, size_t len,
			   struct qstream_record *rec)
{
	const size_t used = BRACKET_LEN + 1 + strlen(RAM_IDSTR) + 4 + 4 + WORD_LEN;
	struct cursor c = cursor_init(buf + BRACKET_LEN + 1 + strlen(RAM_IDSTR),
				      len - BRACKET_LEN - 1 - strlen(RAM_IDSTR));
	uint32_t instance = cursor_be32(&c);
	uint32_t version = cursor_be32(&c);
	uint64_t word = cursor_be64(&c);

	if (!q->summary)
		return qstream_fail(q, "no POSTCOPY_ADVISE before the RAM: "
				       "turn on the postcopy-ram capability at the source");
	if (c.bad)
		return qstream_short(rec, used);
	if (instance != 0 || version != RAM_VERSION)
		return qstream_fail(q, "unknown version of the section of ram");
	if ((word & (q->target_page - 1)) != FLAG_MEM_SIZE || word == FLAG_MEM_SIZE)
		return qstream_fail(q, "START section of ram without a block list");
	q->list_left = word & ~(q->target_page - 1);
	q->ram_section = qstream_be32(buf + 1);
	q->phase = PHASE_LIST;
	rec->used = used;
	return QSTREAM_SECTION;
}

/*
 * The page size of a block is there or not, and nothing says which.  It is one bit of the summary
 * that ADVISE gave, so below 2^56 and its first byte is zero; what follows a block without one
 * begins with the length of a name, which is not zero, or is an EOS word, which is smaller than any
 * page.
 */
static bool is_page_size(const struct qstream *q, uint64_t v)
{
	return is_power_of_two(v) && (v & q->summary) != 0;
}

static const char *block_fault(const struct qstream *q, const struct qstream_block *block)
{
	if (block->length == 0 || block->length % q->target_page != 0 ||
	    block->length % block->page_size != 0)
		return "length of a block is not a multiple of its page size";
	if (block->length > q->list_left)
		return "blocks are longer together than the block list says";
	return NULL;
}

static int read_block(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec)
{
	struct cursor c = cursor_init(buf, len);
	struct qstream_name name = qstream_take_name(&c);
	struct qstream_block *block = &q->blocks[q->n_blocks];
	const char *fault;

	if (q->n_blocks == QSTREAM_MAX_BLOCKS)
		return qstream_fail(q, "more blocks than this program can serve");
	if (c.bad)
		return qstream_short(rec, len + 1);
	if (!qstream_name_is_sane(name))
		return qstream_fail_name(q, "malformed name of a block", name);
	if (qstream_find_block(q, name) >= 0)
		return qstream_fail_name(q, "block listed twice", name);
	if (cursor_left(&c) < 16)
		return qstream_short(rec, 1 + name.len + 16);

	memset(block, 0, sizeof(*block));
	memcpy(block->name, name.bytes, name.len);
	block->length = cursor_be64(&c);
	block->page_size = qstream_be64(c.at);
	if (is_page_size(q, block->page_size))
		cursor_be64(&c);
	else
		block->page_size = q->default_page;
	fault = block_fault(q, block);
	if (fault)
		return qstream_fail_text(q, fault, block->name);

	q->list_left -= block->length;
	q->n_blocks++;
	rec->block = *block;
	rec->used = (size_t)(c.at - buf);
	return QSTREAM_BLOCK;
}

static const char *list_fault(const struct qstream *q, uint64_t word)
{
	uint64_t page_sizes = 0;

	if (word & FLAG_MULTIFD_FLUSH)
		return "multifd flush: turn off the multifd capability at the source";
	if (word != FLAG_EOS)
		return "block list does not end after its last block";
	for (unsigned i = 0; i < q->n_blocks; i++)
		page_sizes |= q->blocks[i].page_size;
	return page_sizes == q->summary ? NULL : "page sizes of the blocks are not those of ADVISE";
}

/*
 * Old machine types write no footers, and the stream does not say so either: the byte behind the
 * first ram section decides for all of them.
 */
static int read_list_end(struct qstream *q, const uint8_t *buf, size_t len,
			 struct qstream_record *rec)
{
	const char *fault;
	bool footers;

	if (len < WORD_LEN)
		return qstream_short(rec, WORD_LEN);
	fault = list_fault(q, qstream_be64(buf));
	if (fault)
		return qstream_fail(q, fault);
	if (len < WORD_LEN + 1)
		return qstream_short(rec, WORD_LEN + 1);
	footers = buf[WORD_LEN] == TYPE_FOOTER;
	if (footers && len < WORD_LEN + FOOTER_LEN)
		return qstream_short(rec, WORD_LEN + FOOTER_LEN);
	if (footers && qstream_be32(buf + WORD_LEN + 1) != q->ram_section)
		return qstream_fail(q, "section of ram does not end with its footer");
	q->footers = footers;
	q->stage = STAGE_PRECOPY;
	q->phase = PHASE_RECORD;
	rec->used = WORD_LEN + (footers ? FOOTER_LEN : 0);
	return QSTREAM_BLOCKS_END;
}

/**
 * qstream_read_list - an entry of the block list, or its end; a reader
 */
int qstream_read_list(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec)
{
	return q->list_left > 0 ? read_block(q, buf, len, rec) : read_list_end(q, buf, len, rec);
}
