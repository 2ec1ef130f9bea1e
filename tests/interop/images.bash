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
