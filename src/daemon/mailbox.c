/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/mailbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int mailbox_init(struct mailbox *m, size_t slot_size, uint32_t slots, int doorbell)
{
	*m = (struct mailbox){ .slot_size = slot_size, .slots = slots, .doorbell = doorbell };
	m->slot = calloc(slots, slot_size);
	return m->slot ? 0 : -ENOMEM;
}

void mailbox_deinit(struct mailbox *m)
{
	free(m->slot);
	m->slot = NULL;
}

bool mailbox_put(struct mailbox *m, const void *message)
{
	uint32_t head = __atomic_load_n(&m->head, __ATOMIC_ACQUIRE);

	if (m->tail - head == m->slots)
		return false;
	memcpy(m->slot + (m->tail & (m->slots - 1)) * m->slot_size, message, m->slot_size);
	__atomic_store_n(&m->tail, m->tail + 1, __ATOMIC_RELEASE);
	return true;
}

void mailbox_ring(const struct mailbox *m)
{
	doorbell_ring(m->doorbell);
}

bool mailbox_empty(const struct mailbox *m)
{
	return m->head == __atomic_load_n(&m->tail, __ATOMIC_ACQUIRE);
}

bool mailbox_get(struct mailbox *m, void *message)
{
	if (mailbox_empty(m))
		return false;
	memcpy(message, m->slot + (m->head & (m->slots - 1)) * m->slot_size, m->slot_size);
	__atomic_store_n(&m->head, m->head + 1, __ATOMIC_RELEASE);
	return true;
}

int doorbell_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void doorbell_ring(int fd)
{
	uint64_t one = 1;

	/* The counter cannot overflow in practice, and if it is full the reader is awake already. */
	if (write(fd, &one, sizeof(one)) < 0)
		return;
}

uint64_t doorbell_clear(int fd)
{
	uint64_t n;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}
