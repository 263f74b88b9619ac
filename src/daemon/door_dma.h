/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DOOR_DMA_H
#define PC_DAEMON_DOOR_DMA_H
/*
 * Between door_dma.c, which hears what devices of a VMM reach, and door_dma_keep.c, which leaves
 * that to a successor.
 */
#include "daemon/door_parts.h"
#include "daemon/gatekeeper.h"

struct due {
	struct gate_span span;
	bool told;
};

enum said_state {
	SAID_NOT_MAPPED,
	SAID_TOLD,			/* its client was told to map it */
	SAID_MAPPED,			/* it has */
};

/* A range that is declared. */
struct said {
	struct gate_span span;		/* block: the client's offer */
	enum said_state state;
};

/* A gate, as this client uses it. */
struct dma_gate {
	struct door *door;
	struct client *client;
	char name[REGMSG_NAME];
	int gate;			/* the gatekeeper's number */
	bool own;			/* the client maps */
	bool enforced;			/* own: as it was said with the first range */
	bool told_open, sealed;
	/* a successor does not know all of it, so it must not open it */
	bool torn;
	GArray *early;			/* struct gate_span: what is kept */
	GArray *said;			/* struct said: what a successor declares again */
	struct gate_span asked;		/* the range of the request that is under way */
	unsigned n_due;
	struct due due[SNAPSHOT_DUE];	/* own: to be mapped, or being mapped */
};

/* One more of this client.  NULL with *error. */
struct dma_gate *door_dma_gate(const struct peer *p, const char *name, bool enforced, int *error);
/* A range is declared, or what lies in this one is not any more. */
void door_dma_say(struct dma_gate *g, const struct gate_span *span);
void door_dma_unsay(struct dma_gate *g, const struct gate_span *span);
/* How far the range at this address is. */
void door_dma_note(struct dma_gate *g, uint64_t iova, enum said_state state);
/* The range that begins there; NULL. */
struct said *door_dma_said(const struct dma_gate *g, uint64_t iova);

#endif
