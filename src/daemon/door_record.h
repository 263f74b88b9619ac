/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DOOR_RECORD_H
#define PC_DAEMON_DOOR_RECORD_H
/*
 * What the door puts into the record, for a process that takes our place: door_keep.c writes it,
 * door_adopt.c reads it.  The descriptors that belong to it are in the vault, by the client's id:
 * sock-ID, pidfd-ID, uffd-ID; of a block that is matched and shared, offer-INDEX.
 *
 * A change here is another layout of the record (record.c).
 */
#include "daemon/door_parts.h"
#include "daemon/record.h"
#include "daemon/vault.h"

#define DOOR_NO_BLOCK 0xff

#define DOOR_SPANS 1500

struct record_gate {
	char name[64];
	uint8_t own, enforced, sealed, told_open, torn;
};

struct record_span {
	uint64_t iova, length, offset;
	uint8_t gate, offer;		/* which of the client's */
	uint8_t class, directions, state;
};

struct record_client {
	uint32_t size;			/* of this struct */
	uint32_t id, state, policy;
	int32_t pid;
	uint32_t flags;			/* door_keep.c has the table */
	uint32_t told;			/* enum client_told: has left */
	/* the request that was read, or is about to be, and has no answer; 0: there is none */
	uint32_t noted, noted_type;
	uint32_t noted_offers, noted_given, noted_spans;	/* how many there were before it */
	uint32_t n_offers, n_given, n_proven;
	uint64_t token;
	char name[64];
	char problem[256];
	/* index of the block; DOOR_NO_BLOCK: of none that is known */
	uint8_t offer[REGISTRY_BLOCKS];
	struct given_mapping given[SHARER_MAPPINGS];
	struct mapping proven[SHARER_MAPPINGS];
	uint32_t n_gates, n_spans;
	struct record_gate gate[SNAPSHOT_GATES];
	struct record_span span[DOOR_SPANS];	/* only as many as there are */
};
_Static_assert(BLOCK_MAX <= DOOR_NO_BLOCK, "every block has an index");
_Static_assert(sizeof(struct record_client) <= RECORD_CLIENT_MAX, "it fits its slot");

struct record_matched {
	char name[256];
	uint64_t length, page_size, file_offset;
	uint32_t kind;			/* enum block_kind */
	uint32_t offered;		/* somebody did */
};

struct record_door {
	uint32_t size;			/* of this struct */
	uint32_t next_id;
	uint32_t ran, released, is_matched;
	uint32_t n_matched;
	struct record_matched matched[BLOCK_MAX];
};
_Static_assert(sizeof(struct record_door) <= RECORD_DOOR_MAX, "it fits its slot");

/* Bytes of one that has @n spans. */
static inline size_t door_record_size(unsigned n)
{
	return offsetof(struct record_client, span) + n * sizeof(struct record_span);
}

/* What the client declared for devices: door_dma_keep.c. */
void door_dma_put(const struct door *d, const struct client *c, struct record_client *r);
void door_dma_revive(struct peer *p, const struct record_client *r);

/* The client's flags as bits, and back. */
uint32_t door_flags_of(const struct client *c);
void door_set_flags(struct client *c, uint32_t flags);
/* "uffd-7" for @what "uffd" and @number 7; @out: DOOR_KEPT_NAME bytes. */
#define DOOR_KEPT_NAME 32
const char *door_kept_name(char *out, const char *what, unsigned number);

#endif
