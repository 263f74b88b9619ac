/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhostlog: a dirty log and the front-end of one back-end that keeps it, on a console, for tests
 * that hold the connection.  Lines in:
 *	region GPA SIZE VA BLOCK OFFSET    the back-end is told of memory, at these addresses
 *	ring N DESC USED AVAIL             and of a ring, by the front-end's addresses
 *	make OFFERED CHOSEN PROTOCOL       features; the log: "log BYTES PATH", where PATH is its
 *descriptor start | stop | finish              "send FDS ANSWERED HEX" for each message, until ...
 *	answer HEX                         ... and the state that it ends in: "state NAME"
 *	harvest                            "dirty BLOCK OFFSET LENGTH" for each range, "strays N"
 * Numbers are hexadecimal.  What the caller is to do is said as "do NAME".
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/dirtylog.h"
#include "core/guard.h"
#include "core/vhostlog.h"
#include "sys/logmem.h"
#include "wire/vhostlogsay.h"

static struct {
	struct dirtylog log;
	struct logmem memory;
	struct vhostlog back;
	struct vhostmsg_addr ring[VHOSTLOG_RINGS];
	struct vhostmsg asked;
	uint64_t protocol;
} self;

static const char *const states[] = { "off", "on", "finished", "failed" };
static const char *const verbs[VHOSTLOG_VERBS] = {
	[VHOSTLOG_DO_HARVEST] = "harvest",
	[VHOSTLOG_DO_HARVEST_OLD] = "harvest-old",
	[VHOSTLOG_DO_ALL_DIRTY] = "all-dirty",
	[VHOSTLOG_DO_DROP] = "drop",
};

static void die(const char *what)
{
	printf("error %s\n", what);
	exit(EXIT_FAILURE);
}

static void on_region(const char *args)
{
	struct dirtylog_region r = { .gpa = 0 };

	if (sscanf(args, "%" SCNx64 " %" SCNx64 " %" SCNx64 " %x %" SCNx64, &r.gpa, &r.size, &r.va,
		   &r.block, &r.offset) != 5 ||
	    dirtylog_add(&self.log, &r) < 0)
		die("region");
}

static void on_ring(const char *args)
{
	struct vhostmsg_addr a = { .flags = 0 };

	if (sscanf(args, "%x %" SCNx64 " %" SCNx64 " %" SCNx64, &a.index, &a.desc, &a.used,
		   &a.avail) != 4 ||
	    a.index >= VHOSTLOG_RINGS || !dirtylog_gpa(&self.log, a.used, &a.log))
		die("ring");
	self.ring[a.index] = a;
}

static void on_make(const char *args)
{
	uint64_t offered, chosen;

	if (sscanf(args, "%" SCNx64 " %" SCNx64 " %" SCNx64, &offered, &chosen, &self.protocol) !=
		    3 ||
	    logmem_make(&self.memory, dirtylog_bytes(&self.log)) < 0)
		die("make");
	vhostlog_init(&self.back, offered, self.protocol, 1);
	vhostlog_features(&self.back, chosen);
	for (unsigned i = 0; i < VHOSTLOG_RINGS; i++)
		if (self.ring[i].desc)
			vhostlog_addr_flags(&self.back, i, 0);
	printf("log %" PRIx64 " /proc/%d/fd/%d\n", self.memory.bytes, getpid(), self.memory.fd);
}

static void print_message(const struct vhostmsg *m, bool answered)
{
	const uint8_t *head = (const uint8_t *)&m->head;

	printf("send %u %d ", m->fds, answered);
	for (size_t i = 0; i < sizeof(m->head); i++)
		printf("%02x", head[i]);
	for (size_t i = 0; i < m->head.size; i++)
		printf("%02x", m->body.bytes[i]);
	printf("\n");
}

static void say(const struct vhostlog_action *a)
{
	const struct vhostlogsay facts = { .bytes = self.memory.bytes, .rings = self.ring };
	const struct vhostmsg_terms terms = { .protocol = self.protocol };

	vhostlogsay(&self.asked, a, &facts);
	if (vhostmsg_check(&self.asked, VHOSTMSG_TO_BACKEND, &terms, NULL) < 0)
		die("a message of ours breaks the protocol");
	print_message(&self.asked, a->urged);
}

/* Up to the next answer, or the end. */
static void go_on(void)
{
	struct vhostlog_action a;

	while (vhostlog_next(&self.back, &a, 0)) {
		if (verbs[a.verb])
			printf("do %s\n", verbs[a.verb]);
		else
			say(&a);
	}
	if (!vhostlog_busy(&self.back))
		printf("state %s\n", states[self.back.state]);
}

static void on_plan(enum vhostlog_plan plan)
{
	if (vhostlog_begin(&self.back, plan) < 0)
		die("begin");
	go_on();
}

static void on_answer(const char *hex)
{
	const struct vhostmsg_terms terms = { .protocol = self.protocol };
	struct vhostmsg m = { .fds = 0 };
	uint8_t bytes[sizeof(m.head) + 64];
	const char *why = NULL;
	unsigned byte, n = 0;

	for (; n < sizeof(bytes) && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
		bytes[n] = (uint8_t)byte;
	if (n < sizeof(m.head))
		die("answer");
	memcpy(&m.head, bytes, sizeof(m.head));
	memcpy(&m.body, bytes + sizeof(m.head), n - sizeof(m.head));
	if (vhostmsg_check_reply(&m, &self.asked, VHOSTMSG_TO_BACKEND, &terms, &why) == 0)
		why = vhostlogsay_wrong(&m);
	vhostlog_answered(&self.back, why);
	go_on();
}

static void on_harvest(void)
{
	struct dirtylog_range r;
	struct dirtylog_walk w;

	dirtylog_walk(&w, &self.log, self.memory.words, self.memory.bytes);
	while (dirtylog_next(&w, &r))
		printf("dirty %x %" PRIx64 " %" PRIx64 "\n", r.block, r.offset, r.length);
	printf("strays %" PRIx64 "\n", w.strays);
}

static void hear(char *line)
{
	static const char *const plans[] = { "start", "resize", "stop", "finish" };
	char *args = strchr(line, ' ');

	line[strcspn(line, " \n")] = '\0';
	args = args ? args + 1 : line;
	for (unsigned i = 0; i < ARRAY_LEN(plans); i++)
		if (!strcmp(line, plans[i]))
			on_plan((enum vhostlog_plan)i);
	if (!strcmp(line, "region"))
		on_region(args);
	else if (!strcmp(line, "ring"))
		on_ring(args);
	else if (!strcmp(line, "make"))
		on_make(args);
	else if (!strcmp(line, "answer"))
		on_answer(args);
	else if (!strcmp(line, "harvest"))
		on_harvest();
	fflush(stdout);
}

int main(void)
{
	char line[1024];

	logmem_init(&self.memory);
	while (fgets(line, sizeof(line), stdin))
		hear(line);
	logmem_deinit(&self.memory);
	return 0;
}
