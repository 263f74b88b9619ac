/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the ends of vfio-user say of themselves: the matrix of VERSION.  (F29, F39) */
#include "config.h"

#include "wire/vfioterms.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

#include "core/guard.h"

static int read_text(struct vfioterms *t, const char *text)
{
	const char *why = NULL;
	int err = vfioterms_read(t, text, strlen(text) + 1, &why);

	cr_expect_eq(why != NULL, err != 0, "%s: %s", text, why);
	return err;
}

Test(vfioterms, nothing_said_is_the_defaults)
{
	static const char *const texts[] = { "{}", "{\"capabilities\":{}}", "{\"else\":1}" };
	struct vfioterms t;

	for (size_t i = 0; i <= ARRAY_LEN(texts); i++) {
		cr_assert_eq(i ? read_text(&t, texts[i - 1]) : vfioterms_read(&t, NULL, 0, NULL),
			     0);
		cr_expect_eq(t.max_data, 1 << 20);
		cr_expect_eq(t.max_fds, 1);
		cr_expect_eq(t.pgsize, 4096);
		cr_expect_not(t.twin || t.twin_fd);
	}
}

Test(vfioterms, F29_as_a_server_answers)
{
	struct vfioterms t;

	cr_assert_eq(read_text(&t, "{ \"capabilities\": { \"max_msg_fds\": 8,"
				   " \"max_data_xfer_size\": 65536, \"migration\": { \"pgsize\":"
				   " 4096 }, \"twin_socket\": { \"supported\": true,"
				   " \"fd_index\": 0 }, \"write_multiple\": true } }"),
		     0);
	cr_expect_eq(t.max_fds, 8);
	cr_expect_eq(t.max_data, 65536);
	cr_expect(t.twin && t.twin_fd);
	cr_expect_eq(t.twin_index, 0);
}

Test(vfioterms, F39_what_is_out_of_bounds)
{
	static const struct {
		const char *text;
		int err;
	} rows[] = {
		{ "{\"capabilities\":{\"max_msg_fds\":0}}", 0 },
		{ "{\"capabilities\":{\"max_msg_fds\":1024}}", 0 },
		{ "{\"capabilities\":{\"max_msg_fds\":1025}}", -EBADMSG },
		{ "{\"capabilities\":{\"max_msg_fds\":-1}}", -EBADMSG },
		{ "{\"capabilities\":{\"max_msg_fds\":\"8\"}}", -EBADMSG },
		{ "{\"capabilities\":{\"max_data_xfer_size\":1}}", 0 },
		{ "{\"capabilities\":{\"max_data_xfer_size\":0}}", -EBADMSG },
		{ "{\"capabilities\":{\"max_data_xfer_size\":4294967295}}", 0 },
		{ "{\"capabilities\":{\"max_data_xfer_size\":4294967296}}", -EBADMSG },
		{ "{\"capabilities\":{\"max_data_xfer_size\":1.5}}", -EBADMSG },
		{ "{\"capabilities\":{\"migration\":{\"pgsize\":4096}}}", 0 },
		{ "{\"capabilities\":{\"migration\":{\"pgsize\":65536}}}", 0 },
		{ "{\"capabilities\":{\"migration\":{\"pgsize\":2048}}}", -EBADMSG },
		{ "{\"capabilities\":{\"migration\":{\"pgsize\":5000}}}", -EBADMSG },
		{ "{\"capabilities\":{\"migration\":4096}}", -EBADMSG },
		{ "{\"capabilities\":{\"twin_socket\":{\"supported\":1}}}", -EBADMSG },
		{ "{\"capabilities\":{\"twin_socket\":true}}", -EBADMSG },
		{ "{\"capabilities\":{\"twin_socket\":{\"fd_index\":8}}}", -EBADMSG },
		{ "{\"capabilities\":{\"twin_socket\":{\"fd_index\":-1}}}", -EBADMSG },
		{ "{\"capabilities\":[]}", -EBADMSG },
		{ "[]", -EBADMSG },
		{ "4", -EBADMSG },
		{ "", -EBADMSG },
		{ "{", -EBADMSG },
		{ "{\"capabilities\":{}} x", -EBADMSG },
	};
	struct vfioterms t;

	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		cr_expect_eq(read_text(&t, rows[i].text), rows[i].err, "%s", rows[i].text);
	cr_expect_eq(vfioterms_read(&t, "{}", 2, NULL), -EBADMSG, "without a NUL");
	cr_expect_eq(vfioterms_read(&t, "{}\0", 4, NULL), -EBADMSG, "with two");
}

Test(vfioterms, what_is_printed_is_read)
{
	const struct vfioterms said = {
		.max_data = 12345,
		.max_fds = 3,
		.pgsize = 8192,
		.twin = true,
		.twin_fd = true,
		.twin_index = 2,
	};
	size_t len;
	cleanup_free char *text = vfioterms_print(&said, &len);
	struct vfioterms t;

	cr_assert_not_null(text);
	cr_assert_eq(len, strlen(text) + 1);
	cr_assert_eq(read_text(&t, text), 0);
	cr_expect_eq(t.max_data, said.max_data);
	cr_expect_eq(t.max_fds, said.max_fds);
	cr_expect_eq(t.pgsize, said.pgsize);
	cr_expect(t.twin && t.twin_fd);
	cr_expect_eq(t.twin_index, said.twin_index);
}

Test(vfioterms, the_lower_bound_holds)
{
	struct vfioterms ours = vfioterms_default(), theirs = vfioterms_default();
	struct vfiomsg_terms both;

	ours.max_fds = 8;
	theirs.max_data = 512;
	both = vfioterms_agree(&ours, &theirs);
	cr_expect_eq(both.max_data, 512);
	cr_expect_eq(both.max_fds, 1);
}
