# parallel-safe
# Larger programs as agents use them: a database and a repository over ssh by name, Java, packages from a registry behind the gate, ten thousand
# connections.
# timeout: 120
load lib

setup_file() {
	world_begin
	[ -z "${WORLD_LACKS:-}" ] || return 0
	registry
	database
	ssh_server
}
teardown_file() {
	local pid=
	[ ! -e "${WORLD:-/nowhere}/pg/db/postmaster.pid" ] || pid=$(head -1 "$WORLD/pg/db/postmaster.pid")
	[ ! -e "${WORLD:-/nowhere}/ssh/pid" ] || kill "$(<"$WORLD/ssh/pid")" || true
	[ -z "$pid" ] || { kill -QUIT "$pid" && wait_for 10 test ! -e "/proc/$pid"; }
	world_end
}
setup() { world_setup; }
teardown() { common_teardown; }

database() {
	local bin=(/usr/lib/postgresql/*/bin)
	[ -x "${bin[0]}/postgres" ] || return 0
	local data="$WORLD/pg" run=(setpriv --reuid 65534 --regid 65534 --clear-groups)
	mkdir "$data"
	chown 65534:65534 "$data"
	chmod 711 "$WORLD"
	"${run[@]}" "${bin[0]}/initdb" -D "$data/db" -U agent -A trust --no-sync --no-instructions >/dev/null
	echo 'host all all all trust' >>"$data/db/pg_hba.conf"
	at_internet "${run[@]}" "${bin[0]}/postgres" -D "$data/db" -p 5433 -c listen_addresses='*' \
		-c unix_socket_directories="$data" -c fsync=off </dev/null >"$WORLD/pg.log" 2>&1 3>&- &
	export PSQL="${bin[0]}/psql"
	wait_for 20 grep -q "ready to accept" "$WORLD/pg.log"
}

# Root's home, as the server sees it, is one of ours.
ssh_server() {
	command -v dropbear ssh-keygen git >/dev/null || return 0
	local d="$WORLD/ssh"
	mkdir -p "$d/home/.ssh"
	chmod 700 "$d/home" "$d/home/.ssh"
	dropbearkey -t ed25519 -f "$d/host" >/dev/null 2>&1
	ssh-keygen -q -t ed25519 -N '' -f "$d/key"
	cp "$d/key.pub" "$d/home/.ssh/authorized_keys"
	git clone -q --bare "$WORLD/www/repo.git" "$d/home/repo.git"
	at_internet unshare -m sh -c 'mount --bind "$1/home" /root && exec dropbear -F -E -r "$1/host" -p 2222 -P "$1/pid"' - "$d" \
		</dev/null >"$d/log" 2>&1 3>&- &
	wait_for 10 test -s "$d/pid"
}

@test "git over ssh by name: clone, commit, push, and clone again; another host's name does not exist" {
	[ -e "$WORLD/ssh/pid" ] || skip "needs dropbear and ssh"
	sandbox '{"allowed_hosts":["a.cdn.test:2222"]}'
	pinfold exec "$ID" -- sh -c 'umask 077; cat >/workspace/key' <"$WORLD/ssh/key"
	inside sh -c 'cd /workspace && export GIT_SSH_COMMAND="ssh -i /workspace/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
git clone -q ssh://root@a.cdn.test:2222/root/repo.git one && cd one && head -c 3000000 /dev/urandom >big && git add big &&
git -c user.name=t -c user.email=t@test commit -qm big && git push -q origin HEAD && git clone -q ssh://root@a.cdn.test:2222/root/repo.git ../two &&
cmp big ../two/big && cat ../two/hello'
	assert_equal "$output" hello
	inside sh -c 'GIT_SSH_COMMAND="ssh -i /workspace/key -o StrictHostKeyChecking=no" git clone -q ssh://root@b.cdn.test:2222/root/repo.git /workspace/three'
	[ "$status" != 0 ]
	assert_err "Could not resolve hostname b.cdn.test"
	assert_audit '.event=="egress_allowed" and .kind=="close" and .name=="a.cdn.test" and .port==2222 and .bytes_out>3000000'
}

@test "Java's own client: passed through with its own trust, and ended once it was told of the authority" {
	[ -x /usr/bin/javac ] || skip "needs a JDK"
	sandbox "{\"upstream_ca\":\"$WORLD/cert.pem\",\"allowed_hosts\":[{\"host\":\"a.cdn.test\",\"methods\":[\"GET\"]},\"web.one.test\"]}"
	pinfold exec "$ID" -- sh -c 'cat >/workspace/Get.java' <<-'END'
		import java.net.URI;
		import java.net.http.*;
		public class Get {
		    public static void main(String[] a) throws Exception {
		        HttpClient c = HttpClient.newHttpClient();
		        for (String u : a)
		            try {
		                var r = c.send(HttpRequest.newBuilder(URI.create(u)).build(), HttpResponse.BodyHandlers.ofString());
		                System.out.println(r.version() + " " + r.statusCode());
		            } catch (java.io.IOException e) {
		                System.out.println(e instanceof java.net.ConnectException ? "no" : e.getClass().getSimpleName());
		            }
		    }
		}
	END
	inside sh -c 'cd /workspace && cp "$(readlink -f /etc/ssl/certs/java/cacerts || find -L /usr/lib/jvm -name cacerts | head -1)" trust && chmod 600 trust &&
sed -n "/BEGIN/h;//!H;\$!d;x;p" /run/pinfold/ca-certificates.crt >own.pem &&
keytool -importcert -noprompt -keystore trust -storepass changeit -alias pinfold -file own.pem 2>/dev/null
java -Djavax.net.ssl.trustStore=trust Get.java https://a.cdn.test:8444/ http://web.one.test/ https://secret.other.test/'
	assert_equal "$output" "HTTP_1_1 200
HTTP_1_1 200
no"
}

@test "Go's own client and resolver: ended and passed through, a name that is denied" {
	command -v go >/dev/null || skip "needs Go"
	mkdir "$PF_DIR/go"
	cat >"$PF_DIR/go/get.go" <<-'END'
		package main

		import (
			"errors"
			"fmt"
			"net"
			"net/http"
			"os"
		)

		func main() {
			for _, u := range os.Args[1:] {
				r, err := http.Get(u)
				var dns *net.DNSError
				if errors.As(err, &dns) {
					fmt.Println("no name", dns.IsNotFound)
				} else if err != nil {
					fmt.Println(err)
				} else {
					fmt.Println(r.Proto, r.StatusCode)
					r.Body.Close()
				}
			}
		}
	END
	(cd "$PF_DIR/go" && CGO_ENABLED=0 GOCACHE="$PF_DIR/cache" GOPATH="$PF_DIR/path" GO111MODULE=off go build -o get get.go)
	sandbox "{\"upstream_ca\":\"$WORLD/cert.pem\",\"allowed_hosts\":[{\"host\":\"a.cdn.test\",\"methods\":[\"GET\"]},\"b.cdn.test\"]}"
	trust
	pinfold exec "$ID" -- sh -c 'cat >/workspace/get && chmod 755 /workspace/get' <"$PF_DIR/go/get"
	inside sh -c '/workspace/get https://a.cdn.test:8444/ http://b.cdn.test/ https://secret.other.test/; SSL_CERT_FILE=/workspace/ca.pem /workspace/get https://b.cdn.test/'
	assert_equal "$output" "HTTP/1.1 200
HTTP/1.1 200
no name true
HTTP/1.1 200"
}

@test "PostgreSQL by name, with a result of a megabyte" {
	[ -n "${PSQL:-}" ] || skip "needs PostgreSQL"
	sandbox '{"allowed_hosts":["a.cdn.test:5433"]}'
	inside "$PSQL" -h a.cdn.test -p 5433 -U agent -d postgres -Atc "select count(*), sum(length(x)) from (select repeat('x', 1000) x from generate_series(1, 1000)) t"
	assert_equal "$output" "1000|1000000"
	inside sh -c '"$0" -h a.cdn.test -p 5433 -U agent -d postgres -Atc "select repeat(md5(i::text), 32) from generate_series(1, 1000) i" | wc -c' "$PSQL"
	assert_equal "$output" 1025000
	inside "$PSQL" -h b.cdn.test -p 5433 -U agent -d postgres -c 'select 1'
	assert_err "could not translate host name"
}

@test "npm install from a registry whose requests are judged, with a token it never sees" {
	[ -x /usr/bin/npm ] || skip "needs npm"
	echo "token-$BASHPID" >"$PF_DIR/token"
	create_sandbox "$(jq -nc --arg ca "$WORLD/cert.pem" --arg f "$PF_DIR/token" "{networking:{allowed_hosts:[{host:\"a.cdn.test\",methods:[\"GET\"]}],
		upstream_ca:\$ca,$RESOLVER},credentials:{npm_token:{type:\"api_key\",scope:\"read_only\",hosts:[\"a.cdn.test\"],source:{file:\$f}}}}")"
	inside sh -c 'mkdir /workspace/app && cd /workspace/app && echo "registry=https://a.cdn.test/
//a.cdn.test/:_authToken=\${NPM_TOKEN}" >.npmrc && npm install --no-audit --no-fund --cache /workspace/.npm tiny >&2 && node -e "console.log(require(\"tiny\"))"'
	assert_equal "$output" "tiny works"
	assert_audit '.kind=="request" and .path=="/tiny" and .credential=="npm_token"'
	inside sh -c 'cd /workspace/app && npm publish 2>&1 | tail -5; curl -sS -X PUT https://a.cdn.test/tiny'
	assert_out "PUT is not among the methods"
}

@test "ten thousand connections, two hundred at a time, all of them whole, and nothing of them is kept" {
	sandbox '{"allowed_hosts":["a.cdn.test:7"]}'
	local gate after
	gate=$(gate_pid)
	probe 'import asyncio
async def one(gate, host):
    async with gate:
        r, w = await asyncio.open_connection(host, 7)
        w.write(b"x" * 100); w.write_eof()
        ok = await r.read() == b"x" * 100
        w.close()
        return ok
async def main():
    gate, host = asyncio.Semaphore(200), addresses("a.cdn.test", "4")[0]
    print(sum(await asyncio.gather(*(one(gate, host) for _ in range(10000)))))
asyncio.run(main())'
	assert_equal "$output" 10000
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.gate.connections_accepted, .gate.connections_failed, .gate.connections]')" "[10000,0,0]"
	# Its private memory.
	after=$(awk '/^Private/ {s += $2} END {print s}' "/proc/$gate/smaps_rollup")
	sanitized || [ "$after" -lt 4096 ] || show "the gate has $after KiB"
	[ "$(find "/proc/$gate/fd" | wc -l)" -lt 60 ]
}

@test "with few descriptors as many connections as there are pairs, streams through all of them at once, and an answer for the next" {
	config "{\"networking\":{\"allowed_hosts\":[\"a.cdn.test:7\"],$RESOLVER}}"
	new_id
	at_host prlimit --nofile=400 "$PINFOLD" --root "$ROOT" --store "$STORE" create "$ID" --config "$CONFIG" >/dev/null
	# (400 - 192) / 2; there are pipes for 64 of the 208 directions.
	probe 'import asyncio
N, SIZE = 104, 300000
async def stream(r, w):
    async def send():
        w.write(b"x\n" * (SIZE // 2)); w.write_eof(); await w.drain()
    sending = asyncio.create_task(send())
    await asyncio.sleep(0.3)  # nobody reads: bytes get stuck on their way
    n = len(await r.read())
    await sending; w.close()
    return n == SIZE
async def main():
    host = addresses("a.cdn.test", "4")[0]
    held = []
    for _ in range(N):
        r, w = await asyncio.open_connection(host, 7)
        w.write(b"x"); await r.readexactly(1)
        held.append((r, w))
    try:
        r, w = await asyncio.open_connection(host, 7)
        w.write(b"x")
        print("next", await r.read(1))
    except OSError as e: print("next", word(e))
    print(sum(await asyncio.gather(*(stream(r, w) for r, w in held))))
asyncio.run(main())'
	assert_equal "$output" $'next reset\n104'
	assert_audit '.event=="egress_denied" and .reason=="too_many_connections"'
	assert_equal "$(pinfold policy "$ID" show | jq -c '[.gate.connections_accepted, .gate.connections_overload, .gate.connections_failed]')" "[105,1,0]"
	expect_dial ok a.cdn.test 7
}

@test "as many connections at once as there are descriptors for, up to ten thousand: each answers, what is beyond is refused" {
	[ -n "${PF_CONNECTIONS:-}" ] || skip "make test-connections"
	sandbox '{"allowed_hosts":["a.cdn.test:7"]}'
	private() { awk '/^Private/ {s += $2} END {print s}' "/proc/$(gate_pid)/smaps_rollup"; }
	local hard fit idle
	idle=$(private)
	hard=$(ulimit -Hn)
	fit=$(((hard - 192) / 2))
	[ "$fit" -lt 10000 ] || fit=10000
	probe 'import asyncio, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
async def ask(r, w):
    w.write(b"x"); await w.drain()
    return await asyncio.wait_for(r.readexactly(1), 60)
async def one(gate, host):
    async with gate:
        try:
            r, w = await asyncio.open_connection(host, 7)
            await ask(r, w)
            return r, w
        except (OSError, asyncio.IncompleteReadError):
            return None
async def main():
    gate, host = asyncio.Semaphore(100), addresses("a.cdn.test", "4")[0]
    held = [c for c in await asyncio.gather(*(one(gate, host) for _ in range(10000))) if c]
    again = await asyncio.gather(*(ask(r, w) for r, w in held))
    print(len(held), len(again), flush=True)
    open("/workspace/held", "w").close()
    while not os.path.exists("/workspace/enough"):
        await asyncio.sleep(0.1)
asyncio.run(main())' &
	local client=$!
	wait_for 100 pinfold exec "$ID" -- test -e /workspace/held
	local kib
	kib=$(private)
	echo "# the gate's own memory: $idle KiB idle, $kib KiB with $fit connections" >&3
	assert_equal "$(pinfold policy "$ID" show | jq .gate.connections)" "$fit"
	sanitized || [ "$kib" -lt $((1024 + fit * 2)) ] || show "the gate has $kib KiB"
	# Two for each, and its own.
	[ "$(find "/proc/$(gate_pid)/fd" | wc -l)" -le $((fit * 2 + 192)) ]
	inside touch /workspace/enough
	wait "$client"
	[ "$fit" = 10000 ] || assert_audit '.reason=="too_many_connections"'
	none_left() { [ "$(pinfold policy "$ID" show | jq .gate.connections)" = 0 ]; }
	wait_for 20 none_left
	expect_dial ok a.cdn.test 7
}
