/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "kernel.h"

#include <errno.h>
#include <string.h>

bool kernel_resolve(const struct kernel *k, const struct space *s, uint64_t address, uint64_t *page)
{
	for (unsigned i = 0; i < s->n_pieces; i++) {
		const struct mapping *m = &s->piece[i];

		if (address < m->address || address - m->address >= m->length)
			continue;
		*page = block_page(&k->blocks->block[m->block], address - m->address + m->offset);
		return true;
	}
	return false;
}

bool kernel_address(const struct kernel *k, const struct space *s, uint64_t page, unsigned nth,
		    uint64_t *address)
{
	for (unsigned i = 0; i < s->n_pieces; i++) {
		const struct mapping *m = &s->piece[i];
		const struct block *b = &k->blocks->block[m->block];
		uint64_t first = block_page(b, m->offset);

		if (page < first || page - first >= m->length >> b->page_shift || nth-- > 0)
			continue;
		*address = m->address + ((page - first) << b->page_shift);
		return true;
	}
	return false;
}

/* The bit of an address in the marks of its page. */
static uint32_t mark_of(const struct kernel *k, const struct space *s, uint64_t address,
			uint64_t page)
{
	uint64_t start = address & ~(block_of_page(k->blocks, page)->page_size - 1), other;
	unsigned nth = 0;

	while (kernel_address(k, s, page, nth, &other) && other != start)
		nth++;
	return 1u << nth;
}

bool kernel_poisoned(const struct kernel *k, const struct space *s, uint64_t address)
{
	uint64_t page;

	return kernel_resolve(k, s, address, &page) &&
	       s->marked[page] & mark_of(k, s, address, page);
}

/* What a thread does when nothing holds it back: the access ends, somehow, or faults (again). */
static void look(struct kernel *k, struct space *s, struct thread *t)
{
	if (k->page[t->page].present || kernel_poisoned(k, s, t->address)) {
		t->asleep = false;
		t->message = MESSAGE_NONE;
		return;
	}
	t->asleep = true;
	t->sleep = ++k->sleeps;
	t->message = MESSAGE_QUEUED;
}

void kernel_touch(struct kernel *k, struct space *s, struct thread *t, uint64_t address, bool write)
{
	if (t->asleep || !kernel_resolve(k, s, address, &t->page))
		return;
	t->address = address;
	t->write = write;
	look(k, s, t);
}

void kernel_wake(struct kernel *k, struct space *s, uint64_t address)
{
	uint64_t page;

	if (s->life != SPACE_ALIVE || !kernel_resolve(k, s, address, &page))
		return;
	for (unsigned i = 0; i < s->n_threads; i++) {
		struct thread *t = &s->thread[i];
		const struct block *b = block_of_page(k->blocks, page);

		if (t->asleep && (t->address & ~(b->page_size - 1)) == address)
			look(k, s, t);
	}
}

int kernel_poison(struct kernel *k, struct space *s, uint64_t address)
{
	uint64_t page;

	if (s->life != SPACE_ALIVE)
		return -ESRCH;
	if (!kernel_resolve(k, s, address, &page))
		return -ENOENT;
	if (k->page[page].present || kernel_poisoned(k, s, address))
		return -EEXIST;
	s->marked[page] |= mark_of(k, s, address, page);
	kernel_wake(k, s, address);
	return 0;
}

int kernel_copy(struct kernel *k, struct space *s, uint64_t address, bool zero)
{
	uint64_t page;

	if (s->life != SPACE_ALIVE)
		return -ESRCH;
	if (!kernel_resolve(k, s, address, &page))
		return -ENOENT;
	if (k->page[page].present || kernel_poisoned(k, s, address))
		return -EEXIST;
	k->page[page].present = true;
	k->page[page].zero = zero;
	kernel_wake(k, s, address);
	return 0;
}

void kernel_signal(struct kernel *k, struct space *s, struct thread *t)
{
	if (t->asleep)
		look(k, s, t);
}

void kernel_die(struct space *s)
{
	s->life = SPACE_DEAD;
	s->n_threads = 0;
}

struct space *kernel_space(struct kernel *k, struct sharer_ref ref)
{
	for (unsigned i = 0; i < KERNEL_SPACES; i++) {
		struct space *s = &k->space[i];

		if (s->life != SPACE_NONE && s->ref.slot == ref.slot &&
		    s->ref.generation == ref.generation)
			return s;
	}
	return NULL;
}
