/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_VIEW_H
#define PC_TOOLS_CTL_VIEW_H
/*
 * What a postcopyd told about itself, as plain data for the renderers.  Every text is safe to write
 * to a terminal: names come from processes that nobody has to trust.
 */
#include <stdbool.h>
#include <stdint.h>
#include "core/stats.h"
#include "wire/jsonmsg.h"

#define CTL_VIEW_BLOCKS	  64
#define CTL_VIEW_SHARERS  64
#define CTL_VIEW_BLOCKERS 128
#define CTL_VIEW_PHASES	  64
#define CTL_VIEW_DEVICES  64

struct ctl_device_state {
	char id[64], kind[16], state[16];
	uint64_t attempts, segments, bytes, received;
};

struct ctl_status {
	char state[24], machine[128], source[128], reason[512];
	/* Moments of the daemon's CLOCK_MONOTONIC; 0: not yet. */
	uint64_t now_ns, state_since_ns, started_ns, switchover_ns, listening_ns;
	uint64_t first_fault_ns, first_served_ns, running_ns, complete_ns;
	bool committed, commit_ping, urgent_lane, ownership_unknown;
	uint64_t package_bytes, package_device_bytes;
	uint64_t owed, owed_left, faults_in_flight, requests_in_flight, store_bytes;
	uint64_t n_blocks, n_sharers;
	/* the way to the source; path: "up", "down", "": it is not watched */
	char path[8], interface[24], local[64], peer[64], via[64], cause[192], resume[320];
	char source_qmp[16], source_qmp_text[320]; /* step of --source-qmp; "": there is none */
	uint64_t path_since_ns, rtt_us, rttvar_us, retransmits;
	bool injects;	/* faults may be injected */
	uint64_t fault_rules, fault_fires;
	char channel[160], channel_session[40], channel_peer[128], channel_problem[256];
	uint64_t channel_bytes;
	unsigned n_device_states;
	struct ctl_device_state device_state[CTL_VIEW_DEVICES];
};

struct ctl_block {
	char name[64], kind[16];
	uint64_t sharers, length, page_size, pages, owed;
	uint64_t present, missing, requested, stored, zero, lost, unplaced;
};

struct ctl_sharer {
	char name[64], policy[16], state[16], reason[256];
	bool main;
	int64_t pid;
	uint64_t id, generation, state_since_ns, mappings, mapped_bytes, waiting, oldest_wait_ns;
};

struct ctl_latency {
	uint64_t count, mean_ns, p50_ns, p90_ns, p99_ns, max_ns;
};

struct ctl_sharer_stats {
	char name[64];
	uint64_t id, faults, reads, writes, duplicates, refaults, present;
	uint64_t requests, wakes, spurious;
	uint64_t blocked_ns, blocked_threads_ns;
	struct ctl_latency latency[STAGE_COUNT];
};

struct ctl_lane {
	uint64_t bytes, pages[HOW_COUNT], duplicates, batches;
};

struct ctl_stats {
	uint64_t now_ns;
	struct ctl_sharer_stats total, sharer[CTL_VIEW_SHARERS];
	unsigned n_sharers;
	struct ctl_lane lane[LANE_COUNT];
	uint64_t requests, requested_pages, rerequested, removed, alarms, lost;
	uint64_t again, place_fallbacks, return_bytes;
	uint64_t ring_syscalls, other_syscalls;
};

struct ctl_blocker {
	char name[64], step[32], text[256];
	uint64_t since_ns;
};

struct ctl_phase {
	char name[24];
	uint64_t at_ns;
};

struct ctl_handover_block {
	char name[64], class[16], why[96];
};

struct ctl_handover {
	char phase[24], waits_for[512], deadline_reason[128], error[512], advice[384],
		not_continued[160];
	char version[32], status[32], ran_at_source[32];
	uint64_t now_ns, since_ns, deadline_ns;
	uint64_t attempt, stream_bytes;
	int64_t pid;
	unsigned n_blocks, n_phases;
	struct ctl_handover_block block[CTL_VIEW_BLOCKS];
	struct ctl_phase timeline[CTL_VIEW_PHASES];
};

struct ctl_view {
	struct ctl_status status;
	struct ctl_block block[CTL_VIEW_BLOCKS];
	struct ctl_sharer sharer[CTL_VIEW_SHARERS];
	struct ctl_blocker blocker[CTL_VIEW_BLOCKERS];
	struct ctl_stats stats;
	struct ctl_handover handover;
	unsigned n_blocks, n_sharers, n_blockers;
};

enum ctl_part {
	CTL_STATUS, CTL_SHARERS, CTL_BLOCKS, CTL_STATS, CTL_BLOCKERS,
	/* every daemon has those before, so `watch' asks for them */
	CTL_WATCHED,
	CTL_HANDOVER = CTL_WATCHED, CTL_PARTS,
};

/* The command that asks for a part of the view. */
const char *ctl_view_command(enum ctl_part part);
/* Read the "return" of that command into its part of @v.  What is missing reads as 0 or "". */
void ctl_view_read(struct ctl_view *v, enum ctl_part part, const struct jsonmsg *from);

#endif
