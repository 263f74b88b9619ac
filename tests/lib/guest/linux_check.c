// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * linux_check PAGES [DISK] [spoil]: the only program of the Linux guest.  It proves its own memory,
 * counts aloud on the console, and reads a disk into buffers that it watches.
 *
 * Half of its pages are live: each carries its number, the round in which it was last written, and
 * how often that was.  A round visits each once, scattered, and checks that it is what the round
 * before left; the page behind each live one never changes and is looked at in passing.  Reads go,
 * past the page cache, into the first half of a buffer's page; its other half is a marker that only
 * we write, as in disk.c.  The buffers lie scattered among the pages, so that who serves the disk
 * meets missing memory as we do.
 *
 * A quarter of a second in every two it begins no read, and says so (IN_FLIGHT is 0): a
 * qemu-storage-daemon 7.2 loses a request that is in flight when its VM is stopped, which a
 * migration does.
 *
 * What it knows lies in one locked page, at a physical address that it says on the console once
 * ("status at ..."), in the layout of guest/boot.S and disk.c.  So the host reads it from the
 * guest's RAM, whoever runs the guest.  `spoil` damages a page in round 3, to show that it is
 * found.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define WORDS (PAGE / 4)
#define STRIDE 4751u
#define BUFFERS 256u
#define BUFFER_STRIDE 97u	/* odd: all of them, in an order that nobody can read ahead of */
#define READ_WORDS 512u
#define DISK_SALT 0x50434430u
#define DISK_AT 16		/* words from the status */
#define PAGES_A_READ 8u
#define SPOIL_ROUND 3u
#define PERIOD_MS 2000u
#define QUIET_MS 250u

enum word { MAGIC, ROUND, DONE, BEAT, ERRORS, BAD_PAGE, BAD_CODE, START, LIVE, STEP, CURSOR };
enum disk_word { DISK_MAGIC, READS, DISK_ERRORS, BAD_BUFFER, DISK_BAD_CODE, IN_FLIGHT };

struct check {
	volatile uint32_t *status;
	uint32_t *memory;	/* BUFFERS times: a buffer, and @gap pages */
	uint32_t live, gap;
	int disk;
	uint32_t units, reads;
	uint32_t generation[BUFFERS];
	bool spoil;
};

static void die(const char *what)
{
	perror(what);
	for (;;)
		pause();
}

static void *locked_pages(uint32_t count)
{
	void *at = mmap(NULL, (size_t)count * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (at == MAP_FAILED || mlock(at, (size_t)count * PAGE))
		die("linux_check: memory");
	return at;
}

/* Where the page lies in the RAM of the machine. */
static uint64_t physical(const volatile void *page)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || pread(fd, &entry, sizeof(entry),
			    (off_t)((uintptr_t)page / PAGE * sizeof(entry))) != sizeof(entry))
		die("linux_check: /proc/self/pagemap");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE;
}

static uint32_t pattern(uint32_t page, uint32_t word)
{
	return (page * WORDS + word) * 0x9e3779b1u ^ 0x5a5aa5a5u;
}

static uint32_t *page_at(struct check *c, uint32_t page)
{
	return c->memory + ((size_t)page + page / c->gap + 1) * WORDS;
}

static uint32_t *buffer_at(struct check *c, uint32_t buffer)
{
	return c->memory + (size_t)buffer * (c->gap + 1) * WORDS;
}

static void trouble(struct check *c, uint32_t page, uint32_t code)
{
	if (c->status[ERRORS]++ == 0) {
		c->status[BAD_PAGE] = page;
		c->status[BAD_CODE] = code;
		printf("linux_check: page %u is wrong, code %u\n", page, code);
	}
}

static void fill(struct check *c)
{
	for (uint32_t page = 0; page < 2 * c->live; page++) {
		uint32_t *words = page_at(c, page);

		for (uint32_t i = 0; i < WORDS; i++)
			words[i] = pattern(page, i);
		if (page % 2 == 0)
			words[0] = words[1] = words[2] = words[WORDS - 1] = 0;
	}
}

/* live page: number, round, visits, ... pattern ..., round */
static void visit(struct check *c, uint32_t which)
{
	uint32_t round = c->status[ROUND], number = 2 * which;
	uint32_t *words = page_at(c, number), *behind = page_at(c, number + 1);
	uint32_t at = 3 + round % (WORDS - 4);

	if (words[0] != (round == 1 ? 0 : number))
		trouble(c, number, 1);
	else if (words[1] != round - 1 || words[2] != round - 1 || words[WORDS - 1] != round - 1)
		trouble(c, number, 2);
	else if (words[at] != pattern(number, at))
		trouble(c, number, 3);
	else if (behind[at] != pattern(number + 1, at))
		trouble(c, number + 1, 4);
	words[0] = number;
	words[1] = round;
	words[2]++;
	words[WORDS - 1] = round;
}

/* --- the disk --------------------------------------------------------------------------------- */

static uint32_t marker(struct check *c, uint32_t buffer, uint32_t word)
{
	return (0xb0f00000u ^ buffer << 12 ^ word) + c->generation[buffer] * 0x9e3779b1u;
}

static void mark(struct check *c, uint32_t buffer)
{
	uint32_t *words = buffer_at(c, buffer) + READ_WORDS;

	c->generation[buffer]++;
	for (uint32_t i = 0; i < WORDS - READ_WORDS; i++)
		words[i] = marker(c, buffer, i);
}

static void disk_trouble(struct check *c, uint32_t buffer, uint32_t code)
{
	volatile uint32_t *status = c->status + DISK_AT;

	if (status[DISK_ERRORS]++ == 0) {
		status[DISK_BAD_CODE] = code;
		status[BAD_BUFFER] = buffer;
		printf("linux_check: buffer %u is wrong, code %u\n", buffer, code);
	}
}

static void look_at(struct check *c, uint32_t buffer, uint32_t unit)
{
	const uint32_t *words = buffer_at(c, buffer);

	for (uint32_t i = 0; i < READ_WORDS; i++)
		if (words[i] != ((unit * READ_WORDS + i) * 2654435761u ^ DISK_SALT)) {
			disk_trouble(c, buffer, 6);
			break;
		}
	for (uint32_t i = 0; i < WORDS - READ_WORDS; i++)
		if (words[READ_WORDS + i] != marker(c, buffer, i)) {
			disk_trouble(c, buffer, 7);
			break;
		}
}

static void read_once(struct check *c)
{
	uint32_t buffer = c->reads * BUFFER_STRIDE % BUFFERS, unit = c->reads * 389u % c->units;
	void *at = buffer_at(c, buffer);

	if (pread(c->disk, at, READ_WORDS * 4, (off_t)unit * READ_WORDS * 4) !=
	    (ssize_t)(READ_WORDS * 4))
		disk_trouble(c, buffer, 5);
	else
		look_at(c, buffer, unit);
	mark(c, buffer);
	c->status[DISK_AT + READS] = ++c->reads;
}

static void open_disk(struct check *c, const char *path)
{
	c->disk = path ? open(path, O_RDONLY | O_DIRECT | O_CLOEXEC) : -1;
	if (c->disk < 0 && path)
		die(path);
	if (c->disk < 0)
		return;
	c->units = (uint32_t)(lseek(c->disk, 0, SEEK_END) / (READ_WORDS * 4));
	for (uint32_t i = 0; i < BUFFERS; i++)
		mark(c, i);
	c->status[DISK_AT + DISK_MAGIC] = 0x4f494350u;
}

static bool is_quiet(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000) % PERIOD_MS <
	       QUIET_MS;
}

static void maybe_read(struct check *c)
{
	bool quiet = is_quiet();

	c->status[DISK_AT + IN_FLIGHT] = !quiet;
	if (!quiet)
		read_once(c);
}

/* --- rounds ----------------------------------------------------------------------------------- */

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* One line a second: what a person sees of it. */
static void say(struct check *c, double *next)
{
	double now = seconds();

	if (now < *next)
		return;
	*next = now + 1;
	printf("count %u  uptime %.0f s  rounds %u  disk reads %u  errors %u\n", c->status[BEAT],
	       now, c->status[ROUND], c->reads,
	       c->status[ERRORS] + c->status[DISK_AT + DISK_ERRORS]);
}

static void one_round(struct check *c, double *next)
{
	uint32_t step = STRIDE % c->live, which = 0;

	c->status[ROUND]++;
	if (c->spoil && c->status[ROUND] == SPOIL_ROUND)
		page_at(c, c->live & ~1u)[2] ^= 1;
	for (uint32_t done = 0; done < c->live; done++) {
		c->status[DONE] = done;
		visit(c, which);
		which = (which + step) % c->live;
		c->status[BEAT]++;
		if (c->disk >= 0 && done % PAGES_A_READ == 0)
			maybe_read(c);
		if (done % 16 == 0)
			say(c, next);
	}
}

static struct check check;

int main(int argc, char **argv)
{
	struct check *c = &check;
	double next = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc < 2 || argc > 4 || atoi(argv[1]) < 64)
		return 2;
	c->status = locked_pages(1);
	c->live = (uint32_t)atoi(argv[1]) / 2;
	if (c->live % STRIDE == 0)		/* a prime: else no order by it meets all of them */
		c->live--;
	c->spoil = argc == 4;
	c->gap = (2 * c->live + BUFFERS - 1) / BUFFERS;
	c->memory = locked_pages(BUFFERS * (c->gap + 1));
	fill(c);
	open_disk(c, argc > 2 && strcmp(argv[2], "-") ? argv[2] : NULL);
	c->status[LIVE] = c->live;
	c->status[MAGIC] = 0x31474350u;
	printf("linux_check: status at 0x%llx\n", (unsigned long long)physical(c->status));
	for (;;)
		one_round(c, &next);
}
