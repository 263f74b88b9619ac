/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The encoders of the stream, for whoever plays the source. */
#include "config.h"

#include "wire/qstream.h"

#include <assert.h>

#include "wire/qstream_parts.h"

#define DISCARD_RANGES_MAX 12 /* what QEMU puts into one command */
#define PING_LEN	   (COMMAND_LEN + 4)

void qstream_put_header(struct pen *p, const char *machine)
{
	size_t len = strlen(machine);

	pen_be32(p, QSTREAM_MAGIC);
	pen_be32(p, QSTREAM_VERSION);
	pen_u8(p, TYPE_CONFIGURATION);
	pen_be32(p, (uint32_t)len);
	pen_bytes(p, machine, len);
}

static void put_command_head(struct pen *p, uint16_t cmd, uint16_t len)
{
	pen_u8(p, TYPE_COMMAND);
	pen_be16(p, cmd);
	pen_be16(p, len);
}

void qstream_put_command(struct pen *p, uint16_t cmd, const void *payload, uint16_t len)
{
	put_command_head(p, cmd, len);
	pen_bytes(p, payload, len);
}

void qstream_put_ping(struct pen *p, uint32_t value)
{
	put_command_head(p, QCMD_PING, 4);
	pen_be32(p, value);
}

void qstream_put_advise(struct pen *p, uint64_t summary, uint64_t target_page)
{
	put_command_head(p, QCMD_ADVISE, 16);
	pen_be64(p, summary);
	pen_be64(p, target_page);
}

void qstream_put_blocks(struct pen *p, uint32_t section, const struct qstream_block *blocks,
			unsigned n, uint64_t default_page)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < n; i++)
		total += blocks[i].length;
	pen_u8(p, TYPE_START);
	pen_be32(p, section);
	pen_cstr(p, RAM_IDSTR);
	pen_be32(p, 0);
	pen_be32(p, RAM_VERSION);
	pen_be64(p, total | FLAG_MEM_SIZE);
	for (unsigned i = 0; i < n; i++) {
		pen_cstr(p, blocks[i].name);
		pen_be64(p, blocks[i].length);
		if (blocks[i].page_size != default_page)
			pen_be64(p, blocks[i].page_size);
	}
	qstream_put_ram_end(p, section);
}

void qstream_put_ram_begin(struct pen *p, bool end, uint32_t section)
{
	pen_u8(p, end ? TYPE_END : TYPE_PART);
	pen_be32(p, section);
}

void qstream_put_ram_end(struct pen *p, uint32_t section)
{
	pen_be64(p, FLAG_EOS);
	pen_u8(p, TYPE_FOOTER);
	pen_be32(p, section);
}

void qstream_put_page_head(struct pen *p, uint64_t offset, const char *name, bool zero)
{
	uint64_t word = offset | (zero ? FLAG_ZERO : FLAG_PAGE);

	pen_be64(p, name ? word : word | FLAG_CONTINUE);
	if (name)
		pen_cstr(p, name);
	if (zero)
		pen_u8(p, 0);
}

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
