/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_SYS_MEM_H
#define PC_SYS_MEM_H
/*
 * Memory objects: identity and size of a shared file, our own mapping of it, sealed blobs, and the
 * receive buffer that is mapped twice in a row so that its content is always contiguous.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mem_identity {
	uint64_t dev, inode; /* dev as st_dev */
	uint64_t size;	     /* bytes */
	uint64_t page_size;  /* 4096, or the huge page size of a hugetlbfs file */
	bool hugetlb;
};
/* -EINVAL unless the file is memory that userfaultfd can serve (tmpfs/memfd or hugetlbfs). */
int mem_identify(int fd, struct mem_identity *id);

/* Can it be mapped for writing through @fd: opened so, and not sealed against it? */
bool mem_writable(int fd);

/* Our own shared mapping of @len bytes at @offset, MADV_NOHUGEPAGE.  NULL with errno. */
void *mem_map_shared(int fd, uint64_t offset, uint64_t len);
/* Private zero memory, NORESERVE (ledgers, stores of held blocks); NULL with errno. */
void *mem_map_private(uint64_t len);
/*
 * Copy into, or out of, a mapping of a file that others may truncate, or whose file system may be
 * full: -EFAULT where a plain access would be SIGBUS.
 */
int mem_write(void *to, const void *from, size_t len);
int mem_read(void *to, const void *from, size_t len);
void mem_unmap(void *addr, uint64_t len);

/*
 * Are there no free huge pages of @page_size that nobody reserved?  The kernel answers a COPY then
 * with EEXIST, as if the page were there (tests/kernel).  False when it cannot be told.
 */
bool mem_pool_empty(uint64_t page_size);
/* Has that process something at this address?  1 yes, 0 no, -errno when it cannot be told. */
int mem_mapped(pid_t pid, uint64_t address);

/* Drop the content of a range: PUNCH_HOLE for a file, MADV_DONTNEED for private memory. */
int mem_punch(int fd, uint64_t offset, uint64_t len);
int mem_drop(void *addr, uint64_t len);

/*
 * Visit the ranges of @fd that have data (SEEK_DATA/SEEK_HOLE) within [offset, offset+len).  @visit
 * returns 0 to go on.  -EOPNOTSUPP on hugetlbfs, which cannot tell.
 */
int mem_each_extent(int fd, uint64_t offset, uint64_t len,
		    int (*visit)(void *ctx, uint64_t start, uint64_t length), void *ctx);

/*
 * Is all of a shared mapping's range not instantiated, so that it reads as zero and costs nothing?
 * False for what is there in part or cannot be told; a page that was swapped out counts as not
 * there.  Not for hugetlbfs, where the kernel tells only what this process has looked at.
 */
bool mem_is_hole(void *addr, uint64_t len);

/*
 * How many bytes of the file are instantiated, in all: also on hugetlbfs, where EEXIST from a COPY
 * can mean an empty pool instead of a present page (tests/kernel/hugetlb).  0 or -errno.
 */
int mem_held(int fd, uint64_t *bytes);

/* A memfd that takes seals, @len bytes; mem_blob_seal() makes it immutable, shrinks nothing. */
int mem_blob_new(const char *name, uint64_t len);
int mem_blob_seal(int fd);

/*
 * A memory file that outlives us: sized and sealed, so that nobody takes it away under whoever maps
 * it.  0 or -errno.  Is it such a one, of that size?
 */
int mem_kept_size(int fd, uint64_t len);
bool mem_is_kept(int fd, uint64_t len);
/* Is something of that range in the file (not hugetlbfs), mapped or not?  1, 0, -errno. */
int mem_has_data(int fd, uint64_t offset, uint64_t len);

/* A byte queue whose readable part is always one contiguous range ("mapped twice"). */
struct mem_ring {
	uint8_t *base;
	size_t size;	   /* power of two, multiple of the page size */
	size_t head, tail; /* absolute; readable = tail - head */
};
int mem_ring_init(struct mem_ring *r, size_t size);
void mem_ring_deinit(struct mem_ring *r);
static inline size_t mem_ring_used(const struct mem_ring *r)
{
	return r->tail - r->head;
}
static inline size_t mem_ring_room(const struct mem_ring *r)
{
	return r->size - mem_ring_used(r);
}
static inline uint8_t *mem_ring_read(const struct mem_ring *r)
{
	return r->base + (r->head & (r->size - 1));
}
static inline uint8_t *mem_ring_write(const struct mem_ring *r)
{
	return r->base + (r->tail & (r->size - 1));
}
/*
 * Begin anew if there is nothing in it: a queue that is kept short then stays in the same few cache
 * lines.
 */
static inline void mem_ring_rewind(struct mem_ring *r)
{
	if (r->head == r->tail)
		r->head = r->tail = 0;
}

#endif
