/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Only declarations, checked for what can be known without looking at the process: that a file is
 * memory userfaultfd can serve, that lengths and page sizes fit it, that names are unique within a
 * sharer.  Whether two sharers mean the same bytes is decided by device, inode and offset
 * (offer_same()), never by an address or a name that somebody sent.  Whether a sharer maps what it
 * says is prove.c's to find out.
 */
#include "config.h"
#include "daemon/registry.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/guard.h"
#include "sys/fd.h"

/**
 * client_new - a client of which nothing is known; it owns no descriptor yet
 */
struct client *client_new(void)
{
	struct client *c = g_new0(struct client, 1);

	c->pidfd = c->uffd = c->slot = -1;
	return c;
}

/**
 * client_copy - its data for another thread
 */
struct client *client_copy(const struct client *c)
{
	struct client *copy = g_memdup2(c, sizeof(*c));

	for (unsigned i = 0; i < copy->n_offers; i++)
		copy->offer[i].file = -1;
	copy->pidfd = -1;
	copy->uffd = c->uffd >= 0 ? fcntl(c->uffd, F_DUPFD_CLOEXEC, 0) : -1;
	return copy;
}

/**
 * client_free - close every descriptor it owns, its userfaultfd included
 */
void client_free(struct client *c)
{
	for (unsigned i = 0; i < c->n_offers; i++)
		close_fd(&c->offer[i].file);
	close_fd(&c->pidfd);
	close_fd(&c->uffd);
	g_free(c);
}

/**
 * client_find - index of the offer of a block by name, or -ENOENT
 */
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

/**
 * client_offer - a shared block is declared
 * @length, @file_offset: bytes in the file, multiples of its page size
 * @page_size: bytes; 0: that of the file, otherwise it must be that
 * @file: owned from here on, in any case
 *
 * Return: 0; -EEXIST for a name declared before, -ENOSPC, -EINVAL when the file is no memory that
 * can be served or too short, -EACCES when it cannot be written through @file, another -errno of
 * the kernel.
 */
int client_offer(struct client *c, const char *name, uint64_t length, uint64_t page_size,
		 uint64_t file_offset, int file)
{
	cleanup_fd int owned = file;
	struct offer o = { .length = length, .file = file, .file_offset = file_offset };
	int ret = mem_identify(file, &o.identity);

	if (ret < 0)
		return ret;
	if (!mem_writable(file))
		return -EACCES;
	o.page_size = o.identity.page_size;
	if ((page_size && page_size != o.page_size) || file_offset % o.page_size ||
	    !range_inside(file_offset, length, o.identity.size))
		return -EINVAL;
	ret = add_offer(c, name, &o);
	if (ret == 0)
		steal_fd(&owned);
	return ret;
}

/**
 * client_offer_private - a block of anonymous memory is declared, which no other sharer can have
 * @page_size: bytes; 0: the system's
 *
 * Return: as client_offer().
 */
int client_offer_private(struct client *c, const char *name, uint64_t length, uint64_t page_size)
{
	struct offer o = { .length = length, .page_size = page_size, .private = true, .file = -1 };

	if (o.page_size == 0)
		o.page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	return add_offer(c, name, &o);
}

/**
 * offer_overlaps - is some byte in both?
 *
 * One byte in two blocks would get the content of whichever comes last.
 */
bool offer_overlaps(const struct offer *a, const struct offer *b)
{
	return !a->private && !b->private && a->identity.dev == b->identity.dev &&
	       a->identity.inode == b->identity.inode &&
	       a->file_offset < b->file_offset + b->length &&
	       b->file_offset < a->file_offset + a->length;
}

/**
 * offer_same - do both stand for the same bytes?
 *
 * Private memory is nobody else's, so never.
 */
bool offer_same(const struct offer *a, const struct offer *b)
{
	return !a->private && !b->private && a->identity.dev == b->identity.dev &&
	       a->identity.inode == b->identity.inode && a->file_offset == b->file_offset &&
	       a->length == b->length;
}
