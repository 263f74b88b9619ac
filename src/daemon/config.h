/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_CONFIG_H
#define PC_DAEMON_CONFIG_H
/*
 * Everything the command line and --config FILE can say, parsed once, never written afterwards.
 */
#include <stdbool.h>
#include <stdint.h>
#include <glib.h>

enum config_transport { CONFIG_TCP, CONFIG_UNIX };

struct config_address {
	enum config_transport transport;
	char *host;			/* TCP; "" is every address; IPv6 literals without brackets */
	char *port;			/* TCP; decimal, "0" picks one (printed) */
	char *path;			/* UNIX */
};

struct config {
	struct config_address incoming;	/* where the source connects */
	char *run_dir;			/* holds the sockets `register` and `control` */
	char *register_path;		/* default RUN_DIR/register */
	char *control_path;		/* default RUN_DIR/control */
	int register_fd, control_fd, incoming_fd;	/* listening sockets passed in; -1 */
	char **expect;			/* NULL-terminated names of sharers LISTENING waits for */
	unsigned expect_timeout_s;	/* default 30; 0 waits for ever */
	unsigned load_timeout_s;	/* for the main sharer to say loaded; default 0: no limit */
	char *device_state;		/* file to write the package to, or NULL */
	int ready_fd;			/* a line "READY ..." is written there once everything listens; -1 */
	unsigned spin_us;		/* busy-poll that long before sleeping; default 0 */
	uint64_t max_package;		/* bytes; default 256 MiB */
	unsigned max_sharers;		/* default 32, at most SNAPSHOT_SHARERS */
	unsigned max_waiters;		/* parked threads over all sharers; default 16384 */
	char *register_group;		/* group that may open `register`; NULL: owner only */
	bool switchover_ack;		/* answer OPEN_RETURN_PATH with SWITCHOVER_ACK (source >= 8.1 with that capability) */
	bool exit_when_done;		/* default true: exit 0 after COMPLETE once every sharer has gone or 5 s later */
	bool verbose;
};

enum config_result { CONFIG_OK, CONFIG_EXIT_OK, CONFIG_USAGE };
/*
 * Parse argv (and the file --config names; the command line wins).  CONFIG_EXIT_OK after --help or --version;
 * CONFIG_USAGE with *error naming the option, what was wrong and what is expected.
 */
enum config_result config_parse(struct config *c, int argc, char **argv, GError **error);
void config_clear(struct config *c);
/* "tcp:HOST:PORT", "tcp:[::1]:PORT", "unix:PATH" */
bool config_parse_address(const char *text, struct config_address *out, GError **error);

#endif
