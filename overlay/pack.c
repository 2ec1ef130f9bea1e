/* Theory of operation
 *
 * A depth-first walk by descriptors, entries of each directory in byte order. Each entry is a ustar header,
 * preceded by a pax header when something does not fit: a long name, a fraction of a second, an attribute, a
 * large size. Names are written as they are, bytes. Nothing that differs between two machines goes in: no
 * user names, no change times, no device numbers, no inode numbers (hard links refer to the first name, which
 * the order fixes).
 *
 * Files whose holes sum up to HOLES_WORTH are written sparse (GNU.sparse 1.0, which GNU tar, Go and
 * libarchive read). Smaller ones are written out, because where small holes lie is the file system's choice
 * and would change the bytes. */
#include "overlay/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

#define BLOCK 512
#define HOLES_WORTH ((int64_t)16 << 20)
#define OCTAL_MAX ((int64_t)077777777777) /* eleven digits */

struct link_name {
	dev_t dev;
	ino_t ino;
	char *path;
};

struct pack {
	const struct pf_pack_opts *opts;
	pf_pack_sink sink;
	void *arg;
	struct pf_pack_stats *stats;
	struct link_name *links; /* open hash by inode; size is a power of two */
	size_t n_links, cap_links;
	char *buf;
};

#define IO_SIZE ((size_t)256 << 10)

static int put(struct pack *p, const void *data, size_t len, struct pf_err *err)
{
	return len ? p->sink(p->arg, data, len, err) : 0;
}

static int pad(struct pack *p, int64_t size, struct pf_err *err)
{
	static const char zeros[BLOCK];

	return put(p, zeros, (size_t)((BLOCK - size % BLOCK) % BLOCK), err);
}

/* "LEN key=value\n", LEN counting itself. */
static void pax_add(struct pf_buf *b, const char *key, const void *value, size_t len)
{
	size_t body = strlen(key) + len + 3, total = body + 1;
	char digits[24];

	while ((size_t)snprintf(digits, sizeof(digits), "%zu", total) + body != total)
		total = (size_t)snprintf(digits, sizeof(digits), "%zu", total) + body;
	pf_buf_printf(b, "%zu %s=", total, key);
	pf_buf_add(b, value, len);
	pf_buf_add(b, "\n", 1);
}

static void pax_str(struct pf_buf *b, const char *key, const char *value)
{
	pax_add(b, key, value, strlen(value));
}

static void pax_int(struct pf_buf *b, const char *key, int64_t v)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRId64, v);
	pax_str(b, key, text);
}

static void octal(char *field, size_t size, int64_t v)
{
	snprintf(field, size, "%0*" PRIo64, (int)size - 1, (uint64_t)v);
}

static int header(struct pack *p, const char *name, char type, const char *link, mode_t mode,
	const struct stat *st, int64_t size, struct pf_err *err)
{
	char h[BLOCK] = {0};
	unsigned sum = 0;
	int64_t mtime = st->st_mtim.tv_sec;

	strncpy(h, name, 100);
	octal(h + 100, 8, mode & 07777);
	octal(h + 108, 8, st->st_uid & 07777777);
	octal(h + 116, 8, st->st_gid & 07777777);
	octal(h + 124, 12, size <= OCTAL_MAX ? size : 0);
	octal(h + 136, 12, mtime >= 0 && mtime <= OCTAL_MAX ? mtime : 0);
	memset(h + 148, ' ', 8);
	h[156] = type;
	if (link)
		strncpy(h + 157, link, 100);
	memcpy(h + 257,
		"ustar\0"
		"00",
		8);
	for (size_t i = 0; i < BLOCK; i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	h[155] = ' ';
	return put(p, h, BLOCK, err);
}

/* Everything a ustar header cannot say. */
static void pax_common(
	struct pf_buf *x, const char *path, const char *link, const struct stat *st, int64_t size)
{
	if (strlen(path) > 100)
		pax_str(x, "path", path);
	if (link && strlen(link) > 100)
		pax_str(x, "linkpath", link);
	if (size > OCTAL_MAX)
		pax_int(x, "size", size);
	if (st->st_uid > 07777777)
		pax_int(x, "uid", st->st_uid);
	if (st->st_gid > 07777777)
		pax_int(x, "gid", st->st_gid);
	if (st->st_mtim.tv_nsec || st->st_mtim.tv_sec < 0 || st->st_mtim.tv_sec > OCTAL_MAX) {
		char text[48];
		int64_t sec = st->st_mtim.tv_sec;
		long nsec = st->st_mtim.tv_nsec;
		bool neg = sec < 0;
		if (neg && nsec) {
			sec++;
			nsec = 1000000000 - nsec;
		}
		snprintf(text, sizeof(text), "%s%" PRId64 ".%09ld", neg ? "-" : "", neg ? -sec : sec, nsec);
		pax_str(x, "mtime", text);
	}
}

static int emit(struct pack *p, const char *path, char type, const char *link, mode_t mode,
	const struct stat *st, int64_t size, struct pf_buf *x, struct pf_err *err)
{
	pax_common(x, path, link, st, size);
	if (x->len) {
		struct stat plain = {.st_mtim = {.tv_sec = 0}};
		if (header(p, "PaxHeader", 'x', NULL, 0644, &plain, (int64_t)x->len, err) < 0 ||
			put(p, x->data, x->len, err) < 0 || pad(p, (int64_t)x->len, err) < 0)
			return -1;
	}
	p->stats->entries++;
	return header(p, path, type, link, mode, st, size, err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool wanted_xattr(const char *name)
{
	return strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0 ||
	       strcmp(name, "system.posix_acl_default") == 0 ||
	       (pf_starts_with(name, "user.") && !pf_starts_with(name, "user.overlay."));
}

static int add_xattrs(int fd, struct pf_buf *x, struct pf_err *err)
{
	char list[65536], *names[256], value[65536];
	ssize_t len = flistxattr(fd, list, sizeof(list));
	size_t n = 0;

	if (len < 0)
		return errno == EOPNOTSUPP ? 0 : pf_fail(err, errno, "list attributes");
	for (char *s = list; s < list + len; s += strlen(s) + 1) {
		if (!wanted_xattr(s))
			continue;
		if (n == sizeof(names) / sizeof(names[0]))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "too many attributes");
		names[n++] = s;
	}
	if (n)
		qsort(names, n, sizeof(*names), by_name);
	for (size_t i = 0; i < n; i++) {
		PF_FREE char *key = pf_asprintf("SCHILY.xattr.%s", names[i]);
		ssize_t v = fgetxattr(fd, names[i], value, sizeof(value));
		if (v < 0)
			return pf_fail(err, errno, "read attribute %s", names[i]);
		pax_add(x, key, value, (size_t)v);
	}
	return 0;
}

/* ---- hard links ---- */

static void grow_links(struct pack *p)
{
	size_t cap = p->cap_links ? 2 * p->cap_links : 1024;
	struct link_name *v = pf_calloc(cap, sizeof(*v));

	for (size_t i = 0; i < p->cap_links; i++) {
		size_t at = p->links[i].ino & (cap - 1);
		if (!p->links[i].path)
			continue;
		while (v[at].path)
			at = (at + 1) & (cap - 1);
		v[at] = p->links[i];
	}
	free(p->links);
	p->links = v;
	p->cap_links = cap;
}

/* The first name of this inode, or NULL, in which case path is remembered as it. */
static const char *first_name(struct pack *p, const struct stat *st, const char *path)
{
	if (2 * p->n_links >= p->cap_links)
		grow_links(p);
	size_t at = st->st_ino & (p->cap_links - 1);
	for (; p->links[at].path; at = (at + 1) & (p->cap_links - 1))
		if (p->links[at].ino == st->st_ino && p->links[at].dev == st->st_dev)
			return p->links[at].path;
	p->links[at] = (struct link_name){st->st_dev, st->st_ino, pf_strdup(path)};
	p->n_links++;
	return NULL;
}

/* ---- file data ---- */

static int copy_range(struct pack *p, int fd, int64_t from, int64_t to, struct pf_err *err)
{
	while (from < to) {
		size_t want = to - from < (int64_t)IO_SIZE ? (size_t)(to - from) : IO_SIZE;
		ssize_t n = pread(fd, p->buf, want, from);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? pf_fail(err, errno, "read")
				     : pf_fail_kind(err, PF_ERR_STATE, 0,
					       "the file became shorter while it was read");
		if (put(p, p->buf, (size_t)n, err) < 0)
			return -1;
		from += n;
	}
	return 0;
}

/* The map of a sparse file: "COUNT\nOFFSET\nLENGTH\n…", padded to whole blocks. *stored is the sum of the
 * lengths. */
static int sparse_map(int fd, int64_t size, struct pf_buf *map, int64_t *stored, struct pf_err *err)
{
	PF_BUF struct pf_buf list = {0};
	off_t data = 0, hole;
	size_t count = 0;

	*stored = 0;
	while (data < size && (data = lseek(fd, data, SEEK_DATA)) >= 0) {
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return pf_fail(err, errno, "find holes");
		if (hole > size)
			hole = size;
		pf_buf_printf(&list, "%lld\n%lld\n", (long long)data, (long long)(hole - data));
		*stored += hole - data;
		count++;
		data = hole;
	}
	if (data < 0 && errno != ENXIO)
		return pf_fail(err, errno, "find holes");
	/* A last, empty extent marks the size for readers that take it from the map. */
	pf_buf_printf(&list, "%lld\n0\n", (long long)size);
	pf_buf_printf(map, "%zu\n", count + 1);
	pf_buf_add(map, list.data, list.len);
	while (map->len % BLOCK)
		pf_buf_add(map, "", 1);
	return 0;
}

static int put_sparse(struct pack *p, const char *path, int fd, const struct stat *st, struct pf_buf *map,
	int64_t stored, struct pf_buf *x, struct pf_err *err)
{
	int64_t total = stored + (int64_t)map->len;
	off_t data = 0;

	pax_str(x, "GNU.sparse.major", "1");
	pax_str(x, "GNU.sparse.minor", "0");
	pax_str(x, "GNU.sparse.name", path);
	pax_int(x, "GNU.sparse.realsize", st->st_size);
	if (emit(p, path, '0', NULL, st->st_mode, st, total, x, err) < 0 ||
		put(p, map->data, map->len, err) < 0)
		return -1;
	while (data < st->st_size && (data = lseek(fd, data, SEEK_DATA)) >= 0) {
		off_t hole = lseek(fd, data, SEEK_HOLE);
		if (hole < 0)
			return pf_fail(err, errno, "find holes");
		if (hole > st->st_size)
			hole = st->st_size;
		if (copy_range(p, fd, data, hole, err) < 0)
			return -1;
		data = hole;
	}
	return pad(p, total, err);
}

static int put_file(struct pack *p, int dir, const char *name, const char *path, const struct stat *st,
	struct pf_err *err)
{
	PF_BUF struct pf_buf x = {0}, map = {0};
	struct stat now;
	int64_t stored = st->st_size;

	if (st->st_nlink > 1) {
		const char *first = first_name(p, st, path);
		if (first)
			return emit(p, path, '1', first, st->st_mode, st, 0, &x, err);
	}
	PF_CLOSE int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &now) < 0)
		return pf_fail(err, errno, "open");
	if (now.st_ino != st->st_ino || now.st_size != st->st_size)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the file changed while it was read");
	if (add_xattrs(fd, &x, err) < 0)
		return -1;
	p->stats->bytes += st->st_size;
	if (st->st_size - st->st_blocks * 512 >= HOLES_WORTH) {
		if (sparse_map(fd, st->st_size, &map, &stored, err) < 0)
			return -1;
		if (st->st_size - stored >= HOLES_WORTH)
			return put_sparse(p, path, fd, st, &map, stored, &x, err);
	}
	if (emit(p, path, '0', NULL, st->st_mode, st, st->st_size, &x, err) < 0 ||
		copy_range(p, fd, 0, st->st_size, err) < 0)
		return -1;
	return pad(p, st->st_size, err);
}

/* ---- the tree ---- */

static int pack_dir(struct pack *p, int dir, const char *path, struct pf_err *err);

static int whiteout(struct pack *p, const char *parent, const char *name, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s.wh.%s", parent, name);
	PF_BUF struct pf_buf x = {0};
	struct stat st = {.st_mode = S_IFREG};

	return emit(p, path, '0', NULL, 0, &st, 0, &x, err);
}

static int put_dir(struct pack *p, int parent, const char *name, const char *path, struct pf_err *err)
{
	PF_BUF struct pf_buf x = {0};
	struct stat st;
	char opaque = 0;
	PF_CLOSE int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "open");
	if (add_xattrs(fd, &x, err) < 0 || emit(p, path, '5', NULL, st.st_mode, &st, 0, &x, err) < 0)
		return -1;
	if (p->opts->layer && fgetxattr(fd, "trusted.overlay.opaque", &opaque, 1) == 1 && opaque == 'y' &&
		whiteout(p, path, ".wh..opq", err) < 0)
		return -1;
	return pack_dir(p, fd, path, err);
}

static int put_other(struct pack *p, int dir, const char *name, const char *path, const struct stat *st,
	struct pf_err *err)
{
	PF_BUF struct pf_buf x = {0};
	char target[PATH_MAX];

	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlinkat(dir, name, target, sizeof(target) - 1);
		if (n < 0)
			return pf_fail(err, errno, "readlink");
		target[n] = '\0';
		return emit(p, path, '2', target, 0777, st, 0, &x, err);
	}
	if (S_ISFIFO(st->st_mode))
		return emit(p, path, '6', NULL, st->st_mode, st, 0, &x, err);
	p->stats->skipped++;
	return 0;
}

/* One entry of a directory. path is the directory's, "" or ending with '/'. */
static int pack_entry(struct pack *p, int dir, const char *parent, const char *name, struct pf_err *err)
{
	struct stat st;

	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT && p->opts->overlay ? 0 : pf_fail(err, errno, "%s%s", parent, name);
	if (p->opts->layer && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0))
		return whiteout(p, parent, name, err);
	PF_FREE char *path = pf_asprintf("%s%s%s", parent, name, S_ISDIR(st.st_mode) ? "/" : "");
	int r = S_ISDIR(st.st_mode)   ? put_dir(p, dir, name, path, err)
		: S_ISREG(st.st_mode) ? put_file(p, dir, name, path, &st, err)
				      : put_other(p, dir, name, path, &st, err);
	/* Directories have named themselves further down. */
	return r < 0 && !S_ISDIR(st.st_mode) ? pf_wrap(err, "%.300s", path) : r;
}

/* The names in dir, sorted. The directory stream is closed before anything below is visited: deep trees would
 * run out of descriptors. */
static int read_names(int dir, char ***out, size_t *n, struct pf_err *err)
{
	char **names = NULL;
	size_t cap = 0;
	struct dirent *e;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);

	*n = 0;
	*out = NULL;
	if (!d) {
		if (fd >= 0)
			close(fd);
		return pf_fail(err, errno, "open");
	}
	while ((errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (*n == cap) {
			cap = cap ? 2 * cap : 32;
			names = realloc(names, cap * sizeof(*names));
			if (!names)
				abort();
			*out = names;
		}
		names[(*n)++] = pf_strdup(e->d_name);
	}
	if (errno)
		return pf_fail(err, errno, "read");
	if (*n)
		qsort(names, *n, sizeof(*names), by_name);
	return 0;
}

static int pack_dir(struct pack *p, int dir, const char *path, struct pf_err *err)
{
	char **names;
	size_t n;
	int r = read_names(dir, &names, &n, err);

	if (r < 0)
		pf_wrap(err, "%.300s", path);
	for (size_t i = 0; i < n; i++) {
		if (r == 0)
			r = pack_entry(p, dir, path, names[i], err);
		free(names[i]);
	}
	free(names);
	return r;
}

static int pack_root(struct pack *p, int dirfd, struct pf_err *err)
{
	static const char end[2 * BLOCK];
	PF_BUF struct pf_buf x = {0};
	struct stat st;
	PF_CLOSE int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "open");
	if (add_xattrs(fd, &x, err) < 0 || emit(p, "./", '5', NULL, st.st_mode, &st, 0, &x, err) < 0 ||
		pack_dir(p, fd, "", err) < 0)
		return -1;
	return put(p, end, sizeof(end), err);
}

int pf_pack_tree(int dirfd, const struct pf_pack_opts *opts, pf_pack_sink sink, void *arg,
	struct pf_pack_stats *stats, struct pf_err *err)
{
	static const struct pf_pack_opts defaults;
	struct pf_pack_stats own = {0};
	struct pack p = {
		.opts = opts ? opts : &defaults, .sink = sink, .arg = arg, .stats = stats ? stats : &own};

	*p.stats = own;
	p.buf = pf_calloc(1, IO_SIZE);
	int r = pack_root(&p, dirfd, err);
	for (size_t i = 0; i < p.cap_links; i++)
		free(p.links[i].path);
	free(p.links);
	free(p.buf);
	return r;
}
