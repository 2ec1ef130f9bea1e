# Counts the tests of one file from its TAP output (bats, or cmocka with CMOCKA_MESSAGE_OUTPUT=TAP).
# First line out: passed failed skipped. Then one line "skip<TAB>name<TAB>reason" for each skipped test.
# The program's own exit status comes in as -v status=N; -v limit=N is the time limit it had, in seconds.

/^1\.\.[0-9]+$/ {
	planned += substr($0, 4)
	next
}

# cmocka writes a skipped test as "not ok N # SKIP name"; its reason is what the test printed just before.
/^not ok [0-9]+ # SKIP / {
	seen++
	skipped++
	name = $0
	sub(/^not ok [0-9]+ # SKIP /, "", name)
	sub(/^skipped: /, "", said)
	out = out "skip\t" name "\t" (said == "" ? "no reason given" : said) "\n"
	said = ""
	next
}

/^ok [0-9]+ .* # skip/ {
	seen++
	skipped++
	at = match($0, / # skip/)
	reason = substr($0, at + 8)
	name = substr($0, 1, at - 1)
	sub(/^ok [0-9]+ /, "", name)
	gsub(/^[ (]+|[)]+$/, "", reason)
	out = out "skip\t" name "\t" (reason == "" ? "no reason given" : reason) "\n"
	next
}

/^ok [0-9]+ / {
	seen++
	passed++
	said = ""
	next
}

/^not ok [0-9]+ / {
	seen++
	failed++
	said = ""
	next
}

{
	said = $0
}

END {
	# Tests that were planned and never reported have failed: the program died or was stopped.
	if (seen < planned) {
		failed += planned - seen
		out = out "lost\t" (planned - seen) " of " planned " tests gave no result (exit status " status ")\n"
	}
	if (status == 124 || status == 137) {
		failed += failed == 0
		out = out "lost\tnot done after " limit " s, killed\n"
	} else if (status != 0 && failed == 0) {
		failed = 1
		out = out "lost\tall its tests passed, yet it ended with status " status "\n"
	} else if (status == 0 && seen == 0) {
		failed = 1
		out = out "lost\tit holds no tests\n"
	}
	printf "%d %d %d\n%s", passed, failed, skipped, out
}
