/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is in force of what a back-end was told, and in which order another is told.  (F19, F21)
 */
#include "config.h"

#include "daemon/vhost_record.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"

#define CALLS(...) ((const uint32_t[]){ __VA_ARGS__, 0 })

static struct vhost_frame *say(enum vhostmsg_request request, uint64_t value)
{
	struct vhost_frame *f = vhost_frame_new();

	vhostmsg_ask(&f->m, request, 0);
	f->m.body.u64 = value;
	return f;
}

static struct vhost_frame *ring(enum vhostmsg_request request, unsigned index, unsigned num)
{
	struct vhost_frame *f = say(request, 0);

	if (request == VHOSTMSG_SET_VRING_KICK || request == VHOSTMSG_SET_VRING_CALL)
		f->m.body.u64 = index;
	else
		f->m.body.state = (struct vhostmsg_state){ .index = index, .num = num };
	return f;
}

static struct vhost_frame *memory(enum vhostmsg_request request, uint64_t gpa, int file)
{
	const struct vhostmsg_region region = {
		.gpa = gpa, .size = 4096, .va = gpa + 1, .offset = gpa
	};
	struct vhost_frame *f = say(request, 0);

	if (request == VHOSTMSG_SET_MEM_TABLE) {
		f->m.body.memory.n = 0;
		vhostmsg_add_region(&f->m, &region);
	} else {
		f->m.body.memreg.region = region;
	}
	f->m.fds = file >= 0;
	f->fd[0] = file >= 0 ? dup(file) : -1;
	return f;
}

static void holds(const struct vhost_record *r, int of_ring, const uint32_t *requests)
{
	g_autoptr(GString) got = g_string_new(""), wanted = g_string_new("");
	GQueue feed = G_QUEUE_INIT;
	struct vhost_frame *f;

	cr_assert(vhost_record_copy(r, of_ring, &feed));
	while ((f = g_queue_pop_head(&feed))) {
		g_string_append_printf(got, "%u ", f->m.head.request);
		vhost_frame_free(f);
	}
	for (; *requests; requests++)
		g_string_append_printf(wanted, "%u ", *requests);
	cr_assert_str_eq(got->str, wanted->str);
}

Test(vhost_record, last_word_in_first_place)
{
	GQueue feed = G_QUEUE_INIT;
	struct vhost_frame *f;
	struct vhost_record r;

	vhost_record_init(&r);
	vhost_record_note(&r, say(VHOSTMSG_SET_OWNER, 0));
	vhost_record_note(&r, say(VHOSTMSG_SET_FEATURES, 1));
	vhost_record_note(&r, ring(VHOSTMSG_SET_VRING_NUM, 0, 64));
	vhost_record_note(&r, ring(VHOSTMSG_SET_VRING_NUM, 1, 64));
	vhost_record_note(&r, say(VHOSTMSG_SEND_RARP, 7)); /* an act */
	vhost_record_note(&r, say(VHOSTMSG_SET_FEATURES, 2));
	holds(&r, -1, CALLS(3, 2, 8, 8));
	holds(&r, 1, CALLS(8));
	cr_assert(vhost_record_copy(&r, -1, &feed));
	vhost_frame_free(g_queue_pop_head(&feed));
	f = g_queue_pop_head(&feed);
	cr_assert_eq(f->m.body.u64, 2);
	vhost_frame_free(f);
	g_queue_clear_full(&feed, (GDestroyNotify)vhost_frame_free);
	vhost_record_deinit(&r);
	vhost_record_deinit(&r);
}

Test(vhost_record, rings_stop)
{
	GQueue feed = G_QUEUE_INIT;
	struct vhost_frame *f;
	struct vhost_record r;

	vhost_record_init(&r);
	vhost_record_note(&r, ring(VHOSTMSG_SET_VRING_BASE, 3, 0));
	vhost_record_note(&r, ring(VHOSTMSG_SET_VRING_KICK, 3, 0));
	vhost_record_note(&r, ring(VHOSTMSG_SET_VRING_CALL, 3, 0));
	vhost_record_stopped(&r, 3, 77, false); /* by us: it goes on there */
	holds(&r, 3, CALLS(10, 12, 13));
	cr_assert(vhost_record_has(&r, VHOSTMSG_SET_VRING_KICK));
	cr_assert(vhost_record_copy(&r, 3, &feed));
	f = g_queue_peek_head(&feed);
	cr_assert_eq(f->m.body.state.num, 77);
	g_queue_clear_full(&feed, (GDestroyNotify)vhost_frame_free);
	vhost_record_stopped(&r, 3, 78, true);
	holds(&r, 3, CALLS(10, 13));
	vhost_record_note(&r, ring(VHOSTMSG_SET_VRING_KICK, 3, 0));
	vhost_record_note(&r, say(VHOSTMSG_RESET_DEVICE, 0));
	holds(&r, -1, CALLS(10, 13));
	vhost_record_deinit(&r);
}

Test(vhost_record, P16_memory)
{
	int a = memfd_create("a", MFD_CLOEXEC), b = memfd_create("b", MFD_CLOEXEC);
	struct vhost_region told[VHOST_RECORD_REGIONS];
	struct vhost_frame *same, *other;
	struct vhost_record r;
	struct stat st;

	cr_assert_eq(ftruncate(a, 1 << 20) | ftruncate(b, 1 << 20) | fstat(b, &st), 0);
	vhost_record_init(&r);
	vhost_record_note(&r, memory(VHOSTMSG_SET_MEM_TABLE, 0, a));
	vhost_record_note(&r, memory(VHOSTMSG_ADD_MEM_REG, 8192, b));
	cr_assert_eq(vhost_record_regions(&r, NULL, told), 2);
	cr_assert_eq(told[1].inode, st.st_ino);
	cr_assert_eq(told[1].offset, 8192);
	/* What is about to be said counts, a new table instead of all. */
	same = memory(VHOSTMSG_SET_MEM_TABLE, 0, a);
	other = memory(VHOSTMSG_SET_MEM_TABLE, 0, b);
	cr_assert_eq(vhost_record_regions(&r, other, told), 1);
	cr_assert_eq(told[0].inode, st.st_ino);
	cr_assert(vhost_record_is_table(&r, same));
	cr_assert_not(vhost_record_is_table(&r, other), "another file");
	vhost_frame_free(same);
	vhost_frame_free(other);
	vhost_record_note(&r, memory(VHOSTMSG_REM_MEM_REG, 4096, -1));
	holds(&r, -1, CALLS(5, 37));
	vhost_record_note(&r, memory(VHOSTMSG_REM_MEM_REG, 8192, -1));
	holds(&r, -1, CALLS(5));
	vhost_record_note(&r, memory(VHOSTMSG_ADD_MEM_REG, 8192, b));
	vhost_record_note(&r, memory(VHOSTMSG_SET_MEM_TABLE, 4096, b));
	holds(&r, -1, CALLS(5));
	vhost_record_deinit(&r);
}
