#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# seeds.sh DIRECTORY: make DIRECTORY/NAME with the seeds of every target fuzz_NAME: those of
# tests/fuzz/seeds/NAME, and pieces of the recorded migrations in tests/fixtures.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$here/../fixtures
out=$1

# piece TARGET NAME PREFIX FIXTURE OFFSET LENGTH: the bytes of PREFIX (for printf), then part of a stream
piece()
{
	mkdir -p "$out/$1"
	{
		printf "$3"
		gzip -dc "$fixtures/$4.gz" | tail -c +$(($5 + 1)) | head -c "$6"
	} >"$out/$1/$2"
}

for dir in "$here"/seeds/*/; do
	[ -d "$dir" ] || continue
	mkdir -p "$out/$(basename "$dir")"
	cp "$dir"/* "$out/$(basename "$dir")"
done

# The first byte says where the stream begins (0 header, 1 urgent channel, 2 recovery, 3 behind the
# block list), the second how it arrives.
piece qstream main-72		'\000\000' q72-plain.c0.s2d			0	12000
piece qstream main-72-pieces	'\000\007' q72-plain.c0.s2d			0	3000
piece qstream main-100		'\000\000' q100-preempt-recover.c0.s2d		0	12000
piece qstream switchover	'\003\000' q72-plain.c0.s2d			195934	30000
piece qstream switchover-pieces '\003\003' q72-plain.c0.s2d			195934	15000
piece qstream end		'\003\001' q72-plain.c0.s2d			765923	19
piece qstream precopy-end	'\003\000' q72-precopy.c0.s2d			30762	2000
piece qstream xbzrle-end	'\003\001' q72-xbzrle.c0.s2d			949273	30000
piece qstream urgent-72		'\001\000' q72-preempt.c1.s2d			0	17000
piece qstream urgent-100	'\001\005' q100-preempt-recover.c1.s2d		0	17000
piece qstream recovery		'\002\002' q100-preempt-recover.rec.c0.s2d	0	1000

for name in q72-plain.c0 q72-preempt.c0 q100-preempt-recover.c0 q100-preempt-recover.rec.c0; do
	piece qreturn "$name" '' "$name.d2s" 0 4000
done

piece package_tail package-72	'\000' q72-plain.c0.s2d			196952	12876
piece package_tail package-100	'\000' q100-preempt-recover.c0.s2d	1222163	12876
piece package_tail tail		'\001' q72-precopy.c0.s2d		30780	200000
mkdir -p "$out/package_tail"
printf '\001dev\000\006\000\000\000\002{}' >"$out/package_tail/tail-small"
printf '\000\010\000\004\000\000\010\000\002\000\004\000\000\000\102\010\000\005\000\000' >"$out/package_tail/package-small"
printf '\002\000\003abc\002\001X' >"$out/package_tail/delta"
printf '\002\377\001\001Z' >"$out/package_tail/delta-long"

# Device parts with their section globalstate.
piece qglobalstate device-72	'' q72-plain.c0.s2d			196957	12857
piece qglobalstate device-100	'' q100-preempt-recover.c0.s2d		1222168	12857
piece qglobalstate section	'' q72-plain.c0.s2d			209680	134

# The first byte says which text it is (0 ramblock, 1 and 2 flat views, 3 gpa2hva).
for version in q72 q100 q111; do
	for machine in anon numa huge; do
		piece qmonitor "$version-$machine-ramblock" '\000' "$version-$machine.ramblock" 0 9999
	done
	for machine in anon numa; do
		piece qmonitor "$version-$machine-mtree" '\001' "$version-$machine.mtree" 0 99999
	done
done
