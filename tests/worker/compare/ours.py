#!/usr/bin/env python3
"""pinfold-tool over the calls of a file: ours.py PINFOLD-TOOL WORKDIR CALLS OUT"""
import json
import struct
import subprocess
import sys

tool, workdir, calls, out = sys.argv[1:]
p = subprocess.Popen([tool], cwd=workdir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
results = []


def field(name, value):
    value = value.encode()
    return name.encode() + b"\0" + struct.pack(">I", len(value)) + value


with open(calls, encoding="utf-8") as f:
    for call in json.load(f):
        frame = field("tool", call["name"])
        for key, value in call["input"].items():
            if isinstance(value, bool):
                frame += field(key, "1") if value else b""
            elif isinstance(value, list):
                frame += b"".join(field("range", str(v)) for v in value)
            else:
                frame += field("path" if key == "file_path" else key, str(value))
        p.stdin.write(struct.pack(">I", len(frame)) + frame)
        p.stdin.flush()
        answer = p.stdout.read(struct.unpack(">I", p.stdout.read(4))[0])
        results.append([answer[0] == 1, answer[1:].decode("utf-8", "replace")])
with open(out, "w", encoding="utf-8") as f:
    json.dump(results, f)
