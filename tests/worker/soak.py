#!/usr/bin/env python3
"""Workers, runners, keepers and pinfold's own processes are killed with -9 at random, with sessions in flight, while the control
plane comes and goes: no session is lost, no result is posted twice, no file of an answered call is missing, nothing is left.

usage: soak.py --build DIR [--seconds N] [--sessions N] [--workers N] [--seed N] [--verbose]

Each call makes a file of its own and lists all: an answer that is no error must show the files of all answers before it. A call
that is hit by a kill may be answered with an error, or be run again; it may not be answered twice (the stub refuses that), nor
never. Ends with one line; status 1 if a promise was broken."""

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ENV, KEY = "env_soak", "sk-ant-oat01-SOAK"
DIED = re.compile(r"session terminated|tool process ended|was interrupted|told to stop|timed out")


class Soak:
    def __init__(self, o):
        self.o = o
        self.dir = tempfile.mkdtemp(prefix="pf.")
        self.root, self.store, self.state = (os.path.join(self.dir, d) for d in ("run", "store", "state"))
        os.mkdir(self.root, 0o700)
        os.mkdir(self.store, 0o700)
        self.log = open(os.path.join(self.dir, "worker.log"), "ab")
        self.workers, self.kills = [], collections.Counter()
        self.ids = [f"sesn_soak_{os.getpid()}_{i}" for i in range(o.sessions)]
        self.problems = []
        self.stub = self.url = None

    # ---- the control plane ----

    def start_stub(self):
        sessions = []
        for ident in self.ids:
            n, turns = 0, []
            for _ in range(400):
                calls = []
                for _ in range(3):
                    n += 1
                    pause = random.choice(("0", "0", "0.1", "0.4"))
                    calls.append({"name": "bash", "input": {"command": f"touch c{n}; sleep {pause}; echo $(ls | sort)"}})
                turns.append({"calls": calls})
            sessions.append({"id": ident, "turns": turns})
        script = os.path.join(self.dir, "script.json")
        with open(script, "w", encoding="utf-8") as f:
            json.dump({"environment_id": ENV, "key": KEY, "ttl": 2, "overlaps": True, "sessions": sessions}, f)
        port = os.path.join(self.dir, "port")
        self.stub = subprocess.Popen([sys.executable, os.path.join(HERE, "stub.py"), "--script", script, "--port-file", port])
        while not os.path.exists(port):
            time.sleep(0.05)
        with open(port, encoding="utf-8") as f:
            self.url = "http://127.0.0.1:" + f.read()

    def tell(self, route, body=None):
        data = json.dumps(body).encode() if body is not None else None
        return json.load(urllib.request.urlopen(urllib.request.Request(f"{self.url}/_stub/{route}", data), timeout=30))

    # ---- processes ----

    def start_worker(self):
        env = dict(os.environ, ANTHROPIC_ENVIRONMENT_KEY=KEY)
        self.workers.append(subprocess.Popen(
            [os.path.join(self.o.build, "bin/pinfold-worker"), "--environment-id", ENV, "--base-url", self.url, "--root", self.root,
             "--store", self.store, "--state-dir", self.state, "--max-idle", "300ms", "--max-sessions", str(len(self.ids)), "--keep", "3"],
            env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log))

    def keepers(self):
        found = set()
        for ident in self.ids:
            try:
                with open(os.path.join(self.root, ident, "state.json"), encoding="utf-8") as f:
                    found.add(json.load(f)["pinfold"]["keeper"])
            except (OSError, ValueError, KeyError):
                pass
        return found

    def ours(self):
        """What runs for us, by kind: (pid, kind). A keeper's command line is that of whoever made it."""
        polling, keepers = {w.pid for w in self.workers}, self.keepers()
        verbs = ("exec", "create", "snapshot", "destroy", "checkpoint", "state")
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().decode(errors="replace").split("\0")
            except OSError:
                continue
            if self.root not in words or pid == os.getpid():
                continue
            if pid in keepers:
                yield pid, "keeper"
            elif "worker" in os.path.basename(words[0]):
                yield pid, "poller" if pid in polling else "runner"
            else:
                yield pid, next((w for w in verbs if w in words), "pinfold")

    def kill_one(self):
        by_kind = collections.defaultdict(set)
        for pid, kind in self.ours():
            by_kind[kind].add(pid)
        if not by_kind:
            return
        kind = random.choice(sorted(by_kind))
        pid = random.choice(sorted(by_kind[kind]))
        try:
            os.kill(pid, signal.SIGKILL)
            self.kills[kind] += 1
        except ProcessLookupError:
            pass

    def tend(self):
        for w in list(self.workers):
            if w.poll() is not None:
                self.workers.remove(w)
                self.start_worker()

    # ---- the run ----

    def torment(self):
        end = time.monotonic() + self.o.seconds
        away_at = time.monotonic() + self.o.seconds * 0.4
        away = 20 if self.o.seconds >= 60 else 3
        while time.monotonic() < end:
            time.sleep(random.uniform(0.2, 1.2))
            self.kill_one()
            self.tend()
            chance = random.random()
            if away_at and time.monotonic() > away_at:
                self.tell("fault", {"down": away})
                self.kills[f"control plane away {away} s"] += 1
                away_at = None
            elif chance < 0.1:
                self.tell("fault", {"break_stream": random.choice((2, 5, None))})
            elif chance < 0.15:
                self.tell("fault", {"post_lost": 1})
            elif chance < 0.18:
                self.tell("enqueue", {"session": random.choice(self.ids)})
        self.tell("fault", {"break_stream": None, "post_lost": None})
        self.tell("finish", {})

    def settle(self):
        """Until every session's turns are done and every item has been stopped."""
        end = time.monotonic() + 200
        while time.monotonic() < end:
            self.tend()
            st = self.tell("state")
            left = [i for i, s in st["sessions"].items() if s["left"] or s["open"]]
            live = [i for i in st["items"] if i["state"] not in ("stopped", "lost")]
            if not left and not live:
                return st
            time.sleep(0.2)
        self.problems.append(f"not done: sessions {left}, items {live}")
        return st

    def judge(self, st):
        self.problems += [f"the stub: {v}" for v in st["violations"]]
        answers = errors = 0
        for ident, s in st["sessions"].items():
            sure = []
            for n, r in enumerate(s["results"], 1):
                if r.get("missing"):
                    self.problems.append(f"{ident}: call {n} was never answered")
                    continue
                answers += 1
                if r["is_error"]:
                    errors += 1
                    if not DIED.search(r["text"]):
                        self.problems.append(f"{ident}: call {n} failed: {r['text'][:200]}")
                    continue
                sure.append(f"c{n}")
                lost = set(sure) - set(r["text"].split())
                if lost:
                    self.problems.append(f"{ident}: call {n} misses the files {sorted(lost)[:5]}")
        return answers, errors

    def pinfold(self, *args):
        return subprocess.run([os.path.join(self.o.build, "bin/pinfold"), "--root", self.root, "--store", self.store, *args],
                              capture_output=True, text=True, check=False)

    def end(self):
        for w in self.workers:
            w.terminate()
        for w in self.workers:
            try:
                w.wait(60)
            except subprocess.TimeoutExpired:
                self.problems.append("a worker did not end when it was told to")
                w.kill()
                w.wait()
        # Those whose poller was killed end by themselves; keepers' last doings too.
        end = time.monotonic() + 40
        while time.monotonic() < end and list(self.ours()):
            time.sleep(0.2)

    def leaks(self):
        self.problems += [f"process {pid} ({kind}) is left" for pid, kind in self.ours()]
        gc = self.pinfold("gc")
        if gc.returncode:
            self.problems.append("gc: " + gc.stderr.strip())
        for ident in self.ids:
            for base, _, _ in os.walk("/sys/fs/cgroup"):
                if ident in os.path.basename(base):
                    self.problems.append(f"cgroup {base} is left")
            for top in (self.root, os.path.join(self.store, "sandboxes")):
                if os.path.exists(os.path.join(top, ident)):
                    self.problems.append(f"{top}/{ident} is left")
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            self.problems += [f"mount {line.strip()} is left" for line in f if self.dir in line]
        left = subprocess.run(["losetup", "-ln", "-O", "BACK-FILE"], capture_output=True, text=True, check=False).stdout
        if self.dir in left:
            self.problems.append("a loop device is left")
        for ident in self.ids:
            for c in self.pinfold("checkpoint", "ls", "--sandbox", ident, "--quiet").stdout.split():
                r = self.pinfold("checkpoint", "verify", c)
                if r.returncode:
                    self.problems.append(f"{ident}: {r.stderr.strip()}")

    def clean(self):
        for ident in self.ids:
            self.pinfold("destroy", ident)
        self.log.close()
        if self.problems:
            with open(os.path.join(self.dir, "worker.log"), encoding="utf-8", errors="replace") as f:
                lines = f.readlines()
            sys.stderr.writelines(lines if self.o.verbose else lines[-60:])
        shutil.rmtree(self.dir, ignore_errors=True)

    def run(self):
        answers = errors = items = 0
        try:
            self.start_stub()
            for _ in range(self.o.workers):
                self.start_worker()
            self.torment()
            st = self.settle()
            items = len(st["items"])
            answers, errors = self.judge(st)
            self.end()
            self.leaks()
        finally:
            for w in self.workers:
                if w.poll() is None:
                    w.kill()
                    w.wait()
            if self.stub:
                self.stub.terminate()
                self.stub.wait()
            self.clean()
        for p in self.problems:
            print("broken:", p)
        killed = ", ".join(f"{n} {k}" for k, n in sorted(self.kills.items()))
        print(f"{len(self.ids)} sessions, {items} items, {answers} answers once each, {errors} of them errors by a kill; {killed}; "
              f"{len(self.problems)} promises broken (seed {self.o.seed})")
        return 1 if self.problems or not answers else 0


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", required=True)
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--sessions", type=int, default=4)
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    p.add_argument("--verbose", action="store_true")
    o = p.parse_args()
    random.seed(o.seed)
    sys.exit(Soak(o).run())


if __name__ == "__main__":
    main()
