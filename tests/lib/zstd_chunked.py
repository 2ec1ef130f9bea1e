#!/usr/bin/python3
"""A reader of zstd:chunked layers that goes by nothing but the format, for what pinfold writes.

  check LAYOUT [PATH...]   goes by the annotations of the last layer: the footer, the table and tar-split agree, every
                           file is what its ranges of the blob give, by frames alone, and the tar that tar-split
                           makes of the files has the layer's diff_id. Prints each PATH's content.
  forge LAYOUT HOW         changes the blob behind its tar (HOW: see FORGERIES) and names everything anew
"""
import base64
import hashlib
import json
import os
import struct
import subprocess
import sys

NOTE = "io.github.containers.zstd-chunked."
SKIPPABLE = b"\x50\x2a\x4d\x18"


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def unzstd(data):
    return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


def crc64(data):
    """CRC-64/GO-ISO"""
    table = []
    for b in range(256):
        for _ in range(8):
            b = b >> 1 ^ 0xD800000000000000 if b & 1 else b >> 1
        table.append(b)
    crc = 2**64 - 1
    for b in data:
        crc = table[(crc ^ b) & 0xFF] ^ crc >> 8
    return crc ^ 2**64 - 1


class Layout:
    def __init__(self, path):
        self.path = path
        self.index = json.loads(self.read("index.json"))
        self.manifest = json.loads(self.blob(self.index["manifests"][0]["digest"]))
        self.layer = self.manifest["layers"][-1]
        self.config = json.loads(self.blob(self.manifest["config"]["digest"]))

    def read(self, name):
        with open(os.path.join(self.path, name), "rb") as f:
            return f.read()

    def blob(self, digest):
        data = self.read("blobs/sha256/" + digest[7:])
        assert sha(data) == digest
        return data

    def put(self, data):
        with open(os.path.join(self.path, "blobs/sha256", sha(data)[7:]), "wb") as f:
            f.write(data)
        return {"digest": sha(data), "size": len(data)}


class Chunked:
    def __init__(self, layout):
        notes = layout.layer["annotations"]
        self.blob = layout.blob(layout.layer["digest"])
        at, length, plain, kind = map(int, notes[NOTE + "manifest-position"].split(":"))
        packed = self.blob[at : at + length]
        assert kind == 1 and sha(packed) == notes[NOTE + "manifest-checksum"]
        text = unzstd(packed)
        assert len(text) == plain
        self.table = json.loads(text)
        self.end = at - 8  # of the tar's frames
        split_at, split_length, split_plain = map(int, notes[NOTE + "tarsplit-position"].split(":"))
        packed = self.blob[split_at : split_at + split_length]
        assert sha(packed) == self.table["tarSplitDigest"]
        text = unzstd(packed)
        assert len(text) == split_plain
        self.split = [json.loads(line) for line in text.splitlines()]
        assert self.table["version"] == 1
        # Each stands in a frame that decoders skip, and the footer says the same as the annotations.
        for start, size in ((at, length), (split_at, split_length), (len(self.blob) - 64, 64)):
            assert self.blob[start - 8 : start] == SKIPPABLE + struct.pack("<I", size)
        assert split_at + split_length == len(self.blob) - 72
        numbers = (at, length, plain, 1, split_at, split_length, split_plain)
        assert self.blob[-64:] == struct.pack("<7Q", *numbers) + b"GNUlInUx"

    def files(self):
        """(entry, data) of each entry that is no chunk; data is fetched by ranges."""
        entries = self.table["entries"]
        for i, e in enumerate(entries):
            assert e["modtime"].endswith("Z") if e["type"] != "chunk" else i > 0
            if e["type"] == "chunk":
                continue
            if e["type"] != "reg" or e.get("size", 0) == 0:
                assert "digest" not in e
                yield e, b""
                continue
            parts = [e]
            while i + len(parts) < len(entries) and entries[i + len(parts)]["type"] == "chunk":
                parts.append(entries[i + len(parts)])
            data = b""
            for n, p in enumerate(parts):
                end = parts[n + 1]["offset"] if n + 1 < len(parts) else e["endOffset"]
                assert p["offset"] < end <= self.end
                piece = unzstd(self.blob[p["offset"] : end])
                if len(parts) > 1:
                    assert p["name"] == e["name"] and p.get("chunkOffset", 0) == len(data)
                    assert p["chunkSize"] == len(piece) and p["chunkDigest"] == sha(piece)
                    assert p.get("chunkType", "") in ("", "zeros")
                    assert p.get("chunkType") != "zeros" or not piece.strip(b"\0")
                data += piece
            assert len(data) == e["size"] and sha(data) == e["digest"], e["name"]
            yield e, data

    def tar(self, files):
        """The tar that tar-split makes of the files."""
        out = []
        for n, line in enumerate(self.split):
            assert line["position"] == n
            if line["type"] == 2:
                out.append(base64.b64decode(line["payload"]))
            elif line.get("size", 0) > 0:
                data = files[line["name"]]
                assert len(data) == line["size"]
                assert len(data) > 1 << 16 or base64.b64decode(line["payload"]) == struct.pack(">Q", crc64(data))
                out.append(data)
        return b"".join(out)


def check(path, names):
    layout = Layout(path)
    assert layout.layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    c = Chunked(layout)
    entries, files = {}, {}
    for e, data in c.files():
        assert e["name"] not in entries
        entries[e["name"]] = e
        files[e["name"]] = data
    diff_id = layout.config["rootfs"]["diff_ids"][-1]
    assert sha(c.tar(files)) == diff_id
    # Whoever knows nothing of tables reads the very same tar.
    assert sha(unzstd(c.blob)) == diff_id
    for name in names:
        sys.stdout.write(files[name].decode())
    json.dump(entries, open(path + ".table", "w", encoding="utf-8"))


def forge(path, how):
    layout = Layout(path)
    c = Chunked(layout)
    frames, rest = c.blob[: c.end], c.blob[c.end :]
    size = struct.unpack("<I", rest[4:8])[0]
    blob = {
        "no table": frames,
        "another table": frames + rest[:8] + b"\xff" * size + rest[8 + size :],
        "frames to skip everywhere": SKIPPABLE + b"\3\0\0\0abc" + frames + 1000 * (SKIPPABLE + bytes(4)),
        "a skipped frame longer than the blob": frames + SKIPPABLE + b"\xff\xff\xff\xff" + rest,
        "a second tar in the table's place": frames + frames,
        "no end": frames[:-9],
    }[how]
    layout.layer.update(layout.put(blob))
    new = layout.put(json.dumps(layout.manifest).encode())
    layout.index["manifests"][0].update(new)
    with open(os.path.join(path, "index.json"), "w", encoding="utf-8") as f:
        json.dump(layout.index, f)


if __name__ == "__main__":
    {"check": lambda a: check(a[0], a[1:]), "forge": lambda a: forge(*a)}[sys.argv[1]](sys.argv[2:])
