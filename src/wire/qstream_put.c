/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The encoders of the stream, for whoever plays the source.
 *
 * They write what QEMU writes, byte for byte: tests/unit/test_qstream_golden.c decodes recorded
 * streams and encodes them again.  None of them keeps state; the "same block" flag, which page
 * sizes are the default and what section id ram has are the caller's to remember.  Each appends one
 * record; running out of room shows in p->bad.
 */
#include "config.h"

#include "wire/qstream.h"

#include <assert.h>

#include "wire/qstream_parts.h"

#define DISCARD_RANGES_MAX 12 /* what QEMU puts into one command */
#define PING_LEN	   (COMMAND_LEN + 4)

/**
 * qstream_put_header - magic, version and a configuration section with the machine type alone
 *
 * A QEMU destination compares @machine with its own and refuses another; aliases must be resolved
 * by the caller.
 */
void qstream_put_header(struct pen *p, const char *machine)
{
	size_t len = strlen(machine);

	pen_be32(p, QSTREAM_MAGIC);
	pen_be32(p, QSTREAM_VERSION);
	pen_u8(p, TYPE_CONFIGURATION);
	pen_be32(p, (uint32_t)len);
	pen_bytes(p, machine, len);
}

/**
 * qstream_put_page_bits - the subsection of the configuration that tells the target's page size
 *
 * Targets whose page size is fixed (x86) go without it; a destination insists on the same as its
 * own.
 */
void qstream_put_page_bits(struct pen *p, uint32_t bits)
{
	pen_u8(p, TYPE_SUBSECTION);
	pen_cstr(p, PAGE_BITS_NAME);
	pen_be32(p, SUBSECTION_VERSION);
	pen_be32(p, bits);
}

static void put_command_head(struct pen *p, uint16_t cmd, uint16_t len)
{
	pen_u8(p, TYPE_COMMAND);
	pen_be16(p, cmd);
	pen_be16(p, len);
}

/**
 * qstream_put_command - a command with a payload of @len bytes
 */
void qstream_put_command(struct pen *p, uint16_t cmd, const void *payload, uint16_t len)
{
	put_command_head(p, cmd, len);
	pen_bytes(p, payload, len);
}

/**
 * qstream_put_ping - PING; the destination answers with a PONG of the same value
 */
void qstream_put_ping(struct pen *p, uint32_t value)
{
	put_command_head(p, QCMD_PING, 4);
	pen_be32(p, value);
}

/**
 * qstream_put_advise - POSTCOPY_ADVISE
 * @summary: the OR of all blocks' page sizes, bytes; a QEMU destination insists on its own
 * @target_page: bytes
 */
void qstream_put_advise(struct pen *p, uint64_t summary, uint64_t target_page)
{
	put_command_head(p, QCMD_ADVISE, 16);
	pen_be64(p, summary);
	pen_be64(p, target_page);
}

/**
 * qstream_put_blocks_begin - the START section of ram up to its block list
 * @total: bytes of all blocks together
 */
void qstream_put_blocks_begin(struct pen *p, uint32_t section, uint64_t total)
{
	pen_u8(p, TYPE_START);
	pen_be32(p, section);
	pen_cstr(p, RAM_IDSTR);
	pen_be32(p, 0);
	pen_be32(p, RAM_VERSION);
	pen_be64(p, total | FLAG_MEM_SIZE);
}

/**
 * qstream_put_block - one entry of the block list
 * @page_size: 0 leaves the field out, as QEMU does where it is the host's, and everywhere when the
 *   stream has no ADVISE
 */
void qstream_put_block(struct pen *p, const char *name, uint64_t length, uint64_t page_size)
{
	pen_cstr(p, name);
	pen_be64(p, length);
	if (page_size)
		pen_be64(p, page_size);
}

/**
 * qstream_put_blocks - the START section of ram, whole: the block list
 * @default_page: blocks of this page size go without the field, as QEMU's do whose page size is the
 *   host's
 */
void qstream_put_blocks(struct pen *p, uint32_t section, const struct qstream_block *blocks,
			unsigned n, uint64_t default_page)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < n; i++)
		total += blocks[i].length;
	qstream_put_blocks_begin(p, section, total);
	for (unsigned i = 0; i < n; i++)
		qstream_put_block(p, blocks[i].name, blocks[i].length,
				  blocks[i].page_size == default_page ? 0 : blocks[i].page_size);
	qstream_put_ram_end(p, section);
}

/**
 * qstream_put_ram_begin - head of a PART or END section; words follow
 */
void qstream_put_ram_begin(struct pen *p, bool end, uint32_t section)
{
	pen_u8(p, end ? TYPE_END : TYPE_PART);
	pen_be32(p, section);
}

/**
 * qstream_put_ram_end - the EOS word and the footer of a section
 */
void qstream_put_ram_end(struct pen *p, uint32_t section)
{
	pen_be64(p, FLAG_EOS);
	pen_u8(p, TYPE_FOOTER);
	pen_be32(p, section);
}

/**
 * qstream_put_page_head - the word of a page; its data follows, by the caller
 * @name: of its block; NULL when it is the same as in the page before on this connection
 * @zero: a page of zeroes, which is complete with this
 */
void qstream_put_page_head(struct pen *p, uint64_t offset, const char *name, bool zero)
{
	uint64_t word = offset | (zero ? FLAG_ZERO : FLAG_PAGE);

	pen_be64(p, name ? word : word | FLAG_CONTINUE);
	if (name)
		pen_cstr(p, name);
	if (zero)
		pen_u8(p, 0);
}

/**
 * qstream_put_discard - POSTCOPY_RAM_DISCARD: these ranges will be sent again
 * @ranges: {start, length}, bytes, whole pages of the block
 * @n: 1 to 12, which is what QEMU puts into one command
 *
 * A QEMU destination needs one such command at least before the package, or it refuses to run.
 */
void qstream_put_discard(struct pen *p, const char *name, const uint64_t (*ranges)[2], unsigned n)
{
	assert(n > 0 && n <= DISCARD_RANGES_MAX);
	put_command_head(p, QCMD_DISCARD, (uint16_t)(3 + strlen(name) + n * RANGE_LEN));
	pen_u8(p, 0);
	pen_cstr(p, name);
	pen_u8(p, 0);
	for (unsigned i = 0; i < n; i++) {
		pen_be64(p, ranges[i][0]);
		pen_be64(p, ranges[i][1]);
	}
}

/**
 * qstream_put_package - PACKAGED and its body: LISTEN, @device, PING 3, [PING 0x42,] RUN
 * @device: concatenated FULL sections
 * @commit_ping: ask for the answer that commits, as a QEMU from 10.2 on does
 */
void qstream_put_package(struct pen *p, const void *device, size_t device_len, bool commit_ping)
{
	size_t size = 2 * COMMAND_LEN + PING_LEN + (commit_ping ? PING_LEN : 0);

	if (device_len > UINT32_MAX - size) {
		p->bad = true;
		return;
	}
	put_command_head(p, QCMD_PACKAGED, 4);
	pen_be32(p, (uint32_t)(size + device_len));
	put_command_head(p, QCMD_LISTEN, 0);
	pen_bytes(p, device, device_len);
	qstream_put_ping(p, 3);
	if (commit_ping)
		qstream_put_ping(p, QSTREAM_COMMIT_PING);
	put_command_head(p, QCMD_RUN, 0);
}
