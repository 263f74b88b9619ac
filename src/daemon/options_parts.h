/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_DAEMON_OPTIONS_PARTS_H
#define PC_DAEMON_OPTIONS_PARTS_H
/*
 * What the files of the options share: options_table.c names them, options.c reads them,
 * options_address.c the addresses, options_qemu.c the hand-over, options_vhost.c the vhost-user
 * back-ends, options_vfio.c devices.
 */
#include "daemon/options.h"

enum options_kind {
	KIND_FLAG, /* stores .min when given, !.min when the file says false */
	KIND_TEXT,
	KIND_PATH,	  /* any bytes */
	KIND_SOCKET_PATH, /* fits sun_path */
	KIND_FD,
	KIND_COUNT, /* unsigned */
	KIND_SIZE,  /* uint64_t */
	KIND_NUMBER, /* uint64_t, as it is */
	KIND_NAMES, /* repeatable */
	KIND_ADDRESS,
	KIND_QEMU,
	KIND_CHANNEL,
	KIND_LOSS,
	KIND_VHOST,   /* repeatable, as are those that follow */
	KIND_VFIO,
	KIND_DMA_MAP,
	KIND_FAULT,
	OPTIONS_KINDS,
};

struct options_spec {
	const char *name;
	enum options_kind kind;
	size_t at; /* in struct options */
	uint64_t min, max;
	const char *arg, *help;
};

#define OPTIONS_SPECS_MAX 64

/* All of them; behind the last the name is NULL. */
extern const struct options_spec options_specs[OPTIONS_SPECS_MAX];
/* The value of one, as it was written.  False with *error, which does not name the option. */
bool options_set(struct options *o, const struct options_spec *s, const char *text, GError **error);
/* Its index, or -1. */
int options_find(const char *name);
/* Set *error and say false. */
bool options_fail(GError **error, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
bool options_check_socket_path(const char *path, GError **error);
void options_clear_address(struct options_address *a);
/* "qmp=PATH,incoming=unix:PATH,cont=auto|yes|no,retry=SECONDS"; *out is written on success only. */
bool options_parse_qemu(const char *text, struct options_qemu *out, GError **error);
void options_clear_qemu(struct options_qemu *q);
/* The value of --vhost-user, as one more of @all. */
bool options_add_vhost(GPtrArray *all, const char *text, GError **error);
/* "id=ID,sysfs=PATH|vfio-user=PATH,mandatory=on|off,deadline=MS,dma=gate|messages|sharer" */
GPtrArray *options_new_vfio(void);
bool options_add_vfio(GPtrArray *all, const char *text, GError **error);
/* "device=ID,iova=ADDRESS,block=NAME,offset=BYTES,length=BYTES,coherent=on|off" */
GPtrArray *options_new_dma_map(void);
bool options_add_dma_map(GPtrArray *all, const char *text, GError **error);
/* A rule of wire/faultrule.h, as it was written. */
bool options_add_fault(GPtrArray *all, const char *text, GError **error);
/* Is each for a device that there is? */
bool options_check_dma_map(const GPtrArray *vfio, const GPtrArray *maps, GError **error);

/* "wait|poison|freeze|kill[,after=SECONDS]"; *out is written on success only. */
bool options_parse_loss(const char *text, struct options_loss *out, GError **error);
/* "URI[,session=UUID]"; *out is written on success only. */
bool options_parse_channel(const char *text, struct options_channel *out, GError **error);
void options_clear_channel(struct options_channel *c);

#endif
