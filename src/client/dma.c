/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The DMA verbs: what devices reach without faulting, told to the daemon, which holds them back
 * until it is there.  Each verb is one call; what comes of the set (a range is here, the gate is
 * open) comes as events.
 *
 * The library keeps nothing of a set.  So a handle that came back with a token has to declare it
 * anew, as it does with its blocks.
 */
#include "config.h"

#include "postcopy/postcopy.h"

#include <errno.h>
#include <stdlib.h>

#include "client/conn.h"
#include "client/handle.h"
#include "client/sized.h"
#include "wire/regmsg.h"

enum { DMA_V1 = END_OF(postcopy_dma, iova) };

_Static_assert((int)POSTCOPY_DMA_READS == REGMSG_DMA_READS &&
		       (int)POSTCOPY_DMA_WRITES == REGMSG_DMA_WRITES,
	       "directions go over the wire as they are");
_Static_assert((int)POSTCOPY_DMA_COHERENT == REGMSG_DMA_COHERENT &&
		       (int)POSTCOPY_DMA_ENFORCED == REGMSG_DMA_ENFORCED,
	       "so do flags");

/* Of a ring, whatever is said. */
#define BOTH (REGMSG_DMA_READS | REGMSG_DMA_WRITES)

/* What every verb asks first. */
static int may_declare(struct postcopy *p)
{
	handle_begin(p);
	if (p->role != POSTCOPY_ROLE_MAIN)
		return conn_fail(&p->conn, -EPERM,
				 "only the main sharer says what devices reach");
	if (!(p->features & REGMSG_FEATURE_DMA))
		return conn_fail(&p->conn, -ENOTSUP, "this postcopyd knows of no DMA sets");
	return 0;
}

static int call(struct postcopy *p, union regmsg *m)
{
	const char *why;

	if (regmsg_check(m, m->head.size, &why))
		return conn_fail(&p->conn, -EINVAL, "%s", why);
	return conn_call(&p->conn, m, -1);
}

/* --- what is reached --- */

static int declare(struct postcopy *p, const struct postcopy_dma *dma, uint32_t class)
{
	struct postcopy_dma d;
	union regmsg m;
	int err = may_declare(p);

	if (err)
		return err;
	err = sized_take(&d, sizeof(d), DMA_V1, dma);
	if (err)
		return conn_fail(&p->conn, err,
				 "dma: wrong size, or a field set that this version lacks");
	regmsg_init(&m, REGMSG_DMA_MAP, 1);
	m.dma.flags = d.flags | class;
	m.dma.directions = class ? BOTH : d.directions;
	m.dma.iova = d.iova;
	m.dma.length = d.length;
	m.dma.block_offset = d.block_offset;
	err = handle_put_name(&p->conn, m.dma.gate, sizeof(m.dma.gate), d.gate);
	if (!err)
		err = handle_put_name(&p->conn, m.dma.name, sizeof(m.dma.name), d.block);
	return err ? err : call(p, &m);
}

PUBLIC int postcopy_dma_map(postcopy *p, const struct postcopy_dma *dma)
{
	return declare(p, dma, 0);
}

PUBLIC int postcopy_dma_coherent(postcopy *p, const struct postcopy_dma *dma)
{
	return declare(p, dma, REGMSG_DMA_COHERENT);
}

/* --- what is said of it --- */

struct said {
	const char *gate;
	uint64_t iova, length;
	int error;
	uint64_t *written;	/* of the answer; NULL: not of interest */
};

static int say(struct postcopy *p, enum regmsg_type type, const struct said *what)
{
	union regmsg m;
	int err = may_declare(p);

	if (err)
		return err;
	regmsg_init(&m, type, 1);
	m.dma_at.error = what->error;
	m.dma_at.iova = what->iova;
	m.dma_at.length = what->length;
	err = handle_put_name(&p->conn, m.dma_at.gate, sizeof(m.dma_at.gate), what->gate);
	if (!err)
		err = call(p, &m);
	if (!err && what->written)
		*what->written = m.result.written;
	return err;
}

PUBLIC int postcopy_dma_unmap(postcopy *p, const char *gate, uint64_t iova, uint64_t length,
			      uint64_t *written)
{
	return say(p, REGMSG_DMA_UNMAP, &(struct said){ gate, iova, length, 0, written });
}

PUBLIC int postcopy_dma_sync(postcopy *p, const char *gate, uint64_t iova, uint64_t length,
			     uint64_t *written)
{
	return say(p, REGMSG_DMA_SYNC, &(struct said){ gate, iova, length, 0, written });
}

PUBLIC int postcopy_dma_seal(postcopy *p, const char *gate)
{
	return say(p, REGMSG_DMA_SEAL, &(struct said){ .gate = gate });
}

PUBLIC int postcopy_dma_mapped(postcopy *p, const char *gate, uint64_t iova, int error)
{
	/* Of either sign: an errno, or what a function returned. */
	const struct said what = { .gate = gate, .iova = iova, .error = abs(error) };

	return say(p, REGMSG_DMA_MAPPED, &what);
}

PUBLIC int postcopy_dma_retry(postcopy *p, const char *gate, uint64_t iova)
{
	return say(p, REGMSG_DMA_RETRY, &(struct said){ .gate = gate, .iova = iova });
}

PUBLIC int postcopy_dma_reset(postcopy *p, const char *gate)
{
	return say(p, REGMSG_DMA_RESET, &(struct said){ .gate = gate });
}
