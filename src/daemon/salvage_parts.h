/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_SALVAGE_PARTS_H
#define PC_DAEMON_SALVAGE_PARTS_H
/*
 * Between salvage.c, which has the thread, salvage_pages.c, which gets the pages of a block, and
 * salvage_index.c, which says what was found.
 */
#include "daemon/salvage.h"

#include "core/ledger.h"
#include "wire/jsonmsg.h"
#include "wire/qmapped.h"

#define SALVAGE_PAGE 4096u		/* of the files, whatever the block's pages are */
#define SALVAGE_FILE "vm.migration"

struct salvage_block {
	char name[256], missing_file[288];
	enum block_kind kind;
	uint64_t length, page_size;
	int file;			/* SHARED: owned; -1 */
	uint64_t file_offset;
	const uint8_t *store;		/* HELD, PRIVATE: what is kept of it here */
	uint64_t address;		/* PRIVATE: in the process; 0: nobody maps it */
	uint64_t first;			/* number of its first page in the ledger */
	uint64_t stored, zero, missing;	/* pages of SALVAGE_PAGE */
	uint8_t *bitmap, *missing_map;	/* a bit for each of them */
};

/* What the thread works on. */
struct salvage_job {
	char *dir, *partial;		/* where it will be, and where it is until then */
	struct salvage *owner;
	const struct ledger *ledger;
	pid_t pid;
	/* of the time it began */
	enum session_state state;
	bool held, ownership_unknown;
	char reason[512], machine[256];
	uint32_t page_bits, ram_section;
	uint64_t owed, owed_left, lost;
	int package;			/* owned; -1 */
	uint64_t device_at, device_len;
	unsigned n_blocks;
	struct salvage_block block[SNAPSHOT_BLOCKS];
	struct qmapped_plan plan;
	struct qmapped_block layout[SNAPSHOT_BLOCKS];
	int out;			/* the migration file; owned */
	uint8_t *buffer;		/* SALVAGE_BUFFER bytes */
	/* atomic */
	uint64_t bytes_done, bytes_total;
	bool cancelled;
	/* written by the thread, read when it has ended */
	char error[384];		/* "": none */
};

#define SALVAGE_BUFFER (1u << 20)

/* Say what is wrong, once.  -1. */
int salvage_fail(struct salvage_job *j, int error, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* 0, or -1 with the error told. */
int salvage_write(struct salvage_job *j, int fd, const void *bytes, size_t len, uint64_t at);
/* Get a block's pages into the file, and note what is missing.  0, or -1. */
int salvage_pages(struct salvage_job *j, unsigned block);
/* The index: text, to be freed. */
char *salvage_index(const struct salvage_job *j, size_t *len);

#endif
