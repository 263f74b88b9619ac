/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_KEEPER_H
#define PC_DAEMON_KEEPER_H
/*
 * The process that outlives the one that works: it holds descriptors under names and starts the
 * next worker.  What a worker says to it is one message of a fixed size, with at most one
 * descriptor; what a worker is told stands in its environment when it starts.
 */
#include <stdint.h>

#define KEEPER_NAME 64		/* bytes of a name, its end included */
#define KEEPER_MAX  1024	/* descriptors */

/*
 * "SOCKET,GENERATION,RESTARTS,LAST": the worker's end of the socket, how many workers there were
 * before, how many of them ended unasked, how the last one ended.
 */
#define KEEPER_ENV "POSTCOPYD_KEEPER"
/* "FD=NAME,FD=NAME": what is kept, inherited. */
#define KEEPER_KEPT_ENV "POSTCOPYD_KEPT"

enum keeper_verb {
	KEEPER_KEEP = 1,	/* the descriptor, instead of what had the name */
	KEEPER_DROP,
	KEEPER_SERVED,		/* this worker is of use: it is not one that cannot but die */
	KEEPER_NEXT,		/* the descriptor is the program of the next worker */
	KEEPER_OVER,		/* the worker ends on purpose, and nobody follows */
};

struct keeper_message {
	uint32_t verb;
	uint32_t zero;
	char name[KEEPER_NAME];	/* KEEP, DROP */
};

/*
 * @argv, @environment: of each worker; @ready_fd: what the first worker alone may write to, -1.
 * The exit status of the last worker; 127 in the child that could not become one.
 */
int keeper_run(char **argv, char **environment, int ready_fd);

#endif
