/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "holder.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "facts.h"

#define NODE	2		/* the one file */
#define ROOM	65536		/* a request */

struct holder {
	int fuse, root;
	pthread_t server;
	atomic_uint reads;	/* that nobody answers */
	atomic_bool over, locking;
};

/* --- the file system -------------------------------------------------------------------------- */

static void reply(const struct holder *h, const struct fuse_in_header *in, const void *body,
		  size_t len)
{
	struct {
		struct fuse_out_header head;
		uint8_t body[256];
	} out = { .head = { .len = (uint32_t)(sizeof(out.head) + len), .unique = in->unique } };

	memcpy(out.body, body, len);
	expect_eq(write(h->fuse, &out, out.head.len), out.head.len);
}

static struct fuse_attr attributes(uint64_t node)
{
	return (struct fuse_attr){
		.ino = node,
		.size = node == NODE ? 4096 : 0,
		.blocks = 8,
		.nlink = 1,
		.blksize = 4096,
		.mode = node == NODE ? S_IFREG | 0600 : S_IFDIR | 0755,
	};
}

/* Who opens it for writing gets the kind of file whose mapping throws the cache away. */
static void answer(struct holder *h, const struct fuse_in_header *in, const void *body)
{
	const struct fuse_init_out init = { .major = FUSE_KERNEL_VERSION,
					    .minor = 31,
					    .max_write = 4096 };
	const struct fuse_open_in *open = body;
	struct fuse_entry_out entry = { .nodeid = NODE,
					.attr_valid = 3600,
					.attr = attributes(NODE) };
	struct fuse_attr_out attr = { .attr_valid = 3600, .attr = attributes(in->nodeid) };
	struct fuse_open_out opened = { 0 };

	if (in->opcode == FUSE_INIT)
		reply(h, in, &init, sizeof(init));
	else if (in->opcode == FUSE_LOOKUP)
		reply(h, in, &entry, sizeof(entry));
	else if (in->opcode == FUSE_GETATTR)
		reply(h, in, &attr, sizeof(attr));
	else if (in->opcode == FUSE_READ)
		atomic_fetch_add(&h->reads, 1);
	else if (in->opcode == FUSE_OPEN) {
		opened.open_flags = FOPEN_KEEP_CACHE |
				    ((open->flags & O_ACCMODE) == O_RDWR ? FOPEN_DIRECT_IO : 0);
		reply(h, in, &opened, sizeof(opened));
	} else if (in->opcode == FUSE_FLUSH || in->opcode == FUSE_RELEASE) {
		reply(h, in, NULL, 0);
	}
}

static void *serve(void *arg)
{
	static _Alignas(8) uint8_t request[ROOM];
	struct holder *h = arg;
	struct pollfd ready = { .fd = h->fuse, .events = POLLIN };

	while (!atomic_load(&h->over)) {
		if (poll(&ready, 1, 10) > 0 && read(h->fuse, request, sizeof(request)) > 0)
			answer(h, (const struct fuse_in_header *)request,
			       request + sizeof(struct fuse_in_header));
	}
	/* Whatever was not answered fails. */
	close(h->fuse);
	return NULL;
}

static int mount_it(int fuse)
{
	int fs = fsopen("fuse", FSOPEN_CLOEXEC), root = -1;
	char fd[16];

	snprintf(fd, sizeof(fd), "%d", fuse);
	if (fs >= 0 && fsconfig(fs, FSCONFIG_SET_STRING, "fd", fd, 0) == 0 &&
	    fsconfig(fs, FSCONFIG_SET_STRING, "rootmode", "40755", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_SET_STRING, "user_id", "0", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_SET_STRING, "group_id", "0", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		root = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	close(fs);
	return root;
}

struct holder *holder_new(void)
{
	struct holder *h = mmap(NULL, sizeof(*h), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	expect(h != MAP_FAILED);
	h->fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (h->fuse < 0)
		fact_skip("/dev/fuse: %s", strerror(errno));
	h->root = mount_it(h->fuse);
	if (h->root < 0)
		fact_skip("no FUSE file system can be made here: %s", strerror(errno));
	expect_eq(pthread_create(&h->server, NULL, serve, h), 0);
	return h;
}

void holder_let_go(struct holder *h)
{
	atomic_store(&h->over, true);
	expect_eq(pthread_join(h->server, NULL), 0);
}

/* --- who is locked ---------------------------------------------------------------------------- */

static void *read_a_page(void *arg)
{
	const struct holder *h = arg;
	int fd = openat(h->root, "file", O_RDONLY | O_CLOEXEC);
	char byte;

	expect(fd >= 0);
	(void)!pread(fd, &byte, 1, 0);
	return NULL;
}

static void *map_it(void *arg)
{
	struct holder *h = arg;
	int fd = openat(h->root, "file", O_RDWR | O_CLOEXEC);

	expect(fd >= 0);
	while (atomic_load(&h->reads) == 0)
		usleep(1000);
	atomic_store(&h->locking, true);
	mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	return NULL;
}

void holder_forked(const struct holder *h)
{
	close(h->fuse);
}

void holder_lock(struct holder *h)
{
	pthread_t reader, mapper;

	expect_eq(pthread_create(&reader, NULL, read_a_page, h), 0);
	expect_eq(pthread_create(&mapper, NULL, map_it, h), 0);
	while (!atomic_load(&h->locking))
		usleep(1000);
	usleep(50000);
}
