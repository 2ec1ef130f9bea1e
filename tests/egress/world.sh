#!/usr/bin/env bash
# The world of the egress tests: process 1 of a pid namespace of its own, in a network namespace of its own that
# plays the host ("pinfold" is run in it), beside a second one that plays the internet. Started by lib.bash:
#
#   world.sh DIR     writes what it makes into DIR, DIR/ready last; DIR/failed instead if something is missing
#
# Commands come on stdin, one a line; at the end of stdin everything here ends with process 1.
#
#     host: up0 9.9.8.1, 2600:8::1  ──veth──  net0: any address there is, v4 and v6, is the internet's own
#           lo   10.20.0.1, fd20::1 (private addresses of the host)
#
# So whatever a keeper dials is answered, metadata services and private ranges included: that something was not
# reached is never for want of a server. All of up0 is captured in DIR/up.pcap.
set -Eeuo pipefail

dir=$1
here=$(cd "$(dirname "$0")" && pwd)
exec 2>"$dir/world.log"
trap 'touch "$dir/failed"' ERR

certificate() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=egress.test \
		-addext 'subjectAltName=DNS:*.cdn.test,DNS:*.one.test,DNS:*.wild.test,DNS:rotate.test,DNS:*.other.test' \
		-keyout "$dir/key.pem" -out "$dir/cert.pem"
}

# The internet is every address but those between the two.
networks() {
	unshare -n sh -c 'read -r pid _ </proc/self/stat; echo "$pid" >"$1/inet.pid"; exec sleep infinity' - "$dir" &
	until [ -s "$dir/inet.pid" ]; do sleep 0.01; done
	inet=(nsenter --net="/proc/$(<"$dir/inet.pid")/ns/net")

	ip link set lo up
	"${inet[@]}" ip link add net0 type veth peer name up0 netns 1
	ip -b - <<-END
		link set up0 up
		addr add 9.9.8.1/24 dev up0
		addr add 10.20.0.1/32 dev lo
		route add default via 9.9.8.254
	END
	ip -6 -b - <<-END
		addr add 2600:8::1/64 dev up0 nodad
		addr add fd20::1/128 dev lo nodad
	END
	"${inet[@]}" ip -b - <<-END
		link set lo up
		link set net0 up
		addr add 9.9.8.254/24 dev net0
		addr add 9.9.9.53/32 dev lo
		route add 9.9.8.0/24 dev net0 table local
		route add local default dev lo table local
	END
	"${inet[@]}" ip -6 -b - <<-END
		addr add 2600:8::fe/64 dev net0 nodad
		route add 2600:8::/64 dev net0 table local
		route add local default dev lo table local
	END
	ip -6 route add default via 2600:8::fe
}

names() {
	cat <<-END
		no-resolv
		no-hosts
		no-poll
		user=root
		pid-file=$dir/dnsmasq.pid
		log-queries
		log-facility=$dir/dns.log
		addn-hosts=$dir/rotating
		host-record=web.one.test,9.9.9.10,2600:9::10
		host-record=only4.one.test,9.9.9.14
		host-record=only6.one.test,2600:9::16
		host-record=secret.other.test,9.9.9.66,2600:9::66
		host-record=a.cdn.test,9.9.9.20
		host-record=b.cdn.test,9.9.9.20
		address=/wild.test/9.9.9.30
		host-record=to-loopback.bad.test,127.0.0.1,::1
		host-record=to-metadata.bad.test,169.254.169.254
		host-record=to-mapped.bad.test,::ffff:169.254.169.254
		host-record=to-nat64.bad.test,64:ff9b::a9fe:a9fe
		host-record=to-6to4.bad.test,2002:a9fe:a9fe::1
		host-record=to-ec2v6.bad.test,fd00:ec2::254
		host-record=to-azure.bad.test,168.63.129.16
		host-record=to-private.bad.test,192.168.7.7,172.16.1.1,fd21::1
		host-record=to-lan.bad.test,10.20.0.1,fd20::1
		host-record=to-host.bad.test,9.9.8.1,2600:8::1
		host-record=to-multicast.bad.test,224.0.0.251
		host-record=to-zero.bad.test,0.0.0.0
		host-record=mixed.bad.test,10.20.0.1
		host-record=mixed.bad.test,9.9.9.17
		host-record=end.chain.test,9.9.9.40
	END
	local i
	for i in 1 2 3 4 5 6 7 8; do echo "cname=c$i.chain.test,c$((i + 1)).chain.test"; done
	echo "cname=c9.chain.test,end.chain.test"
	# A pool as large providers have them.
	for i in $(seq 100 130); do echo "host-record=pool.one.test,9.9.10.$i"; done
}

web() {
	cat <<-END
		user root;
		worker_processes 1;
		pid $dir/nginx.pid;
		error_log $dir/nginx.log;
		events { worker_connections 4096; }
		http {
			access_log off;
			client_body_temp_path $dir/t1; proxy_temp_path $dir/t2; fastcgi_temp_path $dir/t3;
			uwsgi_temp_path $dir/t4; scgi_temp_path $dir/t5;
			ssl_certificate $dir/cert.pem;
			ssl_certificate_key $dir/key.pem;
			server {
				listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl;
				root $dir/www;
				location = / { return 200 "host=\$host sni=\$ssl_server_name at=\$server_addr\n"; }
			}
		}
	END
	mkdir "$dir/www"
	truncate -s 4G "$dir/www/big"
}

# A repository that any web server can serve.
repository() {
	local git=(git -c user.name=t -c user.email=t@test -c init.defaultBranch=main)
	"${git[@]}" init -q "$dir/work"
	echo hello >"$dir/work/hello"
	"${git[@]}" -C "$dir/work" add hello
	"${git[@]}" -C "$dir/work" commit -q -m hello
	"${git[@]}" clone -q --bare "$dir/work" "$dir/www/repo.git"
	"${git[@]}" -C "$dir/www/repo.git" update-server-info
}

rotate() {
	echo "$1 rotate.test" >"$dir/rotating"
}

certificate
networks
tcpdump -i up0 -s 4096 -U --immediate-mode -Z root -w "$dir/up.pcap" 2>"$dir/tcpdump.log" &
rotate 9.9.9.41
names >"$dir/dnsmasq.conf"
"${inet[@]}" dnsmasq --conf-file="$dir/dnsmasq.conf"
web >"$dir/nginx.conf"
"${inet[@]}" nginx -e "$dir/nginx.log" -c "$dir/nginx.conf"
[ ! -x "$(command -v git)" ] || repository
"${inet[@]}" openssl s_server -accept 8443 -cert "$dir/cert.pem" -key "$dir/key.pem" -www -quiet &
"${inet[@]}" python3 "$here/servers.py" internet "$dir" &
python3 "$here/servers.py" host "$dir" &
tries=500
until [ -e "$dir/internet.ready" ] && [ -e "$dir/host.ready" ] && grep -q listening "$dir/tcpdump.log" &&
	"${inet[@]}" bash -c ': </dev/tcp/127.0.0.1/8443' 2>/dev/null; do
	[ $((tries -= 1)) -gt 0 ] || { echo "a server does not start" >&2; false; }
	sleep 0.02
done
touch "$dir/ready"

while read -r command argument; do
	case $command in
	rotate)
		rotate "$argument"
		kill -HUP "$(<"$dir/dnsmasq.pid")"
		;;
	esac
done
