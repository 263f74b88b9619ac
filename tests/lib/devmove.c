/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"

#include "devmove.h"

#include <errno.h>

#include "core/guard.h"

int devmove_save(struct migdev *m, struct devmove_stream *s)
{
	struct migdev_piece piece;
	int got;

	do {
		if (s->len == sizeof(s->bytes) || s->n == ARRAY_LEN(s->segment))
			return -E2BIG;
		got = migdev_save(m, s->bytes + s->len, sizeof(s->bytes) - s->len, &piece);
		if (got == MIGDEV_PIECE) {
			s->len += piece.len;
			s->segment[s->n++] = piece.len;
		}
	} while (got == MIGDEV_PIECE);
	return got < 0 ? got : 0;
}

int devmove_load(struct migdev *m, const struct devmove_stream *s)
{
	const uint8_t *at = s->bytes;
	int err = 0;

	for (unsigned i = 0; i < s->n && !err; i++) {
		err = migdev_segment(m, s->segment[i]);
		err = err ? err : migdev_load(m, at, s->segment[i]);
		at += s->segment[i];
	}
	return err;
}

static int act(struct migdev *m, const struct devgroup_action *a, struct devmove_stream *s)
{
	switch (a->verb) {
	case DEVGROUP_SET:
		return migdev_set(m, a->state);
	case DEVGROUP_RESET:
		return migdev_reset(m);
	case DEVGROUP_SAVE:
		return devmove_save(m, s);
	default:
		return devmove_load(m, s);
	}
}

int devmove_run(struct devgroup *g, struct migdev *m, struct devmove_stream *s)
{
	struct devgroup_action a;

	for (unsigned n = 0; devgroup_next(g, 0, &a); n++) {
		struct devgroup_result r = { .error = act(&m[a.device], &a, &s[a.device]) };

		r.state = m[a.device].state;
		devgroup_went(g, a.device, &r);
		if (n > 200)
			return -EPROTO;
	}
	return devgroup_done(g) ? 0 : -EPROTO;
}
