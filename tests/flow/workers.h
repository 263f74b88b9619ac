/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_WORKERS_H
#define PC_TESTS_WORKERS_H
/*
 * The door of a process that dies, and of the one that follows it: both here, one after the other,
 * with one record and one vault.  The first ends without doing anything, as a killed one does.
 *
 * The sharer is a process of its own with real memory; the test says for it what it says, through
 * its end of the socket.  What the fault thread would be told is written down.
 */
#include <stdint.h>
#include <sys/types.h>

#include <glib.h>

#include "daemon/door_record.h"

#define LENGTH	   (64u * 4096u)
#define PATIENCE_S 20
#define KEPT	   64
#define SAID	   64

/* As vault.h says, and nobody dies really. */
struct vault {
	unsigned n;
	struct {
		char name[64];
		int fd;
	} kept[KEPT];
};

/* What the fault thread was told. */
struct workers_log {
	unsigned n;
	struct message said[SAID];
	struct gate_order order[SAID];	/* of a MESSAGE_GATE, as it was when it came */
};
extern struct workers_log fault_thread;

struct scene {
	struct vault vault;
	struct record *record;
	struct door *door;
	struct gatekeeper *gates;	/* NULL, unless somebody furnishes it */
	int listener, orders;
	pid_t pid;
	int sock;			/* the sharer's end */
	int file;			/* its memory */
	uint64_t address;		/* where it has that */
	unsigned workers;
	struct snapshot snapshot;
};

/* Until the worker has done something about it. */
#define await(condition)                                                                           \
	do {                                                                                       \
		gint64 until_ = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;              \
		while (!(condition)) {                                                             \
			expect(g_get_monotonic_time() < until_);                                   \
			turn();                                                                    \
		}                                                                                  \
	} while (0)

/* What the vault has under this name; NULL. */
int *kept(struct vault *v, const char *name);
/* The place of the first message of this kind; -1. */
int told(enum message_kind kind);
const struct message *first(enum message_kind kind);
void turn(void);
void unmap(struct scene *s);
/* The next packet that the daemon sent; its type, 0 when there is none, -1 at the end. */
int heard(struct scene *s, union regmsg *m);
int hear(struct scene *s, union regmsg *m);
void say(struct scene *s, union regmsg *m, size_t len, int fd);
void say_plain(struct scene *s, enum regmsg_type type, uint32_t serial);
void say_block(struct scene *s, uint32_t serial);
/* The answer to that call: positive errno. */
int answer(struct scene *s, uint32_t serial);

/* What each worker has beside its door; NULL. */
extern void (*workers_furnish)(struct scene *s);

/* As door_adopt(). */
int try_worker(struct scene *s, GError **error);
void begin_worker(struct scene *s);
/* Nothing is undone: what it did is what others see. */
void kill_worker(struct scene *s);
void restart(struct scene *s);
struct client *client(struct scene *s);
struct peer *peer(struct scene *s);

/* A worker, and a sharer that has connected: its userfaultfd. */
int open_scene(struct scene *s);
size_t hello(union regmsg *m, uint32_t role, uint32_t flags);
/* It is let in, declares and is proven, the blocks are matched, it is handed over, it is told. */
void enter(struct scene *s, uint32_t role, uint32_t flags);
void get_ready(struct scene *s, uint32_t role);
void match(struct scene *s);
void join(struct scene *s, uint32_t role);
void serve(struct scene *s, uint32_t role);
/* A look at the session in this state. */
void tell(struct scene *s, enum session_state state);
/* Its memory, as the first worker told it and as this one does. */
void expect_joined(struct scene *s);
/* The worker reads what it is sent, and dies before it does anything about it. */
void read_and_die(struct scene *s);
/* Something of every kind that the record has. */
void fill_client(struct client *c);
/* Open descriptors of this process. */
unsigned count_fds(void);

#endif
