# parallel-safe
# Real programs do their work inside, as an ordinary user: a build, a package manager, git, a test suite. The
# registry and the git server are those of the egress tests' world, reached through the gate. The long ones are in
# tests/jail-long.
load ../egress/lib
load lib
setup_file() {
	jail_file
	world_begin
	[ -n "${WORLD_LACKS:-}" ] || registry
}
teardown_file() {
	world_end
	jail_file_end
}
setup() {
	jail_setup
	AS=user
}
teardown() { jail_teardown; }

# What runs in the host of the world, with a resolver that knows its names; a file of ours in the tree.
in_world() {
	[ -z "${WORLD_LACKS:-}" ] || skip "$WORLD_LACKS"
	AT=(nsenter "--net=/proc/$WORLD_PID/ns/net" --)
	echo "{$RESOLVER}" >"$PF_DIR/shared/resolver.json"
	NET=(--policy "$PF_DIR/shared/resolver.json" --allow a.cdn.test)
	give ca.pem <"$WORLD/cert.pem"
}

# A file in the tree from standard input.
give() { # NAME
	mkdir -p "$(dirname "$(tree)/$1")"
	cat >"$(tree)/$1"
	chown -R "$JAIL_UID:$JAIL_UID" "$(tree)"
}

in_tree() { find "$(tree)" -mindepth 1 ! -user "$JAIL_UID" -print -quit; }

@test "make -j builds and runs a C program with --rw ." {
	need gcc make
	give main.c <<<'#include <math.h>
#include <stdio.h>
int half(int);
int main(void) { printf("%d %.3f\n", half(84), sqrt(2)); return 0; }'
	give half.c <<<'int half(int n) { return n / 2; }'
	give Makefile <<<'prog: main.o half.o ; $(CC) -g -o $@ $^ -lm
check: prog ; test "`./prog`" = "42 1.414" && echo checked > result
.PHONY: check'
	pj --profile build -- make -s -j4 check
	assert_status 0
	assert_equal "$stderr" ""
	assert_equal "$(<"$(tree)/result")" checked
	assert_equal "$(in_tree)" ""
	# Nobody but it has written: without --rw nothing comes of it.
	rm "$(tree)"/{prog,result,*.o}
	pj -- make -s check
	[ "$status" != 0 ]
	[ ! -e "$(tree)/result" ]
}

@test "npm install takes a package from the one registry it may reach, and runs it" {
	need npm node
	in_world
	give .npmrc <<<"registry=https://a.cdn.test/"
	pj --profile node "${NET[@]}" -e "npm_config_cafile=$(tree)/ca.pem" -- \
		sh -c 'npm install --fetch-retries=0 tiny >&2 && node -e "console.log(require(\"tiny\"))"'
	assert_status 0
	assert_equal "$output" "tiny works"
	assert_equal "$(jq -r .dependencies.tiny "$(tree)/package.json")" "^1.0.0"
	assert_equal "$(in_tree)" ""
	# Another registry is not there, and its cache was in a home that is gone.
	rm -r "$(tree)/node_modules"
	give .npmrc <<<"registry=https://b.cdn.test/"
	pj --profile node "${NET[@]}" -v -e "npm_config_cafile=$(tree)/ca.pem" -- npm install --fetch-retries=0 tiny
	[ "$status" != 0 ]
	assert_err "denied: b.cdn.test"
	[ ! -e "$(tree)/node_modules" ]
}

@test "git clones over https from the one host it may reach, into the one directory it may write" {
	need git
	in_world
	mkdir "$(tree)/src"
	chown "$JAIL_UID" "$(tree)/src"
	pj --rw src "${NET[@]}" -e "GIT_SSL_CAINFO=$(tree)/ca.pem" -- \
		sh -c 'git clone -q https://a.cdn.test/repo.git src/repo && cd src/repo && git log --format=%s && cat hello'
	assert_status 0
	assert_equal "$(xargs <<<"$output")" "hello hello"
	assert_equal "$(in_tree)" ""
	pj --rw src "${NET[@]}" -e "GIT_SSL_CAINFO=$(tree)/ca.pem" -- \
		git clone -q https://b.cdn.test/repo.git src/other
	assert_status 128
	assert_err "Could not resolve host: b.cdn.test"
	pj "${NET[@]}" -e "GIT_SSL_CAINFO=$(tree)/ca.pem" -- git clone -q https://a.cdn.test/repo.git other
	assert_status 128
	[ ! -e "$(tree)/other" ]
}

@test "a Python test suite finds what such suites use: temporary files, processes, locks, servers of its own" {
	give test_all.py <<'END'
import asyncio, http.server, multiprocessing, os, pathlib, shutil, signal, socket, sqlite3, subprocess, sys, tempfile
import threading, unittest, urllib.request


def square(n):
    return n * n


class Suite(unittest.TestCase):
    def test_temporary_files(self):
        with tempfile.TemporaryDirectory() as d:
            path = pathlib.Path(d, "a", "b")
            path.mkdir(parents=True)
            (path / "f").write_text("x" * 100000)
            os.link(path / "f", path / "hard")
            os.symlink("f", path / "soft")
            self.assertEqual((path / "soft").read_text(), (path / "hard").read_text())
            shutil.copytree(d, d + "-copy")
            shutil.rmtree(d + "-copy")

    def test_home_is_writable(self):
        pathlib.Path.home().joinpath(".config").mkdir(exist_ok=True)

    def test_children(self):
        out = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True)
        self.assertEqual(out.stdout, "42\n")
        p = subprocess.Popen(["sleep", "100"])
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(), -signal.SIGTERM)

    def test_shared_memory_and_locks(self):
        with multiprocessing.Pool(4) as pool:
            self.assertEqual(pool.map(square, range(20)), [n * n for n in range(20)])

    def test_own_servers(self):
        class Hello(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"hello")

            def log_message(self, *_):
                pass

        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "[::1]")):
            class Server(http.server.ThreadingHTTPServer):
                address_family = family
            with Server((host.strip("[]"), 0), Hello) as s:
                threading.Thread(target=s.serve_forever, daemon=True).start()
                with urllib.request.urlopen(f"http://{host}:{s.server_port}/") as r:
                    self.assertEqual(r.read(), b"hello")
                s.shutdown()
        self.assertEqual(socket.getaddrinfo("localhost", 80, socket.AF_INET)[0][4][0], "127.0.0.1")

    def test_event_loop(self):
        async def run():
            p = await asyncio.create_subprocess_exec("echo", "x", stdout=subprocess.PIPE)
            return (await p.communicate())[0]
        self.assertEqual(asyncio.run(run()), b"x\n")

    def test_database(self):
        with sqlite3.connect("here.db") as db:
            db.execute("pragma journal_mode=wal")
            db.execute("create table t (n)")
            db.executemany("insert into t values (?)", [(n,) for n in range(100)])
            self.assertEqual(db.execute("select sum(n) from t").fetchone(), (4950,))

    def test_the_network_is_not_there(self):
        with self.assertRaises(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=5)


if __name__ == "__main__":
    unittest.main()
END
	pj --profile python -- /usr/bin/python3 -m unittest -v
	assert_status 0
	assert_err "Ran 8 tests"
	[ -s "$(tree)/here.db" ]
	assert_equal "$(in_tree)" ""
}
