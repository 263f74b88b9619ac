/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The run state in a device part that a guest may have shaped: known, or unknown with a reason. */
#include "config.h"

#include "wire/qglobalstate.h"

#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	cleanup_free uint8_t *exact = exactly(data, size);
	struct qglobalstate s;

	CHECK(qglobalstate_find(exact, size, &s) == s.run);
	CHECK(strnlen(s.text, sizeof(s.text)) < sizeof(s.text));
	CHECK((s.run == QGLOBALSTATE_UNKNOWN) == (s.reason != NULL));
	CHECK((s.run == QGLOBALSTATE_UNKNOWN) == !strcmp(s.text, "unknown"));
	CHECK((s.run == QGLOBALSTATE_RUNNING) == !strcmp(s.text, "running"));
	return 0;
}
