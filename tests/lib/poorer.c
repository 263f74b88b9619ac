// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * poorer RULE... -- COMMAND...: run a program as on a poorer kernel, or in a stricter sandbox.
 *
 *	RULE = SYSCALL=ERRNO | ioctl:NAME=ERRNO
 *
 * The system calls answer with the errno and do nothing; of ioctl(2) only that request.  A filter
 * sees numbers, not what pointers lead to: a feature bit that UFFDIO_API reports stays there.
 */
#include "config.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/userfaultfd.h>
#include <seccomp.h>

#include "core/guard.h"
#include "sys/uapi.h"

struct named {
	const char *name;
	uint64_t value;
};

static const struct named requests[] = {
	{ "PAGEMAP_SCAN", PAGEMAP_SCAN },
	{ "PROCMAP_QUERY", PROCMAP_QUERY },
	{ "UFFDIO_API", UFFDIO_API },
	{ "UFFDIO_CONTINUE", UFFDIO_CONTINUE },
	{ "UFFDIO_POISON", UFFDIO_POISON },
	{ "UFFDIO_ZEROPAGE", UFFDIO_ZEROPAGE },
	{ "USERFAULTFD_IOC_NEW", USERFAULTFD_IOC_NEW },
};

static const struct named errors[] = {
	{ "EACCES", EACCES }, { "EINVAL", EINVAL }, { "ENOMEM", ENOMEM }, { "ENOSYS", ENOSYS },
	{ "ENOTTY", ENOTTY }, { "EPERM", EPERM },
};

static bool look_up(const struct named *table, size_t n, const char *name, uint64_t *value)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(table[i].name, name) == 0) {
			*value = table[i].value;
			return true;
		}
	return false;
}

/* 0 or -errno: @what answers with @error from now on. */
static int deny(scmp_filter_ctx filter, const char *what, int error)
{
	static const char prefix[] = "ioctl:";
	uint64_t request;
	int number;

	if (strncmp(what, prefix, strlen(prefix)) == 0) {
		if (!look_up(requests, ARRAY_LEN(requests), what + strlen(prefix), &request))
			return -EINVAL;
		return seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)error), SCMP_SYS(ioctl), 1,
					SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX, request));
	}
	number = seccomp_syscall_resolve_name(what);
	if (number == __NR_SCMP_ERROR)
		return -EINVAL;
	return seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint32_t)error), number, 0);
}

static int add_rule(scmp_filter_ctx filter, char *text)
{
	char *equals = strchr(text, '=');
	uint64_t error;

	if (!equals || !look_up(errors, ARRAY_LEN(errors), equals + 1, &error))
		return -EINVAL;
	*equals = '\0';
	return deny(filter, text, (int)error);
}

static int fail(const char *what, int error)
{
	fprintf(stderr, "poorer: %s: %s\n", what, strerror(-error));
	return 125;
}

int main(int argc, char **argv)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
	int at = 1, r;

	if (!filter)
		return fail("filter", -ENOMEM);
	for (; at < argc && strcmp(argv[at], "--") != 0; at++) {
		r = add_rule(filter, argv[at]);
		if (r < 0)
			return fail(argv[at], r);
	}
	if (at + 1 >= argc)
		return fail("usage: poorer RULE... -- COMMAND...", -EINVAL);
	r = seccomp_load(filter);
	seccomp_release(filter);
	if (r < 0)
		return fail("seccomp", r);
	execvp(argv[at + 1], argv + at + 1);
	return fail(argv[at + 1], -errno);
}
