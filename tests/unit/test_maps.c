/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading /proc/PID/maps and smaps: odd lines as text, then real processes with real registrations.
 */
#include "config.h"

#include "sys/maps.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/maps_query.h"
#include "sys/maps_text.h"
#include "sys/mem.h"
#include "sys/uffd.h"

#define PAGE 4096ul

static FILE *text(const char *s)
{
	FILE *f = fmemopen((void *)s, strlen(s), "r");

	cr_assert_not_null(f);
	return f;
}

/* --- lines --- */

Test(maps, head_lines)
{
	static const struct {
		const char *line;
		struct maps_vma want;
	} rows[] = {
		{ "7f0000000000-7f0000001000 rw-s 00002000 00:01 1234    /memfd:a (deleted)\n",
		  { .start = 0x7f0000000000,
		    .end = 0x7f0000001000,
		    .offset = 0x2000,
		    .inode = 1234,
		    .readable = true,
		    .writable = true,
		    .shared = true } },
		{ "1000-2000 r--p 00000000 00:00 0\n",
		  { .start = 0x1000, .end = 0x2000, .readable = true } },
		{ "1000-2000 ---p 00000000 00:00 0", { .start = 0x1000, .end = 0x2000 } },
		{ "1000-2000 rwxs ffffffff000 fe:00 18446744073709551615 /a b\\012c 1000-2000 "
		  "rw-p\n",
		  { .start = 0x1000,
		    .end = 0x2000,
		    .offset = 0xffffffff000,
		    .inode = UINT64_MAX,
		    .readable = true,
		    .writable = true,
		    .shared = true } },
		{ "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  "
		  "[vsyscall]\n",
		  { .start = 0xffffffffff600000, .end = 0xffffffffff601000 } },
	};
	static const unsigned dev[][2] = { { 0, 1 }, { 0, 0 }, { 0, 0 }, { 0xfe, 0 }, { 0, 0 } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct maps_vma got, want = rows[i].want;

		memset(&got, 0xff, sizeof(got));
		cr_assert(maps_text_vma(rows[i].line, &got), "line %zu", i);
		cr_expect_eq(got.start, want.start, "line %zu", i);
		cr_expect_eq(got.end, want.end, "line %zu", i);
		cr_expect_eq(got.offset, want.offset, "line %zu", i);
		cr_expect_eq(got.inode, want.inode, "line %zu", i);
		cr_expect_eq(got.dev, makedev(dev[i][0], dev[i][1]), "line %zu", i);
		cr_expect_eq(got.readable, want.readable, "line %zu", i);
		cr_expect_eq(got.writable, want.writable, "line %zu", i);
		cr_expect_eq(got.shared, want.shared, "line %zu", i);
		cr_expect_not(got.uffd_missing);
	}
}

Test(maps, other_lines)
{
	static const char *const lines[] = {
		"",
		"\n",
		"VmFlags: rd wr um\n",
		"Size:                  4 kB\n",
		"AnonHugePages:         0 kB\n",
		"FilePmdMapped:         0 kB\n",
		"1000-2000 rw-s 00000000 00:01\n",
		"1000-2000\n",
		"2000-1000 rw-s 00000000 00:01 5\n",
		"1000-1000 rw-s 00000000 00:01 5\n",
		"1000-2000 rw 00000000 00:01 5\n",
		"1000 2000 rw-s 00000000 00:01 5\n",
	};
	struct maps_vma vma;

	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		cr_expect_not(maps_text_vma(lines[i], &vma), "line %zu", i);
}

Test(maps, flag_lines)
{
	static const struct {
		const char *line;
		bool is, um;
	} rows[] = {
		{ "VmFlags: rd wr sh mr mw me ms um \n", true, true },
		{ "VmFlags: um\n", true, true },
		{ "VmFlags: um", true, true },
		{ "VmFlags: rd um wr \n", true, true },
		{ "VmFlags: rd wr uw ui \n", true, false },
		{ "VmFlags: rd wr umm xum u m\n", true, false },
		{ "VmFlags: \n", true, false },
		{ "VmFlags:", true, false },
		{ "VmFlagsX: um\n", false, false },
		{ " VmFlags: um\n", false, false },
		{ "Size: um\n", false, false },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool um = false;

		cr_expect_eq(maps_text_flags(rows[i].line, &um), rows[i].is, "line %zu", i);
		cr_expect_eq(um, rows[i].um, "line %zu", i);
	}
}

/* --- texts --- */

Test(maps, the_mappings_of_one_file)
{
	cleanup_free struct maps_vma *vma = NULL;
	FILE *f = text("1000-2000 rw-s 00000000 00:01 7 /memfd:ram (deleted)\n"
		       "2000-3000 rw-s 00000000 00:01 8 /memfd:ram (deleted)\n"
		       "3000-4000 rw-s 00000000 00:02 7 /memfd:ram (deleted)\n"
		       "4000-6000 r--p 00005000 00:01 7 /memfd:ram (deleted)\n");

	cr_assert_eq(maps_text_of_file(f, makedev(0, 1), 7, &vma), 2);
	cr_assert_eq(vma[0].start, 0x1000);
	cr_assert(vma[0].shared);
	cr_assert_eq(vma[1].start, 0x4000);
	cr_assert_eq(vma[1].end, 0x6000);
	cr_assert_eq(vma[1].offset, 0x5000);
	cr_assert_not(vma[1].shared);
	fclose(f);
}

/* Ten thousand mappings, as of a process that maps its memory page by page. */
Test(maps, a_large_text)
{
	cleanup_free struct maps_vma *vma = NULL;
	cleanup_free char *s = NULL;
	size_t len;
	FILE *f = open_memstream(&s, &len);

	for (unsigned i = 1; i <= 10000; i++)
		fprintf(f, "%x000-%x000 rw-s %08x 00:01 %u %300s\n", i, i + 1, i, 7 + i % 2,
			"name");
	fclose(f);
	f = text(s);
	cr_assert_eq(maps_text_of_file(f, makedev(0, 1), 7, &vma), 5000);
	cr_assert_eq(vma[0].start, 0x2000);
	cr_assert_eq(vma[4999].start, 0x2710000);
	fclose(f);
}

static const char smaps[] = "1000-3000 rw-s 00000000 00:01 7 /memfd:VmFlags: um (deleted)\n"
			    "Size:                  8 kB\n"
			    "VmFlags: rd wr sh um \n"
			    "3000-4000 rw-s 00002000 00:01 7 /memfd:ram (deleted)\n"
			    "Size:                  4 kB\n"
			    "VmFlags: rd wr sh um \n"
			    "4000-5000 rw-s 00003000 00:01 7 /memfd:ram (deleted)\n"
			    "VmFlags: rd wr sh \n"
			    "8000-9000 rw-s 00003000 00:01 7 /memfd:ram (deleted)\n"
			    "VmFlags: rd wr sh um \n";

Test(maps, proven_ranges)
{
	static const struct {
		uint64_t start, end;
		int want;
		uint64_t at;
	} rows[] = {
		{ 0x1000, 0x4000, 1, 0 },      /* across two mappings */
		{ 0x1800, 0x2000, 1, 0 },      /* inside of one */
		{ 0x1000, 0x5000, 0, 0x4000 }, /* one is not registered */
		{ 0x4000, 0x4800, 0, 0x4000 },
		{ 0x0800, 0x2000, 0, 0x0800 }, /* begins in a hole */
		{ 0x5000, 0x9000, 0, 0x5000 }, /* a hole, then a mapping */
		{ 0x8000, 0x9000, 1, 0 },
		{ 0x8000, 0xa000, 0, 0x9000 }, /* the text ends before the range */
		{ 0xa000, 0xb000, 0, 0xa000 },
		{ 0x1000, 0x1000, 1, 0 }, /* nothing to prove */
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		FILE *f = text(smaps);
		uint64_t at = 0;

		cr_expect_eq(maps_text_proven(f, rows[i].start, rows[i].end, &at), rows[i].want,
			     "row %zu", i);
		if (rows[i].want == 0)
			cr_expect_eq(at, rows[i].at, "row %zu: %lx", i, (unsigned long)at);
		fclose(f);
	}
}

Test(maps, released_ranges)
{
	static const struct {
		uint64_t start, end;
		int want;
	} rows[] = {
		{ 0x4000, 0x5000, 1 }, { 0x4000, 0x8000, 1 }, { 0x0000, 0x1000, 1 },
		{ 0x9000, 0xf000, 1 }, { 0x0000, 0x1001, 0 }, { 0x2fff, 0x3000, 0 },
		{ 0x3fff, 0x5000, 0 }, { 0x4000, 0x8001, 0 }, { 0x0000, UINT64_MAX, 0 },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		FILE *f = text(smaps);

		cr_expect_eq(maps_text_released(f, rows[i].start, rows[i].end), rows[i].want,
			     "row %zu", i);
		fclose(f);
	}
}

/*
 * Each mapping that smaps shows costs a walk of its page tables, and a VM that is moving waits for
 * it.
 */
Test(maps, no_more_is_read_than_what_lies_behind_the_range)
{
	static const char four[] = "1000-2000 rw-p 00000000 00:00 0 \nVmFlags: rd wr \n"
				   "2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd wr \n"
				   "3000-4000 rw-p 00000000 00:00 0 \nVmFlags: rd wr \n"
				   "4000-5000 rw-p 00000000 00:00 0 \nVmFlags: rd wr um \n";
	static const struct {
		uint64_t start, end;
		const char *unread;
	} rows[] = { { 0, 1, "2000-" },
		     { 0, 0x1000, "2000-" },
		     { 0x1000, 0x2000, "3000-" },
		     { 0, 0x3000, "4000-" } };

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		FILE *f = text(four);
		char next[64] = "";

		cr_expect_eq(maps_text_released(f, rows[i].start, rows[i].end), 1, "row %zu", i);
		cr_expect_not_null(fgets(next, sizeof(next), f));
		cr_expect_eq(strncmp(next, rows[i].unread, 5), 0, "row %zu: %s", i, next);
		fclose(f);
	}
}

Test(maps, unreadable_text_is_an_error_not_an_answer)
{
	struct maps_vma *vma = NULL;
	FILE *f = fopen("/proc/self", "r");
	uint64_t at;

	cr_assert_not_null(f);
	cr_assert_eq(maps_text_of_file(f, 0, 0, &vma), -EISDIR);
	cr_assert_null(vma);
	cr_assert_lt(maps_text_proven(f, 0, 1, &at), 0, "and it stays an error");
	cr_assert_lt(maps_text_released(f, 0, 1), 0);
	fclose(f);
}

/* --- processes --- */

static void *stay(void *arg)
{
	pause();
	return arg;
}

/* A process that maps @fd; with @leaderless its first thread ends and another stays. */
static pid_t mapper(int fd, bool leaderless, uint64_t *address)
{
	int ends[2];
	pid_t pid;

	cr_assert_eq(pipe(ends), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid == 0) {
		uint64_t at = (uintptr_t)mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
		pthread_t other;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, "a\x01name\xff");
		if (leaderless && pthread_create(&other, NULL, stay, NULL) != 0)
			_exit(1);
		if (write(ends[1], &at, sizeof(at)) != sizeof(at))
			_exit(1);
		if (leaderless)
			syscall(SYS_exit, 0);
		pause();
		_exit(0);
	}
	close(ends[1]);
	cr_assert_eq(read(ends[0], address, sizeof(*address)), sizeof(*address));
	close(ends[0]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

Test(maps, mappings_of_a_process)
{
	cleanup_fd int fd = mem_blob_new("a name\nof two lines", 8 * PAGE);
	cleanup_free struct maps_vma *vma = NULL;
	struct mem_identity id;
	uint64_t address;
	pid_t pid = mapper(fd, false, &address);

	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(maps_of_file(pid, id.dev, id.inode, &vma), 1);
	cr_assert_eq(vma->start, address);
	cr_assert_eq(vma->end, address + 4 * PAGE);
	cr_assert_eq(vma->offset, PAGE);
	cr_assert_eq(vma->dev, id.dev);
	cr_assert_eq(vma->inode, id.inode);
	cr_assert(vma->shared && vma->readable && !vma->writable);
	end(pid);
	free(steal_ptr(&vma));
	cr_assert_eq(maps_of_file(pid, id.dev, id.inode, &vma), -ESRCH);
	cr_assert_eq(maps_of_file(getpid(), id.dev, id.inode, &vma), 0);
	cr_assert_null(vma);
}

Test(maps, the_mapping_at_an_address)
{
	cleanup_fd int fd = mem_blob_new("at", 8 * PAGE);
	struct mem_identity id;
	struct maps_vma vma;
	uint64_t address;
	pid_t pid = mapper(fd, false, &address);

	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(maps_at(pid, address + 4 * PAGE - 1, &vma), 1);
	cr_assert_eq(vma.start, address);
	cr_assert_eq(vma.inode, id.inode);
	cr_assert_eq(vma.offset, PAGE);
	cr_assert_eq(maps_at(pid, 0, &vma), 0);
	end(pid);
	cr_assert_eq(maps_at(pid, address, &vma), -ESRCH);
}

/*
 * The process has closed its descriptor, or only that is left: either way leads to the same file.
 */
Test(maps, the_file_of_a_mapping)
{
	cleanup_fd int fd = mem_blob_new("open", 8 * PAGE);
	cleanup_fd int again = -1;
	struct mem_identity id, got;
	struct maps_vma vma;
	uint64_t address;
	pid_t pid = mapper(fd, false, &address);

	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(maps_at(pid, address, &vma), 1);
	again = maps_open(pid, &vma);
	cr_assert_geq(again, 0, "%s", strerror(-again));
	cr_assert_eq(mem_identify(again, &got), 0);
	cr_assert_eq(got.inode, id.inode);
	cr_assert(mem_writable(again));
	close_fd(&again);
	vma.start += PAGE;	/* no such mapping: the descriptor is found */
	again = maps_open(pid, &vma);
	cr_assert_geq(again, 0, "%s", strerror(-again));
	close_fd(&again);
	vma.inode++;
	cr_assert_eq(maps_open(pid, &vma), -ENOENT);
	vma.inode = 0;
	cr_assert_eq(maps_open(pid, &vma), -ENOENT);
	end(pid);
}

Test(maps, pages_that_are_there)
{
	uint8_t *map = mmap(NULL, 1024 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);
	uint64_t at = (uintptr_t)map, n = 7;

	cr_assert_neq(map, MAP_FAILED);
	madvise(map, 1024 * PAGE, MADV_NOHUGEPAGE);
	cr_assert_eq(maps_present(getpid(), at, at + 1024 * PAGE, &n), 0);
	cr_assert_eq(n, 0);
	map[3 * PAGE] = 1;
	map[513 * PAGE] = map[1023 * PAGE] = 1;
	cr_assert_eq(maps_present(getpid(), at, at + 1024 * PAGE, &n), 0);
	cr_assert_eq(n, 3);
	cr_assert_eq(maps_present(getpid(), at + 4 * PAGE, at + 1023 * PAGE, &n), 0);
	cr_assert_eq(n, 1);
	cr_assert_lt(maps_present(0x7ffffff0, at, at + PAGE, &n), 0);
	munmap(map, 1024 * PAGE);
}

/* The ioctl of newer kernels and the text, of one process at one time. */
Test(maps, asked_or_read_it_is_the_same)
{
	cleanup_fd int fd = mem_blob_new("ram", 8 * PAGE);
	void *first = mem_map_shared(fd, 2 * PAGE, PAGE),
	     *second = mem_map_shared(fd, 4 * PAGE, 3 * PAGE);
	void *own = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE);
	FILE *maps = fopen("/proc/self/maps", "re");
	cleanup_free struct maps_vma *vma = NULL;
	struct maps_vma got = { 0 };
	struct mem_identity id;
	int n, rc;

	cr_assert(maps && first && second && own != MAP_FAILED);
	cr_assert_eq(mem_identify(fd, &id), 0);
	rc = maps_query_of_file(fileno(maps), id.dev, id.inode, &got);
	if (rc == -ENOTTY)
		cr_skip_test("this kernel has no PROCMAP_QUERY (Linux 6.11)");
	n = maps_text_of_file(maps, id.dev, id.inode, &vma);
	cr_assert_eq(n, 3);
	for (int i = 0; i < n; i++, rc = maps_query_of_file(fileno(maps), id.dev, id.inode, &got)) {
		cr_assert_eq(rc, 1);
		cr_expect(got.start == vma[i].start && got.end == vma[i].end &&
			  got.offset == vma[i].offset);
		cr_expect(got.dev == vma[i].dev && got.inode == vma[i].inode);
		cr_expect(got.readable == vma[i].readable && got.writable == vma[i].writable &&
			  got.shared == vma[i].shared);
	}
	cr_expect_eq(rc, 0);
	fclose(maps);
}

/* Fail closed: what cannot be asked is read. */
Test(maps, what_cannot_be_asked)
{
	cleanup_fd int fd = mem_blob_new("ram", PAGE);
	struct maps_vma vma = { 0 };

	cr_expect_eq(maps_query_of_file(fd, 0, 0, &vma), -ENOTTY);
	cr_expect_eq(maps_query_of_file(-1, 0, 0, &vma), -ENOTTY);
}

Test(maps, does_a_text_show_the_file)
{
	static const struct {
		const char *text;
		int want;
	} rows[] = {
		{ "1000-2000 rw-s 00000000 00:01 7\n", 1 },
		{ "1000-2000 r--p 00000000 00:00 0\n3000-4000 r--p 00000000 00:01 7    /memfd:a (deleted)\n",
		  1 },
		{ "1000-2000 rw-s 00000000 00:02 7\n3000-4000 rw-s 00000000 00:01 8\n", 0 },
		{ "\n", 0 },
	};
	FILE *f = fopen("/dev/null", "re");

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		FILE *one = text(rows[i].text);

		cr_expect_eq(maps_text_uses(one, makedev(0, 1), 7), rows[i].want, "row %zu", i);
		fclose(one);
	}
	cr_expect_eq(maps_text_uses(f, makedev(0, 1), 7), -ENODATA, "no address space");
	fclose(f);
}

static bool has(const pid_t *list, int n, pid_t pid)
{
	for (int i = 0; i < n; i++)
		if (list[i] == pid)
			return true;
	return false;
}

Test(maps, users_are_all_but_ourselves)
{
	cleanup_fd int fd = mem_blob_new("ram", 8 * PAGE);
	void *own = mem_map_shared(fd, 0, PAGE);
	cleanup_free pid_t *users = NULL;
	pid_t pid[20];
	struct mem_identity id;
	unsigned hidden = 99;
	uint64_t address;

	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(maps_users(id.dev, id.inode, &users, &hidden, NULL), 0);
	cr_assert_null(users);
	for (unsigned i = 0; i < 20; i++)
		pid[i] = mapper(fd, false, &address);
	/* The children inherited our own mapping as well: still one entry each. */
	cr_assert_eq(maps_users(id.dev, id.inode, &users, NULL, NULL), 20);
	for (unsigned i = 0; i < 20; i++) {
		cr_assert(has(users, 20, pid[i]));
		end(pid[i]);
	}
	mem_unmap(own, PAGE);
}

/* The mappings of a process whose first thread has ended are in /proc/PID/task only. */
Test(maps, a_user_without_its_first_thread)
{
	cleanup_fd int fd = mem_blob_new("ram", 8 * PAGE);
	cleanup_free pid_t *users = NULL;
	struct mem_identity id;
	uint64_t address;
	pid_t pid = mapper(fd, true, &address);
	char path[64], state = 0;

	cr_assert_eq(mem_identify(fd, &id), 0);
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	for (unsigned i = 0; i < 1000 && state != 'Z'; i++) {
		FILE *f = fopen(path, "r");

		cr_assert_not_null(f);
		cr_assert_eq(fscanf(f, "%*d (%*[^)]) %c", &state), 1);
		fclose(f);
		usleep(1000);
	}
	cr_assert_eq(state, 'Z');
	cr_assert_eq(maps_users(id.dev, id.inode, &users, NULL, NULL), 1);
	cr_assert_eq(users[0], pid);
	end(pid);
}

Test(maps, processes_that_hide_are_counted)
{
	cleanup_fd int fd = mem_blob_new("ram", 8 * PAGE);
	cleanup_free pid_t *users = NULL;
	struct mem_identity id;
	unsigned hidden = 0;

	if (geteuid() != 0)
		cr_skip_test("needs root to become nobody");
	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(setresuid(65534, 65534, 65534), 0);
	cr_assert_eq(maps_users(id.dev, id.inode, &users, &hidden, NULL), 0);
	cr_assert_gt(hidden, 0, "init is not ours to look into");
}

/* devices.md 0.2/9: the proof of a registration, of part of it, and of its end. */
Test(maps, a_real_registration)
{
	cleanup_fd int fd = mem_blob_new("ram", 8 * PAGE);
	uint8_t *p = mem_map_shared(fd, 0, 8 * PAGE);
	cleanup_fd int uffd = uffd_open(0, false);
	uint64_t base = (uintptr_t)p, at;

	if (uffd < 0 && !getenv("POSTCOPY_TESTS_MUST_RUN"))
		cr_skip_test("no userfaultfd: %s", strerror(-uffd));
	cr_assert_geq(uffd, 0);
	cr_assert_eq(maps_proven(getpid(), base, base + 8 * PAGE, &at), 0);
	cr_assert_eq(at, base);
	cr_assert_eq(uffd_register(uffd, base, 4 * PAGE, NULL), 0);
	cr_assert_eq(maps_proven(getpid(), base, base + 4 * PAGE, &at), 1);
	cr_assert_eq(maps_proven(getpid(), base, base + 5 * PAGE, &at), 0);
	cr_assert_eq(at, base + 4 * PAGE);
	cr_assert_eq(maps_released(getpid(), base, base + 8 * PAGE), 0);
	cr_assert_eq(maps_released(getpid(), base + 4 * PAGE, base + 8 * PAGE), 1);
	cr_assert_eq(uffd_unregister(uffd, base, 8 * PAGE), 0);
	cr_assert_eq(maps_released(getpid(), base, base + 8 * PAGE), 1);
	mem_unmap(p, 8 * PAGE);
	cr_assert_eq(maps_proven(0x3fffffff, 0, 1, &at), -ESRCH);
	cr_assert_eq(maps_released(0x3fffffff, 0, 1), -ESRCH);
}

Test(maps, names)
{
	cleanup_fd int fd = mem_blob_new("ram", 8 * PAGE);
	char name[32] = "x";
	uint64_t address;
	pid_t pid = mapper(fd, false, &address);

	cr_assert_eq(maps_name(pid, name, sizeof(name)), 0);
	cr_assert_str_eq(name, "a?name?");
	cr_assert_eq(maps_name(pid, name, 4), 0);
	cr_assert_str_eq(name, "a?n");
	end(pid);
	cr_assert_eq(maps_name(pid, name, sizeof(name)), -ESRCH);
	cr_assert_str_eq(name, "");
	cr_assert_eq(maps_name(getpid(), name, 0), -EINVAL);
}
