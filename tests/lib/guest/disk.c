// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The part of the self-checking guest that makes a device write into its memory: a driver for one
 * virtio 1.0 block device (virtio-blk, or vhost-user-blk and whatever serves it).
 *
 * The disk holds a pattern of its own positions.  The guest reads it, two KiB at a time, into 256
 * buffers, one in each page of [BUFFERS, BUFFERS + 1 MiB), in turn.  The other half of a buffer's
 * page is a marker that only the guest writes.  It writes it when a read has ended, and does not
 * touch the page again before it is the target of the next one, 256 reads later: so after a
 * switch-over it is the device that meets the missing page first.  A device that finds zeroes in
 * place of a page that is still on its way destroys the marker; a read that went to nowhere leaves
 * the data of another place.
 *
 * The rings lie at RINGS, behind the memory that boot.S proves, which a source sends last: a device
 * that looks into them while its state is loaded meets a missing page.
 *
 * Called by boot.S after each page, in protected mode, flat, without interrupts: takes what the
 * device has finished, looks at every word of it, and keeps IN_FLIGHT reads going.  The words at
 * STATUS are read from outside; guestmem.py knows the same layout.
 */
#include <stdint.h>

#define SECTORS_A_READ 4u
#define READ_WORDS 512u
#define BUFFERS 0x100000u
#define BUFFER_COUNT 256u
#define PAGE 4096u
#define IN_FLIGHT 24u
#define QUEUE_SIZE 128u
#define STRIDE 389u
#define DISK_SALT 0x50434430u
#define MARK_SALT 0xb0f00000u
#define MAGIC 0x4f494350u	/* "PCIO" */

enum trouble {
	TROUBLE_NONE,
	TROUBLE_NO_DEVICE,
	TROUBLE_FAR_BAR,		/* beyond what 32 bits reach */
	TROUBLE_FEATURES,
	TROUBLE_QUEUE,
	TROUBLE_FAILED_READ,
	TROUBLE_DATA,
	TROUBLE_MARKER,
	TROUBLE_STRANGE_ID,
};

struct status {
	uint32_t magic, reads, errors, bad_buffer, bad_code, in_flight;
};

struct descriptor {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};

struct used_element {
	uint32_t id, length;
};

struct rings {
	struct descriptor descriptors[QUEUE_SIZE];
	struct {
		uint16_t flags, index, ring[QUEUE_SIZE], event;
	} available;
	_Alignas(PAGE) struct {
		uint16_t flags, index;
		struct used_element ring[QUEUE_SIZE];
		uint16_t event;
	} used;
	_Alignas(16) struct {
		uint32_t type, reserved;
		uint64_t sector;
	} headers[IN_FLIGHT];
	uint8_t results[IN_FLIGHT];
};

/*
 * virtio 1.0, 4.1.4.3; the registers in the order and the width in which a driver must touch them
 */
struct common {
	uint32_t device_feature_select, device_feature, driver_feature_select, driver_feature;
	uint16_t msix, queues;
	uint8_t device_status, generation;
	uint16_t queue_select, queue_size, queue_msix, queue_enable, queue_notify_off;
	uint32_t queue_descriptors[2], queue_driver[2], queue_device[2];
};

struct slot {
	uint32_t buffer, unit;
};

static volatile struct status *const status = (volatile struct status *)0x8040;
static volatile struct rings *const rings = (volatile struct rings *)RINGS;
static volatile struct common *common;
static volatile uint16_t *notify;
static uint32_t notify_multiplier, units;
static uint16_t taken;
static uint32_t started, generation[BUFFER_COUNT];
static struct slot slots[IN_FLIGHT];
static uint8_t busy[IN_FLIGHT];

static void barrier(void)
{
	__asm__ volatile("lock addl $0, (%%esp)" ::: "memory", "cc");
}

static uint32_t pci_read(uint32_t device, uint32_t at)
{
	uint32_t value;

	__asm__ volatile("outl %0, %w1" ::"a"(0x80000000u | device << 11 | (at & 0xfcu)),
			 "d"(0xcf8));
	__asm__ volatile("inl %w1, %0" : "=a"(value) : "d"(0xcfc));
	return value >> (at & 3u) * 8;
}

static void pci_write(uint32_t device, uint32_t at, uint32_t value)
{
	__asm__ volatile("outl %0, %w1" ::"a"(0x80000000u | device << 11 | at), "d"(0xcf8));
	__asm__ volatile("outl %0, %w1" ::"a"(value), "d"(0xcfc));
}

static void trouble(enum trouble code, uint32_t buffer)
{
	if (status->errors++ == 0) {
		status->bad_code = code;
		status->bad_buffer = buffer;
	}
}

/* the address of what a virtio capability describes; 0: it cannot be reached */
static uint32_t capability_address(uint32_t device, uint32_t at)
{
	uint32_t bar = 0x10 + 4 * (pci_read(device, at + 4) & 0xff);
	uint32_t low = pci_read(device, bar);

	if ((low & 1u) || ((low & 6u) == 4u && pci_read(device, bar + 4)))
		return 0;
	return (low & ~0xfu) + pci_read(device, at + 8);
}

static enum trouble find_structures(uint32_t device)
{
	uint32_t capacity = 0;

	for (uint32_t at = pci_read(device, 0x34) & 0xff; at;
	     at = pci_read(device, at + 1) & 0xff) {
		uint32_t type = pci_read(device, at + 3) & 0xff, address;

		if ((pci_read(device, at) & 0xff) != 9 || type == 3 || type > 4)
			continue;
		address = capability_address(device, at);
		if (!address)
			return TROUBLE_FAR_BAR;
		if (type == 1) {
			common = (volatile struct common *)address;
		} else if (type == 2) {
			notify = (volatile uint16_t *)address;
			notify_multiplier = pci_read(device, at + 16);
		} else {
			capacity = *(volatile uint32_t *)address;
		}
	}
	units = capacity / SECTORS_A_READ;
	return common && notify && units ? TROUBLE_NONE : TROUBLE_NO_DEVICE;
}

/* the first block device of the one bus there is */
static enum trouble find_device(void)
{
	for (uint32_t device = 0; device < 32; device++) {
		uint32_t id = pci_read(device, 0);

		if (id != 0x10421af4u && id != 0x10011af4u)
			continue;
		/* memory, bus master */
		pci_write(device, 4, (pci_read(device, 4) & 0xffffu) | 6u);
		return find_structures(device);
	}
	return TROUBLE_NO_DEVICE;
}

static enum trouble start_queue(void)
{
	common->queue_select = 0;
	if (common->queue_size < QUEUE_SIZE)
		return TROUBLE_QUEUE;
	common->queue_size = QUEUE_SIZE;
	common->queue_descriptors[0] = (uint32_t)rings->descriptors;
	common->queue_descriptors[1] = 0;
	common->queue_driver[0] = (uint32_t)&rings->available;
	common->queue_driver[1] = 0;
	common->queue_device[0] = (uint32_t)&rings->used;
	common->queue_device[1] = 0;
	common->queue_enable = 1;
	notify = (volatile uint16_t *)((uint32_t)notify +
				       common->queue_notify_off * notify_multiplier);
	return TROUBLE_NONE;
}

static enum trouble start_device(void)
{
	enum trouble found = find_device();

	if (found)
		return found;
	common->device_status = 0;
	while (common->device_status)
		continue;
	common->device_status = 1 | 2;
	common->driver_feature_select = 0;
	common->driver_feature = 0;
	common->driver_feature_select = 1;
	common->driver_feature = 1;			/* VIRTIO_F_VERSION_1 */
	common->device_status = 1 | 2 | 8;
	if (!(common->device_status & 8))
		return TROUBLE_FEATURES;
	found = start_queue();
	if (!found)
		common->device_status = 1 | 2 | 8 | 4;
	return found;
}

static volatile uint32_t *buffer_at(uint32_t buffer)
{
	return (volatile uint32_t *)(BUFFERS + buffer * PAGE);
}

static uint32_t marker(uint32_t buffer, uint32_t word)
{
	return (MARK_SALT ^ buffer << 12 ^ word) + generation[buffer] * 0x9e3779b1u;
}

static void mark(uint32_t buffer)
{
	volatile uint32_t *words = buffer_at(buffer) + READ_WORDS;

	generation[buffer]++;
	for (uint32_t i = 0; i < PAGE / 4 - READ_WORDS; i++)
		words[i] = marker(buffer, i);
}

static void start_read(uint32_t slot)
{
	uint32_t buffer = started % BUFFER_COUNT, unit = started * STRIDE % units, first = slot * 3;

	slots[slot] = (struct slot){ buffer, unit };
	busy[slot] = 1;
	rings->headers[slot].type = 0;
	rings->headers[slot].reserved = 0;
	rings->headers[slot].sector = (uint64_t)unit * SECTORS_A_READ;
	rings->results[slot] = 0xff;
	rings->descriptors[first] = (struct descriptor){ (uint32_t)&rings->headers[slot], 16, 1,
							 (uint16_t)(first + 1) };
	rings->descriptors[first + 1] = (struct descriptor){
		(uint32_t)buffer_at(buffer), READ_WORDS * 4, 3, (uint16_t)(first + 2) };
	rings->descriptors[first + 2] = (struct descriptor){ (uint32_t)&rings->results[slot], 1, 2,
							     0 };
	rings->available.ring[rings->available.index % QUEUE_SIZE] = (uint16_t)first;
	barrier();
	rings->available.index++;
	started++;
}

static void look_at(uint32_t buffer, uint32_t unit)
{
	volatile uint32_t *words = buffer_at(buffer);

	for (uint32_t i = 0; i < READ_WORDS; i++) {
		if (words[i] != ((unit * READ_WORDS + i) * 2654435761u ^ DISK_SALT)) {
			trouble(TROUBLE_DATA, buffer);
			break;
		}
	}
	for (uint32_t i = 0; i < PAGE / 4 - READ_WORDS; i++) {
		if (words[READ_WORDS + i] != marker(buffer, i)) {
			trouble(TROUBLE_MARKER, buffer);
			break;
		}
	}
}

static void take(uint32_t id)
{
	uint32_t slot = id / 3;

	if (id % 3 || slot >= IN_FLIGHT || !busy[slot]) {
		trouble(TROUBLE_STRANGE_ID, id);
		return;
	}
	if (rings->results[slot])
		trouble(TROUBLE_FAILED_READ, slots[slot].buffer);
	look_at(slots[slot].buffer, slots[slot].unit);
	mark(slots[slot].buffer);
	busy[slot] = 0;
	status->in_flight--;
	status->reads++;
}

static void begin(void)
{
	for (volatile uint32_t *word = (volatile uint32_t *)rings;
	     word < (volatile uint32_t *)(rings + 1); word++)
		*word = 0;
	for (uint32_t i = 0; i < sizeof(*status) / 4; i++)
		((volatile uint32_t *)status)[i] = 0;
	for (uint32_t i = 0; i < BUFFER_COUNT; i++)
		mark(i);
	enum trouble found = start_device();

	if (found)
		trouble(found, 0);
	rings->available.flags = 1;			/* no interrupts */
	status->magic = MAGIC;
}

void disk_step(void);
__attribute__((section(".entry"))) void disk_step(void)
{
	if (status->magic != MAGIC)
		begin();
	if (!status->reads && status->errors)
		return;					/* there is no disk to read */
	while (taken != rings->used.index) {
		barrier();
		take(rings->used.ring[taken % QUEUE_SIZE].id);
		taken++;
	}
	if (status->in_flight > IN_FLIGHT / 2)
		return;
	for (uint32_t slot = 0; slot < IN_FLIGHT; slot++) {
		if (!busy[slot]) {
			start_read(slot);
			status->in_flight++;
		}
	}
	barrier();
	*notify = 0;
}
