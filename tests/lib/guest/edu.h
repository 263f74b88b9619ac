/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef PC_TESTS_GUEST_EDU_H
#define PC_TESTS_GUEST_EDU_H
/*
 * QEMU's edu, a PCI device with a buffer that it copies memory into and out of, by itself.  It
 * reaches 256 MiB of addresses, and has to be let begin (sys/devio_pci.h).
 */
#include <stdint.h>

#include "sys/devio.h"

enum { EDU_BUFFER = 2048 }; /* bytes that are copied at most */

/* From memory, or to it; 0 when the device is done, which is no word about whether it could. */
int edu_fetch(struct devio *d, uint64_t iova, uint32_t len);
int edu_store(struct devio *d, uint64_t iova, uint32_t len);

#endif
