/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The beginning and the end of the fault thread.  All that it ever needs is made here, before it
 * runs: it allocates nothing once faults are served.
 */
#include "config.h"
#include "daemon/faultloop.h"

#include <errno.h>
#include <stdlib.h>

#include "core/guard.h"
#include "daemon/inject_desk.h"
#include "sys/fd.h"

#define INBOX_SLOTS	256
#define REPORT_SLOTS	1024

static int set_up(struct faultloop *f, const struct faultloop_options *options)
{
	struct engine_limits limits = { .waiters = options->max_waiters, .window = 512 };
	int ret;

	f->options = *options;
	f->faults = options->faults;
	if (f->faults) {
		f->faults->blocks = &f->engine.blocks;
		f->desk = calloc(1, sizeof(*f->desk));
		if (!f->desk)
			return -ENOMEM;
	}
	f->placer.ops = options->uffd_ops ? options->uffd_ops : &uffd_kernel_ops;
	f->placer.page_size = 4096;
	f->placer.stall = &f->stall;
	f->placer.faults = f->faults;
	f->placer.thread = LANE_URGENT;
	f->doorbell = doorbell_new();
	f->notify = doorbell_new();
	f->own_uffd = uffd_open(0, false);
	if (f->doorbell < 0 || f->notify < 0)
		return -EMFILE;
	if (f->own_uffd < 0)
		return f->own_uffd;
	ret = engine_init(&f->engine, &limits);
	if (ret == 0)
		ret = outbox_init(&f->outbox);
	if (ret == 0)
		ret = mailbox_init(&f->inbox, sizeof(struct message), INBOX_SLOTS, f->doorbell);
	if (ret == 0)
		ret = mailbox_init(&f->reports, sizeof(struct bulk_message), REPORT_SLOTS,
				   f->doorbell);
	if (ret == 0 && options->adopt)
		ret = adopt_begin(f);
	return ret;
}

static void tear_down(struct faultloop *f)
{
	bulklane_stop(f->bulk);
	for (unsigned i = 0; i < f->n_backings; i++)
		backing_close(&f->backing[i]);
	lane_close(&f->main);
	lane_close(&f->urgent);
	roster_deinit(&f->roster);
	outbox_deinit(&f->outbox);
	gates_free(f);
	engine_deinit(&f->engine);
	mailbox_deinit(&f->inbox);
	mailbox_deinit(&f->reports);
	if (f->ledger_memory)
		mem_unmap(f->ledger_memory, f->ledger_size);
	if (f->zeroes)
		mem_unmap(f->zeroes, f->zeroes_size);
	free(f->body);
	free(f->desk);
	close_fd(&f->return_fd);
	close_fd(&f->recovery.main_fd);
	close_fd(&f->recovery.urgent_fd);
	close_fd(&f->package_fd);
	close_fd(&f->package_kept);
	close_fd(&f->own_uffd);
	close_fd(&f->doorbell);
	close_fd(&f->notify);
	free(f);
}

/*
 * The ring belongs to the thread that makes it, so that thread begins before it is known whether
 * this machine has one for us.
 */
static int begin(struct faultloop *f)
{
	int ret;

	if (sem_init(&f->begun, 0, 0) < 0)
		return -errno;
	ret = -pthread_create(&f->thread, NULL, faultloop_run, f);
	if (ret == 0) {
		while (sem_wait(&f->begun) < 0)
			continue;
		ret = f->begun_error;
		if (ret < 0)
			pthread_join(f->thread, NULL);
	}
	sem_destroy(&f->begun);
	return ret;
}

/* What was kept is closed also when it did not come to taking it over. */
static void abandon(const struct faultloop_adopt *kept)
{
	struct faultloop_adopt left;

	if (!kept)
		return;
	left = *kept;
	adopt_close(&left);
}

/**
 * faultloop_start - make everything and start the thread
 * @options: copied
 *
 * Nothing that it needs is still to be made then: who is told that we are ready can rely on it.
 *
 * Return: 0 or -errno.
 */
int faultloop_start(struct faultloop **out, const struct faultloop_options *options)
{
	struct faultloop *f = calloc(1, sizeof(*f));
	int ret;

	if (!f) {
		abandon(options->adopt);
		return -ENOMEM;
	}
	f->main.fd = f->urgent.fd = f->return_fd = f->own_uffd = -1;
	f->package_fd = f->package_kept = -1;
	f->urgent.id = LANE_URGENT;
	f->recovery.main_fd = f->recovery.urgent_fd = -1;
	roster_init(&f->roster);
	ret = set_up(f, options);
	if (ret == 0)
		ret = begin(f);
	if (ret < 0) {
		abandon(f->options.adopt);
		tear_down(f);
		return ret;
	}
	*out = f;
	return 0;
}

/**
 * faultloop_stop - end the thread and free everything, the userfaultfds included (O11)
 */
void faultloop_stop(struct faultloop *f)
{
	const struct message quit = { .kind = MESSAGE_QUIT };

	faultloop_post(f, &quit);
	pthread_join(f->thread, NULL);
	tear_down(f);
}
