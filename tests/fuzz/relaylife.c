/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "relaylife.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "byhand.h"
#include "core/guard.h"
#include "sys/fd.h"

#define HEAD	sizeof(struct vhostmsg_head)
#define TURNS	10000
#define FDS_MAX 10			/* more than may come with any message */

void relaylife_need(bool promise)
{
	if (!promise)
		abort();
}

#define need relaylife_need

/* --- the owner -------------------------------------------------------------------------------- */

static const char *on_advised(void *ctx, int uffd)
{
	struct relaylife *l = ctx;

	need(uffd >= 0 && !l->config.repair);
	close(uffd);
	return l->waits ? "it cannot be served" : NULL;
}

static bool may_tell(void *ctx)
{
	struct relaylife *l = ctx;

	need(!l->telling);
	l->telling = l->quiet;
	return l->quiet;
}

static void on_settled(void *ctx)
{
	struct relaylife *l = ctx;

	need(l->telling);
	l->telling = false;
}

static void on_prove(void *ctx, const struct vhost_region *told, unsigned n)
{
	struct relaylife *l = ctx;

	(void)told;
	need(!l->proving && n <= VHOST_RECORD_REGIONS && l->back.sock >= 0);
	l->proving = true;
}

static void on_find(void *ctx, const struct vhost_region *told, unsigned n)
{
	struct relaylife *l = ctx;

	(void)told;
	need(!l->finding && l->config.repair && n <= VHOST_RECORD_REGIONS);
	l->finding = n + 1;
}

static bool waits(void *ctx)
{
	return ((struct relaylife *)ctx)->waits;
}

static void on_quarantined(void *ctx)
{
	struct relaylife *l = ctx;

	need(l->relay->back < 0 && l->relay->v.reason);
	relayback_forget(l);
}

/* Its threads may wait there as long as pages are missing. */
static void on_drop(void *ctx)
{
	const struct relaylife *l = ctx;

	need(l->resident && !l->config.repair);
}

static void on_over(void *ctx, const char *why)
{
	struct relaylife *l = ctx;

	need(why && *why && !l->over);
	need(l->relay->front < 0 && l->relay->back < 0);
	l->over = true;
}

static const struct vhost_relay_ops ops = {
	.advised = on_advised,
	.may_tell = may_tell,
	.settled = on_settled,
	.prove = on_prove,
	.find = on_find,
	.waits = waits,
	.quarantined = on_quarantined,
	.drop = on_drop,
	.drop_orphans = on_drop,
	.over = on_over,
};

/* --- the VMM ---------------------------------------------------------------------------------- */

static struct vhostmsg_terms vmm_terms(const struct relaylife *l)
{
	const struct relaylife_vmm *v = &l->vmm;
	bool bases = l->config.repair && v->listening;

	return (struct vhostmsg_terms){
		.protocol = v->protocol,
		.form = !bases	   ? VHOSTMSG_PLAIN :
			v->ack_due ? VHOSTMSG_BASES_ACK :
				     VHOSTMSG_BASES,
	};
}

/* The first of what it asked is over, and so is what follows and is not answered. */
static struct vhostmsg *awaits(struct relaylife *l)
{
	struct relaylife_vmm *v = &l->vmm;

	for (; v->n && !v->broke; v->first = (v->first + 1) % RELAYLIFE_ASKED, v->n--) {
		struct vhostmsg *m = &v->asked[v->first];
		const struct vhostmsg_terms terms = vmm_terms(l);

		v->broke = vhostmsg_check(m, VHOSTMSG_TO_BACKEND, &terms, NULL) < 0;
		if (v->broke)
			break;
		if (vhostmsg_expects(m, VHOSTMSG_TO_BACKEND, &terms) != VHOSTMSG_SILENCE)
			return m;
		if (m->head.request == VHOSTMSG_SET_PROTOCOL_FEATURES)
			v->protocol = m->body.u64;
		if (terms.form == VHOSTMSG_BASES_ACK && vhostmsg_regions(m) <= 1 &&
		    m->head.request == VHOSTMSG_SET_MEM_TABLE)
			v->ack_due = false;
	}
	return NULL;
}

/* Once for each question that has an answer, in order, and never what is none. */
static void vmm_hears(struct relaylife *l, const struct vhostmsg *m)
{
	const struct vhostmsg_terms terms = (awaits(l), vmm_terms(l));
	struct relaylife_vmm *v = &l->vmm;
	struct vhostmsg *asked = awaits(l);

	need(asked && vhostmsg_check_reply(m, asked, VHOSTMSG_TO_BACKEND, &terms, NULL) == 0);
	if (m->head.request == VHOSTMSG_GET_PROTOCOL_FEATURES)
		v->shown = m->body.u64;
	if (m->head.request == VHOSTMSG_SET_PROTOCOL_FEATURES)
		v->protocol = asked->body.u64;
	if (m->head.request == VHOSTMSG_POSTCOPY_LISTEN)
		v->listening |= m->body.u64 == 0;
	if (m->head.request == VHOSTMSG_POSTCOPY_END)
		v->listening = false;
	if (m->head.request == VHOSTMSG_SET_MEM_TABLE && terms.form == VHOSTMSG_BASES)
		v->ack_due = true;
	v->first = (v->first + 1) % RELAYLIFE_ASKED;
	v->n--;
}

static void hang_up_vmm(struct relaylife *l)
{
	relaylife_hang_up(&l->vmm.sock);
	vhost_frame_clear(l->vmm.hears);
}

/* True when there was something. */
static bool vmm_reads(struct relaylife *l)
{
	const char *why = NULL;
	int ret;

	if (l->vmm.sock < 0 || !l->vmm.reads)
		return false;
	ret = vhost_frame_recv(l->vmm.hears, l->vmm.sock, true, &why);
	if (ret < 0) {
		need(!why && l->over); /* nobody else hangs up on it, and nobody talks nonsense */
		hang_up_vmm(l);
	}
	if (ret <= 0)
		return false;
	vmm_hears(l, &l->vmm.hears->m);
	vhost_frame_clear(l->vmm.hears);
	return true;
}

/* --- saying ----------------------------------------------------------------------------------- */

static void say(int sock, const void *data, size_t len, const int *fd, unsigned fds)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)data, .iov_len = len };
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
	} control = { 0 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fds) {
		struct cmsghdr *c = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fds * sizeof(int));
		memcpy(CMSG_DATA(c), fd, fds * sizeof(int));
	}
	need(sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len ||
	     errno == EPIPE || errno == ECONNRESET);
}

void relaylife_say(const struct relaylife *l, int sock, const void *data, size_t len,
		     unsigned fds)
{
	int fd[FDS_MAX];

	for (unsigned i = 0; i < FDS_MAX; i++)
		fd[i] = i % 2 ? l->bell : l->memory;
	say(sock, data, len, fd, fds < FDS_MAX ? fds : FDS_MAX);
}

static void finish_saying(struct relaylife *l)
{
	if (l->vmm.n_rest && l->vmm.sock >= 0)
		say(l->vmm.sock, l->vmm.rest, l->vmm.n_rest, NULL, 0);
	l->vmm.n_rest = 0;
}

/* As it goes over the wire; how long that is. */
size_t relaylife_bytes(uint8_t *bytes, const struct vhostmsg *m)
{
	size_t body = m->head.size < sizeof(m->body) ? m->head.size : sizeof(m->body);

	memcpy(bytes, &m->head, HEAD);
	memcpy(bytes + HEAD, &m->body, body);
	return HEAD + body;
}

void relaylife_vmm_says(struct relaylife *l, const struct vhostmsg *m, unsigned fds, size_t first)
{
	struct relaylife_vmm *v = &l->vmm;
	uint8_t bytes[RELAYLIFE_BYTES];
	size_t len = relaylife_bytes(bytes, m);

	finish_saying(l);
	relaylife_settle(l);
	v->fickle |= v->chose && m->head.request == VHOSTMSG_SET_PROTOCOL_FEATURES;
	v->chose |= m->head.request == VHOSTMSG_SET_PROTOCOL_FEATURES ||
		    m->head.request == VHOSTMSG_SET_MEM_TABLE ||
		    m->head.request == VHOSTMSG_ADD_MEM_REG;
	if (v->sock < 0 || v->n == RELAYLIFE_ASKED || (v->n > 2 && l->relay->whole))
		return;
	v->asked[(v->first + v->n) % RELAYLIFE_ASKED] = *m;
	v->asked[(v->first + v->n++) % RELAYLIFE_ASKED].fds = fds;
	if (!first || first > len)
		first = len;
	v->n_rest = len - first;
	memcpy(v->rest, bytes + first, v->n_rest);
	relaylife_say(l, v->sock, bytes, first, fds);
}

/* --- the owner's part ------------------------------------------------------------------------- */

void relaylife_prove(struct relaylife *l, const char *wrong)
{
	if (!l->proving)
		return;
	l->proving = false;
	l->back.proof = !wrong;
	vhost_relay_proved(l->relay, wrong);
}

void relaylife_find(struct relaylife *l, const char *wrong)
{
	uint64_t address[VHOST_RECORD_REGIONS];

	for (unsigned i = 0; i < ARRAY_LEN(address); i++)
		address[i] = (i + UINT64_C(1)) << 32;
	if (!l->finding)
		return;
	l->finding = 0;
	vhost_relay_found(l->relay, wrong, address);
}

void relaylife_hang_up(int *sock)
{
	close_fd(sock);
}

/* Ours is the first. */
static void make_pair(const struct relaylife *l, int pair[2])
{
	int size = 1;

	need(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	if (l->small)
		need(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
}

void relaylife_join(struct relaylife *l)
{
	const char *why = NULL;
	int pair[2];

	if (!l->relay->v.reason || l->over)
		return;
	make_pair(l, pair);
	l->back.sock = pair[0];
	l->back.reads = true;
	if (vhost_relay_join(l->relay, pair[1], &why) < 0) {
		need(why && l->config.repair);
		relaylife_hang_up(&l->back.sock);
		vhost_relay_hang_up(l->relay, why);
	}
}

/* --- its course ------------------------------------------------------------------------------- */

/* Nobody says more than one thing to who does not listen. */
static void check_queues(const struct relaylife *l)
{
	need(l->relay->to_back.length <= 2 && l->relay->to_front.length <= 2);
	need(l->relay->v.held == l->relay->held.length || l->over || l->relay->v.reason);
	need(!l->over || byhand_sources() == 0);
}

/* All that it said was heard: then nobody leaves it waiting. */
static void check_vmm(struct relaylife *l)
{
	int unread = 0;

	if (l->over || l->relay->whole || l->vmm.n_rest || l->vmm.sock < 0 || !l->vmm.reads ||
	    !vhostfront_ready(&l->relay->v, false) || l->relay->to_front.length)
		return;
	if (ioctl(l->relay->front, FIONREAD, &unread) == 0 && unread == 0 && !l->relay->heard->done)
		need(!awaits(l));
}

static bool be_good(struct relaylife *l)
{
	bool asked = l->back.asked && l->back.sock >= 0;

	if (!l->good || (!l->proving && !l->finding && !asked))
		return false;
	if (l->proving) {
		relaylife_prove(l, NULL);
	} else if (l->finding) {
		relaylife_find(l, NULL);
	} else {
		relayback_answer_now(l, 0);
	}
	return true;
}

void relaylife_settle(struct relaylife *l)
{
	unsigned turns = 0;
	bool any;

	do {
		any = byhand_turn();
		any |= vmm_reads(l);
		any |= relayback_reads(l);
		any |= be_good(l);
		check_queues(l);
		need(++turns < TURNS);
	} while (any);
	check_vmm(l);
}

void relaylife_begin(struct relaylife *l, const struct vhostfront_config *config, bool small)
{
	int front[2], back[2];

	*l = (struct relaylife){ .config = *config, .small = small, .quiet = true,
				 .early = config->early };
	byhand_reset();
	l->memory = memfd_create("ram", MFD_CLOEXEC);
	l->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	need(l->memory >= 0 && l->bell >= 0 && ftruncate(l->memory, 16 << 20) == 0);
	make_pair(l, front);
	make_pair(l, back);
	l->vmm = (struct relaylife_vmm){ .sock = front[0], .reads = true,
					 .hears = vhost_frame_new() };
	l->back = (struct relaylife_back){ .sock = back[0], .reads = true,
					   .hears = vhost_frame_new() };
	l->relay = vhost_relay_new(front[1], back[1], config, &ops, l);
}

/* With every page there and a good back-end nothing is held, and nobody waits. */
static void end_well(struct relaylife *l)
{
	l->good = l->quiet = l->back.reads = l->vmm.reads = true;
	l->waits = false;
	finish_saying(l);
	relaylife_settle(l);
	l->early = false;
	vhost_relay_serving(l->relay);
	l->resident = true;
	vhost_relay_resident(l->relay);
	vhost_relay_go_on(l->relay);
	relaylife_settle(l);
	if (l->over || l->relay->v.reason)
		return;
	need(vhostfront_ready(&l->relay->v, false) && !l->telling && !l->relay->whole);
	need(l->relay->v.held == 0 && l->relay->feed.length == 0);
}

void relaylife_end(struct relaylife *l)
{
	end_well(l);
	vhost_relay_free(l->relay);
	need(byhand_sources() == 0);
	relaylife_hang_up(&l->vmm.sock);
	relaylife_hang_up(&l->back.sock);
	vhost_frame_free(l->vmm.hears);
	vhost_frame_free(l->back.hears);
	close(l->memory);
	close(l->bell);
}
