/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The measured process of postcopyd's rows: shares its memory, a memfd or private, through
 * libpostcopy and touches it with the same code as the bare rows.  Or nobody touches it, and a
 * device that is to reach all of it waits.
 */
#include "config.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "postcopy/postcopy.h"
#include "session.h"
#include "toucher.h"

/* 0 or -1. */
static int map_memory(struct postcopy_block *b, bool private)
{
	int flags = MAP_NORESERVE | (private ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);

	b->fd = private ? -1 : memfd_create("served", MFD_CLOEXEC);
	if (!private && (b->fd < 0 || ftruncate(b->fd, (off_t)b->length) < 0))
		return -1;
	b->address = mmap(NULL, b->length, PROT_READ | PROT_WRITE, flags, b->fd, 0);
	return b->address == MAP_FAILED ? -1 : 0;
}

/* A device reaches all of the block; 0 or -1. */
static int declare(postcopy *p, const struct postcopy_block *b)
{
	const struct postcopy_dma dma = {
		.size = sizeof(dma),
		.directions = POSTCOPY_DMA_READS | POSTCOPY_DMA_WRITES,
		.gate = "device",
		.block = b->name,
		.length = b->length,
	};

	return postcopy_dma_map(p, &dma) < 0 || postcopy_dma_seal(p, dma.gate) < 0 ? -1 : 0;
}

/* On the daemon's clock: when the device may run. */
static int print_open(postcopy *p)
{
	struct timespec now;

	if (session_wait(p, POSTCOPY_EVENT_DMA_OPEN))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("open ns %lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
	fflush(stdout);
	return 0;
}

static int serve(postcopy *p, struct postcopy_block *b, struct toucher *t, const char *row)
{
	bool gated = strcmp(row, "gate") == 0;

	t->base = b->address;
	if (b->fd >= 0)
		b->address = NULL;	/* found by the daemon */
	if (postcopy_add_block(p, b) < 0 || (gated && declare(p, b) < 0) || postcopy_ready(p) < 0)
		return session_fail("register", postcopy_strerror(p));
	if (gated ? print_open(p) : session_wait(p, POSTCOPY_EVENT_RUNNING))
		return 1;
	if (t->count) {
		toucher_run(t);
		toucher_print(t, row);
	}
	if (session_wait(p, POSTCOPY_EVENT_COMPLETE))
		return 1;
	puts("complete");
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct postcopy_options o = POSTCOPY_OPTIONS_INIT;
	struct postcopy_block b = { .size = sizeof(b), .name = "m1" };
	struct toucher t = { .page_size = 4096 };
	bool private = false;
	char text[256];
	postcopy *p;
	int ret;

	if (argc < 7)
		return session_fail("usage",
				    "served SOCKET ROW|gate PAGES COUNT SEED CPU "
				    "[--only-absent] [--private]");
	t.pages = strtoull(argv[3], NULL, 0);
	t.count = strtoull(argv[4], NULL, 0);
	t.seed = strtoull(argv[5], NULL, 0);
	toucher_pin(atoi(argv[6]));
	for (int i = 7; i < argc; i++) {
		t.only_absent |= strcmp(argv[i], "--only-absent") == 0;
		private |= strcmp(argv[i], "--private") == 0;
	}
	b.length = t.pages * t.page_size;
	if (map_memory(&b, private) < 0)
		return session_fail("memory", "cannot make it");
	o.role = POSTCOPY_ROLE_MAIN;
	o.name = "served";
	if (postcopy_new(&p, argv[1], &o, text) < 0)
		return session_fail("connect", text);
	ret = serve(p, &b, &t, argv[2]);
	postcopy_free(p);
	return ret;
}
