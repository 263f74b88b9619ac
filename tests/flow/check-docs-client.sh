#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The manual of libpostcopy against the library: every function has a page and every page a function,
# every constant and every field is explained, the example builds, the protocol's tables are true.
# shellcheck disable=SC2317 # functions are called through check()
set -u

top=${POSTCOPY_TOP_SRCDIR:-$(dirname "$0")/../..}
build=${POSTCOPY_TOP_BUILDDIR:-.}
man=$top/man
header=$top/include/postcopy/postcopy.h
map=$top/src/client/libpostcopy.map
cc=${CC:-cc}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0
failed=0

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

functions()
{
	sed -n 's/^[[:space:]]*\(postcopy_[a-z_]*\);$/\1/p' "$map"
}

# The page that a link page leads to, or the page itself.
page_of()
{
	target=$(sed -n '1s/^\.so man3\///p' "$man/$1.3")
	echo "$man/${target:-$1.3}"
}

every_function_has_a_page()
{
	for f in $(functions); do
		test -e "$man/$f.3" || { echo "no page for $f"; return 1; }
		page=$(page_of "$f")
		grep -qE "^\.Nm $f( ,)?$" "$page" || { echo "$page does not name $f"; return 1; }
		grep -qE "^\.(Fn|Fo) $f\b" "$page" || { echo "$page shows no synopsis of $f"; return 1; }
	done
}

every_page_has_a_function()
{
	for page in "$man"/postcopy_*.3; do
		f=$(basename "$page" .3)
		functions | grep -qx "$f" || { echo "$page: no such function"; return 1; }
	done
}

# A function that fails has its errors listed.
errors_are_listed()
{
	for f in $($cc -E -P "$header" | sed -n 's/^int \(postcopy_[a-z_]*\)(.*/\1/p' | grep -vE '_(fd|uffd)$'); do
		grep -q '^\.Sh ERRORS' "$(page_of "$f")" || { echo "$f: no ERRORS"; return 1; }
	done
}

every_constant_is_explained()
{
	grep -oE '\bPOSTCOPY_(EVENT|ROLE|POLICY|CLASS|DMA)_[A-Z_]+[A-Z]' "$header" | sort -u > "$dir/constants"
	while read -r c; do
		grep -qE "^\.(It )?Dv $c\b" "$man"/postcopy_*.3 || { echo "$c is nowhere explained"; return 1; }
	done < "$dir/constants"
	test "$(wc -l < "$dir/constants")" -ge 23
}

# fields STRUCT
fields()
{
	$cc -E -P "$header" | tr '\n' ' ' | sed "s/.*struct $1 {\([^}]*\)}.*/\1/" | tr ';' '\n' |
		sed -n 's/.*[ *,]\([a-z_]*\)\(\[[0-9]*\]\)\{0,1\}$/\1/p'
}

every_field_is_explained()
{
	for f in $(fields postcopy_options); do
		grep -qx "\.It Va $f" "$man/postcopy_new.3" || { echo "options.$f"; return 1; }
	done
	for f in $(fields postcopy_block); do
		grep -qx "\.It Va $f" "$man/postcopy_add_block.3" || { echo "block.$f"; return 1; }
	done
	for f in $(fields postcopy_dma); do
		grep -qx "\.It Va $f" "$man/postcopy_dma_map.3" || { echo "dma.$f"; return 1; }
	done
	for f in $(fields postcopy_event); do
		test "$f" = type ||
			grep -qE "^\.Va (event\.)?$f( |$)" "$man/postcopy_dispatch.3" ||
			{ echo "event.$f"; return 1; }
	done
	test "$(fields postcopy_options | wc -l)" -ge 8 && test "$(fields postcopy_event | wc -l)" -ge 15 && test "$(fields postcopy_dma | wc -l)" -ge 8
}

pages_are_clean()
{
	for page in "$man"/libpostcopy.3 "$man"/postcopy_*.3 "$man"/postcopy-protocol.7 "$man"/postcopy-preload.7 \
		"$man"/postcopy-sharers.7; do
		case $(head -c 4 "$page") in .so*) continue ;; esac
		groff -ww -mandoc -Tutf8 "$page" 2>&1 > "$dir/text" | sed "s|^|$page: |"
		test -s "$dir/text" || echo "$page: empty"
	done > "$dir/warnings"
	cat "$dir/warnings"
	test ! -s "$dir/warnings"
}

# A cross reference leads to a page of ours, or to one of the system's by its section.
references_lead_somewhere()
{
	cat "$man"/libpostcopy.3 "$man"/postcopy_*.3 "$man"/postcopy-protocol.7 "$man"/postcopy-preload.7 \
		"$man"/postcopy-sharers.7 |
		grep -oE 'Xr (lib)?postcopy[a-z_-]* [0-9]' | sort -u | while read -r _ page section; do
		case $page in postcopyd | postcopyctl) continue ;; esac
		test -e "$man/$page.$section" || echo "no $page($section)"
	done > "$dir/broken"
	cat "$dir/broken"
	test ! -s "$dir/broken"
}

# Who looks for a way in finds the page that has them all, wherever the search begins.
ways_in_are_linked()
{
	for page in libpostcopy.3 postcopy_share.3 postcopy-preload.7 postcopy-protocol.7 postcopy-qemu.7 postcopyd-theory.7 \
		postcopyd.8; do
		grep -q '^\.Xr postcopy-sharers 7' "$man/$page" || { echo "$page does not lead to it"; return 1; }
	done
	grep -q 'postcopy-sharers(7)' "$top/README.md" || { echo "nor does README.md"; return 1; }
	for way in 'Xr postcopy_ready 3' 'Xr postcopy_share 3' 'Xr postcopy-preload 7' 'Fl -vhost-user'; do
		grep -q "$way" "$man/postcopy-sharers.7" || { echo "it does not lead to $way"; return 1; }
	done
	"$build/postcopyd" --help | grep -q -- --vhost-user || { echo "postcopyd has no such option"; return 1; }
}

example_builds()
{
	sed -n '/^\.Bd -literal/,/^\.Ed/p' "$man/libpostcopy.3" | sed '1d;$d; s/\\en/\\n/g' > "$dir/example.c"
	grep -q 'int main' "$dir/example.c" &&
	$cc -D_GNU_SOURCE -std=c11 -Wall -Wextra -Werror -I"$top/include" -c -o "$dir/example.o" "$dir/example.c"
}

# "TYPE number size fds" of every message, as the code has it
messages_of_the_code()
{
	cat > "$dir/types.c" <<-'END'
	#include "wire/regmsg.h"
	#include <stdio.h>
	#include <string.h>
	int main(void)
	{
		union regmsg m;

		for (unsigned t = 0; t < 256; t++) {
			if (!strcmp(regmsg_type_name(t), "unknown"))
				continue;
			regmsg_init(&m, t, 0);
			printf("%s %u %u %u\n", regmsg_type_name(t), t, m.head.size, regmsg_fds(&m));
		}
		return 0;
	}
	END
	$cc -D_GNU_SOURCE -I"$build" -I"$top/src" -o "$dir/types" "$dir/types.c" "$top/src/wire/regmsg.c" &&
	"$dir/types"
}

messages_of_the_page()
{
	sed -n 's/^\.It \([A-Z_]*\) Ta \([0-9]*\) Ta \([0-9]*\) Ta \(.*\)$/\1 \2 \3 \4/p' \
		"$man/postcopy-protocol.7" | grep -E ' (none|userfaultfd|sealed memfd|the file.*|a socket.*|/dev/userfaultfd)$' |
		sort -n -k 2 |
		sed 's/ none$/ 0/; s/ [a-z/].*$/ 1/'
}

protocol_is_true()
{
	messages_of_the_code > "$dir/code" && messages_of_the_page > "$dir/page" &&
	test "$(wc -l < "$dir/code")" -eq 31 && diff "$dir/code" "$dir/page"
}

check "every exported function has a page" every_function_has_a_page
check "every page has a function" every_page_has_a_function
check "what can fail lists its errors" errors_are_listed
check "every constant is explained" every_constant_is_explained
check "every field is explained" every_field_is_explained
check "references lead somewhere" references_lead_somewhere
check "every page leads to the ways in" ways_in_are_linked
check "the example builds" example_builds
check "the protocol's message table is true" protocol_is_true
if command -v groff > /dev/null; then
	check "groff has nothing to say about the pages" pages_are_clean
else
	n=$((n + 1))
	echo "ok $n - groff has nothing to say about the pages # SKIP no groff"
fi
echo "1..$n"
exit $failed
