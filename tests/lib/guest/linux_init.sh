#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: GPL-2.0-or-later
# The init of the Linux guest: modules, then linux_check with what the kernel's command line says (check=...).
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
while read -r module; do
	/bin/busybox insmod "/modules/$module.ko"
done </modules/order
for word in $(/bin/busybox cat /proc/cmdline); do
	case $word in
	check=*) words=$(echo "${word#check=}" | /bin/busybox tr , ' ') ;;
	esac
done
# shellcheck disable=SC2086 # a list of words
exec /linux_check $words
