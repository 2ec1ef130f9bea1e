# The OCI runtime specification on plain bundles: runtime.md's operations, config.md's and config-linux.md's
# properties.
# timeout: 300
load ../lib/common
load bundle

setup() {
	common_setup
	bundle_setup
}
teardown() {
	common_teardown
	bundle_teardown
}

# ---- operations ------------------------------------------------------------------------------------------

@test "create, start, state, kill, delete: the statuses of runtime.md in their order" {
	script 'echo started; exec sleep 1000'
	new_id
	pinfold create --bundle "$BUNDLE" --pid-file "$PF_DIR/pid" "$ID" </dev/null >"$PF_DIR/out" 2>&1
	pf state "$ID"
	assert_json '.status == "created" and .id == "'"$ID"'" and .pid == '"$(<"$PF_DIR/pid")"
	assert_json '.bundle == "'"$BUNDLE"'" and (.ociVersion | startswith("1."))'
	[ ! -s "$PF_DIR/out" ]
	pinfold start "$ID"
	status_is running
	wait_for 5 grep -q started "$PF_DIR/out"
	pf start "$ID"
	assert_status 1
	pf delete "$ID"
	assert_status 1
	pinfold kill "$ID" KILL
	wait_for 5 status_is stopped
	pf state "$ID"
	assert_json '.pid == 0'
	pf kill "$ID" 9
	assert_status 1
	assert_err "container not running"
	pinfold kill --all "$ID" 9
	pinfold delete "$ID"
	pf state "$ID"
	[ "$status" != 0 ]
	assert_gone "$ID"
	pinfold delete --force "$ID"
}

@test "an id is free again after delete, and taken before" {
	start_bundle 'sleep 1000'
	pf create --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err "exists"
	pinfold delete --force "$ID"
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	pinfold delete "$ID"
}

@test "run gives back the program's exit code, 128 + n for a signal, and leaves nothing" {
	run_bundle 'echo hello; exit 7'
	assert_status 7
	assert_equal "$output" hello
	assert_gone "$ID"
	run_bundle 'kill -9 $$; exec sleep 1'
	# Process 1 of a pid namespace does not die of its own signals.
	assert_status 0
	edit '.linux.namespaces |= map(select(.type != "pid"))'
	run_bundle 'kill -SEGV $$'
	assert_status 139
}

@test "run --keep leaves it stopped, run --detach running" {
	script 'exit 0'
	new_id
	pinfold run --keep --bundle "$BUNDLE" "$ID"
	status_is stopped
	pinfold delete "$ID"
	script 'exec sleep 1000'
	new_id
	pinfold run --detach --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	status_is running
}

@test "changes of config.json after create do not count" {
	script 'echo first'
	new_id
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >"$PF_DIR/out" 2>&1
	script 'echo second'
	pinfold start "$ID"
	wait_for 5 status_is stopped
	assert_equal "$(<"$PF_DIR/out")" first
}

@test "a create that is killed leaves what delete --force removes" {
	cat >"$PF_DIR/hook" <<-'END'
		#!/bin/sh
		exec sleep 1000
	END
	chmod 755 "$PF_DIR/hook"
	edit '.hooks.createRuntime = [{path: $p}]' --arg p "$PF_DIR/hook"
	new_id
	"$PINFOLD" --root "$ROOT" --store "$STORE" create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1 &
	local creator=$!
	wait_for 5 test -s "$ROOT/$ID/state.json"
	assert_equal "$(state_of .status)" creating
	kill -9 "$creator"
	wait "$creator" || true
	wait_for 5 status_is stopped
	pinfold delete --force "$ID"
	assert_gone "$ID"
	local pid
	for pid in /proc/[0-9]*; do
		if [ "$(tr '\0' ' ' <"$pid/cmdline" 2>/dev/null)" = "sleep 1000 " ]; then kill "${pid#/proc/}"; fi
	done
}

@test "kill takes names, numbers and names with SIG, and refuses others" {
	start_bundle 'trap "echo usr1" USR1; trap "echo term; exit 3" TERM; while :; do sleep 0.05; done'
	sleep 0.2
	pinfold kill "$ID" SIGUSR1
	wait_for 5 grep -q usr1 "$PF_DIR/out"
	pf kill "$ID" NOSUCH
	assert_status 1
	assert_err "unknown signal"
	pf kill "$ID" 99
	assert_status 1
	pinfold kill "$ID"
	wait_for 5 status_is stopped
	grep -q term "$PF_DIR/out"
}

@test "pause and resume; exec in a paused container is refused unless told otherwise" {
	start_bundle 'exec sleep 1000'
	pinfold pause "$ID"
	status_is paused
	pf exec "$ID" true
	assert_status 255
	assert_err paused
	pinfold resume "$ID"
	status_is running
	pinfold exec "$ID" true
	pf resume "$ID"
	assert_status 1
}

@test "ps tells the pids of the host, as JSON and as a table" {
	start_bundle 'sleep 1000 & exec sleep 1001'
	wait_for 5 sh -c "[ \$('$PINFOLD' --root '$ROOT' ps --format json '$ID' | jq length) = 2 ]"
	pf ps --format json "$ID"
	assert_json 'index('"$PID"') != null'
	pf ps "$ID"
	assert_out "sleep 1001"
	pf ps "$ID" -o pid,comm
	assert_out sleep
}

@test "list shows containers, update changes limits, events tells what is used" {
	start_bundle 'exec sleep 1000'
	pf list --format json
	assert_json 'map(select(.id == "'"$ID"'" and .status == "running")) | length == 1'
	pf list --quiet
	assert_out "$ID"
	pinfold update --memory 64m --pids-limit 33 "$ID"
	pf events --stats "$ID"
	assert_json '.type == "stats" and .data.pids.limit == 33 and .data.memory.usage.limit == 67108864'
	echo '{"memory":{"limit":33554432},"devices":[{"allow":false,"access":"rwm"}]}' |
		pinfold update --resources - "$ID"
	pf events --stats "$ID"
	assert_json '.data.memory.usage.limit == 33554432'
	pf update --resources=/nosuch "$ID"
	assert_status 1
}

@test "features and spec are what the specification says, checkpoint and restore say what to use" {
	pf features
	assert_json '.ociVersionMin == "1.0.0" and (.hooks | index("poststop")) and (.linux.seccomp.enabled == true)'
	assert_json '(.mountOptions | index("rro")) and (.linux.namespaces | index("time"))'
	mkdir "$PF_DIR/spec"
	pinfold spec --rootless --bundle "$PF_DIR/spec"
	jq -e '.linux.uidMappings | length == 1' "$PF_DIR/spec/config.json"
	pf spec --bundle "$PF_DIR/spec"
	assert_status 1
	pf checkpoint --image-path /x "$ID"
	assert_status 1
	assert_err "see pinfold snapshot"
	pf restore "$ID"
	assert_status 1
}

@test "--log gets JSON lines with level, msg and time; standard error plain text" {
	status=0
	"$PINFOLD" --root "$ROOT" --log "$PF_DIR/log" --log-format json start nosuch 2>"$PF_DIR/stderr" || status=$?
	assert_status 1
	jq -e '.level == "error" and (.msg | contains("does not exist")) and (.time | test("^[0-9]{4}-.*Z$"))' "$PF_DIR/log"
	! grep -q '^{' "$PF_DIR/stderr"
}

# ---- exec ------------------------------------------------------------------------------------------------

@test "exec: exit code, environment, directory, user, capabilities" {
	start_bundle 'exec sleep 1000'
	pf exec --env A=b --cwd /tmp --user 1000:1001 --additional-gids 7 "$ID" sh -c 'echo $A $PWD; id; exit 9'
	assert_status 9
	assert_out "b /tmp"
	assert_out "uid=1000(user) gid=1001 groups=7"
	pf exec --cap CAP_SYS_CHROOT "$ID" grep CapEff /proc/self/status
	assert_out "0000000020040420"
	pf exec "$ID" sh -c 'echo $HOME'
	assert_equal "$output" /root
}

@test "exec --process, --detach, --pid-file" {
	start_bundle 'exec sleep 1000'
	echo '{"args":["sh","-c","echo x >/tmp/done; exec sleep 1000"],"cwd":"/","env":["PATH=/bin"],"user":{"uid":0,"gid":0}}' >"$PF_DIR/process.json"
	pinfold exec --process "$PF_DIR/process.json" --detach --pid-file "$PF_DIR/exec.pid" "$ID"
	wait_for 5 test -e "$BUNDLE/rootfs/tmp/done"
	kill -0 "$(<"$PF_DIR/exec.pid")"
	pf ps --format json "$ID"
	assert_json 'index('"$(<"$PF_DIR/exec.pid")"') != null'
}

@test "exec: a command that is not there or not executable is told in runc's words" {
	start_bundle 'exec sleep 1000'
	pf exec "$ID" nosuch
	assert_status 255
	assert_err 'executable file not found in $PATH'
	pf exec "$ID" /nosuch
	assert_err "No such file or directory"
	pf exec "$ID" /etc/passwd
	assert_err "Permission denied"
}

@test "exec -t gives a terminal of the container's" {
	start_bundle 'exec sleep 1000'
	pf exec -t "$ID" sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && exit 5'
	assert_status 5
	assert_out /dev/pts/0
}

@test "exec again works after kill --all ended an earlier exec (cgroups that were killed take no clones)" {
	start_bundle 'trap "" TERM; while :; do sleep 1; done'
	pinfold exec --detach "$ID" sleep 1000
	pinfold kill --all "$ID" TERM
	pinfold exec "$ID" true
}

@test "a user that is no number is refused" {
	start_bundle 'exec sleep 1000'
	local u
	for u in 0x0 -1 4294967296 1000: ' 1' root; do
		pf exec --user "$u" "$ID" id
		assert_status 255
	done
}

# ---- process ---------------------------------------------------------------------------------------------

@test "user, groups, umask, HOME, cwd that is not there yet" {
	edit '.process.user = {uid: 1000, gid: 1000, additionalGids: [5, 6], umask: 63} | .process.cwd = "/made/here"'
	run_bundle 'id; umask; echo $HOME; pwd'
	assert_out "uid=1000(user) gid=1000 groups=5,6"
	assert_out 0077
	assert_out /home/user
	assert_out /made/here
}

@test "capabilities: five sets as given, inheritable empty, what cannot be granted is a warning" {
	run_bundle 'grep Cap /proc/self/status'
	assert_out "CapInh:	0000000000000000"
	assert_out "CapBnd:	0000000020000420"
	edit '.process.capabilities.ambient = ["CAP_KILL"] | .process.capabilities.inheritable = ["CAP_KILL"] | .process.user.uid = 5'
	run_bundle 'grep Cap /proc/self/status'
	assert_out "CapAmb:	0000000000000020"
	edit '.process.capabilities.bounding += ["CAP_NOSUCH"]'
	assert_create_refused process.capabilities CAP_NOSUCH
}

@test "rlimits, oomScoreAdj, noNewPrivileges, scheduler, ioPriority" {
	edit '.process.rlimits = [{type: "RLIMIT_NOFILE", soft: 100, hard: 200}] | .process.oomScoreAdj = 500
		| .process.scheduler = {policy: "SCHED_BATCH", nice: 5} | .process.ioPriority = {class: "IOPRIO_CLASS_IDLE", priority: 0}'
	run_bundle 'ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status; cut -d" " -f 19,41 /proc/self/stat; ionice -p $$'
	assert_out "100
200
500
NoNewPrivs:	1
5 3"
	assert_out idle
}

@test "a terminal: /dev/console, the size, and the socket protocol" {
	edit '.process.terminal = true | .process.consoleSize = {width: 91, height: 27}'
	script 'ls -l /dev/console; stty size; tty; exit 6'
	new_id
	status=0
	output=$(python3 - "$PINFOLD" "$ROOT" "$BUNDLE" "$ID" "$PF_DIR/console.sock" <<-'END'
		import array, os, socket, subprocess, sys
		pinfold, root, bundle, id, path = sys.argv[1:]
		s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen()
		subprocess.run([pinfold, "--root", root, "create", "--bundle", bundle, "--console-socket", path, id], check=True, stdin=subprocess.DEVNULL)
		c, _ = s.accept()
		name, anc, _, _ = c.recvmsg(4096, socket.CMSG_SPACE(4))
		fd = array.array("i", anc[0][2])[0]
		subprocess.run([pinfold, "--root", root, "start", id], check=True)
		data = b""
		try:
		    while True:
		        chunk = os.read(fd, 4096)
		        if not chunk: break
		        data += chunk
		except OSError: pass
		print(name.decode(), data.decode())
	END
	) || status=$?
	assert_status 0
	assert_out "27 91"
	assert_out /dev/pts/0
	assert_out "136,   0"
	edit '.process.terminal = true'
	new_id
	pf create --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err --console-socket
}

@test "a program that is not there is found out at create" {
	edit '.process.args = ["nosuch"]'
	assert_create_refused 'executable file not found in $PATH'
	edit '.process.args = ["/etc/nosuch"]'
	assert_create_refused "No such file or directory"
}

@test "the program has 0, 1, 2 and nothing else, also when its caller has more; --preserve-fds hands on" {
	exec 7</etc/passwd
	run_bundle 'ls /proc/self/fd'
	exec 7<&-
	assert_equal "$(grep -c . <<<"$output")" 4
	script 'cat <&3'
	new_id
	echo through >"$PF_DIR/f"
	# bats has descriptor 3 for itself.
	output=$("$PINFOLD" --root "$ROOT" run --preserve-fds 1 --bundle "$BUNDLE" "$ID" 3<"$PF_DIR/f")
	assert_equal "$output" through
}

# ---- root and mounts -------------------------------------------------------------------------------------

@test "root: read-only, missing, not a directory, absolute" {
	edit '.root.readonly = true'
	run_bundle 'touch /x'
	assert_err "Read-only file system"
	edit '.root.path = "nosuch"'
	assert_create_refused root.path "No such file"
	edit '.root.path = "config.json"'
	assert_create_refused root.path
	edit '.root.path = $p | .root.readonly = false' --arg p "$BUNDLE/rootfs"
	run_bundle 'touch /x'
	assert_status 0
}

@test "binds: files, ro, rro, attributes, and the sources stay as they are" {
	mkdir -p "$PF_DIR/src/sub"
	echo text >"$PF_DIR/src/file"
	edit '.mounts += [{destination: "/b", type: "bind", source: $s, options: ["rbind", "rro", "nosuid", "nodev", "noexec", "noatime"]},
		{destination: "/etc/f", type: "bind", source: ($s + "/file"), options: ["bind", "ro"]}]' --arg s "$PF_DIR/src"
	run_bundle 'cat /etc/f; touch /b/x; touch /b/sub/x; grep " /b " /proc/self/mountinfo'
	assert_out text
	assert_err "Read-only file system"
	assert_out "ro,nosuid,nodev,noexec,noatime"
	touch "$PF_DIR/src/still-writable"
	edit '.mounts += [{destination: "/c", type: "bind", source: "/nosuch-source", options: ["bind"]}]'
	assert_create_refused "mount source /nosuch-source"
}

@test "tmpfs with size, mode and tmpcopyup" {
	mkdir -p "$BUNDLE/rootfs/data/deep"
	echo kept >"$BUNDLE/rootfs/data/deep/file"
	ln -s deep/file "$BUNDLE/rootfs/data/link"
	chown 1000:1000 "$BUNDLE/rootfs/data/deep/file"
	edit '.mounts += [{destination: "/data", type: "tmpfs", source: "tmpfs", options: ["tmpcopyup", "size=1m", "mode=750", "ro"]}]'
	run_bundle 'cat /data/link; stat -c %u /data/deep/file; touch /data/x; grep " /data " /proc/self/mountinfo'
	assert_out kept
	assert_out 1000
	assert_err "Read-only file system"
	assert_out size=1024k
}

@test "idmap with maps of its own" {
	mkdir "$PF_DIR/src"
	touch "$PF_DIR/src/file"
	chown 5000:5000 "$PF_DIR/src/file"
	edit '.mounts += [{destination: "/m", type: "bind", source: $s, options: ["bind", "idmap"],
		uidMappings: [{containerID: 5000, hostID: 77, size: 10}], gidMappings: [{containerID: 5000, hostID: 78, size: 10}]}]' --arg s "$PF_DIR/src"
	run_bundle 'stat -c "%u %g" /m/file'
	assert_equal "$output" "77 78"
}

@test "propagation: slave sees what is mounted outside later, private does not, shared gives back" {
	mkdir -p "$PF_DIR/shared"
	unshare -m bash -e <<-END
		mount --make-rprivate /
		mount -t tmpfs t "$PF_DIR/shared"
		mount --make-shared "$PF_DIR/shared"
		mkdir "$PF_DIR/shared/in" "$PF_DIR/shared/out"
		jq '.mounts += [{destination:"/slave",type:"bind",source:"$PF_DIR/shared",options:["rbind","rslave"]},
			{destination:"/private",type:"bind",source:"$PF_DIR/shared",options:["rbind","rprivate"]},
			{destination:"/shared",type:"bind",source:"$PF_DIR/shared",options:["rbind","rshared"]}]
			| .linux.rootfsPropagation = "shared" | .process.capabilities.bounding += ["CAP_SYS_ADMIN"]
			| .process.capabilities.effective += ["CAP_SYS_ADMIN"] | .process.capabilities.permitted += ["CAP_SYS_ADMIN"]
			| .process.args = ["sh","-c","while [ ! -e /shared/go ]; do sleep 0.02; done; ls /slave/in; ls /private/in; mount -t tmpfs x /shared/out && touch /shared/out/from-inside; touch /shared/done; sleep 1000"]' \
			"$BUNDLE/config.json" >"$BUNDLE/n" && mv "$BUNDLE/n" "$BUNDLE/config.json"
		"$PINFOLD" --root "$ROOT" run --detach --bundle "$BUNDLE" prop$$ </dev/null >"$PF_DIR/out" 2>&1
		mount -t tmpfs later "$PF_DIR/shared/in"
		touch "$PF_DIR/shared/in/seen" "$PF_DIR/shared/go"
		for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -e "$PF_DIR/shared/done" ] && break; sleep 0.1; done
		ls "$PF_DIR/shared/out" >>"$PF_DIR/out"
		"$PINFOLD" --root "$ROOT" delete --force prop$$
	END
	assert_equal "$(tr '\n' ' ' <"$PF_DIR/out")" "seen from-inside "
}

@test "unknown mount options and bad mounts are refused by name" {
	edit '.mounts += [{destination: "/b", type: "bind", source: "/etc", options: ["bind", "nosuchoption"]}]'
	assert_create_refused nosuchoption
	edit '.mounts[-1] = {destination: "/b", type: "nosuchfs", source: "x"}'
	assert_create_refused nosuchfs
	edit '.mounts[-1] = {destination: "/a/../b", type: "tmpfs", source: "x"}'
	assert_create_refused mounts
	edit '.mounts[-1] = {type: "tmpfs", source: "x"}'
	assert_create_refused destination
}

@test "masked and read-only paths" {
	edit '.linux.maskedPaths += ["/etc/group", "/data", "/nosuch"] | .linux.readonlyPaths += ["/tmp", "/nosuch"]'
	echo secret >"$BUNDLE/rootfs/data/secret"
	echo secret >"$BUNDLE/rootfs/etc/group"
	run_bundle 'cat /etc/group; ls /data; touch /data/x; touch /tmp/x'
	assert_equal "$output" ""
	assert_equal "$(grep -c 'Read-only file system' <<<"$stderr")" 2
}

@test "symlinks of an image at every mount target stay inside the root" {
	mkdir "$PF_DIR/outside"
	rm -rf "$BUNDLE/rootfs/data"
	ln -s "$PF_DIR/outside" "$BUNDLE/rootfs/data"
	ln -s "../../../../../../../..$PF_DIR/outside" "$BUNDLE/rootfs/dots"
	ln -s /nosuch/../../..$PF_DIR/outside "$BUNDLE/rootfs/proc"
	ln -s "$PF_DIR/outside" "$BUNDLE/rootfs/dev"
	ln -s "$PF_DIR/outside" "$BUNDLE/rootfs/sys"
	edit '.mounts += [{destination: "/data/t", type: "tmpfs", source: "t"}, {destination: "/dots/t", type: "tmpfs", source: "t"}]'
	new_id
	script true
	pf run --bundle "$BUNDLE" "$ID"
	assert_equal "$(find "$PF_DIR/outside" -mindepth 1)" ""
	grep -q "$PF_DIR/outside" /proc/self/mountinfo && return 1
	# Without a tmpfs on /dev the nodes and links go to the image's own, wherever it says that is.
	edit '.mounts |= map(select(.destination | startswith("/dev") | not))'
	new_id
	pf run --bundle "$BUNDLE" "$ID"
	assert_equal "$(find "$PF_DIR/outside" -mindepth 1)" ""
}

@test "an image's /dev/null that leads elsewhere does not become a mask (CVE-2025-31133)" {
	mkdir "$BUNDLE/rootfs/dev"
	ln -s /etc/passwd "$BUNDLE/rootfs/dev/null"
	edit '.mounts |= map(select(.destination != "/dev")) | .linux.maskedPaths = ["/etc/group"]'
	touch "$BUNDLE/rootfs/etc/group"
	run_bundle 'cat /etc/group'
	[ "$status" != 0 ]
	refute_out root:x
}

# ---- namespaces ------------------------------------------------------------------------------------------

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

# ---- devices, cgroups, seccomp -----------------------------------------------------------------------------

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

# ---- hooks -------------------------------------------------------------------------------------------------

hook() { # NAME SCRIPT: a hook that logs itself
	cat >"$PF_DIR/$1" <<-END
		#!/bin/sh
		$2
	END
	chmod 755 "$PF_DIR/$1"
}

@test "hooks run in order, each with the state on its input" {
	# shellcheck disable=SC2016
	hook logger 'echo "$1 $(cat)" >>'"$PF_DIR/log"
	edit '.hooks = (["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
		| map({key: ., value: [{path: $p, args: ["log", .], env: ["PATH=/usr/bin:/bin"]}]}) | from_entries)
		+ {startContainer: [{path: "/bin/sh", args: ["sh", "-c", "cat >/state"]}]}' --arg p "$PF_DIR/logger"
	run_bundle 'echo ran'
	assert_status 0
	assert_equal "$(cut -d' ' -f1 "$PF_DIR/log" | xargs)" "prestart createRuntime createContainer poststart poststop"
	assert_equal "$(sed 's/^[^ ]* //' "$PF_DIR/log" | jq -r .status | xargs)" "creating creating creating running stopped"
	sed 's/^[^ ]* //' "$PF_DIR/log" | jq -e -s 'all(.[]; .id == "'"$ID"'" and .bundle == "'"$BUNDLE"'")'
	jq -e '.status == "created" and .pid == 1' "$BUNDLE/rootfs/state"
}

@test "a hook that fails or takes too long ends create, is quoted, and nothing stays but poststop's call" {
	hook bad 'echo "no good" >&2; exit 3'
	hook stop 'echo stop >>'"$PF_DIR/stops"
	edit '.hooks = {createRuntime: [{path: ($d + "/bad")}], poststop: [{path: ($d + "/stop")}]}' --arg d "$PF_DIR"
	assert_create_refused createRuntime "exit status 3" "no good"
	assert_equal "$(cat "$PF_DIR/stops")" stop
	hook slow 'exec sleep 100'
	edit '.hooks = {createContainer: [{path: ($d + "/slow"), timeout: 1}]}' --arg d "$PF_DIR"
	assert_create_refused createContainer "within 1 s"
	edit '.hooks = {startContainer: [{path: "/bin/false"}]}'
	new_id
	pf run --bundle "$BUNDLE" "$ID"
	assert_status 1
	assert_err startContainer
}

@test "a failing poststart hook stops the container; a failing poststop one is a warning" {
	hook bad 'exit 1'
	edit '.hooks = {poststart: [{path: ($d + "/bad")}]}' --arg d "$PF_DIR"
	script 'exec sleep 1000'
	new_id
	pinfold create --bundle "$BUNDLE" "$ID" </dev/null >/dev/null 2>&1
	pf start "$ID"
	assert_status 1
	wait_for 5 status_is stopped
	pinfold delete "$ID"
	edit '.hooks = {poststop: [{path: ($d + "/bad")}, {path: "/usr/bin/touch", args: ["touch", ($d + "/second")]}]}' --arg d "$PF_DIR"
	run_bundle 'exit 0'
	assert_status 0
	assert_err warning
	[ -e "$PF_DIR/second" ]
}

@test "hooks that close their input, leave processes behind or exec nothing do no harm" {
	hook quick 'exec <&-; (sleep 3 &) ; exit 0'
	edit '.hooks = {createRuntime: [{path: ($d + "/quick")}]} | .annotations = {big: ("x" * 300000)}' --arg d "$PF_DIR"
	run_bundle 'echo fine'
	assert_equal "$output" fine
	edit '.hooks = {createRuntime: [{path: "/nosuch-hook"}]}'
	assert_create_refused /nosuch-hook
	edit '.hooks = {createRuntime: [{path: "relative"}]}'
	assert_create_refused hooks.createRuntime absolute
}

# ---- the runtime's own binary ------------------------------------------------------------------------------

@test "the payload cannot write the runtime's file (CVE-2019-5736)" {
	local before
	before=$(sha256sum "$PINFOLD")
	ln -sf /proc/self/exe "$BUNDLE/rootfs/bin/self"
	printf '#!/proc/self/exe\n' >"$BUNDLE/rootfs/bin/script"
	chmod 755 "$BUNDLE/rootfs/bin/script"
	edit '.process.args = ["/proc/self/exe", "--version"]'
	run_bundle_raw() { new_id; pf run --bundle "$BUNDLE" "$ID"; }
	run_bundle_raw
	start_bundle 'while :; do for p in /proc/[0-9]*; do { echo x >$p/exe; } 2>/dev/null && echo "wrote $(cat $p/cmdline)"; done; done'
	for _ in 1 2 3 4 5 6 7 8; do pf exec "$ID" /bin/script; pf exec "$ID" true; done
	! grep -q pinfold "$PF_DIR/out"
	assert_equal "$(sha256sum "$PINFOLD")" "$before"
}

# ---- bundles that are wrong --------------------------------------------------------------------------------

@test "config.json: missing, malformed, of a wrong version, with wrong types, huge" {
	printf '{"ociVersion": ' >"$BUNDLE/config.json"
	assert_create_refused "not valid JSON"
	rm "$BUNDLE/config.json"
	assert_create_refused config.json "No such file"
	"$PINFOLD" spec --bundle "$BUNDLE"
	edit '.process.terminal = false | .ociVersion = "2.0.0"'
	assert_create_refused ociVersion
	edit 'del(.ociVersion)'
	assert_create_refused ociVersion
	edit '.ociVersion = "1.0.0" | .process.args = "sh"'
	assert_create_refused process.args
	edit '.process.args = []'
	assert_create_refused process.args
	edit '.process.args = ["true"] | .process.cwd = "relative"'
	assert_create_refused process.cwd
	edit '.process.cwd = "/" | .annotations = {a: ("x" * 9000000)}'
	assert_create_refused config.json
	edit '.annotations = {a: ("x" * 5000000)}'
	run_bundle 'echo five megabytes'
	assert_equal "$output" "five megabytes"
}

@test "ids that are no names are refused" {
	local id
	for id in ../x a/b '' .hidden "$(printf 'a%.0s' {1..200})"; do
		pf create --bundle "$BUNDLE" -- "$id"
		[ "$status" != 0 ]
	done
	[ ! -e "$ROOT/../x" ]
}
