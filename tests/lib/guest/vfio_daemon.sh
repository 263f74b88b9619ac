#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: GPL-2.0-or-later
# vfio_daemon.sh SOURCE DEST ...: the daemon itself with a device of the kernel's: the state of SOURCE goes to DEST, which
# is started when all that it reaches has come.  The source sends only what it is asked for, and nobody but the device
# wants anything.  vfio_witness.so, in the daemon, says what is mapped; this, what becomes of it.
session=0bd5dcd8-47f2-4e5b-9a4c-3d1b0a6f7e21
source=$1 dest=$2
export LD_LIBRARY_PATH=/lib
export HOME=/run
export ASAN_OPTIONS=verify_asan_link_order=0 # the witness is no part of it
busybox() { /bin/busybox "$@"; }
ask() { /postcopyctl -r /run/pc "$@" --json; }
until_says()
{
	word=$1
	shift
	until ask "$@" 2>/dev/null | busybox grep -q "$word"; do :; done
}

busybox mkdir -p /run /tmp
busybox mkfifo /run/console
busybox dd if=/dev/urandom of=/run/image bs=64k count=16 2>/dev/null
LD_PRELOAD=/vfio_witness.so /postcopyd --incoming unix:/run/in --run-dir /run/pc --expect vm --stay \
	--device-channel "unix:/run/channel,session=$session" \
	--vfio "id=nic,sysfs=$dest,mandatory=on,deadline=600000" \
	--dma-map device=nic,iova=0x100000,block=m,length=512K --dma-map device=nic,iova=0x900000,block=m,offset=512K &
daemon=$!
until_says '"idle"' devices
/sharer --socket /run/pc/register --name vm --role main --console --threads 0 --seed 1 \
	--block m,size=1M,memfd=create <>/run/console &
/postcopy-source --to unix:/run/in --json --digest --commit-ping --no-background --linger 600000 \
	--block m,size=1M,file=/run/image >/run/summary &
sender=$!
until_says device:nic blockers
/vfio_send "$source" 0x5c /run/channel "$session" nic
until_says '"running"' devices
echo "devices $(ask devices)"
echo "blockers $(ask blockers)"
wait $sender
echo "summary $(busybox cat /run/summary)"
kill -KILL $daemon # or it would be asked twice, as it holds a device of a VM
wait $daemon
/vfio_send "$dest"
