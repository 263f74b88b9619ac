/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A disk in a process of its own: a vhost-user-blk back-end that shares the memory of its VM while
 * that memory is still arriving from another host.
 *
 *   vhost-user-blk [-r] [-p /run/vm1/register [-n disk]] /run/vm1/disk.sock disk.raw
 *
 * With -p it tells postcopyd what it maps.  All that this takes of a back-end is marked by [1] to
 * [5]; without -p the same program is an ordinary back-end.  -r: read-only.
 *
 * One thread does everything, and waits where the memory that it touches is missing.  One front-end
 * at a time, up to eight queues, little endian; no vIOMMU, no indirect descriptors, no dirty log.
 * Requests are done one by one, in order, so the ring alone tells a next process where to go on.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include <postcopy/postcopy.h>

#include "vhost-user.h"

#define UNUSED __attribute__((unused))
/* What the guest may change at any time is read once, into memory that it cannot. */
#define READ_ONCE(p) (*(const volatile __typeof__(*(p)) *)(p))

enum { QUEUES = 8, RING_MAX = 1024, SECTOR = 512 };

struct region {
	uint64_t guest, user, size;
	uint8_t *here;
};

struct queue {
	unsigned num;
	uint16_t seen; /* of the available ring */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick, call; /* -1: none */
	bool enabled;
};

static struct {
	postcopy *postcopy;	   /* NULL: without */
	int disk, listener, front; /* -1: none */
	bool read_only;
	uint64_t sectors;
	unsigned n_regions;
	struct region region[REGIONS];
	struct queue queue[QUEUES];
	int fds[REGIONS]; /* that came with the message at hand */
	unsigned n_fds;
} self = { .disk = -1, .listener = -1, .front = -1 };

static void die(const char *what, const char *why)
{
	fprintf(stderr, "vhost-user-blk: %s: %s\n", what, why);
	exit(EXIT_FAILURE);
}

/* --- memory --- */

static void unmap_all(void)
{
	for (unsigned i = 0; i < self.n_regions; i++) {
		if (self.postcopy)
			postcopy_unshare(self.postcopy, self.region[i].here); /* [1] */
		else
			munmap(self.region[i].here, self.region[i].size);
	}
	self.n_regions = 0;
}

/* [2] Instead of mmap(): what comes back is served, or is closed until it is. */
static int map(struct region *r, int fd, uint64_t offset)
{
	void *here;

	if (self.postcopy) {
		if (postcopy_share(self.postcopy, fd, offset, r->size, &here) == 0)
			r->here = here;
		else
			fprintf(stderr, "vhost-user-blk: %s\n", postcopy_strerror(self.postcopy));
	} else {
		here = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
		r->here = here == MAP_FAILED ? NULL : here;
	}
	return r->here ? 0 : -EFAULT;
}

/* Where @len bytes at an address of the guest, or (@user) of the front-end, are; NULL: nowhere. */
static void *find(uint64_t address, uint64_t len, bool user)
{
	for (unsigned i = 0; i < self.n_regions; i++) {
		const struct region *r = &self.region[i];
		uint64_t start = user ? r->user : r->guest;

		if (address >= start && address - start < r->size &&
		    len <= r->size - (address - start))
			return r->here + (address - start);
	}
	return NULL;
}

/* --- requests of the guest --- */

/* The guest gives a head and data, and wants data and a status: each buffer in one piece. */
struct chain {
	struct iovec out[RING_MAX], in[RING_MAX];
	int n_out, n_in;
};

static int read_chain(const struct queue *q, unsigned at, struct chain *c)
{
	c->n_out = c->n_in = 0;
	for (unsigned links = 0; links < q->num && at < q->num; links++) {
		const struct vring_desc d = READ_ONCE(&q->desc[at]);
		struct iovec v = { find(d.addr, d.len, false), d.len };

		if (!v.iov_base)
			return -EFAULT;
		if (d.flags & VRING_DESC_F_WRITE)
			c->in[c->n_in++] = v;
		else
			c->out[c->n_out++] = v;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		at = d.next;
	}
	return -ELOOP;
}

static uint64_t bytes_of(const struct iovec *v, int n)
{
	uint64_t bytes = 0;

	for (int i = 0; i < n; i++)
		bytes += v[i].iov_len;
	return bytes;
}

/* The kernel waits for missing pages as we do. */
static int transfer(const struct iovec *v, int n, uint64_t sector, bool write)
{
	uint64_t bytes = bytes_of(v, n);
	ssize_t got;

	if (bytes % SECTOR || sector > self.sectors || bytes / SECTOR > self.sectors - sector)
		return -EINVAL;
	got = write ? pwritev(self.disk, v, n, (off_t)(sector * SECTOR))
		    : preadv(self.disk, v, n, (off_t)(sector * SECTOR));
	return got == (ssize_t)bytes ? 0 : -EIO;
}

static uint8_t perform(const struct chain *c, const struct virtio_blk_outhdr *head)
{
	int err = 0;

	if (head->type == VIRTIO_BLK_T_IN)
		err = transfer(c->in, c->n_in - 1, head->sector, false);
	else if (head->type == VIRTIO_BLK_T_OUT)
		err = self.read_only ? -EROFS
				     : transfer(c->out + 1, c->n_out - 1, head->sector, true);
	else if (head->type == VIRTIO_BLK_T_FLUSH)
		err = fdatasync(self.disk);
	else
		return VIRTIO_BLK_S_UNSUPP;
	return err ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
}

/* -1: what the guest queued makes no sense. */
static int serve_one(struct queue *q, uint16_t first)
{
	static struct chain c;
	struct virtio_blk_outhdr head;
	uint16_t used = READ_ONCE(&q->used->idx);

	if (read_chain(q, first, &c) < 0 || !c.n_in || c.in[c.n_in - 1].iov_len != 1 || !c.n_out ||
	    c.out[0].iov_len != sizeof(head))
		return -1;
	head = READ_ONCE((struct virtio_blk_outhdr *)c.out[0].iov_base);
	*(uint8_t *)c.in[c.n_in - 1].iov_base = perform(&c, &head);
	q->used->ring[used % q->num] =
		(struct vring_used_elem){ first, (uint32_t)bytes_of(c.in, c.n_in) };
	__atomic_store_n(&q->used->idx, (uint16_t)(used + 1), __ATOMIC_RELEASE);
	return 0;
}

/* [3] Nothing of a queue is looked at before the gate is open. */
static bool is_open(unsigned index)
{
	const struct queue *q = &self.queue[index];

	if (!q->enabled || q->kick < 0 || !q->desc || !q->num)
		return false;
	return !self.postcopy || postcopy_queue_open(self.postcopy, index);
}

static void serve(unsigned index)
{
	struct queue *q = &self.queue[index];

	while (q->seen != __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE)) {
		if (serve_one(q, READ_ONCE(&q->avail->ring[q->seen % q->num])) < 0) {
			fprintf(stderr, "vhost-user-blk: queue %u is broken\n", index);
			q->enabled = false;
			return;
		}
		q->seen++;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (q->call >= 0 && !(q->avail->flags & VRING_AVAIL_F_NO_INTERRUPT))
			eventfd_write(q->call, 1);
	}
}

/* --- requests of the front-end --- */

static void set_started(const struct queue *q)
{
	unsigned index = (unsigned)(q - self.queue);

	if (self.postcopy && q->enabled && q->kick >= 0)
		postcopy_queue_start(self.postcopy, index); /* [4] */
	else if (self.postcopy)
		postcopy_queue_stop(self.postcopy, index);
}

/* 0, 1: there is an answer in the message, or -1: refused.  @q: what it is about, if a queue. */
static int on_get(struct message *m, UNUSED struct queue *q)
{
	if (m->request == GET_QUEUE_NUM)
		m->body.u64 = QUEUES;
	else if (m->request == GET_PROTOCOL_FEATURES)
		m->body.u64 = P_MQ | P_REPLY_ACK | P_CONFIG;
	else
		m->body.u64 = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_BLK_F_FLUSH) |
			      BIT(VIRTIO_BLK_F_MQ) | F_PROTOCOL_FEATURES |
			      (self.read_only ? BIT(VIRTIO_BLK_F_RO) : 0);
	return 1;
}

static int on_nothing(UNUSED struct message *m, UNUSED struct queue *q)
{
	return 0;
}

static int on_memory(struct message *m, struct queue *q)
{
	unmap_all();
	/* The rings were somewhere in it. */
	for (q = self.queue; q < self.queue + QUEUES; q++)
		q->desc = NULL;
	if (m->body.memory.n > REGIONS || m->body.memory.n != self.n_fds)
		return -1;
	for (unsigned i = 0; i < self.n_fds; i++) {
		struct region r = { m->body.memory.region[i].guest, m->body.memory.region[i].user,
				    m->body.memory.region[i].size, NULL };

		if (map(&r, self.fds[i], m->body.memory.region[i].offset) < 0)
			return -1;
		self.region[self.n_regions++] = r;
	}
	return 0;
}

static int on_state(struct message *m, struct queue *q)
{
	unsigned num = m->body.state.num;

	if (m->request == SET_VRING_ENABLE) {
		q->enabled = num;
		set_started(q);
	} else if (m->request == SET_VRING_BASE) {
		q->seen = (uint16_t)num;
	} else if (num == 0 || num > RING_MAX || num & (num - 1)) {
		return -1;
	} else {
		q->num = num;
		q->desc = NULL;
	}
	return 0;
}

/* Addresses only: not even the used ring's index is read before the gate is open. */
static int on_addr(struct message *m, struct queue *q)
{
	q->desc = find(m->body.addr.desc, q->num * sizeof(struct vring_desc), true);
	q->avail = find(m->body.addr.avail, sizeof(struct vring_avail) + q->num * sizeof(uint16_t),
			true);
	q->used = find(m->body.addr.used,
		       sizeof(struct vring_used) + q->num * sizeof(struct vring_used_elem), true);
	if (!q->num || !q->avail || !q->used ||
	    (m->body.addr.desc | m->body.addr.avail | m->body.addr.used) & 3)
		q->desc = NULL;
	return q->desc ? 0 : -1;
}

/* What was there is closed with what came. */
static void set_fd(int *to)
{
	int old = *to;

	*to = self.n_fds ? self.fds[0] : -1;
	self.fds[0] = old;
	if (self.n_fds == 0)
		self.n_fds = 1;
}

/* The answer says where a next one is to go on; the queue is stopped. */
static int on_get_base(struct message *m, struct queue *q)
{
	set_fd(&q->kick);
	set_started(q);
	m->body.state.num = q->seen;
	return 1;
}

static int on_fd(struct message *m, struct queue *q)
{
	set_fd(m->request == SET_VRING_KICK ? &q->kick : &q->call);
	set_started(q);
	return 0;
}

static int on_config(struct message *m, UNUSED struct queue *q)
{
	struct virtio_blk_config config = { .capacity = self.sectors, .num_queues = QUEUES };
	uint32_t size = m->body.config.size;

	if (m->body.config.offset || size > sizeof(m->body.config.data))
		return -1;
	memset(m->body.config.data, 0, size);
	memcpy(m->body.config.data, &config, size < sizeof(config) ? size : sizeof(config));
	return 1;
}

static const struct {
	int (*handle)(struct message *m, struct queue *q);
	uint32_t least, answer; /* bytes; of the answer, 0: as many as the request has */
	bool queue;		/* it begins with the number of one */
} requests[] = {
	[GET_FEATURES] = { on_get, 0, 8, false },
	[SET_FEATURES] = { on_nothing, 8, 0, false },
	[SET_OWNER] = { on_nothing, 0, 0, false },
	[SET_MEM_TABLE] = { on_memory, 8, 0, false },
	[SET_VRING_NUM] = { on_state, 8, 0, true },
	[SET_VRING_ADDR] = { on_addr, 40, 0, true },
	[SET_VRING_BASE] = { on_state, 8, 0, true },
	[GET_VRING_BASE] = { on_get_base, 8, 8, true },
	[SET_VRING_KICK] = { on_fd, 8, 0, true },
	[SET_VRING_CALL] = { on_fd, 8, 0, true },
	[SET_VRING_ERR] = { on_nothing, 8, 0, true },
	[GET_PROTOCOL_FEATURES] = { on_get, 0, 8, false },
	[SET_PROTOCOL_FEATURES] = { on_nothing, 8, 0, false },
	[GET_QUEUE_NUM] = { on_get, 0, 8, false },
	[SET_VRING_ENABLE] = { on_state, 8, 0, true },
	[GET_CONFIG] = { on_config, 12, 0, false },
};

static int perform_request(struct message *m)
{
	unsigned index = m->body.u64 & 0xff;

	if (m->request >= sizeof(requests) / sizeof(requests[0]) || !requests[m->request].handle ||
	    m->size < requests[m->request].least || (requests[m->request].queue && index >= QUEUES))
		return -1;
	return requests[m->request].handle(m,
					   requests[m->request].queue ? &self.queue[index] : NULL);
}

static int handle(struct message *m)
{
	bool urged = m->flags & FLAG_NEED_REPLY;
	int ret = perform_request(m);

	if (ret > 0 && requests[m->request].answer)
		m->size = requests[m->request].answer;
	if (ret <= 0 && !urged)
		return ret;
	if (ret <= 0) {
		m->size = sizeof(m->body.u64);
		m->body.u64 = ret < 0;
	}
	m->flags = FLAG_REPLY;
	return send(self.front, m, 12 + m->size, MSG_NOSIGNAL) == (ssize_t)(12 + m->size) ? 0 : -1;
}

static void close_fds(void)
{
	for (unsigned i = 0; i < self.n_fds; i++)
		if (self.fds[i] >= 0)
			close(self.fds[i]);
	self.n_fds = 0;
}

static int receive(struct message *m)
{
	char control[CMSG_SPACE(sizeof(self.fds))] __attribute__((aligned(8)));
	struct iovec head = { m, 12 };
	struct msghdr msg = { .msg_iov = &head,
			      .msg_iovlen = 1,
			      .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *c;

	memset(m, 0, sizeof(*m));
	if (recvmsg(self.front, &msg, MSG_WAITALL | MSG_CMSG_CLOEXEC) != 12)
		return -1;
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS) {
		self.n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(self.fds, CMSG_DATA(c), self.n_fds * sizeof(int));
	}
	if (m->size > sizeof(m->body) || msg.msg_flags & MSG_CTRUNC)
		return -1;
	return m->size == 0 || recv(self.front, &m->body, m->size, MSG_WAITALL) == (ssize_t)m->size
		       ? 0
		       : -1;
}

static void hang_up(void)
{
	for (struct queue *q = self.queue; q < self.queue + QUEUES; q++) {
		set_fd(&q->kick);
		close_fds();
		set_fd(&q->call);
		close_fds();
		*q = (struct queue){ .kick = -1, .call = -1 };
		set_started(q);
	}
	unmap_all();
	if (self.front >= 0)
		close(self.front);
	self.front = -1;
}

/* --- the loop --- */

/* [5] What postcopyd says.  Without it the memory would stay closed. */
static void hear(void)
{
	struct postcopy_event e = { .size = sizeof(e) };
	static bool complete;

	while (postcopy_dispatch(self.postcopy, &e) == 1) {
		complete |= e.type == POSTCOPY_EVENT_COMPLETE;
		if (e.type == POSTCOPY_EVENT_FAILED || e.type == POSTCOPY_EVENT_DISABLED ||
		    (e.type == POSTCOPY_EVENT_DISCONNECTED && !complete))
			die("postcopyd", e.text);
	}
}

static void talk(void)
{
	struct message m;
	int err = receive(&m) < 0 || handle(&m) < 0;

	close_fds();
	if (err)
		hang_up();
}

static void step(void)
{
	struct pollfd p[2 + QUEUES];

	p[0] = (struct pollfd){ .fd = self.front >= 0 ? self.front : self.listener,
				.events = POLLIN };
	p[1] = (struct pollfd){ .fd = self.postcopy ? postcopy_fd(self.postcopy) : -1,
				.events = POLLIN };
	for (unsigned i = 0; i < QUEUES; i++)
		p[2 + i] = (struct pollfd){ .fd = is_open(i) ? self.queue[i].kick : -1,
					    .events = POLLIN };
	if (poll(p, 2 + QUEUES, -1) < 0 && errno != EINTR)
		die("poll", strerror(errno));
	if (p[1].revents)
		hear();
	for (unsigned i = 0; i < QUEUES; i++)
		if (p[2 + i].revents && is_open(i) &&
		    eventfd_read(self.queue[i].kick, &(eventfd_t){ 0 }) == 0)
			serve(i);
	if (p[0].revents && self.front >= 0)
		talk();
	else if (p[0].revents)
		self.front = accept4(self.listener, NULL, NULL, SOCK_CLOEXEC);
}

static void open_disk(const char *path)
{
	struct stat st;

	self.disk = open(path, (self.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (self.disk < 0 || fstat(self.disk, &st) < 0)
		die(path, strerror(errno));
	self.sectors = (uint64_t)st.st_size / SECTOR;
}

static void open_socket(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(a.sun_path))
		die(path, strerror(ENAMETOOLONG));
	strcpy(a.sun_path, path);
	unlink(path);
	self.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (self.listener < 0 || bind(self.listener, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    listen(self.listener, 1) < 0)
		die(path, strerror(errno));
}

static void meet_postcopyd(const char *path, const char *name)
{
	struct postcopy_options o = POSTCOPY_OPTIONS_INIT;
	char text[256] = "";

	o.role = POSTCOPY_ROLE_SHARER;
	o.name = name;
	o.backend = 1;
	if (postcopy_new(&self.postcopy, path, &o, text) < 0)
		die("postcopyd", text);
}

int main(int argc, char **argv)
{
	const char *to = NULL, *name = "disk";
	int got;

	while ((got = getopt(argc, argv, "rp:n:")) != -1) {
		self.read_only |= got == 'r';
		to = got == 'p' ? optarg : to;
		name = got == 'n' ? optarg : name;
		if (got == '?')
			return 2;
	}
	if (argc - optind != 2)
		die("usage", "[-r] [-p REGISTER [-n NAME]] SOCKET FILE");
	for (struct queue *q = self.queue; q < self.queue + QUEUES; q++)
		q->kick = q->call = -1;
	open_disk(argv[optind + 1]);
	if (to)
		meet_postcopyd(to, name);
	open_socket(argv[optind]);
	for (;;)
		step();
}
