# parallel-safe
# Debian's containerd takes Pinfold as its runtime: by ctr, and by CRI as a kubelet would.
# timeout: 300
load ../lib/common
load images
load containerd

setup_file() {
	containerd_up '{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "pft0", "isGateway": true,
		"ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.7.0/24"}]],
		"routes": [{"dst": "0.0.0.0/0"}], "dataDir": "@CT@/ipam"}}]}'
}

teardown_file() { containerd_down; }

setup() {
	RUNTIME=(--runtime io.containerd.runc.v2 --runc-binary "$PINFOLD" --runc-root "$CT/ctr"
		--cgroup "/pinfold-test-ct/$BATS_TEST_NUMBER")
	ID="c$BATS_TEST_NUMBER-$RANDOM"
}

teardown() { [ -n "${BATS_TEST_COMPLETED:-}" ] || containerd_tell; }

# ---- ctr ---------------------------------------------------------------------------------------------------

@test "ctr run: output and exit code; nothing of it stays" {
	ctr_ run "${RUNTIME[@]}" --rm localhost/bb:1 "$ID" sh -c 'echo hi; id -u; exit 3'
	assert_status 3
	assert_equal "$output" "hi
0"
	[ ! -e "$CT/ctr/default/$ID" ]
}

@test "ctr run --rm -t: a terminal" {
	status=0
	# A standard input that stays open, as a person's does: at the end of its own, script types ^D, which may come
	# before ctr has made the terminal raw and is then the end of its input while it starts the task.
	mkfifo "$CT/typed"
	# On SIGQUIT ctr tells what each of its threads waits for. In the foreground, or timeout makes a process group of its
	# own for ctr, which the terminal then stops, wherever the shell that script starts forks for its last command.
	output=$(script -qec "timeout --foreground -s QUIT 60 ctr run ${RUNTIME[*]} --rm -t localhost/bb:1 $ID sh -c 'tty; exit 5'" \
		/dev/null <>"$CT/typed") || status=$?
	assert_status 5
	assert_out /dev/pts/0
}

@test "ctr run -d, task exec, ps, pause, resume, metrics, kill, rm" {
	ctr_ run "${RUNTIME[@]}" -d localhost/bb:1 "$ID" sleep 1000
	assert_status 0
	ctr_ task exec --exec-id e1 "$ID" sh -c 'echo inside; exit 4'
	assert_status 4
	assert_out inside
	ctr_ task ps "$ID"
	assert_status 0
	ctr_ task pause "$ID"
	assert_status 0
	ctr_ task ls
	assert_out PAUSED
	ctr_ task resume "$ID"
	assert_status 0
	ctr_ task metrics "$ID"
	assert_status 0
	assert_out memory
	ctr_ task kill -s 9 "$ID"
	assert_status 0
	wait_for 5 sh -c "ctr task ls | grep -q '$ID.*STOPPED'"
	ctr_ task rm "$ID"
	ctr_ container rm "$ID"
	assert_status 0
	[ ! -e "$CT/ctr/default/$ID" ]
}

@test "ctr images import takes a checkpoint of ours, and what it runs of it has everything, and nothing that was deleted" {
	make_checkpoints "$CT/images"
	"$PINFOLD" --store "$CT/images/store" checkpoint export g2 --complete --to "oci-archive:$CT/g2.tar" >/dev/null
	ctr_ images import --base-name localhost/checkpoint "$CT/g2.tar"
	assert_status 0
	ctr_ run "${RUNTIME[@]}" --rm localhost/checkpoint:g2 "$ID" sh -c "$SEEN"
	assert_equal "$output" "$WANT"
	ctr images rm localhost/checkpoint:g2 >/dev/null
}

@test "ctr run: a command that is not there is told by name, and nothing stays" {
	ctr_ run "${RUNTIME[@]}" --rm localhost/bb:1 "$ID" nosuch
	assert_status 1
	assert_err 'executable file not found in $PATH'
	[ ! -e "$CT/ctr/default/$ID" ]
}

@test "ctr run with limits, seccomp and a read-only root" {
	ctr_ run "${RUNTIME[@]}" --rm --memory-limit 33554432 --seccomp --read-only \
		--mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro localhost/bb:1 "$ID" \
		sh -c 'grep ^Seccomp: /proc/self/status; find /sys/fs/cgroup -name memory.limit_in_bytes -o -name memory.max | xargs cat; touch /x'
	assert_out "Seccomp:	2
33554432"
	assert_err "Read-only file system"
}

# ---- CRI ---------------------------------------------------------------------------------------------------

@test "CRI: two containers of a pod share its namespaces; exec, logs, stats, update, stop, restart, remove" {
	run_pod life 0
	container a 'echo to the log; exec sleep 1000' '.linux.resources = {memory_limit_in_bytes: 67108864}'
	local a=$CONTAINER net ipc
	start_container
	assert_status 0
	exec_sync 'readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; ip -4 addr show eth0 | grep -c 10.88.7; exit 4'
	assert_status 4
	net=$(sed -n 1p <<<"$output") ipc=$(sed -n 2p <<<"$output")
	assert_equal "$(sed -n 3p <<<"$output")" 1
	container b 'exec sleep 1000'
	start_container
	exec_sync 'readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; grep ^Seccomp: /proc/self/status'
	assert_equal "$output" "$net
$ipc
Seccomp:	2"
	grep -q 'stdout F to the log' "$CT/logs/a.log"
	CONTAINER=$a
	cri ContainerStats "{\"container_id\": \"$a\"}"
	assert_json '.stats.memory.working_set_bytes.value | tonumber > 0'
	cri UpdateContainerResources "{\"container_id\": \"$a\", \"linux\": {\"memory_limit_in_bytes\": 33554432}}"
	assert_status 0
	exec_sync 'find /sys/fs/cgroup -name memory.limit_in_bytes -o -name memory.max | xargs cat'
	assert_equal "$output" 33554432
	cri StopContainer "{\"container_id\": \"$a\", \"timeout\": 1}"
	assert_status 0
	container_is '.status.state == 2'
	cri RemoveContainer "{\"container_id\": \"$a\"}"
	assert_status 0
	container a 'exit 3' '.metadata.attempt = 1'
	start_container
	wait_for 10 container_is '.status.state == 2 and .status.exit_code == 3'
	remove_pod
	assert_equal "$(find "$CT/pinfold/k8s.io" -mindepth 1 -maxdepth 1 -not -name '.*')" ""
}

@test "CRI: exec by stream, with input and with a terminal" {
	run_pod stream 2
	container a 'exec sleep 1000'
	start_container
	cri exec-stream "$(jq -n --arg id "$CONTAINER" \
		'{container_id: $id, cmd: ["sh", "-c", "read x; echo got $x"], stdin: true, stdout: true}')" "$(printf 'abc\n ')"
	assert_equal "$output" "got abc
Success"
	cri exec-stream "$(jq -n --arg id "$CONTAINER" '{container_id: $id, cmd: ["tty"], tty: true, stdin: true, stdout: true}')"
	assert_out /dev/pts/0
	remove_pod
}

@test "CRI: a bad command is a StartError, memory beyond the limit OOMKilled" {
	run_pod bad 2
	container a x '.command = ["nosuch"]'
	start_container
	[ "$status" != 0 ]
	container_is '.status.reason == "StartError" and .status.exit_code == 128 and (.status.message | contains("not found in $PATH"))'
	container b 'x=x; while :; do x=$x$x; done' '.linux.resources = {memory_limit_in_bytes: 16777216}'
	start_container
	wait_for 30 container_is '.status.reason == "OOMKilled"'
	remove_pod
}

@test "pinfold snapshot of a CRI container: its writes and deletions are a checkpoint, which a session starts from" {
	local a first
	oci() { "$CT/runtime" --root "$CT/pinfold/k8s.io" "$@"; }
	oci image import "dir:$CT/images/root" --name localhost/bb:1 >/dev/null
	ANNOTATIONS='{"io.pinfold.snapshot": "exit"}' run_pod snap 2
	container a 'exec sleep 1000'
	a=$CONTAINER
	start_container
	exec_sync 'echo one >/data.txt; mkdir /dir; echo x >/dir/f; rm /etc/passwd; rm -r /bin/httpd'
	output=$(oci snapshot --image localhost/bb:1 --name "snap-$a" "$a")
	assert_json '.deletions == 2 and .files >= 2 and .parent == null and .frozen_ms > 0'
	first=$(jq -r .checkpoint <<<"$output")
	exec_sync 'cat /data.txt; echo two >/data.txt'
	assert_equal "$output" one
	cri StopContainer "{\"container_id\": \"$a\", \"timeout\": 0}"
	# When it ended, the annotation had its last state taken.
	oci checkpoint ls --sandbox "$a" --json >"$CT/list.json"
	remove_pod
	assert_equal "$(jq length "$CT/list.json")" 2
	output=$(oci checkpoint inspect "$a.1" || oci checkpoint inspect "$a.2")
	assert_out "$first"
	output=$(oci diff "snap-$a" --json)
	assert_out /etc/passwd
	"$CT/runtime" --root "$CT/sessions" create "s-$RANDOM" --from "snap-$a" --image localhost/bb:1 >"$CT/session.json"
	a=$(jq -r .id "$CT/session.json")
	"$CT/runtime" --root "$CT/sessions" exec "$a" -- sh -c 'cat /data.txt /dir/f; ls /etc/passwd /bin/httpd || true' >"$CT/out" 2>&1
	"$CT/runtime" --root "$CT/sessions" destroy "$a"
	assert_equal "$(head -2 "$CT/out")" "one
x"
	assert_equal "$(grep -c 'No such file' "$CT/out")" 2
}

@test "pinfold snapshot says why a container without an upper directory has none" {
	ctr_ run "${RUNTIME[@]}" -d --rootfs "$CT/images/root" "$ID" sleep 1000
	assert_status 0
	status=0
	output=$("$CT/runtime" --root "$CT/ctr/default" snapshot "$ID" 2>"$CT/stderr") || status=$?
	stderr=$(<"$CT/stderr")
	ctr task kill -s 9 "$ID"
	wait_for 5 sh -c "ctr task ls | grep -q '$ID.*STOPPED'"
	ctr task rm "$ID" >/dev/null 2>&1
	ctr container rm "$ID"
	assert_status 125
	assert_err "no overlay mount"
}

@test "pinfold snapshot takes no directory of the machine's for the container's that the container names in its mount table" {
	mkdir "$CT/secret"
	echo hidden >"$CT/secret/host-only"
	# In a user namespace of its own it mounts an overlay whose upper has the same name there, and makes that its root.
	ctr_ run "${RUNTIME[@]}" -d localhost/bb:1 "$ID" unshare -r -m sh -ec "mkdir -p $CT; echo one >/data.txt
		mount -t tmpfs none $CT; mkdir -p $CT/secret $CT/work $CT/root $CT/low/bin; cp /bin/busybox $CT/low/bin
		mount -t overlay -o lowerdir=$CT/low,upperdir=$CT/secret,workdir=$CT/work,userxattr none $CT/root
		exec chroot $CT/root /bin/busybox sleep 1000"
	assert_status 0
	local pid at
	pid=$("$CT/runtime" --root "$CT/ctr/default" state "$ID" | jq .pid)
	wait_for 20 grep -q "upperdir=$CT/secret" "/proc/$pid/mountinfo"
	# Where the engine's mounts are not seen, it has hidden its root; where they are, that is of no use.
	status=0
	output=$("$CT/runtime" --root "$CT/ctr/default" snapshot "$ID" 2>"$CT/stderr") || status=$?
	stderr=$(<"$CT/stderr")
	assert_status 125
	assert_err "no overlay mount"
	nsenter -t "$DAEMON" -m "$CT/runtime" --root "$CT/ctr/default" snapshot "$ID" --name "hostile-$ID" >/dev/null
	"$CT/runtime" checkpoint export "hostile-$ID" --to "tar:$CT/hostile.tar" >/dev/null
	ctr task kill -s 9 "$ID"
	wait_for 20 sh -c "ctr task ls | grep -q '$ID.*STOPPED'"
	ctr task rm "$ID" >/dev/null 2>&1
	ctr container rm "$ID"
	output=$(tar -tf "$CT/hostile.tar")
	assert_out data.txt
	refute_out host-only
}

@test "annotations of Pinfold's that it does not know, or cannot follow, are errors" {
	local a
	for a in io.pinfold.polcy={} io.pinfold.snapshot=always io.pinfold.restore=x; do
		ctr_ run "${RUNTIME[@]}" --rm --annotation "$a" localhost/bb:1 "$ID" true
		assert_status 1
		assert_err "${a%%=*}"
	done
}

@test "a snapshot that is killed while the container stands still lets it go on" {
	command -v strace >/dev/null || skip "needs strace"
	ctr_ run "${RUNTIME[@]}" -d localhost/bb:1 "$ID" sh -c 'while :; do date +%s%N >/now; sleep 0.05; done'
	assert_status 0
	local pid cgroup snapshot
	pid=$("$CT/runtime" --root "$CT/ctr/default" state "$ID" | jq .pid)
	cgroup=$(find /sys/fs/cgroup -path "*/pinfold-test-ct/$BATS_TEST_NUMBER/cgroup.freeze" | head -1)
	# Each write takes longer, so that there is time to see it frozen.
	strace -f -qq -o /dev/null -e trace=write -e inject=write:delay_enter=300000 \
		"$PINFOLD" --root "$CT/ctr/default" --store "$CT/store" snapshot "$ID" >/dev/null 2>&1 3>&- 4>&- &
	wait_for 20 grep -q 1 "$cgroup"
	for snapshot in $(pgrep -f "^$PINFOLD --root $CT/ctr/default --store $CT/store snapshot"); do
		# The guard has left their session, and is not killed with them.
		[ "$(ps -o sid= -p "$snapshot" | tr -d ' ')" = "$snapshot" ] || kill -9 "$snapshot"
	done
	wait_for 5 grep -q 0 "$cgroup"
	wait_for 5 sh -c "a=\$(cat /proc/$pid/root/now); sleep 0.3; [ \"\$a\" != \"\$(cat /proc/$pid/root/now)\" ]"
	ctr task kill -s 9 "$ID"
	wait_for 5 sh -c "ctr task ls | grep -q '$ID.*STOPPED'"
	ctr task rm "$ID" >/dev/null 2>&1
	ctr container rm "$ID"
}
