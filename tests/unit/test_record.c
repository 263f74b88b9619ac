/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record: what was put is got, in this process and in one that adopts it; a writer that is
 * killed at any moment leaves a content that it wrote whole; what is no record is refused.
 */
#include "config.h"

#include "daemon/record.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "lib/rng.h"

static struct record *fresh(void)
{
	struct record *r = NULL;

	cr_assert_eq(record_new(&r), 0);
	return r;
}

/* Another process's view of it: a descriptor of its own. */
static int adopt(struct record **out, const struct record *r)
{
	return record_adopt(out, dup(record_fd(r)));
}

static const struct {
	enum record_kind kind;
	unsigned slots;
	size_t room;
} kinds[] = {
	{ RECORD_SESSION, 1, RECORD_SESSION_MAX },
	{ RECORD_BLOCKS, 1, RECORD_BLOCKS_MAX },
	{ RECORD_DOOR, 1, RECORD_DOOR_MAX },
	{ RECORD_CLIENT, RECORD_CLIENTS, RECORD_CLIENT_MAX },
};

/* --- slots -------------------------------------------------------------------------------- */

Test(record, room_for_64_blocks_and_a_client)
{
	cr_assert(RECORD_BLOCKS_MAX >= 64 * 256);
	cr_assert(RECORD_CLIENT_MAX >= 48 << 10);
}

Test(record, empty_at_first)
{
	struct record *r = fresh();
	char byte;

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned i = 0; i < kinds[k].slots; i++)
			cr_assert_eq(record_get(r, kinds[k].kind, i, &byte, 1), 0);
	record_free(r);
}

static void fill(uint8_t *bytes, size_t len, unsigned seed)
{
	struct rng rng = { seed };

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)rng_next(&rng);
}

static void expect(const struct record *r, unsigned k, unsigned i, unsigned seed)
{
	static uint8_t want[RECORD_CLIENT_MAX], got[RECORD_CLIENT_MAX];

	fill(want, kinds[k].room, seed);
	cr_assert_eq(record_get(r, kinds[k].kind, i, got, sizeof(got)), (ssize_t)kinds[k].room);
	cr_assert_eq(memcmp(want, got, kinds[k].room), 0, "kind %u slot %u", k, i);
}

static void put_all(struct record *r, unsigned seed)
{
	static uint8_t bytes[RECORD_CLIENT_MAX];

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned i = 0; i < kinds[k].slots; i++) {
			fill(bytes, kinds[k].room, seed + k * 200 + i);
			record_put(r, kinds[k].kind, i, bytes, kinds[k].room);
		}
}

/* All slots are full to the last byte: no two share any. */
Test(record, slots_do_not_overlap)
{
	struct record *r = fresh(), *again;

	for (unsigned round = 0; round < 3; round++)
		put_all(r, round * 1000);
	cr_assert_eq(adopt(&again, r), 0);
	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned i = 0; i < kinds[k].slots; i++) {
			expect(r, k, i, 2000 + k * 200 + i);
			expect(again, k, i, 2000 + k * 200 + i);
		}
	record_free(again);
	record_free(r);
}

Test(record, shorter_longer_dropped)
{
	struct record *r = fresh(), *again;
	char got[16] = "";

	record_put(r, RECORD_CLIENT, 7, "something", 10);
	record_put(r, RECORD_CLIENT, 7, "some", 5);
	cr_assert_eq(adopt(&again, r), 0);
	cr_assert_eq(record_get(again, RECORD_CLIENT, 7, got, sizeof(got)), 5);
	cr_assert_str_eq(got, "some");
	cr_assert_eq(record_get(again, RECORD_CLIENT, 7, got, 4), -EMSGSIZE);
	record_put(again, RECORD_CLIENT, 7, "by the next", 12);
	cr_assert_eq(record_get(r, RECORD_CLIENT, 7, got, sizeof(got)), 12);
	cr_assert_str_eq(got, "by the next");
	record_drop(again, RECORD_CLIENT, 7);
	cr_assert_eq(record_get(r, RECORD_CLIENT, 7, got, sizeof(got)), 0);
	record_put(r, RECORD_CLIENT, 7, "anew", 5);
	cr_assert_eq(record_get(again, RECORD_CLIENT, 7, got, sizeof(got)), 5);
	record_free(again);
	record_free(r);
}

/* Clients that were never there cost nothing. */
Test(record, costs_what_is_written)
{
	struct record *r = fresh();
	struct stat st;

	cr_assert_eq(fstat(record_fd(r), &st), 0);
	cr_assert_leq(st.st_blocks * 512, 128 << 10);
	record_free(r);
}

/* --- death -------------------------------------------------------------------------------- */

/* A content that shows whether it is whole: its length and all of it follow from its number. */
static size_t content(uint8_t *bytes, uint32_t number, size_t room)
{
	struct rng rng = { number };
	size_t len = (size_t)rng_between(&rng, sizeof(number), room);

	memcpy(bytes, &number, sizeof(number));
	memset(bytes + sizeof(number), (int)(rng_next(&rng) & 0xff), len - sizeof(number));
	return len;
}

static void write_for_ever(struct record *r, uint32_t from)
{
	static uint8_t bytes[RECORD_CLIENT_MAX];

	for (uint32_t n = from;; n++)
		for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
			size_t len = content(bytes, n, kinds[k].room);

			record_put(r, kinds[k].kind, n % kinds[k].slots, bytes, len);
			if (n % 61 == 0)
				record_drop(r, RECORD_CLIENT, (n + 1) % RECORD_CLIENTS);
		}
}

/* Every slot holds nothing, or something that was written whole; the highest number there is. */
static uint32_t look(const struct record *r)
{
	static uint8_t want[RECORD_CLIENT_MAX], got[RECORD_CLIENT_MAX];
	uint32_t highest = 0, n;

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned i = 0; i < kinds[k].slots; i++) {
			ssize_t len = record_get(r, kinds[k].kind, i, got, sizeof(got));

			cr_assert_geq(len, 0);
			if (len == 0)
				continue;
			memcpy(&n, got, sizeof(n));
			cr_assert_eq((size_t)len, content(want, n, kinds[k].room));
			cr_assert_eq(memcmp(want, got, (size_t)len), 0, "torn: kind %u slot %u", k, i);
			highest = n > highest ? n : highest;
		}
	return highest;
}

Test(record, F59_killed_at_any_moment, .timeout = 120)
{
	struct rng rng = { rng_seed() };
	struct record *r = fresh(), *again;
	uint32_t at = 1, moved = 0;

	for (unsigned i = 0; i < 200; i++) {
		struct timespec nap = { 0, (long)rng_below(&rng, 3000000) };
		pid_t child = fork();
		uint32_t now;
		int status;

		cr_assert_geq(child, 0);
		if (child == 0)
			write_for_ever(r, at);
		nanosleep(&nap, NULL);
		kill(child, SIGKILL);
		cr_assert_eq(waitpid(child, &status, 0), child);
		cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		cr_assert_eq(adopt(&again, r), 0);
		now = look(again);
		record_free(again);
		moved += now > at;
		at = now + 1;
	}
	cr_assert_gt(moved, 50, "the children hardly wrote: %u", moved);
	record_free(r);
}

/* --- what is none ------------------------------------------------------------------------- */

static int copy_without_seals(const struct record *r, off_t size, int seals)
{
	struct stat st;
	int fd = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *from;

	cr_assert_eq(fstat(record_fd(r), &st), 0);
	from = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, record_fd(r), 0);
	cr_assert_neq(from, MAP_FAILED);
	cr_assert_eq(write(fd, from, 8192), 8192);
	munmap(from, (size_t)st.st_size);
	cr_assert_eq(ftruncate(fd, st.st_size + size), 0);
	cr_assert_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

Test(record, other_files_are_refused)
{
	struct record *r = fresh(), *again = NULL;
	int pipes[2];

	cr_assert_eq(pipe(pipes), 0);
	cr_assert_eq(record_adopt(&again, pipes[0]), -EBADMSG);
	cr_assert_eq(record_adopt(&again, -1), -EBADMSG);
	cr_assert_eq(record_adopt(&again, copy_without_seals(r, 0, F_SEAL_SHRINK)), 0);
	record_free(again);
	cr_assert_eq(record_adopt(&again, copy_without_seals(r, 0, 0)), -EBADMSG);
	cr_assert_eq(record_adopt(&again, copy_without_seals(r, -4096, F_SEAL_SHRINK)), -EBADMSG);
	cr_assert_eq(record_adopt(&again, copy_without_seals(r, 4096, F_SEAL_SHRINK)), -EBADMSG);
	close(pipes[1]);
	record_free(r);
}

static void get_all(const struct record *r)
{
	static uint8_t got[RECORD_CLIENT_MAX];

	for (unsigned k = 0; k < ARRAY_LEN(kinds); k++)
		for (unsigned i = 0; i < kinds[k].slots; i++)
			cr_assert_geq(record_get(r, kinds[k].kind, i, got, sizeof(got)), 0);
}

/*
 * The first bytes are magic, layout, number of slots and sizes: any other value is another layout.
 * Behind them are the words of the slots, in which most lengths are too long.  What is refused is
 * not written to.
 */
Test(record, another_layout_is_refused)
{
	struct record *r = fresh();
	uint8_t *bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, record_fd(r), 0);

	cr_assert_neq((void *)bytes, MAP_FAILED);
	for (unsigned at = 0; at < 48; at++) {
		struct record *again = NULL;
		uint8_t was = bytes[at];

		bytes[at] ^= 1u << at % 8;
		cr_assert_eq(adopt(&again, r), -EBADMSG, "byte %u", at);
		cr_assert_eq(bytes[at], was ^ 1u << at % 8);
		bytes[at] = was;
		cr_assert_eq(adopt(&again, r), 0);
		record_free(again);
	}
	munmap(bytes, 4096);
	record_free(r);
}

Test(record, random_words_lead_nowhere)
{
	struct rng rng = { rng_seed() };
	struct record *r = fresh();
	uint64_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, record_fd(r), 0);

	cr_assert_neq((void *)words, MAP_FAILED);
	for (unsigned round = 0; round < 2000; round++) {
		struct record *again = NULL;
		unsigned at = 6 + (unsigned)rng_below(&rng, 3 + RECORD_CLIENTS);

		words[at] = rng_next(&rng) >> rng_below(&rng, 64);
		if (adopt(&again, r) == 0) {
			get_all(again);
			record_free(again);
		} else {
			words[at] = 0;
		}
	}
	munmap(words, 4096);
	record_free(r);
}
