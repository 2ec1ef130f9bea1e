"""The others: runc and crun on a bundle, bwrap on its command line, all over the machine's own /usr, as the sandbox
image `host` is. They get neither overlay nor limits nor a user namespace nor a seccomp list nor a way out: what they are
compared with does more than they do."""

import json
import os
import shutil
import subprocess

# crun refuses a hybrid tree, and runc pays for every v1 hierarchy: both see only the v2 tree.
V2_ONLY = "umount -l /sys/fs/cgroup\nmount -t cgroup2 none /sys/fs/cgroup"


def v2_tree():
    return "/sys/fs/cgroup" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "/sys/fs/cgroup/unified"


def make_rootfs(path):
    for d in ("usr", "etc", "proc", "sys", "dev", "tmp", "root"):
        os.makedirs(f"{path}/{d}", exist_ok=True)
    for link in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.isdir(f"/usr/{link}"):
            os.symlink(f"usr/{link}", f"{path}/{link}")
    with open(f"{path}/etc/passwd", "w", encoding="ascii") as f:
        f.write("root:x:0:0:root:/root:/bin/sh\n")


class Oci:
    """An OCI runtime: runc, crun, or pinfold itself on their bundles (then program is given)."""

    def __init__(self, name, timer, work, state, program=None):
        self.name, self.timer, self.work = name, timer, work
        self.program = program or shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
        self.state = f"{state}/{name}"
        self.group = f"pinfold-bench-{name}-{os.getpid()}"
        self.ids = set()
        self.bundles = {}

    def bundle(self, kind, argv):
        """A bundle that runs argv; its spec is the runtime's own default one."""
        if kind in self.bundles:
            return self.bundles[kind]
        path = f"{self.work}/{self.name}-{kind}"
        os.makedirs(path)
        subprocess.run([self.program, "spec"], cwd=path, check=True, stdout=subprocess.DEVNULL)
        with open(f"{path}/config.json", encoding="utf-8") as f:
            spec = json.load(f)
        spec["process"]["terminal"] = False
        spec["process"]["args"] = argv
        spec["root"] = {"path": f"{self.work}/rootfs", "readonly": False}
        spec["mounts"].append({"destination": "/usr", "type": "bind", "source": "/usr",
                               "options": ["rbind", "ro", "nosuid", "nodev"]})
        spec["linux"].pop("resources", None)
        spec["linux"].pop("seccomp", None)
        spec["linux"]["namespaces"] = [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
        spec["linux"]["cgroupsPath"] = f"/{self.group}/{kind}"
        with open(f"{path}/config.json", "w", encoding="utf-8") as f:
            json.dump(spec, f)
        self.bundles[kind] = path
        return path

    def copy_bundle(self, kind, other):
        """Another runtime's bundle, in a cgroup of our own."""
        if kind in self.bundles:
            return
        path = f"{self.work}/{self.name}-{kind}"
        os.makedirs(path)
        with open(f"{other}/config.json", encoding="utf-8") as f:
            spec = json.load(f)
        spec["linux"]["cgroupsPath"] = f"/{self.group}/{kind}"
        with open(f"{path}/config.json", "w", encoding="utf-8") as f:
            json.dump(spec, f)
        self.bundles[kind] = path

    def own_group(self, kind, name):
        """For several at a time: each needs a cgroup of its own."""
        shared = self.bundle(kind, ["/usr/bin/sleep", "1000"])
        path = f"{self.work}/{self.name}-{name}"
        os.makedirs(path)
        with open(f"{shared}/config.json", encoding="utf-8") as f:
            spec = json.load(f)
        spec["linux"]["cgroupsPath"] = f"/{self.group}/{name}"
        with open(f"{path}/config.json", "w", encoding="utf-8") as f:
            json.dump(spec, f)

    def command(self, *args):
        return [self.program, "--root", self.state, *args]

    def new_id(self):
        name = f"pfb-{self.name}-{os.getpid()}-{len(self.ids)}"
        self.ids.add(name)
        return name

    def delete(self, name):
        return self.timer.run(self.command("delete", "--force", name))

    def clean(self):
        for name in self.ids:
            if os.path.exists(f"{self.state}/{name}"):
                self.timer.try_run(self.command("delete", "--force", name))
        top = f"{v2_tree()}/{self.group}"
        for dirpath, dirnames, _ in os.walk(top, topdown=False):
            for d in dirnames:
                _rmdir(f"{dirpath}/{d}")
        _rmdir(top)


def _rmdir(path):
    try:
        os.rmdir(path)
    except OSError:
        pass


def bwrap_command(*argv):
    program = shutil.which("bwrap")
    links = []
    for link in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if os.path.isdir(f"/usr/{link}"):
            links += ["--symlink", f"usr/{link}", f"/{link}"]
    return [program, "--unshare-all", "--ro-bind", "/usr", "/usr", *links, "--proc", "/proc", "--dev", "/dev",
            "--tmpfs", "/tmp", *argv]
