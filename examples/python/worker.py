#!/usr/bin/env python3
"""The smallest worker of one's own: Python's standard library and the pinfold command line.

It polls, makes or resumes a sandbox for each session, runs the agent's bash calls in it, one `pinfold exec` each (so without a
persistent shell), and keeps its files in a checkpoint. To begin with, not to end with: pinfold-worker does it all.

usage: ANTHROPIC_ENVIRONMENT_ID=… ANTHROPIC_ENVIRONMENT_KEY=… worker.py [--once] [PINFOLD OPTION...]"""

import base64
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

BASE = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
ENV, KEY = os.environ.pop("ANTHROPIC_ENVIRONMENT_ID"), os.environ.pop("ANTHROPIC_ENVIRONMENT_KEY")
IDLE = float(os.environ.get("MAX_IDLE", "60"))
ONCE = "--once" in sys.argv
PINFOLD = ["pinfold"] + [a for a in sys.argv[1:] if a != "--once"]


def call(method, path, bearer, body=None, stream=False):
    headers = {"Authorization": f"Bearer {bearer}", "Accept": "application/json", "User-Agent": "example-worker/1",
               "anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01",
               "Anthropic-Worker-ID": "example", "Content-Type": "application/json"}
    data = (json.dumps(body) if body else "").encode() if method == "POST" else None
    answer = urllib.request.urlopen(urllib.request.Request(BASE + path, data, headers, method=method), timeout=120)
    return answer if stream else json.loads(answer.read() or b"null")


def pinfold(*args, check=True):
    r = subprocess.run([*PINFOLD, *args], capture_output=True, text=True, errors="replace")
    if check and r.returncode:
        raise RuntimeError(r.stderr.strip())
    return r


class Lease(threading.Thread):
    """Heartbeats, each naming the one before. lost: nothing may be posted any more. over: it is to end."""

    def __init__(self, work, token):
        super().__init__(daemon=True)
        self.path, self.token = f"/v1/environments/{ENV}/work/{work}", token
        self.last, self.ttl, self.lost, self.over, self.done = "NO_HEARTBEAT", 90, False, False, threading.Event()
        self.good = time.monotonic()
        self.beat()

    def beat(self):
        try:
            expected = urllib.parse.quote(self.last, safe="")
            r = call("POST", f"{self.path}/heartbeat?expected_last_heartbeat={expected}", self.token)
        except urllib.error.HTTPError as e:
            self.lost = self.lost or e.code == 412
        except OSError:
            pass
        else:
            self.last, self.ttl, self.good = r["last_heartbeat"], r["ttl_seconds"], time.monotonic()
            self.over = r["state"] in ("stopping", "stopped") or not r["lease_extended"]
        self.lost = self.lost or time.monotonic() - self.good > self.ttl
        self.over = self.over or self.lost

    def run(self):
        while not self.over and not self.done.wait(min(30, max(1, self.ttl / 2))):
            self.beat()


def events(session, token):
    """The history after the stream was opened, then the stream; None now and then."""
    stream = call("GET", f"/v1/sessions/{session}/events/stream", token, stream=True)
    page = ""
    while page is not None:
        r = call("GET", f"/v1/sessions/{session}/events?limit=1000{page and '&page=' + page}", token)
        yield from r["data"]
        page = r["next_page"]
    yield {"type": "history_read"}
    for line in stream:
        if line.startswith(b"data:"):
            yield json.loads(line[5:])


def run_calls(session, token, lease):
    history, calls, seen, answered, idle = True, [], set(), set(), None
    for event in events(session, token):
        kind = event["type"]
        if lease.over:
            return
        if kind == "history_read":
            history = False
        elif kind == "agent.tool_use" and event["id"] not in seen:
            seen.add(event["id"])
            calls.append(event)
        elif kind == "user.tool_result":
            answered.add(event["tool_use_id"])
        elif kind in ("session.status_terminated", "session.deleted"):
            return
        if kind == "session.status_idle" and event["stop_reason"]["type"] != "requires_action":
            idle = time.monotonic()
        elif kind not in ("ping", "history_read"):
            idle = None
        while calls and not history:
            call_ = calls.pop(0)
            # What is not plainly allowed is not run; confirmations are left out of this example.
            if call_["id"] in answered or call_["name"] != "bash" or call_.get("evaluated_permission", "allow") != "allow":
                continue
            r = pinfold("exec", session, "--timeout", "120s", "--", "/bin/bash", "-c", call_["input"]["command"] + "\n", check=False)
            text = (r.stdout + r.stderr).rstrip("\n") or (f"exit {r.returncode}" if r.returncode else "(no output)")
            if lease.lost:
                return
            call("POST", f"/v1/sessions/{session}/events", token, {"events": [{
                "type": "user.tool_result", "tool_use_id": call_["id"], "is_error": r.returncode != 0,
                "content": [{"type": "text", "text": text[-100_000:]}]}]})
        if idle and time.monotonic() - idle > IDLE:
            return


def do(item):
    session, secret = item["data"]["id"], item.get("secret")
    token = KEY
    if secret:
        token = json.loads(base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4)))["sessions_token"]
    lease = Lease(item["id"], token)
    lease.start()
    try:
        if lease.over or call("GET", f"/v1/sessions/{session}", token)["status"] == "terminated":
            return
        if pinfold("create", session, "--from", "latest", check=False).returncode:
            pinfold("create", session, "--reuse")
        run_calls(session, token, lease)
        if not lease.lost:
            pinfold("snapshot", session)
            pinfold("destroy", session)
    finally:
        lease.done.set()
        if not lease.lost:
            try:
                call("POST", f"/v1/environments/{ENV}/work/{item['id']}/stop", token, {"force": True})
            except urllib.error.HTTPError as e:
                if e.code != 409:
                    raise


while True:
    work = call("GET", f"/v1/environments/{ENV}/work/poll?block_ms=999&reclaim_older_than_ms=5000", KEY)
    if not work:
        time.sleep(random.uniform(1, 3))
        continue
    call("POST", f"/v1/environments/{ENV}/work/{work['id']}/ack", KEY)
    if work["data"]["type"] == "session":
        do(work)
    if ONCE:
        break
