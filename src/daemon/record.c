/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process can be killed between any two instructions, so nothing that somebody may have to read
 * afterwards is ever written over.  A slot has two copies and one word.  The word says which copy
 * counts and how long it is; it is 0 where there is none.  To put something is to write the copy
 * that does not count, whole, and then to store the word.  Whoever dies before that store has left
 * the old content, whoever dies behind it the new one: there is no state between the two.
 *
 * A killed process loses no store that it made: they are in the memory of the file, and in order.
 * A machine that loses its power is no concern here, since the guest's memory is gone as well.
 *
 * What is read is trusted as far as a process of ours wrote it, which is what the magic, the layout
 * and the sizes tell; lengths are looked at all the same, for a word that is wrong must not lead
 * out of the file.  The file is sealed against being cut off or grown, and one that is not is
 * refused: it could take our mapping away under us.
 *
 * What it holds changes with the program: LAYOUT is one more whenever anything that is put changes
 * its meaning or its place, and a process with another number does not follow.
 */
#include "config.h"
#include "daemon/record.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/mem.h"

#define MAGIC  0x44524f4345524350ull	/* "PCRECORD" on little-endian */
#define LAYOUT 1u
#define HEAD   4096u			/* bytes before the first copy */

static const struct shape {
	uint32_t slots, room;		/* @room: bytes a copy holds */
} shape[RECORD_KINDS] = {
	[RECORD_SESSION] = { 1, RECORD_SESSION_MAX },
	[RECORD_BLOCKS] = { 1, RECORD_BLOCKS_MAX },
	[RECORD_DOOR] = { 1, RECORD_DOOR_MAX },
	[RECORD_CLIENT] = { RECORD_CLIENTS, RECORD_CLIENT_MAX },
	[RECORD_PHASES] = { 1, RECORD_PHASES_MAX },
};
#define SLOTS (4 + RECORD_CLIENTS)	/* of all kinds */

struct head {
	uint64_t magic;
	uint32_t layout, slots;
	struct shape shape[RECORD_KINDS];
	/* length << 1 | the copy that counts; 0: there is none */
	uint64_t word[SLOTS];
};
static_assert(sizeof(struct head) <= HEAD, "the copies lie behind it");

struct record {
	int fd;
	uint8_t *map;
};

static struct head *head_of(const struct record *r)
{
	return (struct head *)r->map;
}

static size_t size_of_all(void)
{
	size_t size = HEAD;

	for (unsigned i = 0; i < RECORD_KINDS; i++)
		size += 2 * (size_t)shape[i].slots * shape[i].room;
	return size;
}

static uint64_t *word_of(const struct record *r, enum record_kind kind, unsigned index)
{
	unsigned slot = index;

	assert((unsigned)kind < RECORD_KINDS && index < shape[kind].slots);
	for (unsigned i = 0; i < (unsigned)kind; i++)
		slot += shape[i].slots;
	return &head_of(r)->word[slot];
}

static uint8_t *copy_of(const struct record *r, enum record_kind kind, unsigned index,
			uint64_t which)
{
	size_t at = HEAD;

	for (unsigned i = 0; i < (unsigned)kind; i++)
		at += 2 * (size_t)shape[i].slots * shape[i].room;
	return r->map + at + (2 * (size_t)index + which) * shape[kind].room;
}

static int map(struct record *r)
{
	void *at = mmap(NULL, size_of_all(), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);

	if (at == MAP_FAILED)
		return -errno;
	r->map = at;
	return 0;
}

/*
 * What the fault thread puts needs no memory any more then, for it may not be refused any: a write
 * that finds none is a SIGBUS.
 */
static int make_file(struct record *r)
{
	off_t ahead = HEAD + 2 * (off_t)RECORD_SESSION_MAX + 2 * (off_t)RECORD_BLOCKS_MAX;

	r->fd = mem_blob_new("postcopy-record", size_of_all());
	if (r->fd < 0)
		return r->fd;
	if (fcntl(r->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0 ||
	    fallocate(r->fd, 0, 0, ahead) < 0)
		return -errno;
	return 0;
}

/**
 * record_new - a record in which nothing is
 *
 * Return: 0 or -errno.
 */
int record_new(struct record **out)
{
	struct record *r = calloc(1, sizeof(*r));
	struct head *head;
	int ret;

	if (!r)
		return -ENOMEM;
	ret = make_file(r);
	if (ret == 0)
		ret = map(r);
	if (ret < 0) {
		record_free(r);
		return ret;
	}
	head = head_of(r);
	head->layout = LAYOUT;
	head->slots = SLOTS;
	memcpy(head->shape, shape, sizeof(shape));
	__atomic_store_n(&head->magic, MAGIC, __ATOMIC_RELEASE);
	*out = r;
	return 0;
}

/* Is the file as large as a record, and will it stay so? */
static bool is_sized(int fd)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK) && !(seals & F_SEAL_WRITE) &&
	       fstat(fd, &st) == 0 && (uint64_t)st.st_size == size_of_all();
}

static bool is_ours(const struct record *r)
{
	const struct head *head = head_of(r);

	if (head->magic != MAGIC || head->layout != LAYOUT || head->slots != SLOTS ||
	    memcmp(head->shape, shape, sizeof(shape)) != 0)
		return false;
	for (unsigned kind = 0; kind < RECORD_KINDS; kind++)
		for (unsigned i = 0; i < shape[kind].slots; i++)
			if (*word_of(r, kind, i) >> 1 > shape[kind].room)
				return false;
	return true;
}

/**
 * record_adopt - take over what an earlier process left
 * @fd: anything; owned from here on, also on failure
 *
 * Return: 0; -EBADMSG when it is no record, or of another layout, and then it is as it was; another
 * -errno when it cannot be mapped.
 */
int record_adopt(struct record **out, int fd)
{
	struct record *r = calloc(1, sizeof(*r));
	int ret;

	if (!r) {
		close_fd(&fd);
		return -ENOMEM;
	}
	r->fd = fd;
	ret = is_sized(fd) ? map(r) : -EBADMSG;
	if (ret == 0 && !is_ours(r))
		ret = -EBADMSG;
	if (ret < 0) {
		record_free(r);
		return ret;
	}
	*out = r;
	return 0;
}

/**
 * record_fd - the memfd, for the vault; stays the record's
 */
int record_fd(const struct record *r)
{
	return r->fd;
}

/**
 * record_put - say anew what a slot holds
 * @bytes, @len: copied; 1 to the kind's most bytes
 *
 * Neither waits nor allocates.
 */
void record_put(struct record *r, enum record_kind kind, unsigned index, const void *bytes,
		size_t len)
{
	uint64_t *word = word_of(r, kind, index), next = ~*word & 1;

	assert(len > 0 && len <= shape[kind].room);
	memcpy(copy_of(r, kind, index, next), bytes, len);
	__atomic_store_n(word, (uint64_t)len << 1 | next, __ATOMIC_RELEASE);
}

/**
 * record_get - what a slot holds
 *
 * Return: its length, 0 when there is nothing, -EMSGSIZE when it is more than @max.
 */
ssize_t record_get(const struct record *r, enum record_kind kind, unsigned index, void *bytes,
		   size_t max)
{
	uint64_t word = __atomic_load_n(word_of(r, kind, index), __ATOMIC_ACQUIRE);

	if (word >> 1 > max)
		return -EMSGSIZE;
	memcpy(bytes, copy_of(r, kind, index, word & 1), word >> 1);
	return (ssize_t)(word >> 1);
}

/**
 * record_drop - there is nothing in that slot any more
 */
void record_drop(struct record *r, enum record_kind kind, unsigned index)
{
	__atomic_store_n(word_of(r, kind, index), 0, __ATOMIC_RELEASE);
}

/**
 * record_layout - the number of the layout
 *
 * Compare it before another binary is let in our place (postcopyctl upgrade).
 */
unsigned record_layout(void)
{
	return LAYOUT;
}

/**
 * record_free - our mapping and our descriptor
 */
void record_free(struct record *r)
{
	if (!r)
		return;
	if (r->map)
		munmap(r->map, size_of_all());
	close_fd(&r->fd);
	free(r);
}
