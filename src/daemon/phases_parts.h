/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_PHASES_PARTS_H
#define PC_DAEMON_PHASES_PARTS_H
/*
 * Between phases.c, which drives a session, phases_devices.c, phases_commands.c, and phases_end.c,
 * which decides when the daemon may end.
 */
#include "daemon/phases.h"

#include "daemon/blockers.h"
#include "daemon/channel.h"
#include "daemon/devices.h"
#include "daemon/devchannel.h"
#include "daemon/faults.h"
#include "daemon/gatekeeper.h"
#include "daemon/handover_qemu.h"
#include "daemon/hooks.h"
#include "daemon/linkwatch.h"
#include "daemon/sourceqmp.h"
#include "daemon/losspolicy.h"
#include "daemon/salvage.h"
#include "daemon/record.h"
#include "daemon/vault.h"
#include "daemon/vhost_list.h"

struct phases {
	const struct options *options;
	struct faultloop *loop;
	struct door *door;
	struct gatekeeper *gates;
	struct devices *devices;
	struct channel *channel;
	struct control *control;
	struct hooks *hooks;
	struct linkwatch *link;
	struct sourceqmp *source_qmp;	/* NULL: nobody but the operator tells the source */
	struct losspolicy *loss;
	struct salvage *salvage;
	struct handover *handover;	/* NULL: the main sharer knows us */
	struct vhost_list *vhosts;
	struct faults *faults;
	struct devspool *spool;		/* state of devices that came */
	struct devchannel *devchannel;	/* NULL: it comes in the package, if at all */
	int state_fd;
	struct snapshot *snapshot;	/* the last one; NULL: none yet */
	struct snapshot *spare;		/* the one to send next; NULL while it is out */
	/* the one that is out: not ours to look at, but ours to free at the end */
	struct snapshot *out;
	bool refresh_again;
	guint notify, retry, end_timer;
	enum session_state seen;
	enum snapshot_need needed;
	struct blockers blockers;	/* their since_ns: when the need was seen first */
	bool state_written, states_spooled, ending;
	bool leaving;			/* told to stop: as soon as the session is refused */
	int leave_code, end_code;
	struct phases_recovery {
		char *here, *there;	/* URIs of where we listen; @there is from `recover' */
		char *made;		/* path of a socket that was made for it */
		uint64_t pause;		/* the pause that this is about: its paused_ns */
		uint64_t until_ns;	/* 0: no limit */
		bool over;		/* that has passed */
		guint timer;
	} recovery;
	uint64_t stop_asked;
	/* phases_adopt.c */
	struct vault *vault;
	struct record *record;		/* NULL: nobody keeps what we leave */
	struct faultloop_adopt adopt;	/* what an earlier process left for the fault thread */
	char adopt_why[256];
	struct phases_upgrade *upgrade;	/* a program is being looked at; NULL */
	char upgrade_problem[256];
	bool lanes_dropped, looked;
	bool handover_done;		/* by an earlier process */
	uint32_t put_handover, put_hooks;
	enum session_state first_state;
	uint64_t first_left;
	void (*ended)(void *ctx, int code);
	void *ctx;
};

/* phases_devices.c: what their state comes by; the devices themselves.  False with *error. */
void phases_start_spool(struct phases *p, const struct phases_fds *fds);
bool phases_start_devices(struct phases *p, GError **error);
bool phases_may_run(void *ctx);
/* phases_link.c: the way to the source.  The channel is there. */
void phases_start_link(struct phases *p);
void phases_free_link(struct phases *p);
void phases_see_link(struct phases *p, struct snapshot *s);
/*
 * phases_faults.c: before anything that could go wrong; @again: an earlier process had the rules of
 * the command line.  NULL: nothing is injected.
 */
struct faultplan *phases_start_faults(struct phases *p, bool again);
/* phases_loss.c: what becomes of a VM whose source is lost.  False with *error. */
bool phases_start_loss(struct phases *p, GError **error);
/* salvage_commands.c: save what is here; the command of that. */
void phases_start_salvage(struct phases *p);
/*
 * phases_adopt.c: what is left to the next process, and what the one before left.  The record and
 * what the fault thread is to begin with; the sharers; may a hand-over begin?  False with *error.
 */
bool phases_take_record(struct phases *p, GError **error);
bool phases_adopt(struct phases *p, GError **error);
bool phases_adopt_handover(struct phases *p);
/* A connection is the source's; @ctx is a struct phases. */
void phases_keep_lane(void *ctx, bool urgent, int fd);
/* phases_upgrade.c: another program in our place.  A command of the control socket. */
bool phases_upgrade(void *ctx, const char *name, const struct jsonmsg *arguments,
		    struct jsonmsg_writer *w, const char *key, GError **error);
void phases_upgrade_free(struct phases *p);
void phases_show_worker(const struct phases *p, struct snapshot_worker *w);
/* What a snapshot shows was done. */
void phases_keep(struct phases *p, const struct snapshot *s);
void phases_see_source(struct phases *p, struct snapshot *s);
/* phases_commands.c: what the control socket may be asked beside the session's state. */
void phases_add_commands(struct phases *p);
/* Ask for a fresh snapshot, or remember to when the one we have is out; @ctx is a struct phases. */
void phases_refresh(void *ctx);
/*
 * For what is no reason to hold a VM that is ours: whether it is, the fault thread knows, and a
 * snapshot only knew.
 */
void phases_refuse(struct phases *p, int error, const char *reason);
/* Refuse, or hold what is ours. */
void phases_stop_session(void *ctx, int error, const char *reason);
/*
 * phases_recover.c: what can be done about a source that is lost.  All for the main thread only.
 */
/*
 * After the commit: end the connections of the source, which then pauses, too, and wait for it to
 * come again.  Nothing before it, or behind the end of the source's stream: it would take its VM
 * back.
 */
void phases_pause(struct phases *p, const char *reason);
/* Why that would do nothing, as far as the last snapshot knows; NULL. */
const char *phases_pause_problem(const struct phases *p);
/*
 * Listen for the resumed source, now: where we listened (@where NULL), or somewhere else from now
 * on.  False with *error: nothing is paused, or nobody can listen there.
 */
bool phases_recover(struct phases *p, const struct options_address *where, GError **error);
/*
 * Give the session up.  Before the commit the source resumes its VM; after it the VM is lost, which
 * only @force does.  False with *error.
 */
bool phases_cancel(struct phases *p, bool force, GError **error);
/* What the program of --hook and the control socket ask: @ctx is a struct phases. */
void phases_hook_ended(void *ctx);
bool phases_control_quit(void *ctx, bool force, const char **why);
/* What a snapshot says of it, and what is said in it. */
void phases_recover_see(struct phases *p, struct snapshot *s);
void phases_recover_blockers(struct phases *p, const struct snapshot *s);
void phases_recover_free(struct phases *p);
/* Soon, when the reply to whoever asked has left. */
void phases_end(struct phases *p, int code);
/* Is it time to end? */
void phases_maybe_end(struct phases *p, const struct snapshot *s);

#endif
