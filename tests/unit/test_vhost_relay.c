/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two connections of a vhost-user device, over socketpairs: what passes, what is added, and
 * what becomes of either when the other ends or breaks the protocol.  (F16, F17, F21, P10, P15,
 * P26)
 */
#include "config.h"

#include "daemon/vhost_relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "wire/vhostmsg.h"

#define MS UINT64_C(1000000)
#define OFFERS                                                                                     \
	(VHOSTMSG_P_REPLY_ACK | VHOSTMSG_P_PAGEFAULT | VHOSTMSG_P_MEM_SLOTS |                      \
	 VHOSTMSG_P_INFLIGHT | VHOSTMSG_P_MQ)

static struct {
	struct vhost_relay *relay;
	int vmm, back;		/* the peers' ends */
	unsigned advised, asked, settled, quarantined, drops, orphans, told;
	bool may_not_tell, waits, hold_proof;
	const char *wrong, *over;
	int memory, kick;	/* kick: the eventfd of the last ring */
} rig;

/* --- the owner -------------------------------------------------------------------------------- */

static const char *advised(void *ctx, int uffd)
{
	(void)ctx;
	close(uffd);
	rig.advised++;
	return NULL;
}

static bool may_tell(void *ctx)
{
	(void)ctx;
	return !rig.may_not_tell;
}

static void settled(void *ctx)
{
	(void)ctx;
	rig.settled++;
}

static void prove(void *ctx, const struct vhost_region *told, unsigned n)
{
	(void)ctx;
	(void)told;
	rig.asked++;
	rig.told = n;
	if (!rig.hold_proof)
		vhost_relay_proved(rig.relay, rig.wrong);
}

static void find(void *ctx, const struct vhost_region *told, unsigned n)
{
	static const uint64_t address[] = { 0xabc000 };

	(void)ctx;
	cr_assert_eq(n, 1);
	cr_assert_eq(told[0].va, 0x7000);
	vhost_relay_found(rig.relay, rig.wrong, address);
}

static bool waits(void *ctx)
{
	(void)ctx;
	return rig.waits;
}

static void quarantined(void *ctx)
{
	(void)ctx;
	rig.quarantined++;
}

static void drop(void *ctx)
{
	(void)ctx;
	rig.drops++;
}

static void drop_orphans(void *ctx)
{
	(void)ctx;
	rig.orphans++;
}

static void over(void *ctx, const char *why)
{
	(void)ctx;
	rig.over = why;
}

static const struct vhost_relay_ops ops = {
	.advised = advised,
	.may_tell = may_tell,
	.settled = settled,
	.prove = prove,
	.find = find,
	.waits = waits,
	.quarantined = quarantined,
	.drop = drop,
	.drop_orphans = drop_orphans,
	.over = over,
};

/* --- the peers -------------------------------------------------------------------------------- */

static void turn(void)
{
	for (unsigned i = 0; i < 50; i++)
		g_main_context_iteration(NULL, FALSE);
}

static int pair(int *theirs)
{
	int sv[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
	*theirs = sv[1];
	return sv[0];
}

static void begin(struct vhostfront_config config)
{
	int front, back;

	config.protocol = VHOSTMSG_PROTOCOL_KNOWN;
	if (!config.answer_limit)
		config.answer_limit = 10000 * MS;
	config.proof_limit = 10000 * MS;
	rig.vmm = pair(&front);
	rig.back = pair(&back);
	rig.kick = -1;
	rig.memory = memfd_create("guest", MFD_CLOEXEC);
	cr_assert_eq(ftruncate(rig.memory, 1 << 20), 0);
	rig.relay = vhost_relay_new(front, back, &config, &ops, NULL);
}

static void send_to(int sock, const struct vhostmsg *m, const int *fds)
{
	struct vhost_frame *f = vhost_frame_new();

	f->m = *m;
	for (unsigned i = 0; i < m->fds; i++)
		f->fd[i] = dup(fds[i]);
	cr_assert_eq(vhost_frame_send(f, sock), 1);
	vhost_frame_free(f);
	turn();
}

/* What came, or NULL. */
static struct vhost_frame *take(int sock, bool reply)
{
	struct vhost_frame *f = vhost_frame_new();
	const char *why = "";

	turn();
	if (vhost_frame_recv(f, sock, reply, &why) == 1)
		return f;
	vhost_frame_free(f);
	return NULL;
}

/* The back-end hears this number next. */
static void hears(uint32_t request, struct vhostmsg *out)
{
	struct vhost_frame *f = take(rig.back, false);

	cr_assert_not_null(f, "nothing came instead of %u", request);
	cr_assert_eq(f->m.head.request, request, "%u came instead of %u", f->m.head.request,
		     request);
	if (out)
		*out = f->m;
	vhost_frame_free(f);
}

static void hears_nothing(void)
{
	struct vhost_frame *f = take(rig.back, false);

	cr_assert_null(f, "%u came", f ? f->m.head.request : 0);
}

static void reply(uint32_t request, uint64_t value)
{
	struct vhostmsg m;

	vhostmsg_reply_u64(&m, request, value);
	send_to(rig.back, &m, NULL);
}

static void tell(enum vhostmsg_request request, uint64_t value)
{
	struct vhostmsg m;

	vhostmsg_ask(&m, request, 0);
	m.body.u64 = value;
	send_to(rig.vmm, &m, NULL);
}

static void vmm_gets(uint32_t request, uint64_t value)
{
	struct vhost_frame *f = take(rig.vmm, true);

	cr_assert_not_null(f);
	cr_assert_eq(f->m.head.request, request);
	cr_assert_eq(f->m.body.u64, value, "%lx", (unsigned long)f->m.body.u64);
	vhost_frame_free(f);
}

static void tell_table(uint64_t gpa, uint32_t need_reply)
{
	struct vhostmsg m;

	vhostmsg_ask(&m, VHOSTMSG_SET_MEM_TABLE, need_reply);
	vhostmsg_add_region(&m,
			    &(struct vhostmsg_region){ .gpa = gpa, .size = 1 << 20, .va = 0x7000 });
	m.fds = 1;
	send_to(rig.vmm, &m, &rig.memory);
}

static void tell_ring(enum vhostmsg_request request, unsigned ring)
{
	struct vhostmsg m;
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	vhostmsg_ask(&m, request, 0);
	m.body.u64 = ring;
	m.fds = request == VHOSTMSG_SET_VRING_KICK;
	send_to(rig.vmm, &m, &fd);
	if (m.fds) {
		close_fd(&rig.kick);
		rig.kick = steal_fd(&fd);
	}
	close_fd(&fd);
}

/* How often somebody kicked since the last look. */
static unsigned kicks(void)
{
	eventfd_t n = 0;

	return eventfd_read(rig.kick, &n) == 0 ? (unsigned)n : 0;
}

/* As a VMM begins; it takes what it is shown. */
static void negotiate(void)
{
	uint64_t shown = OFFERS & ~VHOSTMSG_P_PAGEFAULT;
	struct vhostmsg m;

	tell(VHOSTMSG_GET_PROTOCOL_FEATURES, 0);
	hears(VHOSTMSG_GET_PROTOCOL_FEATURES, NULL);
	reply(VHOSTMSG_GET_PROTOCOL_FEATURES, OFFERS | VHOSTMSG_P_INBAND);
	vmm_gets(VHOSTMSG_GET_PROTOCOL_FEATURES, shown);
	tell(VHOSTMSG_SET_PROTOCOL_FEATURES, shown);
	hears(VHOSTMSG_SET_PROTOCOL_FEATURES, &m);
	cr_assert_eq(m.body.u64, OFFERS, "PAGEFAULT is added");
}

static void answer_advise(void)
{
	struct vhostmsg m;

	hears(VHOSTMSG_POSTCOPY_ADVISE, NULL);
	vhostmsg_reply_u64(&m, VHOSTMSG_POSTCOPY_ADVISE, 0);
	m.head.size = 0;
	m.fds = 1;
	send_to(rig.back, &m, (const int[]){ STDIN_FILENO });
}

/* Up to a ring that runs. */
static void run_ring(void)
{
	negotiate();
	tell_table(0, 0);
	answer_advise();
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
	tell_ring(VHOSTMSG_SET_VRING_KICK, 0);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
}

static void setup(void)
{
	memset(&rig, 0, sizeof(rig));
}

static void teardown(void)
{
	vhost_relay_free(rig.relay);
	close_fd(&rig.vmm);
	close_fd(&rig.back);
	close_fd(&rig.memory);
	close_fd(&rig.kick);
}

TestSuite(vhost_relay, .init = setup, .fini = teardown);

/* --- what passes ------------------------------------------------------------------------------ */

Test(vhost_relay, bytes_are_the_same)
{
	static const struct {
		enum vhostmsg_request request;
		unsigned fds;
		uint64_t value;
	} says[] = {
		{ VHOSTMSG_SET_OWNER, 0, 0 },	       { VHOSTMSG_SET_FEATURES, 0, 0x12345678 },
		{ VHOSTMSG_SET_VRING_NUM, 0, 7 },      { VHOSTMSG_SET_VRING_CALL, 1, 3 },
		{ VHOSTMSG_SET_VRING_ERR, 0, 0x103 },  { VHOSTMSG_SET_LOG_FD, 1, 0 },
		{ VHOSTMSG_IOTLB_MSG, 0, 99 },	       { VHOSTMSG_SET_VRING_BASE, 0, 5 },
	};

	begin((struct vhostfront_config){ 0 });
	for (unsigned i = 0; i < ARRAY_LEN(says); i++) {
		struct vhost_frame *f;
		struct vhostmsg m;

		vhostmsg_ask(&m, says[i].request, 0);
		m.body.u64 = says[i].value;
		m.fds = says[i].fds;
		send_to(rig.vmm, &m, (const int[]){ STDIN_FILENO });
		f = take(rig.back, false);
		cr_assert_not_null(f, "%u", says[i].request);
		cr_assert_eq(memcmp(&f->m.head, &m.head, sizeof(m.head)), 0);
		cr_assert_eq(memcmp(&f->m.body, &m.body, m.head.size), 0);
		cr_assert_eq(f->m.fds, m.fds);
		vhost_frame_free(f);
	}
}

/*
 * The mark that libvhost-user leaves in answers goes through; several requests at once keep their
 * order.
 */
Test(vhost_relay, pipelined)
{
	struct vhostmsg m;
	struct vhost_frame *f;

	begin((struct vhostfront_config){ 0 });
	tell(VHOSTMSG_GET_FEATURES, 0);
	tell(VHOSTMSG_SET_OWNER, 0);
	tell(VHOSTMSG_GET_FEATURES, 0);
	hears(VHOSTMSG_GET_FEATURES, NULL);
	hears_nothing();
	vhostmsg_reply_u64(&m, VHOSTMSG_GET_FEATURES, 5);
	m.head.flags |= VHOSTMSG_NEED_REPLY;
	send_to(rig.back, &m, NULL);
	f = take(rig.vmm, true);
	cr_assert_eq(f->m.head.flags, 0xd);
	vhost_frame_free(f);
	hears(VHOSTMSG_SET_OWNER, NULL);
	hears(VHOSTMSG_GET_FEATURES, NULL);
	reply(VHOSTMSG_GET_FEATURES, 6);
	vmm_gets(VHOSTMSG_GET_FEATURES, 6);
}

/* --- what is added ---------------------------------------------------------------------------- */

Test(vhost_relay, P15_proven_before_rings)
{
	begin((struct vhostfront_config){ 0 });
	rig.hold_proof = true;
	negotiate();
	tell_table(0, VHOSTMSG_NEED_REPLY);
	answer_advise();
	cr_assert_eq(rig.advised, 1);
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
	tell_ring(VHOSTMSG_SET_VRING_KICK, 0);
	hears_nothing();
	cr_assert_eq(rig.asked, 1);
	cr_assert_eq(rig.told, 1);
	cr_assert_null(take(rig.vmm, true), "the VMM is answered before the proof");
	cr_assert_eq(rig.settled, 0);
	vhost_relay_proved(rig.relay, NULL);
	vmm_gets(VHOSTMSG_SET_MEM_TABLE, 0);
	cr_assert_eq(rig.settled, 1);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
}

Test(vhost_relay, waits_while_somebody_looks)
{
	begin((struct vhostfront_config){ 0 });
	negotiate();
	rig.may_not_tell = true;
	tell_table(0, 0);
	hears_nothing();
	rig.may_not_tell = false;
	vhost_relay_go_on(rig.relay);
	answer_advise();
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
}

Test(vhost_relay, early_rings_wait)
{
	begin((struct vhostfront_config){ .early = true });
	negotiate();
	tell_table(0, 0);
	answer_advise();
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
	tell_ring(VHOSTMSG_SET_VRING_KICK, 1);
	hears_nothing();
	vhost_relay_serving(rig.relay);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
}

Test(vhost_relay, P26_end_when_all_is_there)
{
	begin((struct vhostfront_config){ 0 });
	run_ring();
	vhost_relay_resident(rig.relay);
	hears(VHOSTMSG_POSTCOPY_END, NULL);
	cr_assert_eq(rig.drops, 0, "before it is told");
	reply(VHOSTMSG_POSTCOPY_END, 0);
	cr_assert_eq(rig.drops, 1);
	tell_table(1 << 20, 0);
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
}

/* A new table under a running ring: it is stopped, and goes on where it stood. */
Test(vhost_relay, P25_ring_stops_for_a_table)
{
	struct vhostmsg m;

	begin((struct vhostfront_config){ 0 });
	run_ring();
	tell_table(1 << 20, 0);
	hears(VHOSTMSG_GET_VRING_BASE, &m);
	m.head.flags = VHOSTMSG_VERSION | VHOSTMSG_REPLY;
	m.body.state.num = 41;
	send_to(rig.back, &m, NULL);
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
	hears(VHOSTMSG_SET_VRING_BASE, &m);
	cr_assert_eq(m.body.state.num, 41);
	hears_nothing();
}

/* The same table again is answered here: DPDK would not answer it. */
Test(vhost_relay, same_table)
{
	begin((struct vhostfront_config){ 0 });
	run_ring();
	tell_table(0, VHOSTMSG_NEED_REPLY);
	vmm_gets(VHOSTMSG_SET_MEM_TABLE, 0);
	hears_nothing();
}

/* --- a VMM that does its own postcopy --------------------------------------------------------- */

static void answer_bases(uint64_t va)
{
	struct vhostmsg m;

	hears(VHOSTMSG_SET_MEM_TABLE, &m);
	m.head.flags = VHOSTMSG_VERSION | VHOSTMSG_REPLY;
	m.body.memory.regions[0].va = va;
	m.fds = 0;
	send_to(rig.back, &m, NULL);
}

static void listen_as_vmm(void)
{
	struct vhostmsg m;

	tell(VHOSTMSG_GET_PROTOCOL_FEATURES, 0);
	hears(VHOSTMSG_GET_PROTOCOL_FEATURES, NULL);
	reply(VHOSTMSG_GET_PROTOCOL_FEATURES, OFFERS);
	vmm_gets(VHOSTMSG_GET_PROTOCOL_FEATURES, OFFERS & ~VHOSTMSG_P_MEM_SLOTS);
	tell(VHOSTMSG_SET_PROTOCOL_FEATURES, VHOSTMSG_P_PAGEFAULT | VHOSTMSG_P_REPLY_ACK);
	hears(VHOSTMSG_SET_PROTOCOL_FEATURES, NULL);
	vhostmsg_ask(&m, VHOSTMSG_POSTCOPY_LISTEN, VHOSTMSG_NEED_REPLY);
	send_to(rig.vmm, &m, NULL);
	hears(VHOSTMSG_POSTCOPY_LISTEN, NULL);
	reply(VHOSTMSG_POSTCOPY_LISTEN, 0);
	vmm_gets(VHOSTMSG_POSTCOPY_LISTEN, 0);
}

static void vmm_is_told(uint64_t va)
{
	struct vhost_frame *f = take(rig.vmm, true);

	cr_assert_eq(f->m.body.memory.regions[0].va, va, "%lx",
		     (unsigned long)f->m.body.memory.regions[0].va);
	vhost_frame_free(f);
}

Test(vhost_relay, P16_repaired)
{
	begin((struct vhostfront_config){ .repair = true });
	listen_as_vmm();
	tell_table(0, 0);
	answer_bases(0x7000); /* what it was sent */
	vmm_is_told(0xabc000);
	tell_ring(VHOSTMSG_SET_VRING_KICK, 0);
	hears_nothing();
}

Test(vhost_relay, P16_repaired_then_proven)
{
	struct vhostmsg m;

	begin((struct vhostfront_config){ .repair = true });
	listen_as_vmm();
	tell_table(0, 0);
	answer_bases(0x123000); /* the truth, as DPDK tells it */
	vmm_is_told(0x123000);
	vhostmsg_ask_u64(&m, VHOSTMSG_SET_MEM_TABLE, 0, 0);
	send_to(rig.vmm, &m, NULL);
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	hears(VHOSTMSG_GET_FEATURES, NULL);
	cr_assert_eq(rig.asked, 0);
	reply(VHOSTMSG_GET_FEATURES, 0);
	cr_assert_eq(rig.asked, 1);
	tell_ring(VHOSTMSG_SET_VRING_KICK, 0);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
}

Test(vhost_relay, P16_not_found)
{
	begin((struct vhostfront_config){ .repair = true });
	listen_as_vmm();
	rig.wrong = "nowhere";
	tell_table(0, 0);
	answer_bases(0x7000);
	cr_assert_str_eq(rig.over, "nowhere");
}

/* --- ends ------------------------------------------------------------------------------------- */

static void join(void)
{
	const char *why = NULL;
	int back;

	close_fd(&rig.back);
	rig.back = pair(&back);
	cr_assert_eq(vhost_relay_join(rig.relay, back, &why), 0, "%s", why);
	turn();
}

static void set_inflight(void)
{
	struct vhostmsg m;

	vhostmsg_ask(&m, VHOSTMSG_SET_INFLIGHT_FD, 0);
	m.body.inflight = (struct vhostmsg_inflight){ .size = 4096, .queues = 1, .queue_size = 64 };
	m.fds = 1;
	send_to(rig.vmm, &m, &rig.memory);
	hears(VHOSTMSG_SET_INFLIGHT_FD, NULL);
}

Test(vhost_relay, F17_comes_back)
{
	begin((struct vhostfront_config){ 0 });
	negotiate();
	set_inflight();
	tell_table(0, 0);
	answer_advise();
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
	tell_ring(VHOSTMSG_SET_VRING_KICK, 0);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
	cr_assert_eq(kicks(), 0, "the guest kicks");
	shutdown(rig.back, SHUT_RDWR);
	turn();
	cr_assert_eq(rig.quarantined, 1);
	cr_assert_null(rig.over);
	tell(VHOSTMSG_SET_OWNER, 0); /* waits */
	join();
	hears(VHOSTMSG_SET_PROTOCOL_FEATURES, NULL);
	hears(VHOSTMSG_SET_INFLIGHT_FD, NULL);
	answer_advise();
	cr_assert_eq(rig.advised, 2);
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
	hears(VHOSTMSG_SET_VRING_KICK, NULL);
	cr_assert_eq(kicks(), 1, "what the guest said to the one before is looked at");
	hears(VHOSTMSG_SET_OWNER, NULL);
	vhost_relay_resident(rig.relay);
	cr_assert_eq(rig.orphans, 1);
}

/* Nobody knows where its ring stood: the VMM has to. */
Test(vhost_relay, no_inflight_region)
{
	begin((struct vhostfront_config){ 0 });
	run_ring();
	shutdown(rig.back, SHUT_RDWR);
	turn();
	cr_assert_eq(rig.quarantined, 1);
	cr_assert_not_null(rig.over);
}

Test(vhost_relay, vmm_waits_for_an_answer)
{
	begin((struct vhostfront_config){ 0 });
	tell(VHOSTMSG_GET_FEATURES, 0);
	hears(VHOSTMSG_GET_FEATURES, NULL);
	shutdown(rig.back, SHUT_RDWR);
	turn();
	cr_assert_str_eq(rig.over, "the back-end hung up");
	cr_assert_null(take(rig.vmm, true));
}

static void breaks(void (*how)(void), const char *word)
{
	begin((struct vhostfront_config){ 0 });
	negotiate();
	how();
	turn();
	cr_assert_eq(rig.quarantined, 1);
	cr_assert_not_null(strstr(vhost_relay_state(rig.relay)->reason, word), "%s",
			   vhost_relay_state(rig.relay)->reason);
	cr_assert_null(rig.over, "the VMM waits for nothing");
	teardown();
	setup();
}

static void unasked(void)
{
	reply(VHOSTMSG_GET_FEATURES, 1);
}

static void another(void)
{
	tell_table(0, 0);
	hears(VHOSTMSG_POSTCOPY_ADVISE, NULL);
	reply(VHOSTMSG_GET_FEATURES, 1);
}

static void garbage(void)
{
	cr_assert_eq(write(rig.back, "nonsense nonsense nonsense", 26), 26);
}

static void refused_table(void)
{
	tell_table(0, 0);
	answer_advise();
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 1);
}

static void not_proven(void)
{
	rig.wrong = "not registered";
	tell_table(0, 0);
	answer_advise();
	hears(VHOSTMSG_SET_MEM_TABLE, NULL);
	reply(VHOSTMSG_SET_MEM_TABLE, 0);
}

Test(vhost_relay, F16_quarantine)
{
	breaks(unasked, "nobody asked");
	breaks(another, "another request");
	breaks(garbage, "version 1");
	breaks(refused_table, "refused");
	breaks(not_proven, "not registered");
	begin((struct vhostfront_config){ 0 });
}

Test(vhost_relay, vmm_breaks_the_protocol)
{
	begin((struct vhostfront_config){ 0 });
	negotiate();
	tell(VHOSTMSG_POSTCOPY_ADVISE, 0);
	cr_assert_not_null(rig.over);
	hears_nothing();
}

static void pass(unsigned ms)
{
	gint64 end = g_get_monotonic_time() + ms * 1000;

	while (g_get_monotonic_time() < end)
		if (!g_main_context_iteration(NULL, FALSE))
			g_usleep(1000);
}

/* Late is who does not answer, unless it waits for a page. */
Test(vhost_relay, deadlines)
{
	begin((struct vhostfront_config){ .answer_limit = 150 * MS });
	negotiate();
	rig.waits = true;
	tell_table(0, 0);
	hears(VHOSTMSG_POSTCOPY_ADVISE, NULL);
	pass(600);
	cr_assert_eq(rig.quarantined, 0);
	rig.waits = false;
	pass(600);
	cr_assert_eq(rig.quarantined, 1);
	cr_assert_null(rig.over);
	/* Now the VMM has something to say, and nobody comes back to hear it. */
	tell(VHOSTMSG_GET_FEATURES, 0);
	pass(600);
	cr_assert_not_null(rig.over);
}

Test(vhost_relay, back_end_does_not_read)
{
	unsigned sent = 0;

	begin((struct vhostfront_config){ .answer_limit = 150 * MS });
	for (unsigned i = 0; i < 3000 && !rig.quarantined; i++, sent = i) {
		struct vhostmsg m;

		vhostmsg_ask(&m, VHOSTMSG_SET_OWNER, 0);
		if (write(rig.vmm, &m.head, sizeof(m.head)) != sizeof(m.head))
			break;
		turn();
	}
	pass(800);
	cr_assert_eq(rig.quarantined, 1, "sent %u", sent);
	cr_assert_not_null(strstr(vhost_relay_state(rig.relay)->reason, "does not read"));
}

static void pass_one_on(void)
{
	struct vhost_frame *f = take(rig.back, false);

	if (f)
		reply(f->m.head.request, 0);
	vhost_frame_free(f);
}

/* What is for it waits in its socket; it is not heard again before, and nothing of it is lost. */
Test(vhost_relay, vmm_does_not_read)
{
	unsigned sent = 0;
	uint64_t requests, answers;
	struct vhostmsg m;

	begin((struct vhostfront_config){ 0 });
	vhostmsg_ask(&m, VHOSTMSG_GET_FEATURES, 0);
	for (; sent < 3000; sent++) {
		if (write(rig.vmm, &m.head, sizeof(m.head)) != sizeof(m.head))
			break;
		pass_one_on();
	}
	cr_assert(sent < 3000, "all of it was heard");
	for (unsigned i = 0; i < sent; i++) {
		vmm_gets(VHOSTMSG_GET_FEATURES, 0);
		pass_one_on();
	}
	vhost_relay_count(rig.relay, &requests, &answers);
	cr_assert(requests == sent && answers == sent);
}
