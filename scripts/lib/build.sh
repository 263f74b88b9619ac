# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# How the tree becomes a build tree.  Sourced by scripts/check and scripts/demo, which set top.

# build_configure: make ./configure, again when what it is made from has changed
build_configure()
{
	# shellcheck disable=SC2154 # top is set by who sources this
	if [ -e "$top/configure" ] && [ -z "$(find "$top/configure.ac" "$top/Makefile.am" "$top/src" "$top/tests" \
		"$top/man" \( -name configure.ac -o -name Makefile.am -o -name Makemodule.am \) \
		-newer "$top/configure")" ]; then
		return 0
	fi
	(cd "$top" && autoreconf -fi && touch configure)
}

# build_make DIR "CONFIGURE FLAGS" GOAL...: configure once, then make
build_make()
{
	mkdir -p "$1" && cd "$1" || return
	# shellcheck disable=SC2086 # a list of words
	[ -e config.status ] || "$top/configure" --quiet $2 || return
	shift 2
	# One goal at a time: `all` is a make of its own, and two makes must not build the same file.
	for goal; do
		make -j"$(nproc)" "$goal" || return
	done
}
