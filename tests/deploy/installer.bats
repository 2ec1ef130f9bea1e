# deploy/kubernetes/install-node on a node that is made up: its programs are stand-ins, but for containerd itself,
# which judges every configuration.
load ../lib/common

setup() {
	need containerd jq
	NODE="$BATS_TEST_TMPDIR/node"
	RELEASE="$BATS_TEST_TMPDIR/release"
	mkdir -p "$NODE/etc/containerd" "$NODE/etc/systemd/system" "$NODE/run" "$RELEASE/share/pinfold" \
		"$RELEASE/bin" "$RELEASE/libexec/pinfold/lib"
	# A release of plain files: what the programs are is not the installer's matter.
	cp -r "$TESTS_DIR/../deploy" "$RELEASE/share/pinfold/"
	cp "$TESTS_DIR/../scripts/dist-install" "$RELEASE/share/pinfold/install"
	sed -i 's/^width=.*/width=40/; s/^version=.*/version=9.9/' "$RELEASE/share/pinfold/install"
	printf 'before:%-40s:after' "/opt/pinfold" | tr ' ' / >"$RELEASE/bin/pinfold"
	chmod 755 "$RELEASE/bin/pinfold"
	echo "7 bin/pinfold" >"$RELEASE/share/pinfold/relocations"
	echo lib >"$RELEASE/libexec/pinfold/lib/libc.so.6"
	# Runs a program of the node: notes it, and lets containerd read the node's files.
	export ON_NODE="$BATS_TEST_TMPDIR/on-node" NODE PATIENCE=2
	cat >"$ON_NODE" <<-'END'
		#!/bin/sh
		echo "$*" >>"$NODE/calls"
		case "$1" in
		containerd)
			shift
			[ "$1" != --version ] || { echo "containerd github.com/containerd/containerd ${FAKE_VERSION:-1.6.20}"; exit 0; }
			exec containerd --config "$NODE$2" config dump ;;
		systemctl) [ ! -e "$NODE/no-restart" ] ;;
		ctr) [ ! -e "$NODE/no-answer" ] || { rm -f "$NODE/no-answer.$$"; grep -q pinfold "$NODE/etc/containerd/config.toml" && exit 1; exit 0; } ;;
		*) exit 127 ;;
		esac
	END
	chmod 755 "$ON_NODE"
	CONFIG_FILE="$NODE/etc/containerd/config.toml"
}

# The installer, as run keeps it: $status, $output (both streams).
node() { run sh "$RELEASE/share/pinfold/deploy/kubernetes/install-node" --root "$NODE" "$@"; }
dump() { containerd --config "$CONFIG_FILE" config dump; }
restarts() { grep -c 'systemctl restart containerd' "$NODE/calls" || true; }

# A node as kubeadm leaves it.
kubeadm_config() {
	cat >"$CONFIG_FILE" <<-'END'
		version = 2
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "registry.example/pause:3.9"
		  [plugins."io.containerd.grpc.v1.cri".containerd]
		    default_runtime_name = "runc"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		      runtime_type = "io.containerd.runc.v2"
		      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		        SystemdCgroup = true
	END
}

@test "a node with its own configuration: the runtime is added, everything else stays, containerd is restarted once" {
	kubeadm_config
	cp "$CONFIG_FILE" "$BATS_TEST_TMPDIR/original"
	node install
	assert_equal "$status" 0
	dump >"$BATS_TEST_TMPDIR/dump"
	grep -q 'runtimes.pinfold\]' "$BATS_TEST_TMPDIR/dump"
	grep -q 'runtimes.runc\]' "$BATS_TEST_TMPDIR/dump"
	grep -q 'sandbox_image = "registry.example/pause:3.9"' "$BATS_TEST_TMPDIR/dump"
	grep -q 'BinaryName = "/opt/pinfold/bin/pinfold"' "$BATS_TEST_TMPDIR/dump"
	# The driver of cgroups is the node's.
	assert_equal "$(grep -c 'SystemdCgroup = true' "$BATS_TEST_TMPDIR/dump")" 2
	assert_equal "$(restarts)" 1
	[ -x "$NODE/opt/pinfold/bin/pinfold" ]
	[ -L "$NODE/etc/systemd/system/timers.target.wants/pinfold-gc.timer" ]
	# Again: nothing changes, nothing is restarted.
	cp "$CONFIG_FILE" "$BATS_TEST_TMPDIR/first"
	node install
	assert_equal "$status" 0
	cmp "$CONFIG_FILE" "$BATS_TEST_TMPDIR/first"
	assert_equal "$(restarts)" 1
	# And back to the last byte.
	node uninstall
	assert_equal "$status" 0
	cmp "$CONFIG_FILE" "$BATS_TEST_TMPDIR/original"
	assert_equal "$(restarts)" 2
	[ ! -e "$NODE/opt/pinfold" ]
	[ -z "$(find "$NODE" -name '*pinfold*' ! -path "$NODE/run/*")" ] || show "$(find "$NODE" -name '*pinfold*')"
}

@test "a node whose file names no runtime keeps runc, and one without a file gets one" {
	printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "registry.example/pause:3.9"\n' >"$CONFIG_FILE"
	node install
	assert_equal "$status" 0
	dump | grep -q 'runtimes.runc\]'
	dump | grep -q 'sandbox_image = "registry.example/pause:3.9"'
	rm -f "$CONFIG_FILE"
	node install
	assert_equal "$status" 0
	dump | grep -q 'runtimes.runc\]'
	dump | grep -q 'runtimes.pinfold\]'
	node uninstall
	[ ! -e "$CONFIG_FILE" ]
}

@test "an upgrade to another prefix replaces the lines instead of adding to them" {
	kubeadm_config
	node install
	PREFIX=/usr/local/pinfold node install
	assert_equal "$status" 0
	assert_equal "$(grep -c BinaryName "$CONFIG_FILE")" 1
	grep -q 'BinaryName = "/usr/local/pinfold/bin/pinfold"' "$CONFIG_FILE"
	assert_equal "$(cat "$NODE/usr/local/pinfold/bin/pinfold")" "before:$(printf '%-40s' /usr/local/pinfold | tr ' ' /):after"
}

@test "a containerd that does not come up gets its old configuration back, and the node's log says so" {
	kubeadm_config
	cp "$CONFIG_FILE" "$BATS_TEST_TMPDIR/original"
	touch "$NODE/no-answer"
	node install
	assert_equal "$status" 1
	[[ "$output" == *"did not come up"* ]]
	cmp "$CONFIG_FILE" "$BATS_TEST_TMPDIR/original"
	assert_equal "$(restarts)" 2
}

@test "a configuration that containerd cannot read, or of version 1, is left alone" {
	printf 'version = 2\n[plugins\n' >"$CONFIG_FILE"
	node install
	assert_equal "$status" 1
	[[ "$output" == *"cannot read its configuration"* ]]
	assert_equal "$(restarts)" 0
	echo 'root = "/var/lib/containerd"' >"$CONFIG_FILE"
	node install
	assert_equal "$status" 1
	[[ "$output" == *"version 1"* ]]
	assert_equal "$(cat "$CONFIG_FILE")" 'root = "/var/lib/containerd"'
}

@test "a node with CRI-O gets a file of its own there" {
	mkdir -p "$NODE/etc/crio/crio.conf.d"
	kubeadm_config
	node install
	assert_equal "$status" 0
	grep -q 'runtime_path = "/opt/pinfold/bin/pinfold"' "$NODE/etc/crio/crio.conf.d/10-pinfold.conf"
	grep -q 'systemctl restart crio' "$NODE/calls"
	node uninstall
	[ ! -e "$NODE/etc/crio/crio.conf.d/10-pinfold.conf" ]
}

@test "pods that run keep the programs; the wrong root is refused" {
	kubeadm_config
	node install
	mkdir -p "$NODE/run/pinfold-containerd/k8s.io/pod1"
	node uninstall
	assert_equal "$status" 0
	[[ "$output" == *"stays until they are gone"* ]]
	[ -e "$NODE/opt/pinfold/bin/pinfold" ]
	run sh "$RELEASE/share/pinfold/deploy/kubernetes/install-node" install
	assert_equal "$status" 2
}
