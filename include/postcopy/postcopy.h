/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef POSTCOPY_POSTCOPY_H
#define POSTCOPY_POSTCOPY_H
/*
 * libpostcopy: hand memory over to postcopyd and have its page faults served.
 *
 * No threads, no callbacks, no allocation after postcopy_new() but for what dispatch hands out; one
 * handle belongs to one thread at a time.  The handle has one descriptor: poll it for POLLIN, call
 * postcopy_dispatch(), read the event.  Needs libc only.
 *
 * Every function that can fail returns 0 (or what it says) or a negative errno; postcopy_strerror()
 * then tells what was wrong in words.
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

enum postcopy_policy {			/* what happens when this process breaks */
	POSTCOPY_POLICY_IGNORE = 1,	/* log it, go on */
	POSTCOPY_POLICY_DISABLE = 2,	/* stop serving it; its threads stay blocked, others go on */
	POSTCOPY_POLICY_FAIL = 3,	/* the session fails */
};

enum postcopy_class {
	POSTCOPY_CLASS_DEMAND = 1, POSTCOPY_CLASS_DMA = 2, POSTCOPY_CLASS_PREFETCH = 3,
};

struct postcopy_options {
	uint32_t size;			/* sizeof(struct postcopy_options) */
	uint32_t role;			/* enum postcopy_role */
	uint32_t policy;		/* enum postcopy_policy; 0: DISABLE (MAIN: FAIL) */
	uint32_t user_faults_only;	/* 1: only user-space accesses fault (no KVM, read(2), O_DIRECT …) */
	const char *name;		/* unique; what postcopyd's --expect waits for */
	int uffd;			/* -1: the library opens one; else a userfaultfd of this process that
					 * the library takes over */
	uint32_t timeout_ms;		/* how long a call waits for the daemon's answer; 0: 30 s */
	uint64_t token;			/* 0, or postcopy_token() of a connection that was lost */
};
#define POSTCOPY_OPTIONS_INIT { sizeof(struct postcopy_options), 0, 0, 0, (const char *)0, -1, 0, 0 }

struct postcopy_block {
	uint32_t size;			/* sizeof(struct postcopy_block) */
	int fd;				/* memfd, tmpfs or hugetlbfs file (dup()ed by the kernel in passing; stays the
					 * caller's); -1: private memory, @address must be set */
	const char *name;		/* idstr of the RAMBlock at the source, e.g. "pc.ram" */
	uint64_t length;		/* bytes, equal to the source's used_length */
	uint64_t page_size;		/* bytes; 0: that of the file (private: the system's) */
	uint64_t file_offset;		/* bytes; where in @fd the block begins */
	void *address;			/* private memory: where it is mapped.  Shared: NULL, the daemon finds every
					 * mapping itself; or an address that is to be registered by postcopy_map() */
};

enum postcopy_event_type {
	POSTCOPY_EVENT_NONE = 0,	/* nothing to tell; poll again */
	POSTCOPY_EVENT_LISTENING,	/* faults are served: the memory may be touched */
	POSTCOPY_EVENT_PACKAGE,		/* .package: load the device state from it */
	POSTCOPY_EVENT_RUNNING,		/* committed: the VM may run */
	POSTCOPY_EVENT_COMPLETE,	/* all memory is here; registrations are undone */
	POSTCOPY_EVENT_PAUSED,		/* .text: the source is lost; present pages keep working */
	POSTCOPY_EVENT_FAILED,		/* .error, .text */
	POSTCOPY_EVENT_DISABLED,	/* .error, .text: this sharer alone is no longer served */
	POSTCOPY_EVENT_DISCONNECTED,	/* postcopyd closed the connection or died; keep the handle: closing it would
					 * drop the userfaultfd and turn missing pages into zeroes */
};

struct postcopy_event {
	uint32_t size;			/* sizeof(struct postcopy_event), set by the caller */
	uint32_t type;			/* enum postcopy_event_type */
	int32_t error;			/* positive errno or 0 */
	int package_fd;			/* PACKAGE: sealed memfd, owned by the caller; else -1 */
	uint64_t package_length;	/* bytes in it */
	uint64_t device_offset;		/* device sections within it: QEMU's FULL sections, opaque */
	uint64_t device_length;
	char text[256];
};

/*
 * Connect to the daemon's `register` socket (RUN_DIR/register) and say hello.  Waits for the answer.
 * The userfaultfd is opened here; it lives as long as the handle.
 * Errors: -ENOENT/-ECONNREFUSED no daemon; -EPERM userfaultfd not allowed here; -EACCES peer refused; -EEXIST name taken;
 * -EPROTONOSUPPORT version.  On failure *out is NULL and @text (may be NULL, 256 bytes) says why.
 */
int postcopy_new(postcopy **out, const char *socket_path, const struct postcopy_options *options, char *text);
/*
 * The same over a connected SOCK_SEQPACKET socket, which is the handle's from here on (closed on failure).  A userfaultfd
 * in @options is taken over on success only.
 */
int postcopy_new_fd(postcopy **out, int sock, const struct postcopy_options *options, char *text);
/*
 * Closes the userfaultfd and the connection.  Before POSTCOPY_EVENT_COMPLETE this ends the service for this process: unmap the memory
 * first (postcopy_leave()).
 */
void postcopy_free(postcopy *p);

/* Declare a RAMBlock.  Waits for the daemon's answer.  -EEXIST, -EINVAL (length, page size), -ENOTSUP (file type). */
int postcopy_add_block(postcopy *p, const struct postcopy_block *block);
/*
 * Name a mapping of a shared block that this process registered itself (UFFDIO_REGISTER through postcopy_uffd()).
 * Not needed for mappings the daemon can find in /proc/PID/maps.
 */
int postcopy_map(postcopy *p, const char *block, uint64_t block_offset, void *address, uint64_t length);
/* Everything is declared.  Does not wait for LISTENING: that is an event. */
int postcopy_ready(postcopy *p);
/* Ask for a range before it is touched.  Pages come in the background of demand faults; no event tells. */
int postcopy_want(postcopy *p, const char *block, uint64_t block_offset, uint64_t length,
		  enum postcopy_class klass);

/* Main sharer: device state is loaded / could not be loaded (@text says why). */
int postcopy_loaded(postcopy *p);
int postcopy_load_failed(postcopy *p, const char *text);
/* Leave for good.  The process must have unmapped the blocks before: -EBUSY while a mapping is left. */
int postcopy_leave(postcopy *p);

/* The descriptor to poll for POLLIN. */
int postcopy_fd(const postcopy *p);
/* The userfaultfd, owned by the handle (for self-registration). */
int postcopy_uffd(const postcopy *p);
/* Presents this process again after the connection was lost. */
uint64_t postcopy_token(const postcopy *p);
/*
 * Take one event, never blocking.  Returns 1 with an event, 0 with POSTCOPY_EVENT_NONE, or -errno (-ECONNRESET after
 * DISCONNECTED was told).
 */
int postcopy_dispatch(postcopy *p, struct postcopy_event *event);
/* Wait at most @timeout_ms (-1: for ever) for the next event.  As postcopy_dispatch(), -ETIMEDOUT. */
int postcopy_wait(postcopy *p, struct postcopy_event *event, int timeout_ms);
/* Text of the last error on this handle; valid until the next call. */
const char *postcopy_strerror(const postcopy *p);
/* "0.1.0" */
const char *postcopy_version(void);

#ifdef __cplusplus
}
#endif
#endif
