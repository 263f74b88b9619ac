/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an earlier fault thread left: what tells that a page is there, and what is refused because
 * it is not what that one left.  (F59)
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/guard.h"
#include "daemon/memoir.h"
#include "facts.h"
#include "hugepages.h"
#include "lives.h"
#include "sys/clock.h"
#include "sys/mem.h"
#include "sys/uffd.h"
#include "tap.h"

#define PAGE 4096u

/* --- something else is left ------------------------------------------------------------------- */

static void digest(int fd, uint8_t *bytes, size_t size)
{
	memset(bytes, 0, size);
	expect(pread(fd, bytes, size, 0) >= 0);
}

/* It is refused with a reason, and what was left is as it was. */
static void refuse(const struct faultloop_adopt *left, const char *word)
{
	static uint8_t before[3][16384], after[3][16384];
	struct faultloop_adopt copy = *left;
	struct faultloop_options lo = { .max_package = 1 << 20, .max_waiters = 16,
					.record = stage.record, .adopt = &copy };
	const int fd[] = { stage.ledger, stage.package, record_fd(stage.record) };
	struct faultloop *loop = NULL;
	char why[256] = "";
	int ret;

	copy.why = why;
	for (unsigned i = 0; i < 3; i++)
		digest(fd[i], before[i], sizeof(before[i]));
	ret = faultloop_start(&loop, &lo);
	if (ret != -EBADMSG || !strstr(why, word))
		fact_failed(__FILE__, __LINE__, "%d, '%s', for what should be '%s'", ret, why, word);
	for (unsigned i = 0; i < 3; i++) {
		digest(fd[i], after[i], sizeof(after[i]));
		expect_eq(memcmp(before[i], after[i], sizeof(before[i])), 0);
	}
}

static int blob(size_t size, bool sealed)
{
	int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	expect(fd >= 0);
	expect_eq(sealed ? mem_kept_size(fd, size) : ftruncate(fd, (off_t)size), 0);
	return fd;
}

/* A good one, changed in one byte of its file. */
static int changed(int from, off_t at, uint8_t with)
{
	uint8_t bytes[4096];
	struct stat st;
	int fd;

	expect_eq(fstat(from, &st), 0);
	fd = blob((size_t)st.st_size, true);
	expect(st.st_size <= (off_t)sizeof(bytes));
	expect_eq(pread(from, bytes, (size_t)st.st_size, 0), st.st_size);
	bytes[at] = with;
	expect_eq(pwrite(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	return fd;
}

static void with_ledger(int ledger, const char *word)
{
	struct faultloop_adopt left;

	stage_left(&stage, &left);
	close(left.ledger);
	left.ledger = ledger;
	refuse(&left, word);
}

static void other_blocks(void)
{
	struct faultloop_adopt left;

	stage_left(&stage, &left);
	close(left.file[0]);
	left.file[0] = blob(STAGE_PAGES * PAGE / 2, false);
	refuse(&left, "backs block m");
	stage_left(&stage, &left);
	close(left.file[0]);
	left.n_blocks = 0;
	refuse(&left, "what the blocks were");
	stage_left(&stage, &left);
	close(left.package);
	left.package = blob(7, true);
	refuse(&left, "package");
}

static void other_record(void)
{
	struct memoir_blocks blocks, good;
	struct faultloop_adopt left;
	struct memoir m;

	expect_eq(memoir_read_blocks(stage.record, &good), 1);
	blocks = good;
	blocks.block[0].length *= 2;
	record_put(stage.record, RECORD_BLOCKS, 0, &blocks, sizeof(blocks));
	stage_left(&stage, &left);
	refuse(&left, "backs block m");
	blocks = good;
	blocks.block[0].page_size = 12345;
	record_put(stage.record, RECORD_BLOCKS, 0, &blocks, sizeof(blocks));
	stage_left(&stage, &left);
	refuse(&left, "cannot be");
	record_put(stage.record, RECORD_BLOCKS, 0, &good, sizeof(good) - 1);
	stage_left(&stage, &left);
	refuse(&left, "what the blocks were");
	record_put(stage.record, RECORD_BLOCKS, 0, &good, sizeof(good));
	expect_eq(memoir_read(stage.record, &m), 1);
	memset(m.reason, 'x', sizeof(m.reason));
	record_put(stage.record, RECORD_SESSION, 0, &m, sizeof(m));
	stage_left(&stage, &left);
	refuse(&left, "the record of the session");
	m.reason[0] = '\0';
	memset(m.reason, 0, sizeof(m.reason));
	record_put(stage.record, RECORD_SESSION, 0, &m, sizeof(m));
}

static void other_things_are_left(void)
{
	uint64_t size = ledger_size(STAGE_PAGES);
	pid_t pid;

	life_prepare(&(struct stage_options){ .sharers = 3 });
	pid = life_first(life_idle);
	life_until(&life->waits);
	life_end(pid);
	with_ledger(-1, "ledger");
	with_ledger(blob(size, true), "ledger");
	with_ledger(blob(size - 8, true), "ledger");
	with_ledger(blob(ledger_size(2 * STAGE_PAGES), true), "ledger");
	for (off_t at = 0; at < 24; at++)
		with_ledger(changed(stage.ledger, at, 0x77), "ledger");
	/* committed, they say, and so did the record */
	with_ledger(changed(stage.ledger, 24, 0), "ledger");
	/* pages in no state, and pages that nobody said would come */
	with_ledger(changed(stage.ledger, (off_t)size - 1, 0xff), "ledger");
	with_ledger(changed(stage.ledger, (off_t)size - 1, 0x10), "ledger");
	other_blocks();
	other_record();
	/* and with all that is right, it goes on */
	stage_adopt(&stage);
	life_expect_paused(STAGE_PAGES);
	life_finish();
}

/* --- what tells that a page is there ---------------------------------------------------------- */

static struct block block_of(enum block_kind kind, uint64_t length, uint64_t page_size)
{
	struct block_table t = { 0 };

	expect_eq(block_add(&t, "b", length, page_size, kind), 0);
	return t.block[0];
}

static void place(int uffd, uint8_t *at, uint64_t len)
{
	uint8_t *from = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffd_result r;

	expect(from != MAP_FAILED);
	memset(from, 0x5a, len);
	expect_eq(uffd_place(&uffd_kernel_ops, uffd, UFFD_COPY, (uintptr_t)at, len, from, true, &r),
		  UFFD_DONE);
	munmap(from, len);
}

/* Two pages; the first is placed by one process, so to speak, and looked for by the next. */
static void one_of_two(int fd, uint64_t page)
{
	struct block b = block_of(BLOCK_SHARED, 2 * page, page);
	int uffd = uffd_open(0, false), next = uffd_open(0, false);
	struct backing first, second;

	expect(fd >= 0 && uffd >= 0 && next >= 0 && ftruncate(fd, (off_t)(2 * page)) == 0);
	expect_eq(backing_open(&first, &b, dup(fd), 0), 0);
	expect_eq(backing_arm(&first, uffd), 0);
	for (unsigned i = 0; i < 2; i++)
		expect_eq(backing_has(&first, i * page, uffd, &uffd_kernel_ops), 0);
	place(uffd, first.map, page);
	madvise(first.map, page, MADV_PAGEOUT);
	backing_close(&first);
	close(uffd);
	expect_eq(backing_adopt(&second, &b, dup(fd), 0), 0);
	expect_eq(backing_arm(&second, next), 0);
	for (unsigned twice = 0; twice < 2; twice++) {
		expect_eq(backing_has(&second, 0, next, &uffd_kernel_ops), 1);
		expect_eq(backing_has(&second, page, next, &uffd_kernel_ops), 0);
	}
	expect_eq(second.map[page - 1], 0x5a);
	backing_close(&second);
}

static void small_pages_tell(void)
{
	one_of_two(memfd_create("small", MFD_CLOEXEC), PAGE);
}

static void huge_pages_tell(void)
{
	if (hugepages_borrow(2, HUGEPAGES_BESIDE) < 0)
		fact_skip("no huge pages can be had");
	one_of_two(memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB), 2u << 20);
}

static uint64_t held(int fd)
{
	uint64_t bytes;

	expect_eq(mem_held(fd, &bytes), 0);
	return bytes;
}

/* What lies in a store costs what is in it, and what was discarded costs nothing. */
static void stores_tell(void)
{
	struct block b = block_of(BLOCK_PRIVATE, STAGE_PAGES * PAGE, PAGE);
	int fd = memfd_create("store", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	static uint8_t data[PAGE] = { 1 };
	struct backing first, second;

	expect_eq(backing_open(&first, &b, dup(fd), 0), 0);
	expect_eq(held(fd), 0);
	expect_eq(backing_write(&first, 3 * PAGE, data, PAGE, false), 0);
	expect_eq(backing_write(&first, 4 * PAGE, data, PAGE, false), 0);
	expect_eq(held(fd), 2 * PAGE);
	expect_eq(backing_discard(&first, 4 * PAGE, PAGE), 0);
	expect_eq(held(fd), PAGE);
	backing_close(&first);
	expect_eq(backing_adopt(&second, &b, dup(fd), 0), 0);
	expect_eq(backing_stores(&second, 3 * PAGE), 1);
	expect_eq(backing_stores(&second, 4 * PAGE), 0);
	expect_eq(second.map[3 * PAGE], 1);
	backing_close(&second);
	b.length = b.length / 2;
	expect_eq(backing_adopt(&second, &b, dup(fd), 0), -EBADMSG);
	backing_close(&second);
	expect_eq(backing_adopt(&second, &b, -1, 0), -EBADMSG);
	backing_close(&second);
}

/* A WAKE costs as many as sleep there, whatever the length: so whole mappings are woken. */
static void a_wake_is_cheap(void)
{
	const uint64_t length = 16ull << 30;
	int fd = memfd_create("long", MFD_CLOEXEC), uffd = uffd_open(0, false);
	struct uffd_result r;
	uint64_t began, one;
	uint8_t *at;

	expect_eq(ftruncate(fd, (off_t)length), 0);
	at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
	expect(at != MAP_FAILED);
	expect_eq(uffd_register(uffd, (uintptr_t)at, length, NULL), 0);
	began = clock_ns();
	for (unsigned i = 0; i < 1000; i++)
		expect_eq(uffd_place(&uffd_kernel_ops, uffd, UFFD_WAKE, (uintptr_t)at, PAGE, NULL,
				     true, &r), UFFD_DONE);
	one = clock_ns() - began;
	began = clock_ns();
	for (unsigned i = 0; i < 1000; i++)
		expect_eq(uffd_place(&uffd_kernel_ops, uffd, UFFD_WAKE, (uintptr_t)at, length, NULL,
				     true, &r), UFFD_DONE);
	tap_note("a WAKE: of 4 KiB %llu ns, of 16 GiB %llu ns", (unsigned long long)one / 1000,
		 (unsigned long long)(clock_ns() - began) / 1000);
}

static const struct fact facts[] = {
	{ "F59 something else is left: refused, with the reason, untouched",
	  other_things_are_left },
	{ "F59 what is placed is found, in a file of small pages", small_pages_tell },
	{ "F59 and in one of huge pages", huge_pages_tell },
	{ "F59 a store that outlives us costs what is in it, and tells what that is", stores_tell },
	{ "F59 a WAKE of a whole mapping", a_wake_is_cheap },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
