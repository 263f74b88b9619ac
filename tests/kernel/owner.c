/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A userfaultfd held by another process than the one whose memory it is: registration from outside,
 * its proof, the death of the owner, the last reference (devices.md 0.2/7-10, O10, O11, F06).
 */
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "scene.h"
#include "sys/maps.h"
#include "sys/mem.h"
#include "tap.h"

#define PAGES 4
#define LEN   (PAGES * PAGE)

static int ram(void)
{
	int fd = mem_blob_new("ram", LEN);

	expect(fd >= 0);
	return fd;
}

static bool proven(const struct sharer *s)
{
	uint64_t first;
	int rc = maps_proven(s->pid, s->base, s->base + LEN, &first);

	expect(rc >= 0);
	return rc == 1;
}

/* 0.2/8, 0.2/9: the key to universal registration. */
static void register_from_outside(void)
{
	int fd = ram();
	struct sharer s = sharer_start(fd, LEN, SHARER_OPENS);
	uint64_t ioctls = 0;

	expect(!proven(&s));
	expect_eq(k_register(s.uffd, s.base, LEN, &ioctls), 0);
	expect(ioctls & 1 << _UFFDIO_COPY);
	expect(proven(&s));
	sharer_load(&s, 1);
	expect_eq(k_fault(s.uffd), s.base + PAGE);
	expect_eq(k_copy(s.uffd, s.base + PAGE, k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(sharer_byte(&s), 0x11);
}

static void unregister_from_outside(void)
{
	int fd = ram();
	struct sharer s = sharer_start(fd, LEN, SHARER_REGISTERS);

	expect(proven(&s));
	sharer_load(&s, 1);
	expect_eq(k_fault(s.uffd), s.base + PAGE);
	expect_eq(k_unregister(s.uffd, s.base, LEN), 0);
	expect_eq(maps_released(s.pid, s.base, s.base + LEN), 1);
	expect_eq(sharer_byte(&s), 0);
	sharer_load(&s, 2);
	expect_eq(sharer_byte(&s), 0);
}

/* Private memory of the other process as well: no file is needed for any of it. */
static void anonymous_memory_of_another(void)
{
	struct sharer s = sharer_start(-1, LEN, SHARER_OPENS);

	expect_eq(k_register(s.uffd, s.base, LEN, NULL), 0);
	expect(proven(&s));
	sharer_load(&s, 0);
	expect_eq(k_fault(s.uffd), s.base);
	expect_eq(k_copy(s.uffd, s.base, k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(sharer_byte(&s), 0x11);
}

static void registered_range_is_busy_for_another_uffd(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int first = k_uffd(0), second = k_uffd(0);

	expect_eq(k_register(first, at(p), PAGE, NULL), 0);
	expect_eq(k_register(second, at(p), PAGE, NULL), EBUSY);
	expect_eq(k_register(first, at(p), PAGE, NULL), 0);
	close(first);
	expect_eq(k_register(second, at(p), PAGE, NULL), 0);
}

/* 0.2/7, S1-38: nothing about a dead owner can be seen on its userfaultfd but by placing. */
static void dead_owner(void)
{
	int fd = ram();
	struct sharer s = sharer_start(fd, LEN, SHARER_REGISTERS);
	struct pollfd p = { .fd = s.uffd, .events = POLLIN | POLLHUP | POLLRDHUP };
	struct moved m;
	struct uffd_msg msg;

	sharer_load(&s, 0);
	expect_eq(k_fault(s.uffd), s.base);
	sharer_load(&s, 1);
	sharer_asleep(&s);
	sharer_kill(&s);
	expect_eq(poll(&p, 1, 50), 0);
	expect_eq(read(s.uffd, &msg, sizeof(msg)), -1);
	expect_eq(errno, EAGAIN);
	m = k_copy(s.uffd, s.base, k_source(0x11, 1), PAGE, 0);
	expect_eq(m.err, ESRCH);
	m = k_zero(s.uffd, s.base, PAGE, 0);
	expect_eq(m.err, ESRCH);
	expect_eq(k_wake(s.uffd, s.base, PAGE), 0);
	expect_eq(k_register(s.uffd, s.base, LEN, NULL), ENOMEM);
	expect_eq(k_unregister(s.uffd, s.base, LEN), ENOMEM);
}

/* 0.2/10: the owner closing its own reference changes nothing, ours being the last ends it. */
static void last_reference_ends_the_registration(void)
{
	int fd = ram();
	struct sharer s = sharer_start(fd, LEN, SHARER_REGISTERS);

	sharer_drop_uffd(&s);
	expect(proven(&s));
	sharer_load(&s, 0);
	expect_eq(k_fault(s.uffd), s.base);
	expect_eq(k_copy(s.uffd, s.base, k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(sharer_byte(&s), 0x11);
	close(s.uffd);
	expect_eq(maps_released(s.pid, s.base, s.base + LEN), 1);
	sharer_load(&s, 1);
	expect_eq(sharer_byte(&s), 0);
}

/* And the other way round: ours closed, the owner's keeps its threads waiting instead of reading
 * zeroes. */
static void owners_reference_keeps_waiting(void)
{
	int fd = ram();
	struct sharer s = sharer_start(fd, LEN, SHARER_REGISTERS);

	sharer_load(&s, 0);
	expect_eq(k_fault(s.uffd), s.base);
	close(s.uffd);
	sharer_asleep(&s);
	expect(proven(&s));
}

/* The owner of a private registration that execs or exits wakes nobody else; a child has no
 * registration. */
static void child_is_not_registered(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0);
	int ends[2];
	uint8_t byte = 0xff;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	expect_eq(pipe(ends), 0);
	if (fact_fork() == 0) {
		byte = (uint8_t)act_load(p);
		expect_eq(write(ends[1], &byte, 1), 1);
		_exit(0);
	}
	expect_eq(read(ends[0], &byte, 1), 1);
	expect_eq(byte, 0);
	k_quiet(uffd);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, 1), PAGE, 0).err, EEXIST);
}

static const struct fact facts[] = {
	{ "REGISTER through a received userfaultfd acts on its owner; smaps proves it",
	  register_from_outside },
	{ "UNREGISTER from outside releases and wakes", unregister_from_outside },
	{ "private memory of another process is served the same way", anonymous_memory_of_another },
	{ "a registered range is EBUSY for any other userfaultfd",
	  registered_range_is_busy_for_another_uffd },
	{ "S1-38: a dead owner: COPY and ZEROPAGE ESRCH, WAKE 0, poll silent", dead_owner },
	{ "O11: the last reference ends the registration", last_reference_ends_the_registration },
	{ "the owner's reference keeps its threads waiting", owners_reference_keeps_waiting },
	{ "a forked child is an unregistered sharer", child_is_not_registered },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
