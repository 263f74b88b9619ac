/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of the stream that are not decoded record by record: the package with the device state,
 * the naked device state of a migration that finished as precopy, and XBZRLE deltas.
 *
 * Device sections have no length, so both kinds of device state are cut from outside.  The package
 * begins with LISTEN and ends with PINGs and RUN; what is between belongs to the devices.  A PING
 * cannot be taken for the end of a device section that has a footer: the footer's 0x7e would stand
 * where the PING's length has a 4.
 *
 * The naked state ends with a zero byte and QEMU's description of it: 0x06, be32 length, JSON.  The
 * source then waits for our answer, so the description ends where the bytes end, and it is the only
 * place where a length in front of an object reaches exactly that far.  JSON has no control
 * characters, so an object that begins inside the device state cannot reach across the real one's
 * head.
 */
#include "config.h"

#include "wire/qstream.h"

#include "core/guard.h"
#include "wire/qstream_parts.h"

#define PING_LEN   (COMMAND_LEN + 4)
#define TAIL_HEAD  6u /* EOF, 0x06, be32 length */
#define JSON_DEPTH 64

static bool is_command(const uint8_t *at, uint16_t cmd, uint16_t len)
{
	return at[0] == TYPE_COMMAND && qstream_be16(at + 1) == cmd && qstream_be16(at + 3) == len;
}

static void reverse(uint32_t *v, unsigned n)
{
	for (unsigned i = 0; i < n / 2; i++) {
		uint32_t other = v[n - 1 - i];

		v[n - 1 - i] = v[i];
		v[i] = other;
	}
}

/**
 * qstream_package - split a whole package body
 * @body, @len: all bytes that PACKAGED announced; @out points into them
 * @out: the device state between LISTEN and the closing PINGs, and what those ask for
 *
 * Return: 0, or -EPROTO for a body that does not begin with LISTEN and end with RUN, or ends with
 * more PINGs than any source sends.
 */
int qstream_package(const uint8_t *body, size_t len, struct qstream_package *out)
{
	const uint8_t *device, *end;

	*out = (struct qstream_package){0};
	if (len < 2 * COMMAND_LEN)
		return -EPROTO;
	device = body + COMMAND_LEN;
	end = body + len - COMMAND_LEN;
	if (!is_command(body, QCMD_LISTEN, 0) || !is_command(end, QCMD_RUN, 0))
		return -EPROTO;
	while ((size_t)(end - device) >= PING_LEN && is_command(end - PING_LEN, QCMD_PING, 4)) {
		if (out->n_pings == ARRAY_LEN(out->pings))
			return -EPROTO;
		end -= PING_LEN;
		out->pings[out->n_pings] = qstream_be32(end + COMMAND_LEN);
		out->has_commit_ping |= out->pings[out->n_pings] == QSTREAM_COMMIT_PING;
		out->n_pings++;
	}
	reverse(out->pings, out->n_pings);
	out->device = device;
	out->device_len = (size_t)(end - device);
	return 0;
}

/* Enough of a JSON reader to tell one whole object from anything else. */
struct json {
	uint64_t arrays; /* bit n: the open bracket at depth n + 1 is [ */
	unsigned depth;
	bool in_string, escaped;
};

static bool json_in_string(struct json *j, uint8_t c)
{
	if (j->escaped)
		j->escaped = false;
	else if (c == '\\')
		j->escaped = true;
	else if (c == '"')
		j->in_string = false;
	return true;
}

static bool json_open(struct json *j, bool array)
{
	if (j->depth == JSON_DEPTH)
		return false;
	j->arrays = j->arrays << 1 | array;
	j->depth++;
	return true;
}

static bool json_close(struct json *j, bool array)
{
	if (j->depth == 0 || (j->arrays & 1) != array)
		return false;
	j->arrays >>= 1;
	j->depth--;
	return true;
}

static bool json_feed(struct json *j, uint8_t c)
{
	if (c < ' ')
		return false;
	if (j->in_string)
		return json_in_string(j, c);
	switch (c) {
	case '"':
		j->in_string = true;
		return true;
	case '{':
	case '[':
		return json_open(j, c == '[');
	case '}':
	case ']':
		return json_close(j, c == ']');
	default:
		return true;
	}
}

/* One object, brackets paired, and nothing behind it. */
static bool is_json_object(const uint8_t *text, size_t len)
{
	struct json j = {0};

	if (len < 2 || text[0] != '{' || text[len - 1] != '}')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!json_feed(&j, text[i]) || (j.depth == 0 && i + 1 < len))
			return false;
	return j.depth == 0 && !j.in_string;
}

/* Does the description reach from here exactly to the end of what came? */
static bool is_tail(const uint8_t *at, size_t left)
{
	return at[0] == TYPE_EOF && at[1] == TYPE_VMDESCRIPTION &&
	       qstream_be32(at + 2) == left - TAIL_HEAD &&
	       is_json_object(at + TAIL_HEAD, left - TAIL_HEAD);
}

/**
 * qstream_tail - where does the naked device state end?
 * @buf, @len: everything from QSTREAM_TAIL on
 * @device_len: bytes up to, not with, the EOF byte; set when found
 *
 * The source sends nothing behind its description and waits, so the description ends where the
 * bytes end or the buffer is not complete.  One that does not end with a brace is settled by that;
 * else every byte is looked at.
 *
 * Return: 1 found, 0 read more.
 */
int qstream_tail(const uint8_t *buf, size_t len, size_t *device_len)
{
	if (len < TAIL_HEAD + 2 || buf[len - 1] != '}')
		return 0;
	for (size_t i = 0; i + TAIL_HEAD + 2 <= len; i++) {
		if (!is_tail(buf + i, len - i))
			continue;
		*device_len = i;
		return 1;
	}
	return 0;
}

/* Length of a run: one byte, or two with 7 bits each; longer ones do not fit a page. */
static uint32_t take_run(struct cursor *c)
{
	uint32_t low = cursor_u8(c), high;

	if (!(low & 0x80))
		return low;
	high = cursor_u8(c);
	return high & 0x80 ? UINT32_MAX : high << 7 | (low & 0x7f);
}

/**
 * qstream_xbzrle - apply a delta onto the content that a page has
 * @page, @page_len: the target page
 * @delta, @len: pairs of runs: so many bytes stay, so many are new, the new bytes
 *
 * Return: 0, or -EPROTO for a delta that is malformed or reaches past the page, which then has some
 * of it.
 */
int qstream_xbzrle(uint8_t *page, size_t page_len, const uint8_t *delta, size_t len)
{
	struct cursor c = cursor_init(delta, len);
	size_t at = 0;

	for (bool first = true; cursor_left(&c) > 0; first = false) {
		uint32_t same = take_run(&c);
		uint32_t changed = take_run(&c);
		const uint8_t *bytes = cursor_bytes(&c, changed);

		if (c.bad || changed == 0 || (same == 0 && !first))
			return -EPROTO;
		if (same > page_len - at || changed > page_len - at - same)
			return -EPROTO;
		memcpy(page + at + same, bytes, changed);
		at += same + changed;
	}
	return 0;
}
