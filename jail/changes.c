/* Theory of operation.
 *
 * An overlay's upper is a diff already: what is in it is new or changed, a character device 0:0 stands for
 * something deleted, and a directory marked opaque hides all that was below it. Everything here goes from one
 * directory's descriptor to the next by single names, never through a link: the names and the tree are the
 * command's. Applying replaces a file by renaming a finished copy over it, so that nobody sees half of one.
 */
#include "jail/changes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

#define MAX_DEPTH 2000

static bool is_whiteout(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static bool is_opaque(int dir)
{
	char v[2];

	return fgetxattr(dir, "user.overlay.opaque", v, sizeof(v)) > 0 && v[0] == 'y';
}

static const char *type_name(mode_t mode)
{
	return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "directory" : S_ISLNK(mode) ? "symlink" : "other";
}

/* The sorted names in a directory, NULL-terminated; NULL on error. */
static char **names_in(int dir, struct pf_err *err)
{
	struct dirent **list = NULL;
	int n;

	n = scandirat(dir, ".", &list, NULL, alphasort);
	if (n < 0) {
		pf_fail(err, errno, "read a directory");
		return NULL;
	}
	char **out = pf_calloc((size_t)n + 1, sizeof(*out));
	size_t k = 0;
	for (int i = 0; i < n; i++) {
		if (strcmp(list[i]->d_name, ".") != 0 && strcmp(list[i]->d_name, "..") != 0)
			out[k++] = pf_strdup(list[i]->d_name);
		free(list[i]);
	}
	free(list);
	return out;
}

static void free_names(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

static int open_dir(int dir, const char *name)
{
	return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* ---- listing ---- */

/* How much of the list an entry is: what must be escaped takes up to six bytes for one. */
static size_t size_of(const char *path)
{
	size_t n = sizeof("{\"change\":\"modified\",\"type\":\"directory\",\"path\":\"\"},");

	for (; *path; path++)
		n += (unsigned char)*path < 0x20 ? 6 : *path == '"' || *path == '\\' ? 2 : 1;
	return n;
}

static void add(struct pf_changes *out, const char *change, mode_t mode, const char *path)
{
	out->size += size_of(path);
	out->truncated = out->truncated || out->size > out->max;
	if (out->truncated)
		return;
	cJSON *e = cJSON_CreateObject();
	PF_FREE char *text = pf_strdup(path);

	/* JSON is UTF-8; what is not shows as '?' rather than make the list unreadable. */
	if (!pf_utf8_valid(text, strlen(text)))
		for (char *p = text; *p; p++)
			if ((unsigned char)*p >= 0x80)
				*p = '?';
	cJSON_AddStringToObject(e, "change", change);
	cJSON_AddStringToObject(e, "type", type_name(mode));
	cJSON_AddStringToObject(e, "path", text);
	cJSON_AddItemToArray(out->list, e);
}

static bool same_content(int a_dir, int b_dir, const char *name)
{
	static char x[65536], y[65536];
	PF_CLOSE int a = openat(a_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSE int b = openat(b_dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	for (;;) {
		ssize_t n = a < 0 ? -1 : pf_read_full(a, x, sizeof(x)),
			m = b < 0 ? -1 : pf_read_full(b, y, sizeof(y));
		if (n < 0 || n != m || memcmp(x, y, (size_t)n) != 0)
			return false;
		if (n == 0)
			return true;
	}
}

static bool same_link(int a, int b, const char *name)
{
	char x[4096], y[4096];
	ssize_t n = readlinkat(a, name, x, sizeof(x)), m = readlinkat(b, name, y, sizeof(y));

	return n >= 0 && n == m && memcmp(x, y, (size_t)n) == 0;
}

static bool unchanged(int lower, int upper, const char *name, const struct stat *was, const struct stat *is)
{
	if (was->st_mode != is->st_mode)
		return false;
	if (S_ISREG(is->st_mode))
		return was->st_size == is->st_size && same_content(lower, upper, name);
	return S_ISLNK(is->st_mode) ? same_link(lower, upper, name) : true;
}

/* lower -1: there was nothing here. */
static int list_dir(
	int lower, int upper, const char *prefix, int depth, struct pf_changes *out, struct pf_err *err)
{
	char **names = names_in(upper, err);
	int r = names ? 0 : -1;

	if (depth > MAX_DEPTH)
		r = pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: directories nested more than %d deep", prefix,
			MAX_DEPTH);
	for (char **p = names; r == 0 && *p && !out->truncated; p++) {
		struct stat is, was = {0};
		PF_FREE char *path = pf_asprintf("%s/%s", prefix, *p);
		if (fstatat(upper, *p, &is, AT_SYMLINK_NOFOLLOW) < 0) {
			r = pf_fail(err, errno, "%s", path);
			break;
		}
		bool there = lower >= 0 && fstatat(lower, *p, &was, AT_SYMLINK_NOFOLLOW) == 0;
		if (is_whiteout(&is)) {
			if (there)
				add(out, "deleted", was.st_mode, path);
			continue;
		}
		if (!S_ISDIR(is.st_mode)) {
			if (!there || !unchanged(lower, upper, *p, &was, &is))
				add(out, there ? "modified" : "added", is.st_mode, path);
			continue;
		}
		PF_CLOSE int up = open_dir(upper, *p);
		PF_CLOSE int low = there && S_ISDIR(was.st_mode) ? open_dir(lower, *p) : -1;
		if (up < 0) {
			r = pf_fail(err, errno, "%s", path);
			break;
		}
		if (low >= 0 && is_opaque(up)) {
			add(out, "deleted", was.st_mode, path);
			close(pf_take_fd(&low));
			there = false;
		}
		if (low < 0 || was.st_mode != is.st_mode)
			add(out, low >= 0 || there ? "modified" : "added", is.st_mode, path);
		r = list_dir(low, up, path, depth + 1, out, err);
	}
	free_names(names);
	return r;
}

int pf_changes_list(
	int lower_fd, int upper_fd, const char *prefix, struct pf_changes *out, struct pf_err *err)
{
	return list_dir(lower_fd, upper_fd, prefix, 0, out, err);
}

/* ---- applying ---- */

static void copy_xattrs(int from, int to)
{
	char names[65536], value[65536];
	ssize_t n = flistxattr(from, names, sizeof(names));

	for (char *p = names; n > 0 && p < names + n; p += strlen(p) + 1) {
		if (strncmp(p, "user.", 5) != 0 || strncmp(p, "user.overlay.", 13) == 0)
			continue;
		ssize_t len = fgetxattr(from, p, value, sizeof(value));
		if (len >= 0)
			(void)fsetxattr(to, p, value, (size_t)len, 0);
	}
}

static int copy_data(int from, int to)
{
	char buf[65536];
	ssize_t n;

	for (;;) {
		/* The same disk, most of the time: it may share the blocks. */
		n = copy_file_range(from, NULL, to, NULL, (size_t)1 << 30, 0);
		if (n == 0)
			return 0;
		if (n < 0)
			break;
	}
	if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS)
		return -1;
	while ((n = pf_read_full(from, buf, sizeof(buf))) > 0)
		if (pf_write_all(to, buf, (size_t)n) < 0)
			return -1;
	return n < 0 ? -1 : 0;
}

static int put_file(int lower, int upper, const char *name, const char *tmp, const struct stat *is)
{
	PF_CLOSE int from = openat(upper, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC), to = -1;
	const struct timespec times[2] = {is->st_atim, is->st_mtim};

	if (from < 0)
		return -1;
	to = openat(lower, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0 || copy_data(from, to) < 0)
		return -1;
	copy_xattrs(from, to);
	return fchmod(to, is->st_mode & 0777) < 0 || futimens(to, times) < 0 ? -1 : 0;
}

static int put_link(int lower, int upper, const char *name, const char *tmp)
{
	char target[4096];
	ssize_t n = readlinkat(upper, name, target, sizeof(target) - 1);

	if (n < 0)
		return -1;
	target[n] = '\0';
	return symlinkat(target, lower, tmp);
}

/* Something that is no directory, in one step. */
static int put(int lower, int upper, const char *name, const struct stat *is, struct pf_err *err)
{
	static unsigned counter;
	struct pf_err ignored = PF_ERR_INIT;
	struct stat was;
	char tmp[64];
	int r;

	snprintf(tmp, sizeof(tmp), ".pinfold-%d-%u.tmp", (int)getpid(), counter++);
	if (S_ISREG(is->st_mode))
		r = put_file(lower, upper, name, tmp, is);
	else if (S_ISLNK(is->st_mode))
		r = put_link(lower, upper, name, tmp);
	else if (S_ISFIFO(is->st_mode))
		r = mkfifoat(lower, tmp, is->st_mode & 0777);
	else
		return 0; /* a socket is nothing without its process */
	if (r == 0 && fstatat(lower, name, &was, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(was.st_mode))
		r = pf_rm_rf_at(lower, name, err);
	if (r == 0)
		r = renameat(lower, tmp, lower, name);
	if (r == 0)
		return 0;
	int saved = errno;
	(void)pf_rm_rf_at(lower, tmp, &ignored);
	return *err->msg ? -1 : pf_fail(err, saved, "%s", name);
}

static int apply_dir(int lower, int upper, int depth, struct pf_err *err);

static int apply_below(
	int lower, int upper, const char *name, const struct stat *is, int depth, struct pf_err *err)
{
	PF_CLOSE int up = open_dir(upper, name), low = -1;
	struct stat was;

	if (up < 0)
		return pf_fail(err, errno, "%s", name);
	bool there = fstatat(lower, name, &was, AT_SYMLINK_NOFOLLOW) == 0;
	if (there && (!S_ISDIR(was.st_mode) || is_opaque(up))) {
		if (pf_rm_rf_at(lower, name, err) < 0)
			return -1;
		there = false;
	}
	if (!there && mkdirat(lower, name, 0700) < 0)
		return pf_fail(err, errno, "%s", name);
	low = open_dir(lower, name);
	if (low < 0)
		return pf_fail(err, errno, "%s", name);
	if (apply_dir(low, up, depth + 1, err) < 0)
		return pf_wrap(err, "%s", name);
	if ((!there || was.st_mode != is->st_mode) && fchmod(low, is->st_mode & 01777) < 0)
		return pf_fail(err, errno, "%s", name);
	return 0;
}

static int apply_dir(int lower, int upper, int depth, struct pf_err *err)
{
	char **names = names_in(upper, err);
	int r = names ? 0 : -1;

	if (depth > MAX_DEPTH)
		r = pf_fail_kind(err, PF_ERR_INVALID, 0, "directories nested more than %d deep", MAX_DEPTH);
	for (char **p = names; r == 0 && *p; p++) {
		struct stat is;
		if (fstatat(upper, *p, &is, AT_SYMLINK_NOFOLLOW) < 0)
			r = pf_fail(err, errno, "%s", *p);
		else if (is_whiteout(&is))
			r = pf_rm_rf_at(lower, *p, err);
		else if (S_ISDIR(is.st_mode))
			r = apply_below(lower, upper, *p, &is, depth, err);
		else
			r = put(lower, upper, *p, &is, err);
	}
	free_names(names);
	return r;
}

int pf_changes_apply(int lower_fd, int upper_fd, struct pf_err *err)
{
	return apply_dir(lower_fd, upper_fd, 0, err);
}
