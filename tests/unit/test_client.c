/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libpostcopy's calls: what each of them sends, and what comes of every answer (F06, F16, F22).
 * Events and the end of the connection are in test_conn.c.
 */
#include "config.h"

#include "postcopy/postcopy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "core/guard.h"
#include "peer.h"
#include "sys/fd.h"

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

Test(client, blocks_of_other_sizes)
{
	struct {
		struct postcopy_block b;
		uint64_t newer;
	} big = { .b = { .size = sizeof(big), .name = "pc.ram", .length = 4096 } };
	postcopy *handle;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	big.b.fd = memfd_create("ram", MFD_CLOEXEC);
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_add_block(handle, &big.b), 0);
	big.newer = 1;
	cr_assert_eq(postcopy_add_block(handle, &big.b), -E2BIG);
	big.b.size = sizeof(big.b) - 1;
	cr_assert_eq(postcopy_add_block(handle, &big.b), -EINVAL);
	cr_assert_eq(postcopy_add_block(handle, NULL), -EINVAL);
	close(big.b.fd);
	postcopy_free(handle);
	peer_deinit(&p);
}

static void expect(struct peer *p, enum regmsg_type type, uint32_t serial, union regmsg *m, int *fd)
{
	cr_assert(peer_receive(p, m, fd), "%s was not sent", regmsg_type_name(type));
	cr_assert_eq(m->head.type, type, "%s", regmsg_type_name(m->head.type));
	cr_assert_eq(m->head.serial, serial);
}

Test(client, shared_block)
{
	struct postcopy_block b = { .size = sizeof(b),
				    .name = "pc.ram",
				    .length = 1 << 21,
				    .page_size = 4096,
				    .file_offset = 1 << 20 };
	cleanup_fd int memory = memfd_create("ram", MFD_CLOEXEC), passed = -1;
	postcopy *handle;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	b.fd = memory;
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_add_block(handle, &b), 0);
	cr_assert_str_eq(postcopy_strerror(handle), "");
	expect(&p, REGMSG_BLOCK, 2, &m, &passed);
	cr_assert(same_file(passed, memory));
	cr_assert_eq(m.block.flags, 0);
	cr_assert_eq(m.block.length, 1 << 21);
	cr_assert_eq(m.block.page_size, 4096);
	cr_assert_eq(m.block.file_offset, 1 << 20);
	cr_assert_str_eq(m.block.name, "pc.ram");
	cr_assert_neq(fcntl(memory, F_GETFD), -1);

	peer_result(&p, 3, EEXIST, "pc.ram is declared twice");
	cr_assert_eq(postcopy_add_block(handle, &b), -EEXIST);
	cr_assert_str_eq(postcopy_strerror(handle), "pc.ram is declared twice");
	postcopy_free(handle);
	peer_deinit(&p);
}

/* What /proc/self/smaps says of the mapping at @address. */
static bool has_vm_flag(const void *address, const char *flag)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	char line[512], start[32];
	bool inside = false, found = false;

	snprintf(start, sizeof(start), "%lx-", (unsigned long)address);
	while (f && fgets(line, sizeof(line), f)) {
		if (strncmp(line, start, strlen(start)) == 0)
			inside = true;
		if (inside && strncmp(line, "VmFlags:", 8) == 0) {
			found = strstr(line, flag) != NULL;
			break;
		}
	}
	if (f)
		fclose(f);
	return found;
}

/* Private memory is emptied before it is handed over, and never backed by huge pages. */
Test(client, private_block)
{
	const size_t len = 1 << 21;
	uint8_t *memory =
		mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct postcopy_block b = {
		.size = sizeof(b), .fd = -1, .name = "pc.ram", .length = len, .address = memory
	};
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd = -1;

	cr_assert_neq(memory, MAP_FAILED);
	memory[4096] = 7;
	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	peer_result(&p, 2, 0, "");
	peer_result(&p, 3, 0, "");
	cr_assert_eq(postcopy_add_block(handle, &b), 0, "%s", postcopy_strerror(handle));
	expect(&p, REGMSG_BLOCK, 2, &m, &fd);
	cr_assert_eq(m.block.flags, REGMSG_BLOCK_PRIVATE);
	expect(&p, REGMSG_MAPPING, 3, &m, &fd);
	cr_assert_eq(m.mapping.flags, 0);
	cr_assert_eq(m.mapping.address, (uintptr_t)memory);
	cr_assert_eq(m.mapping.length, len);
	cr_assert_eq(m.mapping.block_offset, 0);
	cr_assert_str_eq(m.mapping.name, "pc.ram");
	cr_assert_eq(memory[4096], 0);
	cr_assert(has_vm_flag(memory, " nh"));
	postcopy_free(handle);
	peer_deinit(&p);
	munmap(memory, len);
}

/* A private block that the daemon refuses is not mapped there either. */
Test(client, private_block_refusals)
{
	uint8_t *memory =
		mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct postcopy_block b = { .size = sizeof(b), .fd = -1, .name = "pc.ram", .length = 4096 };
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_add_block(handle, &b), -EINVAL);
	cr_assert(strstr(postcopy_strerror(handle), "address"));
	b.address = memory + 1;
	cr_assert_eq(postcopy_add_block(handle, &b), -EINVAL);
	cr_assert(strstr(postcopy_strerror(handle), "DONTNEED"));
	b.address = memory;
	munmap(memory + 4096, 4096);
	b.length = 8192;
	cr_assert_eq(postcopy_add_block(handle, &b), -ENOMEM);
	cr_assert_not(peer_receive(&p, &m, &fd));

	b.length = 4096;
	peer_result(&p, 2, EEXIST, "pc.ram has a sharer");
	cr_assert_eq(postcopy_add_block(handle, &b), -EEXIST);
	expect(&p, REGMSG_BLOCK, 2, &m, &fd);
	cr_assert_not(peer_receive(&p, &m, &fd));
	postcopy_free(handle);
	peer_deinit(&p);
	munmap(memory, 4096);
}

Test(client, block_arguments)
{
	char name[257];
	struct postcopy_block b = { .size = sizeof(b), .name = name, .length = 4096 };
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	memset(name, 'n', 256);
	name[256] = '\0';
	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_add_block(handle, &b), -ENAMETOOLONG);
	b.name = NULL;
	cr_assert_eq(postcopy_add_block(handle, &b), -EINVAL);
	b.name = "pc.ram";
	b.length = 0;
	cr_assert_eq(postcopy_add_block(handle, &b), -EINVAL);
	b.length = 4096;
	b.page_size = 5000;
	cr_assert_eq(postcopy_add_block(handle, &b), -EINVAL);
	cr_assert(strstr(postcopy_strerror(handle), "power of two"));
	cr_assert_not(peer_receive(&p, &m, &fd));
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(client, self_registered_mapping)
{
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_SHARER);
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_map(handle, "pc.ram", 8192, (void *)0x7f0000000000, 4096), 0);
	expect(&p, REGMSG_MAPPING, 2, &m, &fd);
	cr_assert_eq(m.mapping.flags, REGMSG_MAPPING_REGISTERED);
	cr_assert_eq(m.mapping.address, 0x7f0000000000);
	cr_assert_eq(m.mapping.length, 4096);
	cr_assert_eq(m.mapping.block_offset, 8192);
	cr_assert_eq(postcopy_map(handle, "pc.ram", 0, NULL, 4096), -EINVAL);
	cr_assert_eq(postcopy_map(handle, NULL, 0, (void *)4096, 4096), -EINVAL);
	cr_assert_eq(postcopy_map(handle, "pc.ram", UINT64_MAX, (void *)4096, 4096), -EINVAL);
	cr_assert_not(peer_receive(&p, &m, &fd));
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(client, want)
{
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_SHARER);
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_want(handle, "pc.ram", 4096, 100, POSTCOPY_CLASS_DMA), 0);
	expect(&p, REGMSG_WANT, 2, &m, &fd);
	cr_assert_eq(m.want.klass, REGMSG_CLASS_DMA);
	cr_assert_eq(m.want.block_offset, 4096);
	cr_assert_eq(m.want.length, 100);
	cr_assert_str_eq(m.want.name, "pc.ram");
	cr_assert_eq(postcopy_want(handle, "pc.ram", 0, 0, POSTCOPY_CLASS_DMA), -EINVAL);
	cr_assert_eq(postcopy_want(handle, "pc.ram", 0, 1, (enum postcopy_class)9), -EINVAL);
	cr_assert_eq(postcopy_want(handle, "", 0, 1, POSTCOPY_CLASS_DMA), -EINVAL);
	cr_assert_not(peer_receive(&p, &m, &fd));
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(client, ready_and_leave)
{
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_SHARER);
	peer_result(&p, 2, 0, "");
	cr_assert_eq(postcopy_ready(handle), 0);
	expect(&p, REGMSG_READY, 2, &m, &fd);
	peer_result(&p, 3, EBUSY, "pc.ram is still mapped");
	cr_assert_eq(postcopy_leave(handle), -EBUSY);
	cr_assert_str_eq(postcopy_strerror(handle), "pc.ram is still mapped");
	expect(&p, REGMSG_LEAVE, 3, &m, &fd);
	peer_result(&p, 4, 0, "");
	cr_assert_eq(postcopy_leave(handle), 0);
	cr_assert_eq(postcopy_ready(handle), -ECONNRESET);
	cr_assert_not(peer_readable(postcopy_fd(handle)));
	postcopy_free(handle);
	peer_deinit(&p);
}

/* The main sharer says how loading went; no answer is waited for. */
/* F16: it does not know what became of a call: that is made once more, with its descriptor. */
Test(client, calls_that_a_restart_interrupted)
{
	struct postcopy_block b = { .size = sizeof(b), .name = "pc.ram", .length = 1 << 21 };
	cleanup_fd int passed = -1, again = -1;
	postcopy *handle;
	union regmsg m;
	struct peer p;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	b.fd = memfd_create("ram", MFD_CLOEXEC);
	peer_result(&p, 2, ERESTART, "restarted");
	peer_result(&p, 3, 0, "");
	cr_assert_eq(postcopy_add_block(handle, &b), 0, "%s", postcopy_strerror(handle));
	expect(&p, REGMSG_BLOCK, 2, &m, &passed);
	expect(&p, REGMSG_BLOCK, 3, &m, &again);
	cr_assert_str_eq(m.block.name, "pc.ram");
	cr_assert(same_file(again, b.fd));
	close(b.fd);

	/* Once: then the caller decides. */
	peer_result(&p, 4, ERESTART, "restarted");
	peer_result(&p, 5, ERESTART, "restarted, ask again");
	cr_assert_eq(postcopy_ready(handle), -ERESTART);
	cr_assert_str_eq(postcopy_strerror(handle), "restarted, ask again");
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(client, loaded)
{
	postcopy *handle;
	union regmsg m;
	struct peer p;
	int fd;

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_MAIN);
	cr_assert_eq(postcopy_loaded(handle), 0);
	expect(&p, REGMSG_LOADED, 2, &m, &fd);
	cr_assert_eq(postcopy_load_failed(handle, "no such device: virtio-net"), 0);
	expect(&p, REGMSG_LOAD_FAILED, 3, &m, &fd);
	cr_assert_str_eq(m.text.text, "no such device: virtio-net");
	cr_assert_eq(m.text.error, EIO);
	cr_assert_eq(postcopy_load_failed(handle, NULL), 0);
	close_fd(&p.sock);
	cr_assert_eq(postcopy_loaded(handle), -ECONNRESET);
	postcopy_free(handle);
	peer_deinit(&p);

	peer_init(&p);
	handle = peer_welcome(&p, POSTCOPY_ROLE_SHARER);
	cr_assert_eq(postcopy_loaded(handle), -EPERM);
	cr_assert_eq(postcopy_load_failed(handle, "x"), -EPERM);
	cr_assert_not(peer_receive(&p, &m, &fd));
	postcopy_free(handle);
	peer_deinit(&p);
}

Test(client, says_its_version)
{
	cr_assert_str_eq(postcopy_version(), PACKAGE_VERSION);
	cr_assert_str_eq(postcopy_strerror(NULL), "");
	postcopy_free(NULL);
}
