#!/bin/busybox sh
# shellcheck shell=dash disable=SC2086
# SPDX-License-Identifier: GPL-2.0-or-later
# The init of the guest with VFIO devices: modules, devices of mtty, edu for VFIO's driver, every program with those that it
# is for, and off.  (Lists of devices and of parameters are meant to fall apart: SC2086.)
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
while read -r module parameters; do
	/bin/busybox insmod "/modules/$module.ko" $parameters
done </modules/order
mtty=
for n in 1 2 3 4; do
	uuid=83b8f4f2-509f-382f-3c1e-e6bfe0fa100$n
	echo "$uuid" >/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create
	mtty="$mtty /sys/bus/mdev/devices/$uuid"
done
edu=
for address in 0000:00:04.0 0000:00:05.0 0000:00:05.1; do
	echo vfio-pci >"/sys/bus/pci/devices/$address/driver_override"
	echo "$address" >/sys/bus/pci/drivers_probe
	edu="$edu /sys/bus/pci/devices/$address"
done
run()
{
	program=$1
	shift
	"/$program" "$@"
	echo "$program ended with $?"
}
run vfio_check $mtty
run vfio_move $mtty
run vfio_dma $edu
run vfio_dirty /sys/bus/pci/devices/0000:00:04.0 $mtty
run vfio_daemon.sh $mtty
/bin/busybox poweroff -f
