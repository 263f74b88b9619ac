/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The measured process of postcopyd's rows: shares one memfd through libpostcopy and touches it with the same code as the bare rows.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "postcopy/postcopy.h"
#include "toucher.h"

static int fail(const char *what, const char *text)
{
	fprintf(stderr, "served: %s: %s\n", what, text);
	return 1;
}

static int wait_for(postcopy *p, uint32_t type)
{
	struct postcopy_event e = { .size = sizeof(e) };

	do {
		int ret = postcopy_wait(p, &e, 60000);

		if (ret < 0 || e.type == POSTCOPY_EVENT_FAILED)
			return fail("waiting", e.text[0] ? e.text : postcopy_strerror(p));
		if (e.type == POSTCOPY_EVENT_PACKAGE) {
			close(e.package_fd);
			postcopy_loaded(p);
		}
	} while (e.type != type);
	return 0;
}

int main(int argc, char **argv)
{
	struct postcopy_options o = POSTCOPY_OPTIONS_INIT;
	struct postcopy_block b = { .size = sizeof(b), .name = "m1" };
	struct toucher t = { .page_size = 4096 };
	char text[256];
	postcopy *p;

	if (argc < 7)
		return fail("usage", "served SOCKET ROW PAGES COUNT SEED CPU [--only-absent]");
	t.pages = strtoull(argv[3], NULL, 0);
	t.count = strtoull(argv[4], NULL, 0);
	t.seed = strtoull(argv[5], NULL, 0);
	toucher_pin(atoi(argv[6]));
	t.only_absent = argc > 7 && strcmp(argv[7], "--only-absent") == 0;
	b.fd = memfd_create("served", MFD_CLOEXEC);
	b.length = t.pages * t.page_size;
	if (b.fd < 0 || ftruncate(b.fd, (off_t)b.length) < 0)
		return fail("memfd", "cannot make it");
	t.base = mmap(NULL, b.length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, b.fd, 0);
	o.role = POSTCOPY_ROLE_MAIN;
	o.name = "served";
	if (postcopy_new(&p, argv[1], &o, text) < 0)
		return fail("connect", text);
	if (postcopy_add_block(p, &b) < 0 || postcopy_ready(p) < 0)
		return fail("register", postcopy_strerror(p));
	if (wait_for(p, POSTCOPY_EVENT_RUNNING))
		return 1;
	if (t.count) {
		toucher_run(&t);
		toucher_print(&t, argv[2]);
	}
	if (wait_for(p, POSTCOPY_EVENT_COMPLETE))
		return 1;
	puts("complete");
	fflush(stdout);
	postcopy_free(p);
	return 0;
}
