/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libpostcopy: the sharer's side of the registration protocol (wire/regmsg.h), one function per
 * call.  The connection and its events are in conn.c; what is here is which message a call becomes,
 * and what has to be true of the memory before it is handed over.  What each function promises is
 * said in the public header and its manual page.
 *
 * Every message is checked by regmsg_check() before it is sent, by the same code that the daemon
 * uses: a caller's mistake is an -EINVAL with words here, not a connection that the daemon ends.
 *
 * The library writes no memory and starts nothing.  Its structs may be older or newer than the
 * caller's header; see sized_take().
 */
#include "config.h"

#include "postcopy/postcopy.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <linux/userfaultfd.h>

#include "client/conn.h"
#include "client/handle.h"
#include "client/shares.h"
#include "client/sized.h"
#include "core/guard.h"
#include "sys/fd.h"
#include "sys/fdpass.h"
#include "sys/uffd_open.h"
#include "wire/regmsg.h"

#define DEFAULT_TIMEOUT_MS 30000

_Static_assert((int)POSTCOPY_ROLE_MAIN == REGMSG_ROLE_MAIN &&
		       (int)POSTCOPY_ROLE_SHARER == REGMSG_ROLE_SHARER,
	       "roles go over the wire as they are");
_Static_assert((int)POSTCOPY_POLICY_IGNORE == REGMSG_POLICY_IGNORE &&
		       (int)POSTCOPY_POLICY_FAIL == REGMSG_POLICY_FAIL,
	       "so do policies");
_Static_assert((int)POSTCOPY_CLASS_DEMAND == REGMSG_CLASS_DEMAND &&
		       (int)POSTCOPY_CLASS_PREFETCH == REGMSG_CLASS_PREFETCH,
	       "so do classes");

/* --- structs that begin with their size --- */

/* Where a struct ended in version 0.1: no caller's is shorter. */
enum {
	OPTIONS_V1 = END_OF(postcopy_options, token),
	BLOCK_V1 = END_OF(postcopy_block, address),
	EVENT_V1 = END_OF(postcopy_event, text),
};

/* Our event as the caller's struct: it says how much of it there is. */
static void give_event(struct postcopy_event *out, const struct postcopy_event *event)
{
	uint32_t theirs = out->size;

	memset(out, 0, theirs);
	memcpy(out, event, theirs < sizeof(*event) ? theirs : sizeof(*event));
	out->size = theirs;
}

/* --- making a handle --- */

/**
 * handle_put_name - names go into fixed fields with their terminator
 *
 * Return: 0, -EINVAL (none), -ENAMETOOLONG, with the text set.
 */
int handle_put_name(struct conn *c, char *field, size_t room, const char *name)
{
	size_t len = name ? strlen(name) : 0;

	if (len == 0)
		return conn_fail(c, -EINVAL, "a name is missing");
	if (len >= room)
		return conn_fail(c, -ENAMETOOLONG, "name is longer than %zu bytes", room - 1);
	memcpy(field, name, len + 1);
	return 0;
}

/* A VMM that breaks takes its VM along; anybody else can be missed. */
static uint32_t policy_of(const struct postcopy_options *o)
{
	if (o->policy)
		return o->policy;
	return o->role == POSTCOPY_ROLE_MAIN ? POSTCOPY_POLICY_FAIL : POSTCOPY_POLICY_DISABLE;
}

/*
 * The kernel faults for most sharers (KVM, read(2)); who says otherwise gets by with less
 * privilege.
 */
static int make_hello(struct conn *c, union regmsg *m, const struct postcopy_options *o)
{
	size_t size = regmsg_init(m, REGMSG_HELLO, 1);
	const char *why;
	int err;

	m->hello.role = o->role;
	m->hello.policy = policy_of(o);
	m->hello.flags = o->user_faults_only ? 0 : REGMSG_HELLO_KERNEL;
	/* Its blocks are not for it to declare, as with a program that knows of nothing. */
	m->hello.flags |= o->backend ? REGMSG_HELLO_UNAWARE : 0;
	m->hello.token = o->token;
	err = handle_put_name(c, m->hello.name, sizeof(m->hello.name), o->name);
	if (!err && regmsg_check(m, size, &why))
		err = conn_fail(c, -EINVAL, "%s", why);
	return err;
}

/*
 * THREAD_ID makes waits visible by thread, and lets a thread that faults again be recognised.
 * Features that are asked for and missing fail here, not at the first fault.
 */
static int open_uffd(struct conn *c, bool user_only)
{
	int fd = uffd_open(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS |
				   UFFD_FEATURE_THREAD_ID,
			   user_only);

	if (fd == -EPERM || fd == -EACCES)
		return conn_fail(c, -EPERM,
				 "no right to a userfaultfd%s: CAP_SYS_PTRACE, access to "
				 "/dev/userfaultfd, or vm.unprivileged_userfaultfd=1 is needed",
				 user_only ? "" : " for accesses by the kernel");
	if (fd < 0)
		return conn_fail(c, fd, "cannot open a userfaultfd: %s", strerror(-fd));
	return fd;
}

static int say_hello(struct postcopy *p, const struct postcopy_options *o)
{
	union regmsg m;
	int err;

	err = make_hello(&p->conn, &m, o);
	if (err)
		return err;
	err = conn_call(&p->conn, &m, p->uffd);
	if (!err) {
		p->token = m.welcome.token;
		p->features = m.welcome.features;
	}
	return err;
}

/*
 * A descriptor of the caller's becomes ours with success only.  The daemon gets a duplicate with
 * HELLO and registers memory through that; ours stays open so that threads keep waiting should the
 * daemon die.
 */
static int join(struct postcopy *p, const struct postcopy_options *o)
{
	cleanup_fd int opened = -1;
	int err;

	if (o->backend && o->role != POSTCOPY_ROLE_SHARER)
		return conn_fail(&p->conn, -EINVAL, "a back-end is no main sharer");
	p->role = o->role;
	p->backend = o->backend;
	p->uffd = o->uffd;
	if (p->uffd < 0) {
		opened = open_uffd(&p->conn, o->user_faults_only);
		if (opened < 0)
			return opened;
		p->uffd = opened;
	}
	err = say_hello(p, o);
	if (err)
		p->uffd = -1;
	else
		steal_fd(&opened);
	return err;
}

/* A failure without a handle that could keep its text. */
static int explain(char *text, int err, const char *what)
{
	if (text)
		snprintf(text, REGMSG_TEXT, "%s: %s", what, strerror(-err));
	return err;
}

static int is_seqpacket(int sock)
{
	int type = 0;
	socklen_t len = sizeof(type);

	if (getsockopt(sock, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -errno;
	return type == SOCK_SEQPACKET ? 0 : -EPROTOTYPE;
}

/* Everything that can fail about a new handle; what was wrong is in p->conn.text. */
static int start(struct postcopy *p, int sock, const struct postcopy_options *options)
{
	cleanup_fd int owned = sock;
	struct postcopy_options o;
	int err;

	err = sized_take(&o, sizeof(o), OPTIONS_V1, options);
	if (err)
		return conn_fail(&p->conn, err,
				 "options: wrong size, or a field set that this version lacks");
	err = is_seqpacket(owned);
	if (err)
		return conn_fail(&p->conn, err, "not a SOCK_SEQPACKET socket");
	err = conn_open(&p->conn, owned, o.timeout_ms ? o.timeout_ms : DEFAULT_TIMEOUT_MS);
	if (err)
		return err;
	steal_fd(&owned);
	return join(p, &o);
}

static void handle_free(struct postcopy **p)
{
	if (!*p)
		return;
	close_fd(&(*p)->uffd);
	conn_deinit(&(*p)->conn);
	free(*p);
}

PUBLIC int postcopy_new_fd(postcopy **out, int sock, const struct postcopy_options *options,
			   char *text)
{
	__attribute__((cleanup(handle_free))) struct postcopy *p = calloc(1, sizeof(*p));
	int err;

	*out = NULL;
	if (!p) {
		close_fd(&sock);
		return explain(text, -ENOMEM, "handle");
	}
	p->uffd = -1;
	conn_init(&p->conn);
	err = start(p, sock, options);
	if (err) {
		if (text)
			memcpy(text, p->conn.text, sizeof(p->conn.text));
		return err;
	}
	*out = steal_ptr(&p);
	return 0;
}

static int connect_and_join(postcopy **out, const char *socket_path,
			    const struct postcopy_options *options, char *text)
{
	int sock = fdpass_connect(socket_path, DEFAULT_TIMEOUT_MS);

	*out = NULL;
	if (sock < 0)
		return explain(text, sock, socket_path);
	return postcopy_new_fd(out, sock, options, text);
}

/* A daemon that was restarted while it read our hello knows nothing of us. */
PUBLIC int postcopy_new(postcopy **out, const char *socket_path,
			const struct postcopy_options *options, char *text)
{
	int err = connect_and_join(out, socket_path, options, text);

	return err == -ERESTART ? connect_and_join(out, socket_path, options, text) : err;
}

PUBLIC void postcopy_free(postcopy *p)
{
	handle_free(&p);
}

/* --- calls --- */

/* Blocks are declared, regions are shared; no handle does both. */
static int only_of(struct postcopy *p, bool backend)
{
	if (p->backend == backend)
		return 0;
	return conn_fail(&p->conn, -EPERM,
			 backend ? "options.backend was not set" : "a back-end declares nothing");
}

static int advise(struct postcopy *p, void *address, uint64_t length, int advice, const char *name)
{
	if (madvise(address, length, advice) == 0)
		return 0;
	return conn_fail(&p->conn, -errno, "madvise(%s) of %p, %llu bytes: %s", name, address,
			 (unsigned long long)length, strerror(errno));
}

/*
 * A huge page would make neighbours of a placed page present with it.  A kernel without transparent
 * huge pages knows no such advice (EINVAL) and needs none.
 */
static int no_huge_pages(struct postcopy *p, void *address, uint64_t length)
{
	int err = advise(p, address, length, MADV_NOHUGEPAGE, "NOHUGEPAGE");

	return err == -EINVAL ? 0 : err;
}

/*
 * Before the daemon looks: private memory has no file that it could empty, and what is present
 * would never fault.
 */
static int prepare_memory(struct postcopy *p, const struct postcopy_block *b)
{
	int err = 0;

	if (b->address)
		err = no_huge_pages(p, b->address, b->length);
	if (!err && b->fd < 0)
		err = advise(p, b->address, b->length, MADV_DONTNEED, "DONTNEED");
	return err;
}

static int make_block(struct conn *c, union regmsg *m, const struct postcopy_block *b)
{
	size_t size = regmsg_init(m, REGMSG_BLOCK, 1);
	const char *why;
	int err;

	m->block.flags = b->fd < 0 ? REGMSG_BLOCK_PRIVATE : 0;
	m->block.length = b->length;
	m->block.page_size = b->page_size;
	m->block.file_offset = b->file_offset;
	err = handle_put_name(c, m->block.name, sizeof(m->block.name), b->name);
	if (!err && regmsg_check(m, size, &why))
		err = conn_fail(c, -EINVAL, "%s", why);
	return err;
}

/* Also for a block whose address came with it: private memory is found by no file. */
static int make_mapping(struct conn *c, union regmsg *m, uint32_t flags,
			const struct postcopy_block *b, uint64_t block_offset)
{
	size_t size = regmsg_init(m, REGMSG_MAPPING, 1);
	const char *why;
	int err;

	m->mapping.flags = flags;
	m->mapping.address = (uintptr_t)b->address;
	m->mapping.length = b->length;
	m->mapping.block_offset = block_offset;
	err = handle_put_name(c, m->mapping.name, sizeof(m->mapping.name), b->name);
	if (!err && regmsg_check(m, size, &why))
		err = conn_fail(c, -EINVAL, "%s", why);
	return err;
}

static int name_mapping(struct postcopy *p, uint32_t flags, const struct postcopy_block *b,
			uint64_t block_offset)
{
	union regmsg m;
	int err = make_mapping(&p->conn, &m, flags, b, block_offset);

	return err ? err : conn_call(&p->conn, &m, -1);
}

PUBLIC int postcopy_add_block(postcopy *p, const struct postcopy_block *block)
{
	struct postcopy_block b;
	union regmsg m;
	int err;

	handle_begin(p);
	err = only_of(p, false);
	if (err)
		return err;
	err = sized_take(&b, sizeof(b), BLOCK_V1, block);
	if (err)
		return conn_fail(&p->conn, err,
				 "block: wrong size, or a field set that this version lacks");
	if (b.fd < 0 && !b.address)
		return conn_fail(&p->conn, -EINVAL, "private memory needs its address");
	err = make_block(&p->conn, &m, &b);
	if (!err)
		err = prepare_memory(p, &b);
	if (!err)
		err = conn_call(&p->conn, &m, b.fd < 0 ? -1 : b.fd);
	if (!err && b.fd < 0)
		err = name_mapping(p, 0, &b, 0);
	return err;
}

PUBLIC int postcopy_map(postcopy *p, const char *block, uint64_t block_offset, void *address,
			uint64_t length)
{
	const struct postcopy_block b = { .name = block, .address = address, .length = length };

	handle_begin(p);
	return name_mapping(p, REGMSG_MAPPING_REGISTERED, &b, block_offset);
}

static int plain_call(struct postcopy *p, enum regmsg_type type)
{
	union regmsg m;

	handle_begin(p);
	regmsg_init(&m, type, 1);
	return conn_call(&p->conn, &m, -1);
}

PUBLIC int postcopy_ready(postcopy *p)
{
	return plain_call(p, REGMSG_READY);
}

PUBLIC int postcopy_want(postcopy *p, const char *block, uint64_t block_offset, uint64_t length,
			 enum postcopy_class klass)
{
	union regmsg m;
	size_t size = regmsg_init(&m, REGMSG_WANT, 1);
	const char *why;
	int err;

	handle_begin(p);
	m.want.klass = klass;
	m.want.block_offset = block_offset;
	m.want.length = length;
	err = handle_put_name(&p->conn, m.want.name, sizeof(m.want.name), block);
	if (err)
		return err;
	if (regmsg_check(&m, size, &why))
		return conn_fail(&p->conn, -EINVAL, "%s", why);
	return conn_call(&p->conn, &m, -1);
}

/* Answered by events only (RUNNING, FAILED): the daemon's answer depends on the source's. */
static int tell_load(struct postcopy *p, union regmsg *m)
{
	handle_begin(p);
	if (p->role != POSTCOPY_ROLE_MAIN)
		return conn_fail(&p->conn, -EPERM, "only the main sharer loads device state");
	return conn_tell(&p->conn, m);
}

PUBLIC int postcopy_loaded(postcopy *p)
{
	union regmsg m;

	regmsg_init(&m, REGMSG_LOADED, 1);
	return tell_load(p, &m);
}

PUBLIC int postcopy_load_failed(postcopy *p, const char *text)
{
	union regmsg m;

	regmsg_text(&m, REGMSG_LOAD_FAILED, 1, EIO, "%s", text ? text : "");
	return tell_load(p, &m);
}

PUBLIC int postcopy_leave(postcopy *p)
{
	int err;

	handle_begin(p);
	if (p->shares.n)
		return conn_fail(&p->conn, -EBUSY, "%u regions are still shared", p->shares.n);
	err = plain_call(p, REGMSG_LEAVE);
	if (!err)
		conn_close(&p->conn);
	return err;
}

/* --- what a back-end shares --- */

PUBLIC int postcopy_share(postcopy *p, int fd, uint64_t offset, uint64_t length, void **address)
{
	const struct shares_region region = { .fd = fd, .offset = offset, .length = length };
	int err;

	*address = NULL;
	handle_begin(p);
	err = only_of(p, true);
	return err ? err : shares_add(&p->shares, &p->conn, &region, address);
}

PUBLIC int postcopy_unshare(postcopy *p, void *address)
{
	int err;

	handle_begin(p);
	err = shares_drop(&p->shares, address);
	return err ? conn_fail(&p->conn, err, "no region is shared at %p", address) : 0;
}

static int set_queue(struct postcopy *p, unsigned queue, bool started)
{
	int err;

	handle_begin(p);
	err = shares_queue_set(&p->shares, queue, started);
	return err ? conn_fail(&p->conn, err, "no queue has the number %u", queue) : 0;
}

PUBLIC int postcopy_queue_start(postcopy *p, unsigned queue)
{
	return set_queue(p, queue, true);
}

PUBLIC int postcopy_queue_stop(postcopy *p, unsigned queue)
{
	return set_queue(p, queue, false);
}

PUBLIC int postcopy_queue_open(const postcopy *p, unsigned queue)
{
	return shares_queue_open(&p->shares, queue);
}

/* --- events --- */

PUBLIC int postcopy_fd(const postcopy *p)
{
	return p->conn.poll_fd;
}

PUBLIC int postcopy_uffd(const postcopy *p)
{
	return p->uffd;
}

PUBLIC uint64_t postcopy_token(const postcopy *p)
{
	return p->token;
}

PUBLIC int postcopy_dispatch(postcopy *p, struct postcopy_event *event)
{
	struct postcopy_event taken = { .type = POSTCOPY_EVENT_NONE, .package_fd = -1 };
	int got;

	handle_begin(p);
	if (event->size < EVENT_V1)
		return conn_fail(&p->conn, -EINVAL, "event says no size");
	got = conn_take(&p->conn, &taken);
	if (got > 0)
		shares_hear(&p->shares, &taken);
	if (got >= 0)
		give_event(event, &taken);
	return got;
}

PUBLIC int postcopy_wait(postcopy *p, struct postcopy_event *event, int timeout_ms)
{
	struct pollfd pfd = { .fd = p->conn.poll_fd, .events = POLLIN };
	int64_t deadline = timeout_ms < 0 ? INT64_MAX : conn_now_ms() + timeout_ms;

	for (;;) {
		int64_t left;
		int got = postcopy_dispatch(p, event);

		if (got)
			return got;
		left = timeout_ms < 0 ? -1 : deadline - conn_now_ms();
		if (timeout_ms >= 0 && left <= 0)
			return conn_fail(&p->conn, -ETIMEDOUT, "no event within %d ms", timeout_ms);
		if (poll(&pfd, 1, (int)left) < 0 && errno != EINTR)
			return conn_fail(&p->conn, -errno, "poll: %s", strerror(errno));
	}
}

PUBLIC const char *postcopy_strerror(const postcopy *p)
{
	return p ? p->conn.text : "";
}

PUBLIC const char *postcopy_version(void)
{
	return PACKAGE_VERSION;
}
