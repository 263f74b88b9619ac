/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_LOCKSTAGE_H
#define PC_TESTS_LOCKSTAGE_H
/*
 * A real door, and programs at it that can keep their address spaces locked (holder.h).  What the
 * session does is told by the test.
 */
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "daemon/door_native.h"
#include "holder.h"
#include "wire/regmsg.h"

#define LOCKSTAGE_LENGTH     (64u * 4096u)	/* of the one block, "ram" */
#define LOCKSTAGE_DEADLINE_S 1
#define LOCKSTAGE_PATIENCE_S 20
#define LOCKSTAGE_TICK_MS    5

struct program {
	pid_t pid;
	int orders, sock;		/* sock: its end of the registration, borrowed */
};

struct scene {
	struct faultloop *loop;
	struct door *door;
	struct holder *holder;
	struct sockaddr_un at;
	int file;
	unsigned ticks;			/* of the main loop */
	struct snapshot snapshot;
};

/* What a program does when it is told to. */
enum lockstage_order {
	ORDER_READY = 'r',
	ORDER_LEAVE = 'l',
	ORDER_UNMAP = 'u',
	ORDER_MAP = 'm',
	ORDER_LOCK = 'k'
};

/* Of this name is one that declares nothing; "vm" is the main sharer. */
extern const char lockstage_unaware[];

void lockstage_open(struct scene *s);
/* Maps the block, says hello, and declares it. */
struct program lockstage_start(struct scene *s, const char *name);
void lockstage_order(struct program *p, enum lockstage_order what);
/* All that the main loop has to do now. */
void lockstage_turn(void);
void lockstage_say(int sock, union regmsg *m, size_t len, const int *fd);
/* The error of the RESULT of a request of that serial; everything before it is passed over. */
unsigned lockstage_result(struct program *p, uint32_t serial, union regmsg *m);
/* NULL: the door has forgotten it. */
const struct client *lockstage_client(const struct scene *s, const struct program *p);
void lockstage_match(struct scene *s);
/* Until everybody who is READY was handed over, or refused. */
int lockstage_join(struct scene *s);
/* Until no question about it is out. */
void lockstage_answered(const struct scene *s, const struct program *p);
/*
 * The main loop went on all the time until the deadline: a fifth of the ticks there was time for,
 * on a busy machine.
 */
void lockstage_ticked(const struct scene *s, unsigned since);

#endif
