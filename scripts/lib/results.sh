# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Results of tests, counted: TAP as a program prints it, and the .trs files of automake.  Every function
# here prints "PASSED FAILED SKIPPED".

# results_of_tap FILE: a plan that was not kept is a failure more
results_of_tap()
{
	awk '
		/^ok.*# *[Ss][Kk][Ii][Pp]/ { skipped++; next }
		/^ok/ { passed++; next }
		/^not ok/ || /^Bail out!/ { failed++; next }
		/^1\.\.0/ { skipped++; planned = 1; next }
		/^1\.\.[0-9]+/ { planned = 1; plan = substr($1, 4) + 0 }
		END {
			if (!planned || (plan && plan != passed + failed + skipped))
				failed++
			print passed + 0, failed + 0, skipped + 0
		}' "$1"
}

# results_of_trs FILE...: a file that is not there is a test that did not run, and that is a failure; the bad
# exit status of a program whose failures are counted is not one more
results_of_trs()
{
	local file
	for file; do
		echo ":file:"
		cat "$file" 2>/dev/null || echo ":test-result: ERROR"
	done | awk '
		function add()
		{
			passed += count["PASS"] + count["XFAIL"]
			failed += count["FAIL"] + count["XPASS"] ? count["FAIL"] + count["XPASS"] : count["ERROR"]
			skipped += count["SKIP"]
			delete count
		}
		$1 == ":file:" { add() }
		$1 == ":test-result:" { count[$2]++ }
		END { add(); print passed + 0, failed + 0, skipped + 0 }'
}

# results_of_status STATUS: of something that is one check in itself
results_of_status()
{
	if [ "$1" -eq 0 ]; then echo "1 0 0"; else echo "0 1 0"; fi
}
