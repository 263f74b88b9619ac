/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhostcheck: what wire/vhostmsg says of a recorded conversation.  A line in:
 *	> or <, form (plain, bases, bases_ack), protocol features, descriptors, bytes in hexadecimal
 * and one out for each: "NAME ok ANSWER", ANSWER being silence, ack or data; or "NAME error: TEXT".
 */
#include "config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/guard.h"
#include "wire/vhostmsg.h"

static const char *const forms[] = { "plain", "bases", "bases_ack" };
static const char *const answers[] = { "silence", "ack", "data" };

static size_t from_hex(const char *text, uint8_t *out, size_t room)
{
	size_t n = 0;
	unsigned byte;

	for (; n < room && sscanf(text + 2 * n, "%2x", &byte) == 1; n++)
		out[n] = (uint8_t)byte;
	return n;
}

static struct vhostmsg_terms terms_of(const char *form, uint64_t protocol)
{
	struct vhostmsg_terms terms = { .protocol = protocol };

	for (unsigned i = 0; i < ARRAY_LEN(forms); i++)
		if (!strcmp(form, forms[i]))
			terms.form = (enum vhostmsg_form)i;
	return terms;
}

/* NULL or what is wrong. */
static const char *check(const struct vhostmsg *m, struct vhostmsg *asked,
			 const struct vhostmsg_terms *terms, bool reply)
{
	const char *why = NULL;

	if (vhostmsg_check_head(&m->head, VHOSTMSG_TO_BACKEND, reply, &why))
		return why;
	if (reply) {
		vhostmsg_check_reply(m, asked, VHOSTMSG_TO_BACKEND, terms, &why);
		return why;
	}
	vhostmsg_check(m, VHOSTMSG_TO_BACKEND, terms, &why);
	if (!why)
		*asked = *m;
	return why;
}

static void judge(const char *line, struct vhostmsg *asked)
{
	static char hex[2 * (VHOSTMSG_BODY_MAX + 12) + 1];
	uint8_t bytes[VHOSTMSG_BODY_MAX + 12];
	struct vhostmsg_terms terms;
	struct vhostmsg m = { 0 };
	const char *name, *wrong;
	uint64_t protocol;
	char way, form[16];
	size_t n;

	if (sscanf(line, "%c %15s %" SCNx64 " %u %8216s", &way, form, &protocol, &m.fds, hex) != 5)
		exit(2);
	n = from_hex(hex, bytes, sizeof(bytes));
	if (n < sizeof(m.head))
		exit(2);
	memcpy(&m.head, bytes, sizeof(m.head));
	if (n != sizeof(m.head) + m.head.size)
		exit(2);
	memcpy(&m.body, bytes + sizeof(m.head), m.head.size);
	terms = terms_of(form, protocol);
	name = vhostmsg_name(VHOSTMSG_TO_BACKEND, m.head.request);
	wrong = check(&m, asked, &terms, way == '<');
	if (wrong)
		printf("%s error: %s\n", name, wrong);
	else
		printf("%s ok %s\n", name,
		       answers[vhostmsg_expects(asked, VHOSTMSG_TO_BACKEND, &terms)]);
}

int main(void)
{
	static char line[20000];
	struct vhostmsg asked = { .head = { .request = VHOSTMSG_GET_FEATURES,
					    .flags = VHOSTMSG_VERSION } };

	while (fgets(line, sizeof(line), stdin))
		judge(line, &asked);
	return 0;
}
