/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_KERNEL_SCENE_H
#define PC_TESTS_KERNEL_SCENE_H
/*
 * What the kernel facts are staged with: raw ioctls (nothing of src/ stands between the test and
 * the kernel), threads that touch a page, and other processes that share memory with us.
 *
 * "Asleep" can only be shown by waiting a little: such a check may pass by luck, it never fails by
 * it.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <pthread.h>
#include <sys/types.h>

#include <linux/userfaultfd.h>

#include "core/guard.h"
#include "facts.h"

#define PAGE 4096ul
#define HUGE (2ul << 20)

static inline uint64_t at(const volatile void *p)
{
	return (uintptr_t)p;
}

/* --- ioctls --- */

struct moved {
	int err;       /* errno, 0 when the call succeeded */
	int64_t field; /* the copy/zeropage field as the kernel left it; was 12345 before */
};
struct moved k_copy(int uffd, uint64_t dst, const void *src, uint64_t len, uint64_t mode);
struct moved k_zero(int uffd, uint64_t dst, uint64_t len, uint64_t mode);
int k_wake(int uffd, uint64_t start, uint64_t len);			  /* errno */
int k_register(int uffd, uint64_t start, uint64_t len, uint64_t *ioctls); /* errno */
int k_unregister(int uffd, uint64_t start, uint64_t len);		  /* errno */

/* A non-blocking userfaultfd of ours, handshake done; skips the fact where there is none. */
int k_uffd(uint64_t features);

/* The next message, which must come; and the address of a fault, which it must be. */
struct uffd_msg k_event(int uffd);
uint64_t k_fault(int uffd);
/* Nothing is to be read, now and a little later. */
void k_quiet(int uffd);

/* --- memory --- */

enum kind { ANON, SHMEM };
/* @n pages, nothing of them instantiated; *fd (may be NULL) is -1 for ANON. */
uint8_t *k_map(enum kind kind, unsigned n, int *fd);
/* @n pages of @byte, to copy from. */
uint8_t *k_source(uint8_t byte, unsigned n);

/*
 * The root of a file system of our own, which nobody else can fill or see; skips without the right.
 */
int k_mount(const char *type, const char *options);
/* A new file of @len bytes on it. */
int k_file(int root, uint64_t len);

/* --- threads --- */

/* A thread that does something to a page and may have to wait for it. */
struct actor {
	pthread_t thread;
	int (*act)(uint8_t *page);
	uint8_t *page;
	atomic_bool done;
	int result;
};
void actor_start(struct actor *a, int (*act)(uint8_t *page), uint8_t *page);
void actor_asleep(struct actor *a);
int actor_result(struct actor *a); /* waits for it */

int act_load(uint8_t *page);  /* returns the byte */
int act_store(uint8_t *page); /* writes 0x77, returns 0 */

/* --- processes --- */

/* Another process that maps @len bytes of a file (or of its own anonymous memory, fd -1). */
struct sharer {
	pid_t pid;
	int sock;
	int uffd; /* of its address space; -1 when it has none */
	uint64_t base;
};
enum {
	SHARER_PLAIN = 0,
	SHARER_OPENS = 1,
	SHARER_REGISTERS = 3,
	SHARER_FORKS = 7 /* all the time: forker.h */
};
struct sharer sharer_start(int fd, uint64_t len, unsigned what);
void sharer_load(const struct sharer *s, uint64_t page); /* it touches the page, on a new thread */
void sharer_asleep(const struct sharer *s);
uint8_t sharer_byte(const struct sharer *s);   /* what it read; waits for it */
void sharer_drop_uffd(const struct sharer *s); /* it closes its own reference */
void sharer_kill(struct sharer *s);

#endif
