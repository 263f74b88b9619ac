#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Scripts: shellcheck has nothing to say, python compiles, what is meant to be run can be run.
# shellcheck disable=SC2317,SC2329 # functions are called through check()
set -u
# shellcheck source=tests/lib/tap.sh
. "$(dirname "$0")/../lib/tap.sh"

scripts()
{
	find "$top/scripts" "$top/tests" "$top/.ci" -type f ! -path '*/__pycache__/*' "$@" 2>/dev/null | sort
}

# of_language NAME: files with that interpreter in their first line
of_language()
{
	scripts -exec awk -v want="$1" 'FNR == 1 && /^#!/ && $0 ~ want { print FILENAME } { nextfile }' {} +
}

# Left alone: a dollar between single quotes (awk, sed), "a && b || exit", the format that is an argument.
clean_shell()
{
	{ of_language '/(ba)?sh$'; scripts -name '*.sh'; } | sort -u >"$dir/shell"
	test -s "$dir/shell" && (cd "$top" && xargs shellcheck -x -e SC2015,SC2016,SC2059 -P "$top" <"$dir/shell")
}

python_compiles()
{
	{ of_language python; scripts -name '*.py'; } | sort -u >"$dir/python"
	test -s "$dir/python" && PYTHONDONTWRITEBYTECODE=1 xargs python3 -c '
import ast, sys
for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as f:
        ast.parse(f.read(), path)' <"$dir/python"
}

can_be_run()
{
	for script in $(of_language '.'); do
		test -x "$script" || echo "$script"
	done >"$dir/not"
	cat "$dir/not"
	test ! -s "$dir/not"
}

if command -v shellcheck >/dev/null; then
	check "shellcheck has nothing to say" clean_shell
else
	skip "shellcheck has nothing to say" "no shellcheck"
fi
check "python compiles" python_compiles
check "what has an interpreter can be run" can_be_run
tap_done
