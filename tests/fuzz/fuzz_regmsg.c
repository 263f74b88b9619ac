/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * regmsg: whatever a packet says, a packet that passes keeps the promises of regmsg_check(),
 * restated here field by field; one that does not pass says why.
 */
#include "config.h"

#include "wire/regmsg.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static void need(bool promise)
{
	if (!promise)
		abort();
}

static void need_name(const char *name, size_t room)
{
	size_t len = strnlen(name, room);

	need(len > 0 && len < room);
	for (size_t i = 0; i < len; i++)
		need(name[i] >= ' ' && name[i] <= '~');
}

static void need_sum(uint64_t a, uint64_t b)
{
	need(a + b >= a);
}

static void promises_hello(const union regmsg *m)
{
	need(m->hello.role == REGMSG_ROLE_MAIN || m->hello.role == REGMSG_ROLE_SHARER);
	need(m->hello.policy >= 1 && m->hello.policy <= 3 && m->hello.flags <= 3);
	need_name(m->hello.name, sizeof(m->hello.name));
}

static void promises_block(const union regmsg *m)
{
	uint64_t page = m->block.page_size;

	need(m->block.flags <= 1 && m->block.length > 0);
	need((page & (page - 1)) == 0);
	need_sum(m->block.file_offset, m->block.length);
	need_name(m->block.name, sizeof(m->block.name));
	need(regmsg_fds(m) == !(m->block.flags & REGMSG_BLOCK_PRIVATE));
}

static void promises_mapping(const union regmsg *m)
{
	need(m->mapping.flags <= 1 && m->mapping.length > 0 && m->mapping.address > 0);
	need_sum(m->mapping.address, m->mapping.length);
	need_sum(m->mapping.block_offset, m->mapping.length);
	need_name(m->mapping.name, sizeof(m->mapping.name));
}

static void promises_want(const union regmsg *m)
{
	need(m->want.klass >= 1 && m->want.klass <= 3 && m->want.length > 0);
	need_sum(m->want.block_offset, m->want.length);
	need_name(m->want.name, sizeof(m->want.name));
}

static void promises_mapped(const union regmsg *m)
{
	need(m->mapped.flags == 0 && m->mapped.length > 0 && m->mapped.address > 0);
	need_sum(m->mapped.address, m->mapped.length);
	need_sum(m->mapped.file_offset, m->mapped.length);
	need(regmsg_fds(m) == 1);
}

static void promises_dma(const union regmsg *m)
{
	need(m->dma.flags <= 3 && m->dma.directions >= 1 && m->dma.directions <= 3);
	need(m->dma.length > 0);
	need((m->dma.iova | m->dma.length | m->dma.block_offset) % 4096 == 0);
	need_sum(m->dma.iova, m->dma.length - 1);
	need_sum(m->dma.block_offset, m->dma.length);
	need_name(m->dma.gate, sizeof(m->dma.gate));
	need_name(m->dma.name, sizeof(m->dma.name));
}

static void promises_dma_part(const union regmsg *m)
{
	need(m->dma_at.error == 0 && m->dma_at.length > 0);
	need((m->dma_at.iova | m->dma_at.length) % 4096 == 0);
	need_sum(m->dma_at.iova, m->dma_at.length - 1);
	need_name(m->dma_at.gate, sizeof(m->dma_at.gate));
}

static void promises_dma_answer(const union regmsg *m)
{
	need(m->dma_at.error >= 0 && m->dma_at.error <= 4095);
	need(m->dma_at.length == 0 && m->dma_at.iova % 4096 == 0);
	need_name(m->dma_at.gate, sizeof(m->dma_at.gate));
}

static void promises_dma_gate(const union regmsg *m)
{
	need(m->dma_at.error == 0 && m->dma_at.length == 0 && m->dma_at.iova == 0);
	need_name(m->dma_at.gate, sizeof(m->dma_at.gate));
}

static void promises_text(const union regmsg *m)
{
	need(m->text.error >= 0 && m->text.error <= 4095);
	need(strnlen(m->text.text, REGMSG_TEXT) < REGMSG_TEXT);
}

static void promises_package(const union regmsg *m)
{
	need_sum(m->package.device_offset, m->package.device_length);
	need(m->package.device_offset + m->package.device_length <= m->package.body_length);
	need(m->package.body_length > 0 && regmsg_fds(m) == 1);
}

static void promises_plain(const union regmsg *m)
{
	need(regmsg_fds(m) <= 1);
}

static void (*const promises[])(const union regmsg *m) = {
	[REGMSG_HELLO] = promises_hello,      [REGMSG_BLOCK] = promises_block,
	[REGMSG_MAPPING] = promises_mapping,  [REGMSG_READY] = promises_plain,
	[REGMSG_WANT] = promises_want,	      [REGMSG_LOADED] = promises_plain,
	[REGMSG_LOAD_FAILED] = promises_text, [REGMSG_LEAVE] = promises_plain,
	[REGMSG_WELCOME] = promises_plain,    [REGMSG_REFUSED] = promises_text,
	[REGMSG_RESULT] = promises_text,      [REGMSG_LISTENING] = promises_plain,
	[REGMSG_PACKAGE] = promises_package,  [REGMSG_RUNNING] = promises_plain,
	[REGMSG_COMPLETE] = promises_plain,   [REGMSG_FAILED] = promises_text,
	[REGMSG_PAUSED] = promises_text,      [REGMSG_DISABLED] = promises_text,
	[REGMSG_MAPPED] = promises_mapped,    [REGMSG_ASK_DEVICE] = promises_plain,
	[REGMSG_DEVICE] = promises_plain,     [REGMSG_SERVED] = promises_plain,
	[REGMSG_DMA_MAP] = promises_dma,      [REGMSG_DMA_RANGE] = promises_dma,
	[REGMSG_DMA_UNMAP] = promises_dma_part, [REGMSG_DMA_SYNC] = promises_dma_part,
	[REGMSG_DMA_SEAL] = promises_dma_gate, [REGMSG_DMA_RESET] = promises_dma_gate,
	[REGMSG_DMA_OPEN] = promises_dma_gate, [REGMSG_DMA_RETRY] = promises_dma_answer,
	[REGMSG_DMA_MAPPED] = promises_dma_answer,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *why = NULL;
	union regmsg m, again;
	int err;

	if (size > sizeof(m))
		return 0;
	memset(&m, 0xff, sizeof(m));
	memcpy(&m, data, size);
	err = regmsg_check(&m, size, &why);
	if (err) {
		need(err == -EPROTO || err == -EPROTONOSUPPORT || err == -EBADMSG);
		need(why && *why);
		return 0;
	}
	need(m.head.type < sizeof(promises) / sizeof(promises[0]) && promises[m.head.type]);
	promises[m.head.type](&m);
	for (size_t i = size; i < sizeof(m); i++)
		need(m.bytes[i] == 0);
	again = m;
	need(regmsg_check(&again, size, NULL) == 0 && memcmp(&m, &again, sizeof(m)) == 0);
	return 0;
}

/* Most mutants get a true envelope, or few would be looked into. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct regmsg_head head;

	size = LLVMFuzzerMutate(data, size, max);
	if (size < sizeof(head) || seed % 8 == 0)
		return size;
	memcpy(&head, data, sizeof(head));
	head.magic = REGMSG_MAGIC;
	head.version = REGMSG_VERSION;
	head.size = (uint32_t)size;
	memcpy(data, &head, sizeof(head));
	return size;
}
