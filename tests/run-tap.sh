#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# run-tap.sh PROGRAM [ARGUMENT]...: run one test program with its TAP on stdout, for automake's driver.
#
# Exit status 77 before any plan becomes a skip of the whole plan, its reason the last line printed.
# POSTCOPY_TESTS_MUST_RUN=1 turns every skip into a failure.  POSTCOPY_TESTS_TIMEOUT=SECONDS (900) ends a
# program that takes longer.

filter='
function skipped(why)
{
	if (must_run)
		print "1..1\nnot ok 1 - must run, but was skipped: " why
	else
		print "1..0 # SKIP " why
	return must_run ? 1 : 0
}
BEGIN { status = 1 }
/#exit [0-9]+$/ {
	status = $NF
	sub(/#exit [0-9]+$/, "")
	if ($0 == "")
		next
}
/^1\.\.0/ {
	sub(/^1\.\.0[ #]*([Ss][Kk][Ii][Pp]:?)? */, "")
	status = skipped($0)
	planned = 1
	next
}
/^1\.\./ { planned = 1 }
must_run && /^ok.*# *[Ss][Kk][Ii][Pp]/ {
	sub(/^ok/, "not ok")
	sub(/# *[Ss][Kk][Ii][Pp]/, "(must run, but was skipped)")
}
/[^ \t]/ { last = $0 }
{ print; fflush() }
END {
	sub(/^[# ]*/, "", last)
	if (status == 77 && !planned)
		status = skipped(last)
	exit status
}'

{
	timeout --foreground -k 10 "${POSTCOPY_TESTS_TIMEOUT:-900}" "$@"
	status=$?
	[ "$status" -ne 124 ] || echo "# ended by run-tap.sh after ${POSTCOPY_TESTS_TIMEOUT:-900} seconds"
	echo "#exit $status"
} | awk -v must_run="${POSTCOPY_TESTS_MUST_RUN:-0}" "$filter"
