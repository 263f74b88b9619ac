/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_send DEVICE VALUE PATH SESSION NAME: the source's side of one device, of mtty: VALUE becomes
 * its scratch register, its state goes to the channel at PATH.
 *
 * vfio_send DEVICE: the value that its scratch register has.
 */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devmove.h"
#include "sys/devio_vfio.h"
#include "sys/fd.h"
#include "wire/devstate.h"

enum { SCRATCH = 7 };

static struct devmove_stream saved;

static int scratch(struct devio *d, bool set, uint8_t *value)
{
	struct devio_at at = { .region = 0, .width = 1, .offset = SCRATCH };

	return set ? devio_write(d, &at, value, 1) : devio_read(d, &at, value, 1);
}

static int depart(struct migdev *m)
{
	static const enum vfiostate way[] = {
		VFIOSTATE_QUIESCED, VFIOSTATE_STOP, VFIOSTATE_STOPCOPY,
	};
	int err = migdev_reset(m);

	for (unsigned i = 0; i < 3 && !err; i++)
		err = migdev_set(m, way[i]);
	return err ? err : devmove_save(m, &saved);
}

static int dial(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	return fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : fd;
}

/* All of it as one segment; the other side says when it has it whole. */
static int send_state(const char *path, const char *session, const char *name)
{
	static uint8_t bytes[2 * sizeof(saved.bytes)];
	struct devstate_id id = { .kind = DEVSTATE_STREAM, .device = name, .compat = "" };
	struct devstate_writer w = { .slot = 0 };
	struct pen p;
	uint8_t answer[DEVSTATE_GREETING];
	cleanup_fd int fd = dial(path);

	if (fd < 0 || devstate_session(session, id.session))
		return fd < 0 ? fd : -EINVAL;
	p = pen_init(bytes, sizeof(bytes));
	devstate_put_greeting(&p, id.session);
	devstate_put_head(&w, &p, &id, 1);
	devstate_put_segment(&w, &p, saved.len);
	devstate_fed(&w, saved.bytes, saved.len);
	pen_bytes(&p, saved.bytes, saved.len);
	devstate_put_tail(&w, &p);
	devstate_put_end(&w, &p);
	if (write(fd, bytes, pen_used(&p)) != (ssize_t)pen_used(&p) || shutdown(fd, SHUT_WR))
		return -errno;
	return recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer) ? 0 : -EPROTO;
}

int main(int argc, char **argv)
{
	struct migdev m = { .io = NULL };
	struct devio d;
	const char *why = "";
	uint8_t value = argc > 2 ? (uint8_t)strtoul(argv[2], NULL, 0) : 0;
	int err = argc < 2 ? -EINVAL : devio_vfio_open(&d, argv[1], &why);

	err = err ? err : scratch(&d, argc > 2, &value);
	if (argc > 5) {
		err = err ? err : migdev_probe(&m, &d);
		err = err ? err : depart(&m);
		err = err ? err : scratch(&d, false, &value);
		err = err ? err : send_state(argv[3], argv[4], argv[5]);
	}
	printf("vfio_send: %d, %zu bytes, scratch %#x%s\n", err, saved.len, value, err ? why : "");
	return err != 0;
}
