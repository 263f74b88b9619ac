/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of a dirty log: shared with whoever has its descriptor, who cannot change its size.
 * (F41)
 */
#include "config.h"

#include "sys/logmem.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

Test(logmem, shared_and_of_one_size)
{
	struct logmem l;
	uint64_t *theirs;
	struct stat st;

	logmem_init(&l);
	cr_assert_eq(logmem_make(&l, 520), 0);
	cr_assert_eq(l.bytes, 520);
	for (unsigned i = 0; i < 65; i++)
		cr_assert_eq(l.words[i], 0);
	cr_assert_eq(fstat(l.fd, &st), 0);
	cr_assert_eq(st.st_size % sysconf(_SC_PAGESIZE), 0);
	cr_assert_geq(st.st_size, 520);
	theirs = mmap(NULL, 520, PROT_READ | PROT_WRITE, MAP_SHARED, l.fd, 0);
	cr_assert_neq(theirs, MAP_FAILED);
	theirs[64] = 5;
	cr_assert_eq(l.words[64], 5);
	cr_assert_eq(ftruncate(l.fd, 0), -1, "who has it can make us die");
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(ftruncate(l.fd, 1 << 20), -1);
	logmem_deinit(&l);
	logmem_deinit(&l);
	cr_assert_eq(l.fd, -1);
	theirs[0] = 1;
	munmap(theirs, 520);
}

Test(logmem, what_cannot_be_made)
{
	struct logmem l;

	logmem_init(&l);
	cr_assert_eq(logmem_make(&l, 0), -EINVAL);
	cr_assert_eq(logmem_make(&l, 9), -EINVAL);
	cr_assert_eq(logmem_make(&l, UINT64_MAX - 7), -EFBIG);
	cr_assert_eq(l.fd, -1);
	cr_assert_null(l.words);
	/* 16 TiB of guest cost what is written. */
	cr_assert_eq(logmem_make(&l, UINT64_C(1) << 29), 0);
	logmem_deinit(&l);
}
