/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "config.h"
#include "daemon/registry.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"

struct client *client_new(void)
{
	struct client *c = g_new0(struct client, 1);

	c->pidfd = c->uffd = -1;
	return c;
}

void client_free(struct client *c)
{
	for (unsigned i = 0; i < c->n_offers; i++)
		close_fd(&c->offer[i].file);
	close_fd(&c->pidfd);
	close_fd(&c->uffd);
	g_free(c);
}

int client_find(const struct client *c, const char *name)
{
	for (unsigned i = 0; i < c->n_offers; i++)
		if (strcmp(c->offer[i].name, name) == 0)
			return (int)i;
	return -ENOENT;
}

static int add_offer(struct client *c, const char *name, struct offer *o)
{
	if (client_find(c, name) >= 0)
		return -EEXIST;
	if (c->n_offers == REGISTRY_BLOCKS)
		return -ENOSPC;
	if (!is_power_of_two(o->page_size) || o->length == 0 || o->length % o->page_size)
		return -EINVAL;
	g_strlcpy(o->name, name, sizeof(o->name));
	c->offer[c->n_offers++] = *o;
	return 0;
}

int client_offer(struct client *c, const char *name, uint64_t length, uint64_t page_size, uint64_t file_offset, int file)
{
	cleanup_fd int owned = file;
	struct offer o = { .length = length, .file = file, .file_offset = file_offset };
	int ret = mem_identify(file, &o.identity);

	if (ret < 0)
		return ret;
	o.page_size = o.identity.page_size;
	if ((page_size && page_size != o.page_size) || file_offset % o.page_size ||
	    !range_inside(file_offset, length, o.identity.size))
		return -EINVAL;
	ret = add_offer(c, name, &o);
	if (ret == 0)
		steal_fd(&owned);
	return ret;
}

int client_offer_private(struct client *c, const char *name, uint64_t length, uint64_t page_size)
{
	struct offer o = { .length = length, .page_size = page_size, .private = true, .file = -1 };

	if (o.page_size == 0)
		o.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	return add_offer(c, name, &o);
}

bool offer_same(const struct offer *a, const struct offer *b)
{
	return !a->private && !b->private && a->identity.dev == b->identity.dev &&
	       a->identity.inode == b->identity.inode && a->file_offset == b->file_offset && a->length == b->length;
}
