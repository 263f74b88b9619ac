/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * smaps prints, per mapping, the head line of maps, then lines "Name: value", the last of which is
 * VmFlags.
 */
#include "config.h"

#include "sys/maps_text.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "core/guard.h"

/* --- lines --- */

/* The value of a digit as the kernel prints it, or something larger than any base. */
static unsigned digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	return c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10 : 99;
}

/* A number that ends with @end, which is skipped. */
static bool take_number(const char **line, unsigned base, char end, uint64_t *out)
{
	const char *p = *line;

	for (*out = 0; digit(*p) < base; p++)
		if (__builtin_mul_overflow(*out, base, out) ||
		    __builtin_add_overflow(*out, digit(*p), out))
			return false;
	if (p == *line || *p != end)
		return false;
	*line = p + 1;
	return true;
}

static bool take_permissions(const char **line, struct maps_vma *vma)
{
	const char *p = *line;

	if (strcspn(p, " \n") != 4 || p[4] != ' ')
		return false;
	vma->readable = p[0] == 'r';
	vma->writable = p[1] == 'w';
	vma->shared = p[3] == 's';
	*line = p + 5;
	return true;
}

/* The last number of the line that is read; a name may follow. */
static bool take_inode(const char *line, uint64_t *inode)
{
	const char *p = line;

	return take_number(&p, 10, line[strspn(line, "0123456789")], inode) && strchr(" \n", p[-1]);
}

/**
 * maps_text_vma - read the head line of a mapping
 * @vma: filled when it is one
 *
 * Names (with spaces, escaped newlines, " (deleted)") are not looked at: they prove nothing.  By
 * hand, since a look reads thousands of lines.
 *
 * Return: false for any other line.
 */
bool maps_text_vma(const char *line, struct maps_vma *vma)
{
	uint64_t major, minor;

	if (!take_number(&line, 16, '-', &vma->start) || !take_number(&line, 16, ' ', &vma->end) ||
	    vma->start >= vma->end)
		return false;
	if (!take_permissions(&line, vma) || !take_number(&line, 16, ' ', &vma->offset))
		return false;
	if (!take_number(&line, 16, ':', &major) || !take_number(&line, 16, ' ', &minor) ||
	    !take_inode(line, &vma->inode))
		return false;
	vma->dev = makedev((unsigned)major, (unsigned)minor);
	vma->uffd_missing = false;
	return true;
}

bool maps_text_flags(const char *line, bool *um)
{
	static const char key[] = "VmFlags:";

	if (strncmp(line, key, strlen(key)) != 0)
		return false;
	*um = false;
	for (const char *p = line + strlen(key); *p; p += strcspn(p, " \n")) {
		p += strspn(p, " \n");
		if (strncmp(p, "um", 2) == 0 && strcspn(p, " \n") == 2)
			*um = true;
	}
	return true;
}

/* getline() that tells an error from the end: 1, 0 or -errno. */
static int next_line(FILE *f, char **line, size_t *size)
{
	errno = 0;
	if (getline(line, size, f) >= 0)
		return 1;
	if (errno)
		return -errno;
	return ferror(f) ? -EIO : 0;
}

/* The next mapping of smaps with its flags: 1, 0 at the end, or -errno. */
static int next_flagged(FILE *smaps, char **line, size_t *size, struct maps_vma *vma)
{
	struct maps_vma head = { 0 };
	bool um;
	int rc;

	while ((rc = next_line(smaps, line, size)) > 0) {
		struct maps_vma found;

		if (maps_text_vma(*line, &found)) {
			head = found;
		} else if (maps_text_flags(*line, &um) && head.end) {
			*vma = head;
			vma->uffd_missing = um;
			return 1;
		}
	}
	return rc;
}

/* --- whole texts --- */

int maps_list_add(struct maps_list *l, const struct maps_vma *vma)
{
	if (l->n == l->room) {
		size_t room = l->room ? 2 * l->room : 8;
		void *grown = reallocarray(l->vma, room, sizeof(*vma));

		if (!grown)
			return -ENOMEM;
		l->vma = grown;
		l->room = room;
	}
	l->vma[l->n++] = *vma;
	return 0;
}

static int collect(FILE *maps, uint64_t dev, uint64_t inode, struct maps_list *l)
{
	cleanup_free char *line = NULL;
	struct maps_vma vma;
	size_t size = 0;
	int rc;

	while ((rc = next_line(maps, &line, &size)) > 0) {
		if (!maps_text_vma(line, &vma) || vma.inode != inode || vma.dev != dev)
			continue;
		rc = maps_list_add(l, &vma);
		if (rc < 0)
			break;
	}
	return rc;
}

int maps_text_of_file(FILE *maps, uint64_t dev, uint64_t inode, struct maps_vma **out)
{
	struct maps_list l = { 0 };
	int rc = collect(maps, dev, inode, &l);

	if (rc < 0) {
		free(l.vma);
		return rc;
	}
	*out = l.vma;
	return (int)l.n;
}

int maps_text_proven(FILE *smaps, uint64_t start, uint64_t end, uint64_t *at)
{
	cleanup_free char *line = NULL;
	struct maps_vma vma;
	size_t size = 0;
	int rc = 1;

	*at = start;
	while (*at < end && (rc = next_flagged(smaps, &line, &size, &vma)) > 0) {
		if (vma.end <= *at)
			continue;
		if (vma.start > *at || !vma.uffd_missing)
			return 0;
		*at = vma.end;
	}
	return rc;
}

int maps_text_released(FILE *smaps, uint64_t start, uint64_t end)
{
	cleanup_free char *line = NULL;
	struct maps_vma vma;
	size_t size = 0;
	int rc;

	/* In the order of their addresses; each one costs a walk of its page tables. */
	while ((rc = next_flagged(smaps, &line, &size, &vma)) > 0 && vma.start < end)
		if (vma.uffd_missing && vma.end > start)
			return 0;
	return rc < 0 ? rc : 1;
}

/*
 * Does the address space map the file?  1, 0, -ENODATA when it is empty, or -errno.
 */
int maps_text_uses(FILE *maps, uint64_t dev, uint64_t inode)
{
	cleanup_free char *line = NULL;
	size_t size = 0, lines = 0;
	struct maps_vma vma;
	int rc;

	for (; (rc = next_line(maps, &line, &size)) > 0; lines++)
		if (maps_text_vma(line, &vma) && vma.inode == inode && vma.dev == dev)
			return 1;
	return rc == 0 && lines == 0 ? -ENODATA : rc;
}

int maps_text_at(FILE *maps, uint64_t address, struct maps_vma *out)
{
	cleanup_free char *line = NULL;
	size_t size = 0;
	int rc;

	while ((rc = next_line(maps, &line, &size)) > 0)
		if (maps_text_vma(line, out) && address >= out->start && address < out->end)
			return 1;
	return rc;
}
