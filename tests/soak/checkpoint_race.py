#!/usr/bin/env python3
"""Everything that a store can be asked, at once and for a while, and kill -9 at random: what should be there in the end is there
and is what it was.

usage: checkpoint_race.py --build DIR --dir SCRATCH --seconds N

Three write checkpoints of trees that change (one of them encrypted), one prunes, one collects, two unpack and compare, two start
sandboxes from a checkpoint, fork them and snapshot those. Every third command is killed at a moment of its life. Prints counts;
status 1 and what was wrong if anything was.
"""
import argparse
import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../lib"))
import generations  # noqa: E402

KEEP = 3

parser = argparse.ArgumentParser()
for name in ("build", "dir"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--seconds", type=int, required=True)
args = parser.parse_args()
store, root = args.dir + "/store", args.dir + "/run"
pinfold = [args.build + "/bin/pinfold", "--root", root, "--store", store]
helper = [args.build + "/libexec/pinfold/pinfold-store", "--root", root, "--store", store]
os.environ["PINFOLD_KEY"] = "file:" + args.dir + "/key"
end = time.monotonic() + args.seconds
counts, wrong = collections.Counter(), []
lock = threading.Lock()
hashes = {}  # name -> what the tree was
attempts = collections.defaultdict(list)  # sandbox -> [name, known to be there]


def fault(text):
    with lock:
        wrong.append(text)


def run(what, command, rng, kill=1 / 3, **kw):
    """Status and output; None when it was killed. What else is a fault the caller knows."""
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **kw)
    killed = False
    if rng.random() < kill:
        try:
            out, err = done.communicate(timeout=rng.expovariate(1 / 0.15))
        except subprocess.TimeoutExpired:
            killed = True
            if rng.random() < 0.5:
                done.kill()  # it alone: its helper finds out
            else:
                os.killpg(done.pid, signal.SIGKILL)
    try:
        out, err = done.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        fault(f"{what}: hangs: {command}")
        os.killpg(done.pid, signal.SIGKILL)
        out, err = done.communicate()
        killed = True
    with lock:
        counts[what + (" killed" if killed else " failed" if done.returncode else "")] += 1
    return None if killed else (done.returncode, out.decode(), err.decode())


def writer(number):
    rng = random.Random(number)
    tree, sandbox = f"{args.dir}/upper{number}", f"writer{number}"
    os.mkdir(tree)
    n = 0
    while time.monotonic() < end:
        n += 1
        generations.edit(tree, rng.random(), 30)
        name = f"{sandbox}-{n}"
        hashes[name] = generations.tree_hash(tree)
        asked = {"sandbox_id": sandbox, "name": name, "base_image": {"ref": "host", "digest": host}}
        with open(args.dir + f"/ask{number}", "w") as f:
            json.dump(asked, f)
            f.write("\n")
        fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
        env = {**os.environ, "PINFOLD_ENCRYPT": "yes" if number == 2 else "no"}
        with open(args.dir + f"/ask{number}") as f:
            got = run("snapshot", helper + ["snapshot-write", "--upper-fd", str(fd)], rng, stdin=f, pass_fds=[fd], env=env)
        os.close(fd)
        attempts[sandbox].append((name, got is not None))
        if got and got[0]:
            fault(f"{name}: {got[2]}")


def pruner():
    rng = random.Random(100)
    while time.monotonic() < end:
        got = run("prune", helper + ["checkpoint", "prune", "--keep-last", str(KEEP)], rng)
        if got and got[0]:
            fault("prune: " + got[2])
        time.sleep(rng.random() * 0.5)


def collector():
    rng = random.Random(101)
    while time.monotonic() < end:
        got = run("gc", helper + ["checkpoint", "gc"], rng)
        if got and got[0]:
            fault("gc: " + got[2])
        elif got and json.loads(got[1]).get("kept_all"):
            fault("gc kept all: " + got[1])
        time.sleep(rng.random() * 0.5)


def all_names():
    done = subprocess.run(helper + ["checkpoint", "ls", "--json"], stdout=subprocess.PIPE, check=True)
    return [c["name"] for c in json.loads(done.stdout)]


def some_names(rng):
    """Which one, for the how-maniest time, for as long as there is time."""
    n = 0
    while time.monotonic() < end:
        names = all_names()
        if names:
            n += 1
            yield n, rng.choice(names)
        else:
            time.sleep(0.2)


def unpacked(name):
    done = subprocess.run(helper + ["checkpoint", "inspect", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        return None
    ids = [layer["id"] for layer in json.loads(done.stdout)["layers"]]
    return f"{store}/checkpoints/unpacked/{ids[-1].replace(':', '-')}/fs"


def restorer(number):
    """prepare, verify and export; what is pruned meanwhile may be gone, what is there must be right."""
    rng = random.Random(200 + number)
    for n, name in some_names(rng):
        what = rng.choice(["prepare", "verify", "export"])
        to = f"{args.dir}/out{number}-{n}"
        more = ["--to", "oci:" + to] if what == "export" else []
        got = run(what, helper + ["checkpoint", what, name, *more], rng)
        if got and got[0] and name in all_names():
            fault(f"{what} {name}: {got[2]}")
        subprocess.run(["rm", "-rf", to], check=True)


def sandboxes(number):
    """From a checkpoint to a sandbox, a snapshot of that, a fork of it."""
    rng = random.Random(300 + number)
    for n, name in some_names(rng):
        ids = [f"race{os.getpid()}-{number}-{n}{x}" for x in "ab"]
        got = run("create --from", pinfold + ["create", ids[0], "--from", name], rng, kill=0)
        if got[0]:
            if name in all_names():
                fault(f"create --from {name}: {got[2]}")
            continue
        mark = f"mark-{number}-{n}"
        subprocess.run(pinfold + ["exec", ids[0], "--", "sh", "-c", f"echo {mark} >/{mark}"], check=True, stdout=subprocess.DEVNULL)
        child = f"child{number}-{n}"
        got = run("live snapshot", pinfold + ["snapshot", ids[0], "--name", child], rng)
        if got and got[0]:
            fault(f"snapshot {ids[0]}: {got[2]}")
        if got is None:  # killed while it stood still
            subprocess.run(pinfold + ["resume", ids[0]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        attempts[ids[0]].append((child, got is not None))
        if got and not got[0]:
            got = run("fork", pinfold + ["fork", child, ids[1]], rng, kill=0)
            if got[0]:
                fault(f"fork {child}: {got[2]}")
            else:
                seen = subprocess.run(pinfold + ["exec", ids[1], "--", "cat", "/" + mark], stdout=subprocess.PIPE, check=False)
                if seen.stdout.decode() != mark + "\n":
                    fault(f"fork {child}: {mark} is not there")
        for sandbox in ids:
            subprocess.run(pinfold + ["destroy", "--discard", sandbox], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def guarded(fn, *a):
    try:
        fn(*a)
    except Exception as e:  # pylint: disable=broad-except
        fault(f"{fn.__name__}{a}: {e!r}")


os.makedirs(store, mode=0o700)
os.makedirs(root, mode=0o700)
with open(os.open(args.dir + "/key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
    f.write(os.urandom(32))
host = json.loads(subprocess.run(pinfold + ["image", "inspect", "host"], stdout=subprocess.PIPE, check=True).stdout)["digest"]
workers = [(writer, 0), (writer, 1), (writer, 2), (pruner,), (collector,), (restorer, 0), (restorer, 1), (sandboxes, 0), (sandboxes, 1)]
threads = [threading.Thread(target=guarded, args=w) for w in workers]
for t in threads:
    t.start()
for t in threads:
    t.join()

# ---- what is there now ----
rng = random.Random(1)
got = run("gc", helper + ["checkpoint", "gc"], rng, kill=0)
if got[0]:
    fault("gc: " + got[2])
listed = {c["name"]: c for c in json.loads(subprocess.run(helper + ["checkpoint", "ls", "--json"], stdout=subprocess.PIPE, check=True).stdout)}
expected = 0
for sandbox, tried in attempts.items():
    # Of each sandbox the last three stay; one that was killed may count as one of them.
    for name, known in tried[-KEEP:]:
        if known and sandbox.startswith("writer"):
            expected += 1
            if name not in listed:
                fault(f"{name} is lost")
verified = subprocess.run(helper + ["checkpoint", "verify", "--all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
if verified.returncode:
    fault("verify: " + verified.stdout.decode() + verified.stderr.decode())
compared = 0
for name in listed:
    if name in hashes:
        subprocess.run(helper + ["checkpoint", "prepare", name], stdout=subprocess.DEVNULL, check=True)
        if generations.tree_hash(unpacked(name)) != hashes[name]:
            fault(f"{name} comes back as something else")
        compared += 1
if os.listdir(store + "/checkpoints/tmp"):
    fault("left in tmp: %s" % os.listdir(store + "/checkpoints/tmp"))
# And when all of them go, so does every byte.
subprocess.run(helper + ["checkpoint", "prune", "--keep-last", "0"], stdout=subprocess.DEVNULL, check=True)
subprocess.run(helper + ["checkpoint", "gc"], stdout=subprocess.DEVNULL, check=True)
for part in ("manifests", "layers", "packs", "tmp", "unpacked"):
    there = [n for n in os.listdir(f"{store}/checkpoints/{part}")]
    if there:
        fault(f"left in {part}: {there[:5]} ({len(there)})")
print(json.dumps({"seconds": args.seconds, "listed": len(listed), "expected": expected, "compared": compared,
                  "counts": dict(sorted(counts.items())), "wrong": wrong[:20], "wrongs": len(wrong)}, indent=1))
sys.exit(1 if wrong else 0)
