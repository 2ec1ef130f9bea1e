# parallel-safe
# linux of config.json: namespaces, ids, devices, limits, seccomp.
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

@test "a user namespace with its maps; files and devices belong to its root" {
	edit '.linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
		| .linux.gidMappings = [{containerID: 0, hostID: 100000, size: 65536}]'
	chown -R 100000:100000 "$BUNDLE/rootfs"
	chmod 755 "$PF_DIR" "$BUNDLE"
	run_bundle 'cat /proc/self/uid_map; stat -c "%u %t:%T" /dev/null; echo x >/dev/null; touch /new; stat -c %u /new; mount | grep sysfs'
	assert_status 0
	assert_out "100000"
	assert_out "0 1:3"
	assert_equal "$(stat -c %u "$BUNDLE/rootfs/new")" 100000
}

@test "namespaces to join: net, ipc, uts, pid, user; a wrong type and a missing file are refused" {
	edit '.linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
		| .linux.gidMappings = [{containerID: 0, hostID: 100000, size: 65536}] | .hostname = "first"'
	chown -R 100000:100000 "$BUNDLE/rootfs"
	start_bundle 'exec sleep 1000'
	local first=$ID pid=$PID
	edit 'del(.hostname, .linux.uidMappings, .linux.gidMappings) | .linux.namespaces = [{type: "mount"}, {type: "cgroup"}]
		+ (["network", "ipc", "uts", "pid", "user"] | map({type: ., path: ("/proc/" + $p + "/ns/" + (if . == "network" then "net" else . end))}))
		| .linux.cgroupsPath += "b"' --arg p "$pid"
	run_bundle 'hostname; for n in net ipc uts pid user; do readlink /proc/self/ns/$n; done; ps; touch /dev/shm/x; stat -c %u /dev/shm/x'
	assert_status 0
	assert_out first
	assert_out "sleep 1000"
	for n in net ipc uts pid user; do assert_out "$(readlink "/proc/$pid/ns/$n")"; done
	edit '.linux.namespaces[2].path = "/proc/self/ns/uts"'
	assert_create_refused linux.namespaces /proc/self/ns/uts
	edit '.linux.namespaces[2].path = "/nosuch"'
	assert_create_refused linux.namespaces /nosuch
	ID=$first
}

@test "namespaces that are not listed are the host's" {
	edit '.linux.namespaces = [{type: "mount"}] | del(.hostname)'
	run_bundle 'for n in net pid uts; do readlink /proc/self/ns/$n; done'
	assert_out "$(readlink /proc/self/ns/net)"
	assert_out "$(readlink /proc/self/ns/uts)"
	edit '.hostname = "x"'
	assert_create_refused hostname uts
}

@test "time offsets" {
	[ -e /proc/self/ns/time ] || skip "needs time namespaces"
	edit '.linux.namespaces += [{type: "time"}] | .linux.timeOffsets = {boottime: {secs: 1000000, nanosecs: 1}, monotonic: {secs: 5}}'
	run_bundle 'cut -d. -f1 /proc/uptime; cat /proc/self/timens_offsets'
	[[ "$output" =~ boottime\ +1000000 ]]
	[ "$(head -1 <<<"$output")" -gt 1000000 ]
	start_bundle 'exec sleep 1000'
	pf exec "$ID" cat /proc/self/timens_offsets
	[[ "$output" =~ boottime\ +1000000 ]]
	edit '.linux.namespaces |= map(select(.type != "time"))'
	assert_create_refused linux.timeOffsets
}

@test "network devices are moved in, renamed, with their addresses, and up" {
	edit '.linux.netDevices = {pftest0: {name: "data0"}}'
	# The kernel looks at what a link has become up to a second later.
	local settle='for i in $(seq 50); do cat /sys/class/net/*[0-9]*/operstate | grep -qv "^up" || break; sleep 0.1; done'
	script "$settle; cat /sys/class/net/data0/operstate; ip addr show dev data0"
	new_id
	status=0
	output=$(unshare -n sh -ec 'ip link add pftest0 type veth peer name pftest1; ip link set pftest1 up
		ip addr add 192.0.2.7/24 dev pftest0; ip addr add 2001:db8::7/64 dev pftest0 nodad; exec "$@"' sh \
		"$PINFOLD" --root "$ROOT" run --bundle "$BUNDLE" "$ID") || status=$?
	assert_status 0
	assert_out up
	assert_out 192.0.2.7/24
	assert_out 2001:db8::7/64
	edit '.linux.netDevices = {pftest0: {name: "net%d"}, pftest1: {name: "net%d"}}'
	script "$settle; ls /sys/class/net; cat /sys/class/net/net?/operstate"
	new_id
	output=$(unshare -n sh -ec 'ip link add pftest0 type veth peer name pftest1; exec "$@"' sh \
		"$PINFOLD" --root "$ROOT" run --bundle "$BUNDLE" "$ID")
	assert_equal "$(xargs <<<"$output")" "lo net0 net1 up up"
	edit '.linux.netDevices = {nosuchdev: {}}'
	assert_create_refused linux.netDevices nosuchdev
	edit '.linux.netDevices = {lo: {name: "eth0"}}'
	assert_create_refused linux.netDevices lo
	edit '.linux.namespaces |= map(select(.type != "network"))'
	assert_create_refused linux.netDevices "network namespace"
}

@test "hostname, domainname, sysctl: the container's own only" {
	edit '.hostname = "pen" | .domainname = "fold" | .linux.sysctl = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096", "net/ipv4/conf/lo/forwarding": "1"}'
	run_bundle 'hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax'
	assert_equal "$output" "pen
fold
1
4096"
	local bad
	for bad in kernel.core_pattern vm.swappiness kernel.hostname ../../etc/x net..ipv4; do
		edit '.linux.sysctl = {($k): "1"}' --arg k "$bad"
		assert_create_refused linux.sysctl
	done
	edit '.linux.sysctl = {"net.ipv4.ip_forward": "1\nx"}'
	assert_create_refused linux.sysctl "control character"
	edit '.linux.sysctl = {"net.ipv4.ip_forward": "1"} | .linux.namespaces |= map(select(.type != "network"))'
	assert_create_refused linux.sysctl network
}

@test "devices: default ones, linux.devices anywhere, and the filter on them" {
	edit '.linux.devices = [{path: "/dev/net/tun2", type: "c", major: 10, minor: 200, fileMode: 416, uid: 0, gid: 6},
		{path: "/elsewhere/zero", type: "c", major: 1, minor: 5}, {path: "/dev/fifo", type: "p"}]
		| .linux.resources.devices = [{allow: false, access: "rwm"}]'
	run_bundle 'for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; ls -l /dev/ptmx
		stat -c "%F %t:%T %a %u %g" /dev/net/tun2 /dev/fifo; head -c 4 /elsewhere/zero | od -An -tx1; cat /dev/net/tun2'
	assert_out "character special file a:c8 640 0 6"
	assert_out "fifo"
	assert_out "00 00 00 00"
	assert_err "Operation not permitted"
	echo full >"$BUNDLE/rootfs/data/file"
	edit '.linux.devices[0].path = "/data/file"'
	assert_create_refused "device /data/file"
}

@test "limits of the bundle are in force, and the cgroup mount is read-only" {
	edit '.linux.resources += {memory: {limit: 33554432}, pids: {limit: 20}}'
	start_bundle 'exec sleep 1000'
	pf events --stats "$ID"
	assert_json '.data.memory.usage.limit == 33554432 and .data.pids.limit == 20'
	pf exec "$ID" sh -c 'find /sys/fs/cgroup -name pids.max -exec cat {} \; ; for f in $(find /sys/fs/cgroup -name cgroup.procs); do echo 0 2>/dev/null >$f && echo wrote; done'
	assert_out 20
	refute_out wrote
	edit '.linux.cgroupsPath = "/a/../../b"'
	assert_create_refused cgroup
}

@test "a writable cgroup mount makes the container's user the owner of its cgroup, and of nothing above" {
	local tree=/sys/fs/cgroup
	[ -e "$tree/cgroup.procs" ] || tree=/sys/fs/cgroup/unified
	[ -e "$tree/cgroup.procs" ] || skip "needs a cgroup v2 tree"
	edit '.linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
		| .linux.gidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
		| .mounts |= map(if .type == "cgroup" then .options -= ["ro"] else . end)'
	chown -R 100000:100000 "$BUNDLE/rootfs"
	script 'mkdir /sys/fs/cgroup/below && echo $$ >/sys/fs/cgroup/below/cgroup.procs && cat /proc/self/cgroup
		stat -c "%u %n" /sys/fs/cgroup /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/pids.max /sys/fs/cgroup/cgroup.freeze 2>/dev/null; true'
	new_id
	# Where other hierarchies are there as well, they are out of sight.
	status=0
	output=$(unshare -m --propagation private sh -ec 'umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"' sh \
		"$PINFOLD" --root "$ROOT" run --bundle "$BUNDLE" "$ID" 2>&1) || status=$?
	assert_status 0
	assert_out "0::/below"
	assert_out "0 /sys/fs/cgroup"
	assert_out "0 /sys/fs/cgroup/cgroup.procs"
	assert_out "65534 /sys/fs/cgroup/cgroup.freeze"
	assert_equal "$(stat -c %u "$tree${CGROUP%/*}")" 0
}

@test "seccomp: errno with and without no_new_privs; exec gets it too; unknown actions are refused" {
	local nnp
	for nnp in true false; do
		edit '.process.noNewPrivileges = '$nnp' | .linux.seccomp = {defaultAction: "SCMP_ACT_ALLOW", syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 95}]}'
		start_bundle 'mkdir /tmp/no 2>&1; exec sleep 1000'
		wait_for 5 grep -q "not supported" "$PF_DIR/out"
		pf exec "$ID" mkdir /tmp/no
		assert_err "not supported"
		pinfold delete --force "$ID"
	done
	edit '.linux.seccomp.defaultAction = "SCMP_ACT_NOSUCH"'
	assert_create_refused SCMP_ACT_NOSUCH
}

@test "seccomp listener: the agent gets the state and a descriptor that answers" {
	edit '.linux.seccomp = {defaultAction: "SCMP_ACT_ALLOW", listenerPath: $p, listenerMetadata: "meta",
		syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_NOTIFY"}]}' --arg p "$PF_DIR/agent.sock"
	script 'mkdir /tmp/notified 2>&1; echo done'
	cat >"$PF_DIR/agent.py" <<-'END'
		import array, fcntl, json, os, socket, struct, sys
		s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print("listening", flush=True)
		c, _ = s.accept()
		data, anc, _, _ = c.recvmsg(65536, socket.CMSG_SPACE(4))
		fd = array.array("i", anc[0][2])[0]
		while True:
		    more = c.recv(65536)
		    if not more: break
		    data += more
		print(data.decode(), flush=True)
		req = bytearray(80)
		fcntl.ioctl(fd, 0xC0502100, req)  # SECCOMP_IOCTL_NOTIF_RECV
		id = struct.unpack_from("Q", req)[0]
		fcntl.ioctl(fd, 0xC0182101, struct.pack("QqiI", id, 0, -114, 0))  # EALREADY
	END
	python3 "$PF_DIR/agent.py" "$PF_DIR/agent.sock" >"$PF_DIR/agent.out" 2>&1 &
	local agent=$!
	wait_for 5 grep -q listening "$PF_DIR/agent.out"
	run_bundle
	wait "$agent"
	assert_out "Operation already in progress"
	sed -n 2p "$PF_DIR/agent.out" | jq -e '.fds == ["seccompFd"] and .metadata == "meta" and .state.id == "'"$ID"'" and .pid > 0'
}

@test "memory policy; exec's CPU affinity; scheduling of what exec starts" {
	edit '.linux.memoryPolicy = {mode: "MPOL_BIND", nodes: "0", flags: ["MPOL_F_STATIC_NODES"]}
		| .process.execCPUAffinity = {initial: "0", final: "0"} | .process.scheduler = {policy: "SCHED_IDLE"}'
	start_bundle 'grep -m1 . /proc/self/numa_maps; exec sleep 1000'
	wait_for 5 test -s "$PF_DIR/out"
	grep -q "bind=static:0" "$PF_DIR/out" || grep -q "bind" "$PF_DIR/out"
	pf exec "$ID" sh -c 'grep Cpus_allowed_list /proc/self/status; cut -d" " -f41 /proc/self/stat'
	assert_out "Cpus_allowed_list:	0
5"
	pinfold delete --force "$ID"
	edit '.linux.memoryPolicy.nodes = "1000"'
	assert_create_refused linux.memoryPolicy
}

@test "unified, huge pages, rdma, block devices: written, or refused by name where the host has no such controller" {
	edit '.linux.resources.hugepageLimits = [{pageSize: "2MB", limit: 4194304}]'
	start_bundle 'exec sleep 1000'
	local file
	file=$(find /sys/fs/cgroup -path "*$CGROUP/*" '(' -name hugetlb.2MB.max -o -name hugetlb.2MB.limit_in_bytes ')' | head -1)
	[ -z "$file" ] || assert_equal "$(cat "$file")" 4194304
	pinfold delete --force "$ID"
	edit 'del(.linux.resources.hugepageLimits) | .linux.resources.unified = {"cgroup.max.descendants": "7"}'
	start_bundle 'exec sleep 1000'
	file=$(find /sys/fs/cgroup -path "*$CGROUP/cgroup.max.descendants" | head -1)
	[ -z "$file" ] || assert_equal "$(cat "$file")" 7
	pinfold delete --force "$ID"
	edit '.linux.resources.unified = {"nosuch.max": "7"}'
	assert_create_refused nosuch.max
	edit '.linux.resources.unified = {"cgroup.procs": "1"}'
	assert_create_refused cgroup.procs
	edit '.linux.resources.unified = {"../x.max": "1"}'
	assert_create_refused unified
	edit 'del(.linux.resources.unified) | .linux.resources.rdma = {nosuchdevice: {hcaHandles: 3}}'
	assert_create_refused rdma
	edit 'del(.linux.resources.rdma) | .linux.resources.blockIO = {throttleReadBpsDevice: [{major: 4000, minor: 1, rate: 5}]}'
	assert_create_refused io
}

@test "personality, annotations, and what this host cannot do" {
	edit '.linux.personality = {domain: "LINUX32"} | .annotations = {"a.b": "c"}'
	run_bundle 'uname -m'
	[ "$output" = i686 ] || [ "$(uname -m)" != x86_64 ]
	start_bundle 'exec sleep 1000'
	pf state "$ID"
	assert_json '.annotations["a.b"] == "c"'
	edit '.linux.intelRdt = {closID: "x"}'
	[ -d /sys/fs/resctrl/info ] || assert_create_refused linux.intelRdt
	edit 'del(.linux.intelRdt) | .process.apparmorProfile = "x"'
	[ -e /sys/module/apparmor ] || assert_create_refused process.apparmorProfile
	edit 'del(.process.apparmorProfile) | .process.selinuxLabel = "x"'
	[ -e /sys/fs/selinux/enforce ] || assert_create_refused process.selinuxLabel
}
