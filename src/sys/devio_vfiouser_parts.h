/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_DEVIO_VFIOUSER_PARTS_H
#define PC_SYS_DEVIO_VFIOUSER_PARTS_H
/*
 * Between devio_vfiouser.c (the device), devio_vfiouser_log.c (what it wrote) and
 * devio_vfiouser_talk.c (questions and answers).
 */
#include "sys/devio_vfiouser.h"
#include "sys/vfiochan.h"

struct vfiouser_link {
	struct vfiochan main, twin; /* twin: what the device asks; may be closed */
	struct vfiomsg_terms terms;
	struct devio_vfiouser_memory memory;
	uint16_t next_id; /* of our next question */
	uint16_t due;	  /* of the next answer to come */
	bool in_hand;	  /* main holds an answer that somebody looks at */
	int dead;	  /* 0, or the -errno by which it ended */
	uint8_t *data;	  /* that the device asked for; owned */
	int region_fds[VFIOMSG_REGIONS]; /* to map them by; -1: none; owned */
};

/*
 * Ask and wait.  @fd goes along and stays the caller's.  @answer: its data are good until the next
 * question.  0, -errno as the device said it (never one of the three that follow), -ETIMEDOUT,
 * -EPROTO, -ECONNRESET.
 */
int vfiouser_link_ask(struct vfiouser_link *l, struct vfiomsg *ask, int fd, struct vfiomsg *answer,
		      uint64_t until);
/* The same, with the tail of the answer in @into, but for its id. */
int vfiouser_link_ask_into(struct vfiouser_link *l, struct vfiomsg *ask,
			   const struct vfiochan_into *into, struct vfiomsg *answer,
			   uint64_t until);
/* Answer one request of the device.  0, -ETIMEDOUT, -EPROTO, -ECONNRESET. */
int vfiouser_link_serve(struct vfiouser_link *l, uint64_t until);
/* The first exchange: who we are, how much data, whether there is a twin. */
int vfiouser_link_agree(struct vfiouser_link *l, bool no_twin, uint64_t until);

/* DMA_LOGGING_START and _REPORT, with the kernel's structs as @data.  0 or -errno. */
int vfiouser_link_log_start(struct vfiouser_link *l, uint32_t flags, void *data, size_t len,
			    uint64_t until);
int vfiouser_link_log_report(struct vfiouser_link *l, uint32_t flags, void *data, size_t len,
			     uint64_t until);

#endif
