/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stream decoder's commands: u8 type, be16 number, be16 length, payload.
 *
 * One row a command: how long, where it is at home, which stage it begins.  A command is handed to
 * its reader with its payload whole.  POSTCOPY_RAM_DISCARD is the exception: it has up to 64 KiB of
 * ranges and each is an event, so its head comes with the first range and the others are records of
 * their own.
 *
 * LISTEN and RUN have rows only to be refused by name: they belong into the package, which
 * qstream_package() splits when it is whole.
 */
#include "config.h"

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define TARGET_PAGE_MIN 1024u
#define TARGET_PAGE_MAX 65536u
#define DISCARD_VERSION 0
#define DISCARD_HEAD	3u		   /* version, length of the name, NUL behind the name */
#define PACKAGE_MIN	(2 * COMMAND_LEN)  /* LISTEN and RUN */
#define PAGE_SIZES_MAX	((1ull << 56) - 1) /* see is_page_size() in qstream_setup.c */
#define ANYWHERE	(STAGE_SETUP | STAGE_PRECOPY | STAGE_POSTCOPY | STAGE_RECOVERY | STAGE_DONE)

static const char outside_package[] = "this command belongs into the package";

static int read_ping(struct qstream *q, struct cursor *payload, struct qstream_record *rec)
{
	(void)q;
	rec->ping = cursor_be32(payload);
	return QSTREAM_PING;
}

/*
 * Page sizes arrive as the OR of all blocks' sizes.  The list that follows is held to it
 * (list_fault()), and the bits are what tells a page size from the next block's name.
 */
static const char *advise_fault(const struct qstream *q, uint64_t summary, uint64_t target_page)
{
	if (!is_power_of_two(target_page) || target_page < TARGET_PAGE_MIN ||
	    target_page > TARGET_PAGE_MAX)
		return "target page size of POSTCOPY_ADVISE is not supported";
	if (q->page_bits && target_page != 1ull << q->page_bits)
		return "target page size of POSTCOPY_ADVISE is not that of the header";
	if (summary == 0 || summary % target_page != 0 || summary > PAGE_SIZES_MAX)
		return "page sizes of POSTCOPY_ADVISE are not sizes of pages";
	return NULL;
}

static int read_advise(struct qstream *q, struct cursor *payload, struct qstream_record *rec)
{
	uint64_t summary, target_page;
	const char *fault;

	if (cursor_left(payload) == 0)
		return qstream_fail(q, "source migrates no RAM by postcopy: "
				       "turn on the postcopy-ram capability there");
	summary = cursor_be64(payload);
	target_page = cursor_be64(payload);
	if (payload->bad)
		return qstream_fail(q, "length of POSTCOPY_ADVISE");
	if (q->summary)
		return qstream_fail(q, "second POSTCOPY_ADVISE");
	fault = advise_fault(q, summary, target_page);
	if (fault)
		return qstream_fail(q, fault);
	q->summary = summary;
	q->target_page = target_page;
	q->default_page = summary & -summary;
	rec->advise.summary = summary;
	rec->advise.page_size = target_page;
	return QSTREAM_ADVISE;
}

/* The body is no part of the command: it follows in the stream, as long as @size says. */
static int read_packaged(struct qstream *q, struct cursor *payload, struct qstream_record *rec)
{
	uint32_t size = cursor_be32(payload);

	if (size < PACKAGE_MIN)
		return qstream_fail(q, "package is too short to hold LISTEN and RUN");
	q->packaged = true;
	q->body_left = size;
	q->phase = PHASE_BODY;
	rec->packaged = size;
	return QSTREAM_PACKAGED;
}

/* The source asks, block by block, what we have; only in a recovery. */
static int read_recv_bitmap(struct qstream *q, struct cursor *payload, struct qstream_record *rec)
{
	struct qstream_name name = qstream_take_name(payload);
	int block;

	if (payload->bad || cursor_left(payload) > 0)
		return qstream_fail(q, "length of RECV_BITMAP");
	block = qstream_find_block(q, name);
	if (block < 0)
		return qstream_fail_name(q, "bitmap wanted of a block that is not in the list",
					 name);
	rec->recv_bitmap.block = (unsigned)block;
	return QSTREAM_RECV_BITMAP;
}

/* One range; the block is q->discard_block.  @at: RANGE_LEN bytes. */
static int take_range(struct qstream *q, const uint8_t *at, struct qstream_record *rec)
{
	const struct qstream_block *block = &q->blocks[q->discard_block];
	uint64_t start = qstream_be64(at), length = qstream_be64(at + 8);

	if (!range_inside(start, length, block->length))
		return qstream_fail_text(q, "discarded range is empty or outside of its block",
					 block->name);
	if (start % block->page_size != 0 || length % block->page_size != 0)
		return qstream_fail_text(q, "discarded range is not made of whole pages",
					 block->name);
	rec->discard.block = q->discard_block;
	rec->discard.start = start;
	rec->discard.length = length;
	q->discard_left--;
	q->phase = q->discard_left > 0 ? PHASE_RANGES : PHASE_RECORD;
	return QSTREAM_DISCARD;
}

/**
 * qstream_read_range - a further range of the discard command at hand; a reader
 */
int qstream_read_range(struct qstream *q, const uint8_t *buf, size_t len,
		       struct qstream_record *rec)
{
	if (len < RANGE_LEN)
		return qstream_short(rec, RANGE_LEN);
	rec->used = RANGE_LEN;
	return take_range(q, buf, rec);
}

/* The head of the command and the first of its ranges. */
static int read_discard(struct qstream *q, const uint8_t *buf, size_t len, size_t payload,
			struct qstream_record *rec)
{
	struct cursor c = cursor_init(buf, len);
	uint8_t version, nul;
	struct qstream_name name;
	int block;

	cursor_bytes(&c, COMMAND_LEN);
	version = cursor_u8(&c);
	name = qstream_take_name(&c);
	nul = cursor_u8(&c);
	if (c.bad)
		return qstream_short(rec, len + 1);
	if (version != DISCARD_VERSION || nul != 0)
		return qstream_fail(q, "malformed POSTCOPY_RAM_DISCARD");
	if (payload < DISCARD_HEAD + name.len + RANGE_LEN ||
	    (payload - DISCARD_HEAD - name.len) % RANGE_LEN != 0)
		return qstream_fail(q, "length of POSTCOPY_RAM_DISCARD");
	block = qstream_find_block(q, name);
	if (block < 0)
		return qstream_fail_name(q, "discard in a block that is not in the list", name);
	if (cursor_left(&c) < RANGE_LEN)
		return qstream_short(rec, COMMAND_LEN + DISCARD_HEAD + name.len + RANGE_LEN);
	q->discard_block = (unsigned)block;
	q->discard_left = (unsigned)((payload - DISCARD_HEAD - name.len) / RANGE_LEN);
	rec->used = COMMAND_LEN + DISCARD_HEAD + name.len + RANGE_LEN;
	return take_range(q, c.at, rec);
}

static const struct command {
	const char *name;
	uint16_t min, max; /* payload, bytes */
	uint8_t stages;	   /* where it is at home */
	uint8_t then;	   /* the stage it begins; 0: the same goes on */
	int event;	   /* what it is, where it says nothing else */
	int (*read)(struct qstream *q, struct cursor *payload, struct qstream_record *rec);
	const char *refusal;
} commands[] = {
	[QCMD_OPEN_RETURN_PATH] = {"OPEN_RETURN_PATH", 0, 0, STAGE_SETUP,
				   .event = QSTREAM_OPEN_RETURN_PATH},
	[QCMD_PING] = {"PING", 4, 4, ANYWHERE, .read = read_ping},
	[QCMD_ADVISE] = {"POSTCOPY_ADVISE", 0, 16, STAGE_SETUP, .read = read_advise},
	[QCMD_LISTEN] = {"POSTCOPY_LISTEN", 0, 0, ANYWHERE, .refusal = outside_package},
	[QCMD_RUN] = {"POSTCOPY_RUN", 0, 0, ANYWHERE, .refusal = outside_package},
	/* read range by range: read_discard() */
	[QCMD_DISCARD] = {"POSTCOPY_RAM_DISCARD", DISCARD_HEAD + 1 + RANGE_LEN, UINT16_MAX,
			  .stages = STAGE_PRECOPY},
	[QCMD_PACKAGED] = {"PACKAGED", 4, 4, STAGE_PRECOPY, STAGE_POSTCOPY, .read = read_packaged},
	[QCMD_COLO] = {"ENABLE_COLO", 0, 0, ANYWHERE,
		       .refusal = "turn off the x-colo capability at the source"},
	[QCMD_RESUME] = {"POSTCOPY_RESUME", 0, 0, STAGE_RECOVERY, STAGE_POSTCOPY,
			 .event = QSTREAM_RESUME},
	[QCMD_RECV_BITMAP] = {"RECV_BITMAP", 2, 256, STAGE_RECOVERY, .read = read_recv_bitmap},
	[QCMD_SWITCHOVER_START] = {"SWITCHOVER_START", 0, 0, STAGE_PRECOPY,
				   .event = QSTREAM_SWITCHOVER_START},
};

static const char *command_fault(const struct qstream *q, const struct command *command,
				 uint16_t payload)
{
	if (payload < command->min || payload > command->max)
		return "command has the wrong length";
	if (!(command->stages & q->stage))
		return "command is out of place";
	return command->refusal;
}

static int read_payload(struct qstream *q, const struct command *command, struct cursor payload,
			struct qstream_record *rec)
{
	int event = command->read ? command->read(q, &payload, rec) : command->event;

	if (event > 0 && command->then)
		q->stage = command->then;
	return event;
}

/**
 * qstream_read_command - a command; a reader
 *
 * Length and place are judged on the head alone, so what is refused is refused before its payload
 * came.
 */
int qstream_read_command(struct qstream *q, const uint8_t *buf, size_t len,
			 struct qstream_record *rec)
{
	const struct command *command;
	uint16_t number, payload;
	const char *fault;

	if (len < COMMAND_LEN)
		return qstream_short(rec, COMMAND_LEN);
	number = qstream_be16(buf + 1);
	payload = qstream_be16(buf + 3);
	if (number >= ARRAY_LEN(commands) || !commands[number].name)
		return qstream_fail(q, "unknown command");
	command = &commands[number];
	fault = command_fault(q, command, payload);
	if (fault)
		return qstream_fail_text(q, fault, command->name);
	if (number == QCMD_DISCARD)
		return read_discard(q, buf, len, payload, rec);
	rec->used = (size_t)COMMAND_LEN + payload;
	if (len < rec->used)
		return qstream_short(rec, rec->used);
	return read_payload(q, command, cursor_init(buf + COMMAND_LEN, payload), rec);
}
