/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DOOR_PARTS_H
#define PC_DAEMON_DOOR_PARTS_H
/*
 * What the files of the native door share: door_native.c has the connections, door_request.c hears
 * what comes on them, door_hello.c lets in, door_declare.c takes what sharers have, door_session.c
 * knows where the session stands, door_mapped.c proves what programs that are unaware of us map,
 * door_prove.c asks what others have mapped, door_orphan.c ends those whose connection is over,
 * door_dma.c takes and tells what devices reach, door_keep.c writes down what a successor needs,
 * door_adopt.c is that successor.
 */
#include "daemon/door_native.h"
#include "daemon/prove.h"
#include "daemon/prover.h"
#include "daemon/remap.h"
#include "sys/fdpass.h"
#include "wire/regmsg.h"

/* A block of the source, as the sharers' offers were matched with it. */
struct matched {
	/* of the first who offered it; its file is not owned (but see owns_files) */
	struct offer offer;
	enum block_kind kind;
};

#define DOOR_NOTES 32			/* MAPPEDs that wait, at a time */

/* A MAPPED that waits until the fault thread has forgotten what was there before. */
struct door_note {
	struct client *client;
	struct regmsg_mapped mapped;
	int reply;			/* owned: where the answer goes */
	bool asked;			/* it is being looked at */
	uint64_t after;			/* so many UNMAPs */
};

struct door {
	int listen_fd;
	guint watch;
	unsigned max_sharers;
	uint32_t next_id;
	struct faultloop *loop;
	struct door_ops ops;
	struct vault *vault;		/* NULL: nobody keeps anything */
	struct record *record;
	GPtrArray *clients;		/* struct client */
	GPtrArray *peers;		/* struct peer */
	bool ran;			/* a VM was told to run */
	bool adopted;			/* from an earlier process */
	bool owns_files;		/* those in ->matched, then */
	bool is_matched;
	/* the session is complete: nothing is registered any more */
	bool released;
	uint64_t unmaps_posted, unmaps_seen;
	unsigned n_notes;
	struct door_note note[DOOR_NOTES];
	GPtrArray *wards;		/* struct door_ward */
	struct gatekeeper *gates;	/* NULL: nobody says what devices reach */
	GPtrArray *dma;			/* struct dma_gate */
	bool dma_serving;		/* faults are served, or were */
	struct prover *prover;
	uint64_t epoch;			/* of the registry: who is there, and who is proven */
	/* the look for strangers */
	bool looking, looked;		/* under way; there is an answer that was not used */
	uint64_t look_epoch;		/* when that look began */
	int strangers;			/* as prove_strangers() */
	char stranger[256];		/* who, as far as is known */
	unsigned n_matched;
	struct matched matched[BLOCK_MAX];
};

/* The connection of a client. */
struct peer {
	struct door *door;
	struct client *client;
	int sock;
	guint watch, death, linger;
	/* of an orphan: until it is looked at; how long that takes next time */
	guint rest;
	unsigned rest_ms;
	bool due;			/* it is to be looked at as soon as it can be */
	/* the serial of the request that waits for a proof; 0: none */
	uint32_t awaited;
	unsigned declared;		/* of one that was taken over: offers it had made */
};

void door_send(struct peer *p, const union regmsg *m, size_t len, int fd);
void door_send_text(struct peer *p, enum regmsg_type type, uint32_t serial, int error,
		    const char *text);
/* The answer to a request; @error: 0, or an errno of either sign. */
void door_result(struct peer *p, uint32_t serial, int error, const char *text);
/* A packet of @len bytes.  0, or a negative code when the connection must end. */
int door_handle(struct peer *p, union regmsg *m, size_t len, struct fdpass *fds);
const struct matched *door_find_matched(const struct door *d, const char *name);
/* Why no sharer of this name and role can come in now, or NULL. */
const char *door_place_taken(struct door *d, const char *name, bool main);
/* Why one that says hello cannot be a sharer, with the error to tell it, or NULL. */
const char *door_hello_problem(struct door *d, const struct regmsg_hello *h, int uffd, int *error);

/*
 * Says hello from a child, with the token of a client that is there: the token is then its own,
 * too.
 */
bool door_is_heir(struct door *d, const struct regmsg_hello *h);

/*
 * One more, with the process at the other end; @sock: -1: it has none, somebody here speaks for it.
 */
struct peer *door_add_peer(struct door *d, pid_t pid, int sock);
/* It is over as a sharer: the fault thread is told. */
void door_end(struct peer *p, enum snapshot_sharer_state how, int error, const char *reason);
struct peer *door_peer_of(const struct door *d, const struct client *c);
/*
 * Free it when nothing refers to it any more: no socket, and a process that is gone or never
 * mattered.
 */
void door_maybe_forget(struct peer *p);
struct client *door_find_client(const struct door *d, uint32_t id);
/* Do what wards wait for, as far as it can be done. */
void door_wards_continue(struct door *d);
/*
 * What others of its process have had registered through userfaultfds of their own, for a copy of
 * it.
 */
void door_note_elsewhere(const struct door *d, const struct client *c, struct client *copy);

/* The shared blocks to look for in who declares nothing; @out: BLOCK_MAX.  Number. */
unsigned door_known_blocks(const struct door *d, struct prove_block *out);
/* Likewise, with copies of their offers (BLOCK_MAX) behind them. */
unsigned door_copy_known_blocks(const struct door *d, struct prove_block *out, struct offer *offer);
/* A MAPPED: answered on @reply, which is owned from here on. */
void door_mapped(struct door *d, struct client *c, const struct regmsg_mapped *m, int reply);
/* The fault thread has forgotten so many mappings. */
void door_mapped_continue(struct door *d, uint64_t unmaps);
void door_mapped_forget(struct door *d, const struct client *c);
void door_mapped_answered(struct door *d, struct client *c, const struct remap *r, int ret,
			  const char *why);
enum door_question {
	DOOR_IS_PROVEN,
	DOOR_MAY_JOIN,
	DOOR_MAY_LEAVE,
	DOOR_IS_RELEASED,
	DOOR_MAY_MAP,
	DOOR_MAPS_NOTHING,
	DOOR_IS_DESERTED
};
/*
 * The answer comes through the main loop, and what follows from it is done then.  0, or -errno with
 * c->problem.
 */
int door_ask(struct door *d, struct client *c, enum door_question what, const unsigned *number);
/* The same for a MAPPED. */
int door_ask_mapped(struct door *d, struct client *c, const struct regmsg_mapped *m);
void door_refuse(struct door *d, struct client *c, const char *why);
void door_hand_over(struct door *d, struct client *c);
/* Its socket is not read until the request at hand is answered. */
void door_wait(struct door *d, struct client *c);
/* Answer the request that waits, if any (@error as in a return value), and go on reading. */
void door_answer(struct door *d, struct client *c, int error, const char *text);
/* Hear what comes on its socket, and of the death of its process. */
void door_watch(struct peer *p);
/* Its socket is over. */
void door_hung_up(struct peer *p);
/* Its process may be, too: that is told soon. */
void door_linger(struct peer *p);
/* Its process has ended.  The caller does not use @p any more. */
void door_died(struct peer *p);
/* The answer to its hello. */
void door_welcome(struct peer *p, uint32_t serial);
/* It has unmapped everything and is over. */
void door_left(struct door *d, struct client *c);
/* It hung up and lives on: does it map nothing of the known blocks? */
void door_lingered(struct door *d, struct client *c, bool maps_nothing);
/* It is known now what is registered of it: was that all that kept it? */
void door_reconsider(struct door *d, struct client *c);
/* Nobody speaks for this ward any more. */
void door_orphan_begin(struct door *d, struct client *c);
/* Something happened in this process: are its orphans in use? */
void door_orphans_suspect(struct door *d, pid_t pid);
/* Look at those that are due and can be looked at. */
void door_orphans_continue(struct door *d);
/* Of a copy: what of its process is certainly registered through another's userfaultfd. */
void door_orphan_note(const struct door *d, const struct client *c, struct client *copy);
/* The answer to DOOR_IS_DESERTED.  The caller does not use @c any more. */
void door_orphan_looked(struct door *d, struct client *c, bool deserted);

/* What is known of a client, or of the door, is what a successor will know: door_keep.c. */
void door_put(const struct door *d, const struct client *c);
void door_put_door(const struct door *d);
/* Its descriptors are kept when they come, and dropped when they are closed for good. */
void door_keep_peer(struct door *d, const struct peer *p);
void door_keep_uffd(const struct door *d, const struct client *c);
/* Those of the shared blocks, once they are matched.  0 or -errno. */
int door_keep_blocks(const struct door *d);
void door_drop_socket(const struct door *d, const struct client *c);
void door_drop(const struct door *d, struct client *c);
/* A packet is about to be read; it was answered, or has no answer. */
void door_note_request(const struct peer *p);
void door_request_over(const struct peer *p);

/* A verb about what devices reach.  0, or a negative code when the connection must end. */
int door_dma(struct peer *p, const union regmsg *m, struct fdpass *fds);
/* Tell what is due.  @serving: faults are served, or were. */
void door_dma_look(struct door *d, bool serving);
/* It is not heard any more. */
void door_dma_forget(struct door *d, const struct client *c);
/* How many ranges it has declared, at all its gates. */
unsigned door_dma_count(const struct door *d, const struct client *c);

#endif
