/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfiouser-server OPTION=VALUE,...: a vfio-user server with one device, for tests.
 *
 *	fd=N		the connected socket; or
 *	path=PATH	where to listen, for one client after the other
 *	generation=1|2	device state by a region, or by messages (2)
 *	seed=N, size=N	of the device's state
 *	segment=N	bytes of a stretch of state, at most, in the first generation
 *	data=N		bytes of data in a message, at most
 *	twin=on|off	grant a second socket (on)
 *	pad=on|off	fill answers of device state up to what was asked for (on)
 *	reset=run|keep	what RESET does to the state of a migration (run)
 *	map=on|off	the window of the migration region can be mapped (on)
 *	trace=on|off	print a line of JSON for each command (off); vfiouser_trace.c
 *	work=N		look at so many words of memory when the device begins to run (0)
 *	early=on|off	and that before it says that it runs (off)
 *	vice=NAME,at=N	what is wrong with the N-th answer, from 0 (vfiouser_talk.c)
 */
#include "config.h"

#include "vfiouser.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"
#include "wire/keyval.h"

static const char *const known[] = {
	"fd", "path", "generation", "seed", "size", "segment", "data", "twin", "pad", "reset",
	"map", "vice", "at", "trace", "work", "early", NULL,
};

_Noreturn static void fail(const char *text)
{
	fprintf(stderr, "vfiouser-server: %s\n", text);
	exit(2);
}

static uint64_t number(struct keyval *kv, const char *key, uint64_t most, uint64_t otherwise)
{
	if (keyval_size(kv, key, 0, most, &otherwise) < 0)
		fail(kv->error);
	return otherwise;
}

static bool boolean(struct keyval *kv, const char *key)
{
	bool value = true;

	if (keyval_bool(kv, key, &value) < 0)
		fail(kv->error);
	return value;
}

static void read_vice(struct vfiouser *s, struct keyval *kv)
{
	const char *name = keyval_get(kv, "vice");

	s->vice = name ? vfiouser_vice(name) : VICE_NONE;
	if (s->vice == VICES)
		fail("no such vice");
	s->vice_at = number(kv, "at", UINT32_MAX, 0);
}

static void read_options(struct vfiouser *s, struct keyval *kv)
{
	const char *reset = keyval_get(kv, "reset");

	s->generation = (unsigned)number(kv, "generation", 2, 2);
	s->segment = number(kv, "segment", VFIOUSER_WINDOW_SIZE, 4096);
	if (!s->generation || s->segment <= 8)
		fail("generation is 1 or 2, segment is more than 8");
	s->allow_twin = boolean(kv, "twin");
	s->pad = boolean(kv, "pad");
	s->map_window = boolean(kv, "map");
	s->reset_keeps = reset && strcmp(reset, "keep") == 0;
	s->trace = keyval_get(kv, "trace") && boolean(kv, "trace");
	s->work = number(kv, "work", 1 << 20, 0);
	s->early = keyval_get(kv, "early") && boolean(kv, "early");
	s->said = vfioterms_default();
	s->said.max_fds = VFIOMSG_FDS;
	s->said.max_data = number(kv, "data", UINT32_MAX, VFIOMSG_DATA_DEFAULT);
	read_vice(s, kv);
}

static void make_window(struct vfiouser *s)
{
	size_t size = VFIOUSER_WINDOW + VFIOUSER_WINDOW_SIZE;
	void *at;

	s->window_fd = memfd_create("vfiouser-window", MFD_CLOEXEC);
	if (s->window_fd < 0 || ftruncate(s->window_fd, (off_t)size))
		fail("no memory for a window");
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, s->window_fd, 0);
	if (at == MAP_FAILED)
		fail("no memory for a window");
	s->window = at;
}

static int listen_at(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	cleanup_fd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(addr.sun_path))
		fail("path is too long");
	strcpy(addr.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || listen(fd, 4))
		fail("cannot listen");
	return steal_fd(&fd);
}

/* A client of its own: what was agreed on before is forgotten, the device is not. */
static void serve(struct vfiouser *s, int sock)
{
	s->sock = sock;
	s->twin = s->gift = -1;
	s->agreed = s->said.twin = s->said.twin_fd = false;
	s->terms = (struct vfiomsg_terms){ .max_data = VFIOMSG_DATA_DEFAULT,
					   .max_fds = VFIOMSG_FDS };
	vfiouser_serve(s);
	close_fd(&s->sock);
}

int main(int argc, char **argv)
{
	cleanup_keyval struct keyval kv = { 0 };
	struct vfiouser s = { .next_id = 0x8000 };
	cleanup_fd int listener = -1;
	uint64_t fd = UINT64_MAX;

	if (argc != 2 || keyval_parse(&kv, argv[1], known, NULL))
		fail(argc == 2 ? kv.error : "one argument");
	read_options(&s, &kv);
	make_window(&s);
	vfiouser_device_init(&s.device, number(&kv, "seed", UINT64_MAX, 1),
			     number(&kv, "size", 1 << 30, 20000));
	if (keyval_number(&kv, "fd", 0, 1 << 20, &fd) == 1) {
		serve(&s, (int)fd);
		vfiouser_device_deinit(&s.device);
		return 0;
	}
	if (!keyval_get(&kv, "path"))
		fail("fd or path");
	listener = listen_at(keyval_get(&kv, "path"));
	puts("READY");
	fflush(stdout);
	for (;;)
		serve(&s, accept4(listener, NULL, NULL, SOCK_CLOEXEC));
}
