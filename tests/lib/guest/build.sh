#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# build.sh MIB OUT [disk|probe]: the self-checking guest for a machine with MIB MiB of memory, as a disk image.
# It works on everything between 2 MiB and 2 MiB below the top; with "disk" it reads a virtio disk, too, with "probe" it
# measures how long its touches take.
set -eu
usage="usage: build.sh MIB OUT [disk|probe]"
[ $# -ge 2 ] && [ $# -le 3 ] || { echo "$usage" >&2; exit 2; }
case ${3:-disk} in disk | probe) ;; *) echo "$usage" >&2; exit 2 ;; esac
mib=$1 out=$2
[ "$mib" -ge 16 ] && [ "$mib" -le 3072 ] || { echo "build.sh: $mib MiB: must be 16 to 3072" >&2; exit 2; }
here=$(dirname "$0")
work=$(mktemp -d "${TMPDIR:-/tmp}/pcguest.XXXXXX")
trap 'rm -rf "$work"' EXIT
as --32 ${3:+--defsym IO=1} --defsym START=$((2 << 20)) --defsym END=$(((mib - 2) << 20)) --defsym STRIDE=4751 \
	-o "$work/boot.o" "$here/boot.S"
ld -m elf_i386 -Ttext 0x7c00 -e _start -o "$work/boot.elf" "$work/boot.o"
objcopy -O binary -j .text "$work/boot.elf" "$work/boot.img"
[ "$(stat -c %s "$work/boot.img")" -eq 512 ] || { echo "build.sh: not one sector" >&2; exit 1; }
if [ $# -eq 3 ]; then
	"${CC:-gcc}" -m32 -march=i686 -O2 -Wall -Wextra -Werror -std=gnu11 -ffreestanding -fno-pic -fno-stack-protector \
		-fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only "-DRINGS=$(((mib - 2) << 20))u" -c -o "$work/part.o" "$here/$3.c"
	ld -m elf_i386 --no-warn-rwx-segments -T "$here/disk.ld" -o "$work/part.elf" "$work/part.o"
	objcopy -O binary "$work/part.elf" "$work/part.bin"
	[ "$(stat -c %s "$work/part.bin")" -eq $((16 * 512)) ] || { echo "build.sh: not 16 sectors" >&2; exit 1; }
	cat "$work/part.bin" >>"$work/boot.img"
fi
truncate -s 1M "$work/boot.img"
mv "$work/boot.img" "$out"
