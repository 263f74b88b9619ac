/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a VMM does to have a VM arrive by postcopy, with a device that cannot wait for memory.
 *
 *   vmm [-d ID] /run/vm1/register pc.ram 1073741824
 *
 * All that this takes of a VMM is marked by [1] to [7].  The rest stands for what a VMM has anyway:
 * one thread plays a virtual CPU, which touches the memory and waits where it is missing; another
 * one plays a device.  That reaches memory by addresses of its own, through windows as an IOMMU has
 * them, and it reads and writes the file behind the memory: where a page is missing it would find
 * zeroes, as hardware would, and nobody would know.  So it runs when everything that it reaches is
 * there, while the CPU runs from the beginning.
 *
 * The device is one that adds: the guest puts the address and the length of a buffer into the first
 * page (two numbers of 64 bits), the device puts the sum of its 64-bit words behind them.
 *
 * With -d the device is one that postcopyd drives (--vfio id=ID): the VMM declares the memory and
 * is told when it may run, and the windows are postcopyd's.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <postcopy/postcopy.h>

#define PAGE	4096
#define RING	UINT64_C(0x10000)	/* where the device has the first page */
#define BUFFERS UINT64_C(0x100000000)	/* and the second half of memory */

enum { WINDOWS = 8, WORDS = 512 };

/* What the device finds at an address of its own. */
struct window {
	uint64_t iova, length, offset;
};

static struct {
	postcopy *postcopy;
	const char *block, *device;
	bool own_device, open, complete;
	int memory;			/* memfd */
	uint8_t *here;
	uint64_t length;
	unsigned n_windows;
	struct window window[WINDOWS];
	int done;			/* eventfd: one for each thread that has ended */
} self = { .device = "adder", .own_device = true, .memory = -1, .done = -1 };

static void die(const char *what, const char *why)
{
	fprintf(stderr, "vmm: %s: %s\n", what, why);
	/* With the process all its memory goes, so no page of it can become zeroes. */
	_exit(EXIT_FAILURE);
}

static void must(int err, const char *what)
{
	if (err)
		die(what, postcopy_strerror(self.postcopy));
}

static void start(void *(*thread)(void *), const char *what)
{
	pthread_t id;
	int err = pthread_create(&id, NULL, thread, NULL);

	if (err)
		die(what, strerror(err));
	pthread_detach(id);
}

/* --- the virtual CPU --- */

static void *run_cpu(void *unused)
{
	uint64_t sum = 0;

	for (uint64_t at = 0; at < self.length; at += PAGE)
		sum += *(volatile uint64_t *)(self.here + at);
	printf("cpu: touched %" PRIu64 " pages, %016" PRIx64 "\n", self.length / PAGE, sum);
	eventfd_write(self.done, 1);
	return unused;
}

/* --- the device --- */

/* Where in the file @len bytes at an address of the device are; -1: not in a window. */
static int64_t translate(uint64_t iova, uint64_t len)
{
	for (unsigned i = 0; i < self.n_windows; i++) {
		const struct window *w = &self.window[i];

		if (iova >= w->iova && iova - w->iova < w->length &&
		    len <= w->length - (iova - w->iova))
			return (int64_t)(w->offset + (iova - w->iova));
	}
	return -1;
}

static bool dma_read(uint64_t iova, void *to, size_t len)
{
	int64_t at = translate(iova, len);

	return at >= 0 && pread(self.memory, to, len, at) == (ssize_t)len;
}

static bool dma_write(uint64_t iova, const void *from, size_t len)
{
	int64_t at = translate(iova, len);

	return at >= 0 && pwrite(self.memory, from, len, at) == (ssize_t)len;
}

static bool add(uint64_t iova, uint64_t length, uint64_t *sum)
{
	uint64_t words[WORDS];

	for (*sum = 0; length >= sizeof(words); length -= sizeof(words), iova += sizeof(words)) {
		if (!dma_read(iova, words, sizeof(words)))
			return false;
		for (unsigned i = 0; i < WORDS; i++)
			*sum += words[i];
	}
	return true;
}

static void *run_device(void *unused)
{
	uint64_t request[2], sum;

	if (!dma_read(RING, request, sizeof(request)) || !add(request[0], request[1], &sum) ||
	    !dma_write(RING + sizeof(request), &sum, sizeof(sum)))
		die("device", "it reached for what is not mapped");
	eventfd_write(self.done, 1);
	return unused;
}

/* What VFIO_IOMMU_MAP_DMA is to a real one.  0 or -errno. */
static int map_window(const struct postcopy_event *e)
{
	if (self.n_windows == WINDOWS)
		return -ENOSPC;
	self.window[self.n_windows++] =
		(struct window){ e->iova, e->length, e->block_offset };
	return 0;
}

/* --- what postcopyd is told --- */

static void join(const char *socket)
{
	struct postcopy_options options = POSTCOPY_OPTIONS_INIT;
	struct postcopy_block block = {
		.size = sizeof(block), .fd = self.memory, .name = self.block,
		.length = self.length,
	};
	char text[256] = "";

	/* [1] The memory is mapped, and nobody has touched it.  Say what it is. */
	options.role = POSTCOPY_ROLE_MAIN;
	options.name = "vmm";
	if (postcopy_new(&self.postcopy, socket, &options, text))
		die("no postcopyd", text);
	must(postcopy_add_block(self.postcopy, &block), "memory");
	must(postcopy_ready(self.postcopy), "memory");
}

/* [2] Say what the device reaches, in parts that can be there one after the other, and seal it. */
static void declare_device(void)
{
	uint64_t half = self.length / 2, part = half / 4;
	struct postcopy_dma dma = {
		.size = sizeof(dma), .flags = POSTCOPY_DMA_ENFORCED, .gate = self.device,
		.block = self.block, .length = PAGE, .iova = RING,
	};

	must(postcopy_dma_coherent(self.postcopy, &dma), "ring");
	dma.directions = POSTCOPY_DMA_READS;
	dma.length = part;
	for (uint64_t at = 0; at < half; at += part) {
		dma.block_offset = half + at;
		dma.iova = BUFFERS + at;
		must(postcopy_dma_map(self.postcopy, &dma), "buffers");
	}
	must(postcopy_dma_seal(self.postcopy, self.device), "device");
}

/* [3] The device state came: load it, which may touch memory; then say so. */
static void load(const struct postcopy_event *e)
{
	char first[16];
	ssize_t n = pread(e->package_fd, first, sizeof(first), (off_t)e->device_offset);

	close(e->package_fd);
	if (n < 0) {
		must(postcopy_load_failed(self.postcopy, "it cannot be read"), "load");
		return;
	}
	printf("loaded %" PRIu64 " bytes of device state\n", e->device_length);
	must(postcopy_loaded(self.postcopy), "load");
}

/* [5] A range is there, all of it and for good: now it may be mapped. */
static void map(const struct postcopy_event *e)
{
	int err = map_window(e);

	printf("mapped 0x%" PRIx64 ", %" PRIu64 " bytes\n", e->iova, e->length);
	must(postcopy_dma_mapped(self.postcopy, e->gate, e->iova, err), "map");
}

static void on_event(const struct postcopy_event *e)
{
	switch (e->type) {
	case POSTCOPY_EVENT_PACKAGE:
		load(e);
		break;
	case POSTCOPY_EVENT_RUNNING: /* [4] The VM is ours.  Its memory comes when it is touched. */
		printf("running\n");
		start(run_cpu, "cpu");
		break;
	case POSTCOPY_EVENT_DMA_RANGE:
		map(e);
		break;
	case POSTCOPY_EVENT_DMA_OPEN: /* [6] Everything that it reaches is mapped: let it run. */
		printf("device %s may run\n", e->gate);
		self.open = true;
		if (self.own_device)
			start(run_device, "device");
		break;
	case POSTCOPY_EVENT_COMPLETE:
		printf("complete\n");
		self.complete = true;
		break;
	case POSTCOPY_EVENT_FAILED:
	case POSTCOPY_EVENT_DISABLED:
	case POSTCOPY_EVENT_DISCONNECTED:
		if (!self.complete)
			die("postcopyd", e->text);
		break;
	default:
		break;
	}
}

/* --- together --- */

/* The thread that hears events touches no guest memory: it could not hear why it waits. */
static void serve(void)
{
	struct postcopy_event e = { .size = sizeof(e) };
	unsigned wanted = self.own_device ? 2 : 1, ended = 0;

	while (!self.complete || !self.open || ended < wanted) {
		struct pollfd fds[] = {
			{ .fd = postcopy_fd(self.postcopy), .events = POLLIN },
			{ .fd = self.done, .events = POLLIN },
		};
		eventfd_t n = 0;

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			die("poll", strerror(errno));
		while (postcopy_dispatch(self.postcopy, &e) == 1)
			on_event(&e);
		if (fds[1].revents && eventfd_read(self.done, &n) == 0)
			ended += (unsigned)n;
	}
}

/*
 * [7] What the device wrote counts as dirty; then it reaches nothing any more.  When all memory is
 * here postcopyd may be gone, and nobody has to know.
 */
static void end_device(void)
{
	uint64_t written = 0;
	int err;

	if (!self.own_device)
		return;
	err = postcopy_dma_sync(self.postcopy, self.device, RING, PAGE, &written);
	self.n_windows = 0;
	if (!err)
		err = postcopy_dma_unmap(self.postcopy, self.device, RING, PAGE, NULL);
	if (!err)
		err = postcopy_dma_unmap(self.postcopy, self.device, BUFFERS, self.length / 2,
					 NULL);
	if (err != -ECONNRESET)
		must(err, "end of the device");
	printf("device: sum %016" PRIx64 ", wrote at most %" PRIu64 " bytes\n",
	       *(uint64_t *)(self.here + 16), written);
}

static void make_memory(const char *size)
{
	self.length = strtoull(size, NULL, 0);
	if (self.length == 0 || self.length % (8 * PAGE))
		die(size, "not a size of whole pages, eight of them at least");
	self.memory = memfd_create("guest", MFD_CLOEXEC);
	if (self.memory < 0 || ftruncate(self.memory, (off_t)self.length) < 0)
		die("memory", strerror(errno));
	self.here = mmap(NULL, self.length, PROT_READ | PROT_WRITE, MAP_SHARED, self.memory, 0);
	self.done = eventfd(0, EFD_CLOEXEC);
	if (self.here == MAP_FAILED || self.done < 0)
		die("memory", strerror(errno));
}

int main(int argc, char **argv)
{
	int option;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt(argc, argv, "d:")) == 'd') {
		self.device = optarg;
		self.own_device = false;
	}
	if (option != -1 || argc - optind != 3) {
		fprintf(stderr, "usage: vmm [-d ID] REGISTER-SOCKET BLOCK SIZE\n");
		return 64;
	}
	self.block = argv[optind + 1];
	make_memory(argv[optind + 2]);
	join(argv[optind]);
	declare_device();
	serve();
	end_device();
	postcopy_free(self.postcopy);
	return EXIT_SUCCESS;
}
