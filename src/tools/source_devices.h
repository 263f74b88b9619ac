/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TOOLS_SOURCE_DEVICES_H
#define PC_TOOLS_SOURCE_DEVICES_H
/*
 * All devices of the VM on their way out, in the order of the host's plan: what has to be done
 * before what is asked of core/cutover.h at each step, by whoever does it.
 */
#include "core/cutover.h"
#include "tools/source_options.h"
#include "tools/source_sink.h"
#include "wire/jsonmsg.h"

struct source_devices;

/*
 * Open them, and the connection if there is to be one.  NULL with *error (-errno) and a text in
 * @problem; NULL and 0: the options name no devices.
 */
struct source_devices *source_devices_new(struct source_options *o, int *error, char problem[256]);
/* Those that stand still stay as they are.  NULL is fine. */
void source_devices_free(struct source_devices *d);

/*
 * A step of somebody else's, before and after it is done.  0; -EPERM: it is too early, see
 * source_devices_problem().  @d may be NULL: there are no devices to be minded.
 */
int source_devices_may(struct source_devices *d, enum cutover_step step);
void source_devices_did(struct source_devices *d, enum cutover_step step);
/* While they run: read what can be read.  0 or -errno. */
int source_devices_precopy(struct source_devices *d);
/* Quiesce, stop and save them all, and hear that all of it arrived.  0 or -errno. */
int source_devices_save(struct source_devices *d);
/* They run again, those that can.  Harmless when nothing was stopped. */
void source_devices_back(struct source_devices *d);
/* What is wrong, with the name of the device; "". */
const char *source_devices_problem(const struct source_devices *d);
/* The records for a package; NULL when they went another way. */
const uint8_t *source_devices_records(const struct source_devices *d, size_t *len);
void source_devices_report(const struct source_devices *d, struct jsonmsg_writer *w);
void source_devices_print(const struct source_devices *d);

#endif
