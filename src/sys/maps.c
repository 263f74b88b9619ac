/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both files are generated while they are read, a buffer at a time: a mapping that
 * changes meanwhile may be missed or be seen twice, so callers look only at processes whose
 * mappings rest (held, or waiting for us), or look again.
 */
#include "config.h"

#include "sys/maps.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "sys/maps_query.h"
#include "sys/maps_text.h"

/*
 * The kernel fills no more than this at a time; stdio would ask for a quarter of it, and how often
 * is asked is most of what a look costs.
 */
#define READ_SIZE 4096

struct proc_file {
	FILE *f;		/* NULL */
	char buf[READ_SIZE];
};

static void close_file(struct proc_file *p)
{
	if (p->f)
		fclose(p->f);
}
#define cleanup_file __attribute__((cleanup(close_file)))

static void close_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}
#define cleanup_dir __attribute__((cleanup(close_dir)))

/* --- processes --- */

/* A file of a process; -ESRCH when the process is gone. */
static int open_proc(pid_t pid, const char *name, struct proc_file *out)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	out->f = fopen(path, "re");
	if (!out->f)
		return errno == ENOENT ? -ESRCH : -errno;
	setvbuf(out->f, out->buf, _IOFBF, sizeof(out->buf));
	return 0;
}

/* As maps_text_of_file(), or -ENOTTY: ask that. */
static int query_of_file(int maps_fd, uint64_t dev, uint64_t inode, struct maps_vma **out)
{
	struct maps_vma vma = { 0 };
	struct maps_list l = { 0 };
	int rc;

	while ((rc = maps_query_of_file(maps_fd, dev, inode, &vma)) > 0 &&
	       (rc = maps_list_add(&l, &vma)) == 0)
		continue;
	if (rc < 0 && rc != -ENODATA) {
		free(l.vma);
		return rc;
	}
	*out = l.vma;
	return (int)l.n;
}

/**
 * maps_of_file - where a process has mapped a memory object
 *
 * @dev, @inode: as of mem_identify().  *out is NULL when the number is 0.  -ESRCH: no such process
 * (any more); -EACCES: no right to look into it.
 */
int maps_of_file(pid_t pid, uint64_t dev, uint64_t inode, struct maps_vma **out)
{
	cleanup_file struct proc_file p = { .f = NULL };
	int rc = open_proc(pid, "maps", &p);

	*out = NULL;
	if (rc == 0)
		rc = query_of_file(fileno(p.f), dev, inode, out);
	return rc == -ENOTTY ? maps_text_of_file(p.f, dev, inode, out) : rc;
}

/**
 * maps_wait - outwait whoever keeps the address space of a process locked
 *
 * The end of this process interrupts that.  maps alone may be told without the lock (6.17); smaps
 * is not.  One byte: no more than the first mapping is walked.
 *
 * Return: 0; -ENODATA: the first thread has ended, what the others have mapped is not shown;
 * -errno.
 */
int maps_wait(pid_t pid)
{
	cleanup_fd int fd = -1;
	char path[64], byte;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	n = read(fd, &byte, 1);
	return n < 0 ? -errno : n == 0 ? -ENODATA : 0;
}

/**
 * maps_proven - is all of a range registered for missing faults?
 *
 * An empty range is proven.  Reading smaps walks the page tables of all that lies below the range,
 * too: this is for milestones, not for faults.
 */
int maps_proven(pid_t pid, uint64_t start, uint64_t end, uint64_t *at)
{
	cleanup_file struct proc_file p = { .f = NULL };
	int rc = open_proc(pid, "smaps", &p);

	return rc < 0 ? rc : maps_text_proven(p.f, start, end, at);
}

/**
 * maps_released - is nothing of a range registered any more?
 *
 * Nothing above the range is looked at.
 */
int maps_released(pid_t pid, uint64_t start, uint64_t end)
{
	cleanup_file struct proc_file p = { .f = NULL };
	int rc = open_proc(pid, "smaps", &p);

	return rc < 0 ? rc : maps_text_released(p.f, start, end);
}

/* Does this task's address space map the file?  1, 0, -ENODATA when it has none, or -errno. */
static int task_uses(pid_t pid, const char *name, uint64_t dev, uint64_t inode)
{
	cleanup_file struct proc_file p = { .f = NULL };
	int rc = open_proc(pid, name, &p);
	struct maps_vma vma = { 0 };

	if (rc == 0)
		rc = maps_query_of_file(fileno(p.f), dev, inode, &vma);
	return rc == -ENOTTY ? maps_text_uses(p.f, dev, inode) : rc;
}

static pid_t pid_of_name(const char *name)
{
	char *rest;
	long pid = isdigit((unsigned char)name[0]) ? strtol(name, &rest, 10) : 0;

	return pid > 0 && pid <= INT32_MAX && *rest == '\0' ? (pid_t)pid : 0;
}

/*
 * The directory of its tasks has a link for each, beside its own two.  Kernel threads are most of
 * /proc, and have but one task.
 */
static bool has_one_task(const char *tasks)
{
	struct stat st;

	return stat(tasks, &st) == 0 && st.st_nlink == 3;
}

/*
 * Does the process map the file?  1, 0, or -errno.  A first thread that has ended shows no
 * mappings, though the process lives on in its others; a kernel thread has none in any task.
 */
static int process_uses(pid_t pid, uint64_t dev, uint64_t inode)
{
	int rc = task_uses(pid, "maps", dev, inode);
	cleanup_dir DIR *tasks = NULL;
	char name[64];
	struct dirent *e;

	if (rc != -ENODATA)
		return rc;
	snprintf(name, sizeof(name), "/proc/%d/task", (int)pid);
	if (has_one_task(name))
		return 0;
	tasks = opendir(name);
	while (tasks && rc == -ENODATA && (e = readdir(tasks))) {
		snprintf(name, sizeof(name), "task/%d/maps", (int)pid_of_name(e->d_name));
		if (pid_of_name(e->d_name) > 0)
			rc = task_uses(pid, name, dev, inode);
	}
	return rc == -ENODATA ? 0 : rc;
}

static int pid_list_add(pid_t **list, size_t n, pid_t pid)
{
	pid_t *grown = n % 16 ? *list : reallocarray(*list, n + 16, sizeof(pid));

	if (!grown)
		return -ENOMEM;
	grown[n] = pid;
	*list = grown;
	return 0;
}

/* One entry of /proc: counts a process that hides, keeps one that maps the file.  0 or -ENOMEM. */
static int users_visit(pid_t pid, uint64_t dev, uint64_t inode, pid_t **list, size_t *n,
		       unsigned *hidden)
{
	int rc = process_uses(pid, dev, inode);

	if (rc == 0 || rc == -ESRCH)
		return 0;
	if (rc < 0) {
		(*hidden)++;
		return 0;
	}
	rc = pid_list_add(list, *n, pid);
	*n += rc == 0;
	return rc;
}

/**
 * maps_users - who else maps a memory object
 * @at: which one is being looked at, for another thread to tell when that takes long; NULL
 *
 * A snapshot: a process that maps the file while we look may be missed, and one that holds only a
 * descriptor is not seen at all.  Other pid namespaces are invisible (design.md 2), not hidden.
 */
int maps_users(uint64_t dev, uint64_t inode, pid_t **out, unsigned *hidden, _Atomic pid_t *at)
{
	cleanup_free pid_t *list = NULL;
	cleanup_dir DIR *proc = opendir("/proc");
	pid_t self = getpid();
	unsigned hide = 0;
	struct dirent *e;
	size_t n = 0;
	int rc = 0;

	*out = NULL;
	if (!proc)
		return -errno;
	while (rc == 0 && (e = readdir(proc))) {
		pid_t pid = pid_of_name(e->d_name);

		if (pid <= 0 || pid == self)
			continue;
		if (at)
			*at = pid;
		rc = users_visit(pid, dev, inode, &list, &n, &hide);
	}
	if (rc < 0)
		return rc;
	if (hidden)
		*hidden = hide;
	*out = steal_ptr(&list);
	return (int)n;
}

/* --- one mapping --- */

/**
 * maps_at - the mapping that holds an address of another process
 */
int maps_at(pid_t pid, uint64_t address, struct maps_vma *out)
{
	cleanup_file struct proc_file p = { .f = NULL };
	int rc = open_proc(pid, "maps", &p);

	return rc < 0 ? rc : maps_text_at(p.f, address, out);
}

/* @path opened, when it is the file of the mapping; -ENOENT for another, or -errno. */
static int open_same(const char *path, const struct maps_vma *vma)
{
	cleanup_fd int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	return st.st_dev == vma->dev && st.st_ino == vma->inode ? steal_fd(&fd) : -ENOENT;
}

/*
 * A descriptor of the process that stands for the file.  Looked at before it is opened: opening
 * what somebody else has open can have effects (devices, pipes).
 */
static int open_from_fds(pid_t pid, const struct maps_vma *vma)
{
	cleanup_dir DIR *dir = NULL;
	char path[64 + NAME_MAX];
	struct dirent *e;
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((e = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, e->d_name);
		if (stat(path, &st) == 0 && st.st_dev == vma->dev && st.st_ino == vma->inode)
			return open_same(path, vma);
	}
	return -ENOENT;
}

/**
 * maps_open - open the file that a mapping of another process shows
 * @vma: as maps_at() or maps_of_file() found it; its file must have an inode
 *
 * By what the process has, never by a path: a path may name something else by now, or nothing.  The
 * kernel's own link to the mapping needs CAP_CHECKPOINT_RESTORE (or SYS_ADMIN) here; where that is
 * missing a descriptor that the process kept open will do.
 */
int maps_open(pid_t pid, const struct maps_vma *vma)
{
	char path[96];
	int fd;

	if (vma->inode == 0)
		return -ENOENT;
	snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid,
		 vma->start, vma->end);
	fd = open_same(path, vma);
	return fd >= 0 ? fd : open_from_fds(pid, vma);
}

#define PAGEMAP_THERE (3ull << 62)	/* present, or swapped out */

/**
 * maps_present - count the pages of a range that have content
 *
 * From /proc/PID/pagemap; what the process touches meanwhile may be missed.
 */
int maps_present(pid_t pid, uint64_t start, uint64_t end, uint64_t *pages)
{
	cleanup_fd int fd = -1;
	uint64_t entry[512], at = start >> 12, last = (end + 4095) >> 12;
	char path[64];

	*pages = 0;
	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	while (at < last) {
		size_t want = last - at < ARRAY_LEN(entry) ? last - at : ARRAY_LEN(entry);
		ssize_t n = pread(fd, entry, want * sizeof(entry[0]),
				  (off_t)(at * sizeof(entry[0])));

		if (n < (ssize_t)sizeof(entry[0]))
			return n < 0 ? -errno : -ESRCH;
		for (size_t i = 0; i < (size_t)n / sizeof(entry[0]); i++)
			*pages += (entry[i] & PAGEMAP_THERE) != 0;
		at += (size_t)n / sizeof(entry[0]);
	}
	return 0;
}

/**
 * maps_name - what a process calls itself, for messages only
 *
 * Anything that is not printable ASCII is shown as '?': the name is the other's choice.  0 or
 * -errno.
 */
int maps_name(pid_t pid, char *out, size_t len)
{
	cleanup_file struct proc_file p = { .f = NULL };
	int rc = open_proc(pid, "comm", &p);

	if (len == 0)
		return -EINVAL;
	out[0] = '\0';
	if (rc < 0)
		return rc;
	if (!fgets(out, (int)(len < 64 ? len : 64), p.f))
		return ferror(p.f) ? -errno : -ESRCH;
	out[strcspn(out, "\n")] = '\0';
	for (char *c = out; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	return 0;
}
