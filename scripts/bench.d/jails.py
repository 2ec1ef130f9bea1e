"""pinfold-jail and pinfold-bwrap beside bwrap and firejail, as an ordinary user: one command, and what is asked for on top."""

import os
import shutil
import subprocess
import tempfile

import peers
from stopwatch import Failed, Timer

USER = 54399
TRUE = "/usr/bin/true"
# firejail keeps its state in /run, and leaves it there; and it wants to know who its user is.
SETUP = """mount --make-rprivate /
mount -t tmpfs -o mode=755 bench /run
(cat /etc/passwd; echo pfbench:x:{user}:{user}::{home}:/bin/sh) >/run/passwd
mount --bind /run/passwd /etc/passwd"""


def equal_bwrap(program, home, tree):
    """What pinfold-jail shows and forbids, as far as bwrap's options can say it (there is no filter among them)."""
    return [*peers.bwrap_command()[1:], "--ro-bind", "/etc", "/etc", "--tmpfs", "/var/tmp", "--tmpfs", "/run",
            "--tmpfs", home, "--ro-bind", tree, tree, "--chdir", tree, "--new-session", "--die-with-parent",
            "--cap-drop", "ALL", "--clearenv", "--setenv", "HOME", home, "--setenv", "PATH", "/usr/bin:/bin", program]


def series(build, home, tree):
    """name -> command. A name is row.program, as in Bench.series."""
    jail, bwrap = f"{build}/pinfold-jail", f"{build}/pinfold-bwrap"
    found = {"jail.pinfold": [jail, "--", TRUE],
             "jail_limits.pinfold": [jail, "--memory", "512M", "--pids", "256", "--timeout", "60s", "--", TRUE],
             "jail_gate.pinfold": [jail, "--allow", "host.example.com", "--", TRUE],
             "jail_overlay.pinfold": [jail, "--overlay", "--", TRUE],
             "jail.bare": [TRUE]}
    if shutil.which("bwrap"):
        plain = peers.bwrap_command(TRUE)
        found["jail.bwrap"] = found["jail_bwrap.bwrap"] = plain
        found["jail_bwrap.pinfold"] = [bwrap, *plain[1:]]
        found["jail.bwrap_equal"] = [plain[0], *equal_bwrap(TRUE, home, tree)]
    if shutil.which("firejail"):
        found["jail.firejail"] = ["firejail", "--quiet", "--private", "--net=none", "--", TRUE]
    return found


def jails(b):
    """Made by an ordinary user, and once by root with a cgroup."""
    top = tempfile.mkdtemp(prefix="pfbench-jail.", dir=os.path.dirname(b.work))
    home, tree, programs = f"{top}/home", f"{top}/home/tree", f"{top}/bin"
    timer = None
    try:
        os.chmod(top, 0o755)
        os.makedirs(tree)
        os.mkdir(programs)
        for name in ("pinfold-jail", "pinfold-bwrap"):
            shutil.copy(f"{os.path.dirname(b.pinfold.program)}/{name}", programs)
        shutil.copy(b.timer_program, f"{programs}/timer")
        subprocess.run(["chown", "-R", f"{USER}:{USER}", home], check=True)
        timer = Timer(f"{programs}/timer", f"{b.work}/errors", SETUP.format(user=USER, home=home), USER, home, tree)
        commands = {name: (timer, argv) for name, argv in series(programs, home, tree).items()}
        commands["jail_cgroup.pinfold"] = (b.pinfold.timer, [
            f"{programs}/pinfold-jail", "--memory", "512M", "--pids", "256", "--cpus", "1", "--", TRUE])
        for name, (watch, argv) in list(commands.items()):
            try:
                watch.run(argv)
            except Failed as e:
                b.failed[name] = str(e)
                del commands[name]
        for turn in range(b.rounds * 2):
            for name, (watch, argv) in commands.items():
                if name == "jail.firejail" and turn % 8:
                    continue
                r = watch.run(argv)
                b.add(name, r["ms"])
                if name.startswith("jail."):
                    b.add("jail_rss" + name[4:], r["rss_kib"])
        n = 16 if b.quick else 128
        for _ in range(1 if b.quick else 3):
            for name in ("pinfold", "bwrap"):
                if f"jail.{name}" in commands:
                    b.add(f"jail_rate.{name}", timer.rate(n, 8, commands[f"jail.{name}"][1]))
    finally:
        if timer:
            timer.close()
        shutil.rmtree(top, ignore_errors=True)
