/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The phase INMIGRATE: when QEMU is prepared and the source has listed its blocks, QEMU is asked
 * what memory it has, and that is declared at the door, as a program that knows us would do it
 * itself.
 *
 * Asked then, for memory may be plugged in as long as no migration has begun.  But the source may
 * stop its VM in the same moment, so it is asked before, too: what is as it was then takes less
 * time.
 */
#include "config.h"
#include "daemon/handover_parts.h"

#include <errno.h>

#include "core/guard.h"
#include "sys/fd.h"

static const char same_text[] =
	"the QEMU of the destination needs the machine, the memory and the devices of the source";

/* NULL, or what is wrong with it. */
static const char *declare_block(struct handover *h, struct client *c, struct handover_block *b)
{
	struct door_block block = {
		.name = b->name,
		.length = b->length,
		.page_size = b->class == HANDOVER_SHARED ? 0 : b->page_size,
		.file_offset = b->file_offset,
		.file = steal_fd(&b->file),
	};
	struct door_mapping mapping = { .block = b->name,
					.address = b->address,
					.length = b->length };
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

		g_info("block %s: %s%s%s", b->name, handover_class_name(b->class),
		       *b->why ? ", " : "", b->why);
		if (!problem)
			continue;
		handover_fail(h, EINVAL, same_text, "block %s of QEMU (process %d): %s", b->name,
			      (int)h->pid, problem);
		return false;
	}
	return true;
}

/* --- a look at what QEMU has mapped, which may take for ever (prover.c) ----------------------- */

struct look {
	/* never changes */
	uint32_t client;
	pid_t pid;
	struct snapshot *s;
	struct ram_list ram;
	/* the thread's, while it works */
	struct handover_blocks found;
	int ret;
	char why[512];
};

static void look_work(void *job)
{
	struct look *l = job;

	l->ret = handover_blocks_find(&l->found, l->s, &l->ram, l->pid, l->why);
}

static void look_dispose(void *job)
{
	struct look *l = job;

	handover_blocks_clear(&l->found);
	g_free(l->s);
	g_free(l);
}

static void declare(struct handover *h, struct look *l)
{
	const struct snapshot *s = h->ops.snapshot(h->ops.ctx);
	struct client *c = handover_client(h);

	handover_blocks_clear(&h->blocks);
	if (!c || c->state != CLIENT_DECLARING) {
		handover_lost(h, s, "the preload in it is not there any more");
		return;
	}
	if (l->ret < 0) {
		handover_fail(h, EINVAL, same_text, "%s", l->why);
		return;
	}
	h->blocks = l->found;
	l->found.n = 0;
	if (declare_all(h, c)) {
		/* What comes of it is seen in the next phase: a proof takes its time. */
		(void)door_ready(h->door, c);
		/* It has taken the place of one that was lost, if any was. */
		h->reason[0] = h->advice[0] = '\0';
		handover_enter(h, HANDOVER_DECLARED);
	}
}

/*
 * Is it still the answer that is waited for?  QEMU may have been lost meanwhile, and another come.
 */
static bool look_is_over(struct handover *h, const struct look *l)
{
	bool over = h->state == HANDOVER_INMIGRATE && h->looked_at == l->client &&
		    h->client == l->client;

	if (h->looked_at == l->client)
		h->looked_at = 0;
	return over;
}

static void look_done(void *ctx, void *job)
{
	struct handover *h = ctx;

	if (look_is_over(h, job))
		declare(h, job);
	handover_step(h);
}

static void look_overdue(void *ctx, void *job)
{
	struct handover *h = ctx;

	if (look_is_over(h, job))
		handover_fail(
			h, ETIMEDOUT, "the daemon must be able to look into QEMU",
			"QEMU (process %d) does not let its mappings be "
			"seen: no answer of /proc/%d/maps in %u s; something keeps its address space locked",
			(int)h->pid, (int)h->pid, prover_deadline(h->prover));
	handover_step(h);
}

static void look(struct handover *h, const struct ram_list *ram)
{
	static const struct prover_ops ops = { look_work, look_done, look_overdue, look_dispose };
	struct look *l = g_new0(struct look, 1);

	l->client = h->client;
	l->pid = h->pid;
	l->s = g_memdup2(h->ops.snapshot(h->ops.ctx), sizeof(*l->s));
	l->ram = *ram;
	h->looked_at = h->client;
	if (prover_ask(h->prover, &ops, l, h->pid) == 0)
		return;
	h->looked_at = 0;
	handover_fail(h, EBUSY, "the daemon must be able to look into QEMU",
		      "QEMU (process %d) could not be looked at: something keeps "
		      "its address space locked",
		      (int)h->pid);
}

static void on_ram(void *ctx, const struct ram_list *list, const char *why)
{
	struct handover *h = ctx;
	struct ram_query *query = steal_ptr(&h->query);

	if (h->state == HANDOVER_INMIGRATE && list)
		look(h, list);
	else if (h->state == HANDOVER_INMIGRATE)
		handover_fail(
			h, EPROTO,
			"this version of QEMU may be unknown here: report its answers to `info ramblock' and `info "
			"mtree -f'",
			"QEMU %s (process %d) does not tell what memory it has: %s", h->version,
			(int)h->pid, why);
	ram_query_free(query);
	handover_step(h);
}

/**
 * handover_query_ram - ask QEMU what memory it has, and declare that
 */
void handover_query_ram(struct handover *h)
{
	h->query = ram_query_new(h->qmp, steal_ptr(&h->known), on_ram, h);
}

/* Where there is no answer now, it is asked again when it matters. */
static void on_foreseen(void *ctx, const struct ram_list *list, const char *why)
{
	struct handover *h = ctx;
	struct ram_query *query = steal_ptr(&h->query);

	(void)why;
	if (list)
		h->known = query;
	else
		ram_query_free(query);
	handover_step(h);
}

static void foresee(struct handover *h)
{
	if (h->foreseen)
		return;
	h->foreseen = true;
	h->query = ram_query_new(h->qmp, NULL, on_foreseen, h);
}

/**
 * handover_at_inmigrate - in the phase INMIGRATE
 */
void handover_at_inmigrate(struct handover *h, const struct snapshot *s)
{
	h->listed |= s->need == NEED_BLOCKS;
	if (!handover_asks(h) || h->asked || h->looked_at || h->query)
		return;
	if (h->prepared && !h->listed) {
		foresee(h);
		return;
	}
	h->asked = true;
	if (h->prepared)
		handover_settle(h);
	else
		handover_prepare(h);
}
