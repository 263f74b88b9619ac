#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# run.sh [SECONDS]: in a build tree configured with --enable-fuzzing, run every fuzz target for SECONDS
# (15) on its seeds, as many at a time as there are CPUs, and say in TAP how it went.  0 SECONDS: run the seeds only.  FUZZ_SEED repeats a run.
# What crashed a target is left in tests/fuzz/crashes/.
set -eu
seconds=${1:-15}
seed=${FUZZ_SEED:-20251120}
here=$(cd "$(dirname "$0")" && pwd)
work=$PWD/tests/fuzz
targets=$(sed -n 's,^fuzz_programs *+= *,,p' "$here/Makemodule.am")
failed=0
number=0

fuzz()
{
	corpus=$work/corpus/$1
	limit=$([ "$seconds" -eq 0 ] && echo -runs=0 || echo "-max_total_time=$seconds")
	mkdir -p "$corpus" "$work/crashes"
	"$work/fuzz_$1" "$limit" -seed="$seed" -timeout=20 -rss_limit_mb=2048 -max_len=131072 \
		-print_final_stats=1 -artifact_prefix="$work/crashes/$1-" "$corpus" >"$work/$1.log" 2>&1
}

[ -n "$targets" ] || { echo "Bail out! no targets in $here/Makemodule.am"; exit 1; }
echo "TAP version 13"
echo "# FUZZ_SEED=$seed, $seconds seconds each"
rm -rf "$work/corpus"
"$here/seeds.sh" "$work/corpus"

for target in $targets; do
	name=${target#tests/fuzz/fuzz_}
	rm -f "$work/$name.passed"
	{ ! fuzz "$name" || : >"$work/$name.passed"; } &
	number=$((number + 1))
	[ $((number % $(nproc))) -ne 0 ] || wait
done
wait
number=0
for target in $targets; do
	name=${target#tests/fuzz/fuzz_}
	number=$((number + 1))
	if [ -e "$work/$name.passed" ]; then
		runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$name.log")
		echo "ok $number - fuzz_$name # ${runs:-0} inputs"
	else
		failed=$((failed + 1))
		echo "not ok $number - fuzz_$name"
		tail -n 40 "$work/$name.log" | sed 's/^/# /'
	fi
done
echo "1..$number"
echo "# $((number - failed)) of $number targets passed"
[ "$failed" -eq 0 ]
