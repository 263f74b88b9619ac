/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_HANDOVER_PARTS_H
#define PC_DAEMON_HANDOVER_PARTS_H
/*
 * What the files of the hand-over share: handover_qemu.c knows how far it is, handover_prepare.c
 * makes QEMU ready to take a stream, handover_ram.c asks it what memory it has, handover_blocks.c
 * decides how each block gets there, handover_declare.c says so at the door, handover_stream.c
 * sends the stream, handover_freeze.c stops the VM for a while, handover_fail.c decides what
 * becomes of it when a QEMU is lost, handover_report.c tells.
 */
#include <glib.h>
#include "daemon/handover_blocks.h"
#include "daemon/handover_qemu.h"
#include "daemon/handover_ram.h"
#include "daemon/handover_stream.h"
#include "daemon/prover.h"
#include "daemon/qmp.h"
#include "wire/qglobalstate.h"

enum handover_state {
	HANDOVER_WAIT_QMP,	/* its monitor does not answer yet */
	HANDOVER_WAIT_PRELOAD,	/* the preload in it has not said hello */
	HANDOVER_INMIGRATE,	/* it waits for a stream; the source has not listed its blocks */
	HANDOVER_DECLARED,	/* its memory is registered; the source has not switched over */
	HANDOVER_PRIVATE,	/* pages that must be in the stream are on their way */
	HANDOVER_STREAMING,
	HANDOVER_LOADING,	/* it has the whole stream */
	HANDOVER_LOADED,	/* our answer to the source is on its way */
	HANDOVER_CONT,
	HANDOVER_RUNNING,	/* or left paused, as it was at the source or as was asked */
	HANDOVER_COMPLETE,
	HANDOVER_FAILED,
	/* the QEMU is gone before it had loaded: another may take its place */
	HANDOVER_RETRY,
	HANDOVER_STATES,
};

#define HANDOVER_TIMELINE 64

/* Stopped here, for its source is lost: see handover_freeze.c. */
enum handover_frozen {
	FROZEN_NOT,
	FROZEN_ASKING,		/* whether it runs */
	FROZEN_STOPPING,	/* it was told to; not answered yet */
	FROZEN_STOPPED,
	FROZEN_GOING_ON,	/* it was told to; not answered yet */
	FROZEN_IDLE,		/* it did not run */
	FROZEN_CANNOT,
};

struct handover_moment {
	enum handover_state state;
	uint64_t at_ns;
};

struct handover {
	const struct options *options;
	struct door *door;
	struct faultloop *loop;
	struct handover_ops ops;
	struct prover *prover;		/* for looks at the mappings of QEMU */

	enum handover_state state;
	uint64_t since_ns;
	uint64_t retry_until_ns;	/* for the next QEMU to be declared; 0: no limit */
	/* an earlier QEMU was lost after the source's list was matched */
	bool retrying;
	unsigned n_moments;
	struct handover_moment moment[HANDOVER_TIMELINE];
	unsigned attempt;		/* of a QEMU, from 1 */
	char reason[512], advice[384];	/* of FAILED and RETRY */
	bool stopped;			/* the session was told of this failure */

	/* of the QEMU at hand */
	struct qmp *qmp;		/* owned; NULL */
	uint64_t reopen_ns;		/* no new connection to the monitor before */
	char monitor_said[160];		/* how the last one ended; "" */
	pid_t pid;			/* 0: not known yet */
	uint32_t client;		/* the door's id of it; 0 */
	pid_t stranger;			/* a preload that said hello from another process; 0 */
	char version[32], status[32];
	unsigned preparation;		/* how many steps of handover_prepare.c are done */
	bool prepared;
	/* what this state asks is out; ask once more when it is answered */
	bool asked, again;
	uint64_t asked_ns;
	struct ram_query *query;	/* owned; NULL */
	struct ram_query *known;	/* owned: of what there was before the source came; NULL */
	bool foreseen;			/* that was asked for */
	/* the door's id of the QEMU whose mappings are being looked at; 0 */
	uint32_t looked_at;
	struct handover_stream *stream;	/* owned; NULL */
	bool sent, closed;		/* all of the stream; by QEMU, behind its end */
	uint64_t stream_bytes;		/* of the last stream, once it is over */

	bool listed;			/* the source's block list is whole */
	struct handover_blocks blocks;	/* how each gets there, once declared */
	struct qglobalstate run;	/* what the VM did at the source */
	uint64_t wanted_ns;		/* when pages were last asked for ahead of need */
	char left[160];			/* why it was not told to go on; "" */
	enum handover_frozen frozen;
	guint timer;
};

const char *handover_state_name(enum handover_state state);

/* handover_declare.c: the phase INMIGRATE. */
void handover_at_inmigrate(struct handover *h, const struct snapshot *s);
void handover_query_ram(struct handover *h);

/* handover_prepare.c: one step after the other, then h->prepared and handover_step(). */
void handover_prepare(struct handover *h);
/* Then, when the source has listed its memory; handover_query_ram() follows. */
void handover_settle(struct handover *h);

/* handover_fail.c: this QEMU is gone. */
void handover_lost(struct handover *h, const struct snapshot *s, const char *how);
/* This QEMU will not do.  @error: positive errno. */
void handover_fail(struct handover *h, int error, const char *advice, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* The phase FAILED: tell whoever comes late; begin anew where nothing is lost. */
void handover_at_failed(struct handover *h, const struct snapshot *s);

/* handover_qemu.c, for the others. */
bool handover_asks(struct handover *h);
void handover_enter(struct handover *h, enum handover_state state);
void handover_drop_qemu(struct handover *h);
struct client *handover_client(const struct handover *h);

#endif
