/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_OPTIONS_H
#define PC_TOOLS_SOURCE_OPTIONS_H
/* The command line of postcopy-source, checked. */
#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "tools/source_block.h"
#include "tools/source_fault.h"
#include "wire/devstate.h"

#define SOURCE_MAX_BLOCKS 64
#define SOURCE_MAX_VFIO	  32

enum source_precopy { SOURCE_PRECOPY_NONE, SOURCE_PRECOPY_HALF, SOURCE_PRECOPY_ALL };

/* A device of the VM, whose state is sent, too. */
struct source_vfio_spec {
	char *id;		/* owned: what both hosts call it */
	char *socket, *sysfs;	/* owned; one of them is NULL: a vfio-user socket, or a device */
	uint64_t deadline_ms;	/* of each call on it */
};

struct source_options {
	char *to;	    /* owned */
	char *machine;	    /* owned */
	char *device_state; /* owned: file or size; NULL: the default section */
	struct source_block_spec blocks[SOURCE_MAX_BLOCKS];
	unsigned n_blocks;
	struct source_vfio_spec vfio[SOURCE_MAX_VFIO];
	unsigned n_vfio;
	char *device_channel; /* owned: where their state goes; NULL: into the package */
	uint8_t session[DEVSTATE_SESSION]; /* of that connection; else 0 */
	bool devices_apart;   /* no device can address another one */
	bool hold;	      /* devices only: wait until somebody says what became of the VM */
	enum source_precopy precopy;
	bool preempt, old_preempt, huge_interleave, always_name;
	bool finish_as_precopy, commit_ping, no_background, digest, json;
	uint64_t rate; /* bytes per second of background; 0: as fast as it goes */
	uint64_t linger_ms;
	bool has_linger;
	bool reconnect;	       /* a lost connection in postcopy is a pause */
	uint64_t reconnect_ns; /* how long one may be; UINT64_MAX: for ever */
	uint64_t seed;
	struct source_faults faults;
	bool list_faults; /* --fault help */
	bool version;
};

/* Parses and takes the options out of *@argv.  False with @error on a usage error. */
bool source_options_parse(struct source_options *o, int *argc, char ***argv, GError **error);
void source_options_deinit(struct source_options *o);

/*
 * One --block argument onto @spec, which holds the defaults; @spec->file is the caller's to free,
 * after a failure too.  0 or -errno with @why.
 */
int source_options_block(struct source_block_spec *spec, const char *text, char why[256]);
/* One --vfio argument; source_options_vfio_deinit() after either.  0 or -errno with @why. */
int source_options_vfio(struct source_vfio_spec *spec, const char *text, char why[256]);
void source_options_vfio_deinit(struct source_vfio_spec *spec);
/* Are devices all that is sent? */
static inline bool source_options_devices_only(const struct source_options *o)
{
	return !o->to;
}
/* The text --fault help prints. */
char *source_options_fault_help(void);

#endif
