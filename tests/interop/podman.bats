# Debian's podman, conmon and buildah take Pinfold as their runtime.
# timeout: 300
load ../lib/common
load images

setup_file() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	local p
	for p in podman conmon umoci skopeo busybox gcc jq; do
		command -v "$p" >/dev/null || skip "needs $p (scripts/install-deps interop)"
	done
	export PD="${TMPDIR:-/tmp}/pd.$$"
	mkdir -m 755 "$PD"
	make_images "$PD/images" >/dev/null
	# One mount namespace for all of podman's calls, so that what it mounts is never the machine's.
	unshare -m sh -c 'mount --make-rprivate / && exec sleep 100000' 3>&- 4>&- &
	export HOLDER=$!
	# For pods: no image is built or pulled, and limits are those that a machine without CAP_SYS_RESOURCE has.
	export CONTAINERS_CONF="$PD/containers.conf"
	cat >"$CONTAINERS_CONF" <<-END
		[containers]
		default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
		[engine]
		infra_image = "localhost/pause:1"
	END
	podman_ load -q -i "$PD/images/bb.tar"
	podman_ load -q -i "$PD/images/pause.tar"
}

teardown_file() {
	[ -n "${PD:-}" ] && [ -d "$PD" ] || return 0
	podman_ pod rm -fa -t 0 >/dev/null 2>&1
	podman_ rm -fa -t 0 >/dev/null 2>&1
	kill "$HOLDER"
	find /sys/fs/cgroup -depth -type d -path '*/libpod_parent*' -exec rmdir {} \; 2>/dev/null
	rm -rf "$PD"
	return 0
}

PODMAN_OPTIONS=(--storage-driver overlay --cgroup-manager=cgroupfs --events-backend=file)

podman_() {
	timeout 60 nsenter -t "$HOLDER" -m podman --root "$PD/root" --runroot "$PD/run" --tmpdir "$PD/tmp" \
		"${PODMAN_OPTIONS[@]}" --runtime "$PINFOLD" "$@"
}

pod() { # as pf
	status=0
	output=$(podman_ "$@" 2>"$PD/stderr") || status=$?
	stderr=$(<"$PD/stderr")
}

COMMON=(--pull=never --network=none)
IMAGE=localhost/bb:1

@test "podman run: output, exit code, a command that is not there" {
	pod run --rm "${COMMON[@]}" $IMAGE sh -c 'echo hi; exit 3'
	assert_status 3
	assert_equal "$output" hi
	pod run --rm "${COMMON[@]}" $IMAGE nosuch
	assert_status 127
}

@test "podman run -d, exec, logs, pause, top, stats, restart, stop, rm" {
	pod run -d --name life "${COMMON[@]}" $IMAGE sh -c 'echo logged; exec sleep 1000'
	assert_status 0
	pod exec life sh -c 'echo inside; exit 4'
	assert_status 4
	assert_out inside
	pod exec life nosuch
	assert_status 127
	pod logs life
	assert_out logged
	pod pause life
	assert_status 0
	pod ps -a
	assert_out Paused
	pod unpause life
	assert_status 0
	pod top life
	assert_out "sleep 1000"
	pod stats --no-stream life
	assert_status 0
	pod restart -t 0 life
	assert_status 0
	pod stop -t 0 life
	assert_status 0
	pod inspect life
	assert_json '.[0].State.Status == "exited" and .[0].OCIRuntime == "'"$PINFOLD"'"'
	pod rm life
	assert_status 0
}

@test "podman run -t: a terminal" {
	status=0
	output=$(script -qec "timeout 60 nsenter -t $HOLDER -m podman --root $PD/root --runroot $PD/run --tmpdir $PD/tmp ${PODMAN_OPTIONS[*]} --runtime $PINFOLD run --rm -it ${COMMON[*]} $IMAGE sh -c 'tty; exit 6'" \
		/dev/null </dev/null) || status=$?
	assert_status 6
	assert_out /dev/pts/0
}

@test "podman run with limits, --read-only, --tmpfs, volumes, --user, --sysctl, --cap-drop" {
	mkdir -p "$PD/volume"
	pod run --rm "${COMMON[@]}" --read-only --tmpfs /scratch -v "$PD/volume:/v" --memory 64m --pids-limit 30 --cpus 0.5 \
		--user 1000:1000 --cap-drop all --sysctl net.ipv4.ip_forward=1 $IMAGE \
		sh -c 'id -u; touch /x; touch /scratch/x && echo scratch; grep CapBnd /proc/self/status; cat /proc/sys/net/ipv4/ip_forward
		find /sys/fs/cgroup \( -name memory.limit_in_bytes -o -name memory.max -o -name pids.max \) -exec cat {} \;'
	assert_err "Read-only file system"
	assert_out "1000
scratch
CapBnd:	0000000000000000
1"
	assert_out 67108864
	assert_out 30
}

@test "podman run in a user namespace" {
	pod run --rm "${COMMON[@]}" --uidmap 0:100000:1000 --gidmap 0:100000:1000 $IMAGE \
		sh -c 'id -u; cat /proc/self/uid_map; touch /new; stat -c %u /new'
	assert_status 0
	assert_out 100000
}

@test "podman run --privileged and with the host's namespaces" {
	pod run --rm "${COMMON[@]}" --privileged $IMAGE sh -c 'mkdir -p /mnt && mount -t tmpfs x /mnt && echo mounted'
	assert_out mounted
	pod run --rm "${COMMON[@]}" --pid host --ipc host --uts host $IMAGE \
		sh -c 'for n in pid ipc uts; do readlink /proc/self/ns/$n; done'
	assert_equal "$output" "$(for n in pid ipc uts; do readlink /proc/self/ns/$n; done)"
}

@test "podman pod with hostNetwork: play kube and generate kube" {
	cat >"$PD/pod.yaml" <<-'END'
		apiVersion: v1
		kind: Pod
		metadata: {name: kube}
		spec:
		  hostNetwork: true
		  containers:
		  - name: one
		    image: localhost/bb:1
		    imagePullPolicy: Never
		    command: [sh, -c, "exec sleep 1000"]
	END
	pod play kube "$PD/pod.yaml"
	assert_status 0
	pod exec kube-one sh -c 'echo in the pod'
	assert_out "in the pod"
	pod generate kube kube
	assert_out "kind: Pod"
	pod play kube --down "$PD/pod.yaml"
	assert_status 0
}

@test "buildah run" {
	command -v buildah >/dev/null || skip "needs buildah"
	local b=(nsenter -t "$HOLDER" -m buildah --root "$PD/root" --runroot "$PD/run" --storage-driver overlay)
	local c
	c=$("${b[@]}" from --pull-never --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 $IMAGE)
	status=0
	output=$(timeout 60 "${b[@]}" run --isolation oci --runtime "$PINFOLD" --network none "$c" -- sh -c 'echo built' \
		2>"$PD/stderr") || status=$?
	stderr=$(<"$PD/stderr")
	"${b[@]}" rm "$c" >/dev/null
	assert_status 0
	assert_out built
}
