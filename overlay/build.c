/* Theory of operation
 *
 * A recipe is data, not a script: packages, files, configuration. mmdebstrap makes the tree from those of the
 * machine's apt sources that belong to its own release (third parties' are left out, and so is any password
 * in an address). It runs in a mount namespace of its own, so that nothing of it stays mounted whatever
 * happens to it.
 *
 * Same inputs, same digest. What differs between two runs is removed (logs, caches, lists, machine id) or set
 * (the day of the last password change; times later than the start of the build, which are those of files
 * that the installation made, become the time of the newest file that came in a package). Times of packaged
 * files stay as they are: Python's byte code holds them. Then the tree is packed by our own writer, whose
 * output is the layer that the diff id names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/units.h"
#include "overlay/build.h"
#include "overlay/image.h"
#include "overlay/import.h"
#include "overlay/layer_store.h"
#include "overlay/pack.h"
#include "overlay/recipe.h"
#include "overlay/stream.h"

#define MMDEBSTRAP "/usr/bin/mmdebstrap"

/* ---- running mmdebstrap ---- */

struct progress {
	const struct pf_import_opts *opts;
	char tail[4096]; /* the end of what it said, for the error text */
	size_t len;
};

static void keep_tail(struct progress *p, const char *s, size_t n)
{
	if (n > sizeof(p->tail) / 2) {
		s += n - sizeof(p->tail) / 2;
		n = sizeof(p->tail) / 2;
	}
	if (p->len + n > sizeof(p->tail)) {
		size_t drop = p->len + n - sizeof(p->tail);
		memmove(p->tail, p->tail + drop, p->len - drop);
		p->len -= drop;
	}
	memcpy(p->tail + p->len, s, n);
	p->len += n;
}

/* "I: downloading packages..." are its stages; "E: …" says why it failed. */
static void take_line(struct progress *p, const char *line)
{
	keep_tail(p, line, strlen(line));
	keep_tail(p, "\n", 1);
	if (pf_starts_with(line, "I: ") && p->opts->progress)
		p->opts->progress(p->opts->progress_arg, line + 3, 0, 0);
}

static void read_lines(struct progress *p, int fd)
{
	PF_BUF struct pf_buf b = {0};
	char chunk[4096];
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR)) {
		for (ssize_t i = 0; i < n; i++) {
			if (chunk[i] != '\n' && chunk[i] != '\r') {
				if (b.len < 2000)
					pf_buf_add(&b, &chunk[i], 1);
				continue;
			}
			if (b.len)
				take_line(p, b.data);
			b.len = 0;
		}
	}
}

static _Noreturn void child(const struct pf_build_tool *t, int out)
{
	sigset_t none;

	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(125);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
		dprintf(2, "E: private mount namespace: %s\n", strerrordesc_np(errno));
		_exit(125);
	}
	umask(022);
	if (t->prepare && t->prepare(t->arg) != 0)
		_exit(125);
	execve(t->argv[0], t->argv, t->env);
	dprintf(2, "E: %s: %s\n", t->argv[0], strerrordesc_np(errno));
	_exit(127);
}

/* The first mark in the text that begins a line; NULL: none. */
static const char *find_mark(const char *text, const char *const *marks)
{
	const char *first = NULL;

	for (; *marks; marks++)
		for (const char *s = text; (s = strstr(s, *marks)); s++)
			if (s == text || s[-1] == '\n') {
				first = !first || s < first ? s : first;
				break;
			}
	return first;
}

static int tool_error(const struct pf_build_tool *t, const struct progress *p, struct pf_err *err)
{
	char text[800];
	size_t n = p->len < sizeof(text) - 1 ? p->len : sizeof(text) - 1;
	const char *start;

	memcpy(text, p->tail + (p->len - n), n);
	text[n] = '\0';
	while (n && (text[n - 1] == '\n' || text[n - 1] == ' '))
		text[--n] = '\0';
	/* The first complaint in what was kept is nearest to the cause. */
	start = find_mark(text, t->error_marks);
	if (!start)
		start = strrchr(text, '\n') ? strrchr(text, '\n') : text;
	start += *start == '\n';
	for (char *c = text; *c; c++)
		if (*c == '\n' || (unsigned char)*c < ' ')
			*c = ';';
	return pf_fail_kind(err, strstr(text, "No space left") ? PF_ERR_SYSTEM : PF_ERR_INVALID,
		strstr(text, "No space left") ? ENOSPC : 0, "%s: %s", t->name, *start ? start : "failed");
}

int pf_build_run(const struct pf_build_tool *t, const struct pf_import_opts *opts, struct pf_err *err)
{
	struct progress p = {.opts = opts};
	int fds[2], status;

	if (access(t->argv[0], X_OK) < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "%s is not installed (apt-get install %s)",
			t->argv[0], t->name);
	if (pipe2(fds, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	pid_t pid = fork();
	if (pid == 0)
		child(t, fds[1]);
	int saved = errno;
	close(fds[1]);
	if (pid > 0)
		read_lines(&p, fds[0]);
	close(fds[0]);
	if (pid < 0)
		return pf_fail(err, saved, "fork");
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return pf_fail(err, errno, "wait");
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : tool_error(t, &p, err);
}

static int bootstrap(const struct pf_recipe *r, struct pf_store_tmp *t, const char *tmp_path,
	const struct pf_import_opts *opts, struct pf_err *err)
{
	PF_FREE char *suite = NULL, *sources = NULL;
	PF_BUF struct pf_buf include = {0};

	if (pf_apt_sources(&suite, &sources, err) < 0)
		return -1;
	if (pf_replace_file_at(t->fd, "apt.sources", sources, strlen(sources), 0600, false, err) < 0)
		return -1;
	pf_buf_str(&include, "--include=");
	for (size_t i = 0; r->packages[i]; i++)
		pf_buf_printf(&include, "%s%s", i ? "," : "", r->packages[i]);
	PF_FREE char *target = pf_asprintf("%s/fs", tmp_path);
	PF_FREE char *list = pf_asprintf("%s/apt.sources", tmp_path);
	char *argv[] = {MMDEBSTRAP, "--mode=root", "--variant=minbase", "--format=directory",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/lintian/*", "--dpkgopt=force-unsafe-io",
		"--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\"",
		include.data, suite, target, list, NULL};
	/* PYTHONHASHSEED: byte code of sets is written in hash order. A foreign locale or apt setting must
	 * not show. */
	static char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
		"PYTHONHASHSEED=0", "DEBIAN_FRONTEND=noninteractive", "TMPDIR=/tmp", NULL};
	static const char *const marks[] = {"E: ", NULL};
	struct pf_build_tool tool = {.name = "mmdebstrap", .argv = argv, .env = env, .error_marks = marks};
	return pf_build_run(&tool, opts, err);
}

/* ---- making it reproducible ---- */

/* What the installation leaves behind that is not the image's content: removed with all below it. A trailing
 * slash keeps the directory itself. */
static const char *const leftovers[] = {"dev/", "etc/.pwd.lock", "etc/apt/apt.conf.d/99mmdebstrap",
	"etc/group-", "etc/gshadow-", "etc/hostname", "etc/machine-id", "etc/passwd-", "etc/resolv.conf",
	"etc/shadow-", "etc/subgid-", "etc/subuid-", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "proc/",
	"root/.bash_history", "run/", "sys/", "tmp/", "var/cache/apt/", "var/cache/debconf/",
	"var/cache/ldconfig/", "var/cache/man/", "var/lib/apt/lists/", "var/lib/dbus/machine-id",
	"var/lib/dpkg/available-old", "var/lib/dpkg/diversions-old", "var/lib/dpkg/lock",
	"var/lib/dpkg/lock-frontend", "var/lib/dpkg/statoverride-old", "var/lib/dpkg/status-old",
	"var/lib/dpkg/triggers/Lock", "var/lib/systemd/catalog/database", "var/lib/systemd/random-seed",
	"var/log/", "var/tmp/", NULL};

static int empty_dir(int root, const char *path, struct pf_err *err)
{
	struct dirent *e;
	int fd = pf_open_in_root(root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		if (fd >= 0)
			close(fd);
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", path);
	}
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
			continue;
		if (pf_rm_rf_at(fd, e->d_name, err) < 0)
			return -1;
	}
	return 0;
}

static int remove_path(int root, const char *path, struct pf_err *err)
{
	PF_FREE char *parent = pf_strdup(path);
	char *slash = strrchr(parent, '/');

	*slash = '\0';
	PF_CLOSE int dir = pf_open_in_root(root, parent, O_PATH | O_DIRECTORY, 0);
	if (dir < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", parent);
	return pf_rm_rf_at(dir, slash + 1, err);
}

int pf_build_tidy(int root, struct pf_err *err)
{
	for (size_t i = 0; leftovers[i]; i++)
		if ((pf_ends_with(leftovers[i], "/") ? empty_dir(root, leftovers[i], err)
						     : remove_path(root, leftovers[i], err)) < 0)
			return -1;
	return 0;
}

static int write_in(int root, const char *path, const char *text, size_t len, mode_t mode, struct pf_err *err)
{
	PF_FREE char *copy = pf_strdup(path);
	char *slash = strrchr(copy, '/');

	*slash = '\0';
	PF_CLOSE int dir = pf_mkdirs_in_root(root, *copy ? copy : "/", 0755);
	if (dir < 0)
		return pf_fail(err, errno, "make %s", copy);
	if (pf_replace_file_at(dir, slash + 1, text, len, mode, false, err) < 0)
		return -1;
	return fchmodat(dir, slash + 1, mode, 0) < 0 ? pf_fail(err, errno, "chmod %s", path) : 0;
}

/* user:password:LASTCHANGE:… : the day of the build. Nobody can log in by a password here, so no date means
 * anything. */
static int fix_shadow(int root, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	PF_BUF struct pf_buf out = {0};
	size_t len;
	PF_CLOSE int etc = pf_open_in_root(root, "/etc", O_PATH | O_DIRECTORY, 0);

	if (etc < 0)
		return pf_fail(err, errno, "/etc");
	if (faccessat(etc, "shadow", F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	if (pf_read_file_at(etc, "shadow", 1 << 20, &text, &len, err) < 0)
		return -1;
	pf_buf_str(&out, "");
	for (char *line = text; *line;) {
		size_t n = strcspn(line, "\n");
		int colons = 0;
		for (size_t i = 0; i < n; i++) {
			colons += line[i] == ':';
			if (colons != 2 || line[i] == ':')
				pf_buf_add(&out, &line[i], 1);
		}
		pf_buf_add(&out, "\n", 1);
		line += n + (line[n] == '\n');
	}
	PF_CLOSE int fd = openat(etc, "shadow", O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || pf_write_all(fd, out.data, out.len) < 0)
		return pf_fail(err, errno, "/etc/shadow");
	return 0;
}

static int append(int root, const char *path, const char *line, struct pf_err *err)
{
	PF_CLOSE int fd = pf_open_in_root(root, path, O_WRONLY | O_APPEND | O_NOFOLLOW, 0);

	if (fd < 0 || pf_write_all(fd, line, strlen(line)) < 0)
		return pf_fail(err, errno, "%s", path);
	return 0;
}

static int add_agent(int root, struct pf_err *err)
{
	static const char *const owned[] = {"/home/agent", "/workspace"};

	if (append(root, "/etc/passwd", "agent:x:1000:1000:agent:/home/agent:/bin/bash\n", err) < 0 ||
		append(root, "/etc/group", "agent:x:1000:\n", err) < 0)
		return -1;
	for (size_t i = 0; i < 2; i++) {
		PF_CLOSE int fd = pf_mkdirs_in_root(root, owned[i], 0755);
		if (fd < 0 || fchownat(fd, "", 1000, 1000, AT_EMPTY_PATH) < 0)
			return pf_fail(err, errno, "make %s", owned[i]);
	}
	return 0;
}

static int add_files(const struct pf_recipe *r, int root, struct pf_err *err)
{
	for (size_t i = 0; i < r->n_files; i++)
		if (write_in(root, r->files[i].path, r->files[i].content, strlen(r->files[i].content),
			    r->files[i].mode, err) < 0)
			return -1;
	return 0;
}

/* Visit everything below dir. newest: find the latest time not after start. Otherwise: set later ones to it.
 */
static int visit_times(int dir, time_t start, struct timespec *newest, bool set, struct pf_err *err)
{
	struct dirent *e;
	struct stat st;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		if (fd >= 0)
			close(fd);
		return pf_fail(err, errno, "read the tree");
	}
	while ((e = readdir(d))) {
		if (strcmp(e->d_name, "..") == 0)
			continue;
		if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return pf_fail(err, errno, "%s", e->d_name);
		if (S_ISDIR(st.st_mode) && strcmp(e->d_name, ".") != 0) {
			PF_CLOSE int sub =
				openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
			if (sub < 0)
				return pf_fail(err, errno, "%s", e->d_name);
			if (visit_times(sub, start, newest, set, err) < 0)
				return -1;
			continue; /* its own time is seen as its "." */
		}
		if (!set) {
			if (S_ISREG(st.st_mode) && st.st_mtim.tv_sec < start &&
				st.st_mtim.tv_sec > newest->tv_sec)
				newest->tv_sec = st.st_mtim.tv_sec;
		} else if (st.st_mtim.tv_sec >= start) {
			struct timespec times[2] = {*newest, *newest};
			if (utimensat(fd, e->d_name, times, AT_SYMLINK_NOFOLLOW) < 0)
				return pf_fail(err, errno, "%s", e->d_name);
		}
	}
	return 0;
}

static int normalize(
	const struct pf_recipe *r, int root, time_t start, struct timespec *epoch, struct pf_err *err)
{
	*epoch = (struct timespec){0};
	if (pf_build_tidy(root, err) < 0 || fix_shadow(root, err) < 0 || add_agent(root, err) < 0 ||
		add_files(r, root, err) < 0 || fchmod(root, 0755) < 0)
		return pf_wrap(err, "clean up the tree");
	if (visit_times(root, start, epoch, false, err) < 0)
		return -1;
	return visit_times(root, start, epoch, true, err);
}

/* ---- the image ---- */

static int hash_sink(void *arg, const void *data, size_t len, struct pf_err *err)
{
	return EVP_DigestUpdate(arg, data, len) == 1 ? 0 : pf_fail(err, ENOMEM, "SHA-256");
}

int pf_build_diff_id(int root, char *diff_id, struct pf_pack_stats *stats, struct pf_err *err)
{
	struct pf_pack_opts opts = {.layer = true};
	unsigned char md[EVP_MAX_MD_SIZE];
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int r = -1;

	if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
		pf_fail(err, ENOMEM, "SHA-256");
	} else if (pf_pack_tree(root, &opts, hash_sink, ctx, stats, err) == 0 &&
		   EVP_DigestFinal_ex(ctx, md, NULL) == 1) {
		memcpy(diff_id, "sha256:", 7);
		for (size_t i = 0; i < 32; i++)
			snprintf(diff_id + 7 + 2 * i, 3, "%02x", md[i]);
		r = 0;
	}
	EVP_MD_CTX_free(ctx);
	return r;
}

static int build_tree(const struct pf_recipe *r, struct pf_layer_store *s, struct pf_store_tmp *t,
	const struct pf_import_opts *opts, cJSON *record, struct pf_err *err)
{
	PF_FREE char *tmp_path = pf_asprintf("%s/tmp/%s", s->path, t->name);
	char diff_id[PF_DIGEST_SIZE], digest[PF_DIGEST_SIZE];
	struct pf_pack_stats stats;
	struct timespec epoch;
	time_t start = time(NULL);

	if (bootstrap(r, t, tmp_path, opts, err) < 0)
		return -1;
	PF_CLOSE int root = openat(t->fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (root < 0)
		return pf_fail(err, errno, "open the tree");
	if (opts->progress)
		opts->progress(opts->progress_arg, "packing", 0, 0);
	if (normalize(r, root, start, &epoch, err) < 0 || pf_build_diff_id(root, diff_id, &stats, err) < 0 ||
		unlinkat(t->fd, "apt.sources", 0) < 0)
		return -1;
	PF_JSON cJSON *config = pf_recipe_config(r, diff_id, epoch.tv_sec);
	PF_FREE char *text = pf_json_text(config);
	if (pf_sha256(text, strlen(text), digest, err) < 0 || pf_record_from_config(config, record, err) < 0)
		return -1;
	cJSON_AddStringToObject(record, "digest", digest);
	cJSON_AddStringToObject(record, "config", text);
	pf_json_add_int(record, "bytes", stats.bytes);
	PF_CLOSE int lock = pf_layer_store_lock(s, err);
	if (lock < 0 || pf_layer_commit(s, t, diff_id, stats.bytes, stats.entries, err) < 0)
		return -1;
	return pf_record_write(s, record, err);
}

cJSON *pf_image_build(
	const char *store, const char *dir, const struct pf_import_opts *opts, struct pf_err *err)
{
	static const struct pf_import_opts defaults;
	struct pf_layer_store s = PF_LAYER_STORE_INIT;
	struct pf_store_tmp t = PF_STORE_TMP_INIT;
	struct pf_recipe r;
	PF_FREE char *ref = NULL;
	cJSON *record = NULL;
	int ok = -1;

	if (pf_recipe_load(dir, &r, err) < 0)
		return NULL;
	opts = opts ? opts : &defaults;
	ref = pf_image_ref_normalize(opts->name ? opts->name : r.name, err);
	if (ref && pf_layer_store_open(store, &s, err) == 0) {
		record = cJSON_CreateObject();
		cJSON_AddStringToObject(record, "ref", ref);
		cJSON_AddStringToObject(record, "source", "recipe");
		if (pf_store_tmp_new(&s, &t, err) == 0)
			ok = build_tree(&r, &s, &t, opts, record, err);
		pf_store_tmp_drop(&s, &t);
		pf_layer_store_close(&s);
	}
	pf_recipe_done(&r);
	if (ok < 0) {
		cJSON_Delete(record);
		pf_wrap(err, "build %s", dir);
		return NULL;
	}
	cJSON_DeleteItemFromObjectCaseSensitive(record, "config");
	return record;
}
