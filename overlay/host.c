/* Theory of operation
 *
 * The host image is the machine's own programs without the machine: a skeleton root made here, and /usr bound
 * into it read-only. So a sandbox starts with python, git and compilers at once, with nothing to download and
 * nothing to store.
 *
 * /etc holds what those programs need and nothing that is the host's own business. It is built from a list of
 * names, not by leaving things out, and of what the list names only files that everybody on the host may read
 * are taken. Users, name service and hosts are written here. There is no machine id, no shadow file, no key,
 * no proxy or registry setting.
 *
 * The skeleton must follow the host (ld.so.cache after a package upgrade), so its directory is named by a
 * fingerprint: the identity and times of all that goes into it. Computing that is a hundred stat calls per
 * start, most of them for names that are not there; building happens once per change, under a lock, in a
 * temporary directory that is renamed when it is complete. Older versions stay, as a sandbox may be stacked
 * on them, until gc finds that none is; they are small. The *digest* is coarser on purpose: a checkpoint must
 * still be restorable after a security upgrade, so it names the distribution, its version and the machine. */
#include "overlay/host.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"

/* Bump when what is written below changes, so that skeletons are made anew. */
#define SKELETON_VERSION 1
#define MAX_FILE ((off_t)16 << 20)

/* Copied from the host's /etc if they are there; % stands for the numbers 0 to MAX_NUMBER - 1. */
#define MAX_NUMBER 40
static const char *const etc_names[] = {"alternatives", "bash.bashrc", "bash_completion.d", "ca-certificates",
	"ca-certificates.conf", "debian_version", "dpkg/origins", "ethertypes", "fonts", "gai.conf",
	"host.conf", "inputrc", "java-%-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias",
	"locale.gen", "localtime", "login.defs", "magic", "magic.mime", "mime.types", "networks",
	"os-release", "perl", "php", "pki/ca-trust", "pki/tls/certs", "protocols", "python3", "python3.%",
	"rpc", "ruby", "services", "shells", "skel", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
	NULL};

/* Never, whatever takes in the directory above them. */
static const char *const never_names[] = {"*.password", "*.key", "*secret*", "*.pem.bak", "machine-id", NULL};

static const char *const root_links[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", NULL};

struct dir_spec {
	const char *path;
	mode_t mode;
	uid_t owner;
};

static const struct dir_spec dirs[] = {{"dev", 0755, 0}, {"etc", 0755, 0}, {"home", 0755, 0},
	{"home/agent", 0755, 1000}, {"media", 0755, 0}, {"mnt", 0755, 0}, {"opt", 0755, 0}, {"proc", 0555, 0},
	{"root", 0700, 0}, {"run", 0755, 0}, {"run/lock", 01777, 0}, {"srv", 0755, 0}, {"sys", 0555, 0},
	{"tmp", 01777, 0}, {"usr", 0755, 0}, {"var", 0755, 0}, {"var/cache", 0755, 0}, {"var/lib", 0755, 0},
	{"var/local", 0755, 0}, {"var/log", 0755, 0}, {"var/spool", 0755, 0}, {"var/tmp", 01777, 0},
	{"workspace", 0755, 1000}};

struct file_spec {
	const char *path, *text;
};

static const struct file_spec files[] = {
	{"etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"
		       "agent:x:1000:1000:agent:/home/agent:/bin/bash\n"
		       "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
	{"etc/group", "root:x:0:\ntty:x:5:\nagent:x:1000:\nnogroup:x:65534:\n"},
	{"etc/hosts", "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"},
	{"etc/nsswitch.conf",
		"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
		"protocols: files\nservices: files\nethers: files\nrpc: files\n"},
	/* A place to bind the real one to. Until then names are asked of the gate, which takes DNS of any
	   address. */
	{"etc/resolv.conf", "nameserver 127.0.0.1\n"},
	{"etc/hostname", "pinfold\n"},
	{"etc/profile", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nexport PATH\n"
			"[ -z \"$BASH\" ] || [ ! -r /etc/bash.bashrc ] || . /etc/bash.bashrc\n"},
	{"etc/environment", ""},
};

/* ---- fingerprint ---- */

/* FNV-1a. Names a version among honest ones; nobody gains by a collision of his own machine's /etc. */
struct hash {
	uint64_t a, b;
};
#define HASH_INIT                                            \
	{                                                    \
		0xcbf29ce484222325ULL, 0x84222325cbf29ce4ULL \
	}

static void mix(struct hash *h, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++) {
		h->a = (h->a ^ p[i]) * 0x100000001b3ULL;
		h->b = (h->b ^ (unsigned)(p[i] + 1)) * 0x100000001b3ULL;
	}
}

static void mix_stat(struct hash *h, const char *path, const struct stat *st)
{
	int64_t v[] = {(int64_t)st->st_dev, (int64_t)st->st_ino, st->st_size, st->st_mtim.tv_sec,
		st->st_mtim.tv_nsec, st->st_ctim.tv_sec, st->st_ctim.tv_nsec, (int64_t)st->st_mode};

	mix(h, path, strlen(path) + 1);
	mix(h, v, sizeof(v));
}

/* The index-th name that a list entry stands for; false when there is none. */
static bool expand(const char *entry, unsigned index, char out[64])
{
	const char *percent = strchr(entry, '%');

	if (index >= (percent ? MAX_NUMBER : 1))
		return false;
	if (percent)
		snprintf(out, 64, "%.*s%u%s", (int)(percent - entry), entry, index, percent + 1);
	else
		snprintf(out, 64, "%s", entry);
	return true;
}

/* A directory's own times tell of names that came and went in it, which is how packages change these. Reading
 * them all would cost more than mounting the box. */
static void mix_name(struct hash *h, int dirfd, const char *name)
{
	struct stat st;

	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	mix_stat(h, name, &st);
	if (S_ISLNK(st.st_mode) && fstatat(dirfd, name, &st, 0) == 0)
		mix_stat(h, name, &st);
}

static void mix_etc(struct hash *h, int etc)
{
	char name[64];

	for (size_t i = 0; etc_names[i]; i++)
		for (unsigned k = 0; expand(etc_names[i], k, name); k++)
			mix_name(h, etc, name);
}

static char *fingerprint(int etc)
{
	struct hash h = HASH_INIT;
	int version = SKELETON_VERSION;
	struct stat st;

	mix(&h, &version, sizeof(version));
	for (size_t i = 0; root_links[i]; i++) {
		PF_FREE char *path = pf_asprintf("/%s", root_links[i]);
		if (lstat(path, &st) == 0)
			mix_stat(&h, path, &st);
	}
	mix_etc(&h, etc);
	return pf_asprintf("%016" PRIx64 "%016" PRIx64, h.a, h.b);
}

/* ---- copying ---- */

static bool never(const char *name)
{
	for (size_t i = 0; never_names[i]; i++)
		if (fnmatch(never_names[i], name, 0) == 0)
			return true;
	return false;
}

static int copy_file(int from, const char *name, int to, const char *as, struct pf_err *err)
{
	struct stat st;
	char buf[65536];
	ssize_t n;
	PF_CLOSE int in = openat(from, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (in < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "read %s", name);
	if (fstat(in, &st) < 0)
		return pf_fail(err, errno, "stat %s", name);
	/* Only what every user of the host can read anyway. */
	if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IROTH) || st.st_size > MAX_FILE)
		return 0;
	PF_CLOSE int out = openat(to, as, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (out < 0)
		return pf_fail(err, errno, "create %s", as);
	while ((n = pf_read_full(in, buf, sizeof(buf))) > 0)
		if (pf_write_all(out, buf, (size_t)n) < 0)
			return pf_fail(err, errno, "write %s", as);
	struct timespec times[2] = {st.st_mtim, st.st_mtim};
	if (n < 0 || fchmod(out, (st.st_mode & 0111) ? 0755 : 0644) < 0 || futimens(out, times) < 0)
		return pf_fail(err, errno, "copy %s", name);
	return 0;
}

static int copy_link(int from, const char *name, int to, const char *as, struct pf_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(from, name, target, sizeof(target) - 1);

	if (n < 0)
		return pf_fail(err, errno, "readlink %s", name);
	target[n] = '\0';
	return symlinkat(target, to, as) < 0 ? pf_fail(err, errno, "symlink %s", as) : 0;
}

static int copy_tree(int from, const char *name, int to, const char *as, int depth, struct pf_err *err)
{
	struct stat st;
	struct dirent *e;

	if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "stat %s", name);
	if (S_ISLNK(st.st_mode))
		return copy_link(from, name, to, as, err);
	if (!S_ISDIR(st.st_mode))
		return copy_file(from, name, to, as, err);
	if (!(st.st_mode & S_IXOTH) || depth == 0)
		return 0;
	if (mkdirat(to, as, 0755) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir %s", as);
	PF_CLOSE int dest = openat(to, as, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int src = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = src < 0 ? NULL : fdopendir(src);
	if (!d) {
		int saved = errno;
		if (src >= 0)
			close(src);
		return pf_fail(err, saved, "open %s", name);
	}
	if (dest < 0)
		return pf_fail(err, errno, "open %s", as);
	while ((errno = 0, e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || never(e->d_name))
			continue;
		if (copy_tree(src, e->d_name, dest, e->d_name, depth - 1, err) < 0)
			return -1;
	}
	return errno ? pf_fail(err, errno, "read %s", name) : 0;
}

/* name may have a directory in front ("ssl/certs"). */
static int copy_name(int etc, const char *name, int to, struct pf_err *err)
{
	const char *slash = strrchr(name, '/');

	if (slash) {
		PF_FREE char *parent = pf_strdup(name);
		parent[slash - name] = '\0';
		if (faccessat(etc, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			return 0;
		PF_CLOSE int made = pf_mkdirs_in_root(to, parent, 0755);
		if (made < 0)
			return pf_fail(err, errno, "mkdir %s", parent);
		PF_CLOSE int src = openat(etc, parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return src < 0 ? pf_fail(err, errno, "open %s", parent)
			       : copy_tree(src, slash + 1, made, slash + 1, 8, err);
	}
	return copy_tree(etc, name, to, name, 8, err);
}

/* ---- building ---- */

static int make_dirs(int root, struct pf_err *err)
{
	if (fchmod(root, 0755) < 0)
		return pf_fail(err, errno, "chmod");
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		const struct dir_spec *d = &dirs[i];
		if (mkdirat(root, d->path, 0700) < 0 || fchownat(root, d->path, d->owner, d->owner, 0) < 0 ||
			fchmodat(root, d->path, d->mode, 0) < 0)
			return pf_fail(err, errno, "make /%s", d->path);
	}
	if (symlinkat("/run", root, "var/run") < 0 || symlinkat("/run/lock", root, "var/lock") < 0)
		return pf_fail(err, errno, "make /var/run");
	return 0;
}

static int make_root_links(int root, struct pf_err *err)
{
	struct stat st;

	for (size_t i = 0; root_links[i]; i++) {
		PF_FREE char *path = pf_asprintf("/%s", root_links[i]);
		if (lstat(path, &st) < 0)
			continue;
		if (S_ISLNK(st.st_mode) ? copy_link(AT_FDCWD, path, root, root_links[i], err) < 0
					: mkdirat(root, root_links[i], 0755) < 0)
			return S_ISLNK(st.st_mode) ? -1 : pf_fail(err, errno, "mkdir %s", path);
	}
	return 0;
}

static int fill_etc(int etc, int to, struct pf_err *err)
{
	char name[64];

	for (size_t i = 0; etc_names[i]; i++)
		for (unsigned k = 0; expand(etc_names[i], k, name); k++)
			if (copy_name(etc, name, to, err) < 0)
				return -1;
	if (symlinkat("/proc/self/mounts", to, "mtab") < 0)
		return pf_fail(err, errno, "make /etc/mtab");
	return 0;
}

static int build(int root, int etc, struct pf_err *err)
{
	if (make_dirs(root, err) < 0 || make_root_links(root, err) < 0)
		return -1;
	PF_CLOSE int to = openat(root, "etc", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (to < 0)
		return pf_fail(err, errno, "open etc");
	if (fill_etc(etc, to, err) < 0)
		return -1;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		PF_CLOSE int fd = openat(
			root, files[i].path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd < 0 || pf_write_all(fd, files[i].text, strlen(files[i].text)) < 0 ||
			fchmod(fd, 0644) < 0)
			return pf_fail(err, errno, "write %s", files[i].path);
	}
	return 0;
}

static int build_version(int host_dir, const char *version, int etc, struct pf_err *err)
{
	PF_FREE char *tmp = pf_asprintf(".%s.%d.tmp", version, (int)getpid());
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_rm_rf_at(host_dir, tmp, err) < 0)
		return -1;
	if (mkdirat(host_dir, tmp, 0700) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int top = openat(host_dir, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	PF_CLOSE int root = -1;
	int r = -1;
	if (top < 0 || mkdirat(top, "fs", 0755) < 0 ||
		(root = openat(top, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
		pf_fail(err, errno, "mkdir");
	else if (build(root, etc, err) == 0)
		/* Written out before it gets its name: a power cut must not leave a version with holes. */
		r = syncfs(root) < 0 || renameat(host_dir, tmp, host_dir, version) < 0
			    ? pf_fail(err, errno, "rename")
			    : 0;
	if (r < 0)
		(void)pf_rm_rf_at(host_dir, tmp, &ignored);
	return r;
}

static int ensure_version(const char *store, const char *version, int etc, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/images/host", store);
	PF_FREE char *fs = pf_asprintf("%s/%s/fs", path, version);
	struct stat st;

	if (stat(fs, &st) == 0)
		return 0;
	if (pf_mkdirs(path, 0700, err) < 0)
		return -1;
	PF_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return pf_fail(err, errno, "open %s", path);
	PF_CLOSE int lock = pf_lock_file_at(dir, ".lock", true, err);
	if (lock < 0)
		return -1;
	return stat(fs, &st) == 0 ? 0 : build_version(dir, version, etc, err);
}

/* ---- identity ---- */

/* A value of os-release: KEY=value or KEY="value". */
static char *os_release(const char *text, const char *key)
{
	size_t klen = strlen(key);

	for (const char *s = text; s && *s; s = strchr(s, '\n'), s += s != NULL) {
		if (strncmp(s, key, klen) != 0 || s[klen] != '=')
			continue;
		s += klen + 1;
		const char *stop = *s == '"' ? "\"\n" : *s == '\'' ? "'\n" : " \n";
		s += *s == '"' || *s == '\'';
		size_t len = strcspn(s, stop);
		char *v = pf_calloc(len + 1, 1);
		memcpy(v, s, len);
		return v;
	}
	return pf_strdup("unknown");
}

static int identity(char **out, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	struct utsname u;

	if (pf_read_file_at(AT_FDCWD, "/etc/os-release", 65536, &text, NULL, err) < 0)
		return -1;
	if (uname(&u) < 0)
		return pf_fail(err, errno, "uname");
	PF_FREE char *id = os_release(text, "ID");
	PF_FREE char *version = os_release(text, "VERSION_ID");
	*out = pf_asprintf("host:%s:%s:%s", id, version, u.machine);
	return 0;
}

static void add_bind(struct pf_image *img, const char *path)
{
	img->binds = realloc(img->binds, (img->n_binds + 1) * sizeof(*img->binds));
	if (!img->binds)
		abort();
	img->binds[img->n_binds++] = (struct pf_image_bind){pf_strdup(path), pf_strdup(path), true};
}

int pf_host_etc_fill(int to, struct pf_err *err)
{
	PF_CLOSE int etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return etc < 0 ? pf_fail(err, errno, "/etc") : fill_etc(etc, to, err);
}

char *pf_host_etc_version(struct pf_err *err)
{
	PF_CLOSE int etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (etc < 0) {
		pf_fail(err, errno, "/etc");
		return NULL;
	}
	return fingerprint(etc);
}

int pf_host_image(const char *store, struct pf_image *out, struct pf_err *err)
{
	struct stat st;
	PF_CLOSE int etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (etc < 0)
		return pf_fail(err, errno, "/etc");
	if (identity(&out->digest, err) < 0)
		return pf_wrap(err, "host image");
	PF_FREE char *version = fingerprint(etc);
	if (ensure_version(store, version, etc, err) < 0)
		return pf_wrap(err, "host image");
	out->kind = PF_IMAGE_HOST;
	out->ref = pf_strdup("host");
	out->layers = pf_calloc(2, sizeof(char *));
	out->layers[0] = pf_asprintf("%s/images/host/%s/fs", store, version);
	out->env = pf_calloc(1, sizeof(char *));
	out->cmd = pf_calloc(1, sizeof(char *));
	add_bind(out, "/usr");
	for (size_t i = 0; root_links[i]; i++) {
		PF_FREE char *path = pf_asprintf("/%s", root_links[i]);
		if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
			add_bind(out, path);
	}
	return 0;
}

/* ---- gc ---- */

/* The skeletons that sandboxes of the store stand on, by their paths in one text; false when it cannot be
 * told.
 */
static bool skeletons_in_use(const char *store, struct pf_buf *paths)
{
	PF_FREE char *dir = pf_asprintf("%s/sandboxes", store);
	PF_CLOSEDIR DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		return errno == ENOENT;
	while ((errno = 0, e = readdir(d))) {
		PF_FREE char *name = pf_asprintf("%s/sandbox.json", e->d_name), *text = NULL;
		struct pf_err err = PF_ERR_INIT;
		const cJSON *layers = NULL, *l;
		size_t len;
		if (e->d_name[0] == '.')
			continue;
		if (pf_read_file_at(dirfd(d), name, (size_t)8 << 20, &text, &len, &err) < 0) {
			/* Not there yet, or no longer: nothing stands on anything. */
			if (err.kind == PF_ERR_NOT_FOUND)
				continue;
			return false;
		}
		PF_JSON cJSON *j = pf_json_parse(name, text, len, &err);
		if (!j || pf_json_arr(j, "", "image_layers", &layers, &err) <= 0)
			return false;
		cJSON_ArrayForEach(l, layers)
		{
			if (cJSON_IsString(l))
				pf_buf_printf(paths, "%s\n", l->valuestring);
		}
	}
	return errno == 0;
}

int pf_host_gc(const char *store, int64_t *count, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/images/host", store);
	PF_CLOSE int etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSE int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_BUF struct pf_buf used = {0};
	struct dirent *e;

	if (dir < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "open %s", path);
	if (etc < 0)
		return pf_fail(err, errno, "/etc");
	/* Whoever makes one holds it. */
	PF_CLOSE int lock = pf_lock_file_at(dir, ".lock", true, err);
	if (lock < 0)
		return -1;
	PF_FREE char *current = fingerprint(etc);
	bool known = skeletons_in_use(store, &used);
	PF_CLOSEDIR DIR *d = fdopendir(fcntl(dir, F_DUPFD_CLOEXEC, 3));
	while (d && (errno = 0, e = readdir(d))) {
		bool half_made = e->d_name[0] == '.' && pf_ends_with(e->d_name, ".tmp");
		PF_FREE char *part = pf_asprintf("/images/host/%s/", e->d_name);
		if (!half_made && (e->d_name[0] == '.' || !known || strcmp(e->d_name, current) == 0 ||
					  (used.data && strstr(used.data, part))))
			continue;
		if (pf_rm_rf_at(dir, e->d_name, err) < 0)
			return -1;
		++*count;
	}
	return !d || errno ? pf_fail(err, errno, "read %s", path) : 0;
}
