"""The worker beside the platform's SDK, against the tests' control plane: ours runs tools in a sandbox, the SDK on the bare host.
Nothing is measured on their side: the control plane notes when it hands an event out and when its answer comes in."""

import base64
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from stopwatch import Failed, summary

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tests/worker")
ENV, KEY = "env_bench", "sk-ant-oat01-BENCH"
TRUE = {"name": "bash", "input": {"command": "true"}}
CALLS = 20


class Plane:
    """The stub with sessions of two turns: one call, then CALLS of them."""

    def __init__(self, bench, ids, calls=CALLS):
        self.dir = tempfile.mkdtemp(prefix="worker.", dir=bench.work)
        sessions = [{"id": i, "turns": [{"calls": [TRUE]}, {"calls": [TRUE] * calls}]} for i in ids]
        with open(f"{self.dir}/script.json", "w", encoding="utf-8") as f:
            json.dump({"environment_id": ENV, "key": KEY, "ttl": 60, "sessions": sessions}, f)
        self.process = subprocess.Popen([sys.executable, f"{TESTS}/stub.py", "--script", f"{self.dir}/script.json",
                                         "--port-file", f"{self.dir}/port"], start_new_session=True)
        while not os.path.exists(f"{self.dir}/port"):
            if self.process.poll() is not None:
                raise Failed("the control plane ended")
            time.sleep(0.01)
        with open(f"{self.dir}/port", encoding="utf-8") as f:
            self.url = "http://127.0.0.1:" + f.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def state(self):
        state = json.load(urllib.request.urlopen(f"{self.url}/_stub/state"))
        if state["violations"]:
            raise Failed("the control plane: " + state["violations"][0])
        return state

    def call(self, method, path):
        headers = {"Authorization": f"Bearer {KEY}", "accept": "application/json", "anthropic-version": "2023-06-01",
                   "anthropic-beta": "managed-agents-2026-04-01", "anthropic-worker-id": "bench", "user-agent": "bench"}
        request = urllib.request.Request(self.url + path, b"" if method == "POST" else None, headers, method=method)
        return json.load(urllib.request.urlopen(request))


def figures(state, session):
    """(milliseconds from an event to its answer, of the second turn; from its acknowledgement to its first answer)"""
    s = state["sessions"][session]
    begun = {e["id"]: datetime.datetime.fromisoformat(e["processed_at"].replace("Z", "+00:00")).timestamp() for e in s["events"]}
    results = s["results"]
    if len(results) != CALLS + 1 or any(r.get("missing") or r["is_error"] for r in results):
        raise Failed("a call was not answered as it should be")
    items = [i["id"] for i in state["items"] if i["session"] == session]
    acks = [e["at"] for e in state["log"] if e["path"].endswith(f"/{items[1]}/ack")]
    return [(r["at"] - begun[r["call"]]) * 1000 for r in results[2:]], (results[1]["at"] - acks[0]) * 1000


def worker_argv(bench, plane, *more):
    p = bench.pinfold
    return [os.path.join(os.path.dirname(p.program), "pinfold-worker"), "--environment-id", ENV, "--base-url", plane.url, "--root",
            p.state, "--store", p.store, "--state-dir", f"{plane.dir}/state", "--max-idle", "200ms", "--drain", *more]


def run_ours(bench, plane, *more):
    with open(f"{plane.dir}/log", "w+", encoding="utf-8") as log:
        r = subprocess.run(worker_argv(bench, plane, *more), env=dict(os.environ, ANTHROPIC_ENVIRONMENT_KEY=KEY),
                           stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=300, check=False, start_new_session=True)
        log.seek(0)
        text = log.read()
    if r.returncode:
        raise Failed("pinfold-worker: " + text[-300:])
    return text


def sdk(bench):
    """Where the SDK and a Node.js for it are; the tests keep them in the same place."""
    at = os.path.abspath(os.path.join(os.path.dirname(bench.pinfold.program), "../sdk"))
    if not os.path.exists(f"{at}/complete"):
        try:
            os.makedirs(at, exist_ok=True)
            subprocess.run(["npm", "install", "--prefix", at, "--silent", "--no-audit", "--no-fund", "@anthropic-ai/sdk@1.11.0",
                            "node@22"], check=True, timeout=300, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.SubprocessError) as e:
            raise Failed("the SDK cannot be fetched with npm") from e
        open(f"{at}/complete", "w", encoding="utf-8").close()
    shutil.copy(os.path.join(TESTS, "../../examples/inside/worker.mjs"), at)
    return at


def run_sdk(plane, at):
    for _ in range(2):
        item = None
        while not item:
            item = plane.call("GET", f"/v1/environments/{ENV}/work/poll?block_ms=900&reclaim_older_than_ms=5000")
        plane.call("POST", f"/v1/environments/{ENV}/work/{item['id']}/ack")
        env = dict(os.environ, ANTHROPIC_WORK_ID=item["id"], ANTHROPIC_ENVIRONMENT_ID=ENV, ANTHROPIC_SESSION_ID=item["data"]["id"],
                   ANTHROPIC_WORK_SECRET=item["secret"], ANTHROPIC_BASE_URL=plane.url, PINFOLD_MAX_IDLE_MS="200")
        json.loads(base64.urlsafe_b64decode(item["secret"] + "=="))
        subprocess.run([f"{at}/node_modules/node/bin/node", f"{at}/worker.mjs"], env=env, cwd=plane.dir, timeout=60, check=True,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def worker(bench):
    """Tool calls and resuming, ours and the SDK's, session by session."""
    try:
        at = sdk(bench)
    except Failed as e:
        at, bench.failed["worker.sdk"] = None, str(e)
    for n in range(min(bench.rounds, 3 if bench.quick else 10)):
        for kind in ("pinfold", "sdk") if at else ("pinfold",):
            session = f"pfbw{os.getpid()}-{n}-{kind}"
            bench.pinfold.ids.add(session)
            with Plane(bench, [session]) as plane:
                try:
                    run_ours(bench, plane) if kind == "pinfold" else run_sdk(plane, at)
                except (subprocess.SubprocessError, urllib.error.URLError) as e:
                    raise Failed(f"{kind}: {e}") from e
                calls, resume = figures(plane.state(), session)
            for ms in calls:
                bench.add(f"worker_call.{kind}", ms)
            bench.add(f"worker_resume.{kind}", resume)


def private_kib(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
            return sum(int(m) for m in re.findall(r"^Private_(?:Clean|Dirty): +(\d+)", f.read(), re.M))
    except OSError:
        return 0


def ours_of(session):
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if session.encode() in f.read():
                    yield int(pid)
        except OSError:
            pass


def worker_many(bench):
    """Sessions at once, two items each: a fact, since it has no peer."""
    n = 10 if bench.quick else 50
    ids = [f"pfbm{os.getpid()}-{i}" for i in range(n)]
    bench.pinfold.ids.update(ids)
    with Plane(bench, ids) as plane:
        begun = time.monotonic()
        with open(f"{plane.dir}/log", "w+", encoding="utf-8") as log:
            p = subprocess.Popen(worker_argv(bench, plane, "--max-sessions", str(n)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 env=dict(os.environ, ANTHROPIC_ENVIRONMENT_KEY=KEY), start_new_session=True)
            memory = 0
            while p.poll() is None:
                # The keeper, and what runs inside: counted while a session is at its calls.
                some = [sum(private_kib(pid) for pid in ours_of(i)) for i in ids[:2]]
                memory = max([memory, *some])
                time.sleep(0.5)
                if time.monotonic() - begun > 280:
                    p.kill()
            took = time.monotonic() - begun
            log.seek(0)
            text = log.read()
        if p.returncode:
            raise Failed("pinfold-worker: " + text[-300:])
        state = plane.state()
    calls, answered = [], 0
    for i in ids:
        calls += figures(state, i)[0]
        answered += len(state["sessions"][i]["results"])
    made = [float(x) for x in re.findall(r"sandbox created in ([\d.]+) ms", text)]
    resumed = [float(x) for x in re.findall(r"sandbox resumed from its checkpoint in ([\d.]+) ms", text)]
    left = [i for i in ids if os.path.exists(f"{bench.pinfold.state}/{i}") or os.path.exists(f"{bench.pinfold.store}/sandboxes/{i}")]
    left += [str(pid) for i in ids for pid in ours_of(i)]

    def two(values):
        s = summary(values)
        return [round(s["p50"], 1), round(max(values), 1)]

    bench.facts[f"{n} sessions at once"] = {
        "items": 2 * n, "calls_answered_once": answered, "created_ms_p50_max": two(made), "resumed_ms_p50_max": two(resumed),
        "call_ms_p50_max": two(calls), "private_kib_per_session_max_seen": memory, "seconds": round(took, 1), "left": left}
