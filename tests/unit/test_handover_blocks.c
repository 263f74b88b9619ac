/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How each block of a source gets into a QEMU, and which are refused before anything moves: the
 * monitor's words are made up, the memory is real and this process's own (F05, F15).
 */
#include "config.h"
#include "daemon/handover_blocks.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <criterion/criterion.h>
#include <glib.h>
#include "core/guard.h"
#include "sys/fd.h"
#include "sys/mem.h"

#define MIB (1ull << 20)
#define LENGTH (4 * MIB)

/* One block at the source, one row of the monitor; tests make them differ. */
struct scene {
	struct snapshot *source;
	struct ram_list *ram;
	struct handover_blocks *blocks;
	char why[512];
};

static void scene_clear(struct scene *s)
{
	handover_blocks_clear(s->blocks);
	g_free(s->source);
	g_free(s->ram);
	g_free(s->blocks);
}
#define cleanup_scene __attribute__((cleanup(scene_clear)))

static struct scene scene_new(void)
{
	return (struct scene){
		.source = g_new0(struct snapshot, 1),
		.ram = g_new0(struct ram_list, 1),
		.blocks = g_new0(struct handover_blocks, 1),
	};
}

static struct qmonitor_block *add(struct scene *s, const char *name, const void *at,
				  uint64_t length)
{
	struct qmonitor_block *row = &s->ram->block[s->ram->n++];
	struct snapshot_block *b = &s->source->block[s->source->n_blocks++];

	strcpy(b->name, name);
	b->length = length;
	b->page_size = 4096;
	strcpy(row->name, name);
	row->used = row->total = length;
	row->page_size = 4096;
	row->has_address = at != NULL;
	row->address = (uintptr_t)at;
	return row;
}

static int find(struct scene *s)
{
	return handover_blocks_find(s->blocks, s->source, s->ram, getpid(), s->why);
}

static void refused(struct scene *s, const char *part)
{
	cr_assert_lt(find(s), 0, "accepted; expected: %s", part);
	cr_assert(strstr(s->why, part), "expected '%s', got '%s'", part, s->why);
	cr_assert(strstr(s->why, "ram"), "the block is not named: %s", s->why);
}

static void *map(int fd, uint64_t length, uint64_t offset, int flags)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, (off_t)offset);

	cr_assert_neq(at, MAP_FAILED);
	madvise(at, length, MADV_NOHUGEPAGE);
	return at;
}

static void *anonymous(uint64_t length)
{
	return map(-1, length, 0, MAP_PRIVATE | MAP_ANONYMOUS);
}

static int memfd(uint64_t length)
{
	int fd = memfd_create("ram", MFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)length), 0);
	return fd;
}

static int named(char *path, uint64_t length)
{
	int fd;

	strcpy(path, "/dev/shm/pc-test-ram-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)length), 0);
	return fd;
}

/* A file behind an offset is found with it, and dies with its process unless it has a name. */
Test(handover_blocks, a_memfd_is_shared_and_mortal)
{
	struct scene s cleanup_scene = scene_new();
	cleanup_fd int fd = memfd(LENGTH + 2 * MIB);
	struct mem_identity id, got;
	const struct handover_block *b;

	add(&s, "ram", map(fd, LENGTH, 2 * MIB, MAP_SHARED), LENGTH);
	cr_assert_eq(find(&s), 0, "%s", s.why);
	b = &s.blocks->block[0];
	cr_assert_eq(b->class, HANDOVER_SHARED);
	cr_assert_eq(b->file_offset, 2 * MIB);
	cr_assert_eq(mem_identify(fd, &id), 0);
	cr_assert_eq(mem_identify(b->file, &got), 0);
	cr_assert_eq(got.inode, id.inode);
	cr_assert_not(b->named);
	cr_assert_eq(handover_blocks_mortal(s.blocks), b);
}

Test(handover_blocks, a_file_with_a_name_outlives_qemu)
{
	struct scene s cleanup_scene = scene_new();
	char path[64];
	cleanup_fd int fd = named(path, LENGTH);

	add(&s, "ram", map(fd, LENGTH, 0, MAP_SHARED), LENGTH);
	add(&s, "rom", anonymous(MIB), MIB);
	cr_assert_eq(find(&s), 0, "%s", s.why);
	unlink(path);
	cr_assert(s.blocks->block[0].named);
	cr_assert_eq(s.blocks->block[1].class, HANDOVER_STREAMED);
	cr_assert_null(handover_blocks_mortal(s.blocks));
	handover_blocks_clear(s.blocks);
	cr_assert_eq(find(&s), 0, "%s", s.why);
	cr_assert_not_null(handover_blocks_mortal(s.blocks), "its name is gone");
}

Test(handover_blocks, anonymous_memory_is_lazy_while_it_is_empty)
{
	struct scene s cleanup_scene = scene_new();
	uint8_t *at = anonymous(LENGTH);

	add(&s, "ram", at, LENGTH);
	cr_assert_eq(find(&s), 0, "%s", s.why);
	cr_assert_eq(s.blocks->block[0].class, HANDOVER_LAZY);
	cr_assert_eq(s.blocks->block[0].address, (uintptr_t)at);
	cr_assert_eq(handover_blocks_mortal(s.blocks), &s.blocks->block[0]);
	at[3 * MIB] = 1;
	cr_assert_eq(find(&s), 0, "%s", s.why);
	cr_assert_eq(s.blocks->block[0].class, HANDOVER_STREAMED);
	cr_assert(strstr(s.blocks->block[0].why, "has pages"));
}

Test(handover_blocks, without_an_address_it_goes_in_the_stream)
{
	struct scene s cleanup_scene = scene_new();

	add(&s, "ram", NULL, 16 * MIB);
	cr_assert_eq(find(&s), 0, "%s", s.why);
	cr_assert_eq(s.blocks->block[0].class, HANDOVER_STREAMED);
	cr_assert_null(handover_blocks_mortal(s.blocks));
	s.source->block[0].length = s.ram->block[0].used = s.ram->block[0].total = 1024 * MIB;
	refused(&s, "would have to be here before the VM can go on");
}

/* Tables that grew with their QEMU are resized by it; memory is not. */
Test(handover_blocks, only_what_is_streamed_may_differ_in_size)
{
	struct scene s cleanup_scene = scene_new();
	struct qmonitor_block *row = add(&s, "ram", anonymous(MIB), MIB / 2);

	row->used = MIB / 4;
	row->total = MIB;
	cr_assert_eq(find(&s), 0, "%s", s.why);
	row->total = MIB / 4;
	refused(&s, "524288 bytes at the source and 262144 here");
}

Test(handover_blocks, shared_memory_of_another_size_is_refused)
{
	struct scene s cleanup_scene = scene_new();
	cleanup_fd int fd = memfd(LENGTH);

	add(&s, "ram", map(fd, LENGTH, 0, MAP_SHARED), LENGTH)->used = LENGTH / 2;
	refused(&s, "4194304 bytes at the source and 2097152 here");
}

Test(handover_blocks, a_block_that_is_missing_here)
{
	struct scene s cleanup_scene = scene_new();

	add(&s, "ram", anonymous(LENGTH), LENGTH);
	strcpy(s.ram->block[0].name, "m0");
	refused(&s, "the source has a block ram");
}

/*
 * Shared memory that the source has not would never be filled; other blocks are QEMU's own
 * business.
 */
Test(handover_blocks, a_block_that_is_only_here)
{
	struct scene s cleanup_scene = scene_new();
	cleanup_fd int fd = memfd(LENGTH);

	add(&s, "rom", anonymous(MIB), MIB);
	add(&s, "ram2", anonymous(LENGTH), LENGTH);
	s.source->n_blocks = 1;
	cr_assert_eq(find(&s), 0, "%s", s.why);
	s.ram->block[1].address = (uintptr_t)map(fd, LENGTH, 0, MAP_SHARED);
	refused(&s, "nothing would ever fill it");
}

Test(handover_blocks, what_the_monitor_says_is_looked_up)
{
	struct scene s cleanup_scene = scene_new();
	uint8_t *at = anonymous(LENGTH);

	add(&s, "ram", at, LENGTH);
	munmap(at + 2 * MIB, 2 * MIB);
	refused(&s, "nothing mapped");
}

Test(handover_blocks, two_files_are_no_block)
{
	struct scene s cleanup_scene = scene_new();
	cleanup_fd int one = memfd(LENGTH), two = memfd(LENGTH);
	uint8_t *at = map(one, LENGTH, 0, MAP_SHARED);

	add(&s, "ram", at, LENGTH);
	cr_assert_eq(mmap(at + MIB, MIB, PROT_READ, MAP_SHARED | MAP_FIXED, two, MIB), at + MIB);
	refused(&s, "not of one piece");
}

Test(handover_blocks, a_file_on_a_disk_cannot_be_served)
{
	struct scene s cleanup_scene = scene_new();
	g_autofree char *path = NULL;
	cleanup_fd int fd = g_file_open_tmp("pc-ram-XXXXXX", &path, NULL);
	struct mem_identity id;

	cr_assert_geq(fd, 0);
	unlink(path);
	cr_assert_eq(ftruncate(fd, (off_t)LENGTH), 0);
	if (mem_identify(fd, &id) == 0)
		cr_skip_test("the folder of temporary files is memory here");
	add(&s, "ram", map(fd, LENGTH, 0, MAP_SHARED), LENGTH);
	refused(&s, "cannot be served");
}
