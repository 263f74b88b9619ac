#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What libpostcopy shows of itself, and what is loaded into others: it needs libc only, it exports what postcopy.h declares and what
# libpostcopy.map lists, no more and no less, and its header stands alone in C and C++.
# shellcheck disable=SC2317 # functions are called through check()
set -u

top=${POSTCOPY_TOP_SRCDIR:-$(dirname "$0")/../..}
build=${POSTCOPY_TOP_BUILDDIR:-.}
lib=$build/.libs/libpostcopy.so
preload=$build/.libs/libpostcopy-preload.so
header=$top/include/postcopy/postcopy.h
map=$top/src/client/libpostcopy.map
cc=${CC:-cc}
cxx=${CXX:-c++}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0
failed=0

# check NAME COMMAND...: one TAP line; what the command printed becomes comments when it failed
check()
{
	name=$1
	shift
	n=$((n + 1))
	if "$@" > "$dir/out" 2>&1; then
		echo "ok $n - $name"
	else
		failed=1
		echo "not ok $n - $name"
		sed 's/^/# /' "$dir/out"
	fi
}

skip()
{
	n=$((n + 1))
	echo "ok $n - $1 # SKIP $2"
}

exported()
{
	nm -D --defined-only "$lib" | sed -n 's/.* [TWBDRV] \(postcopy_[a-z_]*\)@@.*/\1/p' | sort
}

everything_exported()
{
	nm -D --defined-only "$lib" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort
}

declared()
{
	$cc -E -P "$header" | grep -oE '\bpostcopy_[a-z_]+ *\(' | tr -d ' (' | sort -u
}

listed()
{
	sed -n 's/^[[:space:]]*\(postcopy_[a-z_]*\);$/\1/p' "$map" | sort
}

same()
{
	"$1" > "$dir/a"
	"$2" > "$dir/b"
	test -s "$dir/a" && diff "$dir/a" "$dir/b"
}

# needs_libc_only LIBRARY
needs_libc_only()
{
	needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]$/\1/p')
	echo "needed: $needed"
	test "$needed" = libc.so.6
}

# Nothing is left open that another library would have to fill.
links_with_libc_only()
{
	printf 'int main(void) { return 0; }\n' > "$dir/main.c" &&
	$cc -o "$dir/main" "$dir/main.c" -Wl,--no-as-needed "$lib" -Wl,--no-undefined \
		-Wl,--no-allow-shlib-undefined -nodefaultlibs -lc &&
	LD_LIBRARY_PATH=$build/.libs "$dir/main"
}

# What it stands before, and nothing that could meet a symbol of the program.
stands_before_mapping_only()
{
	shows=$(nm -D --defined-only "$preload" | awk '{ print $3 }' | sort | tr '\n' ' ')
	echo "exported: $shows"
	test "$shows" = "mmap mmap64 mremap "
}

# Linked instead of preloaded: the same constructor, and quiet when nothing is asked.
can_be_linked()
{
	cat > "$dir/linked.c" <<-'END' &&
	#include <stdio.h>
	int main(void) { puts("runs"); return 0; }
	END
	$cc -o "$dir/linked" "$dir/linked.c" -L"$build/.libs" -Wl,--no-as-needed -lpostcopy-preload &&
	says=$(LD_LIBRARY_PATH=$build/.libs "$dir/linked" 2>&1) && test "$says" = runs &&
	! says=$(POSTCOPY_PRELOAD=register=/nobody,name=x LD_LIBRARY_PATH=$build/.libs "$dir/linked" 2>"$dir/complaint") &&
	test -z "$says" && grep -q 'cannot connect to postcopyd' "$dir/complaint"
}

one_version_node()
{
	! nm -D --defined-only "$lib" | grep ' T ' | grep -v '@@LIBPOSTCOPY_0\.1$'
}

soname()
{
	readelf -d "$lib" | grep -q 'SONAME.*\[libpostcopy\.so\.0\]'
}

# section NAME: its size in bytes
section()
{
	size -A "$lib" | awk -v name="$1" '$1 == name { bytes = $2 } END { print bytes + 0 }'
}

# The C runtime's own few bytes are all there is (constant tables with pointers are .data.rel.ro).
no_writable_data()
{
	echo ".data $(section .data), .bss $(section .bss)"
	test "$(section .data)" -le 16 && test "$(section .bss)" -le 16
}

# header_alone COMPILER STANDARD SUFFIX
header_alone()
{
	printf '#include <postcopy/postcopy.h>\n#include <postcopy/postcopy.h>\n%s\n' \
		'int (*keep)(postcopy *) = postcopy_ready;' > "$dir/alone.$3" &&
	"$1" -std="$2" -pedantic -Wall -Wextra -Werror -I"$top/include" -c -o "$dir/alone.o" "$dir/alone.$3"
}

initialiser_fits()
{
	cat > "$dir/init.c" <<-'END' &&
	#include <postcopy/postcopy.h>
	static struct postcopy_options o = POSTCOPY_OPTIONS_INIT;
	int main(void) { return !(o.size == sizeof(o) && o.uffd == -1 && !o.name && !o.token && !o.timeout_ms); }
	END
	$cc -std=c11 -pedantic -Wall -Wextra -Werror -I"$top/include" -o "$dir/init" "$dir/init.c" &&
	"$dir/init"
}

# As a user has it: installed, found by pkg-config, linked, loaded.
installed()
{
	make -C "$build" -s DESTDIR="$dir/root" install-libLTLIBRARIES install-pkgconfigDATA \
		install-postcopyincludeHEADERS > "$dir/install" 2>&1 || { cat "$dir/install"; return 1; }
	pc=$(find "$dir/root" -name libpostcopy.pc)
	prefix=$dir/root$(sed -n 's/^prefix=//p' "$pc")
	cat > "$dir/user.c" <<-'END'
	#include <postcopy/postcopy.h>
	#include <stdio.h>
	int main(void) { puts(postcopy_version()); return 0; }
	END
	PKG_CONFIG_PATH=$(dirname "$pc")
	export PKG_CONFIG_PATH
	flags=$(pkg-config --define-variable=prefix="$prefix" --cflags --libs libpostcopy) || return 1
	# shellcheck disable=SC2086 # a list of words
	$cc -o "$dir/user" "$dir/user.c" $flags &&
	says=$(LD_LIBRARY_PATH=$(dirname "$(find "$prefix" -name libpostcopy.so)") "$dir/user") &&
	test "$says" = "$(pkg-config --modversion libpostcopy)"
}

# check_plain NAME COMMAND: only of a library without the runtime of a sanitizer or of gcov
check_plain()
{
	if nm -D "$lib" | grep -qE '__(asan|tsan|ubsan|sanitizer|gcov)_|__llvm_profile'; then
		echo "# not looked at, the library is instrumented: $1"
	else
		check "$@"
	fi
}

if [ ! -e "$lib" ]; then
	echo "1..0 # SKIP no shared library was built"
	exit 0
fi
check "postcopy.h and libpostcopy.map name the same functions" same declared listed
check "the library exports what the map lists" same listed exported
check "the library exports nothing else" same listed everything_exported
check "every symbol is of version LIBPOSTCOPY_0.1" one_version_node
check "the soname carries the ABI" soname
check_plain "NEEDED is libc alone" needs_libc_only "$lib"
check_plain "NEEDED of the preload is libc alone" needs_libc_only "$preload"
check_plain "the preload stands before mmap, mmap64 and mremap, nothing else" stands_before_mapping_only
check_plain "the preload can be linked, too" can_be_linked
check_plain "a program links with libc alone" links_with_libc_only
check_plain "there is no writable data at file scope" no_writable_data
check "the header stands alone in C11" header_alone "$cc" c11 c
if command -v "$cxx" > /dev/null; then
	check "the header stands alone in C++" header_alone "$cxx" c++11 cc
else
	skip "the header stands alone in C++" "no C++ compiler"
fi
check "POSTCOPY_OPTIONS_INIT fits the struct" initialiser_fits
check_plain "pkg-config finds the installed library" installed
echo "1..$n"
exit $failed
