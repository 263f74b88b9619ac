/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The phase INMIGRATE: when QEMU is prepared and the source has listed its blocks, QEMU is asked what
 * memory it has, and that is declared at the door, as a program that knows us would do it itself.
 *
 * Asked then and not before: memory may be plugged in as long as no migration has begun.
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <errno.h>

#include "core/guard.h"
#include "sys/fd.h"

static const char same_text[] = "the QEMU of the destination needs the machine, the memory and the devices of the source";

/* NULL, or what is wrong with it. */
static const char *declare_block(struct handover *h, struct client *c, struct handover_block *b)
{
	struct door_block block = {
		.name = b->name, .length = b->length, .page_size = b->class == HANDOVER_SHARED ? 0 : b->page_size,
		.file_offset = b->file_offset, .file = steal_fd(&b->file),
	};
	struct door_mapping mapping = { .block = b->name, .address = b->address, .length = b->length };
	const char *why = "";

	/* Not declared, hence held by the daemon. */
	if (b->class == HANDOVER_STREAMED)
		return NULL;
	if (door_declare(h->door, c, &block, &why) < 0)
		return why;
	if (b->class == HANDOVER_LAZY && door_declare_mapping(c, &mapping, &why) < 0)
		return why;
	return NULL;
}

static bool declare_all(struct handover *h, struct client *c)
{
	for (unsigned i = 0; i < h->blocks.n; i++) {
		struct handover_block *b = &h->blocks.block[i];
		const char *problem = declare_block(h, c, b);

		g_info("block %s: %s%s%s", b->name, handover_class_name(b->class), *b->why ? ", " : "", b->why);
		if (!problem)
			continue;
		handover_fail(h, EINVAL, same_text, "block %s of QEMU (process %d): %s", b->name, (int)h->pid, problem);
		return false;
	}
	return true;
}

static void declare(struct handover *h, const struct snapshot *s, const struct ram_list *ram)
{
	struct client *c = handover_client(h);
	char why[512];

	handover_blocks_clear(&h->blocks);
	if (!c || c->state != CLIENT_DECLARING) {
		handover_lost(h, s, "the preload in it is not there any more");
	} else if (handover_blocks_find(&h->blocks, s, ram, h->pid, why) < 0) {
		handover_fail(h, EINVAL, same_text, "%s", why);
	} else if (declare_all(h, c)) {
		/* What comes of it is seen in the next phase: a proof takes its time. */
		(void)door_ready(h->door, c);
		/* It has taken the place of one that was lost, if any was. */
		h->reason[0] = h->advice[0] = '\0';
		handover_enter(h, HANDOVER_DECLARED);
	}
}

static void on_ram(void *ctx, const struct ram_list *list, const char *why)
{
	struct handover *h = ctx;
	struct ram_query *query = steal_ptr(&h->query);

	if (h->state == HANDOVER_INMIGRATE && list)
		declare(h, h->ops.snapshot(h->ops.ctx), list);
	else if (h->state == HANDOVER_INMIGRATE)
		handover_fail(h, EPROTO, "this version of QEMU may be unknown here: report its answers to `info ramblock' and `info "
			      "mtree -f'", "QEMU %s (process %d) does not tell what memory it has: %s", h->version, (int)h->pid, why);
	ram_query_free(query);
	handover_step(h);
}

/**
 * handover_query_ram - ask QEMU what memory it has, and declare that
 */
void handover_query_ram(struct handover *h)
{
	h->query = ram_query_new(h->qmp, on_ram, h);
}

/**
 * handover_at_inmigrate - in the phase INMIGRATE
 */
void handover_at_inmigrate(struct handover *h, const struct snapshot *s)
{
	h->listed |= s->need == NEED_BLOCKS;
	if (!handover_asks(h) || h->asked || (h->prepared && !h->listed))
		return;
	h->asked = true;
	if (h->prepared)
		handover_settle(h);
	else
		handover_prepare(h);
}
