#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The manual pages of the programs against the programs: every option and command has its place in the page and the other
# way round, every key of the file is an option, every word of the control protocol is explained, and
# what bash completes is what the programs take.
# shellcheck disable=SC2317 # functions are called through check()
set -u

top=${POSTCOPY_TOP_SRCDIR:-$(dirname "$0")/../..}
build=${POSTCOPY_TOP_BUILDDIR:-.}
man=$top/man
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
n=0
failed=0

check()
{
	title=$1
	shift
	n=$((n + 1))
	if "$@" > "$dir/out" 2>&1; then
		echo "ok $n - $title"
	else
		failed=1
		echo "not ok $n - $title"
		sed 's/^/# /' "$dir/out"
	fi
}

# same WHAT-A WHAT-B: the lists $dir/a and $dir/b are equal and not empty
same()
{
	sort -u "$dir/a" > "$dir/a.sorted"
	sort -u "$dir/b" > "$dir/b.sorted"
	comm -23 "$dir/a.sorted" "$dir/b.sorted" | sed "s/^/only in $1: /"
	comm -13 "$dir/a.sorted" "$dir/b.sorted" | sed "s/^/only in $2: /"
	test -s "$dir/a.sorted" && cmp -s "$dir/a.sorted" "$dir/b.sorted"
}

help_options()
{
	"$1" --help | grep -oE '^ +(-[a-zA-Z], )?--[a-z-]+' | sed 's/^ *//; s/, /\n/'
}

# ".It Fl h , -help" is -h and --help
page_options()
{
	sed -n 's/^\.It Fl //p' "$1" | sed 's/ Ns .*//; s/ Ar .*//; s/ , /\n/' | sed 's/^/-/'
}

options_have_their_place()
{
	help_options "$1" > "$dir/a"
	page_options "$2" > "$dir/b"
	same "$(basename "$1") --help" "$(basename "$2")"
}

# Every option that a page lists is in its synopsis, by its long or its short name.
synopsis_is_whole()
{
	sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESCRIPTION/p' "$1" > "$dir/synopsis"
	sed -n 's/^\.It Fl //p' "$1" | sed 's/ Ns .*//; s/ Ar .*//' | while read -r first _ second; do
		case $first$second in *-help | -version) continue ;; esac
		grep -qE -- "(Fl|\|) (Fl )?($first${second:+|$second})( |\$)" "$dir/synopsis" ||
			echo "not in the synopsis: $first"
	done > "$dir/missing"
	cat "$dir/missing"
	test ! -s "$dir/missing"
}

commands_have_their_place()
{
	"$build/postcopyctl" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' > "$dir/a"
	sed -n 's/^\.It Cm //p' "$man/postcopyctl.1" > "$dir/b"
	same "--help" postcopyctl.1
}

file_keys_are_options()
{
	help_options "$build/postcopyd" | sed -n 's/^--//p' | grep -vxE 'config|help|version|survival-layout' > "$dir/a"
	sed -n 's/^\.It Cm \([a-z-]*\) Ta .*/\1/p' "$man/postcopyd.conf.5" > "$dir/b"
	same "postcopyd --help" postcopyd.conf.5
}

# Every key the page names is taken, in a file with nothing else wrong.
file_keys_are_taken()
{
	sed -n 's/^\.It Cm \([a-z-]*\) Ta .*/\1/p' "$man/postcopyd.conf.5" | while read -r key; do
		printf '[postcopyd]\n%s=\n' "$key" > "$dir/conf"
		"$build/postcopyd" --config "$dir/conf" 2>&1 | grep -q 'unknown key' && echo "unknown key: $key"
	done > "$dir/unknown"
	cat "$dir/unknown"
	test ! -s "$dir/unknown"
}

# What a page calls a variable, one name a line; _ns alone is an ending.
page_names()
{
	sed -n 's/^\.\(It \)\{0,1\}Va //p' "$1" | tr ' ' '\n' | grep -E '^[a-z0-9][a-z0-9_]*$'
}

# Every member that the daemon can write: the strings of the reports that are keys, and the names of stages, lanes, kinds
# and phases.
protocol_members()
{
	grep -ohE '"[a-z][a-z0-9]*(_[a-z0-9]+)*"' "$top/src/daemon/report.c" "$top/src/daemon/handover_report.c" \
		"$top/src/daemon/vhost_device.c" "$top/src/daemon/vhost_list.c" "$top/src/daemon/faults_commands.c" | tr -d '"'
	sed -n '/^} states\[HANDOVER_STATES\]/,/^};/p' "$top/src/daemon/handover_qemu.c" | grep -oE '"[a-z-]+"' | tr -d '"'
	grep -E 'const stats_(stage|lane|how)_names' "$top/src/core/stats.c" | grep -oE '"[a-z]+"' | tr -d '"'
}

# A word as an item, a variable or a constant of the page
explained()
{
	grep -qE "^\.(It |Pq [a-z ]+)?(Va|Dv|Cm|Sy)( [a-z0-9_:-]+ ,)* $1( |\$)" "$man/postcopyd-control.7"
}

members_are_explained()
{
	protocol_members | sort -u > "$dir/members"
	while read -r m; do
		case $m in unknown) continue ;; esac
		explained "$m" || echo "not explained: $m"
	done < "$dir/members" > "$dir/missing"
	cat "$dir/missing"
	test "$(wc -l < "$dir/members")" -gt 80 && test ! -s "$dir/missing"
}

# The other way round: what the page lists as members can be found in the code.
items_exist()
{
	page_names "$man/postcopyd-control.7" | sort -u > "$dir/names"
	while read -r name; do
		grep -qF "\"$name\"" "$top/src/daemon/report.c" "$top/src/daemon/handover_report.c" "$top/src/daemon/control.c" \
			"$top/src/daemon/devices_report.c" "$top/src/daemon/vhost_device.c" "$top/src/daemon/vhost_list.c" \
			"$top/src/daemon/faults_commands.c" "$top/src/daemon/phases_commands.c" \
			"$top/src/core/stats.c" ||
			echo "no such member: $name"
	done < "$dir/names" > "$dir/missing"
	cat "$dir/missing"
	test "$(wc -l < "$dir/names")" -gt 80 && test ! -s "$dir/missing"
}

error_classes_are_explained()
{
	grep -oE '"(Access|Bad|Busy|Command|Refused|Timeout|Un)[A-Za-z]*"' "$top/src/daemon/control.c" | tr -d '"' > "$dir/a"
	sed -n '/^is one of/,/^\.El/s/^\.It Dv //p' "$man/postcopyd-control.7" > "$dir/b"
	same control.c postcopyd-control.7
}

control_commands_are_explained()
{
	sed -n '/^\(	\)*static const struct \(control_\)*command commands/,/^	*};/s/^\t*{ *"\([a-z-]*\)".*/\1/p' "$top/src/daemon/control.c" "$top"/src/daemon/*_commands.c > "$dir/a"
	sed -n '/^\.Sh COMMANDS/,/^\.Sh SEE/s/^\.Ss //p' "$man/postcopyd-control.7" > "$dir/b"
	same control.c postcopyd-control.7
}

states_are_explained()
{
	sed -n '/session_state_name/,/^}/p' "$top/src/core/session.c" | grep -oE '"[a-z]+"' | tr -d '"' > "$dir/a"
	sed -n '/^\.Ss States of a session/,/^\.El/s/^\.It Sy //p' "$man/postcopyd.8" > "$dir/b"
	same session.c postcopyd.8 || return 1
	while read -r state; do
		explained "$state" || grep -qE "^\.Dv .*\b$state\b" "$man/postcopyd-control.7" ||
			{ echo "postcopyd-control.7: $state"; return 1; }
	done < "$dir/a"
}

# The names in a table of core/faultplan.c: "session.loaded", "eagain"
fault_names()
{
	sed -n "/^const struct faultplan_$1_info/,/^};/s/.*= { \"\([a-z.-]*\)\".*/\1/p" "$top/src/core/faultplan.c"
}

# What a section of the page has as items, "a , b Ns ..." being two
fault_items()
{
	sed -n "/^\.Sh $1/,/^\.Sh/s/^\.It Cm //p" "$man/postcopy-faults.7" | sed 's/ Ns .*//; s/ , /\n/g'
}

faults_are_explained()
{
	fault_names point > "$dir/a"
	fault_items POINTS > "$dir/b"
	same faultplan.c postcopy-faults.7 || return 1
	fault_names action > "$dir/a"
	fault_items ACTIONS > "$dir/b"
	same faultplan.c postcopy-faults.7
}

# complete WORD...: what bash offers for the last of them
complete_words()
{
	bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _postcopy "$1"; printf "%s\n" "${COMPREPLY[@]}"' \
		"$top/data/bash-completion/postcopyctl" "$@"
}

completion_offers_options()
{
	help_options "$1" | grep -- '^--' > "$dir/a"
	complete_words "$1" -- > "$dir/b"
	same "$(basename "$1") --help" completion
}

completion_offers_commands()
{
	sed -n 's/^\.It Cm //p' "$man/postcopyctl.1" > "$dir/a"
	complete_words "$build/postcopyctl" "" > "$dir/b"
	same postcopyctl.1 completion || return 1
	complete_words "$build/postcopyctl" -r /x sta > "$dir/b"
	printf 'stats\nstatus\n' > "$dir/a"
	same "words with sta" completion
}

pages_are_clean()
{
	for page in postcopyctl.1 postcopy-run.1 postcopy-qemu.7 postcopyd.8 postcopyd.conf.5 postcopyd-control.7 postcopy-faults.7; do
		groff -ww -mandoc -Tutf8 "$man/$page" 2>&1 > "$dir/text" | sed "s|^|$page: |"
		test -s "$dir/text" || echo "$page: empty"
		grep -oE '^\.Xr (lib)?postcopy[a-z_.-]* [0-9]' "$man/$page" | while read -r _ name section; do
			test -e "$man/$name.$section" || echo "$page: no $name($section)"
		done
	done > "$dir/warnings"
	cat "$dir/warnings"
	test ! -s "$dir/warnings"
}

for page in postcopyd.8 postcopyctl.1 postcopy-source.1 postcopy-run.1; do
	program=${page%.*}
	test -x "$build/$program" || continue
	check "$program: options in --help and the page" options_have_their_place "$build/$program" "$man/$page"
	check "$program: the synopsis is whole" synopsis_is_whole "$man/$page"
	check "$program: bash completes its options" completion_offers_options "$build/$program"
done
check "postcopyctl: commands in --help and the page" commands_have_their_place
check "postcopyctl: bash completes its commands" completion_offers_commands
if test -x "$build/postcopyd"; then
	check "postcopyd.conf: the keys are the options" file_keys_are_options
	check "postcopyd.conf: every key is taken" file_keys_are_taken
fi
check "postcopyd-control: every member is explained" members_are_explained
check "postcopyd-control: every item exists" items_exist
check "postcopyd-control: error classes" error_classes_are_explained
check "postcopyd-control: commands" control_commands_are_explained
check "states of a session" states_are_explained
check "postcopy-faults: points and actions" faults_are_explained
if command -v groff > /dev/null; then
	check "groff has nothing to say, references lead somewhere" pages_are_clean
else
	n=$((n + 1))
	echo "ok $n - groff has nothing to say, references lead somewhere # SKIP no groff"
fi
echo "1..$n"
exit $failed
