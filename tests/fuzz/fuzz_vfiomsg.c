/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfiomsg: whatever two ends of vfio-user say, what passes keeps the promises of the checks and
 * goes back to the bytes it came from; what does not pass has an error and a text.  The input: who
 * asks, how many descriptors come with the request and with its answer, a byte without meaning, how
 * much data was agreed on; the request as it goes over the wire; its answer.
 */
#include "config.h"

#include "wire/vfiomsg.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool promise)
{
	if (!promise)
		abort();
}

static void need_refusal(int err, const char *why)
{
	need(err == -EPROTO || err == -EOPNOTSUPP || err == -EBADMSG);
	need(why && *why);
}

/* A record makes the bytes it was made of. */
static void same_bytes(const struct vfiomsg *m, const uint8_t *wire)
{
	struct vfiomsg copy = *m;
	uint8_t front[VFIOMSG_FRONT];
	size_t n;

	copy.head.size = 0;
	n = vfiomsg_front(&copy, front);
	need(copy.head.size == m->head.size && n + m->len == m->head.size);
	need(memcmp(front, wire, n) == 0);
	need(m->len == 0 || m->data == wire + n);
}

static void promises(const struct vfiomsg *m, const struct vfiomsg_terms *terms)
{
	const union vfiomsg_fixed *f = &m->fixed;

	need(m->fds <= terms->max_fds);
	switch (m->head.command) {
	case VFIOMSG_VERSION:
		need(m->len == 0 || m->data[m->len - 1] == '\0');
		break;
	case VFIOMSG_DMA_MAP:
		need(f->map.size && f->map.iova + (f->map.size - 1) >= f->map.iova);
		break;
	case VFIOMSG_DMA_UNMAP:
		need(f->unmap.bitmap <= terms->max_data && m->len == 0);
		break;
	case VFIOMSG_REGION_READ:
	case VFIOMSG_REGION_WRITE:
		need(f->access.count <= terms->max_data && f->access.region < VFIOMSG_REGIONS);
		need(m->len == (m->head.command == VFIOMSG_REGION_READ ? 0 : f->access.count));
		break;
	case VFIOMSG_DMA_READ:
	case VFIOMSG_DMA_WRITE:
		need(f->dma.count <= terms->max_data);
		need(m->len == (m->head.command == VFIOMSG_DMA_READ ? 0 : f->dma.count));
		break;
	case VFIOMSG_MIG_READ:
	case VFIOMSG_MIG_WRITE:
		need(f->stretch.size <= terms->max_data && f->stretch.argsz >= 8);
		break;
	default:
		break;
	}
}

static void answer_promises(const struct vfiomsg *m, const struct vfiomsg *asked)
{
	const union vfiomsg_fixed *f = &m->fixed, *ours = &asked->fixed;

	switch (m->head.command) {
	case VFIOMSG_GET_REGION_INFO:
		need(f->region.index == ours->region.index && 32 + m->len <= ours->region.argsz);
		break;
	case VFIOMSG_REGION_READ:
		need(f->access.count <= ours->access.count && m->len == f->access.count);
		break;
	case VFIOMSG_DMA_READ:
		need(f->dma.count <= ours->dma.count && m->len == f->dma.count);
		break;
	case VFIOMSG_FEATURE:
		need(8 + m->len <= ours->feature.argsz);
		break;
	case VFIOMSG_MIG_READ:
		need(f->stretch.size <= m->len && m->len <= ours->stretch.size);
		break;
	default:
		break;
	}
}

/* The head of a message whose body is there; NULL when the bytes end or it is refused. */
static const uint8_t *take(struct vfiomsg *m, const uint8_t *data, size_t size,
			   const struct vfiomsg_terms *terms)
{
	const char *why = NULL;
	int err;

	memset(m, 0xff, sizeof(*m));
	if (size < VFIOMSG_HEAD)
		return NULL;
	memcpy(&m->head, data, VFIOMSG_HEAD);
	err = vfiomsg_check_head(&m->head, terms, &why);
	if (err)
		need_refusal(err, why);
	return err || size < m->head.size ? NULL : data + VFIOMSG_HEAD;
}

static void answer(const uint8_t *data, size_t size, unsigned fds, const struct vfiomsg *asked,
		   const struct vfiomsg_terms *terms)
{
	const char *why = NULL;
	struct vfiomsg m;
	const uint8_t *body = take(&m, data, size, terms);
	int err;

	if (!body)
		return;
	m.fds = fds;
	err = vfiomsg_take_reply(&m, body, asked, terms, &why);
	if (err) {
		need(err == -EPROTO && why && *why);
		return;
	}
	need(m.head.id == asked->head.id && m.head.command == asked->head.command);
	need(vfiomsg_error(&m.head) <= 0 && vfiomsg_error(&m.head) >= -4095);
	need(!vfiomsg_error(&m.head) == !(m.head.flags & VFIOMSG_ERROR));
	same_bytes(&m, data);
	if (!vfiomsg_error(&m.head))
		answer_promises(&m, asked);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vfiomsg_terms terms = { .max_fds = VFIOMSG_FDS };
	enum vfiomsg_way way;
	const uint8_t *body;
	const char *why = NULL;
	struct vfiomsg m;
	int err;

	if (size < 8)
		return 0;
	way = data[0] & 1 ? VFIOMSG_TO_CLIENT : VFIOMSG_TO_SERVER;
	memcpy(&terms.max_data, data + 4, sizeof(terms.max_data));
	body = take(&m, data + 8, size - 8, &terms);
	if (!body)
		return 0;
	m.fds = data[1];
	err = vfiomsg_take(&m, body, way, &terms, &why);
	if (err) {
		need_refusal(err, why);
		return 0;
	}
	promises(&m, &terms);
	same_bytes(&m, data + 8);
	need(strcmp(vfiomsg_name(m.head.command), "unknown"));
	answer(data + 8 + m.head.size, size - 8 - m.head.size, data[2], &m, &terms);
	return 0;
}
