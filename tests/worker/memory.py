#!/usr/bin/env python3
"""Fails when one of the words stands anywhere in a process's memory: memory.py PID WORD..."""
import re
import sys

pid, words = sys.argv[1], [w.encode() for w in sys.argv[2:]]
try:
    maps, mem = open(f"/proc/{pid}/maps"), open(f"/proc/{pid}/mem", "rb", 0)
except (FileNotFoundError, ProcessLookupError):
    sys.exit(0)  # it has ended
with maps, mem:
    for line in maps.readlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
        if not m or "[v" in line:
            continue
        at, end = int(m[1], 16), int(m[2], 16)
        tail = b""
        while at < end:
            try:
                mem.seek(at)
                data = mem.read(min(end - at, 1 << 24))
            except (OSError, ValueError, OverflowError):
                break
            if not data:
                break
            if any(w in tail + data for w in words):
                sys.exit(f"process {pid}: {line}")
            tail = data[-64:]
            at += len(data)
