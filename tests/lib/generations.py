"""Random edits to a tree in overlay form, and one hash of all that a checkpoint must give back.

usage: generations.py edit DIR SEED COUNT   |   generations.py hash DIR
"""
import hashlib
import os
import random
import stat
import sys


def tree_hash(root):
    root = os.fsencode(root)
    total, first = hashlib.sha256(), {}
    for here, dirs, files in os.walk(root):
        dirs.sort()
        for name in sorted(dirs + files) + ([b"."] if here == root else []):
            path = os.path.join(here, name)
            st = os.lstat(path)
            rel = os.path.relpath(path, root)
            if stat.S_ISCHR(st.st_mode):
                total.update(rel + b" deleted\n")
                continue
            line = b"%s %o %d:%d %d" % (rel, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
            if not stat.S_ISDIR(st.st_mode):
                line += b" = " + first.setdefault(st.st_ino, rel)
            if not stat.S_ISLNK(st.st_mode):
                for key in sorted(os.listxattr(path)):
                    line += b" %s=%s" % (os.fsencode(key), os.getxattr(path, key))
            if stat.S_ISREG(st.st_mode):
                with open(path, "rb") as f:
                    line += b" %d " % st.st_size + hashlib.sha256(f.read()).digest()
            elif stat.S_ISLNK(st.st_mode):
                line += b" -> " + os.readlink(path)
            total.update(line + b"\n")
    return total.hexdigest()


def data(rng):
    kind, size = rng.randrange(6), int(rng.expovariate(1 / 9000))
    if kind == 0:
        return rng.randbytes(size * 12)
    if kind == 1:
        return bytes(size * 9)
    if kind == 2:
        return b"line of text %d\n" % rng.randrange(9) * (size // 9)
    return rng.randbytes(size)


def edit(root, seed, count):
    rng = random.Random(seed)
    names = [b"a", b"b.c", b"\xff\xfe", b"new\nline", b"n" * 255, b"sp ace", "ä€".encode(), b"-x", b"~"]
    dirs, files = [os.fsencode(root)], []
    for here, below, plain in os.walk(os.fsencode(root)):
        dirs += [os.path.join(here, d) for d in below]
        files += [os.path.join(here, f) for f in plain]
    dirs.sort()
    files.sort()
    for _ in range(count):
        what, where = rng.randrange(14), rng.choice(dirs)
        path = os.path.join(where, rng.choice(names) + b"%d" % rng.randrange(200) if rng.random() < 0.8 else rng.choice(names))
        path = path[:-4] if len(os.path.basename(path)) > 255 else path
        old = rng.choice(files) if files else None
        plain = old is not None and os.path.lexists(old) and stat.S_ISREG(os.lstat(old).st_mode)
        try:
            if what < 4:
                with open(path, "xb") as f:
                    f.write(data(rng))
                files.append(path)
            elif what == 4 and len(path) < 3000:
                os.mkdir(path, 0o711)
                dirs.append(path)
            elif what == 5 and old:
                os.unlink(old)
            elif what == 6 and plain:
                os.link(old, path)
                files.append(path)
            elif what == 7:
                os.symlink(rng.randbytes(20).replace(b"\0", b"x"), path)
            elif what == 8:
                os.mknod(path, stat.S_IFCHR, 0)
            elif what == 9 and plain:
                os.chmod(old, rng.choice([0o644, 0o4755, 0o600, 0o1777]))
                os.chown(old, rng.randrange(65536), rng.randrange(65536))
            elif what == 10 and plain:
                os.setxattr(old, "user.k%d" % rng.randrange(3), rng.randbytes(rng.randrange(100)))
            elif what == 11 and plain:
                with open(old, "r+b") as f:
                    f.seek(rng.randrange(300000))
                    f.write(rng.randbytes(rng.randrange(5000)))
            elif what == 12 and plain:
                os.truncate(old, rng.randrange(200000))
            elif what == 13 and rng.random() < 0.2 and where != os.fsencode(root):
                os.setxattr(where, "trusted.overlay.opaque", b"y")
        except (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError):
            pass


if __name__ == "__main__":
    if sys.argv[1] == "hash":
        print(tree_hash(sys.argv[2]))
    else:
        edit(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
