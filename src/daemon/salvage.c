/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is here of a VM, saved: for whose source is gone, or who wants to look.
 *
 * The memory is somebody else's, so it is read as its owner would read it, and nothing is asked of
 * the fault thread but its ledger, whose words may be read at any time.  So nothing waits for a
 * salvage, however slow the disk is; and what it shows is no moment, unless the VM stands still:
 * the index says in which state the session was.
 *
 * A folder is made beside the one that was asked for, filled, and given its name when all of it is
 * on the disk.  So a folder of that name is whole, and whatever goes wrong leaves nothing.
 */
#include "config.h"
#include "daemon/salvage_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gio/gio.h>

#include "core/guard.h"
#include "sys/fd.h"

struct salvage {
	void (*ended)(void *ctx);
	void *ctx;
	GThread *thread;		/* NULL: none is under way */
	guint over;			/* the idle source of its end; behind join() */
	struct salvage_job *job;	/* the last one; NULL */
	bool done;			/* the last one has ended */
	char said[640];
};

/* --- the job ---------------------------------------------------------------------------------- */

int salvage_fail(struct salvage_job *j, int error, const char *fmt, ...)
{
	va_list args;
	int n;

	if (j->error[0])
		return -1;
	va_start(args, fmt);
	n = vsnprintf(j->error, sizeof(j->error), fmt, args);
	va_end(args);
	if (n > 0 && (size_t)n < sizeof(j->error))
		snprintf(j->error + n, sizeof(j->error) - (size_t)n, ": %s", g_strerror(error));
	return -1;
}

int salvage_write(struct salvage_job *j, int fd, const void *bytes, size_t len, uint64_t at)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pwrite(fd, (const uint8_t *)bytes + done, len - done,
				   (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return salvage_fail(j, n < 0 ? errno : EIO, "writing");
		done += (size_t)n;
	}
	return 0;
}

static int create(struct salvage_job *j, const char *name)
{
	g_autofree char *path = g_build_filename(j->partial, name, NULL);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	return fd < 0 ? salvage_fail(j, errno, "%s", path) : fd;
}

/* A file with these bytes, on the disk. */
static int save_file(struct salvage_job *j, const char *name, const void *bytes, size_t len)
{
	cleanup_fd int fd = create(j, name);

	if (fd < 0 || salvage_write(j, fd, bytes, len, 0) < 0)
		return -1;
	return fsync(fd) < 0 ? salvage_fail(j, errno, "%s", name) : 0;
}

static int write_pen(struct salvage_job *j, const struct pen *p, uint64_t at)
{
	if (p->bad)
		return salvage_fail(j, EOVERFLOW, "a head of the migration file");
	return salvage_write(j, j->out, p->start, pen_used(p), at);
}

static int write_heads(struct salvage_job *j)
{
	uint8_t head[QMAPPED_HEAD_MAX];
	struct pen p = pen_init(head, sizeof(head));

	qmapped_put_head(&p, &j->plan);
	if (write_pen(j, &p, 0) < 0)
		return -1;
	for (unsigned i = 0; i < j->n_blocks; i++) {
		p = pen_init(head, sizeof(head));
		qmapped_put_block(&p, &j->plan, i);
		if (write_pen(j, &p, j->layout[i].head_at) < 0)
			return -1;
	}
	return 0;
}

/* Behind the memory: the state of devices, as it came, and the end. */
static int write_end(struct salvage_job *j)
{
	uint8_t head[QMAPPED_HEAD_MAX];
	struct pen p = pen_init(head, sizeof(head));
	uint64_t at = j->plan.end_at;

	qmapped_put_ram_end(&p, &j->plan);
	if (write_pen(j, &p, at) < 0)
		return -1;
	at += pen_used(&p);
	for (uint64_t done = 0; done < j->device_len;) {
		size_t len = MIN(j->device_len - done, SALVAGE_BUFFER);
		ssize_t n = pread(j->package, j->buffer, len, (off_t)(j->device_at + done));

		if (n <= 0)
			return salvage_fail(j, n < 0 ? errno : EIO, "reading the device state");
		if (salvage_write(j, j->out, j->buffer, (size_t)n, at) < 0)
			return -1;
		done += (uint64_t)n;
		at += (uint64_t)n;
	}
	p = pen_init(head, sizeof(head));
	qmapped_put_tail(&p);
	return write_pen(j, &p, at);
}

static int save_blocks(struct salvage_job *j)
{
	for (unsigned i = 0; i < j->n_blocks; i++) {
		const struct salvage_block *b = &j->block[i];
		const struct qmapped_block *l = &j->layout[i];

		if (salvage_pages(j, i) < 0 ||
		    salvage_write(j, j->out, b->bitmap, l->bitmap_len, l->bitmap_at) < 0 ||
		    save_file(j, b->missing_file, b->missing_map, l->bitmap_len) < 0)
			return -1;
	}
	return 0;
}

static int sync_folder(struct salvage_job *j, const char *path)
{
	cleanup_fd int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? salvage_fail(j, errno, "%s", path) : 0;
}

static int save_all(struct salvage_job *j)
{
	g_autofree char *index = NULL, *parent = g_path_get_dirname(j->dir);
	size_t len;

	j->out = create(j, SALVAGE_FILE);
	if (j->out < 0 || write_heads(j) < 0 || save_blocks(j) < 0 || write_end(j) < 0)
		return -1;
	if (fsync(j->out) < 0)
		return salvage_fail(j, errno, "%s", SALVAGE_FILE);
	index = salvage_index(j, &len);
	if (save_file(j, "index.json", index, len) < 0 || sync_folder(j, j->partial) < 0)
		return -1;
	if (renameat2(AT_FDCWD, j->partial, AT_FDCWD, j->dir, RENAME_NOREPLACE) < 0)
		return salvage_fail(j, errno, "%s", j->dir);
	(void)sync_folder(j, parent);
	return 0;
}

/* Whatever is in it is ours. */
static void remove_partial(const struct salvage_job *j)
{
	g_autoptr(GDir) dir = g_dir_open(j->partial, 0, NULL);
	const char *name;

	while (dir && (name = g_dir_read_name(dir))) {
		g_autofree char *path = g_build_filename(j->partial, name, NULL);

		(void)unlink(path);
	}
	(void)rmdir(j->partial);
}

static gboolean on_over(gpointer data);

static void *run(void *arg)
{
	struct salvage_job *j = arg;

	if (save_all(j) < 0)
		remove_partial(j);
	close_fd(&j->out);
	j->owner->over = g_idle_add(on_over, j->owner);
	return NULL;
}

/* Of others, and what is large. */
static void let_go(struct salvage_job *j)
{
	for (unsigned i = 0; i < j->n_blocks; i++) {
		close_fd(&j->block[i].file);
		g_clear_pointer(&j->block[i].bitmap, g_free);
		g_clear_pointer(&j->block[i].missing_map, g_free);
	}
	close_fd(&j->package);
	g_clear_pointer(&j->buffer, g_free);
}

static void job_free(struct salvage_job *j)
{
	if (!j)
		return;
	let_go(j);
	g_free(j->partial);
	g_free(j->dir);
	g_free(j);
}

/* --- what it begins with ---------------------------------------------------------------------- */

/* The number keeps names apart that differ in what no file name has. */
static void name_missing(struct salvage_block *b, unsigned i)
{
	snprintf(b->missing_file, sizeof(b->missing_file), "%02u-%s.missing", i, b->name);
	for (char *c = b->missing_file; *c; c++)
		if (!g_ascii_isalnum(*c) && !strchr("-_.@:+", *c))
			*c = '_';
	/* 255 bytes are what a name may have */
	if (strlen(b->missing_file) > 250)
		snprintf(b->missing_file + 240, 16, ".missing");
}

static void take_block(struct salvage_job *j, unsigned i, const struct salvage_source *from)
{
	const struct snapshot_block *s = &from->snapshot->block[i];
	struct salvage_block *b = &j->block[i];

	b->kind = s->kind;
	b->length = s->length;
	b->page_size = s->page_size;
	b->file = s->file >= 0 ? fcntl(s->file, F_DUPFD_CLOEXEC, 0) : -1;
	b->file_offset = s->file_offset;
	b->store = s->kind == BLOCK_HELD ? s->store : s->kept;
	b->address = from->address[i];
	b->first = s->first;
	g_strlcpy(b->name, s->name, sizeof(b->name));
	name_missing(b, i);
	j->layout[i] = (struct qmapped_block){ .name = b->name, .length = b->length };
	j->bytes_total += b->length;
}

static bool fail(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
static bool fail(GError **error, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	*error = g_error_new_valist(G_IO_ERROR, G_IO_ERROR_FAILED, fmt, args);
	va_end(args);
	return false;
}

static bool lay(struct salvage_job *j, GError **error)
{
	const char *why;

	j->plan = (struct qmapped_plan){
		.machine = j->machine, .page_bits = j->page_bits, .ram_section = j->ram_section,
		.target_page = SALVAGE_PAGE, .blocks = j->layout, .n_blocks = j->n_blocks,
	};
	if (qmapped_lay(&j->plan, &why) < 0)
		return fail(error, "%s", why);
	for (unsigned i = 0; i < j->n_blocks; i++) {
		j->block[i].bitmap = g_malloc0(j->layout[i].bitmap_len);
		j->block[i].missing_map = g_malloc0(j->layout[i].bitmap_len);
	}
	return true;
}

static void take_session(struct salvage_job *j, const struct snapshot *s)
{
	j->state = s->state;
	j->held = s->held;
	j->ownership_unknown = s->ownership_unknown;
	g_strlcpy(j->reason, s->reason, sizeof(j->reason));
	g_strlcpy(j->machine, s->machine, sizeof(j->machine));
	j->page_bits = s->page_bits;
	j->ram_section = s->ram_section;
	j->owed = s->owed;
	j->owed_left = s->owed_left;
	j->lost = s->stats.lost;
	j->device_at = s->package_device_offset;
	j->device_len = s->package_bytes ? s->package_device_bytes : 0;
	j->package = s->package_fd >= 0 ? fcntl(s->package_fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (j->package < 0)
		j->device_len = 0;
}

static bool make_folder(struct salvage_job *j, const char *dir, GError **error)
{
	struct stat st;

	j->dir = g_strdup(dir);
	while (strlen(j->dir) > 1 && g_str_has_suffix(j->dir, "/"))
		j->dir[strlen(j->dir) - 1] = '\0';
	if (!g_path_is_absolute(dir))
		return fail(error, "'%s' is not an absolute path", dir);
	if (lstat(j->dir, &st) == 0)
		return fail(error, "%s is there already: nothing is overwritten", j->dir);
	j->partial = g_strdup_printf("%s.partial-XXXXXX", j->dir);
	if (!g_mkdtemp_full(j->partial, 0700))
		return fail(error, "%s: %s", j->partial, g_strerror(errno));
	return true;
}

/* --- the outside ------------------------------------------------------------------------------ */

struct salvage *salvage_new(void (*ended)(void *ctx), void *ctx)
{
	struct salvage *s = g_new0(struct salvage, 1);

	s->ended = ended;
	s->ctx = ctx;
	return s;
}

static void join(struct salvage *s)
{
	if (s->thread)
		g_thread_join(steal_ptr(&s->thread));
}

/**
 * salvage_free - what is under way is given up, and nothing of it left; NULL is fine
 */
void salvage_free(struct salvage *s)
{
	if (!s)
		return;
	if (s->job)
		__atomic_store_n(&s->job->cancelled, true, __ATOMIC_RELAXED);
	join(s);
	if (s->job && !s->done)
		g_source_remove(s->over);
	job_free(s->job);
	g_free(s);
}

/**
 * salvage_start - begin to save
 * @dir: absolute; made here
 *
 * Return: false with *error: one is under way, there is nothing to save, or no place for it.
 */
bool salvage_start(struct salvage *s, const char *dir, const struct salvage_source *from,
		   GError **error)
{
	struct salvage_job *j;

	if (s->thread)
		return fail(error, "one is under way: %s", s->job->dir);
	j = g_new0(struct salvage_job, 1);
	j->out = -1;
	j->owner = s;
	j->ledger = from->snapshot->ledger;
	j->pid = from->pid;
	take_session(j, from->snapshot);
	j->n_blocks = from->snapshot->n_blocks;
	for (unsigned i = 0; i < j->n_blocks; i++)
		take_block(j, i, from);
	if (!lay(j, error) || !make_folder(j, dir, error)) {
		job_free(j);
		return false;
	}
	j->buffer = g_malloc(SALVAGE_BUFFER);
	job_free(s->job);
	s->job = j;
	s->done = false;
	s->thread = g_thread_new("salvage", run, j);
	return true;
}

/* What became of it, for people. */
static void outcome(const struct salvage_job *j, char *out, size_t size)
{
	uint64_t missing = 0;

	for (unsigned i = 0; i < j->n_blocks; i++)
		missing += j->block[i].missing;
	if (j->error[0])
		snprintf(out, size, "nothing was saved in %s: %s", j->dir, j->error);
	else
		snprintf(out, size, "saved in %s; %" PRIu64 " pages of 4 KiB are missing", j->dir,
			 missing);
}

static gboolean on_over(gpointer data)
{
	struct salvage *s = data;

	join(s);
	s->done = true;
	let_go(s->job);
	outcome(s->job, s->said, sizeof(s->said));
	g_message("%s", s->said);
	s->ended(s->ctx);
	return G_SOURCE_REMOVE;
}

/**
 * salvage_fill - how far it is, or how it ended
 */
void salvage_fill(const struct salvage *s, struct snapshot_salvage *out)
{
	const struct salvage_job *j = s->job;

	*out = (struct snapshot_salvage){ 0 };
	if (!j)
		return;
	out->stage = !s->done ? "saving" : j->error[0] ? "failed" : "saved";
	out->bytes_done = __atomic_load_n(&j->bytes_done, __ATOMIC_RELAXED);
	out->bytes_total = j->bytes_total;
	g_strlcpy(out->dir, j->dir, sizeof(out->dir));
	if (s->done)
		g_strlcpy(out->text, s->said, sizeof(out->text));
}
