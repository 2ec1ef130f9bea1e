#!/usr/bin/env python3
"""Writes the seeds of the fuzzers into DIR/<fuzzer>/: a few of each kind of input that the gate reads.

usage: make_corpus.py DIR
"""
import hashlib
import io
import json
import os
import struct
import sys
import tarfile
import zlib


def question(name, kind, flags=0x100, extra=b"", counts=(1, 0, 0, 0)):
    labels = b"".join(bytes([len(part)]) + part for part in name.split(b".") if part)
    return struct.pack(">6H", 7, flags, *counts) + labels + b"\0" + struct.pack(">2H", kind, 1) + extra


def hello(sni=b"a.example.com", ech=False, split=0):
    ext = struct.pack(">HHHBH", 0, len(sni) + 5, len(sni) + 3, 0, len(sni)) + sni if sni else b""
    if ech:
        ext += struct.pack(">HH", 0xFE0D, 8) + b"\0" * 8
    ext += struct.pack(">HHBH", 43, 3, 2, 0x0304) + struct.pack(">HH", 16, 5) + b"\0\3\2h2"
    body = b"\3\3" + b"r" * 32 + b"\0" + struct.pack(">HH", 2, 0x1301) + b"\1\0" + struct.pack(">H", len(ext)) + ext
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    parts = [message[:split], message[split:]] if split else [message]
    return b"".join(b"\x16\3\1" + struct.pack(">H", len(p)) + p for p in parts)


def tar(kind, pax=None):
    """An archive with a member of each type; pax: headers of one more, which is sparse by them or odd."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as t:
        for name, letter in (("d/", b"5"), ("d/file", b"0"), ("d/" + "n" * 90 + "/" + "n" * 60, b"0"), ("hard", b"1"), ("soft", b"2"), ("c", b"3"), ("p", b"6")):
            m = tarfile.TarInfo(name)
            m.type, m.mode, m.mtime, m.linkname = letter, 0o644, 1.5, "d/file" if letter in b"12" else ""
            m.size = 700 if letter == b"0" else 0
            t.addfile(m, io.BytesIO(b"x" * m.size))
        if pax:
            m = tarfile.TarInfo("more")
            m.pax_headers, m.size = pax, 1024
            t.addfile(m, io.BytesIO(b"2\n0\n10\n4096\n20\n".ljust(512, b"\0") + b"y" * 512))
    return out.getvalue()[:-8192]


def frame(data):
    """A zstd frame of one repeated byte."""
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data)) + struct.pack("<I", len(data) << 3 | 3)[:3] + data[:1]


def index(chunks, flags=0, tag=0):
    """An index block: chunks are (id, stored, length, codec)."""
    place, rows = 32, []
    for digest, stored, length, codec in chunks:
        rows.append((digest, struct.pack("<4I", place, stored, length, codec)))
        place += stored
    block = b"PFINDEX1" + b"fuzzfuzzfuzzfuz\0" + struct.pack("<IIQ", flags, len(rows), place)
    block += b"".join(a + b for a, b in sorted(rows)) + b"\0" * tag
    return block + struct.pack("<II", zlib.crc32(block), len(block) + 16) + b"PFINDEXE"


def pack(datas, squeeze=True):
    frames = [frame(d) if squeeze else d for d in datas]
    rows = [(hashlib.sha256(d).digest(), len(f), len(d), int(squeeze)) for d, f in zip(datas, frames)]
    return b"PFPACK1\n" + b"fuzzfuzzfuzzfuz\0" + struct.pack("<II", 0, 0) + b"".join(frames) + index(rows)


def number(v):
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def text(b):
    return number(len(b)) + b


def entry(kind, name, *rest):
    return bytes([kind]) + text(name) + b"".join(r if isinstance(r, bytes) else number(r) for r in rest)


def layer(*entries, pieces=(), version=b"3"):
    """A tree and its map; pieces are, for each file with data, (offset, length) of chunks."""
    tree = b"PFTREE" + version + b"\n" + b"".join(entries)
    refs = b"".join(number(len(f)) + b"".join(bytes([i]) * 32 + number(o) + number(n) for i, (o, n) in enumerate(f)) for f in pieces)
    return struct.pack(">H", len(tree)) + tree + b"PFMAP2\n\n" + refs


root, end, owner = entry(1, b"", 0o755, 0, 0, 0, 0), b"\0", b"".join(map(number, (1000, 1000, 2, 5)))
manifest = {
    "version": 2, "sandbox_id": "s", "name": "n", "created": "2026-01-01T00:00:00Z", "architecture": "amd64", "parent": "", "from": "",
    "base_image": {"ref": "host", "digest": "host:debian:12:x86_64"}, "labels": {"a": "b"}, "sandbox_file": {"networking": {"type": "none"}},
    "policy": {}, "exclude": ["/tmp"], "live": False, "layers": [{"id": "sha256:" + "a" * 64, "bytes": 5, "entries": 3}],
    "stats": {"files": 1, "dirs": 1, "bytes": 5}}


def changed(**kw):
    return json.dumps({k: v for k, v in {**manifest, **kw}.items() if v is not None}).encode()


edns = b"\0\0\x29\4\xd0\0\0\0\0\0\0"
seeds = {
    "fuzz_dns": [question(b"a.example.com", 1), question(b"a.example.com", 28, extra=edns, counts=(1, 0, 0, 1)),
                 question(b"A" * 63 + b"." + b"b" * 63, 65), question(b"", 2), question(b"x\0y.z", 16),
                 question(b"a.b", 1, flags=0x8180), b"\0" * 12, struct.pack(">6H", 1, 0, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"],
    "fuzz_sniff": [hello(), hello(split=40), hello(ech=True), hello(None), hello()[:60], b"\x16\3\1\0\0",
                   b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
                   b"GET http://a/ HTTP/1.0\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"SSH-2.0-x\r\n", b"EHLO x\r\n",
                   b"GET / HTTP/1.1\r\nHost: [::1]:80\r\nX:\ty\r\n\r\n", b"*1\r\n$4\r\nPING\r\n",
                   b"GET /\0\1 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\3\1\0\3rrr\x16\3r"],
    "fuzz_http": [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET",
                  b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\nGET",
                  b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\5hello",
                  b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP", b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
                  b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nx"],
    "fuzz_policy": [b'{"type":"limited","allowed_hosts":["a.example.com:443","*.example.com",{"host":"b.c","ports":[80,"8000-8010"],'
                    b'"methods":["GET"],"paths":["/v1/**"],"max_requests_per_hour":5,"max_connections":2}]}',
                    b'{"type":"unrestricted","denied_hosts":["x.example.com","10.0.0.0/8"],"explain_denied":true}',
                    b'{"allowed_cidrs":["10.0.0.0/8:80",{"cidr":"[2001:db8::/32]","allow_private":true}],"allow_private":["10.0.0.0/8"]}',
                    b'{"allowed_hosts":[{"host":"n.example","ports":123,"protocol":"udp"}],"resolver":["1.1.1.1:53","[::1]:54"]}',
                    b'{"allowed_cidrs":["0.0.0.0/3:80"],"allow_private":["10.0.0.0/8"]}',
                    b'{"type":"none"}', b'{}'],
    "fuzz_pack": [b"\0" + index([]), b"\0" + index([(bytes([i]) * 32, 10 + i, 900, 1) for i in range(9)]),
                  b"\0" + index([(b"a" * 32, 40, 40, 0), (b"b" * 32, 7, 7, 0)]),
                  b"\1" + pack([b"a" * 60, b"b" * 3], False), b"\1" + pack([b"a" * 30, b"x" * 200]), b"\1" + pack([]),
                  b"\2" + index([(b"a" * 32, 56, 40, 0)], 1, 16), b"\3PFSEAL1\n" + struct.pack("<II", 1, 65536) + b"k" * 68
                  + b"\0" * 68 + b"t" * 16],
    "fuzz_tree": [
        layer(root, end), layer(root, end, version=b"2"),
        layer(root, entry(2, b"a", 0o4755, owner, 5, b"h" * 32), entry(0x32, b"b", 0o644, owner, 1, text(b"user.x"), text(b"y"), 0),
              entry(6, b"c", 2), entry(5, b"gone"), entry(3, b"l", owner, text(b"../a")), entry(4, b"p", 0o600, owner), end, pieces=[[(7, 5)]]),
        layer(root, entry(0x21, b"d", 0o1777, owner), entry(1, b"e", 0o700, owner), end,
              entry(0x42, b"s", 0o600, owner, 1 << 32, 2, 16384, 4096, 65536, 100, b"h" * 32),
              entry(0x42, b"t", 0o600, owner, 1 << 33, 0), end, end, pieces=[[(0, 4096), (0, 100)]]),
        layer(root, *[entry(0x11, b"d%d" % i, 0o755, owner, 1, text(b"system.posix_acl_default"), text(b"v" * 28)) for i in range(9)],
              end * 10),
        layer(root, entry(2, b"\xff" * 254, 0o644, owner, 300000, b"h" * 32), entry(0x23, b"\xff" * 255, owner, text(b"x")), end,
              pieces=[[(0, 262144), (1, 37856)]])],
    "fuzz_manifest": [changed(), changed(version=1), changed(layers=[]), changed(layers=manifest["layers"] * 3), changed(salt="x" * 32),
                      changed(parent="sha256:" + "b" * 64, live=True), changed(labels=None, stats=None), changed(base_image={"ref": "x", "digest": ""}),
                      changed(exclude=["", "a", 3]), changed(layers=[{"id": "sha256:..", "bytes": -1}]), b"{}", b"[]", b""],
    "fuzz_tar": [b"\0" + tar(tarfile.USTAR_FORMAT), b"\7" + tar(tarfile.GNU_FORMAT), b"\2" + tar(tarfile.PAX_FORMAT),
                 b"\0" + tar(tarfile.PAX_FORMAT, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s",
                                                  "GNU.sparse.realsize": "5000"}),
                 b"\0" + tar(tarfile.PAX_FORMAT, {"GNU.sparse.map": "0,512,2048,512", "GNU.sparse.size": "9000"}),
                 b"\0" + tar(tarfile.PAX_FORMAT, {"SCHILY.xattr.user.a": "b", "mtime": "-1.25", "uid": "99999999", "path": "../x"})],
    "fuzz_seal": [b"\0", b"\0\0\0\0", b"\0\1\0\0", b"\0\x10\0\1", b"\0\7\x20\4", b"\0\0\0\0" + b"\x09\0\2\0" + b"\x30\0\0\0",
                  b"\0\0\0\0\x98\0\1\0\xa8\x40\0\1", b"\1", b"\1\x08\2", b"\1\x08\2\x54\1\x60\7", b"\1\x10\0",
                  b"\2" + b"k" * 32, b"\2" + b"0aF" * 21 + b"0\n", b"\2" + b"0123456789abcdef" * 4, b"\2" + b"A" * 43 + b"=\n", b"\2short"],
}
for fuzzer, inputs in seeds.items():
    directory = os.path.join(sys.argv[1], fuzzer)
    os.makedirs(directory, exist_ok=True)
    for i, data in enumerate(inputs):
        with open(os.path.join(directory, f"seed{i:02}"), "wb") as f:
            f.write(data)
