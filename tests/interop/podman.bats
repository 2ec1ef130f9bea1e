# parallel-safe
# Debian's podman, conmon and buildah take Pinfold as their runtime.
# timeout: 300
load ../lib/common
load images
load registry

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

teardown() {
	[ -z "${PIDS[*]:-}" ] || kill "${PIDS[@]}" 2>/dev/null || true
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
	# What a terminal held when its last user goes, podman may not have read yet: it lives a moment longer.
	# And an input that stays open: at the end of its own, script types ^D, perhaps before the terminal is raw.
	mkfifo "$PD/typed"
	status=0
	output=$(script -qec "timeout --foreground 60 nsenter -t $HOLDER -m podman --root $PD/root --runroot $PD/run --tmpdir $PD/tmp ${PODMAN_OPTIONS[*]} --runtime $PINFOLD run --rm -it ${COMMON[*]} $IMAGE sh -c 'tty; sleep 0.5; exit 6'" \
		/dev/null <>"$PD/typed") || status=$?
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

@test "podman update, kill, wait, cp, commit, exec -t, devices, no_new_privs, the engine's seccomp list" {
	pod run -d --name more "${COMMON[@]}" --memory 64m --device /dev/zero:/dev/mine:r --security-opt no-new-privileges $IMAGE \
		sh -c 'trap "exit 9" TERM; while :; do sleep 0.1; done'
	assert_status 0
	pod update --memory 32m --cpus 0.4 more
	assert_status 0
	pod exec more sh -c 'grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status; head -c 3 /dev/mine | wc -c
		find /sys/fs/cgroup \( -name memory.limit_in_bytes -o -name memory.max -o -name cpu.cfs_quota_us -o -name cpu.max \) -exec cat {} \;'
	assert_out "NoNewPrivs:	1
Seccomp:	2
3"
	assert_out 33554432
	assert_out 40000
	echo here >"$PD/file"
	pod cp "$PD/file" more:/file
	assert_status 0
	pod exec more cat /file
	assert_equal "$output" here
	[ -p "$PD/typed" ] || mkfifo "$PD/typed"
	status=0
	output=$(script -qec "timeout --foreground 60 nsenter -t $HOLDER -m podman --root $PD/root --runroot $PD/run --tmpdir $PD/tmp ${PODMAN_OPTIONS[*]} --runtime $PINFOLD exec -it more tty" \
		/dev/null <>"$PD/typed") || status=$?
	assert_out /dev/pts/
	pod commit -q more localhost/committed:1
	assert_status 0
	pod kill -s TERM more
	pod wait more
	assert_equal "$output" 9
	pod rm more
	pod run --rm "${COMMON[@]}" localhost/committed:1 cat /file
	assert_equal "$output" here
}

@test "podman: a container that uses more memory than its limit is killed" {
	pod run --rm "${COMMON[@]}" --memory 16m $IMAGE sh -c 'x=x; while :; do x=$x$x; done'
	assert_status 137
}

@test "podman build: RUN runs by pinfold" {
	mkdir -p "$PD/build"
	printf 'FROM localhost/bb:1\nRUN echo built >/built && id -u\n' >"$PD/build/Containerfile"
	pod build -q --pull=never --isolation oci --network none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 -t localhost/built:1 "$PD/build"
	assert_status 0
	pod run --rm "${COMMON[@]}" localhost/built:1 cat /built
	assert_equal "$output" built
}

@test "podman with a policy: the address that is allowed, and no other; a snapshot of what it wrote" {
	unshare -n sleep 100000 3>&- 4>&- &
	local net=$! id web
	wait_for 5 sh -c "[ \"\$(readlink /proc/$net/ns/net)\" != \"\$(readlink /proc/self/ns/net)\" ]"
	nsenter -t "$net" -n sh -ec 'ip link set lo up; ip addr add 10.77.0.1/32 dev lo; ip addr add 10.77.0.2/32 dev lo'
	echo hello >"$PD/images/index.html"
	nsenter -t "$net" -n busybox httpd -f -p 80 -h "$PD/images" 3>&- 4>&- &
	web=$!
	printf '#!/bin/sh\nexec "%s" --root "%s/state" --store "%s/store" "$@"\n' "$PINFOLD" "$PD" "$PD" >"$PD/runtime"
	chmod 755 "$PD/runtime"
	# A runtime is remembered with the container, by its path. Podman takes an annotation for a line of CSV.
	pinned() {
		status=0
		output=$(timeout 60 nsenter -t "$HOLDER" -m nsenter --net="/proc/$net/ns/net" podman --root "$PD/root" --runroot "$PD/run" \
			--tmpdir "$PD/tmp" "${PODMAN_OPTIONS[@]}" --runtime "$PD/runtime" "$@" 2>"$PD/stderr") || status=$?
		stderr=$(<"$PD/stderr")
	}
	pinned run -d "${COMMON[@]}" --annotation '"io.pinfold.policy={""allowed_hosts"": [""10.77.0.1:80""], ""allow_private"": true}"' $IMAGE sleep 1000
	assert_status 0
	id=$output
	pinned exec "$id" sh -c 'wget -qO- http://10.77.0.1/; wget -qO- http://10.77.0.2/ || echo refused; echo written >/data; rm /etc/passwd'
	assert_equal "$output" "hello
refused"
	output=$("$PD/runtime" snapshot --name podman "$id")
	assert_json '.deletions == 1'
	output=$("$PD/runtime" checkpoint inspect podman)
	assert_out 10.77.0.1
	pinned rm -f -t 0 "$id"
	assert_status 0
	pinned run --rm "${COMMON[@]}" --annotation '"io.pinfold.policy={""allowed_hosts"": [""*""]}"' $IMAGE true
	kill "$web" "$net"
	[ "$status" != 0 ]
	assert_err io.pinfold.policy
}

@test "podman, buildah, skopeo and umoci take a checkpoint of ours, from a file and from a registry: what was deleted is gone" {
	local b=(nsenter -t "$HOLDER" -m buildah --root "$PD/root" --runroot "$PD/run" --storage-driver overlay) c
	local p=("$PINFOLD" --root "$PD/images/run" --store "$PD/images/store")
	make_checkpoints "$PD/images"
	"${p[@]}" checkpoint export g2 --complete --to "oci-archive:$PD/g2.tar" >/dev/null
	pod load -q -i "$PD/g2.tar"
	assert_status 0
	pod run --rm "${COMMON[@]}" "${output##*: }" sh -c "$SEEN"
	assert_equal "$output" "$WANT"
	PF_DIR="$PD" PIDS=()
	registry
	"${p[@]}" checkpoint push --plain-http --complete g2 "127.0.0.1:$PORT/work:2" >/dev/null
	pod pull -q --tls-verify=false "127.0.0.1:$PORT/work:2"
	assert_status 0
	pod run --rm "${COMMON[@]}" "127.0.0.1:$PORT/work:2" sh -c "$SEEN"
	assert_equal "$output" "$WANT"
	c=$("${b[@]}" from -q --tls-verify=false --pull-always --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 "docker://127.0.0.1:$PORT/work:2")
	output=$(timeout 60 "${b[@]}" run --isolation oci --runtime "$PINFOLD" --network none "$c" -- sh -c "$SEEN")
	"${b[@]}" rm "$c" >/dev/null
	assert_equal "$output" "$WANT"
	skopeo --insecure-policy copy -q --src-tls-verify=false "docker://127.0.0.1:$PORT/work:2" "oci-archive:$PD/copied.tar:again"
	pod load -q -i "$PD/copied.tar"
	pod run --rm "${COMMON[@]}" "${output##*: }" sh -c "$SEEN"
	assert_equal "$output" "$WANT"
	# Debian's umoci knows no zstd.
	"${p[@]}" checkpoint export g2 --complete --uncompressed --to "oci:$PD/plain" >/dev/null
	umoci unpack --image "$PD/plain:g2" "$PD/bundle"
	output=$(chroot "$PD/bundle/rootfs" /bin/sh -c "$SEEN")
	assert_equal "$output" "$WANT"
}

@test "podman pull fetches of a layer with a table of contents only the files that it lacks" {
	local tree="$PD/tree" n missing at
	local store=("$BUILD/libexec/pinfold/pinfold-store" --store "$PD/chunked")
	need curl
	mkdir -p "$tree/dir" "$PD/nothing"
	head -c 1500000 /dev/urandom >"$tree/large"
	head -c 100000 /dev/urandom >"$tree/dir/same"
	ln -s dir/same "$tree/link"
	# Pulling in pieces is the storage configuration's to allow.
	printf '%s\n' '[storage]' 'driver = "overlay"' "graphroot = \"$PD/root\"" "runroot = \"$PD/run\"" \
		'[storage.options.pull_options]' 'enable_partial_images = "true"' >"$PD/storage.conf"
	local -x CONTAINERS_STORAGE_CONF="$PD/storage.conf"
	PF_DIR="$PD" PIDS=()
	registry
	for n in 1 2; do
		# The second time a piece in the middle is another, and there is one file more.
		[ "$n" = 1 ] || printf changed | tee "$tree/new" | dd of="$tree/large" bs=1 seek=700000 conv=notrunc status=none
		printf '{"sandbox_id":"s%s","name":"c%s","base_image":{"ref":"%s","digest":"dir:%s"}}\n' "$n" "$n" "$PD/nothing" "$PD/nothing" |
			"${store[@]}" snapshot-write --upper-fd 9 9<"$tree" >/dev/null
		"$PINFOLD" --store "$PD/chunked" checkpoint push --plain-http --zstd-chunked "c$n" "127.0.0.1:$PORT/chunked:$n" >/dev/null
		# This podman knows the annotations by an older name.
		skopeo inspect --raw --tls-verify=false "docker://127.0.0.1:$PORT/chunked:$n" | sed 's/io\.github\.containers\.zstd-chunked/io.containers.zstd-chunked/g' |
			curl -fsS -X PUT -H 'content-type: application/vnd.oci.image.manifest.v1+json' --data-binary @- "http://127.0.0.1:$PORT/v2/chunked/manifests/old$n"
		pod --log-level=debug pull --tls-verify=false "127.0.0.1:$PORT/chunked:old$n"
		assert_status 0
		missing=$(sed -n 's/.*Missing \([0-9]*\) bytes out of.*/\1/p' <<<"$stderr")
		case $n in
		1) [ "$missing" = 1600000 ] ;;
		2)
			[ "$missing" -gt 7 ]
			[ "$missing" -lt 600000 ]
			;;
		esac
		pod image mount "127.0.0.1:$PORT/chunked:old$n"
		assert_status 0
		at=$output
		nsenter -t "$HOLDER" -m diff -r --no-dereference "$tree" "$at"
	done
	# What was sent in this form is not packed and sent again.
	output=$("$PINFOLD" --store "$PD/chunked" checkpoint push --plain-http --json --zstd-chunked c1 "127.0.0.1:$PORT/chunked:1")
	assert_json '.tables == 1 and .blobs_moved == 0'
	: >"$tree/$(printf 'n\377')"
	printf '{"sandbox_id":"s3","name":"c3","base_image":{"ref":"%s","digest":"dir:%s"}}\n' "$PD/nothing" "$PD/nothing" |
		"${store[@]}" snapshot-write --upper-fd 9 9<"$tree" >/dev/null
	output=$("$PINFOLD" --store "$PD/chunked" checkpoint push --plain-http --json --zstd-chunked c3 "127.0.0.1:$PORT/chunked:3")
	assert_json '.tables == 0 and .blobs_moved == 2 and (.without_table | length) == 1'
}
