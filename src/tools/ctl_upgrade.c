/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon says at once that it looks at the program; then its connections end, and the next one
 * answers on the same socket.  Which one answers tells its generation.
 */
#include "config.h"
#include "tools/ctl_upgrade.h"

#include <errno.h>
#include <string.h>

#define TRIES	 300
#define PAUSE_US 100000

struct standing {
	uint64_t generation;
	char last[32];		/* how the one before ended */
	char *problem;		/* what stood against the new program */
};

/* 0, or -errno. */
static int look(const char *path, struct standing *s)
{
	struct ctl_client c cleanup_ctl_client = CTL_CLIENT_INIT;
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	const struct jsonmsg *worker;
	int ret = ctl_client_open(&c, path);

	if (ret == 0)
		ret = ctl_client_ask(&c, "status", NULL, &reply);
	if (ret < 0)
		return ret;
	worker = jsonmsg_member(jsonmsg_member(reply, "return"), "worker");
	s->generation = jsonmsg_u64(worker, "generation", 0);
	g_free(s->problem);
	s->problem = g_strdup(jsonmsg_text(worker, "upgrade", ""));
	g_strlcpy(s->last, jsonmsg_text(worker, "last", ""), sizeof(s->last));
	return 0;
}

static int fail(struct ctl_client *c, int error, const char *text)
{
	g_free(c->error);
	c->error = g_strdup(text);
	return error;
}

/* -EAGAIN: it is not decided yet. */
static int judge(struct ctl_client *c, const struct standing *before, const struct standing *now)
{
	if (now->generation > before->generation && strcmp(now->last, "upgrade") == 0)
		return 0;
	if (now->generation > before->generation)
		return fail(c, -EREMOTEIO,
			    "the new program ended before it was of use; the one before serves on");
	return *now->problem ? fail(c, -EREMOTEIO, now->problem) : -EAGAIN;
}

/**
 * ctl_upgrade_run - have another program take the daemon's place
 *
 * Return: 0 when it has; -errno with c->error.
 */
int ctl_upgrade_run(struct ctl_client *c, const char *program, bool force)
{
	g_autofree char *path = g_canonicalize_filename(program, NULL);
	const struct ctl_argument arguments[] = {
		{ "binary", path }, { force ? "force" : NULL, NULL }, { NULL, NULL },
	};
	struct jsonmsg *reply cleanup_jsonmsg = NULL;
	struct standing before = { 0 }, now = { 0 };
	int ret = look(c->path, &before);

	if (ret == 0)
		ret = ctl_client_ask_with(c, "upgrade", arguments, &reply);
	g_free(before.problem);
	if (ret < 0)
		return ret;
	ret = -EAGAIN;
	for (int i = 0; i < TRIES && ret == -EAGAIN; i++) {
		g_usleep(PAUSE_US);
		if (look(c->path, &now) == 0)
			ret = judge(c, &before, &now);
	}
	g_free(now.problem);
	return ret == -EAGAIN ? fail(c, -ETIMEDOUT, "no other daemon has answered") : ret;
}
