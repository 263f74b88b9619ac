/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A back-end does not know the blocks of its VM: it is told of regions, a descriptor with an offset
 * and a length each, at any time.  One access to a page of a mapping that is not registered reads
 * zeroes and makes them true for everybody.  So:
 *
 * - A region is mapped without access.  Then the daemon is told, which finds it in /proc, registers
 *   it and proves that it did.  Only then is it opened.
 * - What the memory holds before the daemon says LISTENING is going to be discarded, so what is
 *   told of earlier stays closed until then.  By then the daemon has proven everything that was
 *   mapped, whether or not it knew at the time whose memory it was.
 * - Nothing is ever opened on the way out of a failure.
 *
 * No page tables are filled by any of this, so there is nothing that MADV_DONTNEED would have to
 * drop, and MADV_REMOVE, which would lose pages that have arrived, is never used.  A child has no
 * userfaultfd, so it does not inherit the mappings.
 */
#include "config.h"

#include "client/shares.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "core/guard.h"

/* --- the gate --- */

static void set_gate(struct shares *s)
{
	bool told = s->listening || s->complete;

	atomic_store(&s->open, s->n > 0 && told && !s->broken && !s->lost);
}

/**
 * shares_queue_set - a queue was started, or stopped
 *
 * Return: 0, or -EINVAL for a number that no queue has.
 */
int shares_queue_set(struct shares *s, unsigned queue, bool started)
{
	uint64_t bit = UINT64_C(1) << (queue % 64);

	if (queue >= SHARES_QUEUES)
		return -EINVAL;
	if (started)
		atomic_fetch_or(&s->started[queue / 64], bit);
	else
		atomic_fetch_and(&s->started[queue / 64], ~bit);
	return 0;
}

/**
 * shares_queue_open - may memory be touched for this queue?  Any thread may ask.
 */
bool shares_queue_open(const struct shares *s, unsigned queue)
{
	uint64_t bit = UINT64_C(1) << (queue % 64);

	return queue < SHARES_QUEUES && atomic_load(&s->open) &&
	       atomic_load(&s->started[queue / 64]) & bit;
}

/* --- regions --- */

/* Huge pages are mapped whole, however a region lies in them. */
static int page_size_of(int fd, uint64_t *page)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*page = fs.f_type == HUGETLBFS_MAGIC ? (uint64_t)fs.f_bsize
					     : (uint64_t)sysconf(_SC_PAGESIZE);
	return 0;
}

/* Without access; *@offset becomes that of the mapping. */
static int map_closed(struct share *new, const struct shares_region *r, uint64_t *offset)
{
	uint64_t page = 0, end, delta;
	void *base;
	int err = page_size_of(r->fd, &page);

	if (err)
		return err;
	if (!r->length || r->length > SIZE_MAX - 2 * page ||
	    r->offset > INT64_MAX - r->length - page)
		return -EINVAL;
	*offset = r->offset & ~(page - 1);
	delta = r->offset - *offset;
	end = (delta + r->length + page - 1) & ~(page - 1);
	base = mmap(NULL, end, PROT_NONE, MAP_SHARED | MAP_NORESERVE, r->fd, (off_t)*offset);
	if (base == MAP_FAILED)
		return -errno;
	*new = (struct share){ .base = base, .length = end, .address = (uint8_t *)base + delta };
	return 0;
}

/* A kernel without transparent huge pages knows no such advice and needs none. */
static int advise(const struct share *s)
{
	if (madvise(s->base, s->length, MADV_NOHUGEPAGE) < 0 && errno != EINVAL)
		return -errno;
	return madvise(s->base, s->length, MADV_DONTFORK) < 0 ? -errno : 0;
}

static int open_up(const struct share *s)
{
	return mprotect(s->base, s->length, PROT_READ | PROT_WRITE) < 0 ? -errno : 0;
}

/* That nobody has taken an event does not make it untrue. */
static void catch_up(struct shares *s, struct conn *c)
{
	s->complete |= conn_waits(c, POSTCOPY_EVENT_COMPLETE);
}

/* Have it registered and proven.  0 or -errno. */
static int have_it_served(struct conn *c, const struct share *s, int fd, uint64_t offset)
{
	union regmsg m;
	struct stat st;
	int verdict;

	if (fstat(fd, &st) < 0)
		return conn_fail(c, -errno, "fstat: %s", strerror(errno));
	regmsg_init(&m, REGMSG_MAPPED, 1);
	m.mapped.address = (uintptr_t)s->base;
	m.mapped.length = s->length;
	m.mapped.file_offset = offset;
	m.mapped.dev = st.st_dev;
	m.mapped.inode = st.st_ino;
	verdict = conn_ask(c, &m);
	return verdict < 0 ? verdict : 0;
}

static int explain(struct conn *c, int err, const char *what)
{
	return err ? conn_fail(c, err, "%s: %s", what, strerror(-err)) : 0;
}

/* It is mapped and closed: everything until it may be kept. */
static int prepare(struct shares *s, struct conn *c, const struct share *new, int fd,
		   uint64_t offset)
{
	int err = explain(c, advise(new), "madvise of a region");

	catch_up(s, c);
	if (!err && !s->complete)
		err = have_it_served(c, new, fd, offset);
	if (!err && (s->listening || s->complete))
		err = explain(c, open_up(new), "mprotect of a region");
	return err;
}

/**
 * shares_add - map a region and have it served
 *
 * Return: 0 with *@address; -ENOSPC, -ECONNRESET, what the daemon answered, or another -errno, and
 * it is not mapped.
 */
int shares_add(struct shares *s, struct conn *c, const struct shares_region *region, void **address)
{
	struct share new = { .length = 0 };
	uint64_t offset = 0;
	int err;

	s->broken &= s->n > 0;
	if (s->n == SHARES_MAX)
		err = conn_fail(c, -ENOSPC, "%d regions are shared already", SHARES_MAX);
	else
		err = explain(c, map_closed(&new, region, &offset), "cannot map a region");
	if (!err) {
		err = prepare(s, c, &new, region->fd, offset);
		if (err)
			munmap(new.base, new.length);
	}
	if (err) {
		s->broken = true;
	} else {
		s->share[s->n++] = new;
		*address = new.address;
	}
	set_gate(s);
	return err;
}

/**
 * shares_drop - unmap a region
 *
 * The daemon notices that when it next looks.
 *
 * Return: 0, or -EINVAL when there is no such region.
 */
int shares_drop(struct shares *s, void *address)
{
	for (unsigned i = 0; i < s->n; i++) {
		if (s->share[i].address != address)
			continue;
		munmap(s->share[i].base, s->share[i].length);
		s->share[i] = s->share[--s->n];
		s->broken &= s->n > 0;
		set_gate(s);
		return 0;
	}
	return -EINVAL;
}

/* --- events --- */

static int open_all(const struct shares *s)
{
	int err = 0;

	for (unsigned i = 0; i < s->n && !err; i++)
		err = open_up(&s->share[i]);
	return err;
}

/**
 * shares_hear - the daemon said something
 * @event: becomes DISABLED when the memory cannot be opened
 */
void shares_hear(struct shares *s, struct postcopy_event *event)
{
	int err = 0;

	switch (event->type) {
	case POSTCOPY_EVENT_LISTENING:
		s->listening = true;
		err = open_all(s);
		break;
	case POSTCOPY_EVENT_COMPLETE:
		s->complete = true;
		err = open_all(s);
		break;
	case POSTCOPY_EVENT_FAILED:
	case POSTCOPY_EVENT_DISABLED:
	case POSTCOPY_EVENT_DISCONNECTED:
		s->lost |= !s->complete;
		break;
	default:
		break;
	}
	if (err) {
		s->lost = true;
		event->type = POSTCOPY_EVENT_DISABLED;
		event->error = -err;
		snprintf(event->text, sizeof(event->text), "cannot open the memory: %s",
			 strerror(-err));
	}
	set_gate(s);
}
