/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_FUZZ_RELAYLIFE_H
#define PC_FUZZ_RELAYLIFE_H
/*
 * A vhost_relay between two peers of the test.  What each peer hears is held against what it may
 * hear at that moment; the peers know no plan, only what they said and were told.
 */
#include <stdbool.h>
#include <stdint.h>

#include "daemon/vhost_frame.h"
#include "daemon/vhost_relay_parts.h"

#define RELAYLIFE_ASKED 512
/* The longest message as it goes over the wire. */
#define RELAYLIFE_BYTES (sizeof(struct vhostmsg_head) + sizeof(union vhostmsg_body))

/* What a peer was asked, or has asked, and how that stands. */
struct relaylife_vmm {
	int sock;			/* -1: it is gone */
	bool reads;
	uint64_t protocol, shown;	/* what it chose, of what it was offered */
	bool listening, ack_due, broke;
	/* it chose features; twice, or behind memory, as none may: what was held belies them */
	bool chose, fickle;
	struct vhostmsg asked[RELAYLIFE_ASKED];	/* not answered yet, or not known to need it */
	unsigned first, n;
	uint8_t rest[RELAYLIFE_BYTES];	/* of a message that was begun */
	size_t n_rest;
	struct vhost_frame *hears;
};

struct relaylife_back {
	int sock;
	bool reads;
	uint64_t offers, agreed;
	bool advised, listening, ack_due, proof;
	uint64_t running[VHOSTFRONT_RINGS / 64];
	bool asked;			/* it owes an answer */
	struct vhostmsg owes;
	struct vhost_frame *hears;
};

struct relaylife {
	struct vhostfront_config config;
	struct vhost_relay *relay;
	struct relaylife_vmm vmm;
	struct relaylife_back back;
	int memory, bell;		/* descriptors to give away */
	bool small;			/* sockets that hold little */
	bool good;			/* the back-end answers at once, and as it should */
	bool quiet;			/* nobody looks at its mappings */
	bool telling, proving, waits;
	unsigned finding;
	bool early, resident, over;
};

void relaylife_begin(struct relaylife *l, const struct vhostfront_config *config, bool small);
/* Everything comes to its end as it should; then all is given back. */
void relaylife_end(struct relaylife *l);
/* Until nobody has anything to do. */
void relaylife_settle(struct relaylife *l);

/* @fds of them go along; @first: so many bytes now, the rest with what is said next. */
void relaylife_vmm_says(struct relaylife *l, const struct vhostmsg *m, unsigned fds, size_t first);
void relaylife_prove(struct relaylife *l, const char *wrong);
void relaylife_find(struct relaylife *l, const char *wrong);
void relaylife_join(struct relaylife *l);
void relaylife_hang_up(int *sock);
void relaylife_need(bool promise);
/* A message as it goes over the wire; how long that is. */
size_t relaylife_bytes(uint8_t *bytes, const struct vhostmsg *m);
void relaylife_say(const struct relaylife *l, int sock, const void *data, size_t len, unsigned fds);

/* --- the back-end (relayback.c) --------------------------------------------------------------- */

/* True when there was something. */
bool relayback_reads(struct relaylife *l);
/* Anything, when it has heard all that it was told. */
void relayback_says(struct relaylife *l, const struct vhostmsg *m, unsigned fds);
/* What it owes, as it should; @value: of an answer that is a number. */
void relayback_answer(struct relaylife *l, uint64_t value);
/* It owes an answer. */
void relayback_answer_now(struct relaylife *l, uint64_t value);
/* Its connection is over. */
void relayback_forget(struct relaylife *l);

#endif
