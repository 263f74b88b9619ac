#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: GPL-2.0-or-later
# The init of the guest with VFIO devices: modules, two devices of mtty, vfio_check with both, and off.
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
while read -r module; do
	/bin/busybox insmod "/modules/$module.ko"
done </modules/order
one=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
two=83b8f4f2-509f-382f-3c1e-e6bfe0fa1002
for uuid in $one $two; do
	echo "$uuid" >/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create
done
/vfio_check "/sys/bus/mdev/devices/$one" "/sys/bus/mdev/devices/$two"
echo "vfio_check ended with $?"
/bin/busybox poweroff -f
