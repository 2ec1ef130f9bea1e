# docs/jail.md: each of its ten recipes, word for word, as a user and as root; that its tables and the manual page know every
# option. What a recipe runs that is not at hand everywhere (npm, git over the network, a PDF parser) is a stand-in here
# that tries what the recipe forbids; the real ones are in builds.bats.
load ../egress/lib
load lib
setup_file() {
	jail_file
	world_begin
}
teardown_file() {
	world_end
	jail_file_end
}
setup() {
	jail_setup
	DOC=$BATS_TEST_DIRNAME/../../docs/jail.md
	for AS in user root; do
		mkdir -p "$(tree)/bin"
		WITH=("PATH=$(tree)/bin:$JAIL_BIN:/usr/bin:/bin")
	done
	stand_in npm registry.example.com node_modules
	stand_in git git.example.com src/x
	printf '#!/bin/sh\ncat "$1" >"$2"; ! touch "$1" 2>/dev/null\n' | give bin/pdftotext
}
teardown() {
	[ -z "${DATA:-}" ] || rm -rf "$DATA"
	jail_teardown
}

# A file in both trees, executable, from standard input.
give() { # NAME
	local text who
	text=$(cat)
	for who in user root; do
		mkdir -p "$(dirname "$PF_DIR/$who/tree/$1")"
		printf '%s\n' "$text" >"$PF_DIR/$who/tree/$1"
		chmod 755 "$PF_DIR/$who/tree/$1"
	done
	chown -R "$JAIL_UID:$JAIL_UID" "$PF_DIR/user/tree"
}

# A program that reaches one host and no other, and writes one place and no other.
stand_in() { # NAME HOST PLACE
	give "bin/$1" <<-END
		#!/usr/bin/python3
		import os, socket
		def reaches(host, port):
		    try: return bool(socket.create_connection((host, port), 10))
		    except OSError: return False
		print("asked", reaches("$2", 443), reaches("a.cdn.test", 443), reaches("9.9.9.10", 443))
		os.makedirs("$3")
		open("$3/there", "w").close()
		try: os.mkdir("/usr/share/x")
		except OSError: print("kept")
	END
}

# Runs recipe N word for word; sets status, output and stderr.
recipe() { # N
	local text
	text=$(awk -v n="$1" '/^## /{in_recipes = /Ten recipes/} !in_recipes || !/^    /{next}
		/^    # /{on = $2 == n; next} on{sub(/^ +/, ""); print}' "$DOC")
	[ -n "$text" ] || show "no recipe $1"
	WITH=("PATH=$(tree)/bin:$JAIL_BIN:/usr/bin:/bin")
	status=0
	output=$(as sh -ec "$text" 2>"$PF_DIR/stderr") || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

# The host's network and names: one server answers as every name that a recipe has.
in_world() {
	[ -z "${WORLD_LACKS:-}" ] || skip "$WORLD_LACKS"
	echo "9.9.9.10 registry.example.com git.example.com" >"$PF_DIR/shared/hosts"
	chmod 644 "$PF_DIR/shared/hosts"
	AT=(nsenter "--net=/proc/$WORLD_PID/ns/net" -- unshare -m sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$PF_DIR/shared/hosts")
}

build() {
	give Makefile <<<'all: a b ; @echo built >prog; ! touch /usr/prog 2>/dev/null
a b: ; @echo $@ >$@'
	recipe 1
	assert_status 0
	assert_equal "$(cat "$(tree)"/{a,b,prog} | xargs)" "a b built"
	give configure <<<'#!/bin/sh
echo checking; echo log >config.log; rm Makefile'
	recipe 2
	assert_status 0
	assert_equal "$output" "checking
D $(tree)/Makefile
A $(tree)/config.log"
	[ -e "$(tree)/Makefile" ]
	[ ! -e "$(tree)/config.log" ]
	give gen.sh <<<'#!/bin/sh
mkdir -p gen && echo made >gen/file'
	recipe 3
	assert_status 0
	assert_out "A $(tree)/gen/file"
	assert_equal "$(<"$(tree)/gen/file")" made
}
@test "recipes 1 to 3: a build, a configure script, a code generator" {
	need make
	each build
}

network() {
	recipe 4
	assert_status 0
	assert_equal "$output" $'asked True False False\nkept'
	[ -e "$(tree)/node_modules/there" ]
	recipe 7
	assert_status 0
	assert_equal "$output" $'asked True False False\nkept'
	[ -e "$(tree)/src/x/there" ]
}
@test "recipes 4 and 7: one registry, one host to clone from, and no other" {
	in_world
	each network
}

bounded() {
	give snippet.py <<<'import os, sys
print(sum(range(10)))
try:
    for i in range(200): os.fork() or os._exit(0)
    print("forks")
except OSError: print("bounded")'
	recipe 5
	assert_status 0
	assert_json '.exit_code == 0 and .stdout == "45\nbounded\n" and .limit == null'
	give in.pdf <<<"a document"
	mkdir -p "$(tree)/out"
	chown "$(stat -c %u:%g "$(tree)")" "$(tree)/out"
	recipe 6
	assert_status 0
	assert_equal "$(cat "$(tree)/out/in.txt" "$(tree)/in.pdf")" $'a document\na document'
}
@test "recipes 5 and 6: a snippet within bounds, a document through a parser" {
	each bounded
}

look_around() {
	echo 'pwd; ls ~; echo x >made; exit 7' >"$PF_DIR/shared/typed"
	recipe 8 <"$PF_DIR/shared/typed"
	assert_status 7
	assert_equal "$output" "$(tree)
tree"
	[ -e "$(tree)/made" ]
	# Outside of /tmp, which is private anyway.
	DATA=$(mktemp -d /opt/pf-docs.XXXXXX)
	echo wanted >"$DATA/notes"
	chmod -R a+rX "$DATA"
	give tool <<<"#!/bin/sh
cat $DATA/notes 2>/dev/null || true"
	recipe 9
	assert_status 0
	assert_equal "$output" wanted
	rm -rf "$PF_DIR/shared/typed" "$DATA"
	give test_it.py <<<'import os, socket, unittest
class It(unittest.TestCase):
    def test_it(self):
        open("/var/lib/app/state", "w").close()
        open("result", "w").close()
        self.assertFalse(os.path.exists(os.path.expanduser("~/.ssh")))
        with self.assertRaises(OSError): socket.create_connection(("9.9.9.10", 443), 5)'
	recipe 10
	assert_status 0
	assert_err "Ran 1 test"
	[ -e "$(tree)/result" ]
}
@test "recipes 8 to 10: a shell, learning a profile, tests without network and keys" {
	each look_around
}

@test "the guide, the manual page and the completion know every option of pinfold-jail, and no other" {
	local option options man completed
	options=$("$JAIL_BIN/pinfold-jail" --help | grep -oE -- '(^|[ ,(])--[a-z][a-z-]*' | grep -oE -- '--[a-z-]+' | sort -u)
	man=$(sed 's/\\-/-/g; s/\\fB//g; s/\\fR//g; s/\\fI//g' "$BATS_TEST_DIRNAME/../../docs/man/pinfold-jail.1")
	[ "$(wc -l <<<"$options")" -gt 35 ] || show "$options"
	completed=$(PATH="$JAIL_BIN:$PATH" bash -c '. "$0"; COMP_WORDS=(pinfold-jail --) COMP_CWORD=1; _pinfold_jail; printf "%s\n" "${COMPREPLY[@]}"' \
		"$BATS_TEST_DIRNAME/../../scripts/completion.bash")
	for option in $options; do
		grep -qE -- "$option([^a-z-]|\$)" <<<"$man" || show "the manual page lacks $option"
		grep -qxF -- "$option" <<<"$completed" || show "the completion lacks $option"
		case "$option" in --help | --version | --verbose) continue ;; esac
		grep -qE -- "$option([^a-z-]|\$)" "$DOC" || show "the guide lacks $option"
	done
	for option in $(grep -oE -- '--[a-z][a-z-]+' <<<"$man" | sort -u); do
		grep -qxF -- "$option" <<<"$options" || show "there is no $option"
	done
}
