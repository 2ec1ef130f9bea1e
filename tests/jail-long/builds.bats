# What takes minutes: Pinfold built inside a jail, by an ordinary user, and tested there as far as no root is needed.
# timeout: 1200
load ../jail/lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() {
	jail_setup
	AS=user
}
teardown() { jail_teardown; }

@test "Pinfold builds in pinfold-jail --rw ., without the network, and what it built works there" {
	need gcc make git
	git -C "$TESTS_DIR/.." archive HEAD | tar -C "$(tree)" -xf -
	chown -R "$JAIL_UID:$JAIL_UID" "$(tree)"
	pj --profile build -- make -s -j2 all build/tests/unit/test_base_text build/tests/unit/test_policy
	assert_status 0
	assert_equal "$(find "$(tree)" ! -user "$JAIL_UID" -print -quit)" ""
	inside 'build/bin/pinfold --version && build/tests/unit/test_base_text && build/tests/unit/test_policy'
	# Read-only, the same tree has nothing left to make, and could not.
	pj -- make -s -q all
	assert_status 0
	pj -- make -s clean
	[ "$status" != 0 ]
	[ -x "$(tree)/build/bin/pinfold-jail" ]
	# A jail out of a jail's hands is one like any other.
	"$(tree)/build/bin/pinfold-jail" -- true
}
