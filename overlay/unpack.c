/* Theory of operation
 *
 * A layer is unpacked by real root into a fresh directory of the store, so a hostile layer is the shortest
 * way from "somebody made an image" to "somebody writes the host". The defence is structural: no path of the
 * archive is ever handed to the kernel whole. Each is cut into components; `..` is refused, and the walk to
 * the parent opens one component at a time with O_NOFOLLOW from the destination's descriptor. The archive can
 * make symlinks as it likes, but nothing is ever created, linked or removed *through* one: a member whose
 * parent is a symlink is an error (sound layers have none: a path is recorded where it is).
 *
 * What the tree must look like afterwards is an overlay lower: `.wh.NAME` becomes a character device 0/0 and
 * `.wh..wh..opq` the attribute trusted.overlay.opaque=y on its directory. Markers speak of the layers below
 * only, so a name that is both removed and made anew in one layer is there (a directory then is opaque), in
 * whatever order the two come. The same markers in their overlay form are never taken from an archive: a
 * stray attribute could make the kernel look elsewhere (redirect, metacopy).
 *
 * Owners are 0..65535, what a sandbox's id map holds. Device nodes are of no use in a box (its root is nodev)
 * and dangerous outside: images in the wild carry some, so they are left out and counted; a checkpoint never
 * has any.
 *
 * Directory times are set at the end, because creating entries changes them; parents that the archive does
 * not name get mode 0755 and time 0, so that the result does not depend on when it was made. */
#include "overlay/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/stream.h"
#include "overlay/tarread.h"

#define DEFAULT_BYTES ((int64_t)64 << 30)
#define DEFAULT_ENTRIES ((int64_t)4 << 20)
#define MAX_PATH_BYTES ((size_t)65536)
#define MAX_ID 65535
#define MAX_DEPTH 8192 /* what a tree may have that is walked again; each level of a path is opened */
/* What is remembered of directories until the end. One entry of an archive can stand for thousands of them,
 * each with a path as long. */
#define MAX_NOTES ((size_t)256 << 20)
#define DEFAULT_ACL "system.posix_acl_default"

/* What a directory gets when all that is in it has been made: until then its time would change, and
 * everything new would inherit the attribute. */
struct dir_end {
	char *path;
	struct timespec mtime;
	void *default_acl; /* NULL: none */
	size_t acl_len;
};

struct unpack {
	int dest;
	const struct pf_unpack_opts *opts;
	int64_t max_bytes, max_entries;
	struct pf_unpack_stats *stats;
	/* The directory that was walked to last; entries come grouped. fd -1: none. */
	char *at_path;
	int at_fd;
	struct dir_end *dirs;
	size_t n_dirs, cap_dirs;
	size_t notes; /* bytes of their paths and attributes */
	int64_t made; /* parents that the archive does not name */
};

/* A member's place: its parent opened, its last component. name is "" for the root itself. */
struct place {
	int dir; /* owned by struct unpack's cache */
	const char *name;
};

static int bad(struct pf_err *err, const char *what)
{
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s", what);
}

/* For error texts: names come from the archive and go to a terminal or a log line. */
static void printable(const char *s, char *out, size_t size)
{
	size_t n = 0;

	for (; *s && n + 1 < size; s++)
		out[n++] = *s >= ' ' && *s < 0x7f ? *s : '?';
	out[n] = '\0';
}

/* "./a//b/" → "a/b". malloc'ed; NULL with err set. */
static char *clean(const struct unpack *u, const char *path, struct pf_err *err)
{
	size_t len = strlen(path), n = 0, depth = 0;

	if (len > MAX_PATH_BYTES) {
		bad(err, "the path is too long");
		return NULL;
	}
	if (path[0] == '/' && u->opts->strict) {
		bad(err, "the path is absolute");
		return NULL;
	}
	char *out = pf_calloc(len + 1, 1);
	for (const char *s = path; *s;) {
		size_t c = strcspn(s, "/");
		if (c == 2 && s[0] == '.' && s[1] == '.') {
			free(out);
			bad(err, "the path holds '..'");
			return NULL;
		}
		/* The mark of a deletion is longer than what it deletes, and never a file. */
		size_t most = !s[c] && pf_starts_with(s, ".wh.") ? NAME_MAX + strlen(".wh.") : NAME_MAX;
		if (c > most) {
			free(out);
			bad(err, "a name in the path is longer than 255 bytes");
			return NULL;
		}
		if (c > 0 && !(c == 1 && s[0] == '.')) {
			if (++depth > MAX_DEPTH) {
				free(out);
				bad(err, "directories nest deeper than 8192 levels");
				return NULL;
			}
			if (n)
				out[n++] = '/';
			memcpy(out + n, s, c);
			n += c;
		}
		s += c;
		s += *s == '/';
	}
	return out;
}

static void forget_at(struct unpack *u)
{
	if (u->at_fd >= 0)
		close(u->at_fd);
	u->at_fd = -1;
	free(u->at_path);
	u->at_path = NULL;
}

/* Another file or directory is made. */
static int count_entry(struct unpack *u, int64_t *count, struct pf_err *err)
{
	if (u->stats->entries + u->made >= u->max_entries)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "the archive has more than %lld entries",
			(long long)u->max_entries);
	(*count)++;
	return 0;
}

static int note_bytes(struct unpack *u, size_t len, struct pf_err *err)
{
	if (len > MAX_NOTES - u->notes)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the paths of the archive's directories are longer than the limit of %zu bytes in "
			"all",
			MAX_NOTES);
	u->notes += len;
	return 0;
}

static int note_dir(struct unpack *u, const char *path, const struct pf_tar_entry *e, struct pf_err *err)
{
	if (note_bytes(u, strlen(path) + 1, err) < 0)
		return -1;
	if (u->n_dirs == u->cap_dirs) {
		u->cap_dirs = u->cap_dirs ? 2 * u->cap_dirs : 256;
		u->dirs = realloc(u->dirs, u->cap_dirs * sizeof(*u->dirs));
		if (!u->dirs)
			abort();
	}
	struct dir_end *d = &u->dirs[u->n_dirs++];
	*d = (struct dir_end){.path = pf_strdup(path), .mtime = e->mtime};
	for (size_t i = 0; i < e->n_xattrs; i++)
		if (strcmp(e->xattrs[i].name, DEFAULT_ACL) == 0) {
			if (note_bytes(u, e->xattrs[i].len, err) < 0)
				return -1;
			free(d->default_acl);
			d->acl_len = e->xattrs[i].len;
			d->default_acl = memcpy(pf_calloc(d->acl_len + 1, 1), e->xattrs[i].value, d->acl_len);
		}
	return 0;
}

static bool is_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static int set_opaque(int dirfd, struct pf_err *err)
{
	if (fsetxattr(dirfd, "trusted.overlay.opaque", "y", 1, 0) == 0)
		return 0;
	/* Who is root in a user namespace alone mounts with userxattr, since he may not set the other. */
	if (errno != EPERM || fsetxattr(dirfd, "user.overlay.opaque", "y", 1, 0) < 0)
		return pf_fail(err, errno, "mark a directory as opaque");
	return 0;
}

static int open_dir(int parent, const char *name)
{
	return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* One step of a walk: the directory name below parent. create makes it when it is missing. */
static int step(
	struct unpack *u, int parent, const char *name, const char *prefix, bool create, struct pf_err *err)
{
	struct stat st;
	bool opaque = false;
	int fd = open_dir(parent, name);

	if (fd >= 0)
		return fd;
	if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
		return pf_fail(err, errno, "open");
	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		if (errno != ENOENT)
			return pf_fail(err, errno, "stat");
	} else if (S_ISLNK(st.st_mode)) {
		return bad(err, "a parent directory of the path is a symbolic link");
	} else if (!is_whiteout(&st)) {
		return bad(err, "a parent of the path is not a directory");
	} else if (create) {
		if (unlinkat(parent, name, 0) < 0)
			return pf_fail(err, errno, "replace a whiteout");
		opaque = true;
	}
	if (!create)
		return bad(err, "its target is not in this layer");
	if (pf_starts_with(name, ".wh."))
		return bad(err, "the path goes through a whiteout name");
	if (count_entry(u, &u->made, err) < 0)
		return -1;
	if (mkdirat(parent, name, 0755) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int made = open_dir(parent, name);
	if (made < 0)
		return pf_fail(err, errno, "open");
	if (fchmod(made, 0755) < 0)
		return pf_fail(err, errno, "chmod");
	if (opaque && set_opaque(made, err) < 0)
		return -1;
	if (note_dir(u, prefix, &(struct pf_tar_entry){0}, err) < 0)
		return -1;
	return pf_take_fd(&made);
}

/* Open the directory path ("" is the root) through the cache. The descriptor stays the cache's. */
static int walk(struct unpack *u, const char *path, bool create, struct pf_err *err)
{
	size_t len = strlen(path), pos = 0;

	if (u->at_fd >= 0 && strcmp(u->at_path, path) == 0)
		return u->at_fd;
	/* A directory below the one of last time is reached from there. */
	PF_CLOSE int fd = -1;
	if (u->at_fd >= 0 && *u->at_path && pf_path_below(path, u->at_path)) {
		pos = strlen(u->at_path) + 1;
		fd = fcntl(u->at_fd, F_DUPFD_CLOEXEC, 3);
	} else {
		fd = open_dir(u->dest, "."); /* dest may be an O_PATH descriptor */
	}
	if (fd < 0)
		return pf_fail(err, errno, "open");
	PF_FREE char *prefix = pf_strdup(path);
	while (pos < len) {
		size_t end = pos + strcspn(path + pos, "/");
		prefix[end] = '\0';
		int down = step(u, fd, prefix + pos, prefix, create, err);
		if (down < 0)
			return -1;
		close(fd);
		fd = down;
		if (end < len)
			prefix[end] = '/';
		pos = end + 1;
	}
	forget_at(u);
	u->at_path = pf_strdup(path);
	u->at_fd = pf_take_fd(&fd);
	return u->at_fd;
}

/* Split path (clean) and walk to the parent. path is cut in place; place->name points into it. */
static int locate(struct unpack *u, char *path, bool create, struct place *pl, struct pf_err *err)
{
	char *slash = strrchr(path, '/');

	pl->name = slash ? slash + 1 : path;
	if (slash)
		*slash = '\0';
	pl->dir = walk(u, slash ? path : "", create, err);
	if (slash)
		*slash = '/';
	return pl->dir < 0 ? -1 : 0;
}

static int remove_existing(const struct place *pl, const struct stat *st, struct pf_err *err)
{
	if (!S_ISDIR(st->st_mode))
		return unlinkat(pl->dir, pl->name, 0) < 0 ? pf_fail(err, errno, "replace") : 0;
	/* pl->dir is the cache's, and above what is removed, so it stays valid. */
	return pf_rm_rf_at(pl->dir, pl->name, err);
}

/* Make room for a new entry. *was_whiteout says that the name had been removed from the layers below. */
static int make_room(struct unpack *u, const struct place *pl, bool *was_whiteout, struct pf_err *err)
{
	struct stat st;

	*was_whiteout = false;
	if (fstatat(pl->dir, pl->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "stat");
	*was_whiteout = is_whiteout(&st);
	if (u->opts->strict && !*was_whiteout)
		return bad(err, "the path is given twice");
	return remove_existing(pl, &st, err);
}

static bool keep_xattr(const struct pf_tar_xattr *x)
{
	if (strcmp(x->name, "security.capability") == 0 || strcmp(x->name, "system.posix_acl_access") == 0 ||
		strcmp(x->name, DEFAULT_ACL) == 0)
		return true;
	return pf_starts_with(x->name, "user.") && !pf_starts_with(x->name, "user.overlay.");
}

static int set_xattrs(struct unpack *u, const struct pf_tar_entry *e, int fd, struct pf_err *err)
{
	for (size_t i = 0; i < e->n_xattrs; i++) {
		const struct pf_tar_xattr *x = &e->xattrs[i];
		if (fd < 0 || !keep_xattr(x)) {
			if (u->opts->strict && strstr(x->name, ".overlay."))
				return bad(err, "it carries overlay attributes");
			u->stats->dropped_xattrs++;
			continue;
		}
		if (e->type == '5' && strcmp(x->name, DEFAULT_ACL) == 0)
			continue; /* when it is full */
		if (fsetxattr(fd, x->name, x->value, x->len, 0) < 0) {
			char name[80];
			printable(x->name, name, sizeof(name));
			return pf_fail(err, errno, "set attribute %s", name);
		}
	}
	return 0;
}

/* Owner before mode (chown clears setuid), both before attributes (chown clears capabilities). */
static int set_meta(struct unpack *u, const struct pf_tar_entry *e, int fd, struct pf_err *err)
{
	if (fchown(fd, (uid_t)e->uid, (gid_t)e->gid) < 0)
		return pf_fail(err, errno, "chown");
	if (fchmod(fd, e->mode) < 0)
		return pf_fail(err, errno, "chmod");
	return set_xattrs(u, e, fd, err);
}

static int put_file(struct unpack *u, struct pf_tar *t, const struct pf_tar_entry *e, const struct place *pl,
	struct pf_err *err)
{
	const void *data;
	int64_t off, end = 0;
	ssize_t n;
	PF_CLOSE int fd = openat(
		pl->dir, pl->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);

	if (fd < 0)
		return pf_fail(err, errno, "create");
	while ((n = pf_tar_data(t, &data, &off, err)) > 0) {
		if (pf_pwrite_all(fd, data, (size_t)n, off) < 0)
			return pf_fail(err, errno, "write");
		end = off + n;
	}
	if (n < 0)
		return -1;
	if (end != e->size && ftruncate(fd, e->size) < 0)
		return pf_fail(err, errno, "set the size");
	if (set_meta(u, e, fd, err) < 0)
		return -1;
	struct timespec times[2] = {e->mtime, e->mtime};
	if (futimens(fd, times) < 0)
		return pf_fail(err, errno, "set the time");
	u->stats->bytes += e->size;
	return 0;
}

static int put_dir(struct unpack *u, const struct pf_tar_entry *e, const char *path, const struct place *pl,
	struct pf_err *err)
{
	struct stat st;
	bool opaque = false;

	if (*pl->name) {
		if (fstatat(pl->dir, pl->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
			opaque = is_whiteout(&st);
			if (!S_ISDIR(st.st_mode)) {
				if (u->opts->strict && !opaque)
					return bad(err, "the path is given twice");
				if (remove_existing(pl, &st, err) < 0)
					return -1;
				if (mkdirat(pl->dir, pl->name, 0700) < 0)
					return pf_fail(err, errno, "mkdir");
			}
		} else if (errno != ENOENT || mkdirat(pl->dir, pl->name, 0700) < 0) {
			return pf_fail(err, errno, "mkdir");
		}
	}
	PF_CLOSE int fd = open_dir(pl->dir, *pl->name ? pl->name : ".");
	if (fd < 0)
		return pf_fail(err, errno, "open");
	if (opaque && set_opaque(fd, err) < 0)
		return -1;
	if (set_meta(u, e, fd, err) < 0)
		return -1;
	return note_dir(u, path, e, err);
}

static int put_special(
	struct unpack *u, const struct pf_tar_entry *e, const struct place *pl, struct pf_err *err)
{
	struct timespec times[2] = {e->mtime, e->mtime};

	if (e->type == '2') {
		if (!*e->link)
			return bad(err, "a symbolic link without a target");
		if (symlinkat(e->link, pl->dir, pl->name) < 0)
			return pf_fail(err, errno, "symlink");
	} else if (mknodat(pl->dir, pl->name, S_IFIFO | 0600, 0) < 0) {
		return pf_fail(err, errno, "mkfifo");
	}
	if (fchownat(pl->dir, pl->name, (uid_t)e->uid, (gid_t)e->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return pf_fail(err, errno, "chown");
	if (e->type == '6' && fchmodat(pl->dir, pl->name, e->mode, 0) < 0)
		return pf_fail(err, errno, "chmod");
	if (utimensat(pl->dir, pl->name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return pf_fail(err, errno, "set the time");
	return set_xattrs(u, e, -1, err);
}

static int put_hard_link(struct unpack *u, const struct pf_tar_entry *e, char *path, struct pf_err *err)
{
	struct place pl;
	struct stat st, old;
	bool ignored;
	PF_FREE char *target = clean(u, e->link, err);

	if (!target)
		return -1;
	/* An O_PATH handle on the target: the walk to the member itself reuses the cache. */
	if (!*target || locate(u, target, false, &pl, err) < 0)
		return *target ? -1 : bad(err, "a hard link to the root");
	PF_CLOSE int fd = openat(pl.dir, pl.name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? bad(err, "its target is not in this layer")
				       : pf_fail(err, errno, "open");
	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "stat");
	if (S_ISDIR(st.st_mode) || is_whiteout(&st))
		return bad(err, "a hard link to something that is no file of this layer");
	if (locate(u, path, true, &pl, err) < 0)
		return -1;
	if (fstatat(pl.dir, pl.name, &old, AT_SYMLINK_NOFOLLOW) == 0 && old.st_dev == st.st_dev &&
		old.st_ino == st.st_ino)
		return u->opts->strict ? bad(err, "the path is given twice") : 0;
	if (make_room(u, &pl, &ignored, err) < 0)
		return -1;
	if (linkat(fd, "", pl.dir, pl.name, AT_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "link");
	return 0;
}

/* Names that begin with .wh. speak of the layers below. */
static int put_whiteout(struct unpack *u, const struct place *pl, struct pf_err *err)
{
	const char *name = pl->name + strlen(".wh.");
	struct stat st;

	if (strcmp(name, ".wh..opq") == 0) {
		/* The kernel merges the layers' roots in any case, so this could not be kept. */
		if (u->at_path && !*u->at_path)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"a layer that hides the whole root below it; squash the image into one "
				"layer");
		return set_opaque(pl->dir, err);
	}
	if (pf_starts_with(name, ".wh."))
		return u->opts->strict ? bad(err, "an unknown whiteout") : 0; /* aufs's own bookkeeping */
	if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return bad(err, "a whiteout without a name");
	if (fstatat(pl->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (!S_ISDIR(st.st_mode))
			return 0;
		PF_CLOSE int fd = open_dir(pl->dir, name);
		return fd < 0 ? pf_fail(err, errno, "open") : set_opaque(fd, err);
	}
	if (errno != ENOENT)
		return pf_fail(err, errno, "stat");
	if (mknodat(pl->dir, name, S_IFCHR, makedev(0, 0)) < 0)
		return pf_fail(err, errno, "make a whiteout");
	return 0;
}

static int put(struct unpack *u, struct pf_tar *t, const struct pf_tar_entry *e, struct pf_err *err)
{
	struct place pl;
	bool was_whiteout;

	if (count_entry(u, &u->stats->entries, err) < 0)
		return -1;
	if (e->size > u->max_bytes - u->stats->bytes)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the files are larger than the limit of %lld bytes", (long long)u->max_bytes);
	if (e->uid > MAX_ID || e->gid > MAX_ID)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"owner %lld:%lld is beyond 65535, the last id a sandbox has", (long long)e->uid,
			(long long)e->gid);
	PF_FREE char *path = clean(u, e->path, err);
	if (!path)
		return -1;
	if (!*path && e->type != '5')
		return bad(err, "the root is not a directory");
	if (e->type == '3' || e->type == '4') {
		if (u->opts->strict)
			return bad(err, "a device node");
		u->stats->skipped_devices++;
		return 0;
	}
	if (e->type == '1' && !pf_starts_with(strrchr(path, '/') ? strrchr(path, '/') + 1 : path, ".wh."))
		return put_hard_link(u, e, path, err);
	if (locate(u, path, true, &pl, err) < 0)
		return -1;
	if (pf_starts_with(pl.name, ".wh."))
		return put_whiteout(u, &pl, err);
	if (e->type == '5')
		return put_dir(u, e, path, &pl, err);
	if (make_room(u, &pl, &was_whiteout, err) < 0)
		return -1;
	return e->type == '0' ? put_file(u, t, e, &pl, err) : put_special(u, e, &pl, err);
}

static int end_dirs(struct unpack *u, struct pf_err *err)
{
	for (size_t i = 0; i < u->n_dirs; i++) {
		const struct dir_end *d = &u->dirs[i];
		struct timespec times[2] = {d->mtime, d->mtime};
		struct pf_err gone = PF_ERR_INIT;
		int fd = walk(u, d->path, false, &gone);
		if (fd < 0) {
			if (gone.kind == PF_ERR_CORRUPT)
				continue; /* a later entry replaced it */
			*err = gone;
			return -1;
		}
		if (d->default_acl && fsetxattr(fd, DEFAULT_ACL, d->default_acl, d->acl_len, 0) < 0)
			return pf_fail(err, errno, "set attribute %s of a directory", DEFAULT_ACL);
		if (futimens(fd, times) < 0)
			return pf_fail(err, errno, "set a directory's time");
	}
	return 0;
}

static int compare(const char *what, const char *want, const char *got, struct pf_err *err)
{
	if (!want || strcmp(want, got) == 0)
		return 0;
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0,
		"the %s is %s, expected %.80s: damaged or not what it says", what, got, want);
}

static int run(struct unpack *u, struct pf_stream *s, struct pf_tar *t, struct pf_err *err)
{
	const struct pf_tar_entry *e;
	int r;

	while ((r = pf_tar_next(t, &e, err)) > 0) {
		if (put(u, t, e, err) < 0) {
			char name[240];
			printable(e->path, name, sizeof(name));
			return pf_wrap(err, "entry '%s'", name);
		}
	}
	if (r < 0 || pf_tar_drain(t, err) < 0 || end_dirs(u, err) < 0)
		return -1;
	if (pf_stream_finish(s, u->stats->digest, u->stats->diff_id, &u->stats->archive_bytes, err) < 0)
		return -1;
	if (compare("archive's digest", u->opts->digest, u->stats->digest, err) < 0)
		return -1;
	return compare("layer's diff id", u->opts->diff_id, u->stats->diff_id, err);
}

static int64_t limit(int64_t given, int64_t fallback, int64_t most)
{
	return given <= 0 ? fallback : given < most ? given : most;
}

int pf_unpack_layer(int archive_fd, int dest_dirfd, const struct pf_unpack_opts *opts,
	struct pf_unpack_stats *stats, struct pf_err *err)
{
	static const struct pf_unpack_opts defaults;
	struct pf_unpack_stats own = {0};
	struct unpack u = {.dest = dest_dirfd,
		.opts = opts ? opts : &defaults,
		.stats = stats ? stats : &own,
		.at_fd = -1};
	int r = -1;

	*u.stats = own;
	u.max_bytes = limit(u.opts->max_bytes, DEFAULT_BYTES, (int64_t)1 << 60);
	u.max_entries = limit(u.opts->max_entries, DEFAULT_ENTRIES, (int64_t)1 << 40);
	/* Headers come on top of the files' own bytes. */
	struct pf_stream *s =
		pf_stream_open(archive_fd, u.max_bytes + u.max_entries * 2048 + ((int64_t)1 << 20),
			u.opts->progress, u.opts->progress_arg, err);
	if (s) {
		struct pf_tar *t = pf_tar_new(pf_stream_read, s);
		r = run(&u, s, t, err);
		pf_tar_free(t);
		pf_stream_free(s);
	}
	forget_at(&u);
	for (size_t i = 0; i < u.n_dirs; i++) {
		free(u.dirs[i].path);
		free(u.dirs[i].default_acl);
	}
	free(u.dirs);
	return r;
}
