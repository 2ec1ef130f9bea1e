# parallel-safe
# Ctrl-C, and SIGTERM from whoever tires of waiting: the program ends at once, and what it had half made goes behind it.

load ../lib/common

setup() {
	need_root
	common_setup
	STORE="$PF_DIR/store"
	mkdir -m 700 "$STORE" "$PF_DIR/upper"
	MEMORY=
}
teardown() {
	common_teardown
	[ -z "$MEMORY" ] || rm -rf "$MEMORY"
}

# As soon as the condition (Python's) holds the signal, and how it ended. A shell's background process would ignore SIGINT.
interrupted() { # SIGNAL CONDITION COMMAND...
	/usr/bin/python3 -c '
import os, signal, subprocess, sys
number, condition = getattr(signal, sys.argv[1]), compile(sys.argv[2], "", "eval")
def holds():
    try:
        return eval(condition)
    except FileNotFoundError:
        return False
p = subprocess.Popen(sys.argv[3:], stdout=subprocess.DEVNULL, preexec_fn=lambda: number == signal.SIGKILL or signal.signal(number, signal.SIG_DFL))
while p.poll() is None and not holds():
    pass
p.send_signal(number)
sys.exit(0 if p.wait() == -number else 1)' "$@"
}

empty() { [ -z "$(ls -A "$1")" ]; }

@test "import, export and prepare that are interrupted leave nothing" {
	local tmp="$STORE/checkpoints/tmp" number
	head -c 40M /dev/urandom >"$PF_DIR/upper/file"
	printf '{"sandbox_id":"s1","name":"own","base_image":{"ref":"host","digest":"x"}}\n' |
		"$BUILD/libexec/pinfold/pinfold-store" --store "$STORE" snapshot-write --upper-fd 9 9<"$PF_DIR/upper" >/dev/null
	pinfold checkpoint export own --to "oci:$PF_DIR/own" >/dev/null
	for number in SIGINT SIGTERM; do
		mkdir "$PF_DIR/out"
		interrupted "$number" "os.listdir('$PF_DIR/out')" \
			"$PINFOLD" --store "$STORE" checkpoint export own --to "oci:$PF_DIR/out/x"
		wait_for 20 empty "$PF_DIR/out"
		rmdir "$PF_DIR/out"
		interrupted "$number" "os.listdir('$tmp')" "$PINFOLD" --store "$STORE" checkpoint prepare own
		wait_for 20 empty "$tmp"
		rm -rf "$PF_DIR/other"
		interrupted "$number" "os.listdir('$PF_DIR/other/checkpoints/tmp')" \
			"$PINFOLD" --store "$PF_DIR/other" checkpoint import "oci:$PF_DIR/own"
		wait_for 20 empty "$PF_DIR/other/checkpoints/tmp"
	done
	pf checkpoint verify --all
	assert_status 0
}

@test "a snapshot that is interrupted, or killed, while the sandbox stands still lets it go on" {
	local number freeze
	# In memory every file is copied in the frozen moment, which is long then.
	MEMORY=$(mktemp -d /dev/shm/pf.XXXXXX)
	STORE="$MEMORY/store"
	mkdir -m 700 "$STORE"
	create_sandbox '{"networking":{"type":"none"}}'
	inside sh -c 'head -c 200M /dev/zero | tr "\0" x >/workspace/file'
	assert_status 0
	freeze=$(find /sys/fs/cgroup -path "*$ID*" -name cgroup.freeze | head -1)
	for number in SIGINT SIGKILL; do
		interrupted "$number" "open('$freeze').read() == '1\\n'" "$PINFOLD" --root "$ROOT" --store "$STORE" snapshot "$ID"
		inside true
		assert_status 0
		[ "$number" = SIGKILL ] || wait_for 20 empty "$STORE/checkpoints/tmp"
	done
}

@test "a cp that is interrupted leaves neither half of the file nor a command, whatever that does with signals" {
	local number
	create_sandbox '{"env":{"PATH":"/opt:/usr/bin:/bin"}}'
	mkdir "$PF_DIR/out"
	printf '#!/bin/sh\ntrap : INT TERM HUP QUIT\nhead -c 9000 /dev/zero\nwhile :; do sleep 1; done\n' >"$PF_DIR/cat"
	pinfold cp "$PF_DIR/cat" "$ID:/opt/cat"
	pinfold exec "$ID" -- chmod 755 /opt/cat
	for number in SIGINT SIGTERM SIGHUP SIGQUIT; do
		interrupted "$number" "any(os.stat('$PF_DIR/out/' + f).st_size == 9000 for f in os.listdir('$PF_DIR/out'))" \
			"$PINFOLD" --root "$ROOT" --store "$STORE" cp "$ID:/etc/hostname" "$PF_DIR/out/x"
		assert_equal "$(ls -A "$PF_DIR/out")" ""
	done
	wait_for 20 no_commands
}

no_commands() { [ "$(pids_of | wc -w)" = 1 ]; }
