# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# TAP for tests written in shell.  Sourced; sets top (source tree), build (build tree) and dir, a directory
# that goes when the test ends.
# shellcheck disable=SC2034 # what is set here is for those who source it

top=${POSTCOPY_TOP_SRCDIR:-$(cd "$(dirname "$0")/../.." && pwd)}
build=${POSTCOPY_TOP_BUILDDIR:-$PWD}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
tap_count=0
tap_failed=0

# check NAME COMMAND...: what the command printed becomes comments when it failed
check()
{
	name=$1
	shift
	tap_count=$((tap_count + 1))
	if "$@" >"$dir/out" 2>&1; then
		echo "ok $tap_count - $name"
	else
		tap_failed=1
		echo "not ok $tap_count - $name"
		sed 's/^/# /' "$dir/out"
	fi
}

# skip NAME REASON
skip()
{
	tap_count=$((tap_count + 1))
	echo "ok $tap_count - $1 # SKIP $2"
}

tap_done()
{
	echo "1..$tap_count"
	exit "$tap_failed"
}

# instrumented FILE: built with a sanitizer or for coverage, so it shows more than what was written
instrumented()
{
	nm "$1" 2>/dev/null | grep -qE '__(asan|tsan|ubsan|sanitizer|sancov|gcov)|__llvm_profile'
}
