"""What is measured. Each function measures one thing, interleaved (A B C A B C ...), into Bench.series."""

import json
import os
import random
import re
import shutil
import subprocess

from jails import jails
from stopwatch import Failed

CONFIG = {
    "resources": {"cpus": 2, "memory": "512M", "pids": 256},
    "networking": {"type": "limited", "allowed_hosts": [f"host{i}.example.com" for i in range(10)]},
}


class Pinfold:
    def __init__(self, program, timer, work, state):
        self.program, self.timer, self.work = program, timer, work
        self.state, self.store = f"{state}/pinfold", f"{work}/store"
        self.config = self.write_config("sandbox", CONFIG)
        self.ids = set()

    def write_config(self, name, document):
        path = f"{self.work}/{name}.json"
        with open(path, "w", encoding="utf-8") as f:
            json.dump(document, f)
        return path

    def command(self, *args):
        return [self.program, "--root", self.state, "--store", self.store, *args]

    def new_id(self):
        name = f"pfb{os.getpid()}-{len(self.ids)}"
        self.ids.add(name)
        return name

    def create(self, name, *options, config=None):
        return self.timer.run(self.command("create", name, "--config", config or self.config, *options))

    def execute(self, name, *argv, output=False):
        return self.timer.run(self.command("exec", name, "--", *argv), output)

    def destroy(self, name):
        return self.timer.run(self.command("destroy", name))

    def json(self, *args):
        p = subprocess.run(self.command(*args), capture_output=True, text=True, timeout=120, check=False)
        if p.returncode:
            raise Failed(f"pinfold {' '.join(args)}: {p.stderr.strip()}")
        return json.loads(p.stdout)

    def clean(self):
        for name in self.ids:
            if os.path.exists(f"{self.state}/{name}") or os.path.exists(f"{self.store}/sandboxes/{name}"):
                self.timer.try_run(self.command("destroy", name))


def _first(b, key, result):
    b.add(key, result["first_ms"] if result["first_ms"] is not None else result["ms"])


def lives(b):
    """create, first output, exec, destroy: one round of everybody's life cycle after another's."""
    pf, echo = b.pinfold, ["/usr/bin/echo", "x"]
    for _ in range(b.rounds):
        name = pf.new_id()
        created = pf.create(name)
        first = pf.execute(name, *echo, output=True)
        destroyed = pf.destroy(name)
        b.add("create.pinfold", created["ms"])
        b.add("rss.pinfold", created["rss_kib"])
        b.add("first.pinfold", created["ms"] + first["first_ms"])
        b.add("life.pinfold", created["ms"] + first["ms"] + destroyed["ms"])
        for peer in b.oci:
            bundle = peer.bundle("run", echo)
            name = peer.new_id()
            r = peer.timer.run(peer.command("run", "--bundle", bundle, name), True)
            _first(b, f"first.{peer.name}", r)
            b.add(f"life.{peer.name}", r["ms"])
        if b.bwrap:
            r = b.peer_timer.run(b.bwrap(*echo), True)
            _first(b, "first.bwrap", r)
            b.add("life.bwrap", r["ms"])
        for peer in b.oci:
            bundle = peer.bundle("sleep", ["/usr/bin/sleep", "1000"])
            name = peer.new_id()
            r = peer.timer.run(peer.command("create", "--bundle", bundle, name))
            b.add(f"create.{peer.name}", r["ms"])
            b.add(f"rss.{peer.name}", r["rss_kib"])
            peer.timer.run(peer.command("start", name))
            b.add(f"destroy.{peer.name}", peer.delete(name)["ms"])
        name = pf.new_id()
        pf.create(name)
        b.add("destroy.pinfold", pf.destroy(name)["ms"])


def execs(b):
    """exec of true into boxes that live."""
    pf = b.pinfold
    box = pf.new_id()
    pf.create(box)
    others = []
    try:
        for peer in b.oci:
            name = peer.new_id()
            peer.timer.run(peer.command("create", "--bundle", peer.bundle("sleep", ["/usr/bin/sleep", "1000"]), name))
            peer.timer.run(peer.command("start", name))
            others.append((peer, name))
        for _ in range(b.rounds * 2):
            b.add("exec.pinfold", pf.execute(box, "/usr/bin/true")["ms"])
            for peer, name in others:
                b.add(f"exec.{peer.name}", peer.timer.run(peer.command("exec", name, "/usr/bin/true"))["ms"])
            b.add("exec.bare", pf.timer.run(["/usr/bin/true"])["ms"])
    finally:
        for peer, name in others:
            peer.delete(name)
        pf.destroy(box)


def oci(b):
    """The operations of an OCI runtime on the same bundle, pinfold's beside the others'."""
    runtimes = [*b.oci, b.pinfold_oci]
    spec = b.oci[0] if b.oci else b.pinfold_oci
    true, sleep = ["/usr/bin/true"], ["/usr/bin/sleep", "1000"]
    for r in runtimes:
        for kind, argv in (("oci-true", true), ("oci-sleep", sleep)):
            r.copy_bundle(kind, spec.bundle(kind, argv))
    for _ in range(b.rounds):
        for r in runtimes:
            timed = {}
            name = r.new_id()
            timed["run"] = r.timer.run(r.command("run", "--bundle", r.bundle("oci-true", true), name))
            name = r.new_id()
            timed["create"] = r.timer.run(r.command("create", "--bundle", r.bundle("oci-sleep", sleep), name))
            timed["start"] = r.timer.run(r.command("start", name))
            timed["exec"] = r.timer.run(r.command("exec", name, *true))
            timed["state"] = r.timer.run(r.command("state", name))
            timed["delete"] = r.delete(name)
            for verb, result in timed.items():
                b.add(f"oci_{verb}.{r.name}", result["ms"])
            for verb in ("run", "create", "exec"):
                b.add(f"oci_rss_{verb}.{r.name}", timed[verb]["rss_kib"])


def destroys_full(b):
    """destroy with 20 000 files in the workspace."""
    pf = b.pinfold
    script = ("for d in $(seq 100); do mkdir d$d; cd d$d; for f in $(seq 200); do : >f$f; done; cd ..; done")
    for _ in range(2 if b.quick else 5):
        name = pf.new_id()
        pf.create(name)
        pf.execute(name, "/bin/bash", "-ec", "cd /workspace; " + script)
        b.add("destroy20k.pinfold", pf.destroy(name)["ms"])


def rates(b):
    """Sandboxes a second, eight being made at a time."""
    pf, n = b.pinfold, 16 if b.quick else 64
    for turn in range(1 if b.quick else 3):
        prefix = f"pfb{os.getpid()}-r{turn}-"
        pf.ids.update(f"{prefix}{i}" for i in range(n))
        b.add("rate.pinfold", pf.timer.rate(n, 8, pf.command("create", prefix + "{}", "--config", pf.config)))
        pf.timer.run(pf.command("destroy", *(f"{prefix}{i}" for i in range(n))))
        for peer in b.oci:
            prefix = f"pfb-{peer.name}-{os.getpid()}-r{turn}-"
            for i in range(n):
                peer.own_group("sleep", f"r{turn}-{i}")
                peer.ids.add(f"{prefix}{i}")
            b.add(f"rate.{peer.name}", peer.timer.rate(n, 8, peer.command(
                "create", "--bundle", f"{peer.work}/{peer.name}-r{turn}-{{}}", prefix + "{}")))
            for i in range(n):
                peer.delete(f"{prefix}{i}")
        if b.bwrap:
            b.add("rate.bwrap", b.peer_timer.rate(n, 8, b.bwrap("/usr/bin/true")))


def many(b):
    """create beside five hundred sandboxes that live."""
    pf, alive = b.pinfold, 500
    prefix = f"pfb{os.getpid()}-m"
    names = [f"{prefix}{i}" for i in range(alive)]
    pf.ids.update(names)
    pf.timer.rate(alive, 2, pf.command("create", prefix + "{}", "--config", pf.config))
    for _ in range(b.rounds):
        name = pf.new_id()
        b.add("create500.pinfold", pf.create(name)["ms"])
        pf.destroy(name)
    for i in range(0, alive, 100):
        pf.timer.run(pf.command("destroy", *names[i:i + 100]))


def _private_kib(pid):
    total = 0
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        for line in f:
            if line.startswith(("Private_Clean:", "Private_Dirty:")):
                total += int(line.split()[1])
    return total


def _kernel_kib():
    total = 0
    with open("/proc/meminfo", encoding="ascii") as f:
        for line in f:
            # SReclaimable is left out: caches, which the machine's other doings fill and empty.
            if line.startswith(("SUnreclaim:", "KernelStack:", "PageTables:", "Percpu:")):
                total += int(line.split()[1])
    return total


def memory(b):
    """Private memory of idle sandboxes, and what the kernel keeps for each and its keeper. The latter is the growth of
    the whole machine's figures, so it is the median of several and means little on a busy machine."""
    pf, n = b.pinfold, 8 if b.quick else 32
    for _ in range(1 if b.quick else 3):
        names = [pf.new_id() for _ in range(n)]
        before = _kernel_kib()
        for name in names:
            pf.create(name)
        b.add("kernel_kib.pinfold", (_kernel_kib() - before) / n)
        for name in names:
            state = pf.json("state", name)
            b.add("keeper_kib.pinfold", _private_kib(state["pinfold"]["keeper"]))
            b.add("init_kib.pinfold", _private_kib(state["pid"]))
        pf.timer.run(pf.command("destroy", *names))


def startup(b):
    """The program alone: what is paid before main, and the dynamic loader's part of it."""
    for _ in range(b.rounds * 2):
        b.add("start.pinfold", b.pinfold.timer.run([b.pinfold.program, "--version"])["ms"])
        for peer in b.oci:
            b.add(f"start.{peer.name}", peer.timer.run([peer.program, "--version"])["ms"])
    loader = subprocess.run([b.pinfold.program, "--version"], capture_output=True, text=True, check=False,
                            env={**os.environ, "LD_DEBUG": "statistics"}).stderr
    for label, key in (("total startup time in dynamic loader", "loader_cycles"),
                       ("number of relocations", "relocations")):
        m = re.search(label + r":\s*(\d+)", loader)
        if m:
            b.facts[key] = int(m.group(1))


def make_tree(path, files):
    """The same tree on every machine: text-like files, most of them small, 140 MB for 20 400 files."""
    rng = random.Random(20400)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(20000)]
    # Squared, so that some words are common, as in text.
    pool = " ".join(words[int(rng.random() ** 2 * len(words))] for _ in range(3000000)).encode()
    for i in range(files):
        d = f"{path}/d{i % 120:03}/s{i % 7}"
        if i < 840:
            os.makedirs(d, exist_ok=True)
        size = int(rng.expovariate(1 / 6860))
        at = rng.randrange(len(pool) - 200000)
        with open(f"{d}/f{i:05}.txt", "wb") as f:
            f.write(pool[at:at + min(size, 200000)])


def tree_files(b):
    return 2000 if b.quick else 20400


def checkpoints(b):
    """A full snapshot of a tree and its way back, beside tar and zstd over the same tree."""
    pf, tree, files = b.pinfold, f"{b.work}/tree", tree_files(b)
    if not shutil.which("zstd"):
        raise Failed("zstd is not installed")
    os.makedirs(tree)
    make_tree(tree, files)
    config = pf.write_config("tree", {"filesystem": {"mounts": [{"source": tree, "target": "/tree"}]}})
    box = pf.new_id()
    pf.create(box, config=config)
    pf.execute(box, "/bin/cp", "-a", "/tree", "/workspace/tree")
    archive, out = f"{b.work}/tree.tar.zst", f"{b.work}/untarred"
    rounds = 2 if b.quick else 7
    for turn in range(rounds):
        b.add("snapshot.tar", pf.timer.run(
            ["sh", "-ec", 'tar -C "$1" -cf - . | zstd -q -f -3 -T0 -o "$2"', "sh", tree, archive])["ms"])
        name = f"bench{turn}"
        b.add("snapshot.pinfold", pf.timer.run(pf.command("snapshot", box, "--name", name))["ms"])
        if turn < rounds - 1:
            pf.timer.run(pf.command("checkpoint", "rm", name))
    again = pf.timer.run(pf.command("snapshot", box, "--name", "unchanged"))
    b.add("snapshot_same.pinfold", again["ms"])
    details = pf.json("snapshot", box, "--name", "details")
    b.facts["snapshot"] = {k: v for k, v in details.items() if isinstance(v, (int, float))}
    b.facts["archive_bytes"] = os.path.getsize(archive)
    pf.destroy(box)
    for _ in range(rounds):
        os.makedirs(out)
        b.add("restore.tar", pf.timer.run(
            ["sh", "-ec", 'zstd -q -dc "$1" | tar -C "$2" -xf -', "sh", archive, out])["ms"])
        shutil.rmtree(out)
        for unpacked in os.scandir(f"{pf.store}/checkpoints/unpacked"):
            shutil.rmtree(unpacked.path)
        for kind in ("restore", "restore_stacked"):
            name = pf.new_id()
            b.add(f"{kind}.pinfold", pf.create(name, "--from", name_of_last(rounds), config=config)["ms"])
            pf.destroy(name)


def name_of_last(rounds):
    return f"bench{rounds - 1}"


ALL = [lives, execs, oci, jails, destroys_full, rates, memory, startup, checkpoints, many]
