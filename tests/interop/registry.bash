# Debian's docker-registry on loopback. A test has PIDS=() in its setup and ends them in its teardown.
# shellcheck shell=bash

free_port() {
	/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets PORT. With "tls" there is a certificate below $PF_DIR/tls and the user agent with the password secret.
registry() { # [tls]
	PORT=$(free_port)
	{
		echo "version: 0.1"
		echo "log: {level: error}"
		echo "storage: {filesystem: {rootdirectory: $PF_DIR/registry-$PORT}, delete: {enabled: true}}"
		echo "http:"
		echo "  addr: 127.0.0.1:$PORT"
		if [ "${1:-}" = tls ]; then
			echo "  tls: {certificate: $PF_DIR/tls/cert.pem, key: $PF_DIR/tls/key.pem}"
			echo "auth: {htpasswd: {realm: test, path: $PF_DIR/htpasswd}}"
		fi
	} >"$PF_DIR/registry-$PORT.yml"
	if [ "${1:-}" = tls ]; then
		need htpasswd
		certificate 30
		htpasswd -Bbn agent secret >"$PF_DIR/htpasswd" 2>/dev/null
	fi
	docker-registry serve "$PF_DIR/registry-$PORT.yml" >"$PF_DIR/registry.log" 2>&1 3>&- &
	PIDS+=($!)
	wait_for 60 listens "$PORT"
}

certificate() { # DAYS
	mkdir -p "$PF_DIR/tls"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -days "$1" \
		-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$PF_DIR/tls/key.pem" -out "$PF_DIR/tls/cert.pem" 2>/dev/null
}

login() { # PASSWORD HOST
	printf '{"auths":{"%s":{"auth":"%s"}}}' "$2" "$(printf 'agent:%s' "$1" | base64 -w0)" >"$PF_DIR/auth.json"
	export REGISTRY_AUTH_FILE="$PF_DIR/auth.json"
}

# The tree hash of a checkpoint's layers in a store, unpacked if they are not; a file LISTING gets its lines.
layers_hash() { # STORE CHECKPOINT [LISTING]
	local id
	"$PINFOLD" --root "$ROOT" --store "$1" checkpoint prepare "$2" >/dev/null || return 1
	for id in $("$PINFOLD" --root "$ROOT" --store "$1" checkpoint inspect "$2" | jq -r '.layers[].id'); do
		/usr/bin/python3 "$TESTS_DIR/lib/generations.py" hash "$1/checkpoints/unpacked/${id/:/-}/fs" "${@:3}" || return 1
	done
}
