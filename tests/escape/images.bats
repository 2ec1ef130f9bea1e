# parallel-safe
# G2: an image whose files are laid out to make whoever prepares its root touch the host's.
load ../lib/common

setup() {
	need_root
	common_setup
	ROOTFS="$PF_DIR/rootfs" VICTIM="$PF_DIR/victim"
	mkdir -p "$ROOTFS/bin" "$ROOTFS/etc" "$VICTIM"
	echo untouched >"$VICTIM/file"
	chmod 711 "$VICTIM"
	[ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || skip "needs a static /bin/busybox"
	cp /bin/busybox "$ROOTFS/bin/busybox"
	for a in sh cat ls id stat mount echo head grep find true; do ln -s busybox "$ROOTFS/bin/$a"; done
	VICTIM_WAS=$(victim)
	HOST_MOUNTS=$(cut -d' ' -f3- /proc/self/mountinfo | sort)
}
teardown() { common_teardown; }

# Everything about the host's directory that must not change.
victim() { (cd "$VICTIM" && find . -printf '%p %m %U %G %y %l %s\n' | sort && cat file); }

# The sandbox is refused with a clear line, or made, and then masks hold; the host is untouched either way.
check() { # [CONFIG]
	new_id
	config "${1:-}"
	pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
	# Every step says itself what failed: what calls this is not ended by set -e.
	if [ "$status" = 0 ]; then
		pf exec "$ID" -- sh -c 'for f in /proc/kcore /proc/keys /proc/timer_list /proc/kallsyms; do [ -f $f ] && head -c 1 $f; done; true'
		if [ "$status" = 0 ]; then assert_equal "$output" "" || return 1; fi
		pf exec "$ID" -- sh -c 'echo 1 >/proc/sysrq-trigger; echo x >/proc/sys/kernel/core_pattern; echo x >/proc/sys/kernel/hostname'
		pf exec "$ID" -- sh -c 'cat '"$VICTIM"'/file'
		assert_equal "$output" "" || return 1
		pinfold destroy "$ID" || return 1
	else
		assert_refused || return 1
	fi
	assert_gone "$ID" || return 1
	assert_equal "$(victim)" "$VICTIM_WAS" || return 1
	assert_equal "$(cut -d' ' -f3- /proc/self/mountinfo | sort)" "$HOST_MOUNTS" || return 1
	assert_equal "$(cat /proc/sys/kernel/core_pattern)" "$PATTERN"
}

# For each mount target a symlink in its place: absolute, climbing, by /proc, to a file.
links() { # TARGET [CONFIG]
	local to
	PATTERN=$(cat /proc/sys/kernel/core_pattern)
	for to in "$VICTIM" "../../../../../../../..$VICTIM" "/proc/self/cwd" "/proc/1/root$VICTIM" "$VICTIM/file" /proc/sys/kernel /sys /dev .. "$(basename "$1")"; do
		rm -rf "${ROOTFS:?}$1"
		mkdir -p "$(dirname "$ROOTFS$1")"
		ln -s "$to" "$ROOTFS$1"
		check "${2:-}" || show "with $1 -> $to" || return 1
		rm -f "$ROOTFS$1"
	done
}

@test "/proc as a symlink" { links /proc; }
@test "/dev as a symlink (CVE-2026-41579, CVE-2026-47766)" { links /dev; }
@test "/sys as a symlink" { links /sys; }
@test "/etc as a symlink" { rmdir "$ROOTFS/etc" && links /etc; }
@test "/tmp as a symlink, with a tmpfs for it" { links /tmp '{"filesystem":{"tmp_size":"4M"}}'; }
@test "/workspace as a symlink" { links /workspace; }
@test "/etc/resolv.conf, hosts and hostname as symlinks" {
	links /etc/resolv.conf
	links /etc/hosts
	links /etc/hostname
}
@test "a writable path as a symlink, and its parent" {
	links /data '{"filesystem":{"access":"read_only","writable_paths":["/data/deep/er"]}}'
	links /data/deep '{"filesystem":{"access":"read_only","writable_paths":["/data/deep/er"]}}'
}
@test "a read-only path as a symlink" { links /data '{"filesystem":{"read_only_paths":["/data"]}}'; }
@test "a mount's target and its parent as symlinks" {
	mkdir "$PF_DIR/src"
	links /mnt "{\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR/src\",\"target\":\"/mnt/a/b\",\"read_only\":false}]}}"
}
@test "/dev/pts, /dev/shm, /dev/null, /dev/ptmx and /dev/console in the image (CVE-2025-31133, CVE-2025-52565)" {
	PATTERN=$(cat /proc/sys/kernel/core_pattern)
	mkdir "$ROOTFS/dev"
	local n
	for n in pts shm mqueue null ptmx console fd stdin; do ln -s /proc/sys/kernel/core_pattern "$ROOTFS/dev/$n"; done
	check
	rm -f "$ROOTFS"/dev/*
	for n in pts shm null ptmx console; do ln -s "$VICTIM" "$ROOTFS/dev/$n"; done
	check
}

@test "masked paths stay masked when the image makes /dev/null something else" {
	PATTERN=$(cat /proc/sys/kernel/core_pattern)
	mkdir "$ROOTFS/dev"
	cp "$VICTIM/file" "$ROOTFS/dev/null"
	check
	new_id
	config
	pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
	assert_status 0
	pf exec "$ID" -- stat -c %t:%T /dev/null
	assert_equal "$output" 1:3
}

@test "a symlink swapped while sandboxes are made never leads out (CVE-2021-30465)" {
	PATTERN=$(cat /proc/sys/kernel/core_pattern)
	mkdir -p "$PF_DIR/shared/in" "$ROOTFS/shared"
	# The racer owns a directory that is mounted, with a target of another mount below it.
	config "{\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR/shared\",\"target\":\"/shared\",\"read_only\":false},{\"source\":\"$PF_DIR/shared\",\"target\":\"/shared/in/x\",\"read_only\":false}]}}"
	(
		while [ ! -e "$PF_DIR/stop" ]; do
			rm -rf "$PF_DIR/shared/in" && ln -s "$VICTIM" "$PF_DIR/shared/in"
			rm -f "$PF_DIR/shared/in" && mkdir -p "$PF_DIR/shared/in/x"
		done
	) 2>/dev/null &
	local racer=$! i
	for i in $(seq 25); do
		new_id
		pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
		pinfold destroy "$ID"
	done
	touch "$PF_DIR/stop"
	wait "$racer" || true
	assert_equal "$(victim)" "$VICTIM_WAS"
	assert_equal "$(cut -d' ' -f3- /proc/self/mountinfo | sort)" "$HOST_MOUNTS"
}

@test "the image directory itself is never written to" {
	mkdir -p "$ROOTFS/workspace" "$ROOTFS/tmp"
	local before
	before=$(cd "$ROOTFS" && find . -printf '%p %m %U %y %l %s %T@\n' | sort)
	new_id
	config
	pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
	assert_status 0
	pf exec "$ID" -- sh -c 'echo x >/etc/x; echo x >/bin/busybox2; echo x >/workspace/x'
	assert_status 0
	pinfold destroy "$ID"
	assert_equal "$(cd "$ROOTFS" && find . -printf '%p %m %U %y %l %s %T@\n' | sort)" "$before"
}

@test "/etc/passwd as a FIFO, a directory, a link out, a device, or huge: --user NAME says so and does not hang" {
	local kind
	for kind in fifo directory link huge loop; do
		rm -rf "$ROOTFS/etc/passwd"
		case $kind in
		fifo) mkfifo "$ROOTFS/etc/passwd" ;;
		directory) mkdir "$ROOTFS/etc/passwd" ;;
		link)
			echo "agent:x:0:0::/:/bin/sh" >"$VICTIM/passwd"
			ln -s "$VICTIM/passwd" "$ROOTFS/etc/passwd"
			;;
		huge) truncate -s 1T "$ROOTFS/etc/passwd" ;;
		loop) ln -s passwd "$ROOTFS/etc/passwd" ;;
		esac
		new_id
		config
		pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
		assert_status 0
		run --separate-stderr timeout 20 "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" --user agent -- id -u
		assert_status 125
		[ -n "$stderr" ]
		assert_err passwd
		run --separate-stderr timeout 20 "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" --user 1000 -- id -u
		[ "$status" = 125 ] || assert_equal "$output" 1000
		pinfold destroy "$ID"
	done
}

@test "/etc/group as a FIFO or huge does not hang either" {
	echo "agent:x:1000:1000::/:/bin/sh" >"$ROOTFS/etc/passwd"
	mkfifo "$ROOTFS/etc/group"
	new_id
	config
	pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
	assert_status 0
	run --separate-stderr timeout 20 "$PINFOLD" --root "$ROOT" --store "$STORE" exec "$ID" --user agent -- id -u
	assert_status 125
	assert_err group
}

@test "a passwd that maps names to ids out of range, or to no number, gives nobody root" {
	printf 'a:x::0::/:\nb:x:-1:0::/:\nc:x:4294967296:0::/:/\nd:x:0x0:0::/:/\ne:x: 0:0::/:/\nf:x:70000:1::/:/\n' >"$ROOTFS/etc/passwd"
	new_id
	config
	pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
	assert_status 0
	local u
	for u in a b c d e f; do
		pf exec "$ID" --user "$u" -- id -u
		assert_refused
	done
}

@test "no program of the image ever runs outside: not its mount, its sh, its nft, nor a loader" {
	mkdir -p "$ROOTFS/sbin" "$ROOTFS/usr/bin" "$ROOTFS/lib64"
	local p
	for p in sbin/mke2fs sbin/nft usr/bin/newuidmap bin/mount sbin/modprobe sbin/ip; do
		rm -f "$ROOTFS/$p"
		printf '#!/bin/sh\ntouch %s/ran\n' "$VICTIM" >"$ROOTFS/$p"
		chmod 755 "$ROOTFS/$p"
	done
	new_id
	config '{"filesystem":{"size":"16M"},"env":{"PATH":"/evil","LD_PRELOAD":"/evil.so"}}'
	pf create "$ID" --config "$CONFIG" --image "$ROOTFS"
	assert_status 0
	pinfold exec "$ID" -- /bin/true
	pinfold destroy "$ID"
	assert_equal "$(victim)" "$VICTIM_WAS"
}
