#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# tarball.sh FILE: the tarball of `make dist` has every file that git has, and nothing but what is generated
# beside them.  (Not part of make check: there is no tarball then.)
# shellcheck disable=SC2317,SC2329 # functions are called through check()
set -u
# shellcheck source=tests/lib/tap.sh
. "$(dirname "$0")/../lib/tap.sh"

generated='^(build-aux/.*|m4/[^/]*\.m4|aclocal\.m4|configure|config\.h\.in|Makefile\.in|\.tarball-version)$'
# what is for those who work in git
private='^(\.gitignore|\.gitkeep|m4/\.gitkeep|\.ci/.*)$'

in_git()
{
	git -c safe.directory='*' -C "$top" ls-files | grep -vE "$private" | sort
}

in_tarball()
{
	tar -tf "$tarball" | sed 's,^[^/]*/,,' | grep -v '/$' | grep -vE "$generated" | grep . | sort
}

everything_is_there()
{
	in_git >"$dir/git" && in_tarball >"$dir/tarball" && test -s "$dir/git" &&
	comm -23 "$dir/git" "$dir/tarball" >"$dir/missing"
	cat "$dir/missing"
	test ! -s "$dir/missing"
}

nothing_else_is_there()
{
	in_git >"$dir/git" && in_tarball >"$dir/tarball" &&
	comm -13 "$dir/git" "$dir/tarball" >"$dir/more"
	cat "$dir/more"
	test ! -s "$dir/more"
}

tarball=${1-}
[ -e "$tarball" ] || { echo "Bail out! no tarball"; exit 1; }
check "every file of the tree is in the tarball" everything_is_there
check "nothing else is in the tarball but what is generated" nothing_else_is_there
tap_done
