/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A back-end says where it has mapped each region, so that the VMM can tell what a fault is about;
 * libvhost-user, in all its versions so far, says the VMM's own addresses instead.  The true ones
 * are in /proc/PID/maps: the mapping of the region's file that shows the region's offset.
 *
 * There may be several.  Libraries map a region either alone or from the beginning of its file on,
 * and then the mapping of one region shows others as well, which the back-end never uses there.
 * What all have in common is that the mapping ends where the region ends; where none does, as when
 * the kernel has joined neighbours, the smallest that shows all of it is taken.
 *
 * A process that is several back-ends maps everything once for each.  Theirs look alike but for
 * this: who asks registers its own only when the VMM has accepted the addresses, and the others'
 * are registered.
 *
 * /proc may keep its reader waiting for as long as somebody keeps that address space locked, so a
 * thread of the prover reads it, about data of its own.
 */
#include "config.h"
#include "daemon/vhost_repair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "daemon/prover.h"

struct vhost_repair {
	const struct vhost_repair_ops *ops;
	void *ctx;
	struct prover *prover;
	unsigned asked;			/* how often; only the last one counts */
};

struct search {
	/* never changes */
	bool checks;
	unsigned serial, n;
	pid_t pid;
	struct vhost_region told[VHOST_RECORD_REGIONS];
	/* the thread's */
	uint64_t address[VHOST_RECORD_REGIONS];
	char problem[256];
};

static uint64_t end_of(const struct maps_vma *v)
{
	return v->offset + (v->end - v->start);
}

static bool shows(const struct maps_vma *v, const struct vhost_region *t)
{
	return v->offset <= t->offset && end_of(v) >= t->offset + t->length;
}

/**
 * vhost_repair_address - where a region is
 * @vma: mappings of its file
 */
uint64_t vhost_repair_address(const struct vhost_region *told, const struct maps_vma *vma,
			      unsigned n)
{
	const struct maps_vma *best = NULL;

	for (unsigned i = 0; i < n; i++) {
		const struct maps_vma *v = &vma[i];

		if (!shows(v, told))
			continue;
		if (end_of(v) == told->offset + told->length)
			return v->start + (told->offset - v->offset);
		if (!best || v->end - v->start < best->end - best->start)
			best = v;
	}
	return best ? best->start + (told->offset - best->offset) : 0;
}

/* Put first what is not registered yet.  How many. */
static unsigned sort_fresh(const struct search *s, struct maps_vma *vma, unsigned n)
{
	unsigned fresh = 0;

	for (unsigned i = 0; i < n && n > 1; i++) {
		const struct maps_vma v = vma[i];
		uint64_t at;

		if (maps_proven(s->pid, v.start, v.end, &at) != 0)
			continue;
		vma[i] = vma[fresh];
		vma[fresh++] = v;
	}
	return fresh;
}

static bool search_one(struct search *s, unsigned i)
{
	const struct vhost_region *t = &s->told[i];
	cleanup_free struct maps_vma *vma = NULL;
	int n = maps_of_file(s->pid, t->dev, t->inode, &vma);

	if (n < 0) {
		snprintf(s->problem, sizeof(s->problem), "cannot read /proc/%d/maps: %s",
			 (int)s->pid, strerror(-n));
		return false;
	}
	s->address[i] = vhost_repair_address(t, vma, sort_fresh(s, vma, (unsigned)n));
	if (!s->address[i])
		s->address[i] = vhost_repair_address(t, vma, (unsigned)n);
	if (!s->address[i])
		snprintf(
			s->problem, sizeof(s->problem),
			"process %d does not map what it was told of: is the back-end another process "
			"than the one that made its socket, or in another pid namespace?",
			(int)s->pid);
	return s->address[i] != 0;
}

/* Every mapping of the file, whether or not it is a region's. */
static bool check_one(struct search *s, unsigned i)
{
	const struct vhost_region *t = &s->told[i];
	cleanup_free struct maps_vma *vma = NULL;
	int n = maps_of_file(s->pid, t->dev, t->inode, &vma);

	for (int k = 0; k < n; k++) {
		uint64_t at = vma[k].start;

		if (maps_proven(s->pid, vma[k].start, vma[k].end, &at) > 0)
			continue;
		snprintf(s->problem, sizeof(s->problem),
			 "0x%llx of process %d is guest memory and not registered",
			 (unsigned long long)at, (int)s->pid);
		return false;
	}
	return n >= 0;
}

static void work(void *job)
{
	struct search *s = job;
	bool ok = true;

	for (unsigned i = 0; i < s->n && ok; i++)
		ok = search_one(s, i) && (!s->checks || check_one(s, i));
	if (!ok && !s->problem[0])
		snprintf(s->problem, sizeof(s->problem), "cannot read /proc/%d/maps", (int)s->pid);
}

static void tell(struct vhost_repair *r, const struct search *s, const char *wrong)
{
	if (s->serial != r->asked)
		return;
	r->asked++;
	if (s->checks)
		r->ops->checked(r->ctx, wrong);
	else
		r->ops->found(r->ctx, wrong, wrong ? NULL : s->address);
}

static void on_done(void *ctx, void *job)
{
	const struct search *s = job;

	tell(ctx, s, s->problem[0] ? s->problem : NULL);
}

static void on_overdue(void *ctx, void *job)
{
	tell(ctx, job,
	     "its process does not let its mappings be seen: its address space is locked");
}

/**
 * vhost_repair_new - nothing was asked
 */
struct vhost_repair *vhost_repair_new(unsigned deadline_s, const struct vhost_repair_ops *ops,
				      void *ctx)
{
	struct vhost_repair *r = g_new0(struct vhost_repair, 1);

	r->ops = ops;
	r->ctx = ctx;
	r->prover = prover_new(deadline_s, r);
	return r;
}

/**
 * vhost_repair_free - nobody is told any more; NULL is fine
 */
void vhost_repair_free(struct vhost_repair *r)
{
	if (!r)
		return;
	prover_free(r->prover);
	g_free(r);
}

static void ask(struct vhost_repair *r, pid_t pid, const struct vhost_region *told, unsigned n,
		bool checks)
{
	static const struct prover_ops ops = { work, on_done, on_overdue, g_free };
	struct search *s = g_new0(struct search, 1);
	const struct search refused = { .checks = checks, .serial = ++r->asked };

	s->checks = checks;
	s->serial = r->asked;
	s->pid = pid;
	s->n = MIN(n, VHOST_RECORD_REGIONS);
	memcpy(s->told, told, s->n * sizeof(*told));
	if (prover_ask(r->prover, &ops, s, pid) < 0)
		tell(r, &refused, "its address space is locked, or those of too many are");
}

/**
 * vhost_repair_find - where is each of these?
 */
void vhost_repair_find(struct vhost_repair *r, pid_t pid, const struct vhost_region *told,
		       unsigned n)
{
	ask(r, pid, told, n, false);
}

/**
 * vhost_repair_check - is all of their files that it maps registered?
 */
void vhost_repair_check(struct vhost_repair *r, pid_t pid, const struct vhost_region *told,
			unsigned n)
{
	ask(r, pid, told, n, true);
}
