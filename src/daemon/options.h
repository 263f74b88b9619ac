/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_OPTIONS_H
#define PC_DAEMON_OPTIONS_H
/*
 * Everything the command line and --config FILE can say, parsed once, never written afterwards.
 * (Not config.h: that name belongs to autoconf, and a quoted include looks beside the file first.)
 */
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>
#include "core/vhostfront.h"

enum options_transport { OPTIONS_TCP, OPTIONS_UNIX };

struct options_address {
	enum options_transport transport;
	char *host; /* TCP; "" is every address; IPv6 without brackets */
	char *port; /* TCP; decimal, "0" picks one (printed) */
	char *path; /* UNIX */
};

/* May the VM be continued when it is loaded? */
enum options_cont {
	OPTIONS_CONT_AUTO, /* when it ran at the source */
	OPTIONS_CONT_YES,
	OPTIONS_CONT_NO,   /* never: somebody else says it */
};

/* The hand-over to an unmodified QEMU. */
struct options_qemu {
	char *monitor;	  /* path of its QMP socket; NULL: there is no hand-over */
	/* path where QEMU listens for its stream; default RUN_DIR/qemu-incoming */
	char *incoming;
	enum options_cont cont;
	/* how long to wait for a second QEMU while the source would resume its VM */
	unsigned retry_s;
};

/* A vhost-user back-end that we stand in front of. */
struct options_vhost {
	char *name;	  /* of the sharer */
	char *front;	  /* path where the VMM expects it */
	char *back;	  /* path where it listens */
	char *group;	  /* that may connect to the front; NULL: owner only */
	enum vhostfront_dialect dialect;
	bool repair;	  /* the VMM does its own postcopy: only make true what it is told */
	bool may_gate;	  /* one that cannot fault waits for all memory; else it is refused */
	unsigned policy;  /* enum regmsg_policy */
	unsigned answer_s; /* for one answer of it */
};

/* Where the state of devices comes on a connection of its own. */
struct options_channel {
	struct options_address address;
	bool on;
	char *session;	  /* a UUID; NULL: one is made up */
};

/* What a vfio-user device does to memory that is not there yet; see postcopyd(8). */
enum options_dma {
	OPTIONS_DMA_GATE,     /* it is held until all it reaches is there */
	OPTIONS_DMA_MESSAGES, /* it asks us for each byte */
	OPTIONS_DMA_SHARER,   /* its server is a sharer, and waits for pages by itself */
	OPTIONS_DMA_WAYS,
};

enum { OPTIONS_VFIO_MAX = 16 };

/* What becomes of a VM whose source is lost. */
enum options_on_loss {
	OPTIONS_LOSS_WAIT,    /* nothing ends */
	OPTIONS_LOSS_POISON,  /* who waits too long for a page is told that it is lost */
	OPTIONS_LOSS_FREEZE,  /* the VM is stopped */
	OPTIONS_LOSS_KILL,    /* the main sharer is ended */
	OPTIONS_LOSS_POLICIES,
};
#define OPTIONS_LOSS_AFTER_S 30
extern const char *const options_loss_names[OPTIONS_LOSS_POLICIES];

struct options_loss {
	enum options_on_loss policy;
	unsigned after_s; /* of a pause; of a wait in one, for poison */
};
/* How long a page may be waited for; 0: it is never given up. */
static inline uint64_t options_poison_ns(const struct options_loss *l)
{
	return l->policy == OPTIONS_LOSS_POISON ? l->after_s * 1000000000ull : 0;
}

/* A device of VFIO, whose state comes from its twin at the source. */
struct options_vfio {
	char *id;	  /* as the source calls it */
	char *path;	  /* of the socket, or of the device in sysfs */
	bool user;	  /* a vfio-user server, else the kernel's */
	bool mandatory;	  /* the VM is not worth running without it */
	unsigned deadline_ms; /* of each call */
	enum options_dma dma;
};

/* A range of addresses of a device. */
struct options_dma_map {
	char *device;	  /* options_vfio.id */
	char *block;
	uint64_t iova, offset, length; /* bytes; length 0: to the block's end */
	bool coherent;
};

struct options {
	struct options_address incoming; /* of the source; empty with incoming_fd */
	char *run_dir;			 /* holds the sockets `register` and `control` */
	char *register_path;		 /* default RUN_DIR/register; NULL with register_fd */
	char *control_path;		 /* default RUN_DIR/control; NULL with control_fd */
	int register_fd, control_fd, incoming_fd; /* listening sockets passed in; -1 */
	char **expect;				  /* sharers LISTENING waits for; never NULL */
	unsigned expect_timeout_s;		  /* default 30; 0 waits for ever */
	unsigned prove_timeout_s; /* for a process to let its mappings be seen; default 10 */
	unsigned load_timeout_s; /* for the main sharer to say loaded; default 0: no limit */
	unsigned recover_timeout_s; /* to let a resumed source in; default 0: no limit */
	char *hook;		 /* program that is told what happens, or NULL */
	unsigned hook_timeout_s; /* for one run of it; default 30 */
	char *device_state;	 /* file to write the package to, or NULL */
	int ready_fd;		 /* gets a line "READY ..." when everything listens; -1 */
	unsigned spin_us;	 /* busy-poll that long before sleeping; default 0 */
	uint64_t max_package;	 /* bytes; default 256 MiB */
	uint64_t max_held;	 /* bytes of blocks that nobody registers; default 1 GiB */
	unsigned max_sharers;	 /* default 32, at most SNAPSHOT_SHARERS */
	unsigned max_waiters;	 /* parked threads over all sharers; default 16384 */
	char *register_group;	 /* group that may open `register`; NULL: owner only */
	struct options_qemu qemu;
	GPtrArray *vhost;	 /* struct options_vhost; never NULL */
	struct options_channel device_channel;
	uint64_t max_device_state; /* bytes, of all devices; default 1 GiB */
	GPtrArray *vfio;	 /* struct options_vfio; never NULL */
	GPtrArray *dma_map;	 /* struct options_dma_map; never NULL */
	unsigned link_grace_s;	 /* no way to the source that long: pause; default 2; 0: never */
	char *source_qmp;	 /* monitor of the source's QEMU, to have it resume; NULL */
	bool enable_faults;
	GPtrArray *faults;	 /* char *, rules of wire/faultrule.h; never NULL */
	uint64_t fault_seed;	 /* 0: any */
	struct options_loss on_loss;
	bool switchover_ack;	 /* for a source >= 8.1 with that capability */
	/* Unless --stay: exit 0 after COMPLETE once every sharer has gone, or 5 s later. */
	bool exit_when_done;
	bool keeper;		 /* a process of its own keeps our descriptors, and restarts us */
	bool fd_store;		 /* the service manager keeps them */
	bool verbose;
};

enum options_result { OPTIONS_OK, OPTIONS_EXIT_OK, OPTIONS_LAYOUT, OPTIONS_USAGE };
/* Parse argv, and the file --config names.  options_clear() after each outcome. */
enum options_result options_parse(struct options *o, int argc, char **argv, GError **error);
void options_clear(struct options *o);
/* The value of --vhost-user: "name=NAME,front=PATH,back=PATH,..."; NULL with *error. */
struct options_vhost *options_parse_vhost(const char *text, GError **error);
struct options_vhost *options_copy_vhost(const struct options_vhost *v);
void options_free_vhost(struct options_vhost *v);
/* Do they want the same name or path?  With *error. */
bool options_meet_vhost(const struct options_vhost *a, const struct options_vhost *b,
			GError **error);
/* Of options.vfio; NULL: there is none of that name. */
const struct options_vfio *options_find_vfio(const GPtrArray *all, const char *id);
/* "tcp:HOST:PORT", "tcp:[::1]:PORT", "unix:PATH" */
bool options_parse_address(const char *text, struct options_address *out, GError **error);

#endif
