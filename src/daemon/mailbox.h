/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_MAILBOX_H
#define PC_DAEMON_MAILBOX_H
/*
 * A bounded queue of by-value messages from one thread to one other, with a doorbell (eventfd) that
 * the reader may share between several mailboxes.  No locks: the writer owns `tail`, the reader
 * owns `head`.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mailbox {
	uint8_t *slot;
	size_t slot_size;
	uint32_t slots;			/* power of two */
	int doorbell;			/* eventfd, borrowed */
	_Alignas(64) uint32_t tail;	/* writer */
	_Alignas(64) uint32_t head;	/* reader */
};

/* 0 or -ENOMEM. */
int mailbox_init(struct mailbox *m, size_t slot_size, uint32_t slots, int doorbell);
void mailbox_deinit(struct mailbox *m);
/* False when it is full: back-pressure, never a drop. */
bool mailbox_put(struct mailbox *m, const void *message);
/* Tell the reader.  Separate, so that several messages need one system call. */
void mailbox_ring(const struct mailbox *m);
bool mailbox_get(struct mailbox *m, void *message);
bool mailbox_empty(const struct mailbox *m);

/*
 * An eventfd (non-blocking, CLOEXEC), and taking what was rung on it: how often, 0 when not at all.
 */
int doorbell_new(void);
void doorbell_ring(int fd);
uint64_t doorbell_clear(int fd);

#endif
