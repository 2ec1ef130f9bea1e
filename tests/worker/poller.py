#!/usr/bin/env python3
"""A poller that treats its --on-work program as `ant beta:worker poll` is documented to, for tests: that program itself is not to
be had here.

usage: poller.py --on-work PATH [--items N]      environment: ANTHROPIC_ENVIRONMENT_ID, _ENVIRONMENT_KEY, _BASE_URL

One item at a time. PATH is started without arguments, with the parent's environment and ANTHROPIC_WORK_ID, _ENVIRONMENT_ID,
_SESSION_ID and _ENVIRONMENT_KEY, the item as JSON on its standard input, no ANTHROPIC_WORK_SECRET, its output folded into standard
error. The item is stopped as soon as it returns (409: it is already). SIGTERM is handed on, and 30 s later it is killed. A program
that cannot be started ends the poller, one that fails does not. Prints a line for each item: its id, the program's status, the
answer to stop."""

import argparse
import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

args = argparse.ArgumentParser()
args.add_argument("--on-work", required=True)
args.add_argument("--items", type=int, default=1)
args = args.parse_args()
env_id, key, base = (os.environ["ANTHROPIC_" + n] for n in ("ENVIRONMENT_ID", "ENVIRONMENT_KEY", "BASE_URL"))
told, running = [], []


def on_term(*_):
    told.append(time.monotonic())
    for p in running:
        p.send_signal(signal.SIGTERM)


def token_of(item):
    secret = item.get("secret") or ""
    return json.loads(base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4)))["sessions_token"] if secret else key


def ask(method, path, query, body=None, bearer=key):
    request = urllib.request.Request(f"{base}/v1/environments/{env_id}/work/{path}?beta=true{query}", method=method,
                                     data=json.dumps(body).encode() if body is not None else b"" if method == "POST" else None)
    for name, value in (("Authorization", "Bearer " + bearer), ("anthropic-beta", "managed-agents-2026-04-01"), ("Anthropic-Worker-ID", "other"),
                        ("anthropic-version", "2023-06-01"), ("Accept", "application/json"), ("Content-Type", "application/json")):
        request.add_header(name, value)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as e:
        return e.code, None


signal.signal(signal.SIGTERM, on_term)
done = 0
while done < args.items and not told:
    item = ask("GET", "poll", "&block_ms=999&reclaim_older_than_ms=5000")[1]
    if not item:
        continue
    ask("POST", item["id"] + "/ack", "")
    if item["data"]["type"] != "session":
        continue
    p = subprocess.Popen([args.on_work], stdin=subprocess.PIPE, stdout=sys.stderr, env={
        **os.environ, "ANTHROPIC_WORK_ID": item["id"], "ANTHROPIC_ENVIRONMENT_ID": item["environment_id"],
        "ANTHROPIC_SESSION_ID": item["data"]["id"], "ANTHROPIC_ENVIRONMENT_KEY": key})
    running[:] = [p]
    p.stdin.write(json.dumps(item).encode())
    p.stdin.close()
    while p.poll() is None:
        time.sleep(0.05)
        if told and time.monotonic() - told[0] > 30:
            p.kill()
    running.clear()
    print(item["id"], p.returncode, ask("POST", item["id"] + "/stop", "", {"force": True}, token_of(item))[0], flush=True)
    done += 1
