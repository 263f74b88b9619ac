/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who sees which writes: CPUs by write protection (F43, S4-05), a device that writes through a pin
 * by nobody (S2-08, S0-05), and touch_pages(), by which it is seen after all (F44, S0-14 to S0-16).
 * The device is an io_uring with fixed buffers: pinned for as long as it wants, as VFIO pins, and
 * written to by the kernel past all page tables (F67).
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include "core/dirtymark.h"
#include "core/gate.h"
#include "scene.h"
#include "sys/dirty_cpu.h"
#include "sys/fd.h"
#include "sys/touch.h"
#include "sys/uapi.h"
#include "tap.h"

enum { PAGES = 8 };

/* --- the device --- */

struct nic {
	struct io_uring ring;
	int line[2]; /* what it receives is written to [1] */
};

static void nic_start(struct nic *n)
{
	int rc = io_uring_queue_init(2, &n->ring, 0);

	if (rc < 0)
		fact_skip("io_uring: %s", strerror(-rc));
	expect_eq(pipe2(n->line, O_CLOEXEC), 0);
}

/* 0 or an errno; waits for what is missing. */
static int nic_pin(struct nic *n, uint8_t *p, unsigned pages)
{
	struct iovec iov = { .iov_base = p, .iov_len = pages * PAGE };

	return -io_uring_register_buffers(&n->ring, &iov, 1);
}

/* A byte comes and is written to @to, which is pinned. */
static void nic_receive(struct nic *n, uint8_t *to, uint8_t byte)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&n->ring);
	struct io_uring_cqe *cqe = NULL;

	expect_eq(write(n->line[1], &byte, 1), 1);
	io_uring_prep_read_fixed(sqe, n->line[0], to, 1, 0, 0);
	expect_eq(io_uring_submit(&n->ring), 1);
	expect_eq(io_uring_wait_cqe(&n->ring, &cqe), 0);
	expect_eq(cqe->res, 1);
	io_uring_cqe_seen(&n->ring, cqe);
}

/* --- the trackers --- */

/* Memory of PAGES pages that are there, watched, and clean. */
struct watched {
	struct dirty_cpu cpu;
	uint8_t *p;
	uint64_t word;
	struct dirtymark mark;
};

static void watch(struct watched *w, enum kind kind)
{
	enum dirty_cpu_fitness fit = dirty_cpu_init(&w->cpu);

	if (fit != DIRTY_CPU_FIT)
		fact_skip("%s", dirty_cpu_text(fit));
	w->p = k_map(kind, PAGES, NULL);
	memset(w->p, 0x11, PAGES * PAGE);
	expect_eq(dirty_cpu_watch(&w->cpu, at(w->p), PAGES * PAGE), 0);
	w->word = 0;
	dirtymark_init(&w->mark, &w->word, sizeof(w->word));
}

/* The pages written to since this was asked before, a bit each. */
static uint64_t written(struct watched *w)
{
	w->word = 0;
	expect_eq(dirty_cpu_collect(&w->cpu, at(w->p), PAGES * PAGE, 0, &w->mark), 0);
	return w->word;
}

static void in_both(void (*fact)(enum kind kind))
{
	fact(ANON);
	fact(SHMEM);
}

static void cpus_are_seen(enum kind kind)
{
	struct watched w;
	struct actor a;
	int ends[2];

	watch(&w, kind);
	expect_eq(written(&w), 0);
	w.p[0] = 1;
	w.p[3 * PAGE + 17] = 1;
	actor_start(&a, act_store, w.p + 4 * PAGE);
	expect_eq(actor_result(&a), 0);
	expect_eq(written(&w), 1 | 1 << 3 | 1 << 4);
	expect_eq(written(&w), 0); /* each write once */
	expect_eq(pipe2(ends, O_CLOEXEC), 0);
	expect_eq(write(ends[1], "z", 1), 1);
	expect_eq(read(ends[0], w.p + 7 * PAGE, 1), 1);
	expect_eq(written(&w), 1 << 7); /* the kernel for a thread */
	expect_eq(w.p[2 * PAGE], 0x11);
	expect_eq(written(&w), 0); /* a load is none */
	dirty_cpu_deinit(&w.cpu);
}

static void fact_cpus(void)
{
	in_both(cpus_are_seen);
}

/* Pages that nobody has touched yet are watched, too. */
static void first_touch_is_seen(enum kind kind)
{
	struct watched w;

	watch(&w, kind);
	w.p = k_map(kind, PAGES, NULL);
	expect_eq(dirty_cpu_watch(&w.cpu, at(w.p), PAGES * PAGE), 0);
	expect_eq(written(&w), 0);
	w.p[5 * PAGE] = 1;
	expect_eq(written(&w), 1 << 5);
	dirty_cpu_deinit(&w.cpu);
}

static void fact_first_touch(void)
{
	in_both(first_touch_is_seen);
}

static void fact_error_is_all_dirty(void)
{
	struct watched w;

	watch(&w, ANON);
	close_fd(&w.cpu.pagemap);
	expect_eq(dirty_cpu_collect(&w.cpu, at(w.p), PAGES * PAGE, 0, &w.mark), -EBADF);
	expect_eq(w.word, (1 << PAGES) - 1);
}

static void touch_marks(enum kind kind)
{
	struct watched w;

	watch(&w, kind);
	touch_pages(w.p + 2 * PAGE + 100, 2 * PAGE, PAGE); /* parts of three pages */
	expect_eq(written(&w), 7 << 2);
	for (size_t i = 0; i < PAGES * PAGE; i++)
		expect_eq(w.p[i], 0x11);
	touch_pages(w.p, 0, PAGE);
	expect_eq(written(&w), 0);
	dirty_cpu_deinit(&w.cpu);
}

static void fact_touch_marks(void)
{
	in_both(touch_marks);
}

/* At a destination a touch is a demand for the page, and leaves what comes alone. */
static int by_touch(uint8_t *page)
{
	touch_pages(page, PAGE, PAGE);
	return page[0];
}

static void fact_touch_faults(void)
{
	uint8_t *p = k_map(SHMEM, 1, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGE, NULL), 0);
	actor_start(&a, by_touch, p);
	expect_eq(k_fault(uffd), at(p));
	actor_asleep(&a);
	expect_eq(k_copy(uffd, at(p), k_source(0x22, 1), PAGE, 0).err, 0);
	expect_eq(actor_result(&a), 0x22);
}

/* Somebody counts up in the page while it is touched: no step is lost. */
static int by_counting(uint8_t *page)
{
	for (unsigned i = 0; i < 200000; i++)
		__atomic_fetch_add((uint8_t *)page, 1, __ATOMIC_RELAXED);
	return 0;
}

static void fact_touch_loses_nothing(void)
{
	uint8_t *p = k_map(ANON, 1, NULL);
	struct actor a;

	p[0] = 0;
	actor_start(&a, by_counting, p);
	while (!atomic_load(&a.done))
		touch_pages(p, 1, PAGE);
	expect_eq(actor_result(&a), 0);
	expect_eq(p[0], (uint8_t)200000);
}

/* --- the device's writes --- */

static void pin_is_unseen(enum kind kind)
{
	struct watched w;
	struct nic nic;

	watch(&w, kind);
	nic_start(&nic);
	expect_eq(nic_pin(&nic, w.p, PAGES), 0);
	written(&w); /* pinning for writing counts as a write */
	nic_receive(&nic, w.p + 3 * PAGE, 0x33);
	expect_eq(w.p[3 * PAGE], 0x33);
	expect_eq(written(&w), 0);
	touch_pages(w.p + 3 * PAGE, 1, PAGE);
	expect_eq(written(&w), 1 << 3);
	expect_eq(w.p[3 * PAGE], 0x33);
	/* the union: what CPUs wrote, and all that the device reaches while it runs */
	w.p[7 * PAGE] = 1;
	nic_receive(&nic, w.p + 4 * PAGE, 0x44);
	expect_eq(written(&w), 1 << 7);
	dirtymark_range(&w.mark, 3 * PAGE, 2 * PAGE);
	expect_eq(w.word, 1 << 3 | 1 << 4 | 1 << 7);
	io_uring_queue_exit(&nic.ring);
	dirty_cpu_deinit(&w.cpu);
}

static void fact_pin_is_unseen(void)
{
	in_both(pin_is_unseen);
}

/* --- missing memory and pins --- */

static int by_pin(uint8_t *page)
{
	struct nic nic;
	int err;

	nic_start(&nic);
	err = nic_pin(&nic, page, PAGES);
	io_uring_queue_exit(&nic.ring);
	return err;
}

static void fact_pin_faults_one_by_one(void)
{
	uint8_t *p = k_map(SHMEM, PAGES, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGES * PAGE, NULL), 0);
	actor_start(&a, by_pin, p);
	for (unsigned i = 0; i < PAGES; i++) {
		expect_eq(k_fault(uffd), at(p) + i * PAGE);
		k_quiet(uffd); /* the next is not even asked for */
		expect_eq(k_copy(uffd, at(p) + i * PAGE, k_source(0x11, 1), PAGE, 0).err, 0);
	}
	expect_eq(actor_result(&a), 0);
}

static void fact_prefetched_pin_faults_nowhere(void)
{
	uint8_t *p = k_map(SHMEM, PAGES, NULL);
	int uffd = k_uffd(0);
	struct actor a;

	expect_eq(k_register(uffd, at(p), PAGES * PAGE, NULL), 0);
	expect_eq(k_copy(uffd, at(p), k_source(0x11, PAGES), PAGES * PAGE, 0).err, 0);
	actor_start(&a, by_pin, p);
	expect_eq(actor_result(&a), 0);
	k_quiet(uffd);
}

/* Why a discard of what is pinned is refused: the device goes on with a page that nobody has. */
static void discard_orphans(enum kind kind)
{
	int fd;
	uint8_t *p = k_map(kind, 1, &fd);
	struct nic nic;

	p[0] = 0x11;
	nic_start(&nic);
	expect_eq(nic_pin(&nic, p, 1), 0);
	if (kind == ANON)
		expect_eq(madvise(p, PAGE, MADV_DONTNEED), 0);
	else
		expect_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
	p[0] = 0x22;
	nic_receive(&nic, p, 0x33);
	expect_eq(p[0], 0x22);
	io_uring_queue_exit(&nic.ring);
}

static void fact_discard_orphans(void)
{
	in_both(discard_orphans);
}

/* --- the device behind a gate --- */

struct gated {
	struct gate gate;
	struct block_table blocks;
	struct ledger ledger;
	uint64_t words[64], memory[512];
	struct nic nic;
};

/* A span is all of the memory, and all of it is missing. */
static void gated_start(struct gated *g)
{
	const struct gate_config config = {
		.ledger = &g->ledger, .blocks = &g->blocks, .ranges = 2,
	};
	const struct gate_span span = { .length = PAGES * PAGE, .directions = GATE_WRITES };

	memset(g, 0, sizeof(*g));
	nic_start(&g->nic);
	expect_eq(block_add(&g->blocks, "m", PAGES * PAGE, PAGE, BLOCK_SHARED), 0);
	expect_eq(ledger_init(&g->ledger, g->words, sizeof(g->words), PAGES), 0);
	ledger_set(&g->ledger, 0, PAGES, PAGE_MISSING);
	expect(gate_size(config.ranges, g->blocks.pages) <= sizeof(g->memory));
	gate_init(&g->gate, g->memory, &config);
	expect_eq(gate_map(&g->gate, &span), 0);
	gate_seal(&g->gate);
	gate_serve(&g->gate);
}

/* Pinned when the gate says so it meets no missing page, and it is not taken from it again. */
static void fact_nic_behind_a_gate(void)
{
	static struct gated g;
	uint8_t *p = k_map(SHMEM, PAGES, NULL);
	int uffd = k_uffd(0);
	uint64_t iova = 1;
	struct actor a;

	gated_start(&g);
	expect_eq(k_register(uffd, at(p), PAGES * PAGE, NULL), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		expect_eq(gate_next(&g.gate, &iova), GATE_NOTHING);
		expect_eq(gate_may_run(&g.gate), -EBUSY);
		expect_eq(gate_discard(&g.gate, i, 1), 0);
		expect_eq(k_copy(uffd, at(p) + i * PAGE, k_source(0x11, 1), PAGE, 0).err, 0);
		gate_present(&g.gate, i, 1);
	}
	expect_eq(gate_next(&g.gate, &iova), GATE_READY);
	expect_eq(gate_discard(&g.gate, 3, 1), -EBUSY); /* somebody may be pinning it already */
	actor_start(&a, by_pin, p);
	expect_eq(actor_result(&a), 0);
	k_quiet(uffd);
	expect_eq(nic_pin(&g.nic, p, PAGES), 0);
	expect_eq(gate_mapped(&g.gate, iova, 0), 0);
	expect_eq(gate_next(&g.gate, &iova), GATE_OPENED);
	expect_eq(gate_discard(&g.gate, 3, 1), -EBUSY);
	nic_receive(&g.nic, p + 3 * PAGE, 0x33);
	expect_eq(p[3 * PAGE], 0x33);
	k_quiet(uffd);
	io_uring_queue_exit(&g.nic.ring);
}

/* --- poorer kernels --- */

/* From now on the request @arg1 of ioctl (or, 0, userfaultfd and its device) fails with @err. */
static void forbid(long call, uint32_t arg1, int err)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arg1, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)err),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_LEN(code), .filter = code };

	expect_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		fact_skip("no seccomp filters: %s", strerror(errno));
}

static void refuses(uint32_t request, int err, enum dirty_cpu_fitness why)
{
	struct dirty_cpu d;

	if (dirty_cpu_init(&d) != DIRTY_CPU_FIT)
		fact_skip("this kernel is a poorer one itself");
	dirty_cpu_deinit(&d);
	forbid(SYS_ioctl, request, err);
	expect_eq(dirty_cpu_init(&d), why);
	expect(strlen(dirty_cpu_text(why)) > 0);
	expect(d.uffd == -1 && d.pagemap == -1);
}

static void fact_without_wp_async(void)
{
	refuses((uint32_t)UFFDIO_API, EINVAL, DIRTY_CPU_NO_WP_ASYNC);
}

static void fact_without_scan(void)
{
	refuses((uint32_t)PAGEMAP_SCAN, ENOTTY, DIRTY_CPU_NO_SCAN);
}

static const struct fact facts[] = {
	{ "F43 S4-05 what CPUs write is found, each time once", fact_cpus },
	{ "F43 the first write to a page that was not there is found", fact_first_touch },
	{ "F42 a scan that fails: all is dirty", fact_error_is_all_dirty },
	{ "F44 S0-14 S0-15 a touch marks pages dirty and changes nothing", fact_touch_marks },
	{ "F44 S0-15 a touch of a missing page is a fault", fact_touch_faults },
	{ "F44 S0-15 a touch loses nobody's write", fact_touch_loses_nothing },
	{ "S2-08 S0-05 F67 a write through a pin is seen by nobody, a touch is", fact_pin_is_unseen },
	{ "S2-09 pinning what is missing: one fault after the other", fact_pin_faults_one_by_one },
	{ "S2-09 pinning what was prefetched: no fault", fact_prefetched_pin_faults_nowhere },
	{ "S2-10 F13 a discard under a pin: the device's write is lost", fact_discard_orphans },
	{ "F67 F13 S2-09 S2-10 pinned behind a gate: no fault, no discard", fact_nic_behind_a_gate },
	{ "F43 no WP_ASYNC: refused by name", fact_without_wp_async },
	{ "F43 no PAGEMAP_SCAN: refused by name", fact_without_scan },
};

int main(void)
{
	facts_run(facts, ARRAY_LEN(facts));
	return tap_done();
}
