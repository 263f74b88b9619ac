/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_GUEST_TOLD_H
#define PC_TESTS_GUEST_TOLD_H
/*
 * What a program of the guest says on the console: a line of TAP for each thing that it looked at,
 * with what was not as expected before it, and "done" when it came to its end.
 */
#include <stdbool.h>

struct told {
	unsigned number;
	bool wrong; /* something of what is being looked at */
};

void told_wrong(struct told *t, const char *text, ...) __attribute__((format(printf, 2, 3)));
/* That is over. */
void told(struct told *t, const char *what);
/* The last line.  0, for main(). */
int told_done(const struct told *t);

#define EXPECT(t, got, wanted)                                                               \
	do {                                                                                 \
		long long _got = (long long)(got), _wanted = (long long)(wanted);            \
											     \
		if (_got != _wanted)                                                         \
			told_wrong(t, "line %d: %s is %lld, not %lld", __LINE__, #got, _got, \
				   _wanted);                                                 \
	} while (0)

#endif
