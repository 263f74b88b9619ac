/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of postcopy-source: content anyone can compute again, claims, and the walk over what is
 * owed. */
#include "config.h"

#include "tools/source_block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <xxhash.h>

#include "core/guard.h"

#define K UINT64_C(1024)
#define M (K * K)

static struct source_block make(uint64_t length, uint64_t page_size, unsigned zero)
{
	struct source_block_spec spec = {.name = "ram",
					 .length = length,
					 .page_size = page_size,
					 .seed = 3,
					 .zero_percent = zero};
	struct source_block b;

	cr_assert_eq(source_block_init(&b, &spec), 0);
	return b;
}

/* Computed by hand from the description, with another program. */
Test(source_block, pattern_is_the_described_one)
{
	uint64_t key = source_pattern_key(20260, "ram");
	uint8_t page[SOURCE_TARGET_PAGE];
	uint64_t first, second, last;

	source_pattern_fill(key, 10, SOURCE_FINAL, page);
	memcpy(&first, page, 8);
	memcpy(&second, page + 8, 8);
	memcpy(&last, page + 4088, 8);
	cr_assert_eq(key, UINT64_C(0x1dd85f7c03a5f5fc));
	cr_assert_eq(first, UINT64_C(0xddd7183c375ca8d2));
	cr_assert_eq(second, UINT64_C(0x7c0e91f5b6a724e7));
	cr_assert_eq(last, UINT64_C(0xae9311814d0a56bd));
}

Test(source_block, content_depends_on_seed_name_page_and_stage)
{
	uint8_t page[5][SOURCE_TARGET_PAGE];

	source_pattern_fill(source_pattern_key(1, "a"), 0, SOURCE_FINAL, page[0]);
	source_pattern_fill(source_pattern_key(2, "a"), 0, SOURCE_FINAL, page[1]);
	source_pattern_fill(source_pattern_key(1, "b"), 0, SOURCE_FINAL, page[2]);
	source_pattern_fill(source_pattern_key(1, "a"), 1, SOURCE_FINAL, page[3]);
	source_pattern_fill(source_pattern_key(1, "a"), 0, SOURCE_STALE, page[4]);
	for (int i = 0; i < 5; i++)
		for (int j = 0; j < i; j++)
			cr_assert_neq(memcmp(page[i], page[j], SOURCE_TARGET_PAGE), 0, "%d %d", i,
				      j);
}

static unsigned count_zero(const struct source_block *b)
{
	uint8_t page[SOURCE_TARGET_PAGE];
	unsigned n = 0;

	for (uint64_t t = 0; t < b->spec.length / SOURCE_TARGET_PAGE; t++)
		n += source_block_read(b, t, SOURCE_FINAL, page) == 1;
	return n;
}

Test(source_block, zero_pages_come_in_the_share_asked_for)
{
	static const unsigned shares[] = {0, 10, 50, 90, 100};

	for (size_t i = 0; i < ARRAY_LEN(shares); i++) {
		struct source_block b = make(16 * M, 4096, shares[i]);
		unsigned n = count_zero(&b), expected = 4096 * shares[i] / 100;

		cr_assert(n >= expected * 9 / 10 && n <= expected * 11 / 10, "%u of 4096 at %u %%",
			  n, shares[i]);
		source_block_deinit(&b);
	}
}

/* A receiver has to meet all three: pages that are zero, that are not, and that are in part. */
Test(source_block, large_pages_are_zero_as_a_whole_and_in_part)
{
	struct source_block b = make(200 * M, 2 * M, 30);
	uint8_t page[SOURCE_TARGET_PAGE];
	unsigned whole = 0, part = 0;

	for (uint64_t p = 0; p < b.n_pages; p++) {
		unsigned n = 0;

		for (uint64_t t = 0; t < 512; t++)
			n += source_block_read(&b, p * 512 + t, SOURCE_FINAL, page) == 1;
		whole += n == 512;
		part += n > 0 && n < 512;
	}
	cr_assert(whole > 10 && whole < 60, "%u", whole);
	cr_assert_eq(whole + part, b.n_pages);
	source_block_deinit(&b);
}

Test(source_block, a_page_is_claimed_once)
{
	struct source_block b = make(256 * K, 4096, 0);

	for (int i = 0; i < 64; i++) {
		cr_assert(source_block_claim(&b, (uint64_t)i));
		cr_assert_not(source_block_claim(&b, (uint64_t)i));
		cr_assert(source_block_ask(&b, (uint64_t)i));
		cr_assert_not(source_block_ask(&b, (uint64_t)i));
	}
	source_block_deinit(&b);
}

/* Against a plain array, over the edges of words and of the block. */
Test(source_block, the_walk_finds_every_run)
{
	static const unsigned lengths[] = {1, 63, 64, 65, 127, 128, 200};

	for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
		struct source_block b = make(lengths[i] * 4096, 4096, 0);
		bool taken[200] = {false};

		srand(lengths[i]);
		for (unsigned p = 0; p < lengths[i]; p++)
			if ((taken[p] = rand() % 3 == 0))
				source_block_settle(&b, p);
		for (unsigned from = 0; from < lengths[i]; from++) {
			unsigned owed = from, claimed = from;

			while (owed < lengths[i] && taken[owed])
				owed++;
			while (claimed < lengths[i] && !taken[claimed])
				claimed++;
			cr_assert_eq(source_block_next_owed(&b, from), owed, "%u of %u", from,
				     lengths[i]);
			cr_assert_eq(source_block_next_claimed(&b, from), claimed, "%u of %u", from,
				     lengths[i]);
		}
		cr_assert_eq(source_block_next_owed(&b, lengths[i]), lengths[i]);
		source_block_deinit(&b);
	}
}

Test(source_block, digest_is_that_of_the_whole_content)
{
	struct source_block b = make(2 * M, 4096, 25);
	cleanup_free uint8_t *all = calloc(1, 2 * M);
	XXH128_hash_t whole;
	uint64_t digest[2];

	for (uint64_t t = 0; t < 512; t++)
		cr_assert_geq(source_block_read(&b, t, SOURCE_FINAL, all + t * SOURCE_TARGET_PAGE),
			      0);
	whole = XXH3_128bits(all, 2 * M);
	cr_assert_eq(source_block_digest(&b, digest), 0);
	cr_assert(digest[0] == whole.high64 && digest[1] == whole.low64);
	source_block_deinit(&b);
}

Test(source_block, after_a_loss_all_is_owed_that_is_not_claimed_again)
{
	struct source_block b = make(300 * 4 * K, 4 * K, 0);

	cr_assert(source_block_claim(&b, 7) && source_block_ask(&b, 7));
	cr_assert(source_block_note_sent(&b, 7) && !source_block_note_sent(&b, 7));
	source_block_settle(&b, 299);
	cr_assert_eq(source_block_count_owed(&b), 298);
	source_block_start_over(&b);
	cr_assert_eq(source_block_count_owed(&b), 300);
	cr_assert(source_block_claim(&b, 7) && source_block_ask(&b, 7));
	cr_assert(source_block_was_sent(&b, 7) && source_block_was_sent(&b, 299));
	cr_assert(!source_block_was_sent(&b, 8));
	source_block_deinit(&b);
}

Test(source_block, a_file_ends_in_zeroes)
{
	char path[] = "/tmp/test_source_block.XXXXXX", text[5000];
	struct source_block_spec spec = {
		.name = "f", .length = 16384, .page_size = 4096, .file = path};
	uint8_t page[SOURCE_TARGET_PAGE];
	struct source_block b;
	int fd = mkstemp(path);

	memset(text, 'x', sizeof(text));
	cr_assert_eq(write(fd, text, sizeof(text)), (ssize_t)sizeof(text));
	close(fd);
	cr_assert_eq(source_block_init(&b, &spec), 0);
	cr_assert_eq(source_block_read(&b, 1, SOURCE_FINAL, page), 0);
	cr_assert(page[903] == 'x' && page[904] == 0 && page[4095] == 0);
	cr_assert_eq(source_block_read(&b, 1, SOURCE_STALE, page), 0);
	cr_assert(page[903] == (uint8_t) ~'x' && page[4095] == 0xff);
	cr_assert_eq(source_block_read(&b, 2, SOURCE_FINAL, page), 1);
	source_block_deinit(&b);
	unlink(path);
	cr_assert_eq(source_block_init(&b, &spec), -ENOENT);
	source_block_deinit(&b);
}
