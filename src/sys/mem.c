/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "sys/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"

static uint64_t base_page(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* A file system whose pages userfaultfd can serve, or -EINVAL. */
static int mem_file_system(int fd, struct statfs *fs)
{
	if (fstatfs(fd, fs) < 0)
		return -errno;
	return fs->f_type == TMPFS_MAGIC || fs->f_type == HUGETLBFS_MAGIC ? 0 : -EINVAL;
}

/**
 * mem_identify - which memory object is behind @fd
 *
 * The pair (dev, inode) is the key under which sharers of the object are found (see maps.h); the
 * size is a snapshot unless the file is sealed.  Returns 0, -EINVAL when userfaultfd cannot serve
 * such a file, or another -errno.
 */
int mem_identify(int fd, struct mem_identity *id)
{
	struct statfs fs;
	struct stat st;
	int err = mem_file_system(fd, &fs);

	if (err < 0)
		return err;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*id = (struct mem_identity){
		.dev = st.st_dev,
		.inode = st.st_ino,
		.size = (uint64_t)st.st_size,
		.hugetlb = fs.f_type == HUGETLBFS_MAGIC,
	};
	id->page_size = id->hugetlb ? (uint64_t)fs.f_bsize : base_page();
	return 0;
}

/**
 * mem_writable - can we write this memory file?
 *
 * A descriptor that is open for reading only, or a seal (F_SEAL_FUTURE_WRITE leaves the mappings of
 * others writable), shows otherwise no earlier than when content is to be placed.
 */
bool mem_writable(int fd)
{
	int mode = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS);

	if (mode < 0 || (mode & O_ACCMODE) != O_RDWR)
		return false;
	return seals < 0 || !(seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

/**
 * mem_map_shared - our own readable and writable mapping of a memory file
 *
 * @offset and @len are multiples of the file's page size.  Not NORESERVE: on hugetlbfs a pool that
 * is too small shows here as ENOMEM, and not later as SIGBUS.  NOHUGEPAGE, so that writing one page
 * instantiates one page.  NULL with errno on failure.
 */
void *mem_map_shared(int fd, uint64_t offset, uint64_t len)
{
	void *addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

	if (addr == MAP_FAILED)
		return NULL;
	/* EINVAL: a kernel without transparent huge pages, where there is nothing to forbid. */
	if (madvise(addr, len, MADV_NOHUGEPAGE) < 0 && errno != EINVAL) {
		int err = errno;

		munmap(addr, len);
		errno = err;
		return NULL;
	}
	return addr;
}

/**
 * mem_map_private - zero memory that costs nothing until it is written
 */
void *mem_map_private(uint64_t len)
{
	void *addr = mmap(NULL, len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

/*
 * The kernel copies between two places of our own; without that call (a sandbox) it is a plain
 * copy.
 */
static int copied(ssize_t n, void *to, const void *from, size_t len)
{
	if (n >= 0)
		return (size_t)n == len ? 0 : -EFAULT;
	if (errno != ENOSYS && errno != EPERM)
		return -errno;
	memcpy(to, from, len);
	return 0;
}

/**
 * mem_write - copy into memory that may have gone
 *
 * A shared file can be truncated by everybody who has it, and a file system be full: the kernel
 * then tells us by SIGBUS, unless it makes the access itself.  0 or -EFAULT; a part may have been
 * written.
 */
int mem_write(void *to, const void *from, size_t len)
{
	struct iovec local = { .iov_base = (void *)from, .iov_len = len };
	struct iovec remote = { .iov_base = to, .iov_len = len };

	return copied(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), to, from, len);
}

/**
 * mem_read - copy out of memory that may have gone; as mem_write()
 */
int mem_read(void *to, const void *from, size_t len)
{
	struct iovec local = { .iov_base = to, .iov_len = len };
	struct iovec remote = { .iov_base = (void *)from, .iov_len = len };

	return copied(process_vm_readv(getpid(), &local, 1, &remote, 1, 0), to, from, len);
}

/**
 * mem_unmap - undo mem_map_shared() or mem_map_private(); NULL is fine
 */
void mem_unmap(void *addr, uint64_t len)
{
	if (addr)
		munmap(addr, len);
}

/**
 * mem_punch - drop the content of a file range in every process that maps it
 *
 * The size stays.  Partial pages at the ends are zeroed, not dropped (hugetlbfs: left alone or
 * zeroed, by kernel version), so callers pass whole pages.  0 or -errno.
 */
int mem_punch(int fd, uint64_t offset, uint64_t len)
{
	int rc;

	do
		rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
			       (off_t)len);
	while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : 0;
}

/**
 * mem_drop - drop the content of private memory (on a shared mapping this loses nothing)
 */
int mem_drop(void *addr, uint64_t len)
{
	return madvise(addr, len, MADV_DONTNEED) < 0 ? -errno : 0;
}

/* lseek() for extents: the position, or @end when there is no such extent before it. */
static int mem_seek(int fd, uint64_t from, int whence, uint64_t end, uint64_t *at)
{
	off_t pos = lseek(fd, (off_t)from, whence);

	if (pos < 0 && errno != ENXIO)
		return -errno;
	*at = pos < 0 || (uint64_t)pos > end ? end : (uint64_t)pos;
	return 0;
}

/**
 * mem_each_extent - visit what the file holds between @offset and @offset + @len
 *
 * Data is what was instantiated, zero or not.  The answer is a snapshot: other sharers may write
 * meanwhile.  The file position of @fd (shared with whoever holds the same open file) is moved.
 * A non-zero return of @visit ends the walk and is returned.
 */
int mem_each_extent(int fd, uint64_t offset, uint64_t len,
		    int (*visit)(void *ctx, uint64_t start, uint64_t length), void *ctx)
{
	uint64_t end, data = 0, hole = 0;
	struct statfs fs;
	int rc = mem_file_system(fd, &fs);

	if (rc == 0 && fs.f_type == HUGETLBFS_MAGIC)
		rc = -EOPNOTSUPP;
	if (rc == 0 && (!add_u64(offset, len, &end) || end > INT64_MAX))
		rc = -EINVAL;
	while (rc == 0 && offset < end) {
		rc = mem_seek(fd, offset, SEEK_DATA, end, &data);
		if (rc < 0 || data == end)
			break;
		rc = mem_seek(fd, data, SEEK_HOLE, end, &hole);
		if (rc == 0)
			rc = visit(ctx, data, hole - data);
		offset = hole;
	}
	return rc;
}

/**
 * mem_is_hole - is a range of a shared mapping a hole of its file?
 *
 * @addr and @len are multiples of the page size.  A snapshot, as mem_each_extent().  Asked by
 * mincore(), because SEEK_DATA takes the file's lock, which another process may hold while it
 * sleeps on a page of that file.
 */
bool mem_is_hole(void *addr, uint64_t len)
{
	uint64_t page = base_page();
	unsigned char there[64];

	for (uint64_t done = 0; done < len;) {
		uint64_t n = (len - done) / page < sizeof(there) ? (len - done) / page :
								   sizeof(there);

		if (mincore((uint8_t *)addr + done, n * page, there) < 0)
			return false;
		for (uint64_t i = 0; i < n; i++)
			if (there[i] & 1)
				return false;
		done += n * page;
	}
	return true;
}

/**
 * mem_held - how many bytes of a memory file are instantiated
 */
int mem_held(int fd, uint64_t *bytes)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*bytes = (uint64_t)st.st_blocks * 512;
	return 0;
}

/**
 * mem_blob_new - a memory file that can be sealed, @len bytes of zero
 *
 * Returns a CLOEXEC descriptor or -errno.
 */
int mem_blob_new(const char *name, uint64_t len)
{
	cleanup_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)len) < 0)
		return -errno;
	return steal_fd(&fd);
}

/**
 * mem_blob_seal - make a blob immutable, size and content, for good
 *
 * The caller has unmapped every shared writable mapping of it: while one exists this is -EBUSY.
 */
int mem_blob_seal(int fd)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

	return fcntl(fd, F_ADD_SEALS, seals) < 0 ? -errno : 0;
}

/**
 * mem_kept_size - give an empty memory file its size, for good
 *
 * Its content stays writable.  0 or -errno.
 */
int mem_kept_size(int fd, uint64_t len)
{
	if (ftruncate(fd, (off_t)len) < 0)
		return -errno;
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0 ? -errno : 0;
}

/**
 * mem_is_kept - is @fd a memory file of @len bytes that stays so, and can be written?
 */
bool mem_is_kept(int fd, uint64_t len)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & F_SEAL_SHRINK) && mem_writable(fd) && fstat(fd, &st) == 0 &&
	       (uint64_t)st.st_size == len;
}

/**
 * mem_has_data - is something of a range of a memory file instantiated?
 *
 * Return: 1 yes, also when it was swapped out; 0 it is a hole; -errno when it cannot be told.
 */
int mem_has_data(int fd, uint64_t offset, uint64_t len)
{
	off_t at = lseek(fd, (off_t)offset, SEEK_DATA);

	if (at < 0)
		return errno == ENXIO ? 0 : -errno;
	return (uint64_t)at < offset + len;
}

/* The same file twice in a row over a reservation, so that nothing else can come between. */
static int mem_ring_map(uint8_t *base, size_t size, int fd)
{
	for (unsigned half = 0; half < 2; half++)
		if (mmap(base + half * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 fd, 0) == MAP_FAILED)
			return -errno;
	return 0;
}

/**
 * mem_ring_init - a byte queue of @size bytes whose content is always contiguous
 *
 * @size: a power of two, multiple of the page size.  0 or -errno; after a failure @r is empty and
 * mem_ring_deinit() is still allowed.
 */
int mem_ring_init(struct mem_ring *r, size_t size)
{
	cleanup_fd int fd = -1;
	void *base;
	int err;

	memset(r, 0, sizeof(*r));
	if (!is_power_of_two(size) || size % base_page() || size > SIZE_MAX / 4)
		return -EINVAL;
	fd = mem_blob_new("postcopy-ring", size);
	if (fd < 0)
		return fd;
	base = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return -errno;
	err = mem_ring_map(base, size, fd);
	if (err < 0) {
		munmap(base, 2 * size);
		return err;
	}
	r->base = base;
	r->size = size;
	return 0;
}

/**
 * mem_ring_deinit - give the memory back; idempotent
 */
void mem_ring_deinit(struct mem_ring *r)
{
	if (r->base)
		munmap(r->base, 2 * r->size);
	memset(r, 0, sizeof(*r));
}

static bool pool_count(uint64_t page_size, const char *what, unsigned long *count)
{
	char path[128], text[32];
	ssize_t n;
	int fd;

	/* No stdio: the fault thread asks, and must not allocate. */
	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s_hugepages",
		 (unsigned long long)page_size / 1024, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	*count = strtoul(text, NULL, 10);
	return true;
}

/**
 * mem_pool_empty - has the pool of huge pages of @page_size none that is free and not reserved?
 *
 * False when it cannot be told.
 */
bool mem_pool_empty(uint64_t page_size)
{
	unsigned long free_pages, reserved;

	return pool_count(page_size, "free", &free_pages) &&
	       pool_count(page_size, "resv", &reserved) && free_pages <= reserved;
}

/**
 * mem_mapped - has process @pid a page, or one that is swapped out, at @address?
 *
 * What its page table says; of a shared file more may be there than some process has mapped.  No
 * stdio, as above.
 *
 * Return: 1 yes, 0 no, -errno when it cannot be told.
 */
int mem_mapped(pid_t pid, uint64_t address)
{
	cleanup_fd int fd = -1;
	uint64_t entry = 0;
	char path[48];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pread(fd, &entry, sizeof(entry), (off_t)(address / base_page() * sizeof(entry))) !=
	    sizeof(entry))
		return -EIO;
	return (entry >> 62) != 0;
}
