/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_QVFIO_PARTS_H
#define PC_WIRE_QVFIO_PARTS_H
/* The numbers in QEMU's VFIO sections. */
#include "wire/qvfio.h"

#define TAG_FIRST 0xffffffffef100000ull

enum {
	TAG_NUMBER_END = 1,
	TAG_NUMBER_CONFIG,
	TAG_NUMBER_SETUP,
	TAG_NUMBER_DATA,
	TAG_NUMBER_INIT_SENT,
	TAG_NUMBER_LOAD_READY,
};

#define TAG_END	       (TAG_FIRST | TAG_NUMBER_END)
#define TAG_CONFIG     (TAG_FIRST | TAG_NUMBER_CONFIG)
#define TAG_SETUP      (TAG_FIRST | TAG_NUMBER_SETUP)
#define TAG_DATA       (TAG_FIRST | TAG_NUMBER_DATA)
#define TAG_INIT_SENT  (TAG_FIRST | TAG_NUMBER_INIT_SENT)
#define TAG_LOAD_READY (TAG_FIRST | TAG_NUMBER_LOAD_READY)

#define QVFIO_VERSION	 1 /* of the section */
#define QVFIO_FOOTER	 0x7e
#define QVFIO_FOOTER_LEN 5u
#define QVFIO_SUBSECTION 0x05

#endif
