/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two ways to the same end.
 *
 * Our keeper (keeper.c) is told by messages over an inherited socket, and gives what it kept to the
 * next worker by inheritance, named in the environment.  Since the keeper reads all that was sent
 * before it believes a worker dead, what was sent is safe.
 *
 * systemd's fd store knows no replacing, and names that occur twice; so each descriptor is stored
 * as NAME.SERIAL, the new one before the old one is removed, and a successor takes the highest
 * serial of each name.  FDPOLL=0: a connection that hung up is still to be looked at by us.
 *
 * The table here is the same as the keeper's: what does not fit is refused on this side, where
 * somebody can do something about it.  What an earlier worker left stands in it with its
 * descriptor until it is taken.  Listening sockets that the service manager made for us come in by
 * the same door, under their own names.
 *
 * The variables of the environment are removed at once, and every descriptor is closed on exec, so
 * that nothing that we start takes itself for a worker.
 */
#include "config.h"
#include "daemon/vault.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <glib.h>

#include "daemon/keeper.h"
#include "sys/fd.h"
#include "sys/fdpass.h"
#include "sys/notify.h"

#define FIRST_FD     3			/* of what a service manager passes */
#define SEND_WAIT_MS 10000		/* a keeper that does not read for so long never will */

struct item {
	int fd;			/* left by an earlier worker and not taken yet; -1 */
	unsigned serial;	/* in the fd store */
	bool kept;		/* else it came from the service manager, for this start only */
};

struct vault {
	int sock;		/* to the keeper; -1 */
	bool store;		/* the service manager keeps */
	struct notify manager;
	GHashTable *items;	/* name -> struct item */
	bool again;
	bool served;
	struct vault_past past;
};

static void free_item(gpointer data)
{
	struct item *i = data;

	close_fd(&i->fd);
	g_free(i);
}

static int check_name(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");

	if (n == 0 || name[n] != '\0')
		return -EINVAL;
	return n < KEEPER_NAME ? 0 : -ENAMETOOLONG;
}

/* --- what an earlier worker left -------------------------------------------------------------- */

/* @name: NAME, or NAME.SERIAL of the fd store.  Of two with one name the later one is meant. */
static void add_left(struct vault *v, const char *name, int fd)
{
	const char *dot = strrchr(name, '.');
	g_autofree char *plain = dot ? g_strndup(name, (gsize)(dot - name)) : g_strdup(name);
	unsigned serial = dot ? (unsigned)strtoul(dot + 1, NULL, 10) : 0;
	struct item *i = g_hash_table_lookup(v->items, plain);

	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return;
	if (i && i->serial > serial) {
		close(fd);
		return;
	}
	i = g_new0(struct item, 1);
	i->fd = fd;
	i->serial = serial;
	i->kept = dot || v->sock >= 0;
	g_hash_table_replace(v->items, g_steal_pointer(&plain), i);
}

static char *take_variable(const char *name)
{
	char *value = g_strdup(getenv(name));

	unsetenv(name);
	return value;
}

static void inherit_from_keeper(struct vault *v, const char *list)
{
	g_auto(GStrv) all = g_strsplit(list ? list : "", ",", -1);

	for (char **one = all; *one; one++) {
		char *name = strchr(*one, '=');

		if (name)
			add_left(v, name + 1, atoi(*one));
	}
}

/* As sd_listen_fds_with_names(3) describes it. */
static void inherit_from_manager(struct vault *v)
{
	g_autofree char *pid = take_variable("LISTEN_PID"), *count = take_variable("LISTEN_FDS"),
			*list = take_variable("LISTEN_FDNAMES");
	g_auto(GStrv) names = g_strsplit(list ? list : "", ":", -1);
	int n = count ? atoi(count) : 0;

	if (!pid || atoi(pid) != (int)getpid() || (guint)MAX(n, 0) > g_strv_length(names))
		return;
	for (int i = 0; i < n; i++)
		add_left(v, names[i], FIRST_FD + i);
}

/*
 * The keeper's death ends us, even when we hang: two services for the same memory must never be.
 * Set here and not before exec, which may clear it; a keeper that was gone by then has closed its
 * end.
 */
static void live_with_keeper(const struct vault *v)
{
	struct pollfd p = { .fd = v->sock };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || poll(&p, 1, 0) != 0)
		(void)raise(SIGKILL);
	/* what was executed by descriptor is named after it */
	(void)prctl(PR_SET_NAME, "postcopyd");
}

static void meet_keeper(struct vault *v, const char *said)
{
	g_auto(GStrv) f = g_strsplit(said, ",", 4);

	if (g_strv_length(f) != 4 || fcntl(atoi(f[0]), F_SETFD, FD_CLOEXEC) < 0)
		return;
	v->sock = atoi(f[0]);
	v->past.generation = (unsigned)atoi(f[1]);
	v->past.restarts = (unsigned)atoi(f[2]);
	g_strlcpy(v->past.last, f[3], sizeof(v->past.last));
	live_with_keeper(v);
}

/**
 * vault_is_worker - did a keeper start us?
 *
 * To be asked before vault_open(), which takes the answer out of the environment.
 */
bool vault_is_worker(void)
{
	return getenv(KEEPER_ENV) != NULL;
}

/**
 * vault_open - find who keeps our descriptors, and what an earlier worker left
 * @fd_store: nobody's keeper started us: it is the service manager
 *
 * To be called first of all, before there is any other thread, child or descriptor.
 *
 * Return: never NULL; vault_keeps() says whether anybody keeps.
 */
struct vault *vault_open(bool fd_store)
{
	g_autofree char *said = take_variable(KEEPER_ENV), *list = take_variable(KEEPER_KEPT_ENV);
	struct vault *v = g_new0(struct vault, 1);

	v->sock = -1;
	v->items = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, free_item);
	g_strlcpy(v->past.last, "none", sizeof(v->past.last));
	notify_init(&v->manager);
	if (said)
		meet_keeper(v, said);
	if (v->sock >= 0)
		inherit_from_keeper(v, list);
	v->store = fd_store && v->sock < 0 && v->manager.fd >= 0;
	inherit_from_manager(v);
	v->again = g_hash_table_contains(v->items, "record");
	return v;
}

/**
 * vault_free - close what was not taken; it stays kept
 */
void vault_free(struct vault *v)
{
	if (!v)
		return;
	g_hash_table_unref(v->items);
	close_fd(&v->sock);
	notify_deinit(&v->manager);
	g_free(v);
}

bool vault_keeps(const struct vault *v)
{
	return v->sock >= 0 || v->store;
}

bool vault_has_keeper(const struct vault *v)
{
	return v->sock >= 0;
}

bool vault_again(const struct vault *v)
{
	return v->again;
}

const struct vault_past *vault_past(const struct vault *v)
{
	return &v->past;
}

/* --- to the keeper, or the manager ------------------------------------------------------------ */

/* The keeper always reads; it only may not have had its turn. */
static int send_message(const struct vault *v, enum keeper_verb verb, const char *name, int fd)
{
	struct keeper_message m = { .verb = verb };
	struct pollfd p = { .fd = v->sock, .events = POLLOUT };
	ssize_t n;

	if (v->sock < 0)
		return 0;
	g_strlcpy(m.name, name, sizeof(m.name));
	while ((n = fdpass_send(v->sock, &m, sizeof(m), &fd, fd >= 0)) == -EAGAIN)
		if (poll(&p, 1, SEND_WAIT_MS) == 0)
			return -ETIMEDOUT;
	return n < 0 ? (int)n : 0;
}

static int unstore(const struct vault *v, const char *name, unsigned serial)
{
	g_autofree char *lines =
		g_strdup_printf("FDSTOREREMOVE=1\nFDNAME=%s.%u", name, serial);

	return notify_send(&v->manager, lines, -1);
}

static int store(const struct vault *v, const char *name, int fd, unsigned serial)
{
	g_autofree char *lines =
		g_strdup_printf("FDSTORE=1\nFDPOLL=0\nFDNAME=%s.%u", name, serial);

	return notify_send(&v->manager, lines, fd);
}

/**
 * vault_keep - have a duplicate kept under a name
 * @name: 1 to 63 bytes of [a-z0-9-]; what was kept under it is kept no longer
 * @fd: stays the caller's
 *
 * Return: 0 when it is safe from our death, and when nobody keeps; -EINVAL, -ENAMETOOLONG: the
 * name; -ENOSPC: as many are kept as can be; or another -errno.  What was kept before is kept still
 * then.
 */
int vault_keep(struct vault *v, const char *name, int fd)
{
	struct item *i = g_hash_table_lookup(v->items, name), *now;
	unsigned serial = i ? i->serial + 1 : 0;
	int ret = check_name(name);

	if (ret < 0 || !vault_keeps(v))
		return ret;
	if (!i && g_hash_table_size(v->items) >= KEEPER_MAX)
		return -ENOSPC;
	ret = v->store ? store(v, name, fd, serial) : send_message(v, KEEPER_KEEP, name, fd);
	if (ret < 0)
		return ret;
	if (v->store && i && i->kept)
		(void)unstore(v, name, i->serial);
	now = g_new0(struct item, 1);
	now->fd = -1;
	now->serial = serial;
	now->kept = true;
	g_hash_table_replace(v->items, g_strdup(name), now);
	return 0;
}

/**
 * vault_drop - keep it no longer; nothing, when it is not kept
 */
void vault_drop(struct vault *v, const char *name)
{
	struct item *i = g_hash_table_lookup(v->items, name);

	if (!i)
		return;
	if (v->store && i->kept)
		(void)unstore(v, name, i->serial);
	else
		(void)send_message(v, KEEPER_DROP, name, -1);
	g_hash_table_remove(v->items, name);
}

/**
 * vault_take - what an earlier worker left under a name
 *
 * Return: a descriptor that is the caller's, while a duplicate stays kept; -1 when nothing was left
 * or it was taken.
 */
int vault_take(struct vault *v, const char *name)
{
	struct item *i = g_hash_table_lookup(v->items, name);

	return i ? steal_fd(&i->fd) : -1;
}

/**
 * vault_forget_rest - what an earlier worker left and nobody took is kept no longer
 */
void vault_forget_rest(struct vault *v)
{
	g_autoptr(GPtrArray) rest = g_ptr_array_new_with_free_func(g_free);
	GHashTableIter at;
	gpointer name, item;

	g_hash_table_iter_init(&at, v->items);
	while (g_hash_table_iter_next(&at, &name, &item))
		if (((struct item *)item)->fd >= 0)
			g_ptr_array_add(rest, g_strdup(name));
	for (unsigned i = 0; i < rest->len; i++)
		vault_drop(v, g_ptr_array_index(rest, i));
}

/**
 * vault_ready - everything listens; for a service manager that waits for that (Type=notify)
 */
void vault_ready(struct vault *v)
{
	(void)notify_send(&v->manager, "READY=1", -1);
}

/**
 * vault_served - this worker is of use: if it dies, the next one is started at once
 */
void vault_served(struct vault *v)
{
	if (!v->served)
		(void)send_message(v, KEEPER_SERVED, "", -1);
	v->served = true;
}

/**
 * vault_next - what is executed when we have ended
 * @program: open for reading; stays the caller's
 *
 * Return: 0; -EOPNOTSUPP without a keeper; -errno.
 */
int vault_next(struct vault *v, int program)
{
	if (v->sock < 0)
		return -EOPNOTSUPP;
	return send_message(v, KEEPER_NEXT, "", program);
}

/**
 * vault_over - we end on purpose: nothing of ours is needed any more, and nobody follows us
 */
void vault_over(struct vault *v)
{
	GHashTableIter at;
	gpointer name, item;

	if (send_message(v, KEEPER_OVER, "", -1) < 0)
		g_warning("the keeper did not hear that we end");
	g_hash_table_iter_init(&at, v->items);
	while (v->store && g_hash_table_iter_next(&at, &name, &item))
		if (((struct item *)item)->kept)
			(void)unstore(v, name, ((struct item *)item)->serial);
}
