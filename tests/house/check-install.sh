#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# As a user has it: make install into a directory, then everything is used from there.
# shellcheck disable=SC2317,SC2329 # functions are called through check()
set -u
# shellcheck source=tests/lib/tap.sh
. "$(dirname "$0")/../lib/tap.sh"

root=$dir/root
version=$(sed -n 's/^PACKAGE_VERSION = //p' "$build/Makefile")
prefix=$root$(sed -n 's/^prefix = //p' "$build/Makefile")

programs=$(sed -e ':join' -e '/\\$/{N;s/\\\n//;b join' -e '}' "$build/Makefile" | sed -n 's/^s*bin_PROGRAMS = //p' |
	sed 's/\$(EXEEXT)//g' | tr '\n' ' ')

installs()
{
	make -C "$build" -s DESTDIR="$root" install
}

# Every program that make built for people is there and tells its version.
programs_tell_their_version()
{
	for program in $programs; do
		path=$(find "$prefix" -name "$program" -type f -perm -100)
		test -n "$path" || { echo "$program is not installed"; return 1; }
		said=$("$path" --version) || { echo "$program --version: status $?"; return 1; }
		case $said in *"$version"*) ;; *) echo "$program says: $said"; return 1 ;; esac
		"$path" --help | grep -q . || { echo "$program --help says nothing"; return 1; }
	done
	test "$(echo "$programs" | wc -w)" -ge 3
}

every_program_has_a_page()
{
	for program in $programs; do
		find "$prefix/share/man" -name "$program.[18]" | grep -q . || { echo "no page for $program"; return 1; }
	done
}

user_program()
{
	cat <<-'END'
	#include <postcopy/postcopy.h>
	#include <stdio.h>
	int main(void)
	{
		struct postcopy_options options = POSTCOPY_OPTIONS_INIT;
		options.name = "user";
		puts(postcopy_version());
		return options.size == 0;
	}
	END
}

# builds_with COMPILER SUFFIX: found by pkg-config, linked, loaded, run
builds_with()
{
	user_program >"$dir/user.$2"
	pc=$(find "$prefix" -name libpostcopy.pc)
	test -n "$pc" || return 1
	flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --define-variable=prefix="$prefix" --cflags --libs \
		libpostcopy) || return 1
	# shellcheck disable=SC2086 # a list of words
	"$1" -Wall -Wextra -Werror -o "$dir/user" "$dir/user.$2" $flags &&
	said=$(LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libpostcopy.so)") "$dir/user") &&
	test "$said" = "$version"
}

# With what was installed, and nothing else of ours.
example_builds()
{
	blk=$(find "$prefix" -name vhost-user-blk.c)
	vmm=$(find "$prefix" -name vmm.c)
	flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --define-variable=prefix="$prefix" --cflags --libs \
		libpostcopy) || return 1
	# shellcheck disable=SC2086 # a list of words
	"${CC:-cc}" -D_GNU_SOURCE -Wall -Wextra -Werror -o "$dir/blk" "$blk" $flags &&
	"${CC:-cc}" -D_GNU_SOURCE -Wall -Wextra -Werror -o "$dir/vmm" "$vmm" $flags -lpthread
}

# What was installed by make goes by make.
uninstalls()
{
	make -C "$build" -s DESTDIR="$root" uninstall || return 1
	find "$root" ! -type d >"$dir/left"
	cat "$dir/left"
	test ! -s "$dir/left"
}

[ -e "$build/Makefile" ] || { echo "1..0 # SKIP not configured here"; exit 0; }
check "make install" installs
check "every program is there and tells its version" programs_tell_their_version
check "every program has its page" every_program_has_a_page
if instrumented "$prefix/lib/libpostcopy.so"; then
	echo "# not looked at, the library is instrumented: programs that use it"
else
	check "a C program builds against it" builds_with "${CC:-cc}" c
	check "the example of a back-end builds against it" example_builds
	if command -v "${CXX:-c++}" >/dev/null; then
		check "a C++ program builds against it" builds_with "${CXX:-c++}" cc
	else
		skip "a C++ program builds against it" "no C++ compiler"
	fi
fi
check "make uninstall leaves nothing" uninstalls
tap_done
