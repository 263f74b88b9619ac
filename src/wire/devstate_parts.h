/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef PC_WIRE_DEVSTATE_PARTS_H
#define PC_WIRE_DEVSTATE_PARTS_H
/* The numbers of the records, for who writes and who reads them. */
#include "wire/devstate.h"

#define DEVSTATE_MAGIC	     0x50434453u	  /* "PCDS" */
#define DEVSTATE_HELLO	     0x5043444556434831u /* "PCDEVCH1" */
#define DEVSTATE_HEAD_DIGEST 24			  /* offset in a record's head */

enum devstate_type {
	TYPE_HEAD = 1,
	TYPE_SEGMENT,
	TYPE_CONFIG,
	TYPE_ROUND,
	TYPE_END,
};

#endif
