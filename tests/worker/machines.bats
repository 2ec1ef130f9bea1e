# One session on two machines: two stores, two runtime directories.
# parallel-safe
# timeout: 180
load ../lib/common
load lib
load ../interop/registry

setup() {
	PIDS=()
	worker_setup
}
teardown() {
	[ ${#PIDS[@]} = 0 ] || { kill "${PIDS[@]}" 2>/dev/null && wait "${PIDS[@]}" 2>/dev/null; } || true
	machine a
	worker_teardown
}

# Be machine a (that of worker_setup) or b. Its sandboxes know in PLACE where they are.
machine() { # a|b
	: "${ROOT_A:=$ROOT}" "${STORE_A:=$STORE}"
	if [ "$1" = a ]; then ROOT=$ROOT_A STORE=$STORE_A; else ROOT="$PF_DIR/b.run" STORE="$PF_DIR/b.store"; fi
	mkdir -p -m 700 "$ROOT" "$STORE"
	config "{\"env\":{\"PLACE\":\"$1\"}}"
}

runs() { pinfold exec "$SESSION" -- pgrep -f "sleep 7777[7]" >/dev/null 2>&1; }

# A session whose lease machine a loses while its first call runs; the files stay there.
lose_on_a() { # LAST-CALL
	new_session
	start_stub "[$(session "[$(sh_call 'echo $PLACE >>f; [ "$PLACE" = b ] || [ "$(wc -l <f)" -gt 1 ] || sleep 77777; cat f')]" "[$(sh_call "$1")]")]" '{"ttl":2}'
	machine a
	start_worker --config "$CONFIG"
	wait_for 20 runs
	stub_tell fault '{"lose":true}'
	wait_for 20 grep -q 'ends: the lease is lost' "$PF_DIR/worker.log"
	kill "$WORKER_PID"
	wait "$WORKER_PID"
	stub_tell fault '{"lose":null}'
	assert_equal "$(pinfold state "$SESSION" | jq -r .status)" stopped
	wait_for 20 stub_is '.items | last | .state == "queued"'
}

@test "files left by a lost lease are given up when somebody else has had the session since" {
	lose_on_a 'cat f; echo $PLACE'
	machine b
	take_item
	on_work --config "$CONFIG"
	assert_equal "$(results | head -n 1)" 'false "b"'
	pinfold checkpoint export "$(pinfold checkpoint ls --sandbox "$SESSION" --quiet)" --to "oci:$PF_DIR/moved" >/dev/null
	machine a
	pinfold checkpoint import "oci:$PF_DIR/moved" >/dev/null
	take_item
	on_work --config "$CONFIG"
	# Not what machine a had written: "a".
	assert_equal "$(result_text 1)" $'b\na'
	grep -q 'they are given up for it' "$PF_DIR/worker.log"
	assert_no_violations
	assert_put_away
}

@test "files left by a lost lease are gone on with when nobody else has had the session" {
	lose_on_a 'cat f'
	take_item
	on_work --config "$CONFIG"
	assert_equal "$(results | head -n 1)" 'false "a\na"'
	grep -q 'started again on its files' "$PF_DIR/worker.log"
	# And after a checkpoint of theirs, from that.
	take_item
	on_work --config "$CONFIG"
	assert_equal "$(result_text 1)" $'a\na'
	assert_no_violations
	assert_put_away
}

# A directory that is as little of a Debian as dpkg runs in: DEBIAN.
small_debian() {
	local f
	DEBIAN="$PF_DIR/debian"
	mkdir -p "$DEBIAN"/{etc,proc,dev,sys,tmp,root,run,usr/{bin,sbin,lib,lib64},var/lib/dpkg/{info,updates,triggers}}
	for f in bin sbin lib lib64; do ln -s "usr/$f" "$DEBIAN/$f"; done
	: >"$DEBIAN/var/lib/dpkg/status"
	for f in bash sh cat chmod mkdir rm mv ln ls stat id env tar diff sed dpkg dpkg-deb dpkg-split dpkg-query ldconfig; do
		f=$(PATH=/usr/bin:/usr/sbin command -v "$f")
		echo "$f"
		ldd "$f" 2>/dev/null | grep -o '/[^ ]*'
	done | sort -u | while read -r f; do
		# /lib and /usr/lib are one directory here as there.
		[[ "$f" == /usr/* ]] || f="/usr$f"
		mkdir -p "$DEBIAN$(dirname "$f")"
		cp -L "$f" "$DEBIAN$f"
	done
	# Which dpkg wants to see, and nothing here asks for.
	ln -s ../bin/sh "$DEBIAN/usr/sbin/start-stop-daemon"
}

@test "a package that dpkg has put under /usr is there on the second machine, and dpkg knows it" {
	need dpkg dpkg-deb
	need docker-registry
	registry
	small_debian
	new_session
	# What is built is a real package with a script of its own; what it replaces and what it marks are the file system's.
	start_stub "[$(session "[$(sh_call '(set -e; mkdir -p p/DEBIAN p/usr/bin p/usr/share/kept/empty
		printf "Package: kept\nVersion: 1.2\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: kept\n" >p/DEBIAN/control
		printf "#!/bin/sh\nset -e\nchmod 4755 /usr/bin/kept\nrm /usr/bin/env\n" >p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst
		printf "#!/bin/sh\necho from the package\n" >p/usr/bin/kept; ln p/usr/bin/kept p/usr/share/kept/hard
		dpkg-deb -b p p.deb >/dev/null; dpkg -i p.deb >log 2>&1 || cat log; kept)')]" "[$(sh_call 'kept; stat -c "%a %h %u:%g" /usr/bin/kept; ls -A /usr/share/kept /usr/bin/env 2>&1
		dpkg-query -W; dpkg --verify kept && rm -rf p && dpkg -r kept >/dev/null 2>&1; ls /usr/bin/kept 2>&1; dpkg-query -W')]" "[$(sh_call 'dpkg-query -W; ls /usr/bin/kept 2>&1')]")]"
	local m
	for m in a b a; do
		machine "$m"
		pinfold image inspect debian >/dev/null 2>&1 || pinfold image import "dir:$DEBIAN" --name debian >/dev/null
		echo '{"image":"debian","env":{"PATH":"/usr/sbin:/usr/bin"}}' >"$CONFIG"
		take_item
		on_work --config "$CONFIG" --remote "http://127.0.0.1:$PORT/sessions"
		assert_equal "$status" 0
		assert_gone "$SESSION"
	done
	assert_equal "$(result_text 0)" "from the package"
	assert_equal "$(result_text 1)" "from the package
4755 2 0:0
ls: cannot access '/usr/bin/env': No such file or directory
/usr/share/kept:
empty
hard
kept	1.2
ls: cannot access '/usr/bin/kept': No such file or directory"
	assert_equal "$(result_text 2)" "ls: cannot access '/usr/bin/kept': No such file or directory"
	assert_no_violations
}

@test "with --remote a session goes from machine to machine, and stale files of the first are given up" {
	need docker-registry
	registry
	new_session
	start_stub "[$(session "[$(sh_call 'echo $PLACE >f; cat f')]" "[$(sh_call 'echo $PLACE >>f; cat f')]" "[$(sh_call 'echo $PLACE >>f; cat f')]" "[$(sh_call 'cat f')]")]"
	local n=0 m
	for m in a b a a; do
		machine "$m"
		take_item
		on_work --config "$CONFIG" --remote "http://127.0.0.1:$PORT/sessions"
		assert_equal "$status" 0
		assert_gone "$SESSION"
	done
	assert_equal "$(results)" $'false "a"\nfalse "a\\nb"\nfalse "a\\nb\\na"\nfalse "a\\nb\\na"'
	[ "$(grep -c 'resumed from its checkpoint' "$PF_DIR/worker.log")" = 3 ]
	assert_no_violations
	# Who cannot ask does not guess.
	machine a
	stub_tell add "$(session | jq -c '.id += ".x"')"
	take_item
	on_work --config "$CONFIG" --remote "http://127.0.0.1:$PORT/Not/A/Repository"
	assert_equal "$status" 1
	grep -q "ask for the session's newest checkpoint" "$PF_DIR/worker.log"
}
