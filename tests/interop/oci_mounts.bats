# parallel-safe
# root and mounts of config.json, and what an image's own symlinks cannot do.
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
	# Outside the bundle, by a path and by a symlink: whoever writes the configuration chooses.
	mv "$BUNDLE/rootfs" "$PF_DIR/elsewhere"
	edit '.root.path = "../elsewhere"'
	run_bundle 'touch /y'
	assert_status 0
	ln -s "$PF_DIR/elsewhere" "$BUNDLE/link"
	edit '.root.path = "link"'
	run_bundle 'test -e /y'
	assert_status 0
	ln -sfn /etc/passwd "$BUNDLE/link"
	assert_create_refused root.path
	edit '.root.path = ""'
	assert_create_refused root.path
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

@test "ridmap maps what is mounted below as well, idmap does not" {
	mkdir -p "$PF_DIR/src/sub"
	edit '.mounts += [{destination: "/r", type: "bind", source: $s, options: ["rbind", "ridmap"],
			uidMappings: [{containerID: 5000, hostID: 77, size: 10}], gidMappings: [{containerID: 5000, hostID: 78, size: 10}]},
		{destination: "/i", type: "bind", source: $s, options: ["rbind", "idmap"],
			uidMappings: [{containerID: 5000, hostID: 77, size: 10}], gidMappings: [{containerID: 5000, hostID: 78, size: 10}]}]' \
		--arg s "$PF_DIR/src"
	script 'stat -c "%u %g" /r/file /r/sub/file /i/file /i/sub/file'
	new_id
	status=0
	output=$(unshare -m --propagation private sh -ec 'mount -t tmpfs t "$1"; mkdir "$1/sub"; mount -t tmpfs t "$1/sub"
		touch "$1/file" "$1/sub/file"; chown 5000:5000 "$1/file" "$1/sub/file"; shift; exec "$@"' sh \
		"$PF_DIR/src" "$PINFOLD" --root "$ROOT" run --bundle "$BUNDLE" "$ID" 2>&1) || status=$?
	[[ "$output" != *"id-mapped mount"* ]] || skip "this kernel cannot id-map a tmpfs"
	assert_equal "$(xargs <<<"$output")" "77 78 77 78 77 78 5000 5000"
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

@test "a masked path is found however it is spelled and whatever links lead to it" {
	echo secret >"$BUNDLE/rootfs/etc/group"
	mkdir -p "$BUNDLE/rootfs/copied"
	ln -s /etc "$BUNDLE/rootfs/copied/out"
	edit '.mounts += [{destination: "/copied", type: "tmpfs", source: "t", options: ["ro", "tmpcopyup"]}]
		| .linux.maskedPaths = ["//proc/./keys", "/copied/out/group"] | .linux.readonlyPaths = ["/proc//sys/"]'
	run_bundle 'cat /etc/group; cat /proc/keys; grep -o "/proc/sys ro" /proc/self/mountinfo'
	assert_equal "$output" "/proc/sys ro"
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

@test "symlinks that lead through others, in circles or to files are followed inside or refused by name" {
	mkdir -p "$PF_DIR/outside" "$BUNDLE/rootfs$PF_DIR/outside"
	ln -s two "$BUNDLE/rootfs/one"
	ln -s /three "$BUNDLE/rootfs/two"
	ln -s "../../../../..$PF_DIR/outside" "$BUNDLE/rootfs/three"
	ln -s round "$BUNDLE/rootfs/about"
	ln -s about "$BUNDLE/rootfs/round"
	local kind n=0
	edit '.mounts += [{}]'
	for kind in '{type: "tmpfs", source: "t"}' '{type: "bind", source: "/etc", options: ["rbind"]}' \
		'{type: "bind", source: "/etc/passwd", options: ["bind"]}' '{type: "proc", source: "proc"}' \
		'{type: "mqueue", source: "mqueue"}' '{type: "tmpfs", source: "t", options: ["tmpcopyup"]}'; do
		edit '.mounts[-1] = '"$kind"' + {destination: $d}' --arg d "/one/deep$((n += 1))"
		run_bundle 'grep -c /outside/deep /proc/self/mountinfo'
		assert_equal "$output" 1
		[ "$n" = 1 ] || [ "$n" = 3 ] || continue # a directory and a file
		edit '.mounts[-1].destination = "/round/x"'
		assert_create_refused /round/x
		edit '.mounts[-1].destination = "/etc/passwd/x"'
		assert_create_refused /etc/passwd/x
	done
	assert_equal "$(find "$PF_DIR/outside" -mindepth 1)" ""
	grep -q "$PF_DIR/outside" /proc/self/mountinfo && return 1
	# One that leads nowhere is not made something of.
	rm -rf "$BUNDLE/rootfs$PF_DIR"
	edit '.mounts[-1].destination = "/one/deep"'
	assert_create_refused /one/deep
	edit '.mounts |= map(select(.destination != "/one/deep"))
		| .linux.maskedPaths += ["/one/secret"] | .linux.readonlyPaths += ["/two"]'
	run_bundle 'echo ran'
	assert_equal "$output" ran
	edit '.linux.maskedPaths += ["/round"]'
	assert_create_refused "masked path /round"
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

@test "a /dev/null that becomes another file before the masks are made ends the container's making (CVE-2025-31133)" {
	mkdir "$PF_DIR/volume"
	mknod "$PF_DIR/volume/null" c 1 3
	echo leaked >"$BUNDLE/rootfs/etc/secret"
	echo hidden >"$BUNDLE/rootfs/etc/group"
	# As another container that has the volume could, at the right moment.
	printf '#!/bin/sh\ncat >/dev/null\nmv "%s/null" "%s/was" && ln -s /etc/secret "%s/null"\n' "$PF_DIR/volume"{,,} >"$PF_DIR/hook"
	chmod +x "$PF_DIR/hook"
	edit '.mounts |= map(select(.destination != "/dev")) | .mounts = [{destination: "/dev", type: "bind", source: $v, options: ["rbind"]}] + .mounts
		| .hooks.createRuntime = [{path: $h}] | .linux.maskedPaths = ["/etc/group"]' --arg v "$PF_DIR/volume" --arg h "$PF_DIR/hook"
	script 'cat /etc/group'
	assert_create_refused "/dev/null is not the null device"
	[ -L "$PF_DIR/volume/null" ] || show "the hook did not come to it"
}

@test "a /proc that is a link into a volume keeps its masks when its directory gets another name meanwhile (CVE-2023-27561)" {
	mkdir -p "$PF_DIR/volume/proc"
	ln -s vol/proc "$BUNDLE/rootfs/proc"
	# Another container that has the volume would have to be quick; a hook is at the right moment.
	printf '#!/bin/sh\ncat >/dev/null\nmv "%s/proc" "%s/moved" && mkdir "%s/proc"\n' "$PF_DIR/volume"{,,} >"$PF_DIR/hook"
	chmod +x "$PF_DIR/hook"
	edit '.mounts = [{destination: "/vol", type: "bind", source: $v, options: ["rbind"]}] + .mounts
		| .hooks.createRuntime = [{path: $h}] | .linux.maskedPaths = ["/proc/keys", "/proc/sysvipc"]
		| .linux.readonlyPaths = ["/proc/sys"]' --arg v "$PF_DIR/volume" --arg h "$PF_DIR/hook"
	run_bundle 'cat /vol/moved/keys; ls /vol/moved/sysvipc; grep -o "/vol/moved/sys r[ow]" /vol/moved/self/mountinfo'
	assert_equal "$output" "/vol/moved/sys ro"
}
