/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The DMA verbs of libpostcopy: what each of them sends, what comes of the answers, and what the
 * events about a set say (F46, S0-09).
 */
#include "config.h"

#include "postcopy/postcopy.h"

#include <errno.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "peer.h"
#include "sys/fd.h"

#define GATE "0000:01:00.0"

struct talk {
	struct peer peer;
	postcopy *handle;
};

static void talk_init(struct talk *t, enum postcopy_role role)
{
	peer_init(&t->peer);
	t->handle = peer_welcome(&t->peer, role);
}

static void talk_deinit(struct talk *t)
{
	postcopy_free(t->handle);
	peer_deinit(&t->peer);
}

/* The daemon's answer to the next call is laid out, then the call is made. */
static struct talk *answered(struct talk *t, int error, uint64_t written)
{
	static uint32_t serial;
	union regmsg m;

	serial = serial ? serial + 1 : 2;
	regmsg_text(&m, REGMSG_RESULT, serial, error, "%s", error ? "so not" : "");
	m.result.written = written;
	peer_send(&t->peer, &m, -1);
	return t;
}

static void sent(struct talk *t, enum regmsg_type type, union regmsg *m)
{
	int fd;

	cr_assert(peer_receive(&t->peer, m, &fd), "%s was not sent", regmsg_type_name(type));
	cr_assert_eq(m->head.type, type, "%s", regmsg_type_name(m->head.type));
	cr_assert_eq(fd, -1);
}

static struct postcopy_dma buffers(void)
{
	return (struct postcopy_dma){
		.size = sizeof(struct postcopy_dma),
		.directions = POSTCOPY_DMA_READS,
		.flags = POSTCOPY_DMA_ENFORCED,
		.gate = GATE,
		.block = "pc.ram",
		.block_offset = 0x100000,
		.length = 0x2000,
		.iova = 0xfffff000,
	};
}

Test(client_dma, map_says_all_of_it)
{
	struct postcopy_dma d = buffers();
	union regmsg m;
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_dma_map(answered(&t, 0, 0)->handle, &d), 0);
	sent(&t, REGMSG_DMA_MAP, &m);
	cr_assert_eq(m.dma.flags, REGMSG_DMA_ENFORCED);
	cr_assert_eq(m.dma.directions, REGMSG_DMA_READS);
	cr_assert_eq(m.dma.iova, 0xfffff000);
	cr_assert_eq(m.dma.length, 0x2000);
	cr_assert_eq(m.dma.block_offset, 0x100000);
	cr_assert_str_eq(m.dma.gate, GATE);
	cr_assert_str_eq(m.dma.name, "pc.ram");
	talk_deinit(&t);
}

/* S0-17: a ring is read and written, whatever its driver says. */
Test(client_dma, coherent_is_both_ways)
{
	struct postcopy_dma d = buffers();
	union regmsg m;
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	d.directions = 0;
	cr_assert_eq(postcopy_dma_coherent(answered(&t, 0, 0)->handle, &d), 0);
	sent(&t, REGMSG_DMA_MAP, &m);
	cr_assert_eq(m.dma.flags, REGMSG_DMA_ENFORCED | REGMSG_DMA_COHERENT);
	cr_assert_eq(m.dma.directions, REGMSG_DMA_READS | REGMSG_DMA_WRITES);
	talk_deinit(&t);
}

Test(client_dma, a_bad_range_is_not_sent)
{
	static const struct {
		uint64_t offset, length, iova;
		uint32_t directions, flags;
		const char *gate, *block, *word;
		int error;
	} cases[] = {
		{ 0, 0, 0, 1, 0, GATE, "pc.ram", "length", -EINVAL },
		{ 0, 512, 0, 1, 0, GATE, "pc.ram", "whole", -EINVAL },
		{ 512, 4096, 0, 1, 0, GATE, "pc.ram", "whole", -EINVAL },
		{ 0, 4096, 512, 1, 0, GATE, "pc.ram", "whole", -EINVAL },
		{ 0, 4096, 0, 0, 0, GATE, "pc.ram", "direction", -EINVAL },
		{ 0, 4096, 0, 8, 0, GATE, "pc.ram", "direction", -EINVAL },
		{ 0, 4096, 0, 1, 4, GATE, "pc.ram", "flags", -EINVAL },
		{ 0, 8192, UINT64_MAX - 4095, 1, 0, GATE, "pc.ram", "overflow", -EINVAL },
		{ 0, 4096, 0, 1, 0, NULL, "pc.ram", "name", -EINVAL },
		{ 0, 4096, 0, 1, 0, GATE, NULL, "name", -EINVAL },
		{ 0, 4096, 0, 1, 0, GATE "\n", "pc.ram", "gate", -EINVAL },
		{ 0, 4096, 0, 1, 0,
		  "a name of more than sixty-three characters is not one that a gate has", "pc.ram",
		  "63", -ENAMETOOLONG },
	};
	union regmsg m;
	struct talk t;
	int fd;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct postcopy_dma d = { sizeof(d),	   cases[i].directions, cases[i].flags,
					  0,		   cases[i].gate,	cases[i].block,
					  cases[i].offset, cases[i].length,	cases[i].iova };

		cr_assert_eq(postcopy_dma_map(t.handle, &d), cases[i].error, "case %zu", i);
		cr_assert(strstr(postcopy_strerror(t.handle), cases[i].word), "case %zu: %s", i,
			  postcopy_strerror(t.handle));
	}
	cr_assert_not(peer_receive(&t.peer, &m, &fd), "something was sent");
	talk_deinit(&t);
}

Test(client_dma, structs_of_other_sizes)
{
	struct {
		struct postcopy_dma d;
		uint64_t newer;
	} big = { .d = buffers() };
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	big.d.size = sizeof(big);
	cr_assert_eq(postcopy_dma_map(answered(&t, 0, 0)->handle, &big.d), 0);
	big.newer = 1;
	cr_assert_eq(postcopy_dma_map(t.handle, &big.d), -E2BIG);
	big.d.size = sizeof(big.d) - 1;
	cr_assert_eq(postcopy_dma_map(t.handle, &big.d), -EINVAL);
	cr_assert_eq(postcopy_dma_map(t.handle, NULL), -EINVAL);
	talk_deinit(&t);
}

Test(client_dma, unmap_and_sync_tell_what_was_written)
{
	uint64_t written = 1;
	union regmsg m;
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_dma_sync(answered(&t, 0, 8192)->handle, GATE, 4096, 16384, &written),
		     0);
	cr_assert_eq(written, 8192);
	sent(&t, REGMSG_DMA_SYNC, &m);
	cr_assert(m.dma_at.iova == 4096 && m.dma_at.length == 16384);
	answered(&t, 0, 12288);
	cr_assert_eq(postcopy_dma_unmap(t.handle, GATE, 4096, 16384, &written), 0);
	cr_assert_eq(written, 12288);
	sent(&t, REGMSG_DMA_UNMAP, &m);
	cr_assert_str_eq(m.dma_at.gate, GATE);
	cr_assert_eq(postcopy_dma_unmap(answered(&t, 0, 1)->handle, GATE, 4096, 4096, NULL), 0);
	/* A failed one stored nothing. */
	cr_assert_eq(postcopy_dma_unmap(answered(&t, EBUSY, 5)->handle, GATE, 0, 4096, &written),
		     -EBUSY);
	cr_assert_eq(written, 12288);
	cr_assert_str_eq(postcopy_strerror(t.handle), "so not");
	cr_assert_eq(postcopy_dma_sync(t.handle, GATE, 0, 100, &written), -EINVAL);
	talk_deinit(&t);
}

Test(client_dma, the_other_verbs)
{
	union regmsg m;
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_dma_seal(answered(&t, 0, 0)->handle, GATE), 0);
	sent(&t, REGMSG_DMA_SEAL, &m);
	cr_assert_str_eq(m.dma_at.gate, GATE);
	cr_assert_eq(postcopy_dma_mapped(answered(&t, 0, 0)->handle, GATE, 8192, 0), 0);
	sent(&t, REGMSG_DMA_MAPPED, &m);
	cr_assert(m.dma_at.iova == 8192 && m.dma_at.error == 0);
	cr_assert_eq(postcopy_dma_mapped(answered(&t, ENOENT, 0)->handle, GATE, 8192, -ENOMEM),
		     -ENOENT);
	sent(&t, REGMSG_DMA_MAPPED, &m);
	cr_assert_eq(m.dma_at.error, ENOMEM);
	cr_assert_eq(postcopy_dma_retry(answered(&t, 0, 0)->handle, GATE, 8192), 0);
	sent(&t, REGMSG_DMA_RETRY, &m);
	cr_assert(m.dma_at.iova == 8192 && m.dma_at.error == 0);
	cr_assert_eq(postcopy_dma_reset(answered(&t, 0, 0)->handle, GATE), 0);
	sent(&t, REGMSG_DMA_RESET, &m);
	cr_assert_eq(postcopy_dma_mapped(t.handle, GATE, 1, 0), -EINVAL);
	cr_assert_eq(postcopy_dma_mapped(t.handle, GATE, 0, 100000), -EINVAL);
	cr_assert_eq(postcopy_dma_seal(t.handle, NULL), -EINVAL);
	talk_deinit(&t);
}

Test(client_dma, only_the_main_sharer_declares)
{
	struct postcopy_dma d = buffers();
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_SHARER);
	cr_assert_eq(postcopy_dma_map(t.handle, &d), -EPERM);
	cr_assert_eq(postcopy_dma_seal(t.handle, GATE), -EPERM);
	cr_assert(strstr(postcopy_strerror(t.handle), "main sharer"));
	talk_deinit(&t);
}

/* S2-03: to a daemon that does not know them, nothing of it is said. */
Test(client_dma, an_older_daemon)
{
	struct postcopy_dma d = buffers();
	struct postcopy_options o;
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	o = peer_options(&p, POSTCOPY_ROLE_MAIN);
	regmsg_init(&m, REGMSG_WELCOME, 1);
	peer_send(&p, &m, -1);
	cr_assert_eq(postcopy_new_fd(&handle, steal_fd(&p.client), &o, NULL), 0);
	p.uffd = -1;
	cr_assert(peer_receive(&p, &m, &fd));
	close_fd(&fd);
	cr_assert_eq(postcopy_dma_map(handle, &d), -ENOTSUP);
	cr_assert_eq(postcopy_dma_seal(handle, GATE), -ENOTSUP);
	cr_assert_not(peer_receive(&p, &m, &fd));
	postcopy_free(handle);
	peer_deinit(&p);
}

static void tell_range(struct peer *p, uint64_t iova)
{
	union regmsg m;

	regmsg_init(&m, REGMSG_DMA_RANGE, 0);
	m.dma.flags = REGMSG_DMA_COHERENT;
	m.dma.directions = REGMSG_DMA_READS | REGMSG_DMA_WRITES;
	m.dma.iova = iova;
	m.dma.length = 8192;
	m.dma.block_offset = 4096;
	strcpy(m.dma.gate, GATE);
	strcpy(m.dma.name, "pc.ram");
	peer_send(p, &m, -1);
}

Test(client_dma, events_say_what_to_map)
{
	struct postcopy_event e = { .size = sizeof(e) };
	union regmsg m;
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	tell_range(&t.peer, 0x10000);
	cr_assert_eq(postcopy_dispatch(t.handle, &e), 1);
	cr_assert_eq(e.type, POSTCOPY_EVENT_DMA_RANGE);
	cr_assert(e.iova == 0x10000 && e.length == 8192 && e.block_offset == 4096);
	cr_assert_eq(e.directions, POSTCOPY_DMA_READS | POSTCOPY_DMA_WRITES);
	cr_assert_eq(e.dma_flags, POSTCOPY_DMA_COHERENT);
	cr_assert_str_eq(e.gate, GATE);
	cr_assert_str_eq(e.block, "pc.ram");
	cr_assert_eq(e.package_fd, -1);
	regmsg_init(&m, REGMSG_DMA_OPEN, 0);
	strcpy(m.dma_at.gate, GATE);
	peer_send(&t.peer, &m, -1);
	cr_assert_eq(postcopy_dispatch(t.handle, &e), 1);
	cr_assert_eq(e.type, POSTCOPY_EVENT_DMA_OPEN);
	cr_assert_str_eq(e.gate, GATE);
	cr_assert_str_eq(e.block, "");
	talk_deinit(&t);
}

/* All that the daemon has on the way at a time may meet a call. */
Test(client_dma, ranges_wait_while_a_call_does)
{
	struct postcopy_event e = { .size = sizeof(e) };
	struct postcopy_dma d = buffers();
	struct talk t;

	talk_init(&t, POSTCOPY_ROLE_MAIN);
	for (unsigned i = 0; i < 24; i++)
		tell_range(&t.peer, i * 8192);
	cr_assert_eq(postcopy_dma_map(answered(&t, 0, 0)->handle, &d), 0);
	for (unsigned i = 0; i < 24; i++) {
		cr_assert_eq(postcopy_dispatch(t.handle, &e), 1);
		cr_assert_eq(e.iova, i * 8192);
	}
	cr_assert_eq(postcopy_dispatch(t.handle, &e), 0);
	talk_deinit(&t);
}
