/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What comes of the way to the source: a pause when it is gone, and listening when it is back; and
 * a word to the source.
 */
#include "config.h"
#include "daemon/phases_parts.h"

static void pause_for(void *ctx, const char *reason)
{
	phases_pause(ctx, reason);
}

static void returned(void *ctx)
{
	struct phases *p = ctx;

	/* Refused while nothing is paused, or held: there is nobody to wait for then. */
	(void)phases_recover(p, NULL, NULL);
}

static void tell(void *ctx, const char *name, const char *text)
{
	struct phases *p = ctx;

	if (p->control)
		control_event(p->control, name, text);
	phases_refresh(p);
}

static void main_lane(void *ctx, int fd)
{
	linkwatch_attach(((struct phases *)ctx)->link, fd);
}

/**
 * phases_start_link - watch the way to the source
 */
void phases_start_link(struct phases *p)
{
	const struct linkwatch_ops ops = { pause_for, returned, tell, p };
	const struct sourceqmp_ops source_ops = { tell, p };

	p->link = linkwatch_new(p->options->link_grace_s, &ops);
	channel_on_main(p->channel, main_lane, p);
	if (p->options->source_qmp)
		p->source_qmp = sourceqmp_new(p->options->source_qmp, &source_ops);
}

/**
 * phases_see_link - how far the session is, and what is told of the link in the same words
 */
void phases_see_link(struct phases *p, struct snapshot *s)
{
	if (!p->link)
		return;
	linkwatch_see(p->link, s);
	linkwatch_fill(p->link, &s->link);
}

/**
 * phases_see_source - have it come again, when the snapshot says where
 */
void phases_see_source(struct phases *p, struct snapshot *s)
{
	sourceqmp_see(p->source_qmp, s);
	sourceqmp_fill(p->source_qmp, &s->source_qmp);
}

/**
 * phases_free_link - stop to look
 */
void phases_free_link(struct phases *p)
{
	if (p->channel)
		channel_on_main(p->channel, NULL, NULL);
	linkwatch_free(p->link);
	sourceqmp_free(p->source_qmp);
}
