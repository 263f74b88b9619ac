/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A copy for the operator (--device-state): that it cannot be written is no reason to give a VM up.
 * And what our own source put in of the state of devices, for the spool: the connection says whose
 * it is, so it names no session.
 */
#include "config.h"
#include "daemon/package.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <glib.h>

#define PIECE (1u << 18)

/**
 * package_save - write the package to a file
 */
void package_save(const struct snapshot *s, int fd, const char *name)
{
	off_t at = 0;

	while ((uint64_t)at < s->package_bytes)
		if (sendfile(fd, s->package_fd, &at, s->package_bytes - (uint64_t)at) <= 0) {
			g_warning("cannot write the device state to %s: %s", name,
				  g_strerror(errno));
			return;
		}
	g_message("device state: %" PRIu64 " bytes written to %s", s->package_bytes, name);
}

/* As much as fits behind what was not taken yet; *used is how much is there. */
static ssize_t refill(const struct snapshot *s, uint64_t *at, uint8_t *buf, size_t *used)
{
	uint64_t left = s->package_states_bytes - *at;
	size_t room = PIECE - *used;
	ssize_t n = pread(s->package_fd, buf + *used, left < room ? left : room,
			  (off_t)(s->package_states_offset + *at));

	if (n < 0)
		return -errno;
	*at += (uint64_t)n;
	*used += (size_t)n;
	return n;
}

static int spool_all(const struct snapshot *s, struct devspool_stream *t)
{
	g_autofree uint8_t *buf = g_malloc(PIECE);
	uint64_t at = 0;
	size_t used = 0;
	ssize_t n;

	while ((n = refill(s, &at, buf, &used)) > 0) {
		ssize_t taken = devspool_stream_feed(t, buf, used);

		if (taken < 0)
			return (int)taken;
		used -= (size_t)taken;
		memmove(buf, buf + taken, used);
	}
	if (n < 0)
		return (int)n;
	return used ? -EPROTO : devspool_stream_end(t);
}

/**
 * package_spool - take out what there is of the state of devices
 *
 * All at once: a package is no larger than --max-package.
 */
int package_spool(const struct snapshot *s, struct devspool *spool, char why[256])
{
	static const uint8_t session[DEVSTATE_SESSION];
	struct devspool_stream *t = devspool_stream_new(spool, session);
	int ret = spool_all(s, t);
	const char *reason = devspool_stream_reason(t);

	if (ret < 0)
		snprintf(why, 256, "the state of devices in the package: %s",
			 *reason ? reason : "it is cut off");
	devspool_stream_free(t);
	return ret;
}
