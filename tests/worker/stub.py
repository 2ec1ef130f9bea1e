#!/usr/bin/env python3
"""A stub of the control plane, for the worker's tests: strict where the real one is lenient.

usage: stub.py --script FILE --port-file FILE [--port N]

The script is a JSON object:
  environment_id, key         what workers must name and show
  ttl                         seconds of a lease (default 4)
  overlaps                    true: two items of one session at once are part of the test
  empty                       what an empty poll answers: "null" (default) or "204"
  sessions: [{
    id, token                 token: false: the item has no secret and the environment key is used
    session                   members to add to GET /v1/sessions/ID
    memory: {STORE: {PATH: TEXT}}   memory stores, to be named in session.resources, too
    skills: {ID: {name, archive}}   archives in base64, to be named in session.agent.skills, too
    turns: [{                 one work item each; the next is queued when the one before was stopped
      calls: [{name, input, permission, confirm, custom, thread}]   made one by one, each when the last was answered
      together: true          all calls at once
      foreign: [event, ...]   events put in before the calls
      idle: "end_turn"        stop_reason at the end; null: none, the session goes on waiting
    }]
  }]

Beside the platform's routes:
  GET  /_stub/state           everything: events, results by call, order of requests, violations
  POST /_stub/fault           {name: value, ...}, see Stub.fault; null takes it away
  POST /_stub/event           {"session": ID, "event": {...}}: put an event into a session
  POST /_stub/enqueue         {"session": ID}: a further work item for it
  POST /_stub/memory          {"store", "path", "content"}: somebody else changes a memory; null removes it
  POST /_stub/add             a session like those of the script
  POST /_stub/finish          no session begins another turn

A request that breaks the contract is answered with an error and listed under "violations"."""

import argparse
import base64
import hashlib
import json
import re
import socket
import threading
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BETA = "managed-agents-2026-04-01"


def now():
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Refused(Exception):
    def __init__(self, status, kind, message, details=None, violation=True, retry_after=None):
        super().__init__(message)
        self.status, self.kind, self.details, self.violation = status, kind, details, violation
        self.retry_after = retry_after


class Store:
    """The documents of a memory store."""

    def __init__(self, docs):
        self.docs, self.serial = {}, 0
        for path, text in docs.items():
            self.put(path, text)

    def put(self, path, text, mid=None):
        if not path.startswith("/") or ".." in path.split("/"):
            raise Refused(400, "invalid_request_error", f"path {path}")
        if len(text.encode()) > 102400:
            raise Refused(413, "request_too_large", "memory", violation=False)
        if mid is None:
            if any(d["path"] == path for d in self.docs.values()):
                raise Refused(409, "memory_path_conflict_error", path, violation=False)
            self.serial += 1
            mid = f"mem_{self.serial}"
        self.docs[mid] = {"type": "memory", "id": mid, "path": path, "content": text,
                          "content_sha256": hashlib.sha256(text.encode()).hexdigest()}
        return self.docs[mid]


class Session:
    def __init__(self, stub, spec):
        self.stub = stub
        self.id = spec["id"]
        self.token = None if spec.get("token") is False else "sk-ant-req-" + self.id + "-TOKENCANARY"
        self.extra = spec.get("session", {})
        self.skills = spec.get("skills", {})
        for store, docs in spec.get("memory", {}).items():
            stub.stores.setdefault(store, (self, Store(docs)))
        self.turns = list(spec.get("turns", []))
        self.turn = None
        self.waiting = []  # calls of this turn that are still to be made
        self.open = []  # ids of calls that were made and not answered
        self.calls = {}
        self.events = []
        self.results = {}
        self.order = []
        self.streams = 0
        self.streamed_since_item = False
        self.status = "idle"
        self.serial = 0

    def put(self, event):
        self.serial += 1
        event = dict(event)
        event.setdefault("id", f"sevt_{self.id}_{self.serial}")
        event.setdefault("processed_at", now())
        self.events.append(event)
        self.stub.changed.notify_all()
        return event

    def begin_turn(self):
        self.turn = self.turns.pop(0)
        self.status = "running"
        self.put({"type": "user.message", "content": [{"type": "text", "text": "go on"}]})
        self.put({"type": "session.status_running"})
        for event in self.turn.get("foreign", []):
            self.put(event)
        self.waiting = list(self.turn.get("calls", []))
        self.step()

    def step(self):
        """Make the next call, or end the turn."""
        while self.waiting and (not self.open or self.turn.get("together")):
            call = self.waiting.pop(0)
            kind = "agent.custom_tool_use" if call.get("custom") else "agent.tool_use"
            event = {"type": kind, "name": call["name"], "input": call.get("input", {})}
            if "permission" in call:
                event["evaluated_permission"] = call["permission"]
            if "thread" in call:
                event["session_thread_id"] = call["thread"]
            event = self.put(event)
            self.calls[event["id"]] = event
            self.order.append(event["id"])
            if call.get("permission") == "deny":
                continue
            if not call.get("unanswered"):
                self.open.append(event["id"])
            if call.get("permission") == "ask" and "confirm" in call:
                self.put({"type": "session.status_idle", "stop_reason": {"type": "requires_action", "event_ids": [event["id"]]}})
                threading.Thread(target=self.confirm, args=(event["id"], call["confirm"]), daemon=True).start()
        if not self.waiting and not self.open and self.turn is not None:
            idle = self.turn.get("idle", "end_turn")
            self.turn = None
            if idle:
                self.status = "idle"
                self.put({"type": "session.status_idle", "stop_reason": {"type": idle}})

    def confirm(self, call, verdict):
        time.sleep(0.3)
        with self.stub.lock:
            self.put({"type": "user.tool_confirmation", "tool_use_id": call, "result": verdict})
            if verdict == "deny":
                self.open.remove(call)
                self.step()

    def answer(self, event):
        custom = event["type"] == "user.custom_tool_result"
        call = event.get("custom_tool_use_id" if custom else "tool_use_id")
        if call not in self.calls:
            raise Refused(400, "invalid_request_error", f"no such call: {call}")
        if custom != (self.calls[call]["type"] == "agent.custom_tool_use"):
            raise Refused(400, "invalid_request_error", f"result of the wrong kind: {call}")
        if call in self.results:
            raise Refused(400, "invalid_request_error", f"result posted twice: {call}")
        if call not in self.open:
            raise Refused(400, "invalid_request_error", f"nobody waits for a result of {call}")
        content = event.get("content")
        if not isinstance(content, list) or not all(c.get("type") == "text" and c.get("text") for c in content):
            raise Refused(400, "invalid_request_error", "content must be text blocks that are not empty")
        if not isinstance(event.get("is_error"), bool):
            raise Refused(400, "invalid_request_error", "is_error must be a boolean")
        if self.open[0] != call:
            raise Refused(400, "invalid_request_error", f"out of order: {call} before {self.open[0]}")
        self.open.remove(call)
        self.results[call] = {"is_error": event["is_error"], "text": content[0]["text"], "at": time.time()}
        stored = self.put(event)
        self.step()
        return stored


class Item:
    serial = 0

    def __init__(self, stub, session):
        Item.serial += 1
        self.stub = stub
        self.session = session
        self.id = f"work_{Item.serial}"
        self.state = "queued"
        self.polled = self.beat_at = 0.0
        self.last = None
        self.beats = 0
        self.stopped_by_worker = False
        self.got_session = False

    def json(self, secret):
        out = {
            "type": "work", "id": self.id, "environment_id": self.stub.env, "state": self.state,
            "data": {"type": "session", "id": self.session.id}, "metadata": {}, "secret": None,
            "created_at": now(), "acknowledged_at": None, "started_at": None, "latest_heartbeat_at": self.last,
            "stop_requested_at": None, "stopped_at": None, "a_member_of_next_year": {"x": [1]},
        }
        if secret and self.session.token:
            text = json.dumps({"sessions_token": self.session.token, "unknown": 1})
            out["secret"] = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return out


# Seconds that a lease is overdue before its item goes to another: requests wait in line on a busy machine.
GRACE = 3


class Stub:
    # Faults: down (until this time nothing is answered), lose (412 to every heartbeat), stopping (heartbeats say it),
    # post_lost (that many posts are taken and the connection closed without an answer), post_500 (that many are
    # refused), list_500, list_tail_500 (all pages but the first), break_stream (streams end after that many events), slow_stream (seconds between bytes),
    # hold_poll (polls wait for an item that many seconds, whatever they say), ack_429 (acks are answered so, to come back in that many seconds), garbage (the stream sends frames that are none), gone (a session that is read is not found), fatal_poll (a status for polls)
    def __init__(self, script):
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.env, self.key = script["environment_id"], script["key"]
        self.ttl = script.get("ttl", 4)
        self.empty = script.get("empty", "null")
        self.overlaps = script.get("overlaps", False)
        self.sessions, self.items, self.violations, self.log, self.faults = {}, {}, [], [], {}
        self.stores = {}
        for spec in script.get("sessions", []):
            self.add(spec)
        threading.Thread(target=self.watch, daemon=True).start()

    def add(self, spec):
        s = Session(self, spec)
        self.sessions[s.id] = s
        self.enqueue(s)

    def enqueue(self, session):
        item = Item(self, session)
        self.items[item.id] = item
        session.streamed_since_item = False
        return item

    def watch(self):
        """An item whose lease ran out goes back into the queue, as another item; the old one is nobody's."""
        while True:
            time.sleep(0.2)
            with self.lock:
                if self.faults.get("down", 0) > time.time():
                    for i in self.items.values():
                        i.beat_at += 0.2
                    continue
                for item in list(self.items.values()):
                    if item.state in ("starting", "active") and time.time() - item.beat_at > self.ttl + GRACE:
                        item.state = "lost"
                        self.enqueue(item.session)

    # ---- routes ----

    def poll(self, q):
        status = self.faults.get("fatal_poll")
        if status:
            raise Refused(status, "authentication_error", "no", violation=False)
        end = time.time() + max(int(q.get("block_ms", "0")) / 1000, self.faults.get("hold_poll", 0))
        if "block_ms" in q and not 1 <= int(q["block_ms"]) <= 999:
            raise Refused(400, "invalid_request_error", "block_ms")
        reclaim = int(q.get("reclaim_older_than_ms", "5000")) / 1000
        while True:
            for item in self.items.values():
                if item.state == "queued" and time.time() - item.polled > reclaim:
                    item.polled = time.time()
                    return 200, item.json(True)
            if time.time() >= end:
                return (204, None) if self.empty == "204" else (200, None)
            self.changed.wait(0.05)

    def ack(self, item):
        if self.faults.get("ack_429"):
            raise Refused(429, "rate_limit_error", "later", violation=False, retry_after=self.faults["ack_429"])
        if item.state != "queued" or not item.polled:
            raise Refused(409, "conflict_error", "ack of an item that was not polled")
        item.state, item.beat_at = "starting", time.time()
        return 200, item.json(False)

    def heartbeat(self, item, q):
        expected = q.get("expected_last_heartbeat")
        if item.state == "queued":
            raise Refused(400, "invalid_request_error", "heartbeat before ack")
        if expected is None:
            raise Refused(400, "invalid_request_error", "expected_last_heartbeat is missing")
        if item.state == "starting" and self.faults.get("refuse_first_beat"):
            item.last = now()
        wrong = item.state == "lost" or (expected != (item.last or "NO_HEARTBEAT")) or self.faults.get("lose")
        if wrong and item.state not in ("stopping", "stopped"):
            raise Refused(412, "invalid_request_error", "lease", {
                "error_code": "heartbeat_precondition_failed",
                "current_state": {"last_heartbeat": item.last, "lease_extended": False, "state": item.state,
                                  "ttl_seconds": self.ttl}}, violation=False)
        if self.faults.get("stopping") and item.state in ("starting", "active"):
            item.state = "stopping"
        if item.state == "starting":
            item.state = "active"
            if item.session.turn is None and item.session.turns:
                item.session.begin_turn()
        item.last, item.beat_at = now(), time.time()
        item.beats += 1
        return 200, {"type": "work_heartbeat", "last_heartbeat": item.last, "lease_extended": item.state == "active",
                     "state": item.state, "ttl_seconds": self.ttl, "unknown": True}

    def stop(self, item, body):
        if body != {"force": True}:
            raise Refused(400, "invalid_request_error", "stop without force")
        if item.state == "lost":
            raise Refused(400, "invalid_request_error", "stop of an item that is not this worker's any more")
        if item.state == "stopped":
            raise Refused(409, "conflict_error", "already stopped", violation=False)
        item.state = "stopped"
        item.stopped_by_worker = True
        s = item.session
        if s.turns or s.open:
            self.enqueue(s)
        return 204, None

    def active(self, session, also=()):
        return [i for i in self.items.values() if i.session is session and i.state in ("active", "stopping", *also)]

    def session_get(self, s):
        # The SDK sends its first heartbeat before this, and does not wait for the answer.
        if not self.active(s, ("starting",)):
            raise Refused(400, "invalid_request_error", "session read before its item was acknowledged")
        for i in self.active(s, ("starting",)):
            i.got_session = True
        if self.faults.get("gone"):
            raise Refused(404, "not_found_error", "session", violation=False)
        out = {"type": "session", "id": s.id, "status": s.status, "environment_id": self.env, "metadata": {},
               "resources": [], "agent": {"id": "agent_1", "skills": [], "tools": []}, "unknown": {}}
        out.update(s.extra)
        return 200, out

    def list_events(self, s, q):
        if self.faults.get("list_500"):
            self.faults["list_500"] -= 1
            raise Refused(500, "api_error", "list", violation=False)
        if self.faults.get("list_tail_500") and "page" in q:
            self.faults["list_tail_500"] -= 1
            raise Refused(500, "api_error", "the rest of the list", violation=False)
        # Where items of one session may overlap, another's stream has been opened instead.
        if not s.streamed_since_item and not self.overlaps:
            raise Refused(400, "invalid_request_error", "list before the stream was opened")
        size = min(int(q.get("limit", "1000")), 7)  # short pages, so that paging is seen
        start = int(q.get("page", "p0")[1:])
        more = start + size < len(s.events)
        return 200, {"data": s.events[start:start + size], "next_page": f"p{start + size}" if more else None}

    def post_events(self, s, body):
        events = body.get("events")
        if not isinstance(events, list) or len(events) != 1:
            raise Refused(400, "invalid_request_error", "one result a post")
        if events[0].get("type") not in ("user.tool_result", "user.custom_tool_result"):
            raise Refused(403, "permission_error", f"event {events[0].get('type')} from a worker")
        if not self.active(s):
            raise Refused(400, "invalid_request_error", "a result without a lease")
        if self.faults.get("post_500"):
            self.faults["post_500"] -= 1
            raise Refused(503, "overloaded_error", "later", violation=False)
        return 200, {"data": [s.answer(events[0])]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub = None

    def log_message(self, *args):
        pass

    def reply(self, status, doc, retry_after=None):
        body = b"" if status == 204 else doc if isinstance(doc, bytes) else json.dumps(doc).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("content-type", "application/binary" if isinstance(doc, bytes) else "application/json")
            self.send_header("content-length", str(len(body)))
        if retry_after is not None:
            self.send_header("retry-after", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def need(self, *bearers, beta=BETA):
        got = self.headers.get("authorization", "")
        if self.headers.get("x-api-key"):
            raise Refused(401, "authentication_error", "x-api-key on a worker's call")
        if got not in ["Bearer " + b for b in bearers if b]:
            raise Refused(401, "authentication_error", "wrong credential for this route")
        if beta not in self.headers.get("anthropic-beta", ""):
            raise Refused(400, "invalid_request_error", "no beta header")
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", self.headers.get("anthropic-version", "")):
            raise Refused(400, "invalid_request_error", "no version header")
        if not re.search("application/(json|binary)", self.headers.get("accept", "")):
            raise Refused(400, "invalid_request_error", "no accept header")
        if not self.headers.get("user-agent"):
            raise Refused(400, "invalid_request_error", "no user agent")

    def route(self, method):
        path, _, query = self.path.partition("?")
        q = {}
        from urllib.parse import parse_qsl
        q.update(parse_qsl(query))
        length = self.headers.get("content-length")
        raw = self.rfile.read(int(length)) if length else b""
        if method == "POST" and length is None:
            raise Refused(411, "invalid_request_error", "POST without content-length")
        stub = self.stub
        body = json.loads(raw) if raw else None
        if path.startswith("/_stub/"):
            return self.control(path, body)
        if stub.faults.get("down", 0) > time.time():
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        stub.log.append({"at": time.time(), "method": method, "path": path, "query": q,
                         "worker": self.headers.get("anthropic-worker-id")})
        m = re.fullmatch(r"/v1/environments/([^/]+)/work/poll", path)
        if m and method == "GET":
            self.need(stub.key)
            if m[1] != stub.env:
                raise Refused(404, "not_found_error", "environment")
            if not self.headers.get("anthropic-worker-id"):
                raise Refused(400, "invalid_request_error", "no worker id")
            return stub.poll(q)
        m = re.fullmatch(r"/v1/environments/([^/]+)/work/([^/]+)/(ack|heartbeat|stop)", path)
        if m and method == "POST":
            item = stub.items.get(m[2])
            if m[1] != stub.env or not item:
                raise Refused(404, "not_found_error", "work item")
            if m[3] == "ack":
                self.need(stub.key)
                if raw:
                    raise Refused(400, "invalid_request_error", "ack with a body")
                return stub.ack(item)
            # A poller's own stop may show the key; a heartbeat must show the item's token where there is one.
            self.need(item.session.token or stub.key)
            return stub.heartbeat(item, q) if m[3] == "heartbeat" else stub.stop(item, body)
        m = re.fullmatch(r"/v1/sessions/([^/]+)(/events(/stream)?)?", path)
        if m:
            s = stub.sessions.get(m[1])
            if not s:
                raise Refused(404, "not_found_error", "session")
            self.need(s.token or stub.key)
            if m[3]:
                return self.stream(s)
            if m[2]:
                if method == "POST":
                    out = stub.post_events(s, body)
                    if stub.faults.get("post_lost"):
                        stub.faults["post_lost"] -= 1
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return None
                    return out
                return stub.list_events(s, q)
            return stub.session_get(s)
        m = re.fullmatch(r"/v1/memory_stores/([^/]+)/memories(?:/([^/]+))?", path)
        if m and m[1] in stub.stores:
            s, store = stub.stores[m[1]]
            # The environment key opens no memory store.
            self.need(s.token, beta="agent-memory-2026-07-22")
            return self.memory(method, s, m[1], store, m[2], q, body)
        m = re.fullmatch(r"/v1/skills/([^/]+)/versions/([^/]+)(/content)?", path)
        if m and method == "GET":
            for s in stub.sessions.values():
                if m[1] in s.skills:
                    if self.headers.get("authorization") not in ("Bearer " + stub.key, f"Bearer {s.token}"):
                        raise Refused(401, "authentication_error", "wrong credential for this route")
                    skill = s.skills[m[1]]
                    if not m[3]:
                        return 200, {"type": "skill_version", "id": "skillver_" + m[1], "name": skill["name"], "version": "1"}
                    if m[2] != "skillver_" + m[1]:
                        raise Refused(400, "invalid_request_error", "content of a version by an alias")
                    return 200, base64.b64decode(skill["archive"])
        raise Refused(404, "not_found_error", "no such route: " + method + " " + path)

    def memory(self, method, s, sid, store, mid, q, body):
        resource = next((r for r in s.extra.get("resources", []) if r.get("memory_store_id") == sid), None)
        if not resource:
            raise Refused(403, "permission_error", "not attached")
        if method != "GET" and resource.get("access") == "read_only":
            raise Refused(403, "permission_error", "a write to a store that is read-only")
        if not mid and method == "GET":
            full = q.get("view") == "full"
            limit = min(int(q.get("limit", "20")), 20 if full else 100, 3)  # short pages, so that paging is seen
            docs = sorted(store.docs.values(), key=lambda d: d["path"])
            start = int(q.get("page", "m0")[1:])
            data = [dict(d, content=d["content"] if full else None) for d in docs[start:start + limit]]
            return 200, {"data": data, "next_page": f"m{start + limit}" if start + limit < len(docs) else None}
        if not mid and method == "POST":
            return 200, store.put(body["path"], body["content"])
        doc = store.docs.get(mid)
        if not doc:
            raise Refused(404, "not_found_error", "memory", violation=False)
        if method == "GET":
            return 200, doc if q.get("view") == "full" else dict(doc, content=None)
        if method == "DELETE":
            if q.get("expected_content_sha256") != doc["content_sha256"]:
                raise Refused(409, "memory_precondition_failed_error", "changed", violation=False)
            del store.docs[mid]
            return 200, {"type": "memory_deleted", "id": mid}
        if body["precondition"]["content_sha256"] != doc["content_sha256"]:
            raise Refused(409, "memory_precondition_failed_error", "changed", violation=False)
        return 200, store.put(doc["path"], body["content"], mid)

    def control(self, path, body):
        stub = self.stub
        if path == "/_stub/fault":
            for k, v in body.items():
                if k == "down":
                    v = time.time() + v
                stub.faults[k] = v
        elif path == "/_stub/event":
            s = stub.sessions[body["session"]]
            e = s.put(body["event"])
            if e["type"] == "session.status_terminated":
                s.status = "terminated"
        elif path == "/_stub/enqueue":
            stub.enqueue(stub.sessions[body["session"]])
        elif path == "/_stub/memory":
            store = stub.stores[body["store"]][1]
            for mid in [m for m, d in store.docs.items() if d["path"] == body["path"]]:
                store.put(body["path"], body["content"], mid) if body["content"] is not None else store.docs.pop(mid)
                break
            else:
                store.put(body["path"], body["content"])
        elif path == "/_stub/add":
            stub.add(body)
        elif path == "/_stub/finish":
            for s in stub.sessions.values():
                s.turns = []
        return 200, {
            "violations": stub.violations, "log": stub.log,
            "memory": {k: {d["path"]: d["content"] for d in v[1].docs.values()} for k, v in stub.stores.items()},
            "items": [{"id": i.id, "session": i.session.id, "state": i.state, "beats": i.beats,
                       "stopped_by_worker": i.stopped_by_worker} for i in stub.items.values()],
            "sessions": {s.id: {"events": s.events, "status": s.status, "open": s.open, "streams": s.streams,
                                "left": len(s.turns) + (s.turn is not None),
                                "results": [dict(s.results.get(c, {"missing": True}), call=c, name=s.calls[c]["name"])
                                            for c in s.order]}
                         for s in stub.sessions.values()},
        }

    def stream(self, s):
        stub = self.stub
        if not stub.active(s):
            raise Refused(400, "invalid_request_error", "stream before the first heartbeat")
        if not any(i.got_session for i in stub.active(s)):
            raise Refused(400, "invalid_request_error", "stream before the session was read")
        s.streams += 1
        s.streamed_since_item = True
        sent, position = 0, len(s.events)
        stub.lock.release()
        try:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            self.wfile.write(b": hello\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\n")
            if stub.faults.get("garbage"):
                self.wfile.write(b"data: {\"type\":\"agent.tool_use\",\"id\":\"no_event_line\"}\n\n"
                                 b"event: x\ndata: {broken\n\nevent: y\ndata: [1,2]\n\n: only a comment\n\n"
                                 b"event: z\r\ndata: {\"type\":\r\ndata: \"a.kind.of.next.year\"}\r\n\r\n")
            while True:
                with stub.lock:
                    if stub.faults.get("down", 0) > time.time():
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return None
                    while position >= len(s.events):
                        if not stub.changed.wait(0.5):
                            break
                        if stub.faults.get("down", 0) > time.time():
                            return None
                    new, position = s.events[position:], len(s.events)
                if not new:
                    self.wfile.write(b"event: ping\ndata: {\"type\":\"ping\"}\n\n")
                for event in new:
                    frame = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                    if stub.faults.get("break_stream") and sent >= stub.faults["break_stream"]:
                        self.wfile.write(frame[:len(frame) // 2])
                        return None
                    if stub.faults.get("slow_stream"):
                        for i in range(0, len(frame), 16):
                            self.wfile.write(frame[i:i + 16])
                            self.wfile.flush()
                            time.sleep(stub.faults["slow_stream"])
                    else:
                        self.wfile.write(frame)
                    sent += 1
        except OSError:
            return None
        finally:
            stub.lock.acquire()

    def handle_request(self, method):
        stub = self.stub
        with stub.lock:
            try:
                out = self.route(method)
            except Refused as e:
                if e.violation:
                    stub.violations.append(f"{method} {self.path}: {e}")
                error = {"type": e.kind, "message": str(e)}
                if e.details:
                    error["details"] = e.details
                out = e.status, {"type": "error", "error": error}, e.retry_after
            except OSError:
                return
        if out:
            try:
                self.reply(*out)
            except OSError:
                pass

    def do_GET(self):
        self.handle_request("GET")

    def do_POST(self):
        self.handle_request("POST")

    def do_DELETE(self):
        self.handle_request("DELETE")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--script", required=True)
    p.add_argument("--port-file", required=True)
    p.add_argument("--port", type=int, default=0)
    a = p.parse_args()
    with open(a.script, encoding="utf-8") as f:
        Handler.stub = Stub(json.load(f))
    server = Server(("127.0.0.1", a.port), Handler)
    with open(a.port_file + ".new", "w", encoding="utf-8") as f:
        f.write(str(server.server_address[1]))
    import os
    os.rename(a.port_file + ".new", a.port_file)
    server.serve_forever()


if __name__ == "__main__":
    main()
