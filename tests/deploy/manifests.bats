# parallel-safe
# What deploy/ holds is well-formed, its parts agree with each other and with the programs.
load ../lib/common

DEPLOY="$BATS_TEST_DIRNAME/../../deploy"

py() { /usr/bin/python3 - "$@"; }

setup_file() {
	/usr/bin/python3 -c 'import yaml' 2>/dev/null || skip "needs python3-yaml"
}

@test "every manifest is YAML with kind, apiVersion and name; pods name the RuntimeClass; the handler is containerd's" {
	py "$DEPLOY" <<-'END'
		import glob, json, sys, yaml
		deploy = sys.argv[1]
		docs = []
		for path in sorted(glob.glob(deploy + "/kubernetes/*.yaml")):
		    for d in yaml.safe_load_all(open(path)):
		        for key in ("kind", "apiVersion", "metadata"):
		            assert key in d, (path, key)
		        assert d["metadata"]["name"], path
		        docs.append((path, d))
		classes = [d for _, d in docs if d["kind"] == "RuntimeClass"]
		assert len(classes) == 1 and classes[0]["apiVersion"] == "node.k8s.io/v1"
		name, handler = classes[0]["metadata"]["name"], classes[0]["handler"]
		pods = 0
		for path, d in docs:
		    if d["kind"] == "Pod":
		        pod = d
		    elif d["kind"] in ("Sandbox", "SandboxTemplate"):
		        assert d["apiVersion"].split("/")[0].endswith("agents.x-k8s.io")
		        pod = d["spec"]["podTemplate"]
		    else:
		        continue
		    pods += 1
		    assert pod["spec"]["runtimeClassName"] == name, path
		    assert pod["spec"]["containers"][0]["image"], path
		    json.loads(pod["metadata"]["annotations"]["io.pinfold.policy"])
		assert pods == 3, pods
		kinds = {d["kind"] for _, d in docs}
		assert {"RuntimeClass", "Pod", "DaemonSet", "Sandbox", "SandboxTemplate"} <= kinds, kinds
		for f in ("containerd/pinfold-v2.toml", "containerd/pinfold-v3.toml"):
		    assert "runtimes.%s]" % handler in open(deploy + "/" + f).read(), f
		assert "runtimes.%s]" % handler in open(deploy + "/crio/10-pinfold.conf").read()
		installer = [d for _, d in docs if d["kind"] == "DaemonSet"][0]["spec"]["template"]["spec"]
		assert installer["initContainers"][0]["command"][0].endswith("/deploy/kubernetes/install-node")
		mounts = installer["initContainers"][0]["volumeMounts"]
		assert mounts[0]["mountPath"] in installer["initContainers"][0]["command"]
		assert mounts[0]["name"] == installer["volumes"][0]["name"]
	END
}

@test "the policies of the examples are ones that Pinfold takes" {
	common_setup
	local policy
	while read -r policy; do
		config "{\"networking\": $policy}"
		new_id
		pinfold create "$ID" --config "$CONFIG" >/dev/null
		pinfold destroy "$ID"
	done < <(py "$DEPLOY" <<-'END'
		import glob, json, sys, yaml
		for path in sorted(glob.glob(sys.argv[1] + "/kubernetes/*.yaml")):
		    for d in yaml.safe_load_all(open(path)):
		        pod = d["spec"].get("podTemplate", d) if "spec" in d else {}
		        p = pod.get("metadata", {}).get("annotations", {}).get("io.pinfold.policy")
		        if p: print(json.dumps(json.loads(p)))
	END
	)
	common_teardown
}

@test "containerd takes the drop-in, and has runc beside it" {
	need containerd
	local dump="$BATS_TEST_TMPDIR/dump"
	containerd --config "$DEPLOY/containerd/pinfold-v2.toml" config dump >"$dump"
	grep -q 'containerd.runtimes.pinfold\]' "$dump"
	grep -q 'containerd.runtimes.runc\]' "$dump"
	grep -q 'pod_annotations = \["io.pinfold.\*"\]' "$dump"
	grep -A 20 'runtimes.pinfold.options\]' "$dump" | grep -q 'BinaryName = "/opt/pinfold/bin/pinfold"'
}

@test "the drop-in of version 3, of CRI-O and of podman are TOML and say the same" {
	py "$DEPLOY" <<-'END'
		import sys, tomllib
		read = lambda f: tomllib.load(open(sys.argv[1] + "/" + f, "rb"))
		v2 = read("containerd/pinfold-v2.toml")
		v3 = read("containerd/pinfold-v3.toml")
		assert (v2["version"], v3["version"]) == (2, 3)
		a = v2["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]["pinfold"]
		b = v3["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["pinfold"]
		assert a == b, (a, b)
		program = a["options"]["BinaryName"]
		assert read("crio/10-pinfold.conf")["crio"]["runtime"]["runtimes"]["pinfold"]["runtime_path"] == program
		assert read("podman/pinfold.conf")["engine"]["runtimes"]["pinfold"] == [program]
	END
}

@test "podman takes its snippet" {
	need podman
	sed "s|/opt/pinfold/bin/pinfold|$PINFOLD|" "$DEPLOY/podman/pinfold.conf" >"$BATS_TEST_TMPDIR/conf"
	# podman takes no long path for its runroot.
	short=$(mktemp -d /tmp/pfr.XXXXXX)
	CONTAINERS_CONF="$BATS_TEST_TMPDIR/conf" run podman --root "$BATS_TEST_TMPDIR/r" --runroot "$short" \
		--storage-driver vfs --runtime pinfold info --format '{{.Host.OCIRuntime.Name}} {{.Host.OCIRuntime.Path}}'
	rm -rf "$short"
	[[ "$output" == *"pinfold $PINFOLD" ]] || show
}

@test "systemd takes the units" {
	need systemd-analyze
	sed 's|/opt/pinfold/bin/pinfold|/bin/true|' "$DEPLOY/systemd/pinfold-gc.service" >"$BATS_TEST_TMPDIR/pinfold-gc.service"
	cp "$DEPLOY/systemd/pinfold-gc.timer" "$BATS_TEST_TMPDIR/"
	run systemd-analyze verify --man=no "$BATS_TEST_TMPDIR"/pinfold-gc.{service,timer}
	[[ "$output" != *pinfold* ]] || show
}
