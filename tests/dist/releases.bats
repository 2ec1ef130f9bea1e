# The release tarball works where the libraries are older or newer than those it was built with (make test-dist).
# timeout: 600
load ../lib/common

setup_file() {
	[ "$(id -u)" = 0 ] || skip "needs root"
	TARBALL=$(ls "${DIST:-$BUILD/dist}"/pinfold-*.tar.zst 2>/dev/null | tail -n 1)
	[ -n "$TARBALL" ] || skip "needs a tarball (make dist)"
	export TARBALL
	export UNPACKED="$BATS_FILE_TMPDIR/unpacked"
	mkdir "$UNPACKED"
	zstd -dc "$TARBALL" | tar -C "$UNPACKED" -xf -
}
setup() { common_setup; }
teardown() { common_teardown; }

# Where this machine's own packages come from.
mirror() {
	apt-get indextargets --format '$(SITE) $(CODENAME)' 'Created-By: Packages' |
		awk -v own="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$2 == own { print $1; exit }'
}

# A root file system of another release with the tarball in /opt/pinfold, in $OTHER.
other_release() { # CODENAME
	need mmdebstrap
	local site
	site=$(mirror)
	[ -n "$site" ] || skip "no package source of this machine's release"
	/usr/lib/apt/apt-helper download-file "$site/dists/$1/Release" "$PF_DIR/Release" >/dev/null 2>&1 ||
		skip "the machine's package source has no $1"
	OTHER="$PF_DIR/other"
	timeout 300 mmdebstrap --quiet --variant=essential --mode=root --include=busybox-static,e2fsprogs \
		"$1" "$OTHER" "deb $site $1 main" >"$PF_DIR/log" 2>&1 || { tail -n 20 "$PF_DIR/log" >&2; return 1; }
	mkdir -p "$OTHER/opt/pinfold" "$OTHER/old"
	cp -a "$UNPACKED/." "$OTHER/opt/pinfold/"
}

# Runs a script with that as its root. Not by chroot: there no user namespace can be made.
in_other() { # SCRIPT
	printf '%s\n' "$1" >"$OTHER/script"
	status=0
	output=$(unshare -m --propagation private bash -ec '
		mount --bind "$0" "$0"
		for d in proc sys dev; do mount --rbind "/$d" "$0/$d"; done
		mount -t tmpfs run "$0/run"
		cd "$0"
		pivot_root . old
		busybox umount -l /old
		exec env -i PATH=/opt/pinfold/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh /script' "$OTHER" 2>"$PF_DIR/stderr") || status=$?
	stderr=$(<"$PF_DIR/stderr")
}

works_there() { # CODENAME
	other_release "$1"
	in_other '
		set -e
		pinfold --version
		p="pinfold --root /run/pf --store /var/lib/pf"
		echo "{\"filesystem\":{\"size\":\"32M\"},\"resources\":{\"memory\":\"128M\"}}" >/sandbox.json
		trap "$p destroy dist-'"$$"' 2>/dev/null; $p gc --stopped >/dev/null 2>&1" EXIT
		$p create dist-'"$$"' --config /sandbox.json >/dev/null
		$p exec dist-'"$$"' -- sh -c "echo kept >/workspace/file; sed -n s/^VERSION_CODENAME=//p /etc/os-release"
		$p snapshot dist-'"$$"' --name one >/dev/null
		$p destroy dist-'"$$"'
		$p create dist-'"$$"' --config /sandbox.json --from one >/dev/null
		$p exec dist-'"$$"' -- cat /workspace/file
		$p destroy dist-'"$$"'
		mkdir -p /bundle/rootfs/bin && cp /bin/busybox /bundle/rootfs/bin/ && ln -s busybox /bundle/rootfs/bin/echo
		cd /bundle && pinfold spec
		sed -i "s/\"terminal\": *true/\"terminal\": false/; s/\"sh\"/\"echo\", \"from the bundle\"/" config.json
		pinfold --root /run/pf-oci run --bundle /bundle dist-oci-'"$$"''
	assert_status 0
	assert_out "pinfold version"
	assert_out "$1"
	assert_out $'\nkept\n'
	assert_out "from the bundle"
}

@test "an older release: sessions with a snapshot, and an OCI bundle" { works_there bullseye; }

@test "a newer release: sessions with a snapshot, and an OCI bundle" { works_there trixie; }

@test "the checksum is right, and packing again gives the same bytes" {
	(cd "$(dirname "$TARBALL")" && sha256sum -c --quiet SHA256SUMS)
	(cd "$TESTS_DIR/.." && umask 077 && DIST="$PF_DIR/again" TZ=Asia/Tokyo scripts/dist "$(basename "$TARBALL" | cut -d- -f2)" >/dev/null)
	cmp "$TARBALL" "$PF_DIR/again/$(basename "$TARBALL")"
}

@test "nothing in it names the place where it was built, and everything is root's" {
	local found
	found=$(grep -rlF -- "$(cd "$TESTS_DIR/.." && pwd)" "$UNPACKED" || true)
	[ -z "$found" ] || show "$found"
	[ "$(tar --numeric-owner -tvf <(zstd -dc "$TARBALL") | awk '{ print $2 }' | sort -u)" = 0/0 ]
	[ -z "$(find "$UNPACKED" -perm /022 ! -type l)" ]
}

@test "installed elsewhere it uses its own libraries alone, the keeper too; installing again disturbs nobody" {
	local prefix="$PF_DIR/a place of mine" own
	"$UNPACKED/share/pinfold/install" "$prefix"
	# What is there by several names is there by all of them.
	assert_equal "$(cd "$prefix" && find . ! -type d | sort)" "$(cd "$UNPACKED" && find . ! -type d | sort)"
	"$prefix/bin/pinfold-on-work" --version >/dev/null
	PINFOLD="$prefix/bin/pinfold"
	create_sandbox
	inside echo alive
	assert_equal "$output" alive
	own=$(sed 's/^[^/]*//' "/proc/$(state_of .pinfold.keeper)/maps" | grep '\.so' | sort -u)
	[ -n "$own" ]
	[ -z "$(grep -vF "$prefix/" <<<"$own")" ] || show "$own"
	"$UNPACKED/share/pinfold/install" "$prefix"
	inside echo still
	assert_equal "$output" still
	[ -z "$(find "$prefix" -name '*.new.*')" ]
	run -2 "$UNPACKED/share/pinfold/install" relative/path
	run -2 "$UNPACKED/share/pinfold/install" "/$(printf 'x%.0s' $(seq 200))"
}
