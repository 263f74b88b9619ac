/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One memory file, several address spaces, each with its own userfaultfd (devices.md 0.2, S1-39,
 * F18), and what silently instantiates a page (devices.md 0.1, O14).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scene.h"
#include "sys/mem.h"
#include "tap.h"

#define PAGES 8

struct hall {
	int fd;
	struct sharer a, b;
};

static struct hall hall(void)
{
	struct hall h = { .fd = mem_blob_new("ram", PAGES * PAGE) };

	expect(h.fd >= 0);
	h.a = sharer_start(h.fd, PAGES * PAGE, SHARER_REGISTERS);
	h.b = sharer_start(h.fd, PAGES * PAGE, SHARER_REGISTERS);
	return h;
}

static uint64_t page(const struct sharer *s, unsigned i)
{
	return s->base + i * PAGE;
}

/* 0.2/1-3: anybody's COPY fills the page for all, but wakes one address space. */
static void copy_fills_for_all_wakes_one(void)
{
	struct hall h = hall();
	uint8_t *src = k_source(0x11, 1);

	sharer_load(&h.a, 3);
	sharer_load(&h.b, 3);
	expect_eq(k_fault(h.a.uffd), page(&h.a, 3));
	expect_eq(k_fault(h.b.uffd), page(&h.b, 3));
	expect_eq(k_copy(h.a.uffd, page(&h.a, 3), src, PAGE, 0).err, 0);
	expect_eq(sharer_byte(&h.a), 0x11);
	sharer_asleep(&h.b);
	expect_eq(k_wake(h.a.uffd, page(&h.a, 3), PAGE), 0);
	sharer_asleep(&h.b);
	expect_eq(k_wake(h.b.uffd, page(&h.b, 3), PAGE), 0);
	expect_eq(sharer_byte(&h.b), 0x11);
	k_quiet(h.b.uffd);
}

/* The same with its message still unread: the wake works, the message goes. */
static void wake_before_the_read(void)
{
	struct hall h = hall();

	sharer_load(&h.b, 0);
	sharer_asleep(&h.b);
	expect_eq(k_copy(h.a.uffd, page(&h.a, 0), k_source(0x11, 1), PAGE, 0).err, 0);
	sharer_asleep(&h.b);
	expect_eq(k_wake(h.b.uffd, page(&h.b, 0), PAGE), 0);
	expect_eq(sharer_byte(&h.b), 0x11);
	k_quiet(h.b.uffd);
}

static void present_page_makes_no_event_elsewhere(void)
{
	struct hall h = hall();

	expect_eq(k_copy(h.a.uffd, page(&h.a, 1), k_source(0x11, 1), PAGE, 0).err, 0);
	sharer_load(&h.b, 1);
	expect_eq(sharer_byte(&h.b), 0x11);
	k_quiet(h.b.uffd);
}

/* 0.2/3: the second sharer's COPY of the same page. */
static void second_copy_is_eexist(void)
{
	struct hall h = hall();
	struct moved m;

	expect_eq(k_copy(h.a.uffd, page(&h.a, 1), k_source(0x11, 1), PAGE, 0).err, 0);
	m = k_copy(h.b.uffd, page(&h.b, 1), k_source(0x22, 1), PAGE, 0);
	expect_eq(m.err, EEXIST);
	expect_eq(m.field, -EEXIST);
	m = k_zero(h.b.uffd, page(&h.b, 1), PAGE, 0);
	expect_eq(m.err, EEXIST);
	sharer_load(&h.b, 1);
	expect_eq(sharer_byte(&h.b), 0x11);
}

/* EEXIST wakes nobody: O13 wakes after it, too. */
static void eexist_wakes_nobody(void)
{
	struct hall h = hall();

	sharer_load(&h.b, 1);
	expect_eq(k_fault(h.b.uffd), page(&h.b, 1));
	expect_eq(k_copy(h.a.uffd, page(&h.a, 1), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(k_copy(h.b.uffd, page(&h.b, 1), k_source(0x22, 1), PAGE, 0).err, EEXIST);
	sharer_asleep(&h.b);
	expect_eq(k_wake(h.b.uffd, page(&h.b, 1), PAGE), 0);
	expect_eq(sharer_byte(&h.b), 0x11);
}

/* 0.1: the reason for proving every sharer. */
static void unregistered_mapping_instantiates_zeroes(void)
{
	struct hall h = hall();
	struct sharer stray = sharer_start(h.fd, PAGES * PAGE, SHARER_PLAIN);

	sharer_load(&stray, 5);
	expect_eq(sharer_byte(&stray), 0);
	expect_eq(k_copy(h.a.uffd, page(&h.a, 5), k_source(0x11, 1), PAGE, 0).err, EEXIST);
	sharer_load(&h.a, 5);
	expect_eq(sharer_byte(&h.a), 0);
	k_quiet(h.a.uffd);
}

static void pwrite_instantiates_pread_does_not(void)
{
	struct hall h = hall();
	uint8_t byte = 0xff;

	expect_eq(pread(h.fd, &byte, 1, 2 * PAGE), 1);
	expect_eq(byte, 0);
	expect_eq(k_copy(h.a.uffd, page(&h.a, 2), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(pwrite(h.fd, "x", 1, 3 * PAGE), 1);
	expect_eq(k_copy(h.a.uffd, page(&h.a, 3), k_source(0x11, 1), PAGE, 0).err, EEXIST);
	sharer_load(&h.a, 3);
	expect_eq(sharer_byte(&h.a), 'x');
}

/* A hole read by pread() or through SEEK_DATA stays a hole: the extents tell what was instantiated.
 */
static void extents_tell_what_is_there(void)
{
	struct hall h = hall();

	expect_eq(lseek(h.fd, 0, SEEK_DATA), -1);
	expect_eq(errno, ENXIO);
	expect_eq(k_copy(h.a.uffd, page(&h.a, 2), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(k_zero(h.b.uffd, page(&h.b, 5), PAGE, 0).err, 0);
	expect_eq(lseek(h.fd, 0, SEEK_DATA), 2 * PAGE);
	expect_eq(lseek(h.fd, 2 * PAGE, SEEK_HOLE), 3 * PAGE);
	expect_eq(lseek(h.fd, 3 * PAGE, SEEK_DATA), 5 * PAGE);
	expect_eq(fallocate(h.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2 * PAGE, PAGE), 0);
	expect_eq(lseek(h.fd, 0, SEEK_DATA), 5 * PAGE);
}

/* 0.2/6 */
static void dontneed_keeps_punch_drops(void)
{
	struct hall h = hall();
	uint8_t *own = mem_map_shared(h.fd, 0, PAGES * PAGE);

	expect_eq(k_copy(h.a.uffd, page(&h.a, 4), k_source(0x11, 1), PAGE, 0).err, 0);
	expect_eq(act_load(own + 4 * PAGE), 0x11);
	expect_eq(madvise(own, PAGES * PAGE, MADV_DONTNEED), 0);
	sharer_load(&h.a, 4);
	expect_eq(sharer_byte(&h.a), 0x11);
	expect_eq(fallocate(h.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * PAGE, PAGE), 0);
	sharer_load(&h.a, 4);
	sharer_load(&h.b, 4);
	expect_eq(k_fault(h.a.uffd), page(&h.a, 4));
	expect_eq(k_fault(h.b.uffd), page(&h.b, 4));
	expect_eq(k_copy(h.b.uffd, page(&h.b, 4), k_source(0x22, 1), PAGE, 0).err, 0);
	expect_eq(k_wake(h.a.uffd, page(&h.a, 4), PAGE), 0);
	expect_eq(sharer_byte(&h.a), 0x22);
	expect_eq(sharer_byte(&h.b), 0x22);
}

/* The mapping that discards before LISTENING leaves nothing behind (design.md 3). */
static void own_mapping_then_punch_is_missing_again(void)
{
	struct hall h = hall();
	uint8_t *own = mem_map_shared(h.fd, 0, PAGES * PAGE);

	memset(own, 0x33, PAGES * PAGE);
	sharer_load(&h.a, 6);
	expect_eq(sharer_byte(&h.a), 0x33);
	expect_eq(fallocate(h.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 6 * PAGE, PAGE), 0);
	sharer_load(&h.a, 6);
	expect_eq(k_fault(h.a.uffd), page(&h.a, 6));
	expect_eq(k_copy(h.a.uffd, page(&h.a, 6), k_source(0x44, 1), PAGE, 0).err, 0);
	expect_eq(sharer_byte(&h.a), 0x44);
	expect_eq(act_load(own + 6 * PAGE), 0x44);
}

static const struct fact facts[] = {
	{ "S1-39: COPY fills the page for all, wakes one address space",
	  copy_fills_for_all_wakes_one },
	{ "S1-39: a sharer whose message is unread is woken the same way", wake_before_the_read },
	{ "a page in the cache makes no event in any sharer",
	  present_page_makes_no_event_elsewhere },
	{ "the second sharer's COPY: EEXIST, content stays", second_copy_is_eexist },
	{ "O13: EEXIST wakes nobody", eexist_wakes_nobody },
	{ "an unregistered mapping instantiates zeroes", unregistered_mapping_instantiates_zeroes },
	{ "pwrite to a hole instantiates, pread does not", pwrite_instantiates_pread_does_not },
	{ "SEEK_DATA tells what was instantiated", extents_tell_what_is_there },
	{ "MADV_DONTNEED keeps a shared page, PUNCH_HOLE drops it for all",
	  dontneed_keeps_punch_drops },
	{ "a page written through an unregistered mapping can be punched",
	  own_mapping_then_punch_is_missing_again },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
