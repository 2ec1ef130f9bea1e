# parallel-safe
# pinfold-jail --serve: whatever the program at the other end of the channel does (half a message, a giant one, no
# message, reading nothing), its jail's limits are kept, its jail alone ends, and nothing is left.
load lib
setup_file() { jail_file; }
teardown_file() { jail_file_end; }
setup() {
	jail_setup
	cat >"$PF_DIR/shared/host.py" <<-'END'
		import json, os, socket, struct, subprocess, sys, time

		class Jail:
		    def __init__(self, config):
		        self.sock, theirs = socket.socketpair()
		        self.sock.settimeout(20)
		        self.proc = subprocess.Popen([sys.argv[1], "--serve", str(theirs.fileno())],
		            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
		        theirs.close()
		        if config is not None:
		            self.send(config)
		            assert "started" in self.read()
		    def send(self, m):
		        text = json.dumps(m).encode()
		        self.sock.sendall(struct.pack("=I", len(text)) + text)
		    def read(self):
		        def exactly(n):
		            data = b""
		            while len(data) < n:
		                got = self.sock.recv(n - len(data))
		                if not got: raise EOFError
		                data += got
		            return data
		        return json.loads(exactly(struct.unpack("=I", exactly(4))[0]))
		    def result(self):
		        while True:
		            m = self.read()
		            if "result" in m:
		                self.proc.wait(20)
		                return m["result"]

		def sleeper(**more): return Jail({"command": ["sleep", "60"], **more})
	END
}
teardown() { jail_teardown; }

# The same document twice: what a command line stands for is run by it, and by a program through libpinfold.
same_through_library() { # OPTION...
	local seen='id; pwd; env | sort; ls -d .* * ~/.* /tmp/* 2>&1; grep -E "^(Cap|NoNew|Seccomp)" /proc/self/status; ulimit -a
		awk "{ print \$5, \$6, \$9 }" /proc/self/mountinfo | sort; cat /proc/net/route; uname -n; touch x ~/x /tmp/x; echo $?'
	(as "$JAIL_BIN/pinfold-jail" "$@" -- sh -c "$seen") >"$PF_DIR/by-options" 2>&1 || true
	(as "$JAIL_BIN/pinfold-jail" --explain --json "$@" -- sh -c "$seen") >"$PF_DIR/plan"
	jq .config "$PF_DIR/plan" >"$PF_DIR/shared/config.json"
	cp "$BUILD/lib/libpinfold.so.0" "$PF_DIR/shared/"
	cat >"$PF_DIR/shared/spawn.py" <<-'END'
		import ctypes, os, sys
		here = os.path.dirname(sys.argv[0])
		lib = ctypes.CDLL(here + "/libpinfold.so.0")
		lib.pinfold_spawn.restype = ctypes.c_void_p
		why, result = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(256)
		p = lib.pinfold_spawn(open(here + "/config.json", "rb").read(), None, why)
		assert p, why.value
		assert lib.pinfold_wait(ctypes.c_void_p(p), result, why) == 0, why.value
		lib.pinfold_result_free(result)
		lib.pinfold_free(ctypes.c_void_p(p))
	END
	(cd "$(tree)" && rm -f x && as env PYTHONCOERCECLOCALE=0 PINFOLD_JAIL="$JAIL_BIN/pinfold-jail" /usr/bin/python3 "$PF_DIR/shared/spawn.py") >"$PF_DIR/by-library" 2>&1 ||
		show "$(<"$PF_DIR/by-library")"
	[ "$(wc -l <"$PF_DIR/by-options")" -gt 40 ] || show "$(<"$PF_DIR/by-options")"
	diff "$PF_DIR/by-options" "$PF_DIR/by-library" >&2
}
library() {
	same_through_library
	same_through_library --profile build --rw . --overlay --home keep --hide /usr/share/man --tmpfs /opt --pids 50 --env A=b --timeout 1m \
		--allow api.example.com
}
@test "what a command line stands for, given to libpinfold as --explain --json prints it, is the same box" { each library; }

host() { # what a host program does, in Python
	{ cat "$PF_DIR/shared/host.py"; cat; } >"$PF_DIR/shared/run.py"
	status=0
	(as /usr/bin/python3 "$PF_DIR/shared/run.py" "$JAIL_BIN/pinfold-jail") >"$PF_DIR/out" 2>&1 3>&- || status=$?
	output=$(<"$PF_DIR/out")
	assert_status 0
}

halves() {
	host <<-'END'
		other = sleeper()
		for half in b"\x10", b"\x10\0\0", struct.pack("=I", 100), struct.pack("=I", 100) + b'{"op": ', struct.pack("=I", 8 << 20) + b"x" * 300000:
		    j = sleeper(limits={"timeout": "300ms"})
		    j.sock.sendall(half)
		    assert j.result()["limit"] == "timeout"
		# The other half comes in the end, byte by byte.
		j = sleeper()
		text = json.dumps({"op": "kill", "signal": 9}).encode()
		for b in struct.pack("=I", len(text)) + text:
		    j.sock.sendall(bytes([b]))
		    time.sleep(0.002)
		assert j.read() == {"done": "kill"}
		assert j.result()["signal"] == 9
		other.send({"op": "kill", "signal": 15})
		assert other.read() == {"done": "kill"} and other.result()["exit_code"] == 143
	END
}
@test "half a message holds nothing up: limits are kept, and the rest may come later" {
	each halves
}

garbage() {
	host <<-'END'
		other = sleeper()
		for bad in b"\0\0\0\0", b"\xff\xff\xff\xff", struct.pack("=I", (8 << 20) + 1), struct.pack("=I", 3) + b"{]}", \
		        struct.pack("=I", 2000) + b"[" * 2000, b"GET / HTTP/1.1\r\n\r\n" * 100:
		    j = sleeper()
		    j.sock.sendall(bad)
		    assert "error" in j.read()
		    assert j.result()["exit_code"] == 137
		for bad in [], 7, "x", {"op": 1}, {"op": "fly"}, {"op": "kill"}, {"op": "policy"}, {"op": "snapshot"}, {"op": "snapshot", "name": "x"}:
		    other.send(bad)
		    assert "error" in other.read(), bad
		# Before there is a jail at all.
		for bad in b"", b"\x10", b"\xff\xff\xff\xff", struct.pack("=I", 2) + b"{]":
		    j = Jail(None)
		    j.sock.sendall(bad)
		    j.sock.shutdown(socket.SHUT_WR)
		    assert j.proc.wait(20) == 125
		assert other.proc.poll() is None
		other.sock.close()
		assert other.proc.wait(20) is not None
	END
}
@test "a giant message and garbage end that jail and say so; requests that make no sense are answered" {
	each garbage
}

deaf() {
	host <<-'END'
		j = sleeper(limits={"timeout": "1s"})
		# Requests without end, and not one answer is read.
		j.sock.setblocking(False)
		request = json.dumps({"op": "fly"}).encode()
		n, until = 0, time.monotonic() + 20
		while j.proc.poll() is None and time.monotonic() < until:
		    try:
		        j.sock.send(struct.pack("=I", len(request)) + request)
		        n += 1
		    except BlockingIOError:
		        if os.path.exists(f"/proc/{j.proc.pid}/task/{j.proc.pid}/children"):
		            if not open(f"/proc/{j.proc.pid}/task/{j.proc.pid}/children").read().strip(): break
		        time.sleep(0.01)
		    except OSError: break
		assert n > 100
		assert time.monotonic() < until, "the limit was not kept"
		j.sock.close()
		j.proc.wait(20)
	END
}
@test "answers that nobody reads hold nothing up" {
	each deaf
}
