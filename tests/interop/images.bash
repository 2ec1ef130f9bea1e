# Images for containerd and podman, made from files: no registry is asked.
# shellcheck shell=bash

# In $1: bb.tar (localhost/bb:1, busybox) and pause.tar (localhost/pause:1).
make_images() {
	local dir=$1 a image
	mkdir -p "$dir/root/bin" "$dir/root/etc" "$dir/root/tmp"
	cp "$(command -v busybox)" "$dir/root/bin/busybox"
	for a in $(busybox --list | grep -vx busybox); do ln -s busybox "$dir/root/bin/$a"; done
	printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' >"$dir/root/etc/passwd"
	printf '#include <signal.h>\n#include <unistd.h>\nstatic void bye(int s) { (void)s; _exit(0); }
int main(void) { signal(SIGINT, bye); signal(SIGTERM, bye); for (;;) pause(); }\n' >"$dir/pause.c"
	gcc -static -O1 -o "$dir/pause" "$dir/pause.c"
	umoci init --layout "$dir/layout"
	for image in bb pause; do umoci new --image "$dir/layout:$image"; done
	umoci insert --rootless --image "$dir/layout:bb" "$dir/root" /
	umoci config --image "$dir/layout:bb" --config.cmd /bin/sh --config.env PATH=/bin
	umoci insert --rootless --image "$dir/layout:pause" "$dir/pause" /pause
	umoci config --image "$dir/layout:pause" --config.entrypoint /pause
	for image in bb pause; do
		skopeo --insecure-policy copy -q "oci:$dir/layout:$image" "oci-archive:$dir/$image.tar:localhost/$image:1"
	done
}

# In $1/store: two checkpoints on the image bb of make_images, the second made by a sandbox that came from the first. g2 has
# what each of them made, and not what either of them deleted. WANT is what SEEN prints there.
make_checkpoints() { # DIR (of make_images)
	local dir=$1 id
	local p=("$PINFOLD" --root "$dir/run" --store "$dir/store")
	mkdir -p -m 700 "$dir/store" "$dir/run"
	"${p[@]}" image import "oci:$dir/layout:bb" --name bb >/dev/null
	printf '{"image":"bb","networking":{"type":"none"}}' >"$dir/sandbox.json"
	id=ck$$-$RANDOM
	"${p[@]}" create "$id" --config "$dir/sandbox.json" >/dev/null
	"${p[@]}" exec "$id" -- sh -ec 'mkdir -p /workspace/d /srv/whole; cd /workspace; echo 1 >kept; echo 1 >deleted; echo 1 >changed
		echo 1 >d/deleted; echo 1 >/srv/whole/old; ln kept hard; ln -s kept soft; chmod 4751 changed; chown 12:34 d; rm /bin/vi'
	"${p[@]}" snapshot "$id" --name g1 >/dev/null
	"${p[@]}" destroy "$id"
	"${p[@]}" create "$id" --from g1 >/dev/null
	"${p[@]}" exec "$id" -- sh -ec 'cd /workspace; rm deleted d/deleted /bin/wc; echo 2 >changed; chmod 4751 changed; rm -r /srv/whole; mkdir /srv/whole; echo 2 >/srv/whole/new'
	"${p[@]}" snapshot "$id" --name g2 >/dev/null
	"${p[@]}" destroy "$id"
	WANT='1 1 2 1 4751 12:34 new 2 kept 2
gone: deleted d/deleted /bin/vi /bin/wc /srv/whole/old'
}

# shellcheck disable=SC2016
SEEN='cd /workspace; echo $(cat kept hard changed soft; stat -c %a changed; stat -c %u:%g d; ls /srv/whole; cat /srv/whole/new; readlink soft; stat -c %h kept)
echo gone: $(for f in deleted d/deleted /bin/vi /bin/wc /srv/whole/old; do [ -e $f ] || [ -L $f ] || echo $f; done)'
