# parallel-safe
# What is writable, what is not, and the sandbox files of other platforms, taken as they are.
load ../lib/common

setup() {
	need_root
	common_setup
	EXAMPLES="$TESTS_DIR/data/sandbox-examples"
}
teardown() { common_teardown; }

create_from() { # FILE [CREATE-OPTION...]
	new_id
	local file=$1
	shift
	pf create "$ID" --config "$file" "$@"
	assert_status 0
}

writable() { # PATH...
	local p
	for p; do
		inside sh -c "echo x >$p/pf-probe && rm $p/pf-probe"
		[ "$status" = 0 ] || show "$p is not writable" || return 1
	done
}

read_only() { # PATH...
	local p
	for p; do
		inside sh -c "echo x >$p/pf-probe"
		[ "$status" != 0 ] || show "$p is writable" || return 1
		assert_err "Read-only file system" || return 1
	done
}

limit_of() { # V2-NAME V1-NAME
	find /sys/fs/cgroup \( -path "*/pinfold/*$ID/$1" -o -path "*/pinfold/*$ID/$2" \) -exec cat {} + | head -1
}

@test "example enterprise.json: one cpu, half a gigabyte, five minutes a command, /tmp alone writable" {
	create_from "$EXAMPLES/enterprise.json" --image host
	assert_equal "$(limit_of memory.max memory.limit_in_bytes)" $((512 << 20))
	case "$(limit_of cpu.max cpu.cfs_quota_us)" in
	"100000 100000" | 100000) ;;
	*) show "cpu limit $(limit_of cpu.max cpu.cfs_quota_us)" ;;
	esac
	writable /tmp
	read_only / /etc /workspace /root /home /usr /var /opt
	inside pwd
	assert_equal "$output" /tmp
	pf policy "$ID" show
	assert_out api.enterprise-internal.com
	assert_out storage.enterprise-cloud.net
}

@test "example sdk.json: 2 GiB of memory, /workspace and /tmp writable, /config not, 512 MiB in all" {
	create_from "$EXAMPLES/sdk.json"
	assert_equal "$(limit_of memory.max memory.limit_in_bytes)" $((2048 << 20))
	writable /workspace /tmp
	read_only / /config /etc /usr /var /root
	inside df --output=size -B1M /workspace
	[ "$(tail -1 <<<"$output" | tr -d ' ')" -ge 500 ]
	[ "$(tail -1 <<<"$output" | tr -d ' ')" -le 540 ]
	pf policy "$ID" show
	assert_out api.internal.example.com
}

@test "example environment.json: named hosts, writable root, packages are warned of" {
	create_from "$EXAMPLES/environment.json"
	assert_err packages
	assert_json '.pinfold.warnings | length > 0'
	writable / /workspace /tmp /etc /var
	pf policy "$ID" show
	assert_out api.example.com
	assert_out '*.storage.example.com'
}

@test "example credentials.json: taken, and no secret of it is inside" {
	create_from "$EXAMPLES/credentials.json"
	inside sh -c 'env; grep -rl crm_api_key /etc /workspace /tmp /run 2>/dev/null'
	refute_out crm_api_key
}

@test "without a rule the whole root is writable, and nothing of it reaches the host" {
	create_sandbox
	writable / /etc /root /home /opt /var /workspace /tmp /srv
	local mark="pf-mark-$$-$RANDOM"
	inside sh -c "touch /$mark /etc/$mark /tmp/$mark /var/$mark /root/$mark"
	assert_status 0
	for p in / /etc /tmp /var /root; do [ ! -e "$p/$mark" ]; done
	# The host's own programs are below it, not in it.
	inside sh -c 'echo x >>/usr/bin/env'
	[ "$status" != 0 ]
}

@test "read-only means all of it: root inside, other users, truncation, metadata, new names" {
	create_sandbox '{"filesystem":{"access":"read_only","writable_paths":["/data"]}}'
	writable /data
	read_only / /etc /workspace /tmp /var /root /usr
	local c
	for c in 'chmod 777 /etc' 'touch /etc/passwd' 'mv /etc/passwd /etc/p2' 'rm /etc/passwd' 'ln /etc/passwd /etc/p3' \
		'mkdir /x' 'ln -s /data /y' ': >/etc/hosts' ': >/etc/resolv.conf' ': >/etc/hostname' 'chown 1 /etc/hosts'; do
		inside sh -c "$c"
		[ "$status" != 0 ] || show "'$c' worked"
	done
	# No remount either, and no other view of it.
	inside mount -o remount,rw /
	[ "$status" != 0 ]
	inside sh -c 'for r in /proc/1/root /proc/self/root; do touch $r/etc/z && echo $r; done'
	assert_equal "$output" ""
}

@test "every writable mount of a read-only sandbox is one that was asked for, or memory" {
	create_sandbox '{"filesystem":{"access":"read_only","writable_paths":["/data"]}}'
	inside awk '$6 ~ /^rw/ { print $5 }' /proc/self/mountinfo
	assert_equal "$(sort <<<"$output" | xargs)" "/data /dev /dev/mqueue /dev/pts /dev/shm /proc"
}

@test "the deepest rule decides: a writable path in a read-only one in a writable one" {
	create_sandbox '{"filesystem":{"access":"full","read_only_paths":["/opt"],"writable_paths":["/opt/data"]}}'
	writable / /opt/data
	read_only /opt
	create_sandbox '{"filesystem":{"access":"read_only","writable_paths":["/w"],"read_only_paths":["/w/r"]}}'
	writable /w
	read_only /w/r /
}

@test "a path that cannot be made writable is refused by name, not left read-only" {
	new_id
	config '{"filesystem":{"access":"read_only","writable_paths":["/usr/local/share"]}}'
	pf create "$ID" --config "$CONFIG"
	assert_refused /usr/local/share
	assert_gone "$ID"
	# Nor may an image's symlink make something else writable.
	mkdir -p "$PF_DIR/rootfs/etc" "$PF_DIR/rootfs/bin"
	ln -s /sys "$PF_DIR/rootfs/data"
	config '{"filesystem":{"access":"read_only","writable_paths":["/data"]}}'
	pf create "$ID" --config "$CONFIG" --image "$PF_DIR/rootfs"
	assert_refused /data
	assert_gone "$ID"
}

@test "a rule for a directory leaves what the sandbox has put into it" {
	create_sandbox '{"filesystem":{"read_only_paths":["/etc","/usr"]}}'
	inside sh -c 'cat /etc/resolv.conf && ls /usr/bin/env'
	assert_status 0
	assert_out nameserver
	read_only /etc /usr
}

@test "what is written to writable paths is the workspace's: it counts, and it comes back" {
	create_sandbox '{"filesystem":{"size":"16M","writable_paths":["/data"]}}'
	inside sh -c 'head -c 64000000 /dev/zero >/data/x'
	assert_err "No space left"
	inside sh -c 'echo kept >/data/x'
	kill -9 "$(state_of .pid)"
	wait_for 10 eval '[ "$(state_of .status)" = stopped ]'
	pf create "$ID" --reuse
	assert_status 0
	inside cat /data/x
	assert_equal "$output" kept
}

@test "temp_only: what was written is gone with the sandbox" {
	create_sandbox '{"filesystem_access":"temp_only"}'
	inside sh -c 'echo x >/tmp/x; stat -f -c %T /tmp; stat -c %a /tmp'
	assert_equal "$output" $'tmpfs\n1777'
	kill -9 "$(state_of .pid)"
	wait_for 10 eval '[ "$(state_of .status)" = stopped ]'
	pf create "$ID" --reuse
	assert_status 0
	inside ls -A /tmp
	assert_equal "$output" ""
}

@test "mounts: read-only unless the file says otherwise, ids mapped, files as well as directories" {
	mkdir "$PF_DIR/ro" "$PF_DIR/rw"
	echo given >"$PF_DIR/ro/file"
	echo single >"$PF_DIR/one"
	create_sandbox "{\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR/ro\",\"target\":\"/src\"},{\"source\":\"$PF_DIR/rw\",\"target\":\"/out\",\"read_only\":false},{\"source\":\"$PF_DIR/one\",\"target\":\"/etc/one\"}]}}"
	inside cat /src/file /etc/one
	assert_equal "$output" $'given\nsingle'
	read_only /src
	inside sh -c 'echo made >/out/file && stat -c %u /out/file'
	assert_equal "$output" 0
	# On the host it is root's, not an id of the sandbox's range.
	assert_equal "$(stat -c %u "$PF_DIR/rw/file")" 0
	inside sh -c 'echo x >/etc/one'
	[ "$status" != 0 ]
	# No device, and no set-user-id program, is of use there.
	inside sh -c 'grep -E " /(src|out) " /proc/self/mountinfo | grep -v nodev'
	assert_equal "$output" ""
}

@test "mounts: what the sandbox's root writes is the directory's owner's outside, and nobody can be the machine's root" {
	mkdir "$PF_DIR/rw" "$PF_DIR/agents"
	echo theirs >"$PF_DIR/rw/file"
	chown -R 4321:4322 "$PF_DIR/rw"
	chown 1000:1000 "$PF_DIR/agents"
	create_sandbox "{\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR/rw\",\"target\":\"/out\",\"read_only\":false}]}}"
	inside sh -c 'stat -c %u:%g /out/file && echo made >/out/new && cp /bin/true /out/suid && chmod u+s /out/suid'
	assert_status 0
	assert_equal "$output" 0:0
	assert_equal "$(stat -c %u:%g "$PF_DIR/rw/new" "$PF_DIR/rw/suid" | sort -u)" 4321:4322
	# Other ids keep their numbers; the owner's number means nobody inside.
	inside sh -c 'touch /out/b && chown 7:8 /out/b && ! chown 4321 /out/b'
	assert_status 0
	assert_equal "$(stat -c %u:%g "$PF_DIR/rw/b")" 7:8

	create_sandbox "{\"user\":\"agent\",\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR/agents\",\"target\":\"/out\",\"read_only\":false}]}}"
	inside sh -c 'echo made >/out/new && stat -c %U /out/new'
	assert_equal "$output" agent
	assert_equal "$(stat -c %u "$PF_DIR/agents/new")" 1000
	pf exec --user 0 "$ID" -- sh -c 'cp /bin/true /out/suid'
	[ "$status" != 0 ] || show "root inside made a file of root outside"
	[ -z "$(find "$PF_DIR/agents" "$PF_DIR/rw" -uid 0)" ]
}

@test "mounts: a writable directory of root's is told" {
	new_id
	mkdir "$PF_DIR/rw"
	echo "{\"filesystem\":{\"mounts\":[{\"source\":\"$PF_DIR/rw\",\"target\":\"/out\",\"read_only\":false}]}}" >"$PF_DIR/c.json"
	pf create "$ID" --config "$PF_DIR/c.json"
	assert_status 0
	assert_json '.pinfold.warnings | map(select(contains("/rw is writable and root"))) | length == 1'
}

@test "users and files: an ordinary user writes where it may and nowhere else" {
	create_sandbox '{"user":"agent"}'
	inside sh -c 'id -un; echo x >/workspace/x && stat -c %U /workspace/x'
	assert_equal "$output" $'agent\nagent'
	inside sh -c 'echo x >/etc/x'
	[ "$status" != 0 ]
	assert_err "Permission denied"
}

@test "rename, hard link, xattr and sparse files work in the workspace as on any disk" {
	create_sandbox
	inside sh -c 'cd /workspace && mkdir a && mv a b && echo x >f && ln f g && mv f b/ && [ "$(stat -c %h b/f)" = 2 ] && truncate -s 1G s && [ "$(stat -c %b s)" -lt 100 ] && mkfifo p && ln -s nowhere l && rm -rf b p l'
	assert_status 0
	# Directories and files of the image can be renamed and removed as well: overlay's copy-up.
	inside sh -c 'mv /etc/skel /etc/skel2 && rm /etc/debian_version && [ -d /etc/skel2 ] && [ ! -e /etc/debian_version ]'
	assert_status 0
}

@test "cp: a file goes in and out as it is, whole or not at all" {
	create_sandbox
	head -c 3000000 /dev/urandom >"$PF_DIR/in put"
	chmod 750 "$PF_DIR/in put"
	pf cp "$PF_DIR/in put" "$ID:/workspace"
	assert_status 0
	inside stat -c '%a %s' "/workspace/in put"
	assert_equal "$output" "750 3000000"
	mkdir "$PF_DIR/out"
	pf cp "$ID:in put" "$PF_DIR/out"
	assert_status 0
	cmp "$PF_DIR/in put" "$PF_DIR/out/in put"
	pf cp "$PF_DIR/in put" "$ID:-dash"
	assert_status 0
	pf cp "$ID:-dash" "$PF_DIR/out/other"
	cmp "$PF_DIR/in put" "$PF_DIR/out/other"
	# A link inside leads to what the inside has there.
	inside ln -s /etc/hostname /workspace/link
	pf cp "$ID:/workspace/link" "$PF_DIR/out/other"
	assert_equal "$(<"$PF_DIR/out/other")" "$(pinfold exec "$ID" -- cat /etc/hostname)"
	# What could not be copied leaves what was there.
	pf cp "$ID:/not/there" "$PF_DIR/out/other"
	assert_status 125
	assert_err "$ID:/not/there was not read"
	[ -s "$PF_DIR/out/other" ]
	# Nor is a pipe, a device or a link on the host made a file of, nor written through.
	mkfifo "$PF_DIR/out/fifo"
	ln -s other "$PF_DIR/out/link"
	for to in fifo link; do
		pf cp "$ID:/etc/hostname" "$PF_DIR/out/$to"
		assert_refused "$PF_DIR/out/$to is " "pinfold exec $ID -- cat /etc/hostname"
	done
	[ -p "$PF_DIR/out/fifo" ] && [ -L "$PF_DIR/out/link" ] && rm "$PF_DIR/out/fifo" "$PF_DIR/out/link"
	assert_equal "$(<"$PF_DIR/out/other")" "$(pinfold exec "$ID" -- cat /etc/hostname)"
	pf cp "$PF_DIR/in put" "$ID:/no/such/place"
	assert_status 125
	assert_err 'was not written'
	pf cp "$PF_DIR/out" "$ID:/workspace"
	assert_refused "directories go through tar"
	pf cp "$PF_DIR/in put" "$PF_DIR/out"
	assert_status 125
	assert_err 'one of both is ID:PATH'
	pf cp "nobody-$ID:/x" "$PF_DIR/out"
	assert_status 125
	assert_err "no sandbox 'nobody-$ID'"
	assert_equal "$(ls "$PF_DIR/out" | sort | xargs)" "in put other"
	inside sh -c 'ls -A /workspace | sort | xargs'
	assert_equal "$output" "-dash in put link"
}

@test "cp: a hostile sandbox writes nothing but its bytes, and reads nothing but the file's, when the copy is done" {
	create_sandbox '{"env":{"PATH":"/opt:/usr/bin:/bin"}}'
	# Its cat keeps what it was given, and goes on with it when told to.
	cat >"$PF_DIR/keep" <<"SH"
#!/bin/sh
exec 3<&0
{
	until [ -e /workspace/go ]; do sleep 0.1; done
	echo evil >&1
	: >/proc/self/fd/1
	/bin/cat <&3 >/workspace/seen
	echo evil >/proc/self/fd/3
	touch /workspace/gone
} 2>/dev/null &
exec /bin/cat "$@" 3<&-
SH
	pinfold exec "$ID" -- sh -c '/bin/cat >/opt/cat && chmod 755 /opt/cat' <"$PF_DIR/keep"
	inside sh -c 'echo good >/workspace/file'
	pf cp "$ID:/workspace/file" "$PF_DIR/out"
	assert_status 0
	assert_equal "$(<"$PF_DIR/out")" good
	echo first >"$PF_DIR/in"
	chmod 666 "$PF_DIR/in"
	pf cp "$PF_DIR/in" "$ID:/workspace/copy"
	assert_status 0
	echo second >>"$PF_DIR/in"
	inside touch /workspace/go
	wait_for 20 pinfold exec "$ID" -- test -e /workspace/gone
	assert_equal "$(<"$PF_DIR/out")" good
	assert_equal "$(<"$PF_DIR/in")" $'first\nsecond'
	inside grep -c second /workspace/seen
	assert_equal "$output" 0
}
