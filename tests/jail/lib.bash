# Helpers for the tests of pinfold-jail and pinfold-bwrap. A file begins with
#
#   load lib
#   setup_file() { jail_file; }
#   teardown_file() { jail_file_end; }
#   setup() { jail_setup; }
#   teardown() { jail_teardown; }
#
# and runs everything as root and as an ordinary user who has nothing: an id that is nobody's, no groups, no
# environment, a home of his own below the test's directory, the programs where he can execute them.
# jail_teardown fails the test when anything of it is left: a process, a mount, a cgroup, a file.
# shellcheck shell=bash

load ../lib/common

jail_file() {
	local free=$((40000 + (BASHPID * 7 + RANDOM) % 20000))
	while getent passwd "$free" >/dev/null; do free=$((free + 1)); done
	export JAIL_UID=$free
	local prefix
	prefix=$(mktemp -d "${TMPDIR:-/tmp}/pfj.XXXXXX")
	export JAIL_BIN=$prefix/bin
	mkdir -p "$JAIL_BIN" "$prefix/share/pinfold"
	cp -r "$TESTS_DIR/../jail/profiles" "$prefix/share/pinfold"
	chmod -R a+rX "$prefix"
	cp "$BUILD/bin/pinfold-jail" "$BUILD/bin/pinfold-bwrap" "$JAIL_BIN"
}

jail_file_end() {
	local prefix=${JAIL_BIN:?}
	rm -rf "${prefix%/bin}"
}

jail_setup() {
	need_root
	PF_DIR=$(mktemp -d "${TMPDIR:-/tmp}/pf.XXXXXX")
	chmod 711 "$PF_DIR"
	AS=root
	mkdir -p "$PF_DIR"/{user,root}/{tree,.ssh}
	for who in user root; do echo "key-of-$who" >"$PF_DIR/$who/.ssh/id"; done
	mkdir -m 1777 "$PF_DIR/shared"
	chown -R "$JAIL_UID:$JAIL_UID" "$PF_DIR/user"
	find /sys/fs/cgroup -type d -path '*pinfold/jail-*' 2>/dev/null | sort >"$PF_DIR/cgroups"
}

jail_teardown() {
	local left
	[ -n "${PF_DIR:-}" ] || return 0
	[ -n "${BATS_TEST_COMPLETED:-}" ] || echo "as $AS" >&2
	left=$(
		wait_for 5 no_processes || ps -o pid,args -u "$JAIL_UID"
		grep -F -- "$PF_DIR" /proc/self/mountinfo
		find /tmp /var/tmp /dev/shm -maxdepth 1 -user "$JAIL_UID" 2>/dev/null
	) || true
	as_owner_remove
	[ -z "$left" ] || show "left:" "$left"
}

no_processes() { [ -z "$(pgrep -u "$JAIL_UID")" ]; }
as_owner_remove() { rm -rf "$PF_DIR"; }

# ---- running -------------------------------------------------------------------------------------------------

# The home and the working directory of who is at it.
home() { echo "$PF_DIR/$AS"; }
tree() { echo "$PF_DIR/$AS/tree"; }

# A command as $AS, in the tree, with nothing but what an account has. AT: what to begin it with as root.
as() {
	local who=()
	[ "$AS" = root ] || who=(setpriv --reuid "$JAIL_UID" --regid "$JAIL_UID" --clear-groups --)
	cd "${IN:-$(tree)}" || return
	exec "${AT[@]}" "${who[@]}" env -i HOME="$(home)" PATH=/usr/bin:/bin TERM=xterm \
		${PINFOLD_TEST_RUN:+"PINFOLD_TEST_RUN=$PINFOLD_TEST_RUN"} "${WITH[@]}" "$@" 3>&-
}

jail() { (as "$JAIL_BIN/pinfold-jail" "$@"); }

# As jail, and sets status, output (stdout alone) and stderr. Never fails by itself.
pj() {
	status=0
	output=$(jail "$@" 2>"$PF_DIR/stderr") || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

# A shell script inside; what it prints is in output, and it must have succeeded.
inside() { # SCRIPT [OPTION...]
	local script=$1
	shift
	pj "$@" -- sh -c "$script"
	assert_status 0
}

# Sets pid to pinfold-jail itself, in the background. Its output is in $PF_DIR/out.
start_jail() {
	: >"$PF_DIR/out"
	(as "$JAIL_BIN/pinfold-jail" "$@") >"$PF_DIR/out" 2>"$PF_DIR/stderr" </dev/null 3>&- &
	pid=$!
}

# The function once as an ordinary user and once as root.
each() {
	local f=$1
	for AS in user root; do
		"$f"
	done
}

has() { # FILE TEXT
	grep -qF -- "$2" "$1" 2>/dev/null
}
