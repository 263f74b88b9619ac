/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One writer, one reader, no lock: each counter is written by one side alone and only ever grows,
 * and a slot belongs to the side that the counters say.  Release on the counter publishes the slot
 * before it, acquire takes it.
 *
 * Full is an outcome.  The main thread waits then (it may), the bulk lane stops reading its socket:
 * nothing is ever dropped, so every message can carry an obligation.
 *
 * The doorbell is an eventfd, so a ring of many messages is one wake-up, and a ring that finds the
 * reader awake costs it one read that yields nothing.
 */
#include "config.h"
#include "daemon/mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/**
 * mailbox_init - an empty mailbox
 * @slot_size: bytes of a message
 * @slots: a power of two
 * @doorbell: eventfd of the reader; stays the caller's and must outlive @m
 *
 * Return: 0 or -ENOMEM.
 */
int mailbox_init(struct mailbox *m, size_t slot_size, uint32_t slots, int doorbell)
{
	*m = (struct mailbox){ .slot_size = slot_size, .slots = slots, .doorbell = doorbell };
	m->slot = calloc(slots, slot_size);
	return m->slot ? 0 : -ENOMEM;
}

/**
 * mailbox_deinit - what is still inside is forgotten: descriptors in it are the caller's to mind
 */
void mailbox_deinit(struct mailbox *m)
{
	free(m->slot);
	m->slot = NULL;
}

/**
 * mailbox_put - the writer's side: copy a message in
 *
 * The reader is not told: mailbox_ring() does, once for any number of messages.
 *
 * Return: false when there is no room; nothing was done then.
 */
bool mailbox_put(struct mailbox *m, const void *message)
{
	uint32_t head = __atomic_load_n(&m->head, __ATOMIC_ACQUIRE);

	if (m->tail - head == m->slots)
		return false;
	memcpy(m->slot + (m->tail & (m->slots - 1)) * m->slot_size, message, m->slot_size);
	__atomic_store_n(&m->tail, m->tail + 1, __ATOMIC_RELEASE);
	return true;
}

/**
 * mailbox_ring - tell the reader that something was put in
 */
void mailbox_ring(const struct mailbox *m)
{
	doorbell_ring(m->doorbell);
}

/**
 * mailbox_empty - for the reader; a message may arrive at once after a true
 */
bool mailbox_empty(const struct mailbox *m)
{
	return m->head == __atomic_load_n(&m->tail, __ATOMIC_ACQUIRE);
}

/**
 * mailbox_get - the reader's side: copy the oldest message out; false when there is none
 */
bool mailbox_get(struct mailbox *m, void *message)
{
	if (mailbox_empty(m))
		return false;
	memcpy(message, m->slot + (m->head & (m->slots - 1)) * m->slot_size, m->slot_size);
	__atomic_store_n(&m->head, m->head + 1, __ATOMIC_RELEASE);
	return true;
}

/**
 * doorbell_new - an eventfd, non-blocking and CLOEXEC, or -errno
 */
int doorbell_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

/**
 * doorbell_ring - make the descriptor readable; from any thread
 */
void doorbell_ring(int fd)
{
	uint64_t one = 1;

	/*
	 * The counter cannot overflow in practice, and if it is full the reader is awake already.
	 */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

/**
 * doorbell_clear - take what was rung: how often since the last time, 0 when not at all
 */
uint64_t doorbell_clear(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}
