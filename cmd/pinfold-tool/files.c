/* Theory of operation: read, write, edit, and where they may.
 *
 * A path is resolved as far as it exists, symlinks included, and must then lie in the working directory. That
 * is a courtesy to the agent, not a wall: its shell can go everywhere in the sandbox, and the sandbox is the
 * wall. A file is replaced as a whole, by a file beside it that is synced and renamed over it. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/pinfold-tool/tool.h"

#define FILE_MAX ((off_t)256 * 1024)
#define LINKS_MAX 40
#define ROOTS_MAX 32

static struct {
	const char *dir;
	bool read_only;
} roots[ROOTS_MAX];
static size_t n_roots;

void add_fs_error(struct text *out, const char *file, int e)
{
	static const struct {
		int e;
		const char *words;
	} known[] = {{ENOENT, "no such file or directory"}, {EACCES, "permission denied"},
		{EPERM, "permission denied"}, {ENOTDIR, "not a directory"}, {EISDIR, "is a directory"},
		{ELOOP, "too many levels of symbolic links"}, {ENAMETOOLONG, "file name too long"},
		{ENOSPC, "no space left on device"}, {EMFILE, "too many open files"},
		{ENFILE, "too many open files"}};
	const char *name = strerrorname_np(e);

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (known[i].e == e) {
			add_fmt(out, "%s: %s", file, known[i].words);
			return;
		}
	add_fmt(out, "%s: i/o error (%s)", file, name ? name : "unknown");
}

bool within(const char *dir, const char *p)
{
	size_t n = strlen(dir);

	return strcmp(dir, "/") == 0 || (strncmp(p, dir, n) == 0 && (p[n] == '/' || !p[n]));
}

/* p against base with `.`, `..` and `//` taken out by their letters alone; malloc'ed. */
static char *lexical(const char *base, const char *p)
{
	struct text in = {0}, out = {0};

	if (*p != '/') {
		add_str(&in, base);
		add_str(&in, "/");
	}
	add_str(&in, p);
	add_str(&out, "");
	for (char *save = NULL, *word = strtok_r(in.s, "/", &save); word; word = strtok_r(NULL, "/", &save)) {
		if (strcmp(word, ".") == 0)
			continue;
		if (strcmp(word, "..") == 0) {
			while (out.len > 0 && out.s[--out.len] != '/')
				;
			out.s[out.len] = '\0';
			continue;
		}
		add_str(&out, "/");
		add_str(&out, word);
	}
	if (!out.len)
		add_str(&out, "/");
	text_done(&in);
	return out.s;
}

static char *read_link(const char *path)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);

	if (n < 0)
		return NULL;
	target[n] = '\0';
	return strdup(target);
}

/* prefix "/rest": malloc'ed. */
static char *join(const char *prefix, const char *rest)
{
	struct text t = {0};

	add_str(&t, strcmp(prefix, "/") == 0 ? "" : prefix);
	add_str(&t, rest);
	if (!t.len)
		add_str(&t, "/");
	return t.s;
}

/* The path with no symlink left in it; what does not exist is taken as it stands. malloc'ed, NULL with errno.
 */
static char *canonical(const char *abs)
{
	char *prefix = strdup(abs), *tail = strdup("");
	int hops = 0;

	for (;;) {
		struct stat st;
		char *real = realpath(prefix, NULL), *slash, *more;
		if (real) {
			more = join(real, tail);
			free(real);
			free(prefix);
			free(tail);
			return more;
		}
		int e = errno;
		slash = strrchr(prefix, '/');
		if (lstat(prefix, &st) < 0) {
			if ((errno != ENOENT && errno != ENOTDIR) || slash == prefix + strlen(prefix) - 1)
				break;
			more = join(slash, tail);
			free(tail);
			tail = more;
			slash[slash == prefix] = '\0';
			continue;
		}
		char *target = S_ISLNK(st.st_mode) ? read_link(prefix) : NULL;
		if (!target || ++hops > LINKS_MAX) {
			errno = target ? ELOOP : e;
			free(target);
			break;
		}
		slash[slash == prefix] = '\0';
		char *parent = realpath(prefix, NULL);
		char *next = parent ? lexical(parent, target) : NULL;
		char *whole = next ? join(next, tail) : NULL;
		free(parent);
		free(target);
		free(next);
		if (!whole)
			break;
		free(prefix);
		free(tail);
		prefix = whole;
		tail = strdup("");
	}
	int e = errno;
	free(prefix);
	free(tail);
	errno = e;
	return NULL;
}

static void add_quoted(struct text *out, const char *s)
{
	add_str(out, "\"");
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			add_fmt(out, "\\%c", *s);
		else if (*s == '\n')
			add_str(out, "\\n");
		else if (*s == '\t')
			add_str(out, "\\t");
		else if ((unsigned char)*s < 0x20)
			add_fmt(out, "\\u%04x", (unsigned)*s);
		else
			add(out, s, 1);
	add_str(out, "\"");
}

void allow_root(const char *dir, bool read_only)
{
	if (n_roots == ROOTS_MAX)
		abort();
	roots[n_roots].dir = dir;
	roots[n_roots++].read_only = read_only;
}

static const char *find_root(const char *path, bool read_only)
{
	const char *found = NULL;

	for (size_t i = 0; i < n_roots && !found; i++) {
		char *abs = lexical(workdir(), roots[i].dir), *real = canonical(abs);
		if (real && within(real, path) && (!read_only || roots[i].read_only))
			found = roots[i].dir;
		free(abs);
		free(real);
	}
	return found;
}

bool in_roots(const char *path)
{
	return find_root(path, false) != NULL;
}

const char *read_only_root(const char *path)
{
	return find_root(path, true);
}

char *resolve(const char *p, struct text *out)
{
	char *root = canonical(workdir()), *abs = lexical(root ? root : workdir(), p), *real = canonical(abs);
	int e = errno;
	bool inside = root && real && (within(root, real) || in_roots(real));

	free(root);
	free(abs);
	if (inside)
		return real;
	out->len = 0;
	if (!real) {
		struct text quoted = {0};
		add_str(&quoted, "path ");
		add_quoted(&quoted, p);
		add_fs_error(out, quoted.s, e);
		text_done(&quoted);
	} else {
		add_str(out, "path ");
		add_quoted(out, p);
		add_str(out, " is outside the session's working directory");
		if (n_roots)
			add_str(out, " and its other permitted directories");
	}
	free(real);
	return NULL;
}

/* "read: FILE: no such …": returns false. */
static bool fail_fs(struct text *out, const char *what, const char *file, int e)
{
	out->len = 0;
	add_str(out, what);
	add_str(out, ": ");
	add_fs_error(out, file, e);
	return false;
}

/* An open regular file. A FIFO must not be opened to find out that it is one; O_NONBLOCK is for one that
 * takes the file's place meanwhile. */
static int open_file(const char *what, const char *shown, const char *path, struct stat *st, struct text *out)
{
	if (stat(path, st) < 0) {
		fail_fs(out, what, shown, errno);
		return -1;
	}
	if (!S_ISREG(st->st_mode)) {
		fail(out, "%s: %s is not a regular file", what, shown);
		return -1;
	}
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		fail_fs(out, what, shown, errno);
	return fd;
}

static bool read_whole(int fd, off_t max, struct text *t)
{
	static char buf[65536];
	ssize_t n;

	add(t, "", 0);
	while ((n = read(fd, buf, sizeof(buf))) > 0 && (off_t)t->len <= max)
		add(t, buf, (size_t)n);
	return n >= 0;
}

/* Lines first to last (from 0, last excluded, -1: all) of the open file; beyond limit bytes an error. limit <
 * 0: none. */
static bool read_lines(int fd, const struct request *r, off_t limit, struct text *out)
{
	static char buf[65536];
	long first = r->range[0] > 1 ? r->range[0] - 1 : 0, last = r->range[1] > 0 ? r->range[1] : -1,
	     line = 0;
	ssize_t n;

	if (last >= 0 && last <= first)
		return true;
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (char *p = buf, *end = buf + n; p < end && (last < 0 || line < last);) {
			char *nl = memchr(p, '\n', (size_t)(end - p)), *stop = nl ? nl : end;
			if (line >= first) {
				add(out, p, (size_t)(stop - p));
				if (nl && (last < 0 || line + 1 < last))
					add(out, "\n", 1);
			}
			if (limit >= 0 && (off_t)out->len > limit) {
				if (last >= 0 && last - first == 1)
					return fail(out,
						"read: line %ld of %s alone exceeds %lld-byte limit. The "
						"read tool "
						"cannot "
						"return part of a line, so view_range cannot narrow this "
						"further.",
						first + 1, r->path, (long long)limit);
				return fail(out,
					"read: view_range [%ld, %ld] of %s exceeds %lld-byte limit. Narrow "
					"the "
					"view_range to read a smaller portion.",
					r->range[0], r->range[1], r->path, (long long)limit);
			}
			line += nl != NULL;
			p = nl ? nl + 1 : end;
		}
		if (last >= 0 && line >= last)
			break;
	}
	return n < 0 ? fail_fs(out, "read", r->path, errno) : true;
}

bool tool_read(const struct request *r, struct text *out)
{
	struct stat st;
	bool ok = true;

	if (!r->path || !*r->path)
		return fail(out, "read: file_path is required");
	char *path = resolve(r->path, out);
	if (!path)
		return false;
	if (r->n_range && r->n_range != 2) {
		free(path);
		return fail(out, "read: view_range must be [start_line, end_line]");
	}
	int fd = open_file("read", r->path, path, &st, out);
	free(path);
	if (fd < 0)
		return false;
	if (r->n_range)
		ok = read_lines(fd, r, st.st_size > FILE_MAX ? FILE_MAX : -1, out);
	else if (st.st_size > FILE_MAX)
		ok = fail(out,
			"read: %s is %lld bytes, exceeds %lld-byte limit. Use the view_range parameter to "
			"read "
			"specific line ranges, e.g. view_range: [1, 500].",
			r->path, (long long)st.st_size, (long long)FILE_MAX);
	else if (!read_whole(fd, FILE_MAX, out))
		ok = fail_fs(out, "read", r->path, errno);
	close(fd);
	return ok;
}

/* mkdir -p with mode 0700; -1 with errno. */
static int make_dirs(const char *dir)
{
	struct stat st;

	if (stat(dir, &st) == 0)
		return S_ISDIR(st.st_mode) ? 0 : (errno = EEXIST, -1);
	char *parent = strdup(dir), *slash = strrchr(parent, '/');
	int r = 0;
	if (slash && slash != parent) {
		*slash = '\0';
		r = make_dirs(parent);
	}
	free(parent);
	if (r < 0 && errno == EEXIST)
		errno = ENOTDIR;
	return r < 0 || (mkdir(dir, 0700) < 0 && errno != EEXIST) ? -1 : 0;
}

/* The file is either the old or the new one. -1 with errno. */
static int replace(const char *path, const char *data, size_t len)
{
	struct text temp = {0};
	struct stat st;
	int e = 0;

	const char *slash = strrchr(path, '/');
	add(&temp, path, (size_t)(slash - path) + 1);
	add_str(&temp, ".tmp-XXXXXX");
	bool had = stat(path, &st) == 0;
	int fd = mkostemp(temp.s, O_CLOEXEC);
	if (fd < 0) {
		e = errno;
		text_done(&temp);
		errno = e;
		return -1;
	}
	if (had && fchmod(fd, st.st_mode & 0777) < 0)
		e = errno;
	while (!e && len) {
		ssize_t n = write(fd, data, len);
		if (n < 0 && errno != EINTR)
			e = errno;
		data += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	if (!e && fsync(fd) < 0)
		e = errno;
	if (close(fd) < 0 && !e)
		e = errno;
	if (!e && rename(temp.s, path) < 0)
		e = errno;
	if (e)
		(void)unlink(temp.s);
	text_done(&temp);
	errno = e;
	return e ? -1 : 0;
}

/* Where a memory store may only be read. */
static bool refuse_read_only(const char *what, const char *file, const char *path, struct text *out)
{
	const char *root = read_only_root(path);

	if (root)
		(void)fail(out, "%s: %s is inside read-only directory %s", what, file, root);
	return root != NULL;
}

bool tool_write(const struct request *r, struct text *out)
{
	if (!r->path || !*r->path)
		return fail(out, "write: file_path is required");
	char *path = resolve(r->path, out);
	if (!path || refuse_read_only("write", r->path, path, out)) {
		free(path);
		return false;
	}
	char *dir = strdup(path), *slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	int bad = make_dirs(dir) < 0 || replace(path, r->content ? r->content : "", r->content_len) < 0;
	int e = errno;
	free(dir);
	free(path);
	if (bad)
		return fail_fs(out, "write", r->path, e);
	add_fmt(out, "wrote %zu bytes to %s", r->content_len, r->path);
	return true;
}

/* How often old is in t, not overlapping; made receives t with all of them (or with the first) replaced. */
static size_t substitute(const struct text *t, const struct request *r, struct text *made)
{
	size_t n = 0, from = 0;

	add(made, "", 0);
	for (;;) {
		char *at = memmem(t->s + from, t->len - from, r->old_string, r->old_len);
		if (!at)
			break;
		size_t pos = (size_t)(at - t->s);
		add(made, t->s + from, pos - from);
		if (n == 0 || r->replace_all)
			add(made, r->new_string ? r->new_string : "", r->new_len);
		else
			add(made, at, r->old_len);
		n++;
		from = pos + r->old_len;
	}
	add(made, t->s + from, t->len - from);
	return n;
}

bool tool_edit(const struct request *r, struct text *out)
{
	struct text data = {0}, made = {0};
	struct stat st;
	bool ok = false;

	if (!r->path || !*r->path)
		return fail(out, "edit: file_path is required");
	if (!r->old_string || !r->old_len)
		return fail(out, "edit: old_string is required");
	char *path = resolve(r->path, out);
	if (!path || refuse_read_only("edit", r->path, path, out)) {
		free(path);
		return false;
	}
	int fd = open_file("edit", r->path, path, &st, out);
	if (fd < 0) {
		free(path);
		return false;
	}
	if (st.st_size > FILE_MAX) {
		fail(out,
			"edit: %s is %lld bytes, exceeds %lld-byte limit. The edit tool loads the whole file "
			"and "
			"cannot modify a file this large.",
			r->path, (long long)st.st_size, (long long)FILE_MAX);
	} else if (!read_whole(fd, FILE_MAX, &data)) {
		fail_fs(out, "edit", r->path, errno);
	} else {
		size_t n = substitute(&data, r, &made);
		if (n == 0)
			fail(out, "edit: old_string not found in %s", r->path);
		else if (n > 1 && !r->replace_all)
			fail(out, "edit: old_string appears %zu times in %s (must be unique)", n, r->path);
		else if (replace(path, made.s, made.len) < 0)
			fail_fs(out, "edit: write", r->path, errno);
		else {
			add_fmt(out, "edited %s (%zu replacement(s))", r->path, n);
			ok = true;
		}
	}
	close(fd);
	free(path);
	text_done(&data);
	text_done(&made);
	return ok;
}
