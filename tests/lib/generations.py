"""Random edits to a tree in overlay form, and one hash of all that a checkpoint must give back.

usage: generations.py edit DIR SEED COUNT   |   generations.py hash DIR [LISTING]   |   generations.py limits DIR

Everything by directory descriptor: paths become longer than the kernel takes. LISTING is a file that gets the lines of the
hash, for a look at what differs. limits puts what is large, deep and long into an empty DIR.
"""
import errno
import hashlib
import os
import random
import socket
import stat
import struct
import sys

BLOCK = 4096
HUGE = 4 << 30


# ---- looking ----


def carried(key):
    """Whether a checkpoint has extended attributes of this name."""
    if key in (b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default", b"trusted.overlay.opaque"):
        return True
    return key.startswith(b"user.") and not key.startswith(b"user.overlay.") and b"=" not in key


def content(path, size, dir_fd):
    """Of what is not zero, whether the file system stores the rest or not."""
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        at = 0
        while at < size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError as e:
                if e.errno == errno.ENXIO:
                    break
                raise
            end = os.lseek(fd, at, os.SEEK_HOLE)
            at -= at % BLOCK
            while at < end:
                data = os.pread(fd, 256 * BLOCK, at)
                if not data:
                    break
                for i in range(0, len(data), BLOCK):
                    block = data[i:i + BLOCK]
                    if block.count(0) != len(block):
                        digest.update(b"%d:" % (at + i) + block)
                at += len(data)
    finally:
        os.close(fd)
    return digest.digest()


def lines_of(fd, rel, first):
    for name in sorted(os.fsencode(n) for n in os.listdir(fd)) + ([b"."] if not rel else []):
        st = os.lstat(name, dir_fd=fd)
        path = rel + b"/" + name
        if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
            yield path + b" deleted"
            continue
        if name.startswith(b".wh.") or not (stat.S_ISDIR(st.st_mode) or stat.S_ISREG(st.st_mode) or stat.S_ISLNK(st.st_mode)
                                            or stat.S_ISFIFO(st.st_mode)):
            continue
        line = b"%s %o %d:%d %d" % (path, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
        if not stat.S_ISDIR(st.st_mode):
            line += b" = " + first.setdefault(st.st_ino, path)
        if stat.S_ISDIR(st.st_mode) or stat.S_ISREG(st.st_mode):
            there = b"/proc/self/fd/%d/" % fd + name
            for key in sorted(os.fsencode(k) for k in os.listxattr(there, follow_symlinks=False)):
                if carried(key):
                    line += b" %s=%s" % (key, os.getxattr(there, key, follow_symlinks=False).hex().encode())
        if stat.S_ISREG(st.st_mode):
            line += b" %d " % st.st_size + content(name, st.st_size, fd).hex().encode()
        elif stat.S_ISLNK(st.st_mode):
            line += b" -> " + os.readlink(name, dir_fd=fd)
        yield line
        if stat.S_ISDIR(st.st_mode) and name != b".":
            sub = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                yield from lines_of(sub, path, first)
            finally:
                os.close(sub)


def tree_hash(root, listing=None):
    total = hashlib.sha256()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    out = open(listing, "wb") if listing else None
    try:
        for line in lines_of(fd, b"", {}):
            total.update(line + b"\0")
            if out:
                out.write(line.replace(b"\n", b"\\n") + b"\n")
    finally:
        os.close(fd)
        if out:
            out.close()
    return total.hexdigest()


# ---- changing ----


def data(rng):
    kind, size = rng.randrange(6), int(rng.expovariate(1 / 9000))
    if kind == 0:
        return rng.randbytes(size * 12)
    if kind == 1:
        return bytes(size * 9)
    if kind == 2:
        return b"line of text %d\n" % rng.randrange(9) * (size // 9)
    return rng.randbytes(size)


def acl(rng):
    """As the kernel takes it: owner, a user, group, a group, mask, others."""
    entries = [(1, 7, -1), (2, rng.randrange(8), rng.randrange(1, 65536)), (4, 5, -1), (8, rng.randrange(8), rng.randrange(1, 65536)),
               (16, rng.randrange(8), -1), (32, rng.randrange(8), -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *e) for e in entries)


def capability(rng):
    return struct.pack("<5I", 0x02000001, rng.randrange(1 << 20), 0, 0, 0)


def any_name(rng, n):
    name = rng.randbytes(n).replace(b"\0", b"x").replace(b"/", b"y")
    return b"z" + name[1:] if name in (b".", b"..") or name.startswith(b".wh.") else name


def sparse(fd, rng):
    os.ftruncate(fd, HUGE)
    for _ in range(rng.randrange(4)):
        os.pwrite(fd, rng.randbytes(rng.randrange(1, 9000)), rng.randrange(HUGE - 9000))
    if rng.randrange(2):
        os.pwrite(fd, b"end", HUGE - 3)


class Edits:
    """dirs: descriptors; files: (descriptor, name)."""

    def __init__(self, root, seed):
        self.rng = random.Random(seed)
        self.dirs, self.files, self.depth, self.place = [], [], {}, {}
        self.look(os.open(root, os.O_RDONLY | os.O_DIRECTORY), 0)
        self.root = self.dirs[0]

    def look(self, fd, depth):
        self.dirs.append(fd)
        self.depth[fd] = depth
        for name in sorted(os.fsencode(n) for n in os.listdir(fd)):
            if stat.S_ISDIR(os.lstat(name, dir_fd=fd).st_mode):
                sub = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                self.place[sub] = (fd, name)
                self.look(sub, depth + 1)
            else:
                self.files.append((fd, name))

    def new_name(self):
        rng = self.rng
        names = [b"a", b"b.c", b"\xff\xfe", b"new\nline", b"n" * 250, b"sp ace", "ä€".encode(), b"-x", b"~", b"\\", b"\x01\x7f"]
        kind = rng.random()
        if kind < 0.1:
            return any_name(rng, rng.choice([1, 7, 255]))
        return rng.choice(names) + (b"%d" % rng.randrange(200) if kind < 0.8 else b"")

    def change(self, what):
        rng, where, name = self.rng, self.rng.choice(self.dirs), self.new_name()
        at, old = rng.choice(self.files) if self.files else (None, None)
        plain = old is not None and stat.S_ISREG(os.lstat(old, dir_fd=at).st_mode)
        there = b"/proc/self/fd/%d/" % at + old if plain else None
        if what < 4:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=where)
            os.write(fd, data(rng))
            os.close(fd)
            self.files.append((where, name))
        elif what < 6 and self.depth[where] < 60 and len(self.dirs) < 400:
            os.mkdir(name, 0o711, dir_fd=where)
            self.dirs.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=where))
            self.depth[self.dirs[-1]] = self.depth[where] + 1
            self.place[self.dirs[-1]] = (where, name)
        elif what == 6 and old:
            os.unlink(old, dir_fd=at)
            self.files.remove((at, old))
        elif what == 7 and plain:
            os.link(old, name, src_dir_fd=at, dst_dir_fd=where)
            self.files.append((where, name))
        elif what == 8:
            os.symlink(any_name(rng, 20), name, dir_fd=where)
        elif what == 9:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=where)
        elif what == 10 and plain:
            os.chmod(old, rng.choice([0o644, 0o4755, 0o2755, 0o600, 0o1777, 0]), dir_fd=at)
            os.chown(old, rng.randrange(65536), rng.randrange(65536), dir_fd=at)
        elif what == 11 and plain:
            os.setxattr(there, "user.k%d" % rng.randrange(3), rng.randbytes(rng.randrange(100)))
        elif what == 12 and plain:
            fd = os.open(old, os.O_WRONLY, dir_fd=at)
            os.pwrite(fd, rng.randbytes(rng.randrange(5000)), rng.randrange(300000))
            os.close(fd)
        elif what == 13 and plain and os.stat(old, dir_fd=at).st_size < HUGE:
            os.truncate(there, rng.randrange(200000))
        elif what == 14 and where != self.root and rng.random() < 0.3:
            os.setxattr(where, "trusted.overlay.opaque", b"y")
        elif what == 15:
            if plain and rng.randrange(2):
                os.setxattr(there, "system.posix_acl_access", acl(rng))
            else:
                os.setxattr(where, "system.posix_acl_" + rng.choice(["access", "default"]), acl(rng))
        elif what == 16 and plain:
            os.setxattr(there, "security.capability", capability(rng))
        elif what == 17: # what a checkpoint leaves out
            for key in ["trusted.k", "security.k", "user.overlay.origin", "user.a=b"]:
                os.setxattr(where if rng.randrange(2) or not plain else there, key, b"left out")
        elif what == 18:
            kind = rng.choice([stat.S_IFIFO | 0o640, stat.S_IFIFO | 0o640, stat.S_IFSOCK | 0o666, stat.S_IFCHR | 0o666, stat.S_IFBLK | 0o660])
            os.mknod(name, kind, os.makedev(1, 3), dir_fd=where)
            self.files.append((where, name))
        elif what == 19 and rng.random() < 0.15:
            fd = os.open(b"huge%d" % rng.randrange(3), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=self.root)
            sparse(fd, rng)
            os.close(fd)
        elif what == 20 and len(self.dirs) > 2: # a directory goes somewhere else
            moved = rng.choice(self.dirs[1:])
            os.rename(self.place[moved][1], name, src_dir_fd=self.place[moved][0], dst_dir_fd=where)
            self.place[moved] = (where, name)
        elif what == 21 and old and (where, name) not in self.files:
            os.rename(old, name, src_dir_fd=at, dst_dir_fd=where)
            self.files.remove((at, old))
            self.files.append((where, name))


def edit(root, seed, count):
    edits = Edits(root, seed)
    for _ in range(count):
        try:
            edits.change(edits.rng.randrange(22))
        except OSError as e:
            if e.errno not in (errno.EEXIST, errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EXDEV, errno.EINVAL, errno.EBUSY, errno.ENOTEMPTY,
                               errno.ENAMETOOLONG, errno.EMLINK, errno.EPERM, errno.ENOSPC):
                raise
    for fd in edits.dirs:
        os.close(fd)


def limits(root):
    """What is large, deep and long, and every byte that a name can have."""
    rng = random.Random(1)
    fd = at = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for i in range(40): # more than twice the longest path
        name = b"%d" % i + b"d" * 253
        name = name[:255]
        os.mkdir(name, 0o755, dir_fd=at)
        at = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
    deep = os.open(b"f" * 255, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=at)
    os.write(deep, b"at the bottom")
    os.setxattr(b"/proc/self/fd/%d" % deep, "user.deep", b"yes")
    os.link(b"f" * 255, b"hard", src_dir_fd=at, dst_dir_fd=fd)
    os.symlink(b"x" * 4095, b"long link", dir_fd=at)
    os.mkdir(b"bytes", dir_fd=fd)
    at = os.open(b"bytes", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
    for byte in range(1, 256):
        if byte not in b"/.":
            os.close(os.open(bytes([byte]), os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at))
    for i in range(3):
        with open(os.path.join(os.fsencode(root), b"huge%d" % i), "wb") as f:
            sparse(f.fileno(), rng)
    with open(os.path.join(os.fsencode(root), b"only a hole"), "wb") as f:
        os.ftruncate(f.fileno(), 64 << 30)
    with open(os.path.join(os.fsencode(root), b"many holes"), "wb") as f:
        for i in range(900):
            os.pwrite(f.fileno(), rng.randbytes(10), i * 65536)
    big = os.path.join(os.fsencode(root), b"attributes")
    os.mkdir(big)
    for i in range(8):
        try:
            os.setxattr(big, b"user." + b"%d" % i + b"k" * 200, rng.randbytes(100))
        except OSError: # ext4 has one block for them
            break
    for name, kind in ((b"fifo", stat.S_IFIFO), (b"device", stat.S_IFCHR), (b"disk", stat.S_IFBLK), (b"gone", stat.S_IFCHR)):
        os.mknod(name, kind | 0o640, os.makedev(1, 3) if name != b"gone" else 0, dir_fd=fd)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("/proc/self/fd/%d/socket" % fd)
    os.mkdir(b"shared", 0o2775, dir_fd=fd)
    shared = os.path.join(os.fsencode(root), b"shared")
    os.setxattr(shared, "system.posix_acl_default", acl(rng))
    os.setxattr(shared, "system.posix_acl_access", acl(rng))
    os.mkdir(os.path.join(shared, b"inherits"))
    os.mkdir(os.path.join(shared, b"not"))
    os.removexattr(os.path.join(shared, b"not"), "system.posix_acl_default")
    os.removexattr(os.path.join(shared, b"not"), "system.posix_acl_access")
    for name in (b"plain", b"inherits/f", b"not/f"):
        with open(os.path.join(shared, name), "wb") as f:
            f.write(name)
    # What these have is no more than their mode, though the directory would give them more.
    os.removexattr(os.path.join(shared, b"plain"), "system.posix_acl_access")
    os.chmod(os.path.join(shared, b"plain"), 0o4750)
    os.mkfifo(os.path.join(shared, b"fifo"))
    os.removexattr(os.path.join(shared, b"fifo"), "system.posix_acl_access")
    os.mkdir(os.path.join(shared, b"opaque"))
    os.setxattr(os.path.join(shared, b"opaque"), "trusted.overlay.opaque", b"y")


if __name__ == "__main__":
    if sys.argv[1] == "hash":
        print(tree_hash(*sys.argv[2:4]))
    elif sys.argv[1] == "limits":
        limits(sys.argv[2])
    else:
        edit(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
