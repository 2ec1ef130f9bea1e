# A containerd of the test's own, and calls to it.
# shellcheck shell=bash

# Starts Debian's containerd on sockets and directories of its own, $CT, with pinfold as the only handler.
# The CNI configuration is $1, with @CT@ for that directory.
containerd_up() { # CNI-CONFLIST
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
		        BinaryName = "$CT/runtime"
		        Root = "$CT/pinfold"
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "/usr/lib/cni"
		    conf_dir = "$CT/cni"
	END
	printf '%s\n' "${1//@CT@/$CT}" >"$CT/cni/10-test.conflist"
	# Nothing of it shall lie in the machine's own store.
	printf '#!/bin/sh\nexec "%s" --store "%s/store" "$@"\n' "$PINFOLD" "$CT" >"$CT/runtime"
	chmod 755 "$CT/runtime"
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

# Prints what there is to know when a test failed: processes, tasks, and on SIGUSR1 what the daemon's and the shims'
# threads wait for.
containerd_tell() {
	local pid
	for pid in "${DAEMON:-}" $(pgrep -f "containerd-shim-runc-v2 .*-address $CT/sock"); do
		[ -z "$pid" ] || kill -USR1 "$pid"
	done
	ps axo pid,ppid,stat,wchan:24,args | grep -E "$CT|[p]infold" >&2
	ctr task ls >&2
	sleep 1
	tail -n 150 "$CT/log" >&2
}

containerd_down() {
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

# The sandbox configuration, with $ANNOTATIONS and the name servers $DNS_SERVERS, if they are set.
pod_config() { # NAME NETWORK
	POD_CONFIG=$(jq -n --arg n "$1-$RANDOM" --arg logs "$CT/logs" --arg cg "/pinfold-test-pod/$1" --argjson net "$2" \
		--argjson a "${ANNOTATIONS:-null}" --argjson dns "${DNS_SERVERS:-null}" '{metadata: {name: $n, uid: $n, namespace: "default"}, log_directory: $logs, annotations: $a,
		dns_config: (if $dns then {servers: $dns} else null end),
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
