/* For the checkpoint tests: a directory of one test, a tree in overlay form with everything awkward in it,
 * and a full description of a tree as text, so that two trees can be compared. */
#ifndef PF_TESTS_CKPT_TREE_H
#define PF_TESTS_CKPT_TREE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants those first */
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "checkpoint/sha256.h"

struct ckpt_env {
	char dir[64];   /* /tmp/pf-ckpt-PID-n */
	char store[80]; /* dir/store */
	int fd;         /* of dir */
};

static inline void env_make(struct ckpt_env *e, const char *parent)
{
	static int n;

	snprintf(e->dir, sizeof(e->dir), "%s/pf-ckpt-%d-%d", parent, (int)getpid(), n++);
	snprintf(e->store, sizeof(e->store), "%s/store", e->dir);
	assert_int_equal(mkdir(e->dir, 0700), 0);
	e->fd = open(e->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(e->fd >= 0);
}

static inline void env_remove(struct ckpt_env *e)
{
	struct pf_err err = PF_ERR_INIT;

	if (e->fd < 0)
		return;
	close(e->fd);
	e->fd = -1;
	(void)pf_rm_rf_at(AT_FDCWD, e->dir, &err);
}

static inline int tree_mkdir(int dirfd, const char *name)
{
	assert_int_equal(mkdirat(dirfd, name, 0755), 0);
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static inline void tree_file(int dirfd, const char *name, const void *data, size_t len)
{
	int fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(pf_write_all(fd, data, len), 0);
	close(fd);
}

static inline void tree_text(int dirfd, const char *name, const char *text)
{
	tree_file(dirfd, name, text, strlen(text));
}

static inline void tree_time(int dirfd, const char *name, time_t s, long ns)
{
	struct timespec t[2] = {{.tv_sec = 1, .tv_nsec = 1}, {.tv_sec = s, .tv_nsec = ns}};
	assert_int_equal(utimensat(dirfd, name, t, AT_SYMLINK_NOFOLLOW), 0);
}

/* One of everything a layer must carry. */
static inline void tree_fill(int root)
{
	char name[256], big[70000];
	int a = tree_mkdir(root, "a"), b = tree_mkdir(root, "b"), odd = tree_mkdir(root, "odd"), fd, deep;

	tree_text(a, "one", "shared by three names\n");
	assert_int_equal(linkat(a, "one", b, "two", 0), 0);
	assert_int_equal(linkat(a, "one", root, "zzz-three", 0), 0);
	assert_int_equal(symlinkat("../b/two", a, "link"), 0);
	assert_int_equal(symlinkat("/etc/passwd", a, "absolute"), 0);
	memset(name, 'x', 255);
	name[255] = 0;
	char target[301];
	memset(target, 't', 300);
	target[300] = 0;
	assert_int_equal(symlinkat(target, a, "long-link"), 0);
	assert_int_equal(linkat(a, "long-link", b, "long-link-again", 0), 0);
	tree_text(odd, name, "255 bytes of name");
	for (int c = 1; c < 256; c++) {
		if (c == '/' || c == '.')
			continue;
		char s[2] = {(char)c, 0};
		tree_text(odd, s, s);
	}
	tree_text(odd, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "utf-8");
	tree_text(odd, "new\nline", "x");
	assert_int_equal(symlinkat("\xff\xfe", odd, "to-bytes"), 0);
	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (char)(i * 2654435761u >> 13);
	tree_file(b, "big", big, sizeof(big));
	tree_file(b, "empty", "", 0);
	fd = openat(b, "sparse", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, (off_t)4 << 30), 0);
	assert_int_equal(pwrite(fd, "start", 5, 0), 5);
	assert_int_equal(pwrite(fd, big, sizeof(big), (off_t)3 << 30), sizeof(big));
	close(fd);
	fd = openat(b, "all-hole", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(ftruncate(fd, 12345678), 0);
	close(fd);
	tree_text(b, "setuid", "#!");
	assert_int_equal(fchownat(b, "setuid", 1000, 1001, 0), 0);
	assert_int_equal(fchmodat(b, "setuid", 06755, 0), 0);
	assert_int_equal(fchownat(a, "link", 33, 44, AT_SYMLINK_NOFOLLOW), 0);
	tree_mkdir(root, "sticky");
	assert_int_equal(fchmodat(root, "sticky", 01777, 0), 0);
	assert_int_equal(mkfifoat(b, "fifo", 0620), 0);
	assert_int_equal(mknodat(b, "gone", S_IFCHR, makedev(0, 0)), 0);
	fd = tree_mkdir(root, "opaque");
	tree_text(fd, "only-this", "new");
	assert_int_equal(fsetxattr(fd, "trusted.overlay.opaque", "y", 1, 0), 0);
	close(fd);
	close(tree_mkdir(root, "empty-dir"));
	/* security.capability v2: cap_net_bind_service+ep */
	static const unsigned char cap[20] = {1, 0, 0, 2, 0, 4};
	fd = openat(b, "capable", O_RDWR | O_CREAT | O_CLOEXEC, 0755);
	assert_int_equal(fsetxattr(fd, "security.capability", cap, sizeof(cap), 0), 0);
	assert_int_equal(fsetxattr(fd, "user.note", "with\0nul\n", 9, 0), 0);
	assert_int_equal(fsetxattr(fd, "user.empty", "", 0, 0), 0);
	memset(big, 'v', 2000);
	assert_int_equal(fsetxattr(fd, "user.long", big, 2000, 0), 0);
	close(fd);
	assert_int_equal(fsetxattr(a, "user.on-dir", "d", 1, 0), 0);
	/* deeper than PATH_MAX */
	memset(name, 'd', 250);
	name[250] = 0;
	deep = tree_mkdir(root, "deep");
	for (int i = 0; i < 20; i++) {
		int next = tree_mkdir(deep, name);
		close(deep);
		deep = next;
	}
	tree_text(deep, "bottom", "reached");
	close(deep);
	tree_time(b, "big", 1700000000, 123456789);
	tree_time(b, "empty", -2, 500000000);
	tree_time(b, "fifo", 1700000001, 0);
	tree_time(b, "setuid", 9000000000, 1);
	tree_time(a, "link", 1234567, 7);
	tree_time(root, "empty-dir", 1111111111, 111111111);
	close(a);
	close(b);
	close(odd);
}

struct seen_inode {
	ino_t ino;
	char *path;
};

struct tree_text {
	struct pf_buf out;
	struct seen_inode *seen;
	size_t n_seen;
};

static inline int tree_cmp(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void tree_xattrs(struct tree_text *t, int dirfd, const char *name)
{
	char path[400], list[4096], *v[64];
	size_t n = 0;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dirfd, name);
	ssize_t len = llistxattr(path, list, sizeof(list));
	for (char *p = list; len > 0 && p < list + len; p += strlen(p) + 1)
		v[n++] = p;
	qsort(v, n, sizeof(*v), tree_cmp);
	for (size_t i = 0; i < n; i++) {
		char value[4096];
		ssize_t vl = lgetxattr(path, v[i], value, sizeof(value));
		pf_buf_printf(&t->out, " %s=", v[i]);
		for (ssize_t k = 0; k < vl; k++)
			pf_buf_printf(&t->out, "%02x", (unsigned char)value[k]);
	}
}

/* Extents and a digest of what they hold: a 4 GiB file of holes is read in no time. */
static inline void tree_data(struct tree_text *t, int dirfd, const char *name, off_t size)
{
	PF_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	for (off_t at = 0; at < size;) {
		off_t data = lseek(fd, at, SEEK_DATA);
		if (data < 0)
			break;
		off_t hole = lseek(fd, data, SEEK_HOLE);
		PF_FREE char *buf = malloc((size_t)(hole - data) + 1);
		struct pf_digest d;
		assert_int_equal(pread(fd, buf, (size_t)(hole - data), data), hole - data);
		pf_sha256_digest(buf, (size_t)(hole - data), &d);
		pf_buf_printf(&t->out, " [%lld+%lld %.20s]", (long long)data, (long long)(hole - data), d.s);
		at = hole;
	}
}

static inline void tree_walk(struct tree_text *t, int fd, const char *path)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fdopendir(copy);
	struct dirent *e;
	char **names = NULL;
	size_t n = 0;

	assert_non_null(d);
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
			names = realloc(names, (n + 1) * sizeof(*names));
			names[n++] = pf_strdup(e->d_name);
		}
	closedir(d);
	if (n)
		qsort(names, n, sizeof(*names), tree_cmp);
	for (size_t i = 0; i < n; i++) {
		PF_FREE char *p = pf_asprintf("%s/%s", path, names[i]);
		struct stat st;
		char link[4097];
		assert_int_equal(fstatat(fd, names[i], &st, AT_SYMLINK_NOFOLLOW), 0);
		bool white = S_ISCHR(st.st_mode) && st.st_rdev == 0;
		pf_buf_printf(&t->out, "%s", p);
		if (white) {
			pf_buf_str(&t->out, " whiteout\n");
			free(names[i]);
			continue;
		}
		pf_buf_printf(&t->out, " %o %u:%u %lld.%09ld", st.st_mode, st.st_uid, st.st_gid,
			(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
		tree_xattrs(t, fd, names[i]);
		if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
			size_t k = 0;
			while (k < t->n_seen && t->seen[k].ino != st.st_ino)
				k++;
			if (k == t->n_seen) {
				t->seen = realloc(t->seen, (k + 1) * sizeof(*t->seen));
				t->seen[t->n_seen++] = (struct seen_inode){st.st_ino, pf_strdup(p)};
			} else {
				pf_buf_printf(&t->out, " same as %s", t->seen[k].path);
			}
		}
		if (S_ISREG(st.st_mode)) {
			pf_buf_printf(&t->out, " size %lld", (long long)st.st_size);
			tree_data(t, fd, names[i], st.st_size);
		} else if (S_ISLNK(st.st_mode)) {
			ssize_t len = readlinkat(fd, names[i], link, 4096);
			pf_buf_printf(&t->out, " -> %.*s", (int)len, link);
		}
		pf_buf_str(&t->out, "\n");
		if (S_ISDIR(st.st_mode)) {
			PF_CLOSE int sub =
				openat(fd, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			assert_true(sub >= 0);
			tree_walk(t, sub, p);
		}
		free(names[i]);
	}
	free(names);
}

/* Everything about the tree below fd but the root's own times, malloc'ed text. */
static inline char *tree_describe(int fd)
{
	struct tree_text t = {0};

	pf_buf_str(&t.out, "");
	tree_walk(&t, fd, "");
	for (size_t i = 0; i < t.n_seen; i++)
		free(t.seen[i].path);
	free(t.seen);
	return t.out.data;
}

/* Fails showing the first line that differs. */
static inline void tree_assert_same(const char *a, const char *b)
{
	const char *la = a, *lb = b;

	while (*la && *la == *lb) {
		const char *na = strchr(la, '\n'), *nb = strchr(lb, '\n');
		if (!na || !nb || na - la != nb - lb || memcmp(la, lb, (size_t)(na - la)) != 0)
			break;
		la = na + 1;
		lb = nb + 1;
	}
	if (*la || *lb)
		fail_msg("trees differ:\n- %.300s\n+ %.300s", la, lb);
}

#endif
