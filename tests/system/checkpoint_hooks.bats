# parallel-safe
# checkpoint.pre and checkpoint.post: commands inside of the sandbox, around the freeze.

load ../lib/common

setup() {
	need_root
	need jq
	common_setup
}
teardown() { common_teardown; }

@test "pre's writes are in the checkpoint, post's are not, and neither counts as frozen" {
	create_sandbox '{"checkpoint":{"pre":["sh","-c","sleep 0.3; echo flushed >/workspace/pre"],"post":["sh","-c","echo on >/workspace/post"]}}'
	pf snapshot "$ID"
	assert_status 0
	assert_json '.frozen_ms < 250 and (has("post_error") | not)'
	inside cat /workspace/post
	assert_out on
	pf diff "$ID"
	assert_out /workspace/post
	local made
	made=$(pinfold checkpoint ls --sandbox "$ID" --quiet)
	pf diff "$made" --name-only
	assert_out /workspace/pre
	refute_out /workspace/post
}

@test "a pre that fails means no checkpoint, an error that has its words, and no post" {
	create_sandbox '{"checkpoint":{"pre":["sh","-c","echo cannot flush >&2; exit 7"],"post":["touch","/workspace/post"]}}'
	pf snapshot "$ID"
	assert_refused checkpoint.pre "exit code 7" "cannot flush"
	assert_equal "$(pinfold checkpoint ls --sandbox "$ID" --json)" '[]'
	inside ls /workspace/post
	[ "$status" != 0 ]
	inside echo goes on
	assert_out "goes on"
}

@test "a pre that is not there is an error that says so" {
	create_sandbox '{"checkpoint":{"pre":["/no/such/program"]}}'
	pf snapshot "$ID"
	assert_refused checkpoint.pre /no/such/program
}

@test "a post that fails is told beside the checkpoint that was made" {
	create_sandbox '{"checkpoint":{"post":["false"]}}'
	pf snapshot "$ID"
	assert_status 0
	assert_json '.post_error | contains("checkpoint.post")'
}

@test "on a paused sandbox, where nothing could run, no command is run" {
	create_sandbox '{"checkpoint":{"pre":["false"]}}'
	pinfold pause "$ID"
	pf snapshot "$ID"
	assert_status 0
}

@test "commands of automatic checkpoints do not keep a sandbox from being idle" {
	create_sandbox '{"limits":{"idle":"3s"},"checkpoint":{"every":"1s","pre":["true"]}}'
	idle() { [ "$(state_of .status)" = stopped ]; }
	wait_for 15 idle
	assert_equal "$(state_of .pinfold.stop_reason)" idle
}
