/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vfio-user server that listens at a path: it is found, says what it has, and the state of its
 * device goes to another one, in the generation that both have.  (F29)
 *
 * It is ours, or the one that POSTCOPY_VFIO_USER_SERVER starts: a command for the shell, which
 * finds the path in $SOCKET.
 */
#include "config.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sys/clock.h"
#include "tap.h"
#include "vfiouser_side.h"
#include "wire/vfiocaps.h"

static const char *directory(void)
{
	static char path[] = "/tmp/vfioserver.XXXXXX";

	if (!mkdtemp(path))
		tap_bail_out("no directory");
	return path;
}

/* NULL: ours. */
static const char *stranger(void)
{
	const char *command = getenv("POSTCOPY_VFIO_USER_SERVER");

	return command && *command ? command : NULL;
}

_Noreturn static void become(const char *path, unsigned seed)
{
	const char *top = getenv("POSTCOPY_TOP_BUILDDIR");
	char ours[4096];

	snprintf(ours, sizeof(ours), "exec %s/tests/lib/vfiouser-server path=\"$SOCKET\",seed=%u",
		 top ? top : ".", seed);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("SOCKET", path, 1);
	/* What it says is not TAP. */
	if (dup2(STDERR_FILENO, STDOUT_FILENO) >= 0)
		execl("/bin/sh", "sh", "-c", stranger() ? stranger() : ours, (char *)NULL);
	_exit(127);
}

/* It is there when it can be connected to; nobody tells. */
static int connected(struct side *s, const char *path)
{
	struct devio_vfiouser_options options = { .limit_ns = SIDE_LIMIT };
	struct timespec moment = { 0, 10000000 };
	uint64_t until = clock_ns() + SIDE_LIMIT;
	int err;

	do {
		nanosleep(&moment, NULL);
		err = devio_vfiouser_open(&s->dev, path, &options);
	} while ((err == -ENOENT || err == -ECONNREFUSED) && clock_ns() < until);
	return err;
}

static int start(struct side *s, const char *path, unsigned seed)
{
	memset(s, 0, sizeof(*s));
	s->child.sock = -1;
	s->child.pid = fork();
	if (s->child.pid < 0)
		tap_bail_out("no process");
	if (s->child.pid == 0)
		become(path, seed);
	return connected(s, path);
}

static unsigned generation(struct side *s)
{
	uint64_t flags = 0;

	return devio_feature_get(&s->dev, 1, &flags, sizeof(flags)) == 0 && flags & 1 ? 2 : 1;
}

static void regions(struct side *s)
{
	struct devio_info info;
	struct vfiocaps_region r;
	int err = devio_info(&s->dev, &info);
	unsigned good = 0;

	while (!err && good < info.regions && devio_region(&s->dev, good, &r) == 0)
		good++;
	tap_ok(!err && good && good == info.regions, "F29 every region is described: %u", good);
}

int main(void)
{
	static struct carried c;
	const char *dir = directory();
	char paths[2][64];
	struct side source, dest;
	uint64_t was = 0, is = 0;
	int err;

	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(paths[0], sizeof(paths[0]), "%s/source", dir);
	snprintf(paths[1], sizeof(paths[1]), "%s/dest", dir);
	err = devio_vfiouser_open(&source.dev, paths[0], &(struct devio_vfiouser_options){ 0 });
	tap_ok(err == -ENOENT, "nobody there is told at once: %d", err);
	if (!tap_ok(start(&source, paths[0], 7) == 0 && start(&dest, paths[1], 8) == 0,
		    "F29 two servers are found"))
		tap_bail_out("no servers");
	regions(&source);
	tap_note("generation %u", generation(&source));
	if (!stranger() && side_digest(&source, &was))
		tap_bail_out("no digest");
	err = side_save(&source, generation(&source), &c);
	tap_ok(err == 0 && c.len, "F29 its state is saved: %d, %zu bytes", err, c.len);
	err = err ? err : side_load(&dest, generation(&dest), &c);
	if (!stranger() && !err)
		err = side_digest(&dest, &is);
	tap_ok(err == 0 && is == was, "F29 and loaded: %d", err);
	side_close(&source);
	side_close(&dest);
	unlink(paths[0]);
	unlink(paths[1]);
	rmdir(dir);
	return tap_done();
}
