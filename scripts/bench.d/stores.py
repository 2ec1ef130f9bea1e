"""Checkpoints beside other ways to keep a tree again and again: tar with zstd (whole, and what is newer), restic, umoci
repack, podman commit and save. All of them over the same files, one after another, with warm caches; tar and umoci do
not wait for the disk, checkpoints and restic do."""

import os
import random
import shutil
import subprocess

import rows
from stopwatch import Failed


def run(*argv, **env):
    p = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, **env})
    if p.returncode:
        raise Failed(f"{' '.join(argv)[:100]}: {p.stderr.strip()[-300:]}")
    return p.stdout


def size_of(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(path) for f in files)


class Tar:
    """tar | zstd -3 -T0 of everything, each time."""

    name = "tar"
    whole = True  # what is kept each time stands for itself: its size is what it costs

    def __init__(self, timer, tree, work):
        self.timer, self.tree, self.out = timer, tree, f"{work}/peer.tar.zst"

    def begin(self):
        pass

    def keep(self):
        return self.timer.run(["sh", "-ec", 'tar -C "$1" -cf - . | zstd -q -f -3 -T0 -o "$2"', "sh", self.tree, self.out])["ms"]

    def stored(self):
        return size_of(self.out)

    def end(self):
        os.unlink(self.out)


class TarNewer(Tar):
    """The same of what is newer than the last time (tar -g)."""

    name = "tar_g"
    whole = False

    def __init__(self, timer, tree, work):
        super().__init__(timer, tree, work)
        self.dir = f"{work}/peer-tar-g"
        self.turn = 0

    def begin(self):
        os.makedirs(self.dir)
        self.turn = 0

    def keep(self):
        self.turn += 1
        return self.timer.run(["sh", "-ec", 'tar -C "$1" -g "$2" -cf - . | zstd -q -f -3 -T0 -o "$3"', "sh", self.tree,
                               f"{self.dir}/list", f"{self.dir}/{self.turn}.tar.zst"])["ms"]

    def stored(self):
        return size_of(self.dir)

    def end(self):
        shutil.rmtree(self.dir)


class Restic:
    """restic backup into a local repository (always encrypted), its own zstd."""

    name = "restic"
    whole = False

    def __init__(self, timer, tree, work):
        self.timer, self.tree, self.dir = timer, tree, f"{work}/peer-restic"
        self.env = ["env", "RESTIC_PASSWORD=bench", f"RESTIC_CACHE_DIR={self.dir}/cache", "restic", "-q", "-r", f"{self.dir}/repo"]

    def begin(self):
        os.makedirs(self.dir)
        run(*self.env, "init")

    def keep(self):
        return self.timer.run([*self.env, "backup", self.tree])["ms"]

    def restore(self, out):
        return self.timer.run([*self.env, "restore", "latest", "--target", out])["ms"]

    def stored(self):
        return size_of(f"{self.dir}/repo")

    def end(self):
        shutil.rmtree(self.dir)


class Umoci:
    """umoci repack of a bundle whose root file system is the tree: gzip, whatever has changed as whole files."""

    name = "umoci"
    whole = False

    def __init__(self, timer, tree, work):
        self.timer, self.tree, self.dir = timer, tree, f"{work}/peer-umoci"
        self.turn = 0

    def begin(self):
        self.turn = 0
        run("umoci", "init", "--layout", f"{self.dir}")
        run("umoci", "new", "--image", f"{self.dir}:t0")
        run("umoci", "unpack", "--image", f"{self.dir}:t0", f"{self.dir}/bundle")

    def keep(self):
        run("rsync", "-a", "--delete", f"{self.tree}/", f"{self.dir}/bundle/rootfs/") if shutil.which("rsync") else run(
            "cp", "-au", f"{self.tree}/.", f"{self.dir}/bundle/rootfs")
        self.turn += 1
        return self.timer.run(["umoci", "repack", "--refresh-bundle", "--image", f"{self.dir}:t{self.turn}", f"{self.dir}/bundle"])["ms"]

    def stored(self):
        return size_of(f"{self.dir}/blobs")

    def end(self):
        shutil.rmtree(self.dir)


class Podman:
    """podman commit of a container that has the tree, and save of the image: the whole difference to its image, each time."""

    name = "podman"
    whole = True

    def __init__(self, timer, tree, work):
        self.timer, self.tree, self.dir = timer, tree, f"{work}/peer-podman"
        self.podman = ["podman", "--root", f"{self.dir}/root", "--runroot", f"{self.dir}/run", "--storage-driver", "overlay",
                       "--cgroup-manager", "cgroupfs"]
        self.mount = ""

    def begin(self):
        os.makedirs(f"{self.dir}/empty")
        run("tar", "-C", f"{self.dir}/empty", "-cf", f"{self.dir}/empty.tar", ".")
        run(*self.podman, "import", "-q", f"{self.dir}/empty.tar", "bench:empty")
        run(*self.podman, "create", "--name", "bench", "bench:empty", "true")
        self.mount = run(*self.podman, "mount", "bench").strip()

    def keep(self):
        run("cp", "-au", f"{self.tree}/.", self.mount)
        return self.timer.run(["sh", "-ec", 'out=$1; shift; rm -f "$out"; "$@" commit -q bench bench:now; "$@" save -q -o "$out" bench:now',
                               "sh", f"{self.dir}/saved.tar", *self.podman])["ms"]

    def stored(self):
        return size_of(f"{self.dir}/saved.tar")

    def end(self):
        for what in (["umount", "bench"], ["rm", "-f", "bench"], ["rmi", "-af"]):
            subprocess.run([*self.podman, *what], capture_output=True, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


class Ours:
    """pinfold snapshot of a sandbox whose workspace is the tree."""

    name = "pinfold"
    whole = False

    def __init__(self, b, box):
        self.b, self.pf, self.box, self.names = b, b.pinfold, box, []

    def begin(self):
        self.end()

    def keep(self):
        name = f"keep{len(self.names)}"
        self.names.append(name)
        return self.pf.timer.run(self.pf.command("snapshot", self.box, "--name", name))["ms"]

    def stored(self):
        return size_of(f"{self.pf.store}/checkpoints/packs") + size_of(f"{self.pf.store}/checkpoints/manifests")

    def end(self):
        for name in self.names:
            self.pf.timer.try_run(self.pf.command("checkpoint", "rm", name))
        self.names = []


def change_files(roots, seed):
    """One file in a hundred gets other bytes, the same in each root."""
    listed = sorted(os.path.join(d, f)[len(roots[0]):] for d, _, files in os.walk(roots[0]) for f in files if f != "large")
    rng = random.Random(seed)
    for path in rng.sample(listed, max(1, len(listed) // 100)):
        text = f"changed {seed} {rng.random()}\n".encode() * 200
        for root in roots:
            with open(root + path, "wb") as f:
                f.write(text)


def change_block(roots, seed):
    block = random.Random(seed).randbytes(4096)
    for root in roots:
        with open(f"{root}/large", "r+b") as f:
            f.seek(4096 * (seed % 1000 + 100))
            f.write(block)


def stores(b):
    """Keeping a tree of many files and one large one: whole, unchanged, with little changed; and having it back."""
    pf, tree = b.pinfold, f"{b.work}/kept"
    if not shutil.which("zstd"):
        raise Failed("zstd is not installed")
    os.makedirs(tree)
    rows.make_tree(tree, rows.tree_files(b))
    with open(f"{tree}/large", "wb") as f:
        f.write(random.Random(5).randbytes((20 if b.quick else 200) << 20))
    config = pf.write_config("kept", {"filesystem": {"mounts": [{"source": tree, "target": "/tree"}]}})
    box = pf.new_id()
    pf.create(box, config=config)
    pf.execute(box, "/bin/cp", "-a", "/tree/.", "/workspace")
    # The workspace as the host sees it, so that both trees get the very same changes.
    upper = run("find", f"{pf.store}/sandboxes/{box}", "-type", "f", "-name", "large", "-printf", "%h").strip()
    roots = [tree, upper]
    kinds = [Tar, TarNewer] + [k for k, needs in ((Restic, "restic"), (Umoci, "umoci"), (Podman, "podman")) if shutil.which(needs)]
    b.facts["stores"] = {"peers": [k.name for k in kinds], "bytes": size_of(tree)}
    all_of_them = [Ours(b, box)] + [k(b.peer_timer if k is Podman else pf.timer, tree, b.work) for k in kinds]

    def turn(series):
        for k in list(all_of_them):
            try:
                before = 0 if k.whole or series == "kept_full" else k.stored()
                b.add(f"{series}.{k.name}", k.keep())
                b.add(f"{series}_kib.{k.name}", (k.stored() - before) / 1024)
            except (Failed, OSError) as e:
                b.failed[f"{series}.{k.name}"] = str(e)
                all_of_them.remove(k)

    for _ in range(1 if b.quick else 3):
        for k in list(all_of_them):
            try:
                k.begin()
            except (Failed, OSError) as e:
                b.failed[k.name] = str(e)
                all_of_them.remove(k)
        turn("kept_full")
        turn("kept_same")
        seed = random.randrange(1 << 30)
        run("sleep", "1.1")  # for those who look at times alone
        change_files(roots, seed)
        turn("kept_1pc")
        run("sleep", "1.1")
        change_block(roots, seed)
        turn("kept_4k")
        details = pf.json("snapshot", box, "--name", "details")
        b.add("kept_frozen.pinfold", details["frozen_ms"])
        for k in all_of_them:
            if isinstance(k, Restic):
                b.add("kept_back.restic", k.restore(f"{b.work}/peer-restored"))
                shutil.rmtree(f"{b.work}/peer-restored")
        for unpacked in os.scandir(f"{pf.store}/checkpoints/unpacked"):
            shutil.rmtree(unpacked.path)
        name = pf.new_id()
        b.add("kept_back.pinfold", pf.create(name, "--from", "details")["ms"])
        pf.destroy(name)
        for _ in range(5):
            name = pf.new_id()
            b.add("kept_fork.pinfold", pf.timer.run(pf.command("fork", "details", name))["ms"])
            pf.destroy(name)
        pf.timer.try_run(pf.command("checkpoint", "rm", "details"))
        for k in all_of_them:
            k.end()
    pf.destroy(box)
