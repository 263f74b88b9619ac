/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way to a device of the kernel's, up to where it takes a kernel that has one
 * (tests/interop/vfio.py): what is refused says why.
 */
#include "config.h"

#include "sys/devio_vfio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

static char top[] = "/tmp/devio_vfio.XXXXXX";
static char path[512];

static const char *in_sysfs(const char *name)
{
	snprintf(path, sizeof(path), "%s/%s", top, name);
	return path;
}

static void refused(int err, const char *name, const char *words)
{
	const char *why = "";
	struct devio d;

	cr_assert_eq(devio_vfio_open(&d, in_sysfs(name), &why), err, "%s: %s", name, why);
	cr_assert(strstr(why, words), "%s: %s", name, why);
}

Test(devio_vfio, what_is_refused_says_why)
{
	cr_assert(mkdtemp(top));
	refused(-ENODEV, "nothing", "no such device");
	cr_assert_eq(mkdir(in_sysfs("plain"), 0700), 0);
	refused(-ENODEV, "plain", "no IOMMU group");
	cr_assert_eq(mkdir(in_sysfs("cdev"), 0700), 0);
	cr_assert_eq(mkdir(in_sysfs("cdev/vfio-dev"), 0700), 0);
	refused(-EOPNOTSUPP, "cdev", "iommufd");
	cr_assert_eq(mkdir(in_sysfs("odd"), 0700), 0);
	cr_assert_eq(symlink("../../kernel/iommu_groups/many", in_sysfs("odd/iommu_group")), 0);
	refused(-ENODEV, "odd", "no number");
	unlink(in_sysfs("odd/iommu_group"));
	rmdir(in_sysfs("odd"));
	rmdir(in_sysfs("cdev/vfio-dev"));
	rmdir(in_sysfs("cdev"));
	rmdir(in_sysfs("plain"));
	rmdir(top);
}

/* Devices of one group have to be opened beside each other: that can be told before. */
Test(devio_vfio, the_group_of_a_device)
{
	const char *why = "";

	cr_assert(mkdtemp(top));
	cr_assert_eq(devio_vfio_group(in_sysfs("nothing"), &why), -ENODEV);
	cr_assert(strstr(why, "no such device"), "%s", why);
	cr_assert_eq(symlink("../../../kernel/iommu_groups/12", in_sysfs("iommu_group")), 0);
	cr_assert_eq(devio_vfio_group(top, &why), 12);
	unlink(in_sysfs("iommu_group"));
	rmdir(top);
}

Test(devio_vfio, a_path_that_is_too_long)
{
	const char *why = "";
	char name[2000];
	struct devio d;

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	cr_assert_eq(devio_vfio_open(&d, name, &why), -ENODEV);
}
