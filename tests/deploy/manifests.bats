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

@test "the worker's manifest: its options are ones that the program has, its probes and grace fit, what it mounts is there" {
	[ -x "$BUILD/bin/pinfold-worker" ] || skip "needs pinfold-worker"
	"$BUILD/bin/pinfold-worker" --help >"$BATS_TEST_TMPDIR/help"
	py "$DEPLOY/kubernetes/worker.yaml" "$BATS_TEST_TMPDIR/help" <<-'END'
		import json, re, sys, yaml
		docs = list(yaml.safe_load_all(open(sys.argv[1])))
		by = {d["kind"]: d for d in docs}
		assert [d["kind"] for d in docs] == ["Namespace", "ConfigMap", "DaemonSet", "Service"], by.keys()
		api = {"Namespace": "v1", "ConfigMap": "v1", "Service": "v1", "DaemonSet": "apps/v1"}
		ns = by["Namespace"]["metadata"]["name"]
		for d in docs:
		    assert d["apiVersion"] == api[d["kind"]], d["kind"]
		    assert d["kind"] == "Namespace" or d["metadata"]["namespace"] == ns
		ds = by["DaemonSet"]["spec"]
		labels = ds["template"]["metadata"]["labels"]
		assert ds["selector"]["matchLabels"] == labels == by["Service"]["spec"]["selector"]
		pod = ds["template"]["spec"]
		known = {"nodeSelector", "automountServiceAccountToken", "terminationGracePeriodSeconds", "containers", "volumes"}
		assert set(pod) == known, set(pod) ^ known
		assert pod["automountServiceAccountToken"] is False and pod["terminationGracePeriodSeconds"] >= 60
		(c,) = pod["containers"]
		known = {"name", "image", "command", "args", "env", "ports", "startupProbe", "livenessProbe", "readinessProbe",
		         "securityContext", "resources", "volumeMounts"}
		assert set(c) == known, set(c) ^ known
		assert c["command"] == ["/opt/pinfold/bin/pinfold-worker"]
		options = set(re.findall(r"--[a-z-]+", open(sys.argv[2]).read()))
		for a in c["args"]:
		    assert not a.startswith("--") or a in options, a
		value = lambda o: c["args"][c["args"].index(o) + 1]
		port = {p["name"]: p["containerPort"] for p in c["ports"]}
		assert value("--listen").endswith(":%d" % port["http"])
		for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
		    assert c[probe]["httpGet"] == {"path": path, "port": "http"}
		mounts = {m["name"]: m for m in c["volumeMounts"]}
		volumes = {v["name"]: v for v in pod["volumes"]}
		assert set(mounts) == set(volumes)
		for file, volume in (("--key-file", "environment"), ("--webhook-key-file", "environment"), ("--config", "worker")):
		    assert value(file).startswith(mounts[volume]["mountPath"] + "/"), file
		for v in volumes.values():
		    if "hostPath" in v:
		        assert v["hostPath"]["type"] in ("Directory", "DirectoryOrCreate")
		        assert v["hostPath"]["path"] == mounts[v["name"]]["mountPath"]
		data = by["ConfigMap"]["data"]
		json.loads(data["sandbox.json"])
		assert c["env"][0]["valueFrom"]["configMapKeyRef"] == {"name": "worker", "key": "environment-id"} and data["environment-id"]
		assert volumes["environment"]["secret"]["defaultMode"] == 0o400
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
	local u
	for u in gc worker; do
		sed 's|/opt/pinfold/bin/pinfold[a-z-]*|/bin/true|' "$DEPLOY/systemd/pinfold-$u.service" >"$BATS_TEST_TMPDIR/pinfold-$u.service"
	done
	cp "$DEPLOY/systemd/pinfold-gc.timer" "$BATS_TEST_TMPDIR/"
	run systemd-analyze verify --man=no "$BATS_TEST_TMPDIR"/pinfold-{gc.service,gc.timer,worker.service}
	[[ "$output" != *pinfold* ]] || show
}

@test "the worker's unit is as hardened as docs/worker-service.md says" {
	need systemd-analyze
	local is said
	is=$(systemd-analyze security --no-pager --offline=true "$DEPLOY/systemd/pinfold-worker.service" 2>/dev/null | sed -n 's/.*exposure level.*: \([0-9.]*\) .*/\1/p')
	[ -n "$is" ] || skip "systemd-analyze has no --offline"
	said=$(sed -n 's/.*systemd-analyze security` rates it \([0-9.]*\).*/\1/p' "$DEPLOY/../docs/worker-service.md")
	assert_equal "$is" "$said"
}
