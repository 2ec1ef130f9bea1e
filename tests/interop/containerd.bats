# Debian's containerd takes Pinfold as its runtime: by ctr, and by CRI as a kubelet would.
# timeout: 300
load ../lib/common
load images

setup_file() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	local p
	for p in containerd ctr umoci skopeo busybox gcc protoc jq; do
		command -v "$p" >/dev/null || skip "needs $p (scripts/install-deps interop)"
	done
	[ -x /usr/lib/cni/bridge ] || skip "needs containernetworking-plugins"
	/usr/bin/python3 -c 'import grpc, google.protobuf' 2>/dev/null || skip "needs python3-grpcio and python3-protobuf"
	# Short: sockets lie below.
	export CT="${TMPDIR:-/tmp}/ct.$$"
	mkdir -m 700 "$CT"
	mkdir "$CT/cni" "$CT/logs"
	make_images "$CT/images" >/dev/null
	cat >"$CT/config.toml" <<-END
		version = 2
		root = "$CT/root"
		state = "$CT/state"
		disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
		  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs"]
		[grpc]
		  address = "$CT/sock"
		[ttrpc]
		  address = "$CT/sock.ttrpc"
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "localhost/pause:1"
		  disable_apparmor = true
		  restrict_oom_score_adj = true
		  stream_server_address = "127.0.0.1"
		  [plugins."io.containerd.grpc.v1.cri".containerd]
		    snapshotter = "overlayfs"
		    default_runtime_name = "pinfold"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.pinfold]
		      runtime_type = "io.containerd.runc.v2"
		      pod_annotations = ["io.pinfold.*"]
		      container_annotations = ["io.pinfold.*"]
		      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.pinfold.options]
		        BinaryName = "$PINFOLD"
		        Root = "$CT/pinfold"
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		    conf_dir = "$CT/cni"
	END
	cat >"$CT/cni/10-test.conflist" <<-END
		{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "pft0", "isGateway": true,
		 "ipMasq": false, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.7.0/24"}]],
		 "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$CT/ipam"}}]}
	END
	# Network and mounts of its own: no bridge and no mount of it is ever the machine's.
	setsid unshare -m -n sh -c 'mount --make-rprivate / && ip link set lo up && exec containerd -c "$0"' \
		"$CT/config.toml" >"$CT/log" 2>&1 3>&- 4>&- &
	export CONTAINERD_ADDRESS="$CT/sock"
	wait_for 20 ctr version >/dev/null 2>&1 || { cat "$CT/log" >&2; return 1; }
	DAEMON=$(pgrep -f "^containerd -c $CT/config.toml")
	export DAEMON
	local ns image
	for ns in default k8s.io; do
		for image in bb pause; do ctr -n "$ns" images import "$CT/images/$image.tar" >/dev/null; done
	done
}

teardown_file() {
	[ -n "${CT:-}" ] && [ -d "$CT" ] || return 0
	local id ns pid
	for ns in default k8s.io; do
		for id in $(ctr -n "$ns" task ls -q 2>/dev/null); do
			ctr -n "$ns" task kill -s 9 "$id" >/dev/null 2>&1
			sleep 0.3
			ctr -n "$ns" task rm -f "$id" >/dev/null 2>&1
		done
		for id in $(ctr -n "$ns" container ls -q 2>/dev/null); do ctr -n "$ns" container rm "$id" >/dev/null 2>&1; done
	done
	[ -z "${DAEMON:-}" ] || kill "$DAEMON"
	for pid in $(pgrep -f "containerd-shim-runc-v2 .*-address $CT/sock"); do kill -9 "$pid"; done
	wait_for 10 sh -c "! kill -0 ${DAEMON:-0} 2>/dev/null" || true
	find /sys/fs/cgroup -depth -type d \( -path "*/pinfold-test-ct/*" -o -name pinfold-test-ct -o -path '*/pinfold-test-pod*' \) \
		-exec rmdir {} \; 2>/dev/null
	rm -rf "$CT"
	return 0
}

setup() {
	RUNTIME=(--runtime io.containerd.runc.v2 --runc-binary "$PINFOLD" --runc-root "$CT/ctr"
		--cgroup "/pinfold-test-ct/$BATS_TEST_NUMBER")
	ID="c$BATS_TEST_NUMBER-$RANDOM"
}

ctr_() { # as pf: status, output, stderr
	status=0
	output=$(timeout 60 ctr "$@" 2>"$CT/stderr") || status=$?
	stderr=$(<"$CT/stderr")
}

cri() { # METHOD JSON
	status=0
	output=$(timeout 60 nsenter -t "$DAEMON" -n /usr/bin/python3 "$BATS_TEST_DIRNAME/cri.py" "$CT/sock" "$@" \
		2>"$CT/stderr") || status=$?
	stderr=$(<"$CT/stderr")
}

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
	output=$(script -qec "timeout 60 ctr run ${RUNTIME[*]} --rm -t localhost/bb:1 $ID sh -c 'tty; exit 5'" \
		/dev/null </dev/null) || status=$?
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

pod_config() { # NAME NETWORK: the sandbox configuration
	POD_CONFIG=$(jq -n --arg n "$1-$RANDOM" --arg logs "$CT/logs" --arg cg "/pinfold-test-pod/$1" --argjson net "$2" \
		'{metadata: {name: $n, uid: $n, namespace: "default"}, log_directory: $logs,
		linux: {cgroup_parent: $cg, security_context: {namespace_options: {network: $net}}}}')
}

run_pod() { # NAME NETWORK (0: of its own, 2: the node's)
	pod_config "$@"
	cri RunPodSandbox "$(jq -n --argjson c "$POD_CONFIG" '{runtime_handler: "pinfold", config: $c}')"
	assert_status 0
	POD=$(jq -r .pod_sandbox_id <<<"$output")
}

container() { # NAME COMMAND [JQ-FILTER ON THE CONFIG]: creates it; sets CONTAINER
	cri CreateContainer "$(jq -n --arg pod "$POD" --argjson sc "$POD_CONFIG" --arg n "$1" --arg cmd "$2" \
		'{pod_sandbox_id: $pod, sandbox_config: $sc, config: ({metadata: {name: $n}, image: {image: "localhost/bb:1"},
		command: ["sh", "-c", $cmd], log_path: ($n + ".log"),
		linux: {security_context: {seccomp: {profile_type: 0}, masked_paths: ["/proc/kcore"], readonly_paths: ["/proc/sys"]}}}
		| '"${3:-.}"')}')"
	assert_status 0
	CONTAINER=$(jq -r .container_id <<<"$output")
}

start_container() {
	cri StartContainer "{\"container_id\": \"$CONTAINER\"}"
}

exec_sync() { # COMMAND: output is the command's
	cri ExecSync "$(jq -n --arg id "$CONTAINER" --arg c "$1" '{container_id: $id, cmd: ["sh", "-c", $c], timeout: 20}')"
	[ "$status" = 0 ] || return 0
	status=$(jq -r .exit_code <<<"$output")
	output=$(jq -r '.stdout | @base64d' <<<"$output")
}

# Whether the container's status is as the jq expression says.
container_is() {
	cri ContainerStatus "{\"container_id\": \"$CONTAINER\"}"
	jq -e "$1" <<<"$output" >/dev/null
}

remove_pod() {
	cri StopPodSandbox "{\"pod_sandbox_id\": \"$POD\"}"
	assert_status 0
	cri RemovePodSandbox "{\"pod_sandbox_id\": \"$POD\"}"
	assert_status 0
}

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
