/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The device part is a row of sections without lengths, of devices that are nobody's business here,
 * so the section is searched for.  What a guest can put into a device's state could look like it:
 * the search is for the whole section, from the footer of the one before it to its own footer, and
 * two that fit mean that nothing is known.  A guest that forges one where the source sends none at
 * all (machine types before 2.5) can have itself called running; it gains that its own VM is run.
 *
 *   04 be32 id 0b "globalstate" be32 0 be32 1 | be32 size, text[100] | 7e be32 id
 *
 * size counts the text's NUL.  From 9.0 on the text's field is 32 bytes, followed by two flags.
 */
#include "config.h"

#include "wire/qglobalstate.h"

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define IDSTR	    "globalstate"
#define IDSTR_LEN   (sizeof(IDSTR) - 1)
#define HEAD_LEN    (1 + 4 + 1 + IDSTR_LEN + 4 + 4)
#define FIELD_LEN   100u
#define SECTION_LEN (HEAD_LEN + 4 + FIELD_LEN + FOOTER_LEN)
#define FLAGS_AT    32u /* in the field: is there a flag, the flag */

/* What QEMU's versions say, and whether a VM that was so may be run by us. */
static const struct {
	const char *text;
	enum qglobalstate_run run;
} states[] = {
	{"running", QGLOBALSTATE_RUNNING},
	{"paused", QGLOBALSTATE_STOPPED},
	{"suspended", QGLOBALSTATE_STOPPED},
	{"shutdown", QGLOBALSTATE_STOPPED},
	{"prelaunch", QGLOBALSTATE_STOPPED},
	{"debug", QGLOBALSTATE_STOPPED},
	{"io-error", QGLOBALSTATE_STOPPED},
	{"internal-error", QGLOBALSTATE_STOPPED},
	{"watchdog", QGLOBALSTATE_STOPPED},
	{"guest-panicked", QGLOBALSTATE_STOPPED},
	{"postmigrate", QGLOBALSTATE_STOPPED},
	{"finish-migrate", QGLOBALSTATE_STOPPED},
	{"restore-vm", QGLOBALSTATE_STOPPED},
	{"save-vm", QGLOBALSTATE_STOPPED},
	{"inmigrate", QGLOBALSTATE_STOPPED},
	{"colo", QGLOBALSTATE_STOPPED},
};

static enum qglobalstate_run unknown(struct qglobalstate *out, const char *reason)
{
	*out = (struct qglobalstate){ .run = QGLOBALSTATE_UNKNOWN,
				      .text = "unknown",
				      .reason = reason };
	return out->run;
}

/* Does the head of the section stand here, with room for all of it behind? */
static bool is_head(const uint8_t *at, size_t left)
{
	static const uint8_t versions[] = {0, 0, 0, 0, 0, 0, 0, 1};

	return left >= SECTION_LEN && at[0] == TYPE_FULL && at[5] == IDSTR_LEN &&
	       !memcmp(at + 6, IDSTR, IDSTR_LEN) &&
	       !memcmp(at + 6 + IDSTR_LEN, versions, sizeof(versions));
}

/* A section begins where the device part does or behind a footer, and ends with its own. */
static bool is_section(const uint8_t *start, const uint8_t *at, size_t left)
{
	const uint8_t *footer = at + SECTION_LEN - FOOTER_LEN;

	if (!is_head(at, left) || footer[0] != TYPE_FOOTER || memcmp(footer + 1, at + 1, 4))
		return false;
	if (left > SECTION_LEN && at[SECTION_LEN] != TYPE_FULL)
		return false;
	return at == start || (at - start > FOOTER_LEN && at[-(int)FOOTER_LEN] == TYPE_FOOTER);
}

/* The one section, NULL when there is none or another after it. */
static const uint8_t *find_section(const uint8_t *device, size_t len, const char **reason)
{
	const uint8_t *found = NULL;

	*reason = "the source's device state has no section globalstate";
	for (size_t i = 0; len - i >= SECTION_LEN && i < len; i++) {
		if (!is_section(device, device + i, len - i))
			continue;
		*reason = found ? "the source's device state has two sections globalstate" : NULL;
		if (found)
			return NULL;
		found = device + i;
	}
	return found;
}

/* A text of @size bytes with its NUL, and nothing behind it in its field. */
static bool text_is_whole(const uint8_t *field, uint32_t size)
{
	if (size < 2 || size > QGLOBALSTATE_TEXT_MAX || field[size - 1] != 0)
		return false;
	if (memchr(field, 0, size - 1))
		return false;
	for (uint32_t i = size; i < QGLOBALSTATE_TEXT_MAX; i++)
		if (field[i])
			return false;
	return true;
}

static enum qglobalstate_run name_state(struct qglobalstate *out)
{
	for (size_t i = 0; i < ARRAY_LEN(states); i++)
		if (!strcmp(states[i].text, out->text))
			return out->run = states[i].run;
	return unknown(out, "the source's run state is none that is known");
}

/**
 * qglobalstate_find - what did the source's VM do before it was stopped?
 * @device, @len: the device part of a package, or a naked one up to its EOF
 * @out: set in any case
 *
 * Return: out->run; QGLOBALSTATE_UNKNOWN with out->reason for anything that is not exactly one
 * section with a state that is known.
 */
enum qglobalstate_run qglobalstate_find(const uint8_t *device, size_t len, struct qglobalstate *out)
{
	const char *reason;
	const uint8_t *section = len >= SECTION_LEN ? find_section(device, len, &reason) : NULL;
	const uint8_t *field;
	uint32_t size;

	*out = (struct qglobalstate){0};
	if (len < SECTION_LEN)
		return unknown(out,
			       "the source's device state is too short for a section globalstate");
	if (!section)
		return unknown(out, reason);
	size = qstream_be32(section + HEAD_LEN);
	field = section + HEAD_LEN + 4;
	if (!text_is_whole(field, size))
		return unknown(out, "the source's section globalstate holds no text");
	memcpy(out->text, field, size);
	out->was_suspended = field[FLAGS_AT] == 1 && field[FLAGS_AT + 1] == 1;
	return name_state(out);
}
