/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_CTL_FAULT_H
#define PC_TOOLS_CTL_FAULT_H
/* postcopyctl fault: what a postcopyd is to do wrong, and how often it did. */
#include <stdbool.h>
#include "tools/ctl_client.h"

/* What stands behind --NAME; NULL: it was not given. */
struct ctl_fault_options {
	char *page, *sharer, *every, *probability, *after, *count;
};

/* Are these the words of a command, and are the options for it?  Of none: list. */
bool ctl_fault_check(char *const *words, const struct ctl_fault_options *o);
/* Has any been given? */
bool ctl_fault_given(const struct ctl_fault_options *o);
void ctl_fault_clear(struct ctl_fault_options *o);
/* Do it and print what is to be printed.  0, or -errno with c->error. */
int ctl_fault_run(struct ctl_client *c, char *const *words, const struct ctl_fault_options *o,
		  bool json);

#endif
