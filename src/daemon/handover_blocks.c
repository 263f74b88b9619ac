/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Three ways, by what the memory is:
 *
 *   a file that is mapped shared: other processes may have it, too, and it can outlive QEMU.  It is
 *   opened through the process's own mapping, never by a path
 *
 *   anonymous memory: nobody else's, and not reachable but through QEMU's userfaultfd.  Only an
 *   empty one can be served: what is there already does not fault, and from outside nothing can
 *   take it away.  A small one is not worth its faults
 *
 *   the rest: what has no known address, what has pages already, and what is small (ROMs, ACPI
 *   tables).  QEMU itself writes it, from the stream
 *
 * The last way costs the guest time, since every page of it must be here before QEMU can load, so a
 * block too large for it is refused.  All of this is looked at while the source still runs its VM.
 *
 * A block that only QEMU here has is its own business (QEMU does not care either), unless it is
 * memory that would have to be filled: then the two command lines differ.
 */
#include "config.h"
#include "daemon/handover_blocks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <glib.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/maps.h"
#include "sys/mem.h"

#define WHY		512
#define SMALL		(1u << 20)	/* bytes: fetched as a whole sooner than by faults */
/* bytes: a VM that stands still for more has not been migrated live */
#define STREAM_MOST	(256u << 20)

/**
 * handover_class_name - the word for it on the control socket
 */
const char *handover_class_name(enum handover_class class)
{
	static const char *const names[] = {
		[HANDOVER_SHARED] = "shared",
		[HANDOVER_LAZY] = "lazy",
		[HANDOVER_STREAMED] = "in-stream",
	};

	return names[class];
}

G_GNUC_PRINTF(2, 3)
static int refuse(char *why, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(why, WHY, fmt, args);
	va_end(args);
	return -EINVAL;
}

static void stream_it(struct handover_block *b, const char *why)
{
	b->class = HANDOVER_STREAMED;
	g_strlcpy(b->why, why, sizeof(b->why));
}

/*
 * What lies at an address of QEMU: the first mapping, when all of the block is of one piece; 0 or
 * -errno with @why.
 */
static int look(pid_t pid, const struct qmonitor_block *row, uint64_t length,
		struct maps_vma *first, char *why)
{
	uint64_t at = row->address, end = row->address + length;
	struct maps_vma vma;

	for (; at < end; at = vma.end) {
		int ret = maps_at(pid, at, &vma);

		if (ret <= 0)
			return refuse(why,
				      "block %s: QEMU's monitor says it is at 0x%" PRIx64
				      ", where process %d has %s",
				      row->name, row->address, (int)pid,
				      ret < 0 ? strerror(-ret) : "nothing mapped");
		if (at == row->address)
			*first = vma;
		if (vma.inode != first->inode || vma.dev != first->dev ||
		    vma.shared != first->shared ||
		    (vma.inode &&
		     vma.offset + (at - vma.start) != first->offset + (at - first->start)))
			return refuse(why,
				      "block %s: the mappings of process %d at 0x%" PRIx64
				      " are not of one piece",
				      row->name, (int)pid, at);
	}
	return 0;
}

static int find_file(struct handover_block *b, pid_t pid, const struct qmonitor_block *row,
		     const struct maps_vma *vma, char *why)
{
	cleanup_fd int fd = maps_open(pid, vma);
	struct mem_identity id;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return refuse(why,
			      "block %s: the file that process %d maps at 0x%" PRIx64
			      " cannot be opened: %s (postcopyd needs "
			      "CAP_SYS_ADMIN, or the right to look into that process)",
			      b->name, (int)pid, row->address, strerror(fd < 0 ? -fd : errno));
	if (mem_identify(fd, &id) < 0)
		return refuse(
			why,
			"block %s is a file whose page faults cannot be served: its memory-backend must be on tmpfs "
			"(/dev/shm) or hugetlbfs, or a memory-backend-memfd",
			b->name);
	b->class = HANDOVER_SHARED;
	b->page_size = id.page_size;
	b->file_offset = vma->offset + (row->address - vma->start);
	b->named = st.st_nlink > 0;
	b->file = steal_fd(&fd);
	return 0;
}

static int find_private(struct handover_block *b, pid_t pid, const struct qmonitor_block *row,
			char *why)
{
	uint64_t pages = 0;
	int ret = maps_present(pid, row->address, row->address + b->length, &pages);

	if (ret < 0)
		return refuse(why, "block %s: cannot tell which pages process %d has: %s", b->name,
			      (int)pid, strerror(-ret));
	if (pages) {
		stream_it(b,
			  "has pages already (prealloc or mem-lock?), which cannot be taken away");
		return 0;
	}
	b->class = HANDOVER_LAZY;
	b->address = row->address;
	return 0;
}

/* By what it is made of. */
static int classify(struct handover_block *b, pid_t pid, const struct qmonitor_block *row,
		    char *why)
{
	struct maps_vma vma;
	int ret;

	if (!row->has_address) {
		stream_it(b, "its address is not known (QEMU before 8.1, not mapped by the guest)");
		return 0;
	}
	ret = look(pid, row, b->length, &vma, why);
	if (ret < 0)
		return ret;
	if (vma.shared)
		return find_file(b, pid, row, &vma, why);
	if (b->length <= SMALL)
		stream_it(b, "small");
	else if (vma.inode)
		stream_it(b, "a private mapping of a file, which cannot be served");
	else
		return find_private(b, pid, row, why);
	return 0;
}

static const struct qmonitor_block *find_row(const struct ram_list *ram, const char *name)
{
	for (unsigned i = 0; i < ram->n; i++)
		if (strcmp(ram->block[i].name, name) == 0)
			return &ram->block[i];
	return NULL;
}

static int find_block(struct handover_block *b, const struct snapshot_block *source,
		      const struct ram_list *ram, pid_t pid, char *why)
{
	const struct qmonitor_block *row = find_row(ram, source->name);
	int ret;

	*b = (struct handover_block){ .length = source->length, .file = -1 };
	g_strlcpy(b->name, source->name, sizeof(b->name));
	if (!row)
		return refuse(
			why,
			"the source has a block %s and the QEMU here has none of that name (`info ramblock` of its monitor "
			"lists them): it needs the same machine, devices and ids of memory-backends",
			b->name);
	b->page_size = row->page_size;
	ret = row->total < b->length ? 0 : classify(b, pid, row, why);
	/*
	 * What QEMU writes itself it also resizes, as far as there is room: tables that grew with
	 * their QEMU.
	 */
	if (ret == 0 && row->used != b->length &&
	    (row->total < b->length || b->class != HANDOVER_STREAMED))
		return refuse(why,
			      "block %s has %" PRIu64 " bytes at the source and %" PRIu64
			      " here: give the QEMU here the same "
			      "memory",
			      b->name, b->length, row->used);
	if (ret == 0 && b->class == HANDOVER_STREAMED && b->length > STREAM_MOST)
		return refuse(why,
			      "block %s: %" PRIu64
			      " MiB would have to be here before the VM can go on: %s; give it a "
			      "memory-backend with share=on",
			      b->name, b->length >> 20, b->why);
	return ret;
}

/* Memory of the kind that is served, shared with whoever has its file? */
static bool is_memory_file(pid_t pid, uint64_t address)
{
	cleanup_fd int fd = -1;
	struct mem_identity id;
	struct maps_vma vma;

	if (maps_at(pid, address, &vma) <= 0 || !vma.shared)
		return false;
	fd = maps_open(pid, &vma);
	return fd >= 0 && mem_identify(fd, &id) == 0;
}

/* Shared memory that nobody would fill. */
static int check_surplus(const struct snapshot *s, const struct ram_list *ram, pid_t pid, char *why)
{
	for (unsigned i = 0; i < ram->n; i++) {
		const struct qmonitor_block *row = &ram->block[i];
		unsigned at = 0;

		while (at < s->n_blocks && strcmp(s->block[at].name, row->name))
			at++;
		if (at < s->n_blocks || !row->has_address || !is_memory_file(pid, row->address))
			continue;
		return refuse(
			why,
			"the QEMU here has a block %s of shared memory and the source has none of that name: nothing would "
			"ever fill it; give both the same ids of memory-backends",
			row->name);
	}
	return 0;
}

/**
 * handover_blocks_find - how each block of the source gets into a QEMU
 * @s: with the source's whole list
 * @ram: what the monitor of @pid says
 * @why: 512 bytes
 *
 * Opens the files of shared blocks; handover_blocks_clear() after either.
 */
int handover_blocks_find(struct handover_blocks *out, const struct snapshot *s,
			 const struct ram_list *ram, pid_t pid, char *why)
{
	out->n = 0;
	for (unsigned i = 0; i < s->n_blocks; i++) {
		int ret = find_block(&out->block[out->n++], &s->block[i], ram, pid, why);

		if (ret < 0)
			return ret;
	}
	return check_surplus(s, ram, pid, why);
}

/**
 * handover_blocks_clear - close the files that are left, forget the blocks
 */
void handover_blocks_clear(struct handover_blocks *b)
{
	for (unsigned i = 0; i < b->n; i++)
		close_fd(&b->block[i].file);
	b->n = 0;
}

/**
 * handover_blocks_mortal - the first block whose content died with QEMU; NULL when none did
 *
 * What was served into anonymous memory, or into a file without a name, nobody else can have.
 */
const struct handover_block *handover_blocks_mortal(const struct handover_blocks *b)
{
	for (unsigned i = 0; i < b->n; i++)
		if (b->block[i].class == HANDOVER_LAZY ||
		    (b->block[i].class == HANDOVER_SHARED && !b->block[i].named))
			return &b->block[i];
	return NULL;
}
