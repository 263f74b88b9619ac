/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include "wire/vfioterms.h"

#include <errno.h>
#include <stdlib.h>

#include "core/guard.h"
#include "wire/jsonmsg.h"

#define PGSIZE_MAX (UINT64_C(1) << 30)

struct vfioterms vfioterms_default(void)
{
	return (struct vfioterms){
		.max_data = VFIOMSG_DATA_DEFAULT,
		.max_fds = VFIOTERMS_FDS_DEFAULT,
		.pgsize = VFIOTERMS_PGSIZE,
	};
}

static int refuse(const char *text, const char **why)
{
	if (why)
		*why = text;
	return -EBADMSG;
}

/* A whole number from @least to @most; *out stays as it is when there is no such member. */
static bool number(const struct jsonmsg *object, const char *key, uint64_t least, uint64_t most,
		   uint64_t *out)
{
	const struct jsonmsg *v = jsonmsg_member(object, key);
	uint64_t n;

	if (!v)
		return true;
	n = jsonmsg_u64(object, key, UINT64_MAX); /* of another kind, or negative */
	if (n < least || n > most)
		return false;
	*out = n;
	return true;
}

static bool is_object(const struct jsonmsg *v)
{
	return !v || jsonmsg_kind(v) == JSONMSG_OBJECT;
}

static int read_twin(struct vfioterms *t, const struct jsonmsg *twin, const char **why)
{
	const struct jsonmsg *supported = jsonmsg_member(twin, "supported");

	if (!is_object(twin) || (supported && jsonmsg_kind(supported) != JSONMSG_BOOL))
		return refuse("twin_socket does not say whether it is supported", why);
	t->twin = jsonmsg_bool(twin, "supported", false);
	t->twin_fd = jsonmsg_member(twin, "fd_index") != NULL;
	if (!number(twin, "fd_index", 0, VFIOMSG_FDS - 1, &t->twin_index))
		return refuse("twin_socket has a descriptor that cannot have come", why);
	return 0;
}

static int read_capabilities(struct vfioterms *t, const struct jsonmsg *c, const char **why)
{
	const struct jsonmsg *migration = jsonmsg_member(c, "migration");

	if (!is_object(c) || !is_object(migration))
		return refuse("capabilities are no object", why);
	if (!number(c, "max_msg_fds", 0, VFIOTERMS_FDS_MAX, &t->max_fds))
		return refuse("max_msg_fds is out of bounds", why);
	if (!number(c, "max_data_xfer_size", 1, UINT32_MAX, &t->max_data))
		return refuse("max_data_xfer_size is out of bounds", why);
	if (!number(migration, "pgsize", VFIOTERMS_PGSIZE, PGSIZE_MAX, &t->pgsize) ||
	    !is_power_of_two(t->pgsize))
		return refuse("pgsize is no size of pages", why);
	return read_twin(t, jsonmsg_member(c, "twin_socket"), why);
}

/**
 * vfioterms_read - what a peer says of itself
 * @len: 0 for a peer that says nothing
 */
int vfioterms_read(struct vfioterms *t, const void *text, size_t len, const char **why)
{
	cleanup_jsonmsg struct jsonmsg *said = NULL;
	const char *text_why = NULL;

	*t = vfioterms_default();
	if (len == 0)
		return 0;
	if (((const char *)text)[len - 1] != '\0')
		return refuse("capabilities do not end with a NUL", why);
	if (jsonmsg_parse(&said, text, len - 1, &text_why))
		return refuse(text_why, why);
	if (jsonmsg_kind(said) != JSONMSG_OBJECT)
		return refuse("capabilities are no object", why);
	return read_capabilities(t, jsonmsg_member(said, "capabilities"), why);
}

static void put_twin(struct jsonmsg_writer *w, const struct vfioterms *t)
{
	jsonmsg_begin_object(w, "twin_socket");
	jsonmsg_put_bool(w, "supported", t->twin);
	if (t->twin_fd)
		jsonmsg_put_u64(w, "fd_index", t->twin_index);
	jsonmsg_end(w);
}

/**
 * vfioterms_print - what we say of ourselves
 */
char *vfioterms_print(const struct vfioterms *t, size_t *len)
{
	cleanup_jsonmsg_writer struct jsonmsg_writer *w = jsonmsg_writer_new();
	char *line;

	jsonmsg_begin_object(w, NULL);
	jsonmsg_begin_object(w, "capabilities");
	jsonmsg_put_u64(w, "max_msg_fds", t->max_fds);
	jsonmsg_put_u64(w, "max_data_xfer_size", t->max_data);
	jsonmsg_begin_object(w, "migration");
	jsonmsg_put_u64(w, "pgsize", t->pgsize);
	jsonmsg_end(w);
	put_twin(w, t);
	jsonmsg_end(w);
	jsonmsg_end(w);
	line = jsonmsg_finish(w, len);
	if (!line)
		return NULL;
	line[*len - 1] = '\0'; /* in the place of the end of the line */
	return line;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/**
 * vfioterms_agree - what two ends agree on: of each bound the lower one
 */
struct vfiomsg_terms vfioterms_agree(const struct vfioterms *ours, const struct vfioterms *theirs)
{
	return (struct vfiomsg_terms){
		.max_data = (uint32_t)lesser(ours->max_data, theirs->max_data),
		.max_fds = (uint32_t)lesser(ours->max_fds, theirs->max_fds),
	};
}
