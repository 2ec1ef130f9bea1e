/* Theory of operation: the files of memory stores.
 *
 * The worker outside keeps a directory in step with a memory store (worker/memory.c); here are its hands:
 * make the directory, list what is in it, read, write, remove a file, remove it all. A file is named by its
 * path below the directory, which is walked by the kernel without following a link or leaving it, so what the
 * agent puts there is its own and nothing else of the sandbox goes to the platform by that way. Regular files
 * only. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cmd/pinfold-tool/tool.h"

#define FILE_MAX ((off_t)1 << 20)
#define FILES_MAX 10000
#define DEPTH_MAX 32

static int open_below(int dir, const char *rel, int flags)
{
	struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};

	return (int)syscall(SYS_openat2, dir, rel, &how, sizeof(how));
}

static bool fail_errno(struct text *out, const char *what)
{
	int e = errno;
	const char *name = strerrorname_np(e);

	return fail(out, "%s: %s", what, name ? name : "unknown error");
}

/* ---- one file ---- */

static bool get(int root, const char *rel, struct text *out)
{
	struct stat st;
	int fd = open_below(root, rel, O_RDONLY | O_NONBLOCK | O_NOFOLLOW);
	char buf[65536];
	ssize_t n;

	if (fd < 0)
		return fail_errno(out, "open");
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
		close(fd);
		return fail(out, "EFBIG");
	}
	while ((n = read(fd, buf, sizeof(buf))) > 0 && (off_t)out->len <= FILE_MAX)
		add(out, buf, (size_t)n);
	close(fd);
	return n < 0 ? fail_errno(out, "read") : true;
}

/* The directory of rel, made where it is missing; *name is what is left. -1 with errno. */
static int parent_of(int root, const char *rel, bool make, const char **name)
{
	char *copy = strdup(rel), *slash = copy;
	int fd = fcntl(root, F_DUPFD_CLOEXEC, 3);

	while (fd >= 0 && (slash = strchr(slash, '/'))) {
		*slash = '\0';
		close(fd);
		if (make && mkdirat(root, copy, 0700) < 0 && errno != EEXIST)
			fd = -1;
		else
			fd = open_below(root, copy, O_RDONLY | O_DIRECTORY);
		*slash++ = '/';
	}
	int e = errno;
	free(copy);
	errno = e;
	slash = strrchr(rel, '/');
	*name = slash ? slash + 1 : rel;
	return fd;
}

static bool put(int root, const char *rel, const char *data, size_t len, struct text *out)
{
	static unsigned serial;
	const char *name;
	char tmp[64];
	int dir = parent_of(root, rel, true, &name), fd = -1;

	(void)snprintf(tmp, sizeof(tmp), ".pinfold-%d-%u", (int)getpid(), serial++);
	bool ok = dir >= 0 && *name &&
		  (fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)) >= 0;
	for (size_t at = 0; ok && at < len;) {
		ssize_t n = write(fd, data + at, len - at);
		ok = n > 0;
		at += ok ? (size_t)n : 0;
	}
	ok = ok && renameat(dir, tmp, dir, name) == 0;
	if (!ok) {
		(void)fail_errno(out, "write");
		if (fd >= 0)
			(void)unlinkat(dir, tmp, 0);
	}
	if (fd >= 0)
		close(fd);
	if (dir >= 0)
		close(dir);
	return ok;
}

static bool discard(int root, const char *rel, struct text *out)
{
	const char *name;
	int dir = parent_of(root, rel, false, &name);
	bool ok = dir >= 0 && (unlinkat(dir, name, 0) == 0 || errno == ENOENT);

	if (!ok)
		(void)fail_errno(out, "remove");
	if (dir >= 0)
		close(dir);
	return ok;
}

/* ---- all of them ---- */

struct walk {
	struct text *out; /* NULL: remove what is found */
	size_t n;
};

/* dir is closed. */
static void walk(struct walk *w, int dir, const char *prefix, int depth)
{
	DIR *d = fdopendir(dir);
	struct dirent *e;

	if (!d) {
		close(dir);
		return;
	}
	while (w->n < FILES_MAX && (e = readdir(d))) {
		struct stat st;
		struct text path = {0};
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
			fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		add_fmt(&path, "%s%s%s", prefix, *prefix ? "/" : "", e->d_name);
		if (S_ISDIR(st.st_mode)) {
			int sub =
				openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub >= 0 && depth < DEPTH_MAX)
				walk(w, sub, path.s, depth + 1);
			else if (sub >= 0)
				close(sub);
			if (!w->out)
				(void)unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
		} else if (!w->out) {
			(void)unlinkat(dirfd(d), e->d_name, 0);
		} else if (S_ISREG(st.st_mode)) {
			/* What changes whenever the content does. */
			w->n++;
			add(w->out, path.s, path.len + 1);
			add_fmt(w->out, "%llu.%lld.%lld.%ld.%lld.%ld", (unsigned long long)st.st_ino,
				(long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
				(long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
			add(w->out, "", 1);
		}
		text_done(&path);
	}
	closedir(d);
}

static bool make(const char *root, struct text *out)
{
	char *copy = strdup(root);

	for (char *s = copy + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		(void)mkdir(copy, 0755);
		*s = '/';
	}
	free(copy);
	return mkdir(root, 0700) == 0 ? true : fail_errno(out, root);
}

bool tool_memory(const struct request *r, struct text *out)
{
	const char *what = r->tool + 8, *rel = r->pattern ? r->pattern : "";

	if (!r->path || !*r->path)
		return fail(out, "no path");
	if (strcmp(what, "make") == 0)
		return make(r->path, out);
	int root = open(r->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* A directory that is gone is empty. */
	if (root < 0 && errno == ENOENT && (strcmp(what, "list") == 0 || strcmp(what, "drop") == 0))
		return true;
	if (root < 0)
		return fail_errno(out, r->path);
	bool ok = true;
	if (strcmp(what, "list") == 0 || strcmp(what, "drop") == 0) {
		struct walk w = {.out = *what == 'l' ? out : NULL};
		walk(&w, fcntl(root, F_DUPFD_CLOEXEC, 3), "", 0);
		if (*what == 'd')
			ok = rmdir(r->path) == 0 || fail_errno(out, r->path);
	} else if (strcmp(what, "get") == 0) {
		ok = get(root, rel, out);
	} else if (strcmp(what, "put") == 0) {
		ok = put(root, rel, r->content ? r->content : "", r->content_len, out);
	} else if (strcmp(what, "remove") == 0) {
		ok = discard(root, rel, out);
	} else {
		ok = fail(out, "unknown");
	}
	close(root);
	return ok;
}
