# parallel-safe
# The command line, flag for flag as runc has it: accepted and acting, or refused with the reason.
# timeout: 300
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
}
teardown() {
	container_teardown
}

# The value of a cgroup file of the container, wherever its hierarchy is mounted: the first of these that is there.
limit() { # FILE…
	local f
	for f; do find /sys/fs/cgroup -path "*$CGROUP/$f" -exec cat {} \; -quit; done | head -1
}

@test "globals: those that act and those that runc has left behind" {
	pf --version
	assert_out "pinfold version"
	assert_out "spec: 1."
	pf --criu /nosuch --debug --rootless=auto --rootless false features
	assert_status 0
	pf --rootless maybe features
	[ "$status" != 0 ]
	assert_err --rootless
	pf --log-format xml features
	[ "$status" != 0 ]
}

@test "features is a document of the specification's form" {
	/usr/bin/python3 -c 'import jsonschema' 2>/dev/null || skip "needs python3-jsonschema"
	pinfold features | /usr/bin/python3 "$BATS_TEST_DIRNAME/features_schema.py"
	! echo '{"ociVersionMin": "1.0", "linux": {"netdevices": {}}}' |
		/usr/bin/python3 "$BATS_TEST_DIRNAME/features_schema.py" >"$PF_DIR/said" || show "taken for good"
	grep -q netdevices "$PF_DIR/said"
}

@test "mistakes on the command line: exit status 1, and which" {
	local words
	for words in start 'start a b' kill 'kill a b c' delete 'ps' 'update' 'events' 'spec x' 'features x' 'run' \
		'create -b x' 'run --nosuch x' 'delete --forse x' 'ps --format yaml x' 'events --interval x y' \
		'run --preserve-fds -1 x' 'update --memory x y' 'update --pids-limit many y' 'run --bundle'; do
		# shellcheck disable=SC2086
		pf $words
		assert_status 1
		[ -n "$stderr" ] || show "a message for: $words"
	done
	pf start nosuch
	assert_err "does not exist"
}

@test "an id that begins with a dash, which runc and crun take, is one behind --, and never an option that acts" {
	local id="-f$$-$RANDOM" words
	echo "$id" >>"$PF_DIR/ids"
	script 'exec sleep 1000'
	pinfold create --bundle "$BUNDLE" -- "$id" </dev/null >"$PF_DIR/out" 2>&1
	pinfold start -- "$id"
	for words in state ps pause resume "events --stats" "update --pids-limit 50"; do
		# shellcheck disable=SC2086
		pf $words -- "$id"
		assert_status 0
	done
	pf exec -- "$id" echo inside
	assert_equal "$output" inside
	pinfold list --quiet | grep -qxF -- "$id"
	for words in "state $id" "kill $id 9" "delete $id" "delete --force" "destroy $id"; do
		# shellcheck disable=SC2086
		pf $words
		[ "$status" != 0 ] && [ -n "$stderr" ] || show "$words"
	done
	assert_equal "$(pinfold state -- "$id" | jq -r '.id, .status' | xargs)" "$id running"
	pinfold kill -- "$id" 9
	pinfold delete --force -- "$id"
	assert_gone "$id"
}

@test "create: --pidfd-socket, --no-new-keyring, --no-pivot, --preserve-fds, sockets of a service manager" {
	script 'cat <&4; echo $LISTEN_FDS $LISTEN_PID; keyctl show 2>/dev/null; grep -c . /proc/keys; mount | head -1'
	new_id
	status=0
	output=$(python3 - "$PINFOLD" "$ROOT" "$BUNDLE" "$ID" "$PF_DIR/pidfd.sock" <<-'END'
		import array, os, socket, subprocess, sys
		pinfold, root, bundle, id, path = sys.argv[1:]
		s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()
		r, w = os.pipe(); os.write(w, b"from the fourth\n"); os.close(w)
		os.dup2(r, 4); os.dup2(r, 3)
		p = subprocess.Popen([pinfold, "--root", root, "run", "--bundle", bundle, "--pidfd-socket", path, "--no-pivot",
		    "--no-new-keyring", "--preserve-fds=1", id], pass_fds=(3, 4), env={**os.environ, "LISTEN_FDS": "1"})
		c, _ = s.accept()
		_, anc, _, _ = c.recvmsg(4096, socket.CMSG_SPACE(4))
		fd = array.array("i", anc[0][2])[0]
		print(open(f"/proc/self/fdinfo/{fd}").read().count("Pid:"), flush=True)
		sys.exit(p.wait())
	END
	) || status=$?
	assert_status 0
	assert_out "from the fourth"
	assert_out "1 1"
}

@test "what of LISTEN_FDS and --preserve-fds our caller does not have is not made up for with ours" {
	script 'echo "LISTEN_FDS=$LISTEN_FDS"; exec sleep 1000'
	new_id
	# One that some program above us was meant by: the container has no lock of ours, which start would wait for.
	LISTEN_FDS=2 "$PINFOLD" --root "$ROOT" create --bundle "$BUNDLE" "$ID" </dev/null >"$PF_DIR/out" 2>&1 3>&- 4>&-
	timeout 30 "$PINFOLD" --root "$ROOT" start "$ID"
	wait_for 30 grep -qx "LISTEN_FDS=" "$PF_DIR/out"
	status=0
	stderr=$("$PINFOLD" --root "$ROOT" exec --preserve-fds 1 "$ID" true 2>&1 3>&- 4>&-) || status=$?
	assert_status 255
	assert_err "descriptor 3"
}

@test "exec: --preserve-fds, --pidfd-socket, --no-new-privs, --cgroup, labels that the kernel lacks" {
	edit '.process.noNewPrivileges = false'
	start_bundle 'exec sleep 1000'
	echo through >"$PF_DIR/f"
	output=$("$PINFOLD" --root "$ROOT" exec --preserve-fds 1 "$ID" sh -c 'cat <&3' 3<"$PF_DIR/f")
	assert_equal "$output" through
	pf exec "$ID" grep NoNewPrivs /proc/self/status
	assert_out "NoNewPrivs:	0"
	pf exec --no-new-privs "$ID" grep NoNewPrivs /proc/self/status
	assert_out "NoNewPrivs:	1"
	pf exec -g 5 -g 6 -e A=1 -e B=2 -u 7 -w /tmp "$ID" sh -c 'id; echo $A$B $PWD'
	assert_out "uid=7 gid=0 groups=5,6"
	assert_out "12 /tmp"
	[ -e /sys/module/apparmor ] || { pf exec --apparmor x "$ID" true; assert_status 255; assert_err AppArmor; }
	[ -e /sys/fs/selinux/enforce ] || { pf exec --process-label x "$ID" true; assert_status 255; assert_err SELinux; }
	pf exec --cgroup nosuch "$ID" true
	assert_status 255
	assert_err cgroup
	pf exec --cgroup ../.. "$ID" true
	assert_status 255
	assert_err cgroup
	pf exec --detach --tty "$ID" true
	assert_status 255
	assert_err --console-socket
}

@test "update: every flag writes its limit, or says why not" {
	edit '.linux.resources += {memory: {limit: 134217728}, pids: {limit: 90}, cpu: {quota: 20000, period: 100000, shares: 1024}}'
	start_bundle 'exec sleep 1000'
	pinfold update --memory 64m --memory-reservation 32m --pids-limit 50 --cpu-quota 30000 --cpu-period 50000 \
		--cpu-share 512 --cpuset-cpus 0 --cpuset-mems 0 "$ID"
	assert_equal "$(limit memory.max memory.limit_in_bytes)" 67108864
	assert_equal "$(limit memory.low memory.soft_limit_in_bytes)" 33554432
	assert_equal "$(limit pids.max)" 50
	[[ "$(limit cpu.max cpu.cfs_quota_us)" = 30000* ]]
	[[ "$(limit cpu.weight cpu.shares)" =~ ^(512|59|60)$ ]]
	assert_equal "$(limit cpuset.cpus)" 0
	pinfold update --memory -1 --pids-limit -1 --cpu-quota -1 "$ID"
	[[ "$(limit pids.max)" = max ]]
	[[ "$(limit cpu.max cpu.cfs_quota_us)" =~ ^(max|-1) ]]
	# One file, short options, and with an equals sign.
	pinfold update -r - "$ID" <<<'{"pids": {"limit": 60}}'
	assert_equal "$(limit pids.max)" 60
	local refused
	for refused in '--kernel-memory 1m' '--kernel-memory-tcp 1m' '--l3-cache-schema L3:0=f' '--mem-bw-schema MB:0=20' \
		'--cpu-share x' '--memory-swap 1m' '--cpu-idle 7' '--blkio-weight 2000' '--cpuset-cpus 9-1'; do
		# shellcheck disable=SC2086
		pf update $refused "$ID"
		assert_status 1
	done
	pf update --resources - "$ID" <<<'[]'
	assert_status 1
	pinfold kill "$ID" KILL
	wait_for 5 status_is stopped
	pf update --pids-limit 5 "$ID"
	assert_status 1
	assert_err "not running"
}

@test "events: usage at the interval, memory that ran out, and the end of it when the container ends" {
	edit '.linux.resources += {memory: {limit: 33554432}}'
	start_bundle 'while [ ! -e /tmp/go ]; do sleep 0.05; done; (head -c 100m /dev/zero | tail >/dev/null) ; sleep 0.3'
	"$PINFOLD" --root "$ROOT" events --interval 100ms "$ID" >"$PF_DIR/events" 3>&- &
	local watcher=$!
	wait_for 5 grep -q '"stats"' "$PF_DIR/events"
	touch "$BUNDLE/rootfs/tmp/go"
	wait "$watcher"
	jq -es 'all(.[]; .id == "'"$ID"'") and (map(.type) | index("oom"))
		and (map(select(.type == "stats") | .data.memory.usage.limit == 33554432) | all)' "$PF_DIR/events"
}

@test "list, ps, kill, delete: runc's short options, several ids, signals in all spellings" {
	start_bundle 'trap "echo hup" HUP; while :; do sleep 0.05; done'
	local first=$ID
	sleep 0.2
	pf list -q
	assert_out "$first"
	pf list -f json
	assert_json '.[0] | .id == "'"$first"'" and .owner == "root" and .bundle == "'"$BUNDLE"'" and (.created | endswith("Z"))'
	pf ps -f json "$first"
	assert_json "index($PID) != null"
	local s
	for s in HUP SIGHUP hup sighup 1; do pinfold kill "$first" "$s"; sleep 0.1; done
	for s in 0 RTMIN SIGRTMIN+2 rtmax-1 64; do pinfold kill "$first" "$s"; done
	for s in RTMIN+99 65 -1 SIG ''; do
		pf kill "$first" -- "$s"
		assert_status 1
	done
	assert_equal "$(grep -c hup "$PF_DIR/out")" 5
	pf kill -a "$first" KILL
	assert_status 0
	wait_for 5 status_is stopped
	CGROUP+=b
	edit '.linux.cgroupsPath += "b"'
	script true
	new_id
	pinfold run --keep --bundle "$BUNDLE" "$ID"
	pinfold delete "$first" "$ID"
	pf list -q
	assert_equal "$output" ""
	pf delete nosuch
	assert_status 1
	pf delete -f nosuch
	assert_status 0
}

@test "docs/conformance.md points at tests that are there" {
	python3 - "$TESTS_DIR" <<-'END'
		import os, re, sys
		tests = sys.argv[1]
		names = {}
		for f in os.listdir(tests + "/interop"):
		    if f.endswith(".bats"):
		        names[f[:-5]] = re.findall(r'^@test "(.*)" \{', open(f"{tests}/interop/{f}").read(), re.M)
		bad = []
		for line in open(tests + "/../docs/conformance.md"):
		    cell = line.rstrip().rstrip("|").split(" | ")[-1]
		    if not line.startswith("|"):
		        continue
		    for f in re.findall(r"(oci_\w+): ", cell):
		        if not any(f"{f}: {t}" in cell for t in names.get(f, [])):
		            bad.append(f"{f}: {cell[:100]}")
		    for f, t in re.findall(r"unit/(test_\w+): (\w+)", cell):
		        if f"static void {t}(" not in open(f"{tests}/unit/{f}.c").read():
		            bad.append(f"{f}: {t}")
		sys.exit("\n".join(bad) or 0)
	END
}
