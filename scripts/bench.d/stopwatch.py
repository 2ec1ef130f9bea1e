"""Starting commands and timing them, through tests/helpers/bench_timer.c; statistics; what machine this is."""

import os
import platform
import statistics
import subprocess


class Failed(Exception):
    """A measured command failed: the row cannot be measured, and the message says why."""


class Timer:
    """One running bench_timer. setup: a shell snippet run first, in a mount namespace of its own. user: what it starts is
    this one's, with that home and nothing else in the environment."""

    def __init__(self, program, errors, setup=None, user=None, home=None, cwd=None):
        argv = [program]
        if user is not None:
            argv = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", "env", "-i",
                    f"HOME={home}", "PATH=/usr/bin:/bin", program]
        if setup:
            argv = ["unshare", "-m", "sh", "-ec", setup + '\nexec "$@"', "sh", *argv]
        self.errors = errors
        # A session of its own, so that ^C reaches the driver alone, which then takes everything back in order.
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=open(errors, "ab"),
            start_new_session=True, text=True, cwd=cwd)

    def ask(self, *fields):
        for f in fields:
            if "\t" in f or "\n" in f:
                raise ValueError("a tab or newline in an argument")
        self.process.stdin.write("\t".join(fields) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            raise Failed("the stop-watch ended: " + self.last_error())
        return [int(x) for x in answer]

    def last_error(self):
        try:
            with open(self.errors, encoding="utf-8", errors="replace") as f:
                lines = [x for x in f.read().splitlines() if x.strip()]
        except OSError:
            return ""
        return lines[-1] if lines else "no message"

    def run(self, argv, output=False):
        """Start it once; {ms, first_ms, rss_kib, cpu_us}. Raises Failed unless it exits with 0."""
        code, ns, first, rss, user, system = self.ask("run", "+" if output else "-", *argv)
        if code != 0:
            raise Failed(f"{os.path.basename(argv[0])} {' '.join(argv[1:])[:120]}: exit {code}: {self.last_error()}")
        return {"ms": ns / 1e6, "first_ms": first / 1e6 if first >= 0 else None, "rss_kib": rss,
                "cpu_us": user + system}

    def try_run(self, argv):
        """For cleaning up: how it goes does not matter."""
        try:
            self.ask("run", "-", *argv)
        except (Failed, OSError, ValueError):
            pass

    def rate(self, count, width, argv):
        """How many a second, width at a time."""
        failures, ns = self.ask("par", str(count), str(width), *argv)
        if failures:
            raise Failed(f"{failures} of {count} failed: {self.last_error()}")
        return count / (ns / 1e9)

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(timeout=150)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


def summary(values):
    v = sorted(values)
    return {"p50": statistics.median(v), "min": v[0], "p95": v[min(len(v) - 1, int(len(v) * 0.95))], "n": len(v)}


def _first_line(path, key):
    try:
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "?"


def cgroup_mode():
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    if unified:
        return "v2"
    return "hybrid" if os.path.exists("/sys/fs/cgroup/unified/cgroup.controllers") else "v1"


def version(program):
    try:
        flag = "version" if program == "restic" else "--version"
        out = subprocess.run([program, flag], capture_output=True, text=True, timeout=10, check=False).stdout
    except OSError:
        return None
    return out.splitlines()[0].strip() if out else "?"


def machine():
    uname = platform.uname()
    return {"cpu": _first_line("/proc/cpuinfo", "model name"), "cores": os.cpu_count(), "kernel": uname.release,
            "memory": _first_line("/proc/meminfo", "MemTotal"), "cgroups": cgroup_mode(),
            "load_before": round(os.getloadavg()[0], 2)}
