# Many callers at once: on one id, on many, on one sandbox.
load ../lib/common

setup() {
	need_root
	common_setup
}
teardown() { common_teardown; }

machine() { # What sandboxes are made of, counted on the whole machine
	find /sys/fs/cgroup -type d -path '*/pinfold/*' | sort
	cut -d' ' -f3- /proc/self/mountinfo | sort
	losetup -ln -O NAME 2>/dev/null | sort
	find /run/pinfold/.ids -lname "$ROOT/*" 2>/dev/null | wc -l
}

@test "of creates that race for one id exactly one wins, and the winner is whole" {
	local round i pids won
	config
	for round in 1 2 3; do
		new_id
		pids=() won=0
		for i in 1 2 3 4 5 6; do
			pinfold create "$ID" --config "$CONFIG" >"$PF_DIR/out.$i" 2>"$PF_DIR/err.$i" &
			pids+=($!)
		done
		i=0
		for pid in "${pids[@]}"; do
			i=$((i + 1))
			status=0
			wait "$pid" || status=$?
			if [ "$status" = 0 ]; then
				won=$((won + 1))
			else
				assert_status 125
				grep -q exists "$PF_DIR/err.$i"
			fi
		done
		assert_equal "$won" 1
		inside echo whole
		assert_equal "$output" whole
		pinfold destroy "$ID"
		assert_gone "$ID"
	done
}

@test "creates with --reuse that race for one id all get the same sandbox" {
	local i pids=()
	config
	new_id
	for i in 1 2 3 4 5; do
		pinfold create "$ID" --config "$CONFIG" --reuse >"$PF_DIR/out.$i" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
	assert_equal "$(jq -r .pid "$PF_DIR"/out.* | sort -u | wc -l)" 1
}

@test "create and destroy that race leave a whole sandbox or none" {
	local i
	config
	new_id
	for i in $(seq 8); do
		pinfold create "$ID" --config "$CONFIG" >/dev/null 2>&1 &
		pinfold destroy "$ID" >/dev/null 2>&1 &
		wait
	done
	if [ -e "$ROOT/$ID" ]; then
		inside echo whole
		assert_equal "$output" whole
	fi
	pf destroy "$ID"
	assert_status 0
	assert_gone "$ID"
}

@test "pause, resume, exec and destroy that race never wedge" {
	local i
	create_sandbox
	for i in $(seq 6); do
		pinfold pause "$ID" >/dev/null 2>&1 &
		pinfold exec "$ID" -- true >/dev/null 2>&1 &
		pinfold resume "$ID" >/dev/null 2>&1 &
	done
	sleep 0.3
	# Some exec may sit in a paused sandbox: destroy takes that, too.
	run timeout 30 "$PINFOLD" --root "$ROOT" --store "$STORE" destroy "$ID"
	assert_status 0
	wait
	assert_gone "$ID"
}

@test "20 sandboxes at once, created, used and destroyed: all differ, nothing is left" {
	local before i pids=()
	before=$(machine)
	one() { # N
		local id="t$$-$BATS_TEST_NUMBER-many-$1"
		echo "$id" >>"$PF_DIR/ids"
		pinfold create "$id" --config "$CONFIG" >"$PF_DIR/state.$1" &&
			[ "$(pinfold exec "$id" -- sh -c "echo $1 >/workspace/n; cat /workspace/n; hostname")" = "$1"$'\n'"$id" ] &&
			pinfold destroy "$id"
	}
	config '{"resources":{"memory":"64M","pids":20},"filesystem":{"size":"16M"}}'
	for i in $(seq 20); do
		one "$i" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
	assert_equal "$(jq -r .pinfold.id_base "$PF_DIR"/state.* | sort -u | wc -l)" 20
	wait_for 15 eval '[ -z "$(ls -A "$STORE/trash")" ]'
	assert_equal "$(machine)" "$before"
	assert_equal "$(find "$ROOT" "$STORE/sandboxes" -name "*-many-*")" ""
}

@test "gc beside creates and destroys takes nothing that lives" {
	local i
	config
	create_sandbox
	for i in $(seq 5); do
		pinfold gc --stopped >/dev/null 2>&1 &
		(
			id="t$$-$BATS_TEST_NUMBER-gc-$i"
			pinfold create "$id" --config "$CONFIG" >/dev/null && pinfold exec "$id" -- true && pinfold destroy "$id" && touch "$PF_DIR/ok.$i"
		) &
	done
	wait
	assert_equal "$(ls "$PF_DIR"/ok.* | wc -l)" 5
	inside echo alive
	assert_equal "$output" alive
}

@test "a slow destroy of one does not keep others waiting for their ids" {
	create_sandbox
	local first=$ID
	# Somebody holds its lock: nothing of Pinfold's may inherit the descriptor.
	flock "$ROOT/.locks/$first" sleep 2 &
	sleep 0.2
	pinfold destroy "$first" &
	local waiting=$!
	create_sandbox
	inside echo quick
	assert_equal "$output" quick
	kill -0 "$waiting"
	wait "$waiting"
	assert_gone "$first"
}
