/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_CLIENT_PRELOAD_H
#define PC_CLIENT_PRELOAD_H
/*
 * libpostcopy-preload.so: what a program that knows nothing of us is loaded with, so that postcopyd
 * can serve its faults.  preload.c says how the pieces work together.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire/regmsg.h"

#define PRELOAD_WHY 320

/* --- preload_env.c: what POSTCOPY_PRELOAD asks for -------------------------------------------- */

struct preload_options {
	char path[108];			/* of the register socket */
	char name[REGMSG_NAME];
	bool main;			/* the VMM */
	bool maps;			/* tell the daemon of mappings that come later */
	bool required;			/* the program must not run without us */
	/* `program' was given: this is it, not something that starts it */
	bool settled;
	uint32_t policy;		/* enum regmsg_policy */
};

/* 1: asked for, in this program; 0: not; -EINVAL with @why (PRELOAD_WHY bytes). */
int preload_env_read(struct preload_options *o, char *why);
/* Whoever is started from here on is not asked.  No lock, no heap. */
void preload_env_remove(void);

/* --- preload_line.c: the connection ----------------------------------------------------------- */

struct preload_line {
	int sock, uffd;			/* -1: none */
	/* the program may close what it does not know, and reuse the number */
	uint64_t sock_inode;
	uint64_t token;			/* of the WELCOME; 0 */
	bool main;			/* the VMM's */
	atomic_bool listening, complete, ended;	/* what the daemon said */
};

struct preload_mapping {
	void *address;
	size_t length;
	off_t offset;
	uint64_t dev, inode;
};

void preload_line_init(struct preload_line *l);
/* Connect, open a userfaultfd, say hello.  0, or -errno with @why; nothing is open then. */
int preload_line_open(struct preload_line *l, const struct preload_options *o, uint64_t parent,
		      char *why);
void preload_line_close(struct preload_line *l);
/* Take in what the daemon has said; never waits. */
void preload_line_hear(struct preload_line *l);
/*
 * Wait until the daemon serves a mapping.  1: it does; 0: none of its business; -errno with @why.
 */
int preload_line_mapped(struct preload_line *l, const struct preload_mapping *m, char *why);

/* --- preload_map.c ---------------------------------------------------------------------------- */

/*
 * What was mapped, and closed until it was known whose it is, is opened: 0, or -errno after which
 * it must go.  @flags: of mmap(); @served: the daemon serves it.
 */
int preload_map_open(const struct preload_mapping *m, int prot, int flags, bool served);

/* --- preload.c -------------------------------------------------------------------------------- */

/* The line to tell of mappings, or NULL when nobody wants to know; -errno in *err with @why. */
struct preload_line *preload_line(int *err, char *why);
/* One line on the standard error. */
void preload_complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
