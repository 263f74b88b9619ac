/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef POSTCOPY_POSTCOPY_H
#define POSTCOPY_POSTCOPY_H
/*
 * libpostcopy: hand memory over to postcopyd and have its page faults served.
 *
 * No threads, no callbacks, no allocation after postcopy_new(); one handle belongs to one thread at
 * a time.  The handle has one descriptor: poll it for POLLIN, call postcopy_dispatch(), read the
 * event.  Needs libc only.
 *
 * Every function that can fail returns 0 (or what it says) or a negative errno; postcopy_strerror()
 * then tells what was wrong in words.  The manual is libpostcopy(3) and a page for every function.
 */
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct postcopy postcopy;

enum postcopy_role {
	POSTCOPY_ROLE_MAIN = 1,		/* the VMM: receives the package, says loaded */
	POSTCOPY_ROLE_SHARER = 2,	/* any other process that maps the memory */
};

/* What happens when this process breaks. */
enum postcopy_policy {
	POSTCOPY_POLICY_IGNORE = 1,	/* log it, go on */
	POSTCOPY_POLICY_DISABLE = 2,	/* stop serving it; its threads stay blocked */
	POSTCOPY_POLICY_FAIL = 3,	/* the session fails */
};

enum postcopy_class {
	POSTCOPY_CLASS_DEMAND = 1,	/* somebody is going to touch it now */
	POSTCOPY_CLASS_DMA = 2,		/* a device is going to be given it */
	POSTCOPY_CLASS_PREFETCH = 3,	/* likely to be needed */
};

struct postcopy_options {
	uint32_t size;			/* sizeof(struct postcopy_options) */
	uint32_t role;			/* enum postcopy_role */
	uint32_t policy;		/* enum postcopy_policy; 0: DISABLE (MAIN: FAIL) */
	/* 1: only user-space accesses fault: no KVM, no read(2) into it, no O_DIRECT */
	uint32_t user_faults_only;
	const char *name;		/* unique; what postcopyd's --expect waits for */
	/* -1: the library opens one; else a userfaultfd of this process that it takes over */
	int uffd;
	uint32_t timeout_ms;		/* how long a call waits for its answer; 0: 30 s */
	uint64_t token;			/* 0, or postcopy_token() of a connection that was lost */
	/* 1: declares no blocks, but shares the regions that it is told of: postcopy_share() */
	uint32_t backend;
	uint32_t reserved;		/* 0 */
};

#define POSTCOPY_OPTIONS_INIT \
	{ sizeof(struct postcopy_options), 0, 0, 0, (const char *)0, -1, 0, 0, 0, 0 }

struct postcopy_block {
	uint32_t size;			/* sizeof(struct postcopy_block) */
	/* memfd, tmpfs or hugetlbfs file, stays the caller's; -1: private memory at @address */
	int fd;
	const char *name;		/* idstr of the RAMBlock at the source, e.g. "pc.ram" */
	uint64_t length;		/* bytes, equal to the source's used_length */
	uint64_t page_size;		/* bytes; 0: that of the file (private: the system's) */
	uint64_t file_offset;		/* bytes; where in @fd the block begins */
	/*
	 * Private memory: where it is mapped.  Shared: NULL, the daemon finds every mapping
	 * itself; or an address that postcopy_map() is going to name.
	 */
	void *address;
};

enum postcopy_dma_directions {
	POSTCOPY_DMA_READS = 1,		/* the device does */
	POSTCOPY_DMA_WRITES = 2,
};

enum postcopy_dma_flags {
	/* both sides use it at any time, as rings; said by postcopy_dma_coherent() */
	POSTCOPY_DMA_COHERENT = 1,
	/* an IOMMU keeps the device from what is not mapped; the same for the whole gate */
	POSTCOPY_DMA_ENFORCED = 2,
};

/* A part of a block, and the addresses at which a device reaches it. */
struct postcopy_dma {
	uint32_t size;			/* sizeof(struct postcopy_dma) */
	uint32_t directions;		/* enum postcopy_dma_directions */
	uint32_t flags;			/* POSTCOPY_DMA_ENFORCED or 0 */
	uint32_t reserved;		/* 0 */
	const char *gate;		/* the device's addresses: the id of --vfio, or any name */
	const char *block;		/* idstr */
	uint64_t block_offset;		/* bytes, these three: whole pages of 4 KiB */
	uint64_t length;
	uint64_t iova;			/* where the device has it */
};

enum postcopy_event_type {
	POSTCOPY_EVENT_NONE = 0,	/* nothing to tell; poll again */
	POSTCOPY_EVENT_LISTENING,	/* faults are served: the memory may be touched */
	POSTCOPY_EVENT_PACKAGE,		/* .package_fd: load the device state from it */
	POSTCOPY_EVENT_RUNNING,		/* committed: the VM may run */
	POSTCOPY_EVENT_COMPLETE,	/* all memory is here; registrations are undone */
	POSTCOPY_EVENT_PAUSED,		/* .text: the source is lost; present pages keep working */
	POSTCOPY_EVENT_FAILED,		/* .error, .text */
	POSTCOPY_EVENT_DISABLED,	/* .error, .text: this process alone is not served */
	/*
	 * .error, .text: postcopyd closed the connection or died.  Keep the handle: closing it
	 * would drop the userfaultfd and turn missing pages into zeroes.
	 */
	POSTCOPY_EVENT_DISCONNECTED,
	/* .gate, .block and what follows: it is here, map it, then postcopy_dma_mapped() */
	POSTCOPY_EVENT_DMA_RANGE,
	POSTCOPY_EVENT_DMA_OPEN,	/* .gate: all of the set is mapped; the device may run */
};

struct postcopy_event {
	uint32_t size;			/* sizeof(struct postcopy_event), set by the caller */
	uint32_t type;			/* enum postcopy_event_type */
	int32_t error;			/* positive errno or 0 */
	int package_fd;			/* PACKAGE: sealed memfd, the caller closes it; else -1 */
	uint64_t package_length;	/* bytes in it */
	uint64_t device_offset;		/* device sections within it, as the source wrote them */
	uint64_t device_length;
	char text[256];
	/* DMA_RANGE, DMA_OPEN; what a caller with an older header does not see */
	uint64_t iova;			/* bytes, these three */
	uint64_t length;
	uint64_t block_offset;
	uint32_t directions;		/* enum postcopy_dma_directions */
	uint32_t dma_flags;		/* enum postcopy_dma_flags */
	char gate[64];
	char block[256];
};

/**
 * postcopy_new - connect to postcopyd and say hello
 * @out: the handle; NULL on failure
 * @socket_path: the daemon's socket `register`, RUN_DIR/register
 * @options: begin with POSTCOPY_OPTIONS_INIT; a userfaultfd in it is taken over on success only
 * @text: 256 bytes, why it failed; may be NULL
 *
 * Waits for the daemon's answer.  The userfaultfd lives as long as the handle.
 *
 * Returns 0; -ENOENT or -ECONNREFUSED (no daemon), -EPERM (no right to a userfaultfd), -EACCES (the
 * daemon refused this user), -EEXIST (name taken), -EPROTONOSUPPORT (version), or another -errno.
 */
int postcopy_new(postcopy **out, const char *socket_path, const struct postcopy_options *options,
		 char *text);

/**
 * postcopy_new_fd - the same over a connected SOCK_SEQPACKET socket
 * @sock: the library's from here on, closed on failure too
 */
int postcopy_new_fd(postcopy **out, int sock, const struct postcopy_options *options, char *text);

/**
 * postcopy_free - close the userfaultfd and the connection
 * @p: may be NULL
 *
 * Before POSTCOPY_EVENT_COMPLETE this ends the service for this process: unmap the memory and call
 * postcopy_leave() first.
 */
void postcopy_free(postcopy *p);

/**
 * postcopy_add_block - declare a RAMBlock
 *
 * Waits for the daemon's answer.  What private memory held is lost.
 *
 * Returns 0; -EEXIST, -EINVAL (length, page size), -ENOTSUP (type of the file), or another -errno.
 */
int postcopy_add_block(postcopy *p, const struct postcopy_block *block);

/**
 * postcopy_map - name a mapping that this process registered itself
 * @block: name of a shared block
 * @block_offset: bytes
 * @address: UFFDIO_REGISTER was done on it through postcopy_uffd()
 * @length: bytes
 *
 * Not needed for mappings that the daemon can find in /proc/PID/maps.
 */
int postcopy_map(postcopy *p, const char *block, uint64_t block_offset, void *address,
		 uint64_t length);

/**
 * postcopy_ready - everything is declared
 *
 * Waits until the mappings are registered and verified, not for POSTCOPY_EVENT_LISTENING.
 */
int postcopy_ready(postcopy *p);

/**
 * postcopy_share - map a region of the VM's memory, which may be missing
 * @fd: as the VMM sent it, stays the caller's
 * @offset: bytes; where in @fd the region begins
 * @length: bytes
 * @address: where it begins here; belongs to the handle until postcopy_unshare()
 *
 * For a handle with options.backend.  The region is mapped without access, known to the daemon and
 * registered; it is opened for reading and writing once the daemon said LISTENING, at once if it
 * has.  Until then touching it is SIGSEGV, not a page of zeroes; postcopy_queue_open() tells.
 *
 * Waits for the daemon's answer.  Returns 0; on failure, -errno, nothing is mapped, and no queue is
 * open before all is unshared.
 */
int postcopy_share(postcopy *p, int fd, uint64_t offset, uint64_t length, void **address);

/**
 * postcopy_unshare - unmap such a region
 *
 * No thread uses it any more.  Returns 0 or -EINVAL.
 */
int postcopy_unshare(postcopy *p, void *address);

/**
 * postcopy_queue_start - the front-end started a queue
 * @queue: below 256
 */
int postcopy_queue_start(postcopy *p, unsigned queue);

/**
 * postcopy_queue_stop - the front-end stopped it
 */
int postcopy_queue_stop(postcopy *p, unsigned queue);

/**
 * postcopy_queue_open - may memory be touched for this queue?
 *
 * Any thread may ask.  Returns 1 when it is started and all that is shared is served, or is here;
 * else 0.
 */
int postcopy_queue_open(const postcopy *p, unsigned queue);

/**
 * postcopy_want - ask for a range before it is touched
 * @block_offset: bytes
 * @length: bytes, rounded out to whole pages
 *
 * Pages come in the background of demand faults; no event tells.
 */
int postcopy_want(postcopy *p, const char *block, uint64_t block_offset, uint64_t length,
		  enum postcopy_class klass);

/**
 * postcopy_dma_map - main sharer: a device reaches this memory at these addresses
 * @dma: buffers, mapped for one transfer or for long
 *
 * The device does not fault, so its gate holds it until the memory is here.
 * POSTCOPY_EVENT_DMA_RANGE asks for each range to be mapped, or the daemon maps it, when the gate
 * is one of its own devices'.
 * Any time after postcopy_add_block(); a gate begins with its first range.
 *
 * Returns 0; -EINVAL, -EEXIST (addresses in use), -ENOSPC, -EPERM, -ENOTSUP, or another -errno.
 */
int postcopy_dma_map(postcopy *p, const struct postcopy_dma *dma);

/**
 * postcopy_dma_coherent - the same of what both sides use at any time, as rings
 */
int postcopy_dma_coherent(postcopy *p, const struct postcopy_dma *dma);

/**
 * postcopy_dma_unmap - the device does not reach these addresses any more
 * @length: bytes; whole ranges, one or several
 * @written: bytes that the device may have written there since they were mapped; may be NULL
 *
 * What postcopy_dma_mapped() said was mapped has been unmapped by now.
 *
 * Returns 0; -EINVAL (cuts a range), -EBUSY (one is being mapped: answer first), -ENOENT (no such
 * gate), or another -errno.
 */
int postcopy_dma_unmap(postcopy *p, const char *gate, uint64_t iova, uint64_t length,
		       uint64_t *written);

/**
 * postcopy_dma_sync - what the device wrote there is to be seen, now
 * @length: bytes, of any part of the set
 * @written: bytes that the device may have written there, which all count as dirty; may be NULL
 */
int postcopy_dma_sync(postcopy *p, const char *gate, uint64_t iova, uint64_t length,
		      uint64_t *written);

/**
 * postcopy_dma_seal - the set is whole
 *
 * Before that the gate does not open, whatever is in the set.
 */
int postcopy_dma_seal(postcopy *p, const char *gate);

/**
 * postcopy_dma_mapped - the answer to POSTCOPY_EVENT_DMA_RANGE
 * @iova: where the range begins
 * @error: 0, or the errno (of either sign) with which it could not be mapped
 *
 * Returns 0; -ENOENT (nobody asked for it), or another -errno.
 */
int postcopy_dma_mapped(postcopy *p, const char *gate, uint64_t iova, int error);

/**
 * postcopy_dma_retry - a range that could not be mapped is to be asked for again
 */
int postcopy_dma_retry(postcopy *p, const char *gate, uint64_t iova);

/**
 * postcopy_dma_reset - the device was reset: what it may have done before counts no more
 */
int postcopy_dma_reset(postcopy *p, const char *gate);

/**
 * postcopy_loaded - main sharer: the device state is loaded
 */
int postcopy_loaded(postcopy *p);

/**
 * postcopy_load_failed - main sharer: it could not be loaded
 * @text: why
 */
int postcopy_load_failed(postcopy *p, const char *text);

/**
 * postcopy_leave - leave for good
 *
 * Returns 0; -EBUSY while a mapping of a block is left; or another -errno.
 */
int postcopy_leave(postcopy *p);

/**
 * postcopy_fd - the descriptor to poll for POLLIN
 */
int postcopy_fd(const postcopy *p);

/**
 * postcopy_uffd - the userfaultfd, owned by the handle (for self-registration)
 */
int postcopy_uffd(const postcopy *p);

/**
 * postcopy_token - presents this process again after the connection was lost
 */
uint64_t postcopy_token(const postcopy *p);

/**
 * postcopy_dispatch - take one event, never blocking
 *
 * Returns 1 with an event, 0 with POSTCOPY_EVENT_NONE, -ECONNRESET once DISCONNECTED was told, or
 * another -errno.
 */
int postcopy_dispatch(postcopy *p, struct postcopy_event *event);

/**
 * postcopy_wait - wait for the next event
 * @timeout_ms: -1 is for ever
 *
 * As postcopy_dispatch(), but never 0: -ETIMEDOUT.
 */
int postcopy_wait(postcopy *p, struct postcopy_event *event, int timeout_ms);

/**
 * postcopy_strerror - what was wrong with the last call, valid until the next one
 */
const char *postcopy_strerror(const postcopy *p);

/**
 * postcopy_version - "0.1.0"
 */
const char *postcopy_version(void);

#ifdef __cplusplus
}
#endif
#endif
