/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_REGMSG_H
#define PC_WIRE_REGMSG_H
/*
 * Registration messages: a sharer's talk with postcopyd on the SOCK_SEQPACKET socket `register`.
 *
 * One message is one packet: struct regmsg_head, then a fixed struct of the type.  Host byte order
 * (the socket never leaves the host), natural alignment, no pointers.  `size` is the size of the
 * whole packet as the sender's version knows it: a receiver accepts a larger one (newer peer) and
 * ignores the rest, and fills with zeroes what a smaller one (older peer, at least the version 1
 * size) lacks.  Descriptors ride on the packet that names them.
 *
 *   sharer                                   postcopyd
 *   HELLO + uffd                    ->
 *                                   <-       WELCOME {id, generation, token}  or REFUSED
 *   BLOCK + memfd (or private)      ->       (one per RAM block)
 *                                   <-       RESULT {serial, error, text}
 *   MAPPING (only what the daemon cannot find itself: private or self-registered)  ->  <- RESULT
 *   READY                           ->       <- RESULT
 *                                   <-       LISTENING       memory may be touched from now on
 *   WANT {class, range}             ->       <- RESULT       (any time after LISTENING)
 *                                   <-       PACKAGE + memfd (main sharer only)
 *   LOADED | LOAD_FAILED            ->       (main sharer only)
 *                                   <-       RUNNING         (main sharer: the VM may run)
 *                                   <-       COMPLETE | FAILED | PAUSED | DISABLED
 *   LEAVE                           ->       <- RESULT       (its mappings are gone already)
 *
 * For a program that is unaware of us (HELLO says so) something that was loaded into it speaks; a
 * back-end that shares what it is told of speaks like that for itself:
 *   ASK_DEVICE                      ->       before HELLO, where userfaultfd(2) is not allowed
 *                                   <-       DEVICE + an open /dev/userfaultfd, or RESULT
 *   HELLO + uffd                    ->       <- WELCOME or REFUSED; no BLOCK, MAPPING, READY
 *   MAPPED + socket                 ->       after each mapping, before the program sees it
 *                                   <-       on that socket: SERVED (guest memory, whoever
 *                                            touches it waits), or RESULT (none of ours, or it
 *                                            must go)
 *
 * A VMM that has devices which reach its memory without faulting says so at any time after WELCOME,
 * if the daemon has the feature DMA.  Each such set has a name, the gate's:
 *   DMA_MAP {gate, addresses, range} ->      <- RESULT: it is counted
 *                                   <-       DMA_RANGE  all of it is here: map it for the device
 *   DMA_MAPPED {gate, address, error} ->     <- RESULT
 *   DMA_SEAL {gate}                 ->       <- RESULT: the set is whole
 *                                   <-       DMA_OPEN   everything is mapped: the device may run
 *   DMA_SYNC | DMA_UNMAP | DMA_RETRY | DMA_RESET  -> <- RESULT {written}
 *
 * Every request carries a serial, not 0; its RESULT (or WELCOME, REFUSED) carries the same.  Events
 * carry 0.  LOADED and LOAD_FAILED have no RESULT: RUNNING or FAILED follows.  Names are printable
 * ASCII, at least one character.
 */
#include <stddef.h>
#include <stdint.h>

#define REGMSG_MAGIC   0x59504350u		/* "PCPY" in memory on a little-endian host */
#define REGMSG_VERSION 1
#define REGMSG_MAX     1024			/* longest packet of any version */
#define REGMSG_NAME    64
#define REGMSG_TEXT    256

enum regmsg_type {
	REGMSG_HELLO = 1, REGMSG_BLOCK, REGMSG_MAPPING, REGMSG_READY, REGMSG_WANT, REGMSG_LOADED,
	REGMSG_LOAD_FAILED, REGMSG_LEAVE, REGMSG_MAPPED, REGMSG_ASK_DEVICE,
	REGMSG_DMA_MAP, REGMSG_DMA_UNMAP, REGMSG_DMA_SYNC, REGMSG_DMA_SEAL, REGMSG_DMA_MAPPED,
	REGMSG_DMA_RETRY, REGMSG_DMA_RESET,
	REGMSG_WELCOME = 64, REGMSG_REFUSED, REGMSG_RESULT, REGMSG_LISTENING, REGMSG_PACKAGE,
	REGMSG_RUNNING, REGMSG_COMPLETE, REGMSG_FAILED, REGMSG_PAUSED, REGMSG_DISABLED,
	REGMSG_DEVICE, REGMSG_SERVED, REGMSG_DMA_RANGE, REGMSG_DMA_OPEN,
};

enum regmsg_role { REGMSG_ROLE_MAIN = 1, REGMSG_ROLE_SHARER = 2 };
/* What the daemon does when this sharer breaks (dies, misbehaves, stops answering). */
enum regmsg_policy { REGMSG_POLICY_IGNORE = 1, REGMSG_POLICY_DISABLE = 2, REGMSG_POLICY_FAIL = 3 };
enum regmsg_class { REGMSG_CLASS_DEMAND = 1, REGMSG_CLASS_DMA = 2, REGMSG_CLASS_PREFETCH = 3 };

enum regmsg_hello_flags {
	/*
	 * The kernel touches this memory for the sharer (KVM, O_DIRECT, vhost): a USER_MODE_ONLY
	 * userfaultfd is refused.
	 */
	REGMSG_HELLO_KERNEL = 1,
	/*
	 * The program knows nothing of us (something loaded into it speaks), or is a back-end,
	 * which does not know the blocks of its VM (postcopy_share(3)): it declares no block,
	 * loads nothing and answers nothing; the daemon finds its memory.
	 */
	REGMSG_HELLO_UNAWARE = 2,
};
enum regmsg_block_flags {
	REGMSG_BLOCK_PRIVATE = 1,	/* no memfd; MAPPING gives the address; one sharer only */
};
enum regmsg_mapping_flags {
	REGMSG_MAPPING_REGISTERED = 1,	/* the sharer did UFFDIO_REGISTER; the daemon verifies */
};

enum regmsg_features {
	REGMSG_FEATURE_DMA = 1,		/* DMA_MAP and all that begin with DMA */
};
enum regmsg_dma_flags {
	/* A ring: both sides at any time, until the device stops.  Else buffers. */
	REGMSG_DMA_COHERENT = 1,
	/* The device reaches nothing but what is mapped: there is an IOMMU.  Of the whole gate. */
	REGMSG_DMA_ENFORCED = 2,
};
enum regmsg_dma_directions { REGMSG_DMA_READS = 1, REGMSG_DMA_WRITES = 2 };

struct regmsg_head {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t size;			/* whole packet, bytes */
	uint32_t serial;
};

struct regmsg_hello {			/* + fd 0: userfaultfd */
	struct regmsg_head head;
	uint32_t role, policy, flags, reserved;
	uint64_t token;			/* 0, or the one of an earlier WELCOME */
	char name[REGMSG_NAME];		/* what --expect names; NUL-terminated */
};

struct regmsg_welcome {
	struct regmsg_head head;
	uint32_t sharer, generation;
	uint64_t token;
	uint64_t features;		/* of the daemon: enum regmsg_features */
};

struct regmsg_block {			/* + fd 0: memfd / hugetlbfs file unless PRIVATE */
	struct regmsg_head head;
	uint32_t flags, reserved;
	uint64_t length;		/* bytes, equal to the source's used_length */
	uint64_t page_size;		/* bytes; 0: that of the file */
	uint64_t file_offset;		/* where in the file the block begins */
	char name[256];			/* idstr */
};

struct regmsg_mapping {
	struct regmsg_head head;
	uint32_t flags, reserved;
	uint64_t address;		/* in the sharer's address space */
	uint64_t length;		/* bytes */
	uint64_t block_offset;		/* bytes */
	char name[256];			/* idstr of a block of this sharer */
};

struct regmsg_want {
	struct regmsg_head head;
	uint32_t klass, reserved;
	uint64_t block_offset, length;	/* bytes; rounded out to whole pages */
	char name[256];
};

/*
 * A thread of an unaware program mapped a file and waits.  Several may at a time, and none of them
 * should take another's answer, so each brings the socket on which it waits.
 */
struct regmsg_mapped {			/* + fd 0: SOCK_SEQPACKET socket for the answer */
	struct regmsg_head head;
	uint32_t flags, reserved;	/* 0 */
	uint64_t address;
	uint64_t length;		/* bytes */
	uint64_t file_offset;		/* bytes */
	uint64_t dev, inode;		/* of the file, as fstat(2) has them */
};

/* A part of a block, and the addresses at which a device reaches it. */
struct regmsg_dma {			/* DMA_MAP DMA_RANGE */
	struct regmsg_head head;
	uint32_t flags, directions;
	uint64_t iova, length;		/* bytes, whole pages of 4 KiB */
	uint64_t block_offset;		/* bytes */
	char gate[REGMSG_NAME];
	char name[256];			/* idstr of the block */
};

/* DMA_UNMAP DMA_SYNC DMA_SEAL DMA_MAPPED DMA_RETRY DMA_RESET DMA_OPEN */
struct regmsg_dma_at {
	struct regmsg_head head;
	int32_t error;			/* MAPPED: 0, or the positive errno with which it failed */
	uint32_t reserved;
	uint64_t iova;			/* SEAL, RESET, OPEN: 0 */
	uint64_t length;		/* UNMAP, SYNC: bytes; else 0 */
	char gate[REGMSG_NAME];
};

/* READY LOADED LEAVE ASK_DEVICE LISTENING RUNNING COMPLETE SERVED DEVICE (+ fd 0) */
struct regmsg_plain {
	struct regmsg_head head;
};

struct regmsg_text {			/* LOAD_FAILED REFUSED FAILED PAUSED DISABLED */
	struct regmsg_head head;
	int32_t error;			/* 0, or a positive errno */
	uint32_t reserved;
	char text[REGMSG_TEXT];		/* what was wrong and what to do */
};

/* The answer to a call: as regmsg_text, and what a daemon without the feature DMA does not send. */
struct regmsg_result {
	struct regmsg_head head;
	int32_t error;
	uint32_t reserved;
	char text[REGMSG_TEXT];
	/* DMA_UNMAP, DMA_SYNC: bytes that devices may have written there */
	uint64_t written;
};

struct regmsg_package {			/* + fd 0: sealed memfd with the whole package body */
	struct regmsg_head head;
	uint64_t body_length;		/* bytes in the memfd */
	uint64_t device_offset, device_length;	/* the device sections within it */
};

union regmsg {
	struct regmsg_head head;
	struct regmsg_hello hello;
	struct regmsg_welcome welcome;
	struct regmsg_block block;
	struct regmsg_mapping mapping;
	struct regmsg_want want;
	struct regmsg_mapped mapped;
	struct regmsg_dma dma;
	struct regmsg_dma_at dma_at;
	struct regmsg_plain plain;
	struct regmsg_text text;
	struct regmsg_result result;
	struct regmsg_package package;
	uint8_t bytes[REGMSG_MAX];
};

/* Zero *m, fill the head.  Returns the packet's size. */
size_t regmsg_init(union regmsg *m, enum regmsg_type type, uint32_t serial);
size_t regmsg_text(union regmsg *m, enum regmsg_type type, uint32_t serial, int error,
		   const char *fmt, ...)
	__attribute__((format(printf, 5, 6)));
/*
 * Check a received packet, @len bytes, in place: magic, version, size, known type, serial, reserved
 * fields zero, strings terminated, enums in range, sums that do not overflow; zero what an older
 * peer left out.  0, -EPROTO (garbage), -EPROTONOSUPPORT (version), -EBADMSG (known type, bad
 * content).  @why: static text, may be NULL.
 */
int regmsg_check(union regmsg *m, size_t len, const char **why);
/* Number of descriptors the type must carry (given its flags). */
unsigned regmsg_fds(const union regmsg *m);
const char *regmsg_type_name(enum regmsg_type type);

#endif
