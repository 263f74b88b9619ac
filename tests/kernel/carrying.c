/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it means to place a page through somebody's address space: whose lock the caller waits for,
 * and who pays.  (daemon/perform.c has the conclusions)
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scene.h"
#include "sys/clock.h"
#include "sys/mem.h"
#include "tap.h"

/* --- locks ------------------------------------------------------------------------------------ */

#define ROUNDS 48
#define TIMES  20		/* so much longer, at the least; measured: some thousands */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/*
 * Nine in ten take no longer.  Not the median: on a busy machine who forks may not come to it for a
 * while.
 */
static uint64_t most(uint64_t *ns)
{
	qsort(ns, ROUNDS, sizeof(*ns), compare);
	return ns[ROUNDS * 9 / 10];
}

static uint64_t copy_ns(int uffd, uint64_t address, const uint8_t *src)
{
	uint64_t before = clock_ns();

	expect_eq(k_copy(uffd, address, src, PAGE, 0).err, 0);
	return clock_ns() - before;
}

/* One after the other, so that whatever else the machine does hits all three alike. */
static void who_forks_delays_what_goes_through_it(void)
{
	uint64_t its[ROUNDS], ours[ROUNDS], wakes[ROUNDS], through_it, through_us, woken;
	int fd = mem_blob_new("ram", 2 * ROUNDS * PAGE), uffd = k_uffd(0);
	struct sharer s = sharer_start(fd, 2 * ROUNDS * PAGE, SHARER_FORKS);
	uint8_t *map = mem_map_shared(fd, 0, 2 * ROUNDS * PAGE), *src = k_source(0x11, 1);

	expect_eq(k_register(uffd, at(map), 2 * ROUNDS * PAGE, NULL), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t before;

		its[i] = copy_ns(s.uffd, s.base + 2 * i * PAGE, src);
		usleep(2000);	/* not in the moment that it happens to be unlocked */
		ours[i] = copy_ns(uffd, at(map + (2 * i + 1) * PAGE), src);
		before = clock_ns();
		expect_eq(k_wake(s.uffd, s.base + 2 * i * PAGE, PAGE), 0);
		wakes[i] = clock_ns() - before;
		usleep(2000);
	}
	through_it = most(its);
	through_us = most(ours);
	woken = most(wakes);
	tap_note(
		"nine in ten: COPY through a process that forks %.1f us, through our own mapping %.1f us, WAKE of it %.1f us",
		(double)through_it / 1000, (double)through_us / 1000, (double)woken / 1000);
	expect(through_it > TIMES * through_us);
	expect(through_it > TIMES * woken);
	sharer_kill(&s);
}

/* --- charges ---------------------------------------------------------------------------------- */

#define CHARGED	 (8ul << 20)

struct purse {
	char folder[64], usage[128];
};

static bool purse_at(struct purse *p, const char *root, const char *usage)
{
	snprintf(p->folder, sizeof(p->folder), "%s/postcopy-test-%d", root, (int)getpid());
	snprintf(p->usage, sizeof(p->usage), "%s/%s", p->folder, usage);
	if (mkdir(p->folder, 0755) == 0 && access(p->usage, R_OK) == 0)
		return true;
	rmdir(p->folder);
	return false;
}

/* A memory cgroup of its own for a process. */
static struct purse purse_for(pid_t pid)
{
	struct purse p;
	char path[128];
	FILE *f;

	if (!purse_at(&p, "/sys/fs/cgroup", "memory.current") &&
	    !purse_at(&p, "/sys/fs/cgroup/memory", "memory.usage_in_bytes"))
		fact_skip("no memory cgroup can be made here");
	snprintf(path, sizeof(path), "%s/cgroup.procs", p.folder);
	f = fopen(path, "w");
	expect(f);
	fprintf(f, "%d\n", (int)pid);
	if (fclose(f) != 0) {
		rmdir(p.folder);
		fact_skip("no process can be moved to another memory cgroup here");
	}
	return p;
}

static uint64_t spent(const struct purse *p)
{
	FILE *f = fopen(p->usage, "r");
	unsigned long long bytes;

	expect(f && fscanf(f, "%llu", &bytes) == 1);
	fclose(f);
	return bytes;
}

/* Whoever issues the call, and whosever the file is. */
static void the_owner_of_the_address_space_pays(void)
{
	int fd = mem_blob_new("ram", 2 * CHARGED), uffd = k_uffd(0);
	struct sharer s = sharer_start(fd, 2 * CHARGED, SHARER_REGISTERS);
	uint8_t *map = mem_map_shared(fd, 0, 2 * CHARGED), *src = k_source(0x11, CHARGED / PAGE);
	struct purse purse = purse_for(s.pid);
	uint64_t before, its, ours;

	expect_eq(k_register(uffd, at(map), 2 * CHARGED, NULL), 0);
	before = spent(&purse);
	expect_eq(k_copy(s.uffd, s.base, src, CHARGED, 0).err, 0);
	its = spent(&purse) - before;
	before = spent(&purse);
	expect_eq(k_copy(uffd, at(map + CHARGED), src, CHARGED, 0).err, 0);
	ours = spent(&purse) - before;
	sharer_kill(&s);
	rmdir(purse.folder);
	tap_note(
		"of %lu KiB placed through it, %lu KiB are charged to its cgroup; through our own mapping %lu KiB",
		CHARGED >> 10, (unsigned long)its >> 10, (unsigned long)ours >> 10);
	expect(its >= CHARGED - CHARGED / 8);
	expect(ours < CHARGED / 8);
}

static const struct fact facts[] = {
	{ "COPY waits for a fork() of the process it goes through; our own mapping and WAKE do not",
	  who_forks_delays_what_goes_through_it },
	{ "a page placed in a shared file is charged to the owner of the address space",
	  the_owner_of_the_address_space_pays },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
