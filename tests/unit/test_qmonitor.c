/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU's texts about memory: those of three versions as they were, and what must not be believed.
 */
#include "config.h"

#include "wire/qmonitor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "golden.h"

#define MIB   (1ull << 20)
#define ROOM  32

static struct qmonitor_block blocks[ROOM];
static struct qmonitor_range ranges[ROOM];

/* In a buffer of its exact size, so that a read past its end is seen. */
static char *exact(const char *text, size_t len)
{
	char *copy = calloc(1, len ? len : 1);

	memcpy(copy, text, len);
	return copy;
}

static int ramblock(const char *text, const char **why)
{
	cleanup_free char *copy = exact(text, strlen(text));

	return qmonitor_ramblock(copy, strlen(text), blocks, ROOM, why);
}

static const struct qmonitor_block *block(int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(blocks[i].name, name))
			return &blocks[i];
	cr_assert_fail("no block %s", name);
	return NULL;
}

static int load_ramblock(const char *fixture)
{
	cleanup_golden struct golden g = golden_load(fixture);
	const char *why = NULL;
	int n = qmonitor_ramblock((const char *)g.bytes, g.len, blocks, ROOM, &why);

	cr_assert_gt(n, 0, "%s: %s", fixture, why);
	return n;
}

/* --- info ramblock ---------------------------------------------------------------------------- */

Test(ramblock, of_7_2_has_no_addresses)
{
	int n = load_ramblock("q72-anon.ramblock");

	cr_assert_eq(n, 8);
	cr_assert_eq(block(n, "pc.ram")->used, 128 * MIB);
	cr_assert_eq(block(n, "pc.ram")->page_size, 4096);
	cr_assert_eq(block(n, "0000:00:02.0/vga.vram")->total, 16 * MIB);
	cr_assert_eq(block(n, "0000:00:02.0/vga.vram")->offset, 0x8080000);
	cr_assert_eq(block(n, "/rom@etc/acpi/tables")->used, 0x20000);
	cr_assert_eq(block(n, "/rom@etc/acpi/tables")->total, 2 * MIB);
	for (int i = 0; i < n; i++)
		cr_assert_not(blocks[i].has_address);
}

Test(ramblock, of_later_versions_has_addresses)
{
	static const struct {
		const char *name;
		uint64_t ram, vram;
	} of[] = {
		{"q100-anon.ramblock", 0x7f24a7e00000, 0x7f24b6200000},
		{"q111-anon.ramblock", 0x7f16dfe00000, 0x7f16edc00000},
	};

	for (size_t i = 0; i < ARRAY_LEN(of); i++) {
		int n = load_ramblock(of[i].name);

		cr_assert_eq(n, 8);
		for (int b = 0; b < n; b++)
			cr_assert(blocks[b].has_address);
		cr_assert_eq(block(n, "pc.ram")->address, of[i].ram);
		cr_assert_not(block(n, "pc.ram")->read_only);
		cr_assert_eq(block(n, "0000:00:02.0/vga.vram")->address, of[i].vram);
		cr_assert(block(n, "pc.bios")->read_only);
	}
}

Test(ramblock, numa_and_huge_pages)
{
	static const char *const versions[] = {"q72", "q100", "q111"};

	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		char name[64];
		int n;

		snprintf(name, sizeof(name), "%s-numa.ramblock", versions[i]);
		n = load_ramblock(name);
		cr_assert_eq(n, 7);
		cr_assert_eq(block(n, "m0")->used, 64 * MIB);
		cr_assert_eq(block(n, "m1")->offset, 64 * MIB);
		snprintf(name, sizeof(name), "%s-huge.ramblock", versions[i]);
		n = load_ramblock(name);
		cr_assert_eq(n, 8);
		cr_assert_eq(block(n, "pc.ram")->page_size, 2 * MIB);
		cr_assert_eq(block(n, "pc.bios")->page_size, 4096);
	}
}

#define HEADING	    "Block Name PSize Offset Used Total\r\n"
#define HEADING_HVA "Block Name PSize Offset Used Total HVA RO\n"

Test(ramblock, names_may_be_strange)
{
	const char *why;

	cr_assert_eq(ramblock(HEADING " a 4 KiB name  64 KiB  0x0 0x10000 0x10000\n\n"
				      "0000:00:01.0/virtio-net-pci.rom    1 GiB  0x1 0x2 0x3",
			      &why),
		     2);
	cr_assert_str_eq(blocks[0].name, "a 4 KiB name");
	cr_assert_eq(blocks[0].page_size, 65536);
	cr_assert_str_eq(blocks[1].name, "0000:00:01.0/virtio-net-pci.rom");
	cr_assert_eq(blocks[1].page_size, 1024 * MIB);
	cr_assert_eq(ramblock(HEADING, &why), 0);
	cr_assert_eq(ramblock(HEADING_HVA "m 4 KiB 0x0 0x1 0x1 0x7f0000000000  ro\r\n", &why), 1);
	cr_assert(blocks[0].read_only);
}

static void refuses_block(const char *text, const char *part)
{
	const char *why = NULL;

	cr_assert_eq(ramblock(text, &why), -EPROTO, "%s", text);
	cr_assert_not_null(strstr(why, part), "%s: %s", text, why);
}

Test(ramblock, refusals)
{
	static const char *const rows[] = {
		"m 4 KiB 0x0 0x1\n", "m 4 KiB 0x0 0x2 0x1\n",
		"m 4 KiB 0x0 0x1 0x1 0x7f00 rw\n", /* a column that the heading has not */
		"4 KiB 0x0 0x1 0x1\n", "m 3 KiB 0x0 0x1 0x1\n",
		"m 0 KiB 0x0 0x1 0x1\n", "m 4 TiB 0x0 0x1 0x1\n",
		"m 4.5 KiB 0x0 0x1 0x1\n", "m 99999 KiB 0x0 0x1 0x1\n",
		"m 4 KiB 0 0x1 0x1\n", "m 4 KiB 0x 0x1 0x1\n",
		"m 4 KiB 0x0 0x1 0xABC\n", "m 4 KiB 0x0 0x1 0x10000000000000000\n",
		"m\x01 4 KiB 0x0 0x1 0x1\n", "unknown command: 'ramblock'\n",
	};
	static const char *const addresses[] = {
		"m 4 KiB 0x0 0x1 0x1\n",
		"m 4 KiB 0x0 0x1 0x1 0x7f00\n",
		"m 4 KiB 0x0 0x1 0x1 0x0 rw\n",
		"m 4 KiB 0x0 0x1 0x1 0x7f00 rx\n",
		"m 4 KiB 0x0 0x1 0x2 0xfffffffffffffffe rw\n",
	};
	char text[700];

	refuses_block("", "heading");
	refuses_block("\n", "heading");
	refuses_block("Block Name PSize Offset Used\n", "heading");
	refuses_block("Block Name PSize Offset Used Total HVA\n", "heading");
	refuses_block("Block Name PSize Offset Used Total HVA RO XX\n", "heading");
	refuses_block("Block NamePSize Offset Used Total\n", "heading");
	refuses_block("unknown command: 'info ramblock'\r\n", "heading");
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		snprintf(text, sizeof(text), "%s%s", HEADING, rows[i]);
		refuses_block(text, "row");
	}
	for (size_t i = 0; i < ARRAY_LEN(addresses); i++) {
		snprintf(text, sizeof(text), "%s%s", HEADING_HVA, addresses[i]);
		refuses_block(text, "row");
	}
	refuses_block(HEADING "m 4 KiB 0x0 0x1 0x1\nm 4 KiB 0x1 0x1 0x1\n", "same name");
	snprintf(text, sizeof(text), "%s%0256d 4 KiB 0x0 0x1 0x1\n", HEADING, 7);
	refuses_block(text, "row");
}

Test(ramblock, has_room_or_says_so)
{
	static const char text[] = HEADING "a 4 KiB 0x0 0x1 0x1\nb 4 KiB 0x1 0x1 0x1\n";
	const char *why;

	cr_assert_eq(qmonitor_ramblock(text, sizeof(text) - 1, blocks, 2, &why), 2);
	cr_assert_eq(qmonitor_ramblock(text, sizeof(text) - 1, blocks, 1, &why), -E2BIG);
}

/* --- info mtree -f ---------------------------------------------------------------------------- */

static int flatview(const char *text, size_t len, unsigned max, bool devices, const char **why)
{
	cleanup_free char *copy = exact(text, len);
	struct qmonitor_view view = {ranges, max, devices};

	return qmonitor_flatview(copy, len, &view, why);
}

static void expect_range(int i, const char *name, uint64_t start, uint64_t last, uint64_t offset)
{
	cr_assert_str_eq(ranges[i].name, name);
	cr_assert_eq(ranges[i].start, start, "%s at %lx", name, (unsigned long)ranges[i].start);
	cr_assert_eq(ranges[i].last, last, "%s to %lx", name, (unsigned long)ranges[i].last);
	cr_assert_eq(ranges[i].offset, offset);
}

Test(flatview, recorded)
{
	static const char *const versions[] = {"q72", "q100", "q111"};

	for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
		char name[64];
		const char *why = NULL;

		snprintf(name, sizeof(name), "%s-anon.mtree", versions[i]);
		cleanup_golden struct golden anon = golden_load(name);

		cr_assert_eq(flatview((char *)anon.bytes, anon.len, ROOM, false, &why), 5, "%s",
			     why);
		expect_range(0, "pc.ram", 0, 0x9ffff, 0);
		expect_range(1, "pc.rom", 0xc0000, 0xdffff, 0);
		expect_range(2, "pc.bios", 0xe0000, 0xfffff, 0x20000);
		expect_range(3, "pc.ram", 0x100000, 0x7ffffff, 0x100000);
		expect_range(4, "pc.bios", 0xfffc0000, 0xffffffff, 0);
		cr_assert_eq(ranges[0].kind, QMONITOR_RAM);
		cr_assert_eq(ranges[1].kind, QMONITOR_ROM);
		cr_assert_eq(flatview((char *)anon.bytes, anon.len, ROOM, true, &why), 9);
		expect_range(1, "vga-lowmem", 0xa0000, 0xbffff, 0);
		cr_assert_eq(ranges[1].kind, QMONITOR_OTHER);
		cr_assert_eq(flatview((char *)anon.bytes, anon.len, 4, false, &why), -E2BIG);

		snprintf(name, sizeof(name), "%s-numa.mtree", versions[i]);
		cleanup_golden struct golden numa = golden_load(name);

		cr_assert_eq(flatview((char *)numa.bytes, numa.len, ROOM, false, &why), 6, "%s",
			     why);
		expect_range(4, "m1", 0x4000000, 0x7ffffff, 0);
	}
}

#define VIEW                                                                                       \
	"FlatView #0\r\n AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n"    \
	" Root memory region: system\r\n"
#define AT_0  "  0000000000000000-000000000000ffff (prio 0, ram): "
#define TOP   "  ffffffffffff0000-ffffffffffffffff (prio -2147483648, nv-ram): "
#define FLAT(text) flatview((text), sizeof(text) - 1, ROOM, true, &why)

Test(flatview, names_and_ends_of_lines)
{
	const char *why;

	cr_assert_eq(FLAT(VIEW AT_0 "a KVM b @0000000000001000 KVM KVM\r\n" TOP "last"), 2, "%s",
		     why);
	expect_range(0, "a KVM b", 0, 0xffff, 0x1000);
	expect_range(1, "last", 0xffffffffffff0000, UINT64_MAX, 0);
	cr_assert_eq(ranges[1].kind, QMONITOR_NV_RAM);
	cr_assert_eq(FLAT(VIEW AT_0 "x @12\n"), 1);
	cr_assert_str_eq(ranges[0].name, "x @12");
	cr_assert_eq(FLAT(VIEW "  No rendered FlatView\r\n"), 0);
	cr_assert_eq(FLAT("FlatView #1\n AS \"x\", root: y\n Root memory region: y\n"
			  "  who knows what I/O is like\n" VIEW AT_0 "m\n"),
		     1, "what is not the guest's memory may be anything");
}

Test(flatview, without_the_guests_memory)
{
	const char *why;

	cr_assert_eq(FLAT(""), -ENOENT);
	cr_assert_eq(FLAT("FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n"),
		     -ENOENT);
	cr_assert_eq(FLAT("FlatView #0\n AS \"memory\", root: other\n"), -ENOENT);
}

static void refuses_view(const char *text, const char *part)
{
	const char *why = NULL;

	cr_assert_eq(flatview(text, strlen(text), ROOM, false, &why), -EPROTO, "%s", text);
	cr_assert_not_null(strstr(why, part), "%s: %s", text, why);
}

Test(flatview, refusals)
{
	refuses_view("unknown command\n", "line");
	refuses_view(VIEW VIEW, "two views");
	refuses_view(VIEW AT_0 "\n", "range");
	refuses_view(VIEW AT_0 "KVM\n", "range");
	refuses_view(VIEW "  0-1 (prio 0, ram): m\n", "range");
	refuses_view(VIEW "  0000000000000001-0000000000000000 (prio 0, ram): m\n", "range");
	refuses_view(VIEW "  0000000000000000-0000000000000001 (prio x, ram): m\n", "range");
	refuses_view(VIEW "  0000000000000000-0000000000000001 (prio , ram): m\n", "range");
	refuses_view(VIEW "  0000000000000000-0000000000000001 (prio 0, RAM): m\n", "range");
	refuses_view(VIEW "  0000000000000000-0000000000000001 (prio 0, ram) m\n", "range");
	refuses_view(VIEW "  0000000000000000-0000000000000001 (prio 0 ram): m\n", "range");
	refuses_view(VIEW AT_0 "m @ffffffffffffffff\n", "range");
	refuses_view(VIEW AT_0 "m\n" AT_0 "m\n", "order");
	refuses_view(VIEW TOP "m\n" AT_0 "m\n", "order");
}

/* --- gpa2hva ---------------------------------------------------------------------------------- */

static int gpa2hva(const char *text, struct qmonitor_place *out)
{
	cleanup_free char *copy = exact(text, strlen(text));
	const char *why = NULL;
	int r = qmonitor_gpa2hva(copy, strlen(text), out, &why);

	cr_assert_eq(r == -EPROTO, why != NULL);
	return r;
}

Test(gpa2hva, answers)
{
	struct qmonitor_place place;

	cr_assert_eq(gpa2hva("Host virtual address for 0x0 (pc.ram) is 0x7fb2a3e00000\r\n", &place),
		     0);
	cr_assert_eq(place.guest, 0);
	cr_assert_eq(place.address, 0x7fb2a3e00000);
	cr_assert_str_eq(place.name, "pc.ram");
	cr_assert_eq(gpa2hva("Host virtual address for 0xfffc0000 (a (b) is c) is 0x7fb2fae00000",
			     &place),
		     0);
	cr_assert_eq(place.guest, 0xfffc0000);
	cr_assert_str_eq(place.name, "a (b) is c");
	cr_assert_eq(gpa2hva("Memory at address 0xa0000 is not RAM\r\n", &place), -ENOENT);
	cr_assert_eq(gpa2hva("No memory is mapped at address 0xfffff000000\r\n", &place), -ENOENT);
}

Test(gpa2hva, refusals)
{
	static const char *const texts[] = {
		"",
		"unknown command: 'gpa2hva'\r\n",
		"Host virtual address for 0x0 (pc.ram) is (nil)\r\n",
		"Host virtual address for 0x0 (pc.ram) is 0x0\r\n",
		"Host virtual address for 0x0 (pc.ram) is 0x7fb2a3e00000\r\nmore\r\n",
		"Host virtual address for 0x0 (pc.ram is 0x7fb2a3e00000\r\n",
		"Host virtual address for 0x0 () is 0x7fb2a3e00000\r\n",
		"Host virtual address for 0x0 ( is 0x7fb2a3e00000\r\n",
		"Host virtual address for 0x0 is 0x7fb2a3e00000\r\n",
		"Host virtual address for 0x0x (pc.ram) is 0x7fb2a3e00000\r\n",
		"Host virtual address for (pc.ram) is 0x7fb2a3e00000\r\n",
		"Host virtual address for 0x0 (pc.ram) was 0x7fb2a3e00000\r\n",
	};
	struct qmonitor_place place;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		cr_assert_eq(gpa2hva(texts[i], &place), -EPROTO, "%s", texts[i]);
}
