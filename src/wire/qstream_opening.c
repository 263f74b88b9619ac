/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a connection is, by its first bytes.
 *
 * Only the main channel introduces itself.  The urgent one begins with whatever comes first on it:
 * a page, whose block has to be named because nothing was before it, or (7.2, when nobody ever
 * asked for a page) the mark of its end.  The first word of both can hardly be anything else's: an
 * offset of whole pages with one of two flags.  The main channel of a resumed source has no header,
 * and begins with the command by which it asks what came of a block.
 */
#include "config.h"

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define OFFSET_MASK (~(uint64_t)0xfff)

static enum qstream_opening page(const uint8_t *buf, size_t len, struct qstream_opening_page *out)
{
	size_t name;

	if (len < WORD_LEN + 1)
		return QSTREAM_OPENS_MORE;
	name = buf[WORD_LEN];
	if (name == 0)
		return QSTREAM_OPENS_NOTHING;
	if (len < WORD_LEN + 1 + name)
		return QSTREAM_OPENS_MORE;
	memcpy(out->name, buf + WORD_LEN + 1, name);
	out->name[name] = '\0';
	return QSTREAM_OPENS_URGENT;
}

/**
 * qstream_opening - which channel is it that begins like this?
 * @buf: the first bytes of a connection, all there are so far; QSTREAM_OPENING_MAX are always
 * enough
 * @out: for URGENT: the page that it begins with; an empty name when it ends at once
 *
 * Whether there is such a block the caller has to see.
 */
enum qstream_opening qstream_opening(const uint8_t *buf, size_t len,
				     struct qstream_opening_page *out)
{
	uint64_t word, flags;
	uint32_t magic;

	if (len < 4)
		return QSTREAM_OPENS_MORE;
	memcpy(&magic, buf, sizeof(magic));
	magic = be32toh(magic);
	if (magic == QSTREAM_MAGIC)
		return QSTREAM_OPENS_MAIN;
	if (magic == QSTREAM_MULTIFD_MAGIC)
		return QSTREAM_OPENS_MULTIFD;
	if (buf[0] == TYPE_COMMAND && qstream_be16(buf + 1) == QCMD_RECV_BITMAP)
		return QSTREAM_OPENS_RECOVERY;
	if (len < WORD_LEN)
		return QSTREAM_OPENS_MORE;
	memcpy(&word, buf, sizeof(word));
	word = be64toh(word);
	flags = word & ~OFFSET_MASK;
	*out = (struct qstream_opening_page){ .offset = word & OFFSET_MASK };
	if (word == FLAG_EOS)
		return QSTREAM_OPENS_URGENT;
	return flags == FLAG_PAGE || flags == FLAG_ZERO ? page(buf, len, out) :
							  QSTREAM_OPENS_NOTHING;
}
