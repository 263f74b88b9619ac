/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Registration messages, checked in one place for both ends.  A packet that passed regmsg_check()
 * can be used field by field without another look: every string ends, every enum has a name, no sum
 * wraps, and what the sender did not know reads as zero.  What a number means (is this length the
 * block's?) is for the caller to judge.
 *
 * Growth: within one version a struct only ever gets longer, at its end, and a zero there means "as
 * before".  So the table holds the size of version 1 as a number that never changes again, beside
 * the size as we know it today.
 */
#include "config.h"

#include "wire/regmsg.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/guard.h"

/* Errors of the kernel's interface end here (MAX_ERRNO). */
#define ERRNO_MAX 4095

enum serial_rule { SERIAL_ANY, SERIAL_CALL, SERIAL_EVENT };

struct kind {
	const char *name;
	uint16_t size_v1;	/* 0: no such type */
	uint16_t size;
	uint8_t serial;		/* enum serial_rule */
	uint8_t fds;		/* most descriptors it can carry */
	/* What is wrong with the content, as static text, or NULL. */
	const char *(*check)(const union regmsg *m);
};

/*
 * A name is shown to people, logged and put into JSON: printable ASCII, at least one character,
 * terminated within its field.
 */
static bool name_is_good(const char *name, size_t room)
{
	size_t len = strnlen(name, room);

	if (len == 0 || len == room)
		return false;
	for (size_t i = 0; i < len; i++)
		if (name[i] < 0x20 || name[i] > 0x7e)
			return false;
	return true;
}

static bool sum_fits(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return add_u64(a, b, &sum);
}

static const char *check_hello(const union regmsg *m)
{
	const struct regmsg_hello *h = &m->hello;

	if (h->role != REGMSG_ROLE_MAIN && h->role != REGMSG_ROLE_SHARER)
		return "HELLO: role out of range";
	if (h->policy < REGMSG_POLICY_IGNORE || h->policy > REGMSG_POLICY_FAIL)
		return "HELLO: policy out of range";
	if (h->flags & ~(uint32_t)(REGMSG_HELLO_KERNEL | REGMSG_HELLO_UNAWARE))
		return "HELLO: unknown flags";
	if (h->reserved)
		return "HELLO: reserved field is not zero";
	if (!name_is_good(h->name, sizeof(h->name)))
		return "HELLO: name is empty, unterminated or not printable";
	return NULL;
}

static const char *check_block(const union regmsg *m)
{
	const struct regmsg_block *b = &m->block;

	if (b->flags & ~(uint32_t)REGMSG_BLOCK_PRIVATE)
		return "BLOCK: unknown flags";
	if (b->reserved)
		return "BLOCK: reserved field is not zero";
	if (b->length == 0)
		return "BLOCK: length is zero";
	if (b->page_size && !is_power_of_two(b->page_size))
		return "BLOCK: page size is not a power of two";
	if (!sum_fits(b->file_offset, b->length))
		return "BLOCK: file offset and length overflow";
	if ((b->flags & REGMSG_BLOCK_PRIVATE) && b->file_offset)
		return "BLOCK: private memory has no file offset";
	if (!name_is_good(b->name, sizeof(b->name)))
		return "BLOCK: name is empty, unterminated or not printable";
	return NULL;
}

static const char *check_mapping(const union regmsg *m)
{
	const struct regmsg_mapping *p = &m->mapping;

	if (p->flags & ~(uint32_t)REGMSG_MAPPING_REGISTERED)
		return "MAPPING: unknown flags";
	if (p->reserved)
		return "MAPPING: reserved field is not zero";
	if (p->address == 0 || p->length == 0)
		return "MAPPING: address or length is zero";
	if (!sum_fits(p->address, p->length))
		return "MAPPING: address and length overflow";
	if (!sum_fits(p->block_offset, p->length))
		return "MAPPING: block offset and length overflow";
	if (!name_is_good(p->name, sizeof(p->name)))
		return "MAPPING: block name is empty, unterminated or not printable";
	return NULL;
}

static const char *check_want(const union regmsg *m)
{
	const struct regmsg_want *w = &m->want;

	if (w->klass < REGMSG_CLASS_DEMAND || w->klass > REGMSG_CLASS_PREFETCH)
		return "WANT: class out of range";
	if (w->reserved)
		return "WANT: reserved field is not zero";
	if (w->length == 0)
		return "WANT: length is zero";
	if (!sum_fits(w->block_offset, w->length))
		return "WANT: block offset and length overflow";
	if (!name_is_good(w->name, sizeof(w->name)))
		return "WANT: block name is empty, unterminated or not printable";
	return NULL;
}

static const char *check_mapped(const union regmsg *m)
{
	const struct regmsg_mapped *p = &m->mapped;

	if (p->flags)
		return "MAPPED: unknown flags";
	if (p->reserved)
		return "MAPPED: reserved field is not zero";
	if (p->address == 0 || p->length == 0)
		return "MAPPED: address or length is zero";
	if (!sum_fits(p->address, p->length))
		return "MAPPED: address and length overflow";
	if (!sum_fits(p->file_offset, p->length))
		return "MAPPED: file offset and length overflow";
	return NULL;
}

/* Of addresses and lengths: whole pages of what no IOMMU has smaller ones. */
static bool is_whole(uint64_t bytes)
{
	return bytes % 4096 == 0;
}

static const char *check_dma(const union regmsg *m)
{
	const struct regmsg_dma *d = &m->dma;

	if (d->flags & ~(uint32_t)(REGMSG_DMA_COHERENT | REGMSG_DMA_ENFORCED))
		return "DMA: unknown flags";
	if (!d->directions ||
	    d->directions & ~(uint32_t)(REGMSG_DMA_READS | REGMSG_DMA_WRITES))
		return "DMA: no direction, or an unknown one";
	if (d->length == 0)
		return "DMA: length is zero";
	if (!is_whole(d->iova | d->length | d->block_offset))
		return "DMA: address, length or block offset is not of whole 4096-byte pages";
	/* The last byte may be the last there is. */
	if (!sum_fits(d->iova, d->length - 1))
		return "DMA: address and length overflow";
	if (!sum_fits(d->block_offset, d->length))
		return "DMA: block offset and length overflow";
	if (!name_is_good(d->gate, sizeof(d->gate)))
		return "DMA: name of the gate is empty, unterminated or not printable";
	if (!name_is_good(d->name, sizeof(d->name)))
		return "DMA: block name is empty, unterminated or not printable";
	return NULL;
}

/* What all that name a gate have in common. */
static const char *check_dma_gate(const union regmsg *m)
{
	if (m->dma_at.reserved)
		return "DMA: reserved field is not zero";
	if (!name_is_good(m->dma_at.gate, sizeof(m->dma_at.gate)))
		return "DMA: name of the gate is empty, unterminated or not printable";
	return NULL;
}

static const char *check_dma_gate_only(const union regmsg *m)
{
	if (m->dma_at.error || m->dma_at.iova || m->dma_at.length)
		return "DMA: a gate alone has no error, address or length";
	return check_dma_gate(m);
}

static const char *check_dma_part(const union regmsg *m)
{
	const struct regmsg_dma_at *d = &m->dma_at;

	if (d->error)
		return "DMA: a request has no error";
	if (d->length == 0)
		return "DMA: length is zero";
	if (!is_whole(d->iova | d->length))
		return "DMA: address or length is not of whole 4096-byte pages";
	if (!sum_fits(d->iova, d->length - 1))
		return "DMA: address and length overflow";
	return check_dma_gate(m);
}

static const char *check_dma_mapped(const union regmsg *m)
{
	const struct regmsg_dma_at *d = &m->dma_at;

	if (d->error < 0 || d->error > ERRNO_MAX)
		return "DMA: error is no errno";
	if (d->length || !is_whole(d->iova))
		return "DMA: a range is named by where it begins, and has no length";
	return check_dma_gate(m);
}

static const char *check_dma_retry(const union regmsg *m)
{
	return m->dma_at.error ? "DMA: a request has no error" : check_dma_mapped(m);
}

static const char *check_text(const union regmsg *m)
{
	const struct regmsg_text *t = &m->text;

	if (t->error < 0 || t->error > ERRNO_MAX)
		return "error is no errno";
	if (t->reserved)
		return "reserved field beside the error is not zero";
	if (!memchr(t->text, '\0', sizeof(t->text)))
		return "text is not terminated";
	return NULL;
}

static const char *check_refused(const union regmsg *m)
{
	return m->text.error ? check_text(m) : "REFUSED: says no error";
}

static const char *check_package(const union regmsg *m)
{
	const struct regmsg_package *p = &m->package;

	if (p->body_length == 0)
		return "PACKAGE: body is empty";
	if (p->device_offset > p->body_length ||
	    p->device_length > p->body_length - p->device_offset)
		return "PACKAGE: device sections lie outside the body";
	return NULL;
}

static const char *check_nothing(const union regmsg *m)
{
	(void)m;
	return NULL;
}

#define KIND(NAME, v1, type, rule, nfds, fn)                                                       \
	[REGMSG_##NAME] = {                                                                        \
		#NAME, v1, sizeof(struct regmsg_##type), SERIAL_##rule, nfds, check_##fn           \
	}

static const struct kind kinds[] = {
	KIND(HELLO, 104, hello, CALL, 1, hello),
	KIND(BLOCK, 304, block, CALL, 1, block),
	KIND(MAPPING, 304, mapping, CALL, 0, mapping),
	KIND(READY, 16, plain, CALL, 0, nothing),
	KIND(WANT, 296, want, CALL, 0, want),
	KIND(LOADED, 16, plain, CALL, 0, nothing),
	KIND(LOAD_FAILED, 280, text, CALL, 0, text),
	KIND(LEAVE, 16, plain, CALL, 0, nothing),
	KIND(MAPPED, 64, mapped, CALL, 1, mapped),
	KIND(ASK_DEVICE, 16, plain, CALL, 0, nothing),
	KIND(DMA_MAP, 368, dma, CALL, 0, dma),
	KIND(DMA_UNMAP, 104, dma_at, CALL, 0, dma_part),
	KIND(DMA_SYNC, 104, dma_at, CALL, 0, dma_part),
	KIND(DMA_SEAL, 104, dma_at, CALL, 0, dma_gate_only),
	KIND(DMA_MAPPED, 104, dma_at, CALL, 0, dma_mapped),
	KIND(DMA_RETRY, 104, dma_at, CALL, 0, dma_retry),
	KIND(DMA_RESET, 104, dma_at, CALL, 0, dma_gate_only),
	KIND(WELCOME, 40, welcome, CALL, 0, nothing),
	/* A HELLO too broken to have a serial is refused with what stood there. */
	KIND(REFUSED, 280, text, ANY, 0, refused),
	KIND(RESULT, 280, result, CALL, 0, text),
	KIND(LISTENING, 16, plain, EVENT, 0, nothing),
	KIND(PACKAGE, 40, package, EVENT, 1, package),
	KIND(RUNNING, 16, plain, EVENT, 0, nothing),
	KIND(COMPLETE, 16, plain, EVENT, 0, nothing),
	KIND(FAILED, 280, text, EVENT, 0, text),
	KIND(PAUSED, 280, text, EVENT, 0, text),
	KIND(DISABLED, 280, text, EVENT, 0, text),
	KIND(DEVICE, 16, plain, CALL, 1, nothing),
	KIND(SERVED, 16, plain, CALL, 0, nothing),
	KIND(DMA_RANGE, 368, dma, EVENT, 0, dma),
	KIND(DMA_OPEN, 104, dma_at, EVENT, 0, dma_gate_only),
};

_Static_assert(ARRAY_LEN(kinds) == REGMSG_DMA_OPEN + 1, "a type has no row");
_Static_assert(offsetof(struct regmsg_result, written) == sizeof(struct regmsg_text) &&
		       offsetof(struct regmsg_result, text) == offsetof(struct regmsg_text, text),
	       "a result does not begin as a text");
_Static_assert(sizeof(union regmsg) == REGMSG_MAX, "a message outgrew the longest packet");

/* NULL: there is no such type. */
static const struct kind *kind_of(unsigned type)
{
	if (type >= ARRAY_LEN(kinds) || kinds[type].size_v1 == 0)
		return NULL;
	return &kinds[type];
}

/**
 * regmsg_init - begin a message
 * @m: zeroed, then given the head of @type
 * @serial: the call's number; 0 in an event
 *
 * Returns the packet's size in bytes.
 */
size_t regmsg_init(union regmsg *m, enum regmsg_type type, uint32_t serial)
{
	const struct kind *kind = kind_of(type);

	assert(kind);
	memset(m, 0, sizeof(*m));
	m->head = (struct regmsg_head){
		.magic = REGMSG_MAGIC,
		.version = REGMSG_VERSION,
		.type = type,
		.size = kind->size,
		.serial = serial,
	};
	return kind->size;
}

/**
 * regmsg_text - a whole message of a type that carries an error and its text
 * @error: 0 or a positive errno
 * @fmt: what does not fit in REGMSG_TEXT is cut
 *
 * Returns the packet's size in bytes.
 */
size_t regmsg_text(union regmsg *m, enum regmsg_type type, uint32_t serial, int error,
		   const char *fmt, ...)
{
	size_t size = regmsg_init(m, type, serial);
	va_list args;

	assert(size >= sizeof(m->text));
	m->text.error = error;
	va_start(args, fmt);
	vsnprintf(m->text.text, sizeof(m->text.text), fmt, args);
	va_end(args);
	return size;
}

static int refuse(int err, const char *text, const char **why)
{
	if (why)
		*why = text;
	return err;
}

/* What can be said before the type is known; version 2 shares no more than these fields with us. */
static int check_envelope(const union regmsg *m, size_t len, const char **why)
{
	if (len < sizeof(m->head))
		return refuse(-EPROTO, "packet is shorter than a head", why);
	if (len > REGMSG_MAX)
		return refuse(-EPROTO, "packet is longer than any version's", why);
	if (m->head.magic != REGMSG_MAGIC)
		return refuse(-EPROTO, "magic is wrong", why);
	if (m->head.version != REGMSG_VERSION)
		return refuse(-EPROTONOSUPPORT, "version of the protocol is not 1", why);
	if (m->head.size != len)
		return refuse(-EPROTO, "size in the head is not that of the packet", why);
	return 0;
}

static bool serial_is_good(enum serial_rule rule, uint32_t serial)
{
	switch (rule) {
	case SERIAL_CALL:
		return serial != 0;
	case SERIAL_EVENT:
		return serial == 0;
	case SERIAL_ANY:
		break;
	}
	return true;
}

/**
 * regmsg_check - may a received packet be used?
 * @m: whole packet at the start; bytes behind it are zeroed (they may hold an older packet)
 * @len: bytes received
 * @why: what is wrong, static text; untouched when nothing is; may be NULL
 *
 * Returns 0; -EPROTO for what is no packet of ours; -EPROTONOSUPPORT for another version; -EBADMSG
 * for a known type with bad content.
 */
int regmsg_check(union regmsg *m, size_t len, const char **why)
{
	const struct kind *kind;
	const char *wrong;
	int err;

	err = check_envelope(m, len, why);
	if (err)
		return err;
	kind = kind_of(m->head.type);
	if (!kind)
		return refuse(-EPROTO, "type is unknown", why);
	if (len < kind->size_v1)
		return refuse(-EPROTO, "packet is too short for its type", why);
	if (!serial_is_good(kind->serial, m->head.serial))
		return refuse(-EBADMSG, "a call needs a serial, an event must have none", why);
	memset(m->bytes + len, 0, sizeof(*m) - len);
	wrong = kind->check(m);
	return wrong ? refuse(-EBADMSG, wrong, why) : 0;
}

/**
 * regmsg_fds - how many descriptors must come with a message
 * @m: a message that passed regmsg_check(), or one of our own
 */
unsigned regmsg_fds(const union regmsg *m)
{
	const struct kind *kind = kind_of(m->head.type);

	if (!kind)
		return 0;
	if (m->head.type == REGMSG_BLOCK && (m->block.flags & REGMSG_BLOCK_PRIVATE))
		return 0;
	return kind->fds;
}

/**
 * regmsg_type_name - "HELLO", …; "unknown" for what no version defines
 */
const char *regmsg_type_name(enum regmsg_type type)
{
	const struct kind *kind = kind_of(type);

	return kind ? kind->name : "unknown";
}
