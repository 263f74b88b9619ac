// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * xxh3sum FILE [OFFSET LENGTH]: XXH3-128 of a file or a part of it, as postcopyd's own digests.
 *
 * Reads with pread(), so a memfd that is served by a userfaultfd is neither faulted nor filled.
 */
#include "config.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#define CHUNK (1u << 20)

static uint64_t number(const char *text)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end)
		errx(2, "%s: not a number", text);
	return value;
}

static uint64_t size_of(int fd, const char *path)
{
	struct stat st;

	if (fstat(fd, &st))
		err(1, "%s", path);
	return (uint64_t)st.st_size;
}

static void digest(XXH3_state_t *state, int fd, const char *path, uint64_t offset, uint64_t left)
{
	static char buffer[CHUNK];

	while (left) {
		size_t want = left < CHUNK ? (size_t)left : CHUNK;
		ssize_t got = pread(fd, buffer, want, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			err(1, "%s", path);
		if (!got)
			errx(1, "%s: ends at %" PRIu64, path, offset);
		XXH3_128bits_update(state, buffer, (size_t)got);
		offset += (uint64_t)got;
		left -= (uint64_t)got;
	}
}

int main(int argc, char **argv)
{
	XXH3_state_t *state;
	XXH128_hash_t hash;
	uint64_t offset;
	int fd;

	if (argc != 2 && argc != 4)
		errx(2, "usage: xxh3sum FILE [OFFSET LENGTH]");
	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		err(1, "%s", argv[1]);
	state = XXH3_createState();
	if (!state)
		errx(1, "out of memory");
	XXH3_128bits_reset(state);
	offset = argc == 4 ? number(argv[2]) : 0;
	digest(state, fd, argv[1], offset, argc == 4 ? number(argv[3]) : size_of(fd, argv[1]));
	hash = XXH3_128bits_digest(state);
	printf("%016" PRIx64 "%016" PRIx64 "\n", (uint64_t)hash.high64, (uint64_t)hash.low64);
	XXH3_freeState(state);
	close(fd);
	return 0;
}
