# What a policy means and what it did: check, test, suggest, who did it, and the table of refusals.
# parallel-safe
load lib

setup_file() { world_begin; }
teardown_file() { world_end; }
setup() { world_setup; }
teardown() { common_teardown; }

@test "policy test says what would become of a connection, and why" {
	sandbox '{"allowed_hosts":["a.cdn.test:443","*.wild.test"],"denied_hosts":["no.wild.test"],"allowed_cidrs":["9.9.11.0/24:7"]}'
	local target verdict reason rule
	while read -r target verdict reason rule; do
		pf policy "$ID" test "$target"
		assert_json ".verdict==\"$verdict\" and .reason==\"$reason\" and ((.rule // \"-\")==\"$rule\")"
	done <<-'END'
		a.cdn.test:443 allow allowed a.cdn.test:443
		a.cdn.test:80 deny port a.cdn.test:443
		x.wild.test:22 allow allowed *.wild.test
		no.wild.test:22 deny denied_host no.wild.test
		other.test:443 deny not_listed -
		9.9.11.3:7 allow allowed 9.9.11.0/24:7
		9.9.12.3:7 deny not_listed -
	END
	pf policy "$ID" test 'https://a.cdn.test/'
	assert_refused URL
	pf policy "$ID" test a.cdn.test
	assert_refused "one host and one port"
}

@test "policy check says how a file is understood and changes nothing" {
	sandbox '{"allowed_hosts":["a.cdn.test"]}'
	echo '{"allowed_hosts":["B.CDN.test.:443"]}' >"$PF_DIR/new.json"
	pf policy "$ID" check "$PF_DIR/new.json"
	assert_json '.allowed==["b.cdn.test:443"]'
	echo '{"allowed_hosts":["*.com"]}' >"$PF_DIR/bad.json"
	pf policy "$ID" check "$PF_DIR/bad.json"
	assert_refused "public suffix"
	expect_dial ok a.cdn.test 7
}

@test "policy suggest is the policy that would have done, and set takes it" {
	sandbox '{"allowed_hosts":["a.cdn.test:443"]}'
	probe 'dial("web.one.test", 7); dial("a.cdn.test", 7); dial("9.9.9.77", 7); dial("to-metadata.bad.test", 80)'
	wait_for 5 has_audit '.kind=="packet" and .orig=="9.9.9.77"'
	pf policy "$ID" suggest
	assert_json '.networking.allowed_hosts | index("a.cdn.test:443") and index("a.cdn.test:7") and index("web.one.test") and index("to-metadata.bad.test")'
	assert_json '.networking.allowed_cidrs==["9.9.9.77:7"]'
	echo "$output" >"$PF_DIR/suggested.json"
	pinfold policy "$ID" set "$PF_DIR/suggested.json" >/dev/null
	expect_dials <<-END
		ok web.one.test 7
		ok 9.9.9.77 7
	END
	# What no entry may open is not suggested by what it was refused for.
	expect_dial reset to-metadata.bad.test 80
}

@test "a line of the log names the exec and what ran in it" {
	sandbox '{"allowed_hosts":["a.cdn.test:80"]}'
	inside curl -sS -o /dev/null http://a.cdn.test/
	inside curl -sS --max-time 10 http://nobody.other.test/
	assert_audit '.event=="egress_allowed" and .kind=="connect" and .process=="curl" and (.exec|length)>0'
	assert_audit '.event=="egress_denied" and .kind=="dns" and .process=="curl"'
	pf logs "$ID" --denied
	assert_out "TARGET"
	[[ "$output" == *"not_listed"*"nobody.other.test"*"curl ("* ]] || show
	refute_out egress_allowed
}

@test "allow_package_managers opens what the image's configuration and the administrator's list name" {
	local image="$PF_DIR/image"
	mkdir -p "$image/etc/apt/sources.list.d" "$image/etc/apk" "$image/usr" "$image/root"
	echo '# deb http://commented.other.test/ x' >"$image/etc/apt/sources.list"
	echo 'deb [signed-by=/k] http://a.cdn.test/debian stable main' >>"$image/etc/apt/sources.list"
	printf 'Types: deb\nURIs: https://b.cdn.test:8444/debian\n' >"$image/etc/apt/sources.list.d/x.sources"
	echo 'registry=https://user:pw@npm.cdn.test/' >"$image/root/.npmrc"
	ln -s /etc/shadow "$image/etc/pip.conf"
	echo '{"networking":{"allow_package_managers":true,"allowed_hosts":["web.one.test:7"],'"$RESOLVER"'}}' >"$PF_DIR/s.json"
	echo 'pypi.cdn.test:443' >"$STORE/package-hosts"
	for d in bin sbin lib lib64; do [ ! -L "/$d" ] || ln -s "usr/$d" "$image/$d"; done
	new_id
	pinfold create "$ID" --config "$PF_DIR/s.json" --image "$image" >/dev/null
	rm "$STORE/package-hosts"
	pf policy "$ID" show
	assert_json '.policy.allowed | sort == ["a.cdn.test:80","b.cdn.test:8444","npm.cdn.test:443","pypi.cdn.test:443","web.one.test:7"]'
}

@test "what a sandbox wrote of package managers opens nothing in the one that is made from its checkpoint" {
	echo 'pypi.cdn.test:443' >"$STORE/package-hosts"
	sandbox '{"allow_package_managers":true}'
	inside sh -c 'mkdir -p /etc/apt/sources.list.d && echo "deb http://one.evil.test/ x main" >/etc/apt/sources.list.d/x.list'
	assert_status 0
	inside sh -c 'echo registry=https://two.evil.test/ >/root/.npmrc'
	assert_status 0
	pf snapshot "$ID"
	local checkpoint
	checkpoint=$(jq -r .checkpoint <<<"$output")
	new_id
	pf create "$ID" --from "$checkpoint"
	assert_status 0
	rm "$STORE/package-hosts"
	inside cat /root/.npmrc
	assert_out two.evil.test
	pf policy "$ID" show
	assert_json '.policy.allowed | index("pypi.cdn.test:443") and (any(test("evil")) | not)'
}

@test "allow_package_managers that would open nothing is refused" {
	mkdir -p "$PF_DIR/image/usr"
	echo '{"networking":{"allow_package_managers":true}}' >"$PF_DIR/s.json"
	new_id
	pf create "$ID" --config "$PF_DIR/s.json" --image "$PF_DIR/image"
	assert_refused package-hosts
	assert_gone "$ID"
}
