/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The registration messages: layout that never changes (S1-03), packets of older and newer peers,
 * and one test per way a packet can be wrong.
 */
#include "config.h"

#include "wire/regmsg.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

/* S1-03: what two builds of different age must agree on. */
#define AT(type, field, offset)                                                                    \
	_Static_assert(offsetof(struct regmsg_##type, field) == (offset), #type "." #field)
#define SIZE(type, bytes) _Static_assert(sizeof(struct regmsg_##type) == (bytes), #type)

SIZE(head, 16);
AT(head, magic, 0);
AT(head, version, 4);
AT(head, type, 6);
AT(head, size, 8);
AT(head, serial, 12);
SIZE(hello, 104);
AT(hello, role, 16);
AT(hello, policy, 20);
AT(hello, flags, 24);
AT(hello, token, 32);
AT(hello, name, 40);
SIZE(welcome, 40);
AT(welcome, sharer, 16);
AT(welcome, generation, 20);
AT(welcome, token, 24);
AT(welcome, features, 32);
SIZE(block, 304);
AT(block, flags, 16);
AT(block, length, 24);
AT(block, page_size, 32);
AT(block, file_offset, 40);
AT(block, name, 48);
SIZE(mapping, 304);
AT(mapping, flags, 16);
AT(mapping, address, 24);
AT(mapping, length, 32);
AT(mapping, block_offset, 40);
AT(mapping, name, 48);
SIZE(want, 296);
AT(want, klass, 16);
AT(want, block_offset, 24);
AT(want, length, 32);
AT(want, name, 40);
SIZE(mapped, 64);
AT(mapped, flags, 16);
AT(mapped, address, 24);
AT(mapped, length, 32);
AT(mapped, file_offset, 40);
AT(mapped, dev, 48);
AT(mapped, inode, 56);
SIZE(dma, 368);
AT(dma, flags, 16);
AT(dma, directions, 20);
AT(dma, iova, 24);
AT(dma, length, 32);
AT(dma, block_offset, 40);
AT(dma, gate, 48);
AT(dma, name, 112);
SIZE(dma_at, 104);
AT(dma_at, error, 16);
AT(dma_at, iova, 24);
AT(dma_at, length, 32);
AT(dma_at, gate, 40);
SIZE(plain, 16);
SIZE(text, 280);
AT(text, error, 16);
AT(text, text, 24);
SIZE(result, 288);
AT(result, error, 16);
AT(result, text, 24);
AT(result, written, 280);
SIZE(package, 40);
AT(package, body_length, 16);
AT(package, device_offset, 24);
AT(package, device_length, 32);
_Static_assert(REGMSG_HELLO == 1 && REGMSG_LEAVE == 8, "numbers of the calls");
_Static_assert(REGMSG_MAPPED == 9 && REGMSG_ASK_DEVICE == 10,
	       "numbers of an unaware program's calls");
_Static_assert(REGMSG_DMA_MAP == 11 && REGMSG_DMA_RESET == 17, "numbers of the calls about DMA");
_Static_assert(REGMSG_WELCOME == 64 && REGMSG_DISABLED == 73, "numbers of the answers");
_Static_assert(REGMSG_DEVICE == 74 && REGMSG_SERVED == 75, "numbers of the answers to them");
_Static_assert(REGMSG_DMA_RANGE == 76 && REGMSG_DMA_OPEN == 77, "numbers of the events about DMA");

#define RESULT_V1 280

static const struct {
	enum regmsg_type type;
	size_t size;
	unsigned fds;
	uint32_t serial;
	const char *name;
} all[] = {
	{ REGMSG_HELLO, 104, 1, 7, "HELLO" },
	{ REGMSG_BLOCK, 304, 1, 7, "BLOCK" },
	{ REGMSG_MAPPING, 304, 0, 7, "MAPPING" },
	{ REGMSG_READY, 16, 0, 7, "READY" },
	{ REGMSG_WANT, 296, 0, 7, "WANT" },
	{ REGMSG_LOADED, 16, 0, 7, "LOADED" },
	{ REGMSG_LOAD_FAILED, 280, 0, 7, "LOAD_FAILED" },
	{ REGMSG_LEAVE, 16, 0, 7, "LEAVE" },
	{ REGMSG_MAPPED, 64, 1, 7, "MAPPED" },
	{ REGMSG_ASK_DEVICE, 16, 0, 7, "ASK_DEVICE" },
	{ REGMSG_DMA_MAP, 368, 0, 7, "DMA_MAP" },
	{ REGMSG_DMA_UNMAP, 104, 0, 7, "DMA_UNMAP" },
	{ REGMSG_DMA_SYNC, 104, 0, 7, "DMA_SYNC" },
	{ REGMSG_DMA_SEAL, 104, 0, 7, "DMA_SEAL" },
	{ REGMSG_DMA_MAPPED, 104, 0, 7, "DMA_MAPPED" },
	{ REGMSG_DMA_RETRY, 104, 0, 7, "DMA_RETRY" },
	{ REGMSG_DMA_RESET, 104, 0, 7, "DMA_RESET" },
	{ REGMSG_WELCOME, 40, 0, 7, "WELCOME" },
	{ REGMSG_REFUSED, 280, 0, 7, "REFUSED" },
	{ REGMSG_RESULT, 288, 0, 7, "RESULT" },
	{ REGMSG_LISTENING, 16, 0, 0, "LISTENING" },
	{ REGMSG_PACKAGE, 40, 1, 0, "PACKAGE" },
	{ REGMSG_RUNNING, 16, 0, 0, "RUNNING" },
	{ REGMSG_COMPLETE, 16, 0, 0, "COMPLETE" },
	{ REGMSG_FAILED, 280, 0, 0, "FAILED" },
	{ REGMSG_PAUSED, 280, 0, 0, "PAUSED" },
	{ REGMSG_DISABLED, 280, 0, 0, "DISABLED" },
	{ REGMSG_DEVICE, 16, 1, 7, "DEVICE" },
	{ REGMSG_SERVED, 16, 0, 7, "SERVED" },
	{ REGMSG_DMA_RANGE, 368, 0, 0, "DMA_RANGE" },
	{ REGMSG_DMA_OPEN, 104, 0, 0, "DMA_OPEN" },
};

/* Content that passes, as a peer would send it. */
static void fill(union regmsg *m)
{
	switch (m->head.type) {
	case REGMSG_HELLO:
		m->hello.role = REGMSG_ROLE_SHARER;
		m->hello.policy = REGMSG_POLICY_DISABLE;
		m->hello.flags = REGMSG_HELLO_KERNEL;
		m->hello.token = UINT64_MAX;
		strcpy(m->hello.name, "net backend 0");
		break;
	case REGMSG_BLOCK:
		m->block.length = 1 << 20;
		m->block.page_size = 4096;
		m->block.file_offset = 1 << 21;
		strcpy(m->block.name, "/rom@etc/acpi/tables");
		break;
	case REGMSG_MAPPING:
		m->mapping.flags = REGMSG_MAPPING_REGISTERED;
		m->mapping.address = 0x7f0000000000;
		m->mapping.length = 1 << 20;
		strcpy(m->mapping.name, "pc.ram");
		break;
	case REGMSG_WANT:
		m->want.klass = REGMSG_CLASS_DMA;
		m->want.length = 1;
		strcpy(m->want.name, "pc.ram");
		break;
	case REGMSG_MAPPED:
		m->mapped.address = 0x7f0000000000;
		m->mapped.length = 655360;
		m->mapped.file_offset = 1 << 20;
		m->mapped.dev = 26;
		m->mapped.inode = 1037;
		break;
	case REGMSG_REFUSED:
		m->text.error = EEXIST;
		break;
	case REGMSG_PACKAGE:
		m->package.body_length = 100;
		m->package.device_offset = 90;
		m->package.device_length = 10;
		break;
	default:
		break;
	}
}

static void fill_dma(union regmsg *m)
{
	switch (m->head.type) {
	case REGMSG_DMA_MAP:
	case REGMSG_DMA_RANGE:
		m->dma.flags = REGMSG_DMA_COHERENT;
		m->dma.directions = REGMSG_DMA_READS | REGMSG_DMA_WRITES;
		m->dma.iova = 0xfffff000;
		m->dma.length = 8192;
		m->dma.block_offset = 1 << 20;
		strcpy(m->dma.gate, "0000:01:00.0");
		strcpy(m->dma.name, "pc.ram");
		break;
	case REGMSG_DMA_UNMAP:
	case REGMSG_DMA_SYNC:
		m->dma_at.length = 8192;
		/* fall through */
	case REGMSG_DMA_MAPPED:
	case REGMSG_DMA_RETRY:
		m->dma_at.iova = 0xfffff000;
		/* fall through */
	case REGMSG_DMA_SEAL:
	case REGMSG_DMA_RESET:
	case REGMSG_DMA_OPEN:
		strcpy(m->dma_at.gate, "0000:01:00.0");
		break;
	default:
		break;
	}
}

static bool is_event(enum regmsg_type type)
{
	return (type >= REGMSG_LISTENING && type <= REGMSG_DISABLED) || type >= REGMSG_DMA_RANGE;
}

static size_t make(union regmsg *m, enum regmsg_type type)
{
	size_t size = regmsg_init(m, type, is_event(type) ? 0 : 7);

	fill(m);
	fill_dma(m);
	return size;
}

static void refused(union regmsg *m, size_t len, int err, const char *word)
{
	const char *why = "nothing";

	cr_assert_eq(regmsg_check(m, len, &why), err, "%s", why);
	cr_assert(strstr(why, word), "'%s' does not name '%s'", why, word);
	cr_assert_eq(regmsg_check(m, len, NULL), err);
}

/* A field of a valid message is set to a value, and the packet is refused with a word about it. */
#define REFUSED(TYPE, FIELD, VALUE, WORD)                                                          \
	do {                                                                                       \
		union regmsg m;                                                                    \
		size_t len = make(&m, REGMSG_##TYPE);                                              \
                                                                                                   \
		m.FIELD = (VALUE);                                                                 \
		refused(&m, len, -EBADMSG, WORD);                                                  \
	} while (0)

Test(regmsg, every_type_passes_as_sent)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		union regmsg sent, got;
		const char *why = "untouched";

		memset(&sent, 0xff, sizeof(sent));
		cr_assert_eq(make(&sent, all[i].type), all[i].size, "%s", all[i].name);
		cr_assert_eq(sent.head.size, all[i].size);
		cr_assert_eq(sent.head.serial, all[i].serial);
		memset(&got, 0xff, sizeof(got));
		memcpy(&got, &sent, all[i].size);
		cr_assert_eq(regmsg_check(&got, all[i].size, &why), 0, "%s: %s", all[i].name, why);
		cr_assert_str_eq(why, "untouched");
		cr_assert_arr_eq(&got, &sent, sizeof(got), "%s: rest is not zero", all[i].name);
		cr_assert_eq(regmsg_fds(&got), all[i].fds, "%s", all[i].name);
		cr_assert_str_eq(regmsg_type_name(all[i].type), all[i].name);
	}
}

Test(regmsg, numbers_between_the_types_mean_nothing)
{
	size_t known = 0;

	for (unsigned type = 0; type < 70000; type++) {
		if (strcmp(regmsg_type_name(type), "unknown"))
			known++;
	}
	cr_assert_eq(known, ARRAY_LEN(all));
}

Test(regmsg, private_block_carries_no_descriptor)
{
	union regmsg m;
	size_t len = make(&m, REGMSG_BLOCK);

	m.block.flags = REGMSG_BLOCK_PRIVATE;
	m.block.file_offset = 0;
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
	cr_assert_eq(regmsg_fds(&m), 0);
}

Test(regmsg, text_is_formatted_and_cut)
{
	char longer[400];
	union regmsg m;
	size_t len;

	len = regmsg_text(&m, REGMSG_RESULT, 9, EINVAL, "length %d of %s", 5, "pc.ram");
	cr_assert_eq(len, 288);
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
	cr_assert_eq(m.text.error, EINVAL);
	cr_assert_str_eq(m.text.text, "length 5 of pc.ram");

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	len = regmsg_text(&m, REGMSG_FAILED, 0, EIO, "%s", longer);
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
	cr_assert_eq(strlen(m.text.text), REGMSG_TEXT - 1);
}

/* A newer peer's packet is longer; what is behind the fields we know is its business. */
Test(regmsg, newer_and_larger_is_accepted)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		union regmsg m;
		size_t len = make(&m, all[i].type);

		memset(m.bytes + len, 0xa5, sizeof(m) - len);
		m.head.size = len + 24;
		cr_assert_eq(regmsg_check(&m, len + 24, NULL), 0, "%s", all[i].name);
		m.head.size = REGMSG_MAX;
		cr_assert_eq(regmsg_check(&m, REGMSG_MAX, NULL), 0, "%s", all[i].name);
	}
}

/* Nobody is older than version 1. */
Test(regmsg, shorter_than_version_one_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		union regmsg m;
		size_t len = make(&m, all[i].type);

		len = all[i].type == REGMSG_RESULT ? RESULT_V1 : len;
		m.head.size = len - 1;
		refused(&m, len - 1, -EPROTO, "short");
	}
}

/* The one that grew: of a daemon that knows no DMA nothing was written. */
Test(regmsg, result_of_version_one)
{
	union regmsg m;

	regmsg_text(&m, REGMSG_RESULT, 9, EBUSY, "no");
	m.head.size = RESULT_V1;
	m.result.written = 4096;
	cr_assert_eq(regmsg_check(&m, RESULT_V1, NULL), 0);
	cr_assert_eq(m.result.written, 0);
	cr_assert_str_eq(m.result.text, "no");
}

Test(regmsg, every_truncation_is_refused)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		union regmsg m;
		size_t len = make(&m, all[i].type);

		for (size_t cut = 0; cut < len; cut++)
			cr_assert_eq(regmsg_check(&m, cut, NULL), -EPROTO, "%s at %zu", all[i].name,
				     cut);
	}
}

Test(regmsg, envelope)
{
	union regmsg m;
	size_t len;

	len = make(&m, REGMSG_READY);
	refused(&m, 15, -EPROTO, "shorter than a head");
	refused(&m, REGMSG_MAX + 1, -EPROTO, "longer");
	m.head.magic++;
	refused(&m, len, -EPROTO, "magic");

	len = make(&m, REGMSG_READY);
	m.head.version = 2;
	refused(&m, len, -EPROTONOSUPPORT, "version");
	m.head.version = 0;
	refused(&m, len, -EPROTONOSUPPORT, "version");

	len = make(&m, REGMSG_READY);
	m.head.size++;
	refused(&m, len, -EPROTO, "size");
	m.head.size = UINT32_MAX;
	refused(&m, len, -EPROTO, "size");

	for (unsigned type = 0; type <= UINT16_MAX; type++) {
		len = make(&m, REGMSG_READY);
		m.head.type = type;
		if (!strcmp(regmsg_type_name(type), "unknown"))
			refused(&m, len, -EPROTO, "type");
	}
}

Test(regmsg, serials_tell_calls_from_events)
{
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		union regmsg m;
		size_t len = make(&m, all[i].type);

		m.head.serial = !m.head.serial;
		if (all[i].type == REGMSG_REFUSED)
			cr_assert_eq(regmsg_check(&m, len, NULL), 0);
		else
			refused(&m, len, -EBADMSG, "serial");
	}
}

Test(regmsg, hello_refusals)
{
	REFUSED(HELLO, hello.role, 0, "role");
	REFUSED(HELLO, hello.role, 3, "role");
	REFUSED(HELLO, hello.policy, 0, "policy");
	REFUSED(HELLO, hello.policy, 4, "policy");
	REFUSED(HELLO, hello.flags, 4, "flags");
	REFUSED(HELLO, hello.reserved, 1, "reserved");
	REFUSED(HELLO, hello.name[0], '\0', "name");
	REFUSED(HELLO, hello.name[3], '\n', "name");
	REFUSED(HELLO, hello.name[3], '\x7f', "name");
	REFUSED(HELLO, hello.name[3], '\x80', "name");
}

Test(regmsg, block_refusals)
{
	REFUSED(BLOCK, block.flags, 2, "flags");
	REFUSED(BLOCK, block.flags, REGMSG_BLOCK_PRIVATE, "file offset");
	REFUSED(BLOCK, block.reserved, 1, "reserved");
	REFUSED(BLOCK, block.length, 0, "length");
	REFUSED(BLOCK, block.page_size, 4097, "power of two");
	REFUSED(BLOCK, block.length, UINT64_MAX, "overflow");
	REFUSED(BLOCK, block.file_offset, UINT64_MAX, "overflow");
	REFUSED(BLOCK, block.name[0], '\0', "name");
}

Test(regmsg, mapping_refusals)
{
	REFUSED(MAPPING, mapping.flags, 2, "flags");
	REFUSED(MAPPING, mapping.reserved, 1, "reserved");
	REFUSED(MAPPING, mapping.address, 0, "zero");
	REFUSED(MAPPING, mapping.length, 0, "zero");
	REFUSED(MAPPING, mapping.address, UINT64_MAX - 4095, "address and length overflow");
	REFUSED(MAPPING, mapping.block_offset, UINT64_MAX, "block offset and length overflow");
	REFUSED(MAPPING, mapping.name[0], '\0', "name");
}

Test(regmsg, want_refusals)
{
	REFUSED(WANT, want.klass, 0, "class");
	REFUSED(WANT, want.klass, 4, "class");
	REFUSED(WANT, want.reserved, 1, "reserved");
	REFUSED(WANT, want.length, 0, "length");
	REFUSED(WANT, want.block_offset, UINT64_MAX, "overflow");
	REFUSED(WANT, want.name[0], '\0', "name");
}

Test(regmsg, mapped_refusals)
{
	REFUSED(MAPPED, mapped.flags, 1, "flags");
	REFUSED(MAPPED, mapped.reserved, 1, "reserved");
	REFUSED(MAPPED, mapped.address, 0, "address");
	REFUSED(MAPPED, mapped.length, 0, "length");
	REFUSED(MAPPED, mapped.length, UINT64_MAX, "overflow");
	REFUSED(MAPPED, mapped.file_offset, UINT64_MAX, "overflow");
}

Test(regmsg, dma_refusals)
{
	REFUSED(DMA_MAP, dma.flags, 4, "flags");
	REFUSED(DMA_MAP, dma.directions, 0, "direction");
	REFUSED(DMA_MAP, dma.directions, 4, "direction");
	REFUSED(DMA_MAP, dma.length, 0, "length");
	REFUSED(DMA_MAP, dma.length, 4097, "whole");
	REFUSED(DMA_MAP, dma.iova, 512, "whole");
	REFUSED(DMA_MAP, dma.block_offset, 1, "whole");
	REFUSED(DMA_MAP, dma.iova, UINT64_MAX - 4095, "address and length overflow");
	REFUSED(DMA_MAP, dma.block_offset, UINT64_MAX - 4095, "block offset and length overflow");
	REFUSED(DMA_MAP, dma.gate[0], '\0', "gate");
	REFUSED(DMA_MAP, dma.name[0], '\0', "block name");
	REFUSED(DMA_RANGE, dma.length, 0, "length");
}

/* The last page that there is has an address, too. */
Test(regmsg, dma_reaches_the_end_of_addresses)
{
	union regmsg m;
	size_t len = make(&m, REGMSG_DMA_MAP);

	m.dma.iova = UINT64_MAX - 8191;
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
	len = make(&m, REGMSG_DMA_UNMAP);
	m.dma_at.iova = UINT64_MAX - 8191;
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
}

Test(regmsg, dma_part_refusals)
{
	REFUSED(DMA_UNMAP, dma_at.error, 1, "error");
	REFUSED(DMA_UNMAP, dma_at.reserved, 1, "reserved");
	REFUSED(DMA_UNMAP, dma_at.length, 0, "length");
	REFUSED(DMA_SYNC, dma_at.length, 4095, "whole");
	REFUSED(DMA_SYNC, dma_at.iova, UINT64_MAX - 4095, "overflow");
	REFUSED(DMA_SYNC, dma_at.gate[0], '\0', "gate");
	REFUSED(DMA_SYNC, dma_at.gate[2], '\n', "gate");
}

Test(regmsg, dma_answer_refusals)
{
	REFUSED(DMA_MAPPED, dma_at.error, -1, "errno");
	REFUSED(DMA_MAPPED, dma_at.error, 4096, "errno");
	REFUSED(DMA_MAPPED, dma_at.length, 4096, "no length");
	REFUSED(DMA_MAPPED, dma_at.iova, 1, "begins");
	REFUSED(DMA_RETRY, dma_at.error, 1, "error");
	REFUSED(DMA_RETRY, dma_at.length, 4096, "no length");
	REFUSED(DMA_SEAL, dma_at.iova, 4096, "alone");
	REFUSED(DMA_RESET, dma_at.length, 4096, "alone");
	REFUSED(DMA_OPEN, dma_at.error, 5, "alone");
	REFUSED(DMA_OPEN, dma_at.gate[0], '\0', "gate");
}

Test(regmsg, text_refusals)
{
	REFUSED(RESULT, text.error, -1, "errno");
	REFUSED(RESULT, text.error, 4096, "errno");
	REFUSED(RESULT, text.reserved, 1, "reserved");
	REFUSED(REFUSED, text.error, 0, "no error");
	REFUSED(LOAD_FAILED, text.error, INT32_MIN, "errno");
}

Test(regmsg, package_refusals)
{
	REFUSED(PACKAGE, package.body_length, 0, "empty");
	REFUSED(PACKAGE, package.body_length, 99, "outside");
	REFUSED(PACKAGE, package.device_offset, 101, "outside");
	REFUSED(PACKAGE, package.device_length, 11, "outside");
	REFUSED(PACKAGE, package.device_length, UINT64_MAX, "outside");
}

Test(regmsg, strings_without_an_end)
{
	union regmsg m;
	size_t len;

	len = make(&m, REGMSG_HELLO);
	memset(m.hello.name, 'a', sizeof(m.hello.name));
	refused(&m, len, -EBADMSG, "name");
	len = make(&m, REGMSG_BLOCK);
	memset(m.block.name, 'a', sizeof(m.block.name));
	refused(&m, len, -EBADMSG, "name");
	len = make(&m, REGMSG_MAPPING);
	memset(m.mapping.name, 'a', sizeof(m.mapping.name));
	refused(&m, len, -EBADMSG, "name");
	len = make(&m, REGMSG_WANT);
	memset(m.want.name, 'a', sizeof(m.want.name));
	refused(&m, len, -EBADMSG, "name");
	len = make(&m, REGMSG_DMA_MAP);
	memset(m.dma.gate, 'a', sizeof(m.dma.gate));
	refused(&m, len, -EBADMSG, "gate");
	len = make(&m, REGMSG_DMA_MAP);
	memset(m.dma.name, 'a', sizeof(m.dma.name));
	refused(&m, len, -EBADMSG, "name");
	len = make(&m, REGMSG_DMA_OPEN);
	memset(m.dma_at.gate, 'a', sizeof(m.dma_at.gate));
	refused(&m, len, -EBADMSG, "gate");
	len = make(&m, REGMSG_FAILED);
	memset(m.text.text, 'a', sizeof(m.text.text));
	refused(&m, len, -EBADMSG, "text");
}

/* The longest name there is room for: the terminator fills the field's last byte. */
Test(regmsg, longest_name)
{
	union regmsg m;
	size_t len = make(&m, REGMSG_HELLO);

	memset(m.hello.name, 'a', sizeof(m.hello.name) - 1);
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
	len = make(&m, REGMSG_WANT);
	memset(m.want.name, 'a', sizeof(m.want.name) - 1);
	cr_assert_eq(regmsg_check(&m, len, NULL), 0);
}
