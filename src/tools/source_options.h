/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_OPTIONS_H
#define PC_TOOLS_SOURCE_OPTIONS_H
/* The command line of postcopy-source, checked. */
#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "tools/source_block.h"
#include "tools/source_fault.h"

#define SOURCE_MAX_BLOCKS 64

enum source_precopy { SOURCE_PRECOPY_NONE, SOURCE_PRECOPY_HALF, SOURCE_PRECOPY_ALL };

struct source_options {
	char *to;	    /* owned */
	char *machine;	    /* owned */
	char *device_state; /* owned: file or size; NULL: the default section */
	struct source_block_spec blocks[SOURCE_MAX_BLOCKS];
	unsigned n_blocks;
	enum source_precopy precopy;
	bool preempt, old_preempt, huge_interleave, always_name;
	bool finish_as_precopy, commit_ping, no_background, digest, json;
	uint64_t rate; /* bytes per second of background; 0: as fast as it goes */
	uint64_t linger_ms;
	bool has_linger;
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
/* The text --fault help prints. */
char *source_options_fault_help(void);

#endif
