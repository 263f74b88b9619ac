/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_DOOR_NATIVE_H
#define PC_DAEMON_DOOR_NATIVE_H
/*
 * The door of libpostcopy: the `register` socket.  Speaks regmsg with every sharer, keeps the
 * registry, and tells sharers what the session does.  Main thread only.
 */
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "daemon/faultloop.h"
#include "daemon/registry.h"
#include "daemon/snapshot.h"

struct door;
struct gatekeeper;
struct record;
struct vault;

struct door_ops {
	/* The registry changed: blockers may be gone, the session may go on. */
	void (*changed)(void *ctx);
	void *ctx;
	/*
	 * The main sharer has loaded what it was given: may the VM run?  False: door_go_on() comes
	 * when it is to be asked again.  NULL: it always may.
	 */
	bool (*may_run)(void *ctx);
};

struct door_limits {
	unsigned max_sharers;		/* at a time */
	unsigned prove_timeout_s;	/* for a process to let its mappings be seen */
};

/*
 * @listen_fd: a listening SOCK_SEQPACKET socket, owned from here on.  @vault, @record: where what a
 * successor needs is kept, both or none; they must outlive the door.
 */
struct door *door_new(int listen_fd, const struct door_limits *limits, struct faultloop *loop,
		      const struct door_ops *ops, struct vault *vault, struct record *record);
void door_free(struct door *d);
/*
 * Take over what an earlier process left there, behind door_use_gates() and before the main loop
 * runs: its sharers are handed to the fault thread, which has its blocks already.  0; -errno with
 * *error: nothing of it can be used.
 */
int door_adopt(struct door *d, struct vault *v, struct record *r, GError **error);
/* The main sharer may say what devices reach; @gates must outlive the door. */
void door_use_gates(struct door *d, struct gatekeeper *gates);
/* Has a sharer that is connected declared what its devices reach, and is it not mapped yet? */
bool door_dma_waits(const struct door *d);
/* struct client, in order of arrival. */
GPtrArray *door_clients(struct door *d);
/* The named sharer is READY or JOINED. */
bool door_has(struct door *d, const char *name);
bool door_has_main(struct door *d);
/* It has declared everything, and is being proven for the first time. */
bool door_is_proving(struct door *d, const char *name);
/* Why the named sharer was refused, or NULL. */
const char *door_problem(struct door *d, const char *name);

/* --- what a sharer has: said by itself, or by who speaks for one that is unaware of us ------ */

struct door_block {
	const char *name;
	uint64_t length, page_size;	/* bytes; page_size 0: that of the file */
	uint64_t file_offset;
	/* -1: private memory of the main sharer, whose place door_declare_mapping() tells */
	int file;
};

struct door_mapping {
	const char *block;		/* declared before */
	uint64_t address, length, block_offset;
};

/* The main sharer that said hello as unaware of us and is not ready yet; NULL.  Not to be kept. */
struct client *door_unaware_main(struct door *d);
/* Takes the file over in any case.  0, or -errno with *why (static text). */
int door_declare(struct door *d, struct client *c, const struct door_block *b, const char **why);
int door_declare_mapping(struct client *c, const struct door_mapping *m, const char **why);
/*
 * Everything is declared: has it proven.  0: the client is PROVING, and READY or REFUSED when
 * ops.changed is called, unless it has ended meanwhile; -errno: refused at once.  A refused one's
 * reason is in c->problem.
 */
int door_ready(struct door *d, struct client *c);
/* The device state is, or cannot be, loaded.  0, or -EPROTO when that makes no sense now. */
int door_loaded(struct door *d, struct client *c);
int door_load_failed(struct door *d, struct client *c, const char *text);
/* A main sharer that has loaded may be held: see door_ops.may_run.  Is one? */
bool door_go_on(struct door *d);

/* --- sharers that somebody here speaks for altogether: door_ward.c ---------------------------- */

struct door_ward;

struct door_ward_ops {
	/* The answer to door_ward_prove(): NULL, or what is wrong (valid as long as the ward). */
	void (*proved)(void *ctx, const char *wrong);
	/* It cannot be served any more, or its process has ended. */
	void (*ended)(void *ctx, const char *why);
};

struct door_region {
	uint64_t dev, inode, offset, length;
};

struct door_ward_about {
	const char *name;		/* others may have it, too */
	pid_t pid;
	uint32_t policy;		/* enum regmsg_policy */
	int uffd;			/* of its address space */
};

/* The userfaultfd is owned from here on, in any case.  NULL with *why (static text). */
struct door_ward *door_ward_new(struct door *d, const struct door_ward_about *about,
				const struct door_ward_ops *ops, void *ctx, const char **why);
/*
 * Nobody speaks for it any more: it ends with its process, or when nobody can touch what it served.
 */
void door_ward_free(struct door_ward *w);
/* Is nobody looking at what this process has mapped, and is it not changing? */
bool door_ward_may_change(const struct door *d, pid_t pid);
/* It changes now, or no more; meanwhile nobody hands it over. */
void door_ward_changing(struct door_ward *w, bool changing);
/* Have all that it maps proven; it must map these. */
void door_ward_prove(struct door_ward *w, const struct door_region *told, unsigned n);
/* It is put aside by its policy. */
void door_ward_disable(struct door_ward *w, const char *reason);
/* The registry's id; 0: it has ended. */
uint32_t door_ward_id(const struct door_ward *w);

/* --- the session ------------------------------------------------------------------------------ */

/* What backs each block of the source's list?  0, or -EINVAL with @why (512 bytes). */
int door_match(struct door *d, const struct snapshot *s, uint64_t max_held, char *why);
/* Tell the fault thread what was matched: BLOCK for each, BLOCKS_DONE. */
int door_announce(struct door *d);
/* The file of a block that is matched, which stays the sharer's.  -ENOENT; -ENOTSUP: not shared. */
int door_block_file(const struct door *d, unsigned block, uint64_t *offset);
/*
 * Have every READY sharer proven once more, and handed over then.  0: none is left; 1 with @why
 * (512 bytes): it is being done; -errno: the session fails, @why.
 */
int door_join(struct door *d, char *why);
/*
 * Does anybody unproven map the memory?  1 with @why (256 bytes): somebody does, or may; 2: not
 * known yet; 0; -errno.
 */
int door_strangers(struct door *d, char *why);
/* Tell every sharer what it has not been told of @s. */
void door_tell(struct door *d, const struct snapshot *s);
/*
 * The session is complete: undo the registrations, which takes its time; who is told of the end is
 * released.  Harmless again.
 */
void door_release(struct door *d);
/* Is that done? */
bool door_released(const struct door *d);
/* Add the sharers that the fault thread does not know yet. */
void door_fill(struct door *d, struct snapshot *s);
/* Sharers that are still connected. */
unsigned door_connected(struct door *d);

#endif
