/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "session.h"

#include <stdio.h>
#include <unistd.h>

int session_fail(const char *what, const char *text)
{
	fprintf(stderr, "%s: %s\n", what, text);
	return 1;
}

int session_wait(postcopy *p, uint32_t type)
{
	struct postcopy_event e = { .size = sizeof(e) };

	do {
		int ret = postcopy_wait(p, &e, 60000);

		if (ret < 0 || e.type == POSTCOPY_EVENT_FAILED)
			return session_fail("waiting", e.text[0] ? e.text : postcopy_strerror(p));
		if (e.type == POSTCOPY_EVENT_PACKAGE) {
			close(e.package_fd);
			postcopy_loaded(p);
		}
		if (e.type == POSTCOPY_EVENT_DMA_RANGE)
			postcopy_dma_mapped(p, e.gate, e.iova, 0);
	} while (e.type != type);
	return 0;
}
