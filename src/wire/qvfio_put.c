/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The writer of QEMU's VFIO sections.  It keeps no state; running out of room shows in p->bad. */
#include "config.h"

#include "wire/qvfio.h"

#include <assert.h>

#include "wire/qvfio_parts.h"

/**
 * qvfio_put_begin - the head of a section
 * @id: of the section, the same in all of a device
 * @name: idstr; not looked at for PART and LAST
 */
void qvfio_put_begin(struct pen *p, enum qvfio_section section, uint32_t id, const char *name,
		     uint32_t instance)
{
	pen_u8(p, (uint8_t)section);
	pen_be32(p, id);
	if (section == QVFIO_PART || section == QVFIO_LAST)
		return;
	pen_cstr(p, name);
	pen_be32(p, instance);
	pen_be32(p, QVFIO_VERSION);
}

/**
 * qvfio_put_setup - all that START holds
 */
void qvfio_put_setup(struct pen *p)
{
	pen_be64(p, TAG_SETUP);
	pen_be64(p, TAG_END);
}

/**
 * qvfio_put_data - in front of state of the device
 * @length: bytes; 7.2 writes an empty one when an iteration has nothing, later ones leave it out
 */
void qvfio_put_data(struct pen *p, uint64_t length)
{
	pen_be64(p, TAG_DATA);
	pen_be64(p, length);
}

/**
 * qvfio_put_config - in front of the configuration
 */
void qvfio_put_config(struct pen *p)
{
	pen_be64(p, TAG_CONFIG);
}

/**
 * qvfio_put_done - behind what a section holds
 */
void qvfio_put_done(struct pen *p)
{
	pen_be64(p, TAG_END);
}

/**
 * qvfio_put_init_sent - in qvfio_put_done()'s place, once, with switchover-ack
 */
void qvfio_put_init_sent(struct pen *p)
{
	pen_be64(p, TAG_INIT_SENT);
}

/**
 * qvfio_put_load_ready - all that FULL holds where the configuration goes by multifd
 */
void qvfio_put_load_ready(struct pen *p)
{
	pen_be64(p, TAG_LOAD_READY);
}

/**
 * qvfio_put_footer - the end of a section
 */
void qvfio_put_footer(struct pen *p, uint32_t id)
{
	pen_u8(p, QVFIO_FOOTER);
	pen_be32(p, id);
}
