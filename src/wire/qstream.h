/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QSTREAM_H
#define PC_WIRE_QSTREAM_H
/*
 * QEMU's migration stream, one channel, one direction (source to destination).
 *
 * The decoder is fed a window of contiguous bytes and yields one record at a time.  It never
 * allocates and never copies page data: a PAGE record points into the window.  A record that is not
 * complete yields QSTREAM_NEED_MORE and consumes nothing, so the caller appends bytes and asks
 * again; no record but a PACKAGED body is longer than QSTREAM_RECORD_MAX.
 *
 * All grammar state that lives across records (section ids, the "same block" flag, phase) is in
 * struct qstream; it is per connection.  Facts: the wire specification, sections 3 to 7 and 11.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QSTREAM_NAME_MAX 256 /* idstr with its NUL */
#define QSTREAM_RECORD_MAX (70 * 1024) /* longest record (64 KiB page) but a package body */
#define QSTREAM_MAX_BLOCKS 64

enum qstream_event {
	QSTREAM_NEED_MORE = 0,
	QSTREAM_HEADER, /* .header: magic, version and the whole configuration section */
	QSTREAM_OPEN_RETURN_PATH,
	QSTREAM_PING,	    /* .ping */
	QSTREAM_ADVISE,	    /* .advise; length 0 (no RAM postcopy) is an error */
	QSTREAM_BLOCK,	    /* .block: one entry of the block list */
	QSTREAM_BLOCKS_END, /* the START section of ram is over */
	QSTREAM_PAGE,	    /* .page, data points into the window */
	QSTREAM_ZERO,	    /* .page without data */
	QSTREAM_XBZRLE,	    /* .page, data/len = the encoded delta; precopy only */
	QSTREAM_DISCARD,    /* .discard: one range (a command yields one event per range) */
	QSTREAM_SWITCHOVER_START,
	QSTREAM_PACKAGED, /* .packaged: that many bytes follow; take them with qstream_took() */
	QSTREAM_LISTEN,	  /* only inside a package: never yielded, see qstream_package() */
	QSTREAM_RUN,	  /* the same */
	QSTREAM_RAM_END,  /* the END section of ram is over */
	QSTREAM_TAIL,	  /* naked device state begins here: it finished as precopy.  The decoder
			   * goes no further; see qstream_tail() */
	QSTREAM_EOF,	  /* end of the stream (main channel, postcopy) or EOS (urgent channel) */
	QSTREAM_RESUME,	  /* recovery: POSTCOPY_RESUME */
	QSTREAM_RECV_BITMAP, /* recovery: .recv_bitmap */
	QSTREAM_SECTION,     /* a bracket of a ram section (its head, or the end of a PART): nothing
			      * to do but to give its bytes back */
};

enum qstream_channel {
	QSTREAM_MAIN,	  /* begins with the magic */
	QSTREAM_URGENT,	  /* preempt channel: bare page records */
	QSTREAM_RECOVERY, /* main channel of a recovery: no header, known section id */
};

struct qstream_block {
	char name[QSTREAM_NAME_MAX];
	uint64_t length;    /* used_length, bytes, a multiple of the target page size */
	uint64_t page_size; /* host page size of the block at the source, bytes */
};

struct qstream_record {
	size_t used; /* bytes of the window this record took (0 for NEED_MORE) */
	size_t need; /* NEED_MORE: the window must hold at least this many bytes */
	union {
		struct {
			char machine[256];
			uint32_t page_bits; /* 0: subsection absent */
			bool has_uuid;
			uint8_t uuid[16];
		} header;
		uint32_t ping;
		struct {
			uint64_t summary;   /* OR of the blocks' page sizes */
			uint64_t page_size; /* target page size */
		} advise;
		struct qstream_block block;
		struct {
			unsigned block;	     /* index in qstream.blocks */
			uint64_t offset;     /* bytes in the block */
			const uint8_t *data; /* in the window */
			size_t len;	     /* PAGE: target page size; XBZRLE: encoded length */
		} page;
		struct {
			unsigned block;
			uint64_t start, length; /* bytes */
		} discard;
		uint32_t packaged; /* bytes of the body */
		struct {
			unsigned block;
		} recv_bitmap;
	};
};

struct qstream {
	enum qstream_channel channel;
	int phase, stage;      /* private: enums in qstream_parts.h */
	uint64_t position;     /* bytes consumed since the connection began */
	uint32_t page_bits;    /* log2 of the target page size, of the header; 0: absent */
	uint64_t target_page;  /* bytes; 4096 until ADVISE says otherwise */
	uint64_t summary;      /* of ADVISE; 0 before it */
	uint64_t default_page; /* page size of blocks that do not carry one */
	uint32_t ram_section;  /* section id of ram */
	uint64_t list_left;    /* bytes of RAM the block list still has to name */
	int last_block;	       /* for the CONTINUE flag; -1: none yet */
	unsigned discard_left; /* ranges left in a discard command */
	unsigned discard_block;
	uint32_t body_left; /* bytes of a package not yet taken */
	bool footers;	    /* decided at the first ram section */
	bool packaged;	    /* a package was seen: pages now are postcopy pages */
	unsigned n_blocks;
	struct qstream_block blocks[QSTREAM_MAX_BLOCKS];
	const char *reason;	       /* of the last error: static text, with `position` */
	char detail[QSTREAM_NAME_MAX]; /* name the reason is about, or "" */
};

/* @blocks_of: the main channel's decoder after BLOCKS_END; NULL for QSTREAM_MAIN itself. */
void qstream_init(struct qstream *q, enum qstream_channel channel, const struct qstream *blocks_of);

/*
 * A decoder as it stood behind BLOCKS_END on a connection that an earlier process read: for
 * qstream_init() of those that follow.
 */
struct qstream_known {
	unsigned n_blocks;
	const struct qstream_block *blocks;
	uint32_t ram_section, page_bits;
	bool footers;
};
void qstream_restore(struct qstream *q, const struct qstream_known *known);

/* The next record of @buf: enum qstream_event, or -EPROTO (for good) with q->reason. */
int qstream_next(struct qstream *q, const uint8_t *buf, size_t len, struct qstream_record *rec);

/* The caller took @n bytes of a package's body out of the window. */
void qstream_took(struct qstream *q, size_t n);

/*
 * Several page records at once: how many records from @buf on are plain PAGE/ZERO records that
 * follow each other without anything between?  Not offered: call qstream_next(); it is cheap
 * (bench: parse).
 */

/* What a connection is, by its first bytes. */
enum qstream_opening {
	QSTREAM_OPENS_MORE,	/* too few bytes to tell */
	QSTREAM_OPENS_MAIN,
	QSTREAM_OPENS_MULTIFD,
	QSTREAM_OPENS_URGENT,	/* as an urgent channel does */
	QSTREAM_OPENS_RECOVERY,	/* main channel of a resumed source */
	QSTREAM_OPENS_NOTHING,	/* that we know */
};
#define QSTREAM_OPENING_MAX (8 + 1 + 255)
struct qstream_opening_page {
	char name[256];		/* of the block; "": the channel ends at once */
	uint64_t offset;	/* bytes in it */
};
enum qstream_opening qstream_opening(const uint8_t *buf, size_t len,
				     struct qstream_opening_page *out);

struct qstream_package {
	const uint8_t *device; /* concatenated FULL sections, opaque */
	size_t device_len;
	bool has_commit_ping; /* PING 0x42 before RUN (QEMU >= 10.2) */
	unsigned n_pings;
	uint32_t pings[8]; /* in stream order, the commit ping included */
};

/* Split a whole package body.  0, or -EPROTO: it must begin with LISTEN and end with RUN. */
int qstream_package(const uint8_t *body, size_t len, struct qstream_package *out);

/* 1 and the length of the device state, when all from QSTREAM_TAIL on is in @buf; 0 read more. */
int qstream_tail(const uint8_t *buf, size_t len, size_t *device_len);

/* Apply an XBZRLE delta onto @page (@page_len bytes).  0 or -EPROTO (page then undefined). */
int qstream_xbzrle(uint8_t *page, size_t page_len, const uint8_t *delta, size_t len);

/* Encoders, for the source side and for tests.  Each appends one record to @p (check p->bad). */
struct pen;
void qstream_put_header(struct pen *p, const char *machine);
void qstream_put_page_bits(struct pen *p, uint32_t bits); /* directly behind the header */
void qstream_put_command(struct pen *p, uint16_t cmd, const void *payload, uint16_t len);
void qstream_put_ping(struct pen *p, uint32_t value);
void qstream_put_advise(struct pen *p, uint64_t summary, uint64_t target_page);
/* START section of ram, whole; page_size is written where it differs from @default_page. */
void qstream_put_blocks(struct pen *p, uint32_t section, const struct qstream_block *blocks,
			unsigned n, uint64_t default_page);
/* The same in pieces: its head, each entry (page_size 0: not written), qstream_put_ram_end(). */
void qstream_put_blocks_begin(struct pen *p, uint32_t section, uint64_t total);
void qstream_put_block(struct pen *p, const char *name, uint64_t length, uint64_t page_size);
void qstream_put_ram_begin(struct pen *p, bool end, uint32_t section); /* PART or END header */
void qstream_put_ram_end(struct pen *p, uint32_t section);	       /* EOS word + footer */
/* Word (+ cstr when @name) of a page; the data follows.  @zero: the ZERO form, with its byte. */
void qstream_put_page_head(struct pen *p, uint64_t offset, const char *name, bool zero);
/* @n ranges of {start, length}, at most 12 as QEMU does */
void qstream_put_discard(struct pen *p, const char *name, const uint64_t (*ranges)[2], unsigned n);
/* PACKAGED command and body: LISTEN, @device, PING 3, [PING 0x42,] RUN */
void qstream_put_package(struct pen *p, const void *device, size_t device_len, bool commit_ping);

enum qstream_command {
	QCMD_OPEN_RETURN_PATH = 1,
	QCMD_PING = 2,
	QCMD_ADVISE = 3,
	QCMD_LISTEN = 4,
	QCMD_RUN = 5,
	QCMD_DISCARD = 6,
	QCMD_PACKAGED = 7,
	QCMD_COLO = 8,
	QCMD_RESUME = 9,
	QCMD_RECV_BITMAP = 10,
	QCMD_SWITCHOVER_START = 11,
};
#define QSTREAM_COMMIT_PING 0x42u

#endif
