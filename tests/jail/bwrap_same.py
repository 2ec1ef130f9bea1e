"""The same options to bwrap and to pinfold-bwrap: what each case's two boxes have different.

usage: bwrap_same.py PINFOLD-BWRAP BOXFACTS DIR UID        (as root; DIR is UID's own)

Every case is run by both, as root and as UID: boxfacts.c says what a process sees inside, and the exit codes are compared
and what comes out of --info-fd and --json-status-fd. One line for each difference that docs/jail.md does not name;
"N cases" last."""

import json
import os
import re
import subprocess
import sys

pinfold, facts, top, uid = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
SYSTEM = ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
          "--symlink", "usr/lib64", "/lib64"]
ROOT = ["--ro-bind", "/", "/"]


class Case:
    """options: FD in them is replaced by a descriptor with data to read. look: paths to be told. command: instead of
    boxfacts. env: of the caller."""

    def __init__(self, options, look=(), command=None, data=(), env=None, cwd=None, proc=True):
        self.options, self.look, self.command, self.data = options, list(look), command, list(data)
        self.env, self.cwd, self.proc = env, cwd, proc


def sh(script):
    return ["/bin/sh", "-c", script]


D = f"{top}/data"
CASES = [
    # files
    Case(["--bind", D, "/data"], ["/", "/data", "/data/dir"]),
    Case(["--ro-bind", D, "/data"], ["/", "/data", "/data/dir"]),
    Case(["--ro-bind", D, "/data", "--bind", f"{D}/dir", "/data/dir"], ["/data", "/data/dir"]),
    Case(["--bind", D, "/data", "--ro-bind", f"{D}/dir", "/data/dir"], ["/data", "/data/dir"]),
    Case(["--bind", D, "/data", "--ro-bind", f"{D}/file", "/data/file"], ["/data"]),
    Case(["--bind", f"{D}/dir", "/data/dir", "--bind", D, "/data"], ["/data", "/data/dir"]),
    Case(["--bind", f"{D}/file", "/a/b/c/file"], ["/a", "/a/b/c"]),
    Case(["--bind", f"{D}/link", "/data"], ["/data"]),
    Case(["--bind-try", f"{D}/none", "/data", "--ro-bind-try", f"{D}/none", "/x", "--dev-bind-try", f"{D}/none", "/y"],
         ["/"]),
    Case(["--bind-try", D, "/data", "--ro-bind-try", f"{D}/dir", "/other"], ["/", "/data", "/other"]),
    Case(["--dev-bind", "/dev", "/dev"], ["/dev/null", "/dev/zero", "/dev/ptmx"]),
    Case(["--dev-bind-try", "/dev/null", "/null"], ["/null"]),
    Case(["--bind", D, "/data", "--remount-ro", "/data"], ["/data"]),
    Case(["--tmpfs", "/t", "--remount-ro", "/t"], ["/t"]),
    Case(["--remount-ro", "/"], ["/"]),
    Case(["--dev", "/dev"], ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/fd",
                             "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/ptmx"]),
    Case(["--tmpfs", "/t"], ["/", "/t"]),
    Case(["--perms", "0700", "--tmpfs", "/t"], ["/", "/t"]),
    Case(["--size", "1048576", "--tmpfs", "/t"], ["/t"]),
    Case(["--size", "1048576", "--tmpfs", "/t"], command=sh("head -c 3000000 /dev/zero >/t/f; stat -c %s /t/f")),
    Case(["--unshare-ipc", "--mqueue", "/q"], ["/q"]),
    Case(["--dir", "/d", "--dir", "/e/f/g"], ["/", "/d", "/e", "/e/f", "/e/f/g"]),
    Case(["--perms", "1777", "--dir", "/d", "--perms", "0750", "--dir", "/d/e"], ["/", "/d", "/d/e"]),
    Case(["--dir", "/d", "--chmod", "0711", "/d"], ["/", "/d"]),
    Case(["--perms", "0700", "--dir", "/d", "--dir", "/d"], ["/", "/d"]),
    Case(["--symlink", f"{D}/dir", "/s", "--perms", "0701", "--dir", "/s"], ["/"]),
    Case(["--ro-bind", "/", "/", "--dir", "/pf-none"]),
    Case(["--ro-bind", "/", "/", "--tmpfs", "/mnt", "--dir", "/mnt", "--dir", "/mnt/a/b", "--perms", "0700", "--dir", "/mnt/c"],
         command=sh("cd /mnt/a/b && touch x && stat -c %a%n /mnt/a/b /mnt/c")),
    Case(["--ro-bind", "/", "/", "--tmpfs", "/mnt", "--bind", D, "/mnt/a/data", "--dir", "/mnt/a"], ["/mnt/a/data"]),
    Case(["--dev-bind", "/", "/", "--dir", f"{D}/made/here", "--bind", f"{D}/dir", f"{D}/made/here"], [f"{D}/made/here"]),
    Case(["--ro-bind", "/", "/", "--dev", "/dev", "--dir", "/dev/shm"]),
    Case(["--ro-bind", "/", "/", "--proc", "/proc", "--dir", "/proc", "--unshare-pid"], command=sh("cat /proc/self/comm")),
    Case(["--ro-bind", "/", "/", "--symlink", "x", "/pf-none"]),
    Case(["--file", "FD", "/f"], ["/", "/f"], data=["some text"]),
    Case(["--perms", "0640", "--file", "FD", "/d/f"], ["/", "/d", "/d/f"], data=["some text"]),
    Case(["--file", "FD", "/f", "--chmod", "0400", "/f"], ["/f"], data=["some text"]),
    Case(["--bind-data", "FD", "/f"], ["/", "/f"], data=["some text"]),
    Case(["--ro-bind-data", "FD", "/f"], ["/", "/f"], data=["some text"]),
    Case(["--perms", "0644", "--ro-bind-data", "FD", "/d/f"], ["/d", "/d/f"], data=["some text"]),
    Case(["--bind", D, "/data", "--ro-bind-data", "FD", "/data/file"], ["/data"], data=["some text"]),
    Case(["--symlink", "usr/x", "/s", "--symlink", "../y", "/a/b/s"], ["/", "/a", "/a/b"]),
    Case(["--ro-bind", D, "/data", "--symlink", "other", "/data/link"], ["/data"]),
    Case(["--tmpfs", "/t", "--bind", D, "/t/data", "--tmpfs", "/t/data/dir"], ["/t", "/t/data", "/t/data/dir"]),
    Case(["--bind", D, "relative/data"], ["/", "/relative"]),
    # namespaces
    Case([]),
    Case(["--unshare-all"]),
    Case(["--unshare-all", "--share-net"]),
    *[Case([f"--unshare-{n}"]) for n in ("user", "user-try", "ipc", "pid", "net", "uts", "cgroup", "cgroup-try")],
    Case(["--unshare-pid", "--as-pid-1"]),
    Case(["--unshare-uts", "--hostname", "other"]),
    Case(["--unshare-user", "--uid", "1234", "--gid", "77"], ["/"]),
    Case(["--unshare-user", "--uid", "0", "--gid", "0"], ["/"]),
    Case(["--unshare-all", "--new-session"]),
    Case(["--die-with-parent"]),
    Case(["--unshare-all"], proc=False),
    # environment and place
    Case(["--clearenv"], env={"A": "1"}),
    Case(["--setenv", "A", "2", "--setenv", "B", "two words", "--unsetenv", "C"], env={"A": "1", "C": "3"}),
    Case(["--setenv", "A", "2", "--clearenv", "--setenv", "B", "3"], env={"C": "1"}),
    Case(["--chdir", "/data", "--bind", D, "/data"]),
    Case(["--bind", D, D], cwd=D),
    Case([], cwd=D),
    Case(["--dir", "/home/x"], env={"HOME": "/home/x"}, cwd=D),
    Case(["--args", "FD"], ["/data"], data=[f"--bind\0{D}\0/data\0--setenv\0A\0b\0"]),
    # the whole machine, as many do
    Case(["--bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid"], ["/proc", "/usr"]),
    Case(["--ro-bind", "/", "/", "--tmpfs", "/tmp", "--bind", top, top, "--unshare-all"], ["/tmp", D]),
    # how it ends
    *[Case([*SYSTEM, *extra], command=sh(script)) for extra in ([], ["--unshare-all"], ["--unshare-pid", "--as-pid-1"])
      for script in ("exit 0", "exit 7", "kill -TERM $$; sleep 1", "kill -KILL $$; sleep 1")],
    Case(SYSTEM, command=["/none"]),
    Case(SYSTEM, command=["none"]),
    Case([*SYSTEM, "--ro-bind", f"{D}/file", "/file"], command=["/file"]),
    Case(SYSTEM, command=["/usr"]),
    # what is refused
    Case(["--bind", f"{D}/none", "/data"]),
    Case(["--bind", D]),
    Case(["--no-such-option"]),
    Case(["--hostname", "other"]),
    Case(["--uid", "12"]),
    Case(["--as-pid-1"]),
    Case(["--remount-ro", "/none"]),
    Case(["--chdir", "/none"]),
    Case(["--perms", "9"]),
    Case(["--size", "x", "--tmpfs", "/t"]),
    Case(["--cap-drop", "CAP_NONE"]),
    Case(["--seccomp", "99"]),
    Case(["--perms", "0700"]),
    Case(["--perms", "0700", "--bind", D, "/data"]),
    Case(["--size", "100", "--dir", "/d"]),
    # information
    Case([*SYSTEM, "--info-fd", "INFO"], command=sh("exit 3")),
    Case([*SYSTEM, "--json-status-fd", "INFO"], command=sh("exit 3")),
    Case([*SYSTEM, "--unshare-all", "--info-fd", "INFO"], command=sh("exit 3")),
    Case([*SYSTEM, "--unshare-all", "--json-status-fd", "INFO"], command=sh("kill -9 $$")),
    Case([*SYSTEM, "--cap-drop", "ALL"]),
    Case(["--version"], command=sh("exit 0")),
]


def callers_links():
    return ",".join(f"{n}={os.readlink(f'/proc/self/ns/{n}')}" for n in NAMESPACES)


def reader(text):
    """A pipe's end from which text comes."""
    r, w = os.pipe()
    os.write(w, text.encode())
    os.close(w)
    return r


def run(program, case, who):
    """Everything that can be told about one box: a list of lines."""
    # Outputs of a size, not a race: the information goes to a pipe that is read at the end.
    info_r, info_w = os.pipe()
    passed, options, data = [info_w], [], list(case.data)
    for o in case.options:
        if o == "FD":
            passed.append(reader(data.pop(0)))
            o = str(passed[-1])
        options.append(str(info_w) if o == "INFO" else o)
    command = case.command or ["/boxfacts", "SID", callers_links(), *case.look]
    if not case.command:
        options = [*options, "--ro-bind", facts, "/boxfacts"]
        if "/" in case.options:
            options = options[:-3]
            command[0] = facts
        elif case.proc and "--proc" not in options:
            options = ["--proc", "/proc", *options]
    command = [str(os.getsid(0)) if c == "SID" else c for c in command]
    caller = [] if who == "root" else ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
    env = {"PATH": "/usr/bin:/bin", **(case.env or {})}
    p = subprocess.run([*caller, "env", "-i", *(f"{k}={v}" for k, v in env.items()), program, *options, *command],
                       cwd=case.cwd or "/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
                       check=False, pass_fds=passed)
    for fd in passed:
        os.close(fd)
    with os.fdopen(info_r) as f:
        info = f.read()
    lines = p.stdout.splitlines()
    if case.options == ["--version"]:
        lines = [lines[0].split(" (")[0]] if lines else []
    return [f"exit code {p.returncode}", *lines, *shape(info)], p.stderr.strip()


def shape(info):
    """Numbers of processes and namespaces are not the same twice; the text around them is."""
    if not info:
        return []
    for part in re.split(r"(?<=\})\n", info):
        if part.strip():
            json.loads(part)
    return ["information " + re.sub(r"(child-pid|-namespace)(.: )[0-9]+", r"\1\2N", x) for x in info.splitlines()]


def plain(line, who):
    """A line without what docs/jail.md's table says is different; None if that is all of it."""
    # Always a user namespace; no capability for root in it, and so no power over what modes forbid.
    if who == "root" and line.startswith(("namespace user", "status Cap")):
        return None
    # The command ends with us in any case, there is always a /dev, and in /proc what root alone could use is masked.
    if line.startswith(("env _=", "dumpable", "path /dev: ", "path /proc/")):
        return None
    # Directories on the way to something are for all.
    if re.match(r"path /(a|a/b|a/b/c|d|relative|tmp/[^/]*): ", line):
        line = re.sub(r": 40[0-7]{3} ", ": 40--- ", line)
    if line.startswith(("path /dev/", "path /q: ")):
        line = re.sub(" (nosuid|nodev|noexec)", "", line)
    # 32 and 33 are the C library's own: its posix_spawn, which make uses, leaves them ignored, and threads reset them.
    if line.startswith("status SigIgn"):
        line = f"status SigIgn {int(line.split()[-1], 16) & 0x7fffffff:x}"
    if line.startswith("session"):
        line = line.replace("other", "leader")
    return line.replace(" writable", "") if who == "root" else line


def main():
    differences, n, mode = [], 0, os.stat(f"{D}/dir").st_mode
    for who in ("root", "user"):
        subprocess.run(["chown", "-R", "0:0" if who == "root" else f"{uid}:{uid}", D], check=True)
        for case in CASES:
            n += 1
            (theirs, their_message), (ours, our_message) = (run(p, case, who) for p in ("bwrap", pinfold))
            theirs, ours = ([plain(x, who) for x in lines] for lines in (theirs, ours))
            missing = [f"- {x}" for x in theirs if x and x not in ours]
            more = [f"+ {x}" for x in ours if x and x not in theirs]
            if missing or more:
                where = " ".join(case.options[-8:])
                differences.append(f"as {who}: {where} {case.command or ''}")
                differences += [f"    {x}" for x in (*missing, *more)]
                differences += [f"    bwrap: {their_message}", f"    ours:  {our_message}"]
    if os.stat(f"{D}/dir").st_mode != mode:
        differences.append("a directory of the caller's has another mode")
    print("\n".join([*differences, f"{n} cases"]))


main()
