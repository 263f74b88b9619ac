/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that maps guest memory without being registered does not fault: it reads zeroes, and in
 * a shared file those zeroes become everybody's page.  So nobody's word counts here.  The mappings
 * are those that /proc/PID/maps shows of the file's device and inode, the daemon registers them
 * itself, and then smaps has to show `um' on every byte.
 *
 * That works from outside because UFFDIO_REGISTER acts on the address space of the process that
 * opened the userfaultfd, whoever issues it (tests/kernel/owner.c).  A descriptor that belongs to
 * another process registers something, but not this process's memory: smaps tells.
 *
 * What cannot be seen is a stated limit: a process in another pid namespace, or one we have no
 * ptrace right for.  It shows later, as EEXIST on a page that nobody placed.
 */
#include "config.h"
#include "daemon/prove.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "core/guard.h"
#include "sys/maps.h"
#include "sys/uffd.h"

#define WHY 256

/**
 * prove_mapping - register a mapping, unless the sharer did, and verify it
 * @m: can_zero is set
 * @why: 256 bytes
 *
 * Return: 0 or -errno.
 */
int prove_mapping(const struct client *c, struct mapping *m, char *why)
{
	uint64_t at = 0;
	unsigned can = 0;
	int ret;

	/*
	 * Again through the same userfaultfd is harmless, and tells what the range can do, so
	 * self-registered ones take it too.
	 */
	ret = uffd_register(c->uffd, m->address, m->length, &can);
	if (ret < 0) {
		snprintf(why, WHY,
			 "cannot register 0x%" PRIx64 "+0x%" PRIx64 " of process %d: %s%s",
			 m->address, m->length, (int)c->pid, strerror(-ret),
			 ret == -EBUSY ? " (another userfaultfd has it)" : "");
		return ret;
	}
	ret = maps_proven(c->pid, m->address, m->address + m->length, &at);
	if (ret <= 0) {
		snprintf(why, WHY,
			 "0x%" PRIx64
			 " of process %d is not registered although the kernel said so (is the "
			 "userfaultfd that of another process, or is /proc/%d hidden from us?)",
			 at, (int)c->pid, (int)c->pid);
		return ret < 0 ? ret : -EPERM;
	}
	m->can_zero = can & UFFD_CAN_ZERO;
	return 0;
}

static int too_many(char *why)
{
	snprintf(why, WHY, "more than %d mappings", SHARER_MAPPINGS);
	return -ENOSPC;
}

/* Is all of it what others have in this process? */
static bool is_others(const struct client *c, const struct mapping *m)
{
	uint64_t at = m->address, end = m->address + m->length, from;

	do {
		from = at;
		for (unsigned i = 0; i < c->n_elsewhere; i++)
			if (c->elsewhere[i].address <= at &&
			    at - c->elsewhere[i].address < c->elsewhere[i].length)
				at = c->elsewhere[i].address + c->elsewhere[i].length;
	} while (at < end && at > from);
	return at >= end;
}

/*
 * Is all of it registered through another userfaultfd of ours?  A process that is several back-ends
 * has one for each, and whatever touches this mapping waits for us all the same.
 */
static bool is_elsewhere(const struct client *c, const struct mapping *m)
{
	uint64_t at;

	return is_others(c, m) &&
	       maps_proven(c->pid, m->address, m->address + m->length, &at) > 0;
}

/* Prove and remember. */
static int prove_range(struct client *c, struct mapping m, char *why)
{
	int ret = prove_mapping(c, &m, why);

	if (ret == -EBUSY && is_elsewhere(c, &m))
		return 0;
	if (ret == 0 && c->n_proven == SHARER_MAPPINGS)
		ret = too_many(why);
	if (ret == 0)
		c->proven[c->n_proven++] = m;
	return ret;
}

/* The part of a file mapping that shows the block; false when it shows none of it. */
static bool clip(const struct offer *o, const struct maps_vma *v, struct mapping *m)
{
	uint64_t start = v->offset, end = v->offset + (v->end - v->start);
	uint64_t first = o->file_offset, last = o->file_offset + o->length;

	if (start < first)
		start = first;
	if (end > last)
		end = last;
	if (start >= end)
		return false;
	m->address = v->start + (start - v->offset);
	m->length = end - start;
	m->offset = start - first;
	return true;
}

/*
 * Add where one block is mapped to @out, which has @n of them.  How many there are then, or -errno.
 */
static int find_block(pid_t pid, const struct prove_block *b, struct mapping *out, unsigned n,
		      char *why)
{
	const struct offer *o = b->offer;
	cleanup_free struct maps_vma *vma = NULL;
	int n_vma = maps_of_file(pid, o->identity.dev, o->identity.inode, &vma);

	if (n_vma < 0) {
		snprintf(why, WHY, "cannot read /proc/%d/maps: %s", (int)pid, strerror(-n_vma));
		return n_vma;
	}
	for (int i = 0; i < n_vma; i++) {
		struct mapping m = { .block = (uint16_t)b->number };

		if (!clip(o, &vma[i], &m))
			continue;
		if (!vma[i].shared) {
			snprintf(why, WHY,
				 "block %.96s is mapped MAP_PRIVATE at 0x%" PRIx64
				 ": a copy-on-write view would never "
				 "see later pages; map it MAP_SHARED",
				 o->name, vma[i].start);
			return -EINVAL;
		}
		if (n == SHARER_MAPPINGS)
			return too_many(why);
		out[n++] = m;
	}
	return (int)n;
}

/**
 * prove_find - where a process maps these blocks now; nothing is registered
 * @out: SHARER_MAPPINGS of them
 * @why: 256 bytes
 *
 * A file mapping is found, not named: what the sharer says about it is not asked for.
 *
 * Return: how many mappings, or -errno.
 */
int prove_find(pid_t pid, const struct prove_block *b, unsigned n, struct mapping *out, char *why)
{
	int found = 0;

	for (unsigned i = 0; i < n && found >= 0; i++)
		found = find_block(pid, &b[i], out, (unsigned)found, why);
	return found;
}

static int prove_shared(struct client *c, const struct offer *o, unsigned number, char *why)
{
	const struct prove_block block = { .offer = o, .number = number };
	struct mapping found[SHARER_MAPPINGS];
	int n = prove_find(c->pid, &block, 1, found, why), ret = 0;

	if (n == 0) {
		snprintf(why, WHY, "block %.96s is not mapped in process %d", o->name, (int)c->pid);
		return -ENOENT;
	}
	for (int i = 0; i < n && ret == 0; i++)
		ret = prove_range(c, found[i], why);
	return n < 0 ? n : ret;
}

/* Private memory has no file to find it by: every byte must lie in a mapping that was named. */
static int prove_private(struct client *c, unsigned offer, unsigned number, char *why)
{
	uint64_t covered = 0;

	for (unsigned i = 0; i < c->n_given; i++) {
		const struct given_mapping *g = &c->given[i];
		struct mapping m = {
			.block = (uint16_t)number,
			.address = g->address,
			.length = g->length,
			.offset = g->block_offset,
		};
		int ret;

		if (g->offer != offer)
			continue;
		ret = prove_range(c, m, why);
		if (ret < 0)
			return ret;
		/*
		 * Only ranges of small pages can be zeroed in place, which tells them from huge
		 * ones.
		 */
		if (c->proven[c->n_proven - 1].can_zero != (c->offer[offer].page_size == 4096)) {
			snprintf(
				why, WHY,
				"private block %s: its memory does not consist of pages of %" PRIu64
				" bytes",
				c->offer[offer].name, c->offer[offer].page_size);
			return -EINVAL;
		}
		covered += g->length;
	}
	if (covered == c->offer[offer].length)
		return 0;
	snprintf(why, WHY, "private block %s: %" PRIu64 " of %" PRIu64 " bytes have an address",
		 c->offer[offer].name, covered, c->offer[offer].length);
	return -EINVAL;
}

/*
 * The kernel touches this memory for the sharer: does its userfaultfd let such accesses wait?  A
 * USER_MODE_ONLY one gives them EFAULT, and no interface tells an outsider which kind it is, so a
 * kernel access to a page that is missing finds out.  A few addresses of each mapping are tried
 * until one is missing; where none is, nothing can be found out and nothing is refused.
 *
 * Found out once: it was opened as the one or the other kind and stays that.
 */
static int prove_kernel(struct client *c, char *why)
{
	if (c->kernel_waits)
		return 0;
	for (unsigned i = 0; i < c->n_proven; i++) {
		const struct mapping *m = &c->proven[i];

		for (uint64_t at = 0; at < m->length; at += (m->length / 8 & ~4095ull) + 4096) {
			int ret = uffd_probe_kernel(c->pid, m->address + at);

			c->kernel_waits = ret == UFFD_FIT;
			if (c->kernel_waits || (ret < 0 && ret != -EEXIST))
				return 0;
			if (ret == UFFD_USER_ONLY) {
				snprintf(
					why, WHY,
					"its userfaultfd is USER_MODE_ONLY: kernel accesses (KVM, read, O_DIRECT) would "
					"get EFAULT; open it with privilege or through /dev/userfaultfd");
				return -EACCES;
			}
		}
	}
	return 0;
}

/**
 * prove_client - register and verify every mapping that a sharer declared, or has of its shared
 * blocks
 * @c: c->proven is filled
 * @number: the engine's block number of each of its offers
 * @why: 256 bytes: on failure what is wrong and what to do
 *
 * Proving again is harmless and finds what was mapped since.  After a failure something may be
 * registered: c->registered says whether everything is.
 *
 * Return: 0 or -errno.
 */
int prove_client(struct client *c, const unsigned *number, char *why)
{
	c->n_proven = 0;
	c->registered = false;
	for (unsigned i = 0; i < c->n_offers; i++) {
		const struct offer *o = &c->offer[i];
		int ret = o->private ? prove_private(c, i, number[i], why) :
				       prove_shared(c, o, number[i], why);

		if (ret < 0)
			return ret;
	}
	c->registered = true;
	return c->needs_kernel ? prove_kernel(c, why) : 0;
}

/**
 * prove_found - register and verify whatever a sharer that declares nothing maps of these blocks
 * @c: c->proven is filled, with nothing when it maps none of them
 * @why: 256 bytes
 *
 * Its userfaultfd is not tried with an access of the kernel: what opens it for such a program knows
 * no other kind, and there may be no page to try it with.
 *
 * Return: 0 or -errno.
 */
int prove_found(struct client *c, const struct prove_block *b, unsigned n, char *why)
{
	struct mapping found[SHARER_MAPPINGS];
	int n_found = prove_find(c->pid, b, n, found, why), ret = 0;

	c->n_proven = 0;
	c->registered = false;
	for (int i = 0; i < n_found && ret == 0; i++)
		ret = prove_range(c, found[i], why);
	c->registered = n_found >= 0 && ret == 0;
	return n_found < 0 ? n_found : ret;
}

/**
 * prove_release - undo the registrations
 *
 * With every page there an UNREGISTER changes nothing for the sharer but its speed.
 *
 * Return: true when no `um' is left, or the process is gone.
 */
bool prove_release(struct client *c)
{
	bool clean = true;

	for (unsigned i = 0; i < c->n_proven; i++) {
		const struct mapping *m = &c->proven[i];

		uffd_unregister(c->uffd, m->address, m->length);
		clean &= maps_released(c->pid, m->address, m->address + m->length) != 0;
	}
	return clean;
}

/**
 * prove_unmapped - does nothing of it map the blocks any more?
 *
 * The condition for leaving: a mapping that stays without being served would read zeroes.
 */
bool prove_unmapped(const struct client *c)
{
	for (unsigned i = 0; i < c->n_offers; i++) {
		cleanup_free struct maps_vma *vma = NULL;

		if (!c->offer[i].private && maps_of_file(c->pid, c->offer[i].identity.dev,
							 c->offer[i].identity.inode, &vma) > 0)
			return false;
	}
	for (unsigned i = 0; i < c->n_given; i++)
		if (maps_released(c->pid, c->given[i].address,
				  c->given[i].address + c->given[i].length) == 0)
			return false;
	return true;
}

/**
 * prove_deserted - can nobody reach a page through what was registered for @c any more?
 * @c: c->elsewhere: what is certainly not registered through its userfaultfd
 * @b: the shared blocks
 *
 * Then the last close of its userfaultfd is noticed by nobody (tests/kernel/unmapping.c).  Nothing
 * is done to find it out.  In doubt the answer is no: a mapping without an owner, a process that
 * cannot be looked at.
 *
 * The order matters: who sleeps is counted when nothing is mapped in which another could fall
 * asleep, and that the process still showed its mappings is asked behind having looked at them.
 */
bool prove_deserted(const struct client *c, const struct prove_block *b, unsigned n)
{
	struct mapping found[SHARER_MAPPINGS];
	char why[WHY];
	int n_found = prove_find(c->pid, b, n, found, why);
	unsigned asleep = 0;

	for (int i = 0; i < n_found; i++) {
		uint64_t start = found[i].address, end = start + found[i].length;

		if (!is_others(c, &found[i]) && maps_released(c->pid, start, end) != 1)
			return false;
	}
	if (n_found < 0 || maps_wait(c->pid) < 0)
		return false;
	return uffd_waiting(c->uffd, &asleep) == 0 && asleep == 0;
}

/* Proven, or refused after all that it maps was registered: whatever it touches waits. */
static bool known(const GPtrArray *clients, pid_t pid)
{
	for (unsigned i = 0; i < clients->len; i++) {
		const struct client *c = g_ptr_array_index(clients, i);

		if (c->pid == pid && c->registered && c->state != CLIENT_ENDED)
			return true;
	}
	return false;
}

/**
 * prove_strangers - is some process mapping the memory of @o that is neither proven nor ourselves?
 * @clients: struct client; who is registered as a whole counts as proven, refused or not: what it
 *   touches sleeps
 * @pid, @n: who maps it, as maps_users() found; an error is passed on
 * @why: 256 bytes: who
 *
 * Return: 1 with @why, 0 no, -errno when /proc cannot be read.
 */
int prove_strangers(const struct offer *o, const GPtrArray *clients, const pid_t *pid, int n,
		    char *why)
{
	for (int i = 0; i < n; i++) {
		char name[32] = "?";

		if (known(clients, pid[i]))
			continue;
		maps_name(pid[i], name, sizeof(name));
		snprintf(
			why, WHY,
			"process %d (%s) maps block %.96s without being served: it would read zeroes and make them "
			"everybody's; register it or end it",
			(int)pid[i], name, o->name);
		return 1;
	}
	return n < 0 ? n : 0;
}
