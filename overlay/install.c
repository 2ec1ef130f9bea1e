/* Theory of operation
 *
 * Packages of the language managers are other people's programs, and run programs when they are installed. So
 * that happens in a container: the image's layers and a fresh upper directory as its root, an own user
 * namespace (ids are what they are outside, but root's powers end there), no way to the machine's files but
 * the few that say how this machine reaches its registries: name service, certificates, the managers' own
 * configuration. These are bound read-only below /run, which is not part of the image. The network is the
 * machine's: registries, mirrors and proxies are reached as from here.
 *
 * The container is run by the program pinfold, as an OCI container, inside of the mount namespace that holds
 * the overlay. What it wrote is the image's new layer. It cannot be made twice with the same bytes (managers
 * write times and take what is newest), therefore it is not made twice: the result's name is the digest of
 * what was asked for. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/build.h"
#include "overlay/image.h"
#include "overlay/import.h"
#include "overlay/layer_store.h"
#include "overlay/mount.h"
#include "overlay/packages.h"
#include "overlay/stream.h"

#define IN "/run/pinfold-build"
#define RECORD_MAX ((size_t)8 << 20)

extern char **environ;

/* How each is called; the packages are its arguments. A shell is process 1, which ends on a signal, and with
 * it all the rest. */
static const struct manager {
	const char *name, *program, *script;
} managers[] = {
	{"apt", "apt-get",
		"apt-get -qq update && apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install -- "
		"\"$@\""},
	{"cargo", "cargo", "cargo install --quiet --root /usr/local -- \"$@\""},
	{"gem", "gem", "gem install --no-document -- \"$@\""},
	{"go", "go",
		"for p; do case $p in *@*) ;; *) p=$p@latest ;; esac; GOBIN=/usr/local/bin go install \"$p\" "
		"|| exit; "
		"done"},
	{"npm", "npm",
		"npm install --global --no-audit --no-fund --no-update-notifier --loglevel=error -- \"$@\""},
	{"pip", "python3",
		"python3 -m pip install --no-cache-dir --no-input --disable-pip-version-check "
		"--root-user-action=ignore -- \"$@\""},
};

static const char *const error_marks[] = {
	"E: ", "ERROR: ", "npm ERR! ", "npm error ", "error: ", "go: ", "pinfold: ", NULL};

/* Files of this machine that say how its registries are reached, and the variable that points at the copy. ~
 * is the home of whoever builds. The first that is there counts. */
static const struct machine_file {
	const char *paths[3], *name, *variable;
} machine_files[] = {
	{{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"}, "ca.crt",
		"SSL_CERT_FILE"},
	{{"~/.npmrc"}, "npmrc", "NPM_CONFIG_USERCONFIG"},
	{{"/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"}, "npmrc.global", "NPM_CONFIG_GLOBALCONFIG"},
	{{"~/.config/pip/pip.conf", "~/.pip/pip.conf", "/etc/pip.conf"}, "pip.conf", "PIP_CONFIG_FILE"},
	{{"~/.gemrc", "/etc/gemrc"}, "gemrc", "GEMRC"},
	{{"~/.config/go/env"}, "goenv", "GOENV"},
	{{"~/.cargo/config.toml", "~/.cargo/config"}, "cargo/config.toml", "CARGO_HOME"},
};
/* What else tells the managers where to look. */
static const char *const machine_variables[] = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "NPM_CONFIG_REGISTRY",
	"npm_config_registry", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "http_proxy", "https_proxy",
	"no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", NULL};

/* One installation. */
struct install {
	const struct pf_image *base;
	const char *dir; /* below the store's tmp: rw (upper is the layer), root, scratch, bundle, run */
};

/* ---- the container's configuration ---- */

static void add_mount(
	cJSON *mounts, const char *target, const char *type, const char *source, const char *options)
{
	cJSON *m = cJSON_CreateObject(), *list;
	PF_FREE char *copy = pf_strdup(options);
	char *save = NULL;

	cJSON_AddStringToObject(m, "destination", target);
	cJSON_AddStringToObject(m, "type", type);
	cJSON_AddStringToObject(m, "source", source);
	list = cJSON_AddArrayToObject(m, "options");
	for (char *o = strtok_r(copy, ",", &save); o; o = strtok_r(NULL, ",", &save))
		cJSON_AddItemToArray(list, cJSON_CreateString(o));
	cJSON_AddItemToArray(mounts, m);
}

/* The path on this machine, or NULL when there is no such file. malloc'ed. */
static char *machine_path(const char *path)
{
	const char *home = getenv("HOME");
	struct stat st;

	if (*path == '~' && (!home || *home != '/'))
		return NULL;
	PF_FREE char *full = *path == '~' ? pf_asprintf("%s%s", home, path + 1) : pf_strdup(path);
	PF_FREE char *real = realpath(full, NULL);
	return real && stat(real, &st) == 0 && S_ISREG(st.st_mode) ? pf_take(real) : NULL;
}

static void add_env(cJSON *env, const char *name, const char *value)
{
	PF_FREE char *line = pf_asprintf("%s=%s", name, value);

	cJSON_AddItemToArray(env, cJSON_CreateString(line));
}

static void add_machine(cJSON *mounts, cJSON *env)
{
	add_mount(mounts, "/run", "tmpfs", "tmpfs", "nosuid,nodev,mode=755,size=64m");
	for (size_t i = 0; i < sizeof(machine_files) / sizeof(machine_files[0]); i++) {
		const struct machine_file *f = &machine_files[i];
		PF_FREE char *found = NULL, *target = pf_asprintf("%s/%s", IN, f->name);
		for (size_t p = 0; p < 3 && f->paths[p] && !found; p++)
			found = machine_path(f->paths[p]);
		bool cargo = strcmp(f->variable, "CARGO_HOME") == 0;
		if (found)
			add_mount(mounts, target, "bind", found, "bind,ro,nosuid,nodev");
		if (cargo)
			add_env(env, f->variable, found ? IN "/cargo" : "/tmp/cargo");
		else if (found)
			add_env(env, f->variable, target);
		if (found && strcmp(f->variable, "SSL_CERT_FILE") == 0) {
			/* These win over what the configuration files say, which is a path of the machine's.
			 */
			static const char *const also[] = {
				"NODE_EXTRA_CA_CERTS", "NPM_CONFIG_CAFILE", "PIP_CERT", "CARGO_HTTP_CAINFO"};
			for (size_t v = 0; v < sizeof(also) / sizeof(also[0]); v++)
				add_env(env, also[v], target);
		}
	}
	for (const char *const *v = machine_variables; *v; v++)
		if (getenv(*v) && *getenv(*v))
			add_env(env, *v, getenv(*v));
}

static cJSON *make_process(const struct install *in, const struct manager *m, const cJSON *names)
{
	static const char *const caps[] = {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID",
		"CAP_KILL", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT"};
	static const char *const sets[] = {"bounding", "effective", "permitted"};
	cJSON *p = cJSON_CreateObject(), *user = cJSON_AddObjectToObject(p, "user"), *args, *env, *c;
	const cJSON *name;

	cJSON_AddFalseToObject(p, "terminal");
	pf_json_add_int(user, "uid", 0);
	pf_json_add_int(user, "gid", 0);
	args = cJSON_AddArrayToObject(p, "args");
	PF_FREE char *script =
		pf_asprintf("command -v %s >/dev/null || { echo 'E: %s is not in the image' >&2; exit 1; }\n"
			    "trap 'exit 143' TERM INT\n(%s) &\nwait $!\n",
			m->program, m->program, m->script);
	const char *words[] = {"/bin/sh", "-c", script, m->name};
	for (size_t i = 0; i < 4; i++)
		cJSON_AddItemToArray(args, cJSON_CreateString(words[i]));
	cJSON_ArrayForEach(name, names) cJSON_AddItemToArray(args, cJSON_CreateString(name->valuestring));
	env = cJSON_AddArrayToObject(p, "env");
	add_env(env, "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	for (char **e = in->base->env; *e; e++)
		if (!pf_starts_with(*e, "HOME="))
			cJSON_AddItemToArray(env, cJSON_CreateString(*e));
	/* Caches and scratch files go where they do not end up in the image. */
	add_env(env, "HOME", "/tmp");
	add_env(env, "LC_ALL", "C.UTF-8");
	add_env(env, "DEBIAN_FRONTEND", "noninteractive");
	add_env(env, "PIP_BREAK_SYSTEM_PACKAGES", "1");
	add_env(env, "GOPATH", "/tmp/go");
	add_env(env, "CARGO_TARGET_DIR", "/tmp/target");
	cJSON_AddStringToObject(p, "cwd", "/");
	c = cJSON_AddObjectToObject(p, "capabilities");
	for (size_t s = 0; s < 3; s++) {
		cJSON *set = cJSON_AddArrayToObject(c, sets[s]);
		for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
			cJSON_AddItemToArray(set, cJSON_CreateString(caps[i]));
	}
	cJSON_AddTrueToObject(p, "noNewPrivileges");
	return p;
}

static cJSON *make_linux(void)
{
	static const char *const namespaces[] = {"pid", "ipc", "uts", "mount", "cgroup", "user"};
	static const char *const masked[] = {"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/sched_debug", "/proc/scsi"};
	static const char *const read_only[] = {
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
	cJSON *l = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(l, "namespaces");

	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		cJSON *n = cJSON_CreateObject();
		cJSON_AddStringToObject(n, "type", namespaces[i]);
		cJSON_AddItemToArray(list, n);
	}
	/* Everybody is who he is in the image's files, and nobody outside. */
	for (int i = 0; i < 2; i++) {
		cJSON *map = cJSON_CreateObject();
		pf_json_add_int(map, "containerID", 0);
		pf_json_add_int(map, "hostID", 0);
		pf_json_add_int(map, "size", 65536);
		cJSON_AddItemToArray(cJSON_AddArrayToObject(l, i ? "gidMappings" : "uidMappings"), map);
	}
	list = cJSON_AddArrayToObject(l, "maskedPaths");
	for (size_t i = 0; i < sizeof(masked) / sizeof(masked[0]); i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(masked[i]));
	list = cJSON_AddArrayToObject(l, "readonlyPaths");
	for (size_t i = 0; i < sizeof(read_only) / sizeof(read_only[0]); i++)
		cJSON_AddItemToArray(list, cJSON_CreateString(read_only[i]));
	return l;
}

static int write_bundle(
	const struct install *in, const struct manager *m, const cJSON *names, struct pf_err *err)
{
	PF_JSON cJSON *c = cJSON_CreateObject();
	PF_FREE char *root = pf_asprintf("%s/root", in->dir), *scratch = pf_asprintf("%s/scratch", in->dir);
	PF_FREE char *bundle = pf_asprintf("%s/bundle", in->dir);
	cJSON *process = make_process(in, m, names), *mounts = cJSON_CreateArray();

	cJSON_AddStringToObject(c, "ociVersion", "1.0.2");
	cJSON_AddItemToObject(c, "process", process);
	cJSON_AddStringToObject(cJSON_AddObjectToObject(c, "root"), "path", root);
	cJSON_AddStringToObject(c, "hostname", "build");
	cJSON_AddItemToObject(c, "mounts", mounts);
	add_mount(mounts, "/proc", "proc", "proc", "nosuid,nodev,noexec");
	add_mount(mounts, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
	add_mount(
		mounts, "/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620");
	add_mount(mounts, "/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k");
	add_mount(mounts, "/tmp", "bind", scratch, "bind,nosuid,nodev");
	add_mount(mounts, "/etc/resolv.conf", "bind", "/etc/resolv.conf", "bind,ro,nosuid,nodev,noexec");
	add_mount(mounts, "/etc/hosts", "bind", "/etc/hosts", "bind,ro,nosuid,nodev,noexec");
	add_machine(mounts, cJSON_GetObjectItemCaseSensitive(process, "env"));
	cJSON_AddItemToObject(c, "linux", make_linux());
	PF_FREE char *text = pf_json_text(c);
	PF_CLOSE int dir = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return pf_fail(err, errno, "%s", bundle);
	return pf_replace_file_at(dir, "config.json", text, strlen(text), 0600, false, err);
}

/* ---- running it ---- */

/* In the child, in its own mount namespace. */
static int mount_root(void *arg)
{
	const struct install *in = arg;
	PF_FREE char *root = pf_asprintf("%s/root", in->dir), *rw = pf_asprintf("%s/rw", in->dir);
	struct pf_err err = PF_ERR_INIT;
	size_t n = pf_strv_len(in->base->layers);
	PF_FREE int *lowers = pf_calloc(n, sizeof(*lowers));

	for (size_t i = 0; i < n; i++)
		if ((lowers[i] = open(in->base->layers[i], O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0) {
			dprintf(STDERR_FILENO, "E: %s: %s\n", in->base->layers[i], strerrordesc_np(errno));
			return -1;
		}
	PF_CLOSE int upper = open(rw, O_PATH | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSE int overlay = pf_overlay_mount(lowers, n, upper, -1, false, &err);
	if (overlay < 0) {
		dprintf(STDERR_FILENO, "E: %s\n", err.msg);
		return -1;
	}
	if (move_mount(overlay, "", AT_FDCWD, root, MOVE_MOUNT_F_EMPTY_PATH) == 0)
		return 0;
	dprintf(STDERR_FILENO, "E: move_mount: %s\n", strerrordesc_np(errno));
	return -1;
}

static int install(const struct install *in, const char *pinfold, const struct manager *m, const cJSON *names,
	const struct pf_import_opts *opts, struct pf_err *err)
{
	static char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	PF_FREE char *run = pf_asprintf("%s/run", in->dir), *bundle = pf_asprintf("%s/bundle", in->dir);
	PF_FREE char *id = pf_asprintf("build-%d-%s", (int)getpid(), m->name);
	char *argv[] = {(char *)(uintptr_t)pinfold, "--root", run, "run", "--bundle", bundle, id, NULL};
	struct pf_build_tool t = {.name = m->name,
		.argv = argv,
		.env = env,
		.prepare = mount_root,
		.arg = (void *)(uintptr_t)in,
		.error_marks = error_marks};
	PF_FREE char *stage = pf_asprintf("installing (%s)", m->name);

	if (opts->progress)
		opts->progress(opts->progress_arg, stage, 0, 0);
	if (write_bundle(in, m, names, err) < 0)
		return -1;
	return pf_build_run(&t, opts, err);
}

static int install_all(const struct install *in, const char *pinfold, const cJSON *packages,
	const struct pf_import_opts *opts, struct pf_err *err)
{
	static const struct {
		const char *name;
		mode_t mode;
	} dirs[] = {{"rw", 0700}, {"rw/upper", 0755}, {"rw/work", 0700}, {"root", 0755}, {"scratch", 01777},
		{"bundle", 0700}, {"run", 0700}};

	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		PF_FREE char *path = pf_asprintf("%s/%s", in->dir, dirs[i].name);
		if (mkdir(path, 0700) < 0 || chmod(path, dirs[i].mode) < 0)
			return pf_fail(err, errno, "make %s", path);
	}
	for (size_t i = 0; i < sizeof(managers) / sizeof(managers[0]); i++) {
		const cJSON *names = cJSON_GetObjectItemCaseSensitive(packages, managers[i].name);
		if (names && install(in, pinfold, &managers[i], names, opts, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- the image ---- */

/* What was there to be mounted upon, and what else is not the image's. */
static int tidy(int fs, struct pf_err *err)
{
	static const char *const points[] = {"etc/hosts", "etc/resolv.conf"};
	struct stat st;

	for (size_t i = 0; i < 2; i++)
		if (fstatat(fs, points[i], &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
			st.st_size == 0 && unlinkat(fs, points[i], 0) < 0)
			return pf_fail(err, errno, "remove %s", points[i]);
	return pf_build_tidy(fs, err);
}

/* The base's configuration with one more layer. */
static cJSON *extend_config(const char *text, const char *diff_id, struct pf_err *err)
{
	PF_JSON cJSON *c = pf_json_parse("the image's configuration", text, strlen(text), err);
	cJSON *ids =
		cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(c, "rootfs"), "diff_ids");

	if (!c)
		return NULL;
	if (!cJSON_IsArray(ids)) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the image's configuration names no layers");
		return NULL;
	}
	cJSON_AddItemToArray(ids, cJSON_CreateString(diff_id));
	cJSON_DeleteItemFromObjectCaseSensitive(c, "history");
	return pf_take(c);
}

/* The record of ref; NULL with PF_ERR_NOT_FOUND when there is none. */
static cJSON *read_record(struct pf_layer_store *s, const char *ref, struct pf_err *err)
{
	PF_FREE char *normal = pf_image_ref_normalize(ref, err), *text = NULL;
	PF_FREE char *file = normal ? pf_image_ref_file(normal) : NULL;
	size_t len = 0;

	if (!file || pf_read_file_at(s->refs, file, RECORD_MAX, &text, &len, err) < 0)
		return NULL;
	return pf_json_parse(file, text, len, err);
}

/* The record of whatever name has this digest. */
static cJSON *record_of(
	struct pf_layer_store *s, const char *store, const struct pf_image *img, struct pf_err *err)
{
	char **names = pf_image_names(store, err);
	cJSON *found = NULL;

	for (size_t i = 0; names && names[i] && !found; i++) {
		struct pf_err ignored = PF_ERR_INIT;
		cJSON *r = read_record(s, names[i], &ignored);
		const char *d = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(r, "digest"));
		if (d && strcmp(d, img->digest) == 0)
			found = r;
		else
			cJSON_Delete(r);
	}
	pf_strv_free(names);
	if (!found)
		pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "the record of image %s", img->ref);
	return found;
}

/* The record under another name, too. */
static int name_it(struct pf_layer_store *s, cJSON *record, const char *name, struct pf_err *err)
{
	PF_FREE char *ref = pf_image_ref_normalize(name, err);

	if (!ref)
		return -1;
	cJSON_DeleteItemFromObjectCaseSensitive(record, "ref");
	cJSON_AddStringToObject(record, "ref", ref);
	return pf_record_write(s, record, err);
}

static int commit(struct pf_layer_store *s, struct pf_store_tmp *t, const cJSON *base, const char *ref,
	cJSON *record, struct pf_err *err)
{
	char diff_id[PF_DIGEST_SIZE], digest[PF_DIGEST_SIZE];
	struct pf_pack_stats stats;
	if (renameat(t->fd, "rw/upper", t->fd, "fs") < 0)
		return pf_fail(err, errno, "take the layer");
	PF_CLOSE int fs = openat(t->fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	const char *was = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(base, "config"));

	if (fs < 0)
		return pf_fail(err, errno, "open the layer");
	if (!was)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the image's record has no configuration");
	if (tidy(fs, err) < 0 || pf_layer_check_tree(fs, err) < 0 ||
		pf_build_diff_id(fs, diff_id, &stats, err) < 0)
		return -1;
	PF_JSON cJSON *config = extend_config(was, diff_id, err);
	if (!config)
		return -1;
	PF_FREE char *text = pf_json_text(config);
	if (pf_sha256(text, strlen(text), digest, err) < 0 || pf_record_from_config(config, record, err) < 0)
		return -1;
	cJSON_AddStringToObject(record, "ref", ref);
	cJSON_AddStringToObject(record, "source", "packages");
	cJSON_AddStringToObject(record, "digest", digest);
	cJSON_AddStringToObject(record, "config", text);
	const cJSON *bytes = cJSON_GetObjectItemCaseSensitive(base, "bytes");
	pf_json_add_int(
		record, "bytes", stats.bytes + (cJSON_IsNumber(bytes) ? (int64_t)bytes->valuedouble : 0));
	PF_CLOSE int lock = pf_layer_store_lock(s, err);
	if (lock < 0 || pf_layer_commit(s, t, diff_id, stats.bytes, stats.entries, err) < 0)
		return -1;
	return pf_record_write(s, record, err);
}

static int make(struct pf_layer_store *s, const char *store, const char *pinfold, const struct pf_image *img,
	const cJSON *packages, const char *ref, const struct pf_import_opts *opts, cJSON *record,
	struct pf_err *err)
{
	struct pf_store_tmp t = PF_STORE_TMP_INIT;
	PF_JSON cJSON *base = record_of(s, store, img, err);
	int r = -1;

	if (base && pf_store_tmp_new(s, &t, err) == 0) {
		PF_FREE char *dir = pf_asprintf("%s/tmp/%s", s->path, t.name);
		struct install in = {.base = img, .dir = dir};
		if (install_all(&in, pinfold, packages, opts, err) == 0)
			r = commit(s, &t, base, ref, record, err);
	}
	pf_store_tmp_drop(s, &t);
	return r;
}

static cJSON *find_or_make(struct pf_layer_store *s, const char *store, const char *pinfold,
	const struct pf_image *img, const cJSON *packages, const struct pf_import_opts *opts,
	struct pf_err *err)
{
	PF_FREE char *text = pf_packages_text(img->digest, packages);
	char digest[PF_DIGEST_SIZE];
	struct pf_image there = {0};

	if (pf_sha256(text, strlen(text), digest, err) < 0)
		return NULL;
	PF_FREE char *ref = pf_packages_ref(digest);
	struct pf_err why = PF_ERR_INIT;
	bool cached = pf_image_resolve(store, ref, &there, &why) == 0;
	if (cached)
		pf_image_done(&there);
	PF_JSON cJSON *record = cached ? read_record(s, ref, err) : cJSON_CreateObject();
	if (!record)
		return NULL;
	if (!cached && make(s, store, pinfold, img, packages, ref, opts, record, err) < 0)
		return NULL;
	if (opts->name) {
		PF_CLOSE int lock = pf_layer_store_lock(s, err);
		if (lock < 0 || name_it(s, record, opts->name, err) < 0)
			return NULL;
	}
	cJSON_AddBoolToObject(record, "cached", cached);
	cJSON_DeleteItemFromObjectCaseSensitive(record, "config");
	return pf_take(record);
}

cJSON *pf_image_packages(const char *store, const char *pinfold, const char *base, const cJSON *packages,
	const struct pf_import_opts *opts, struct pf_err *err)
{
	static const struct pf_import_opts defaults;
	struct pf_layer_store s = PF_LAYER_STORE_INIT;
	struct pf_image img = {0};
	PF_JSON cJSON *lists = pf_packages_read(packages, "packages", err);
	cJSON *record = NULL;

	if (!lists || pf_image_resolve(store, base, &img, err) < 0)
		return NULL;
	if (img.kind != PF_IMAGE_STORED)
		pf_fail_kind(err, PF_ERR_INVALID, 0,
			"image %s: packages are installed into images of the store only (image build, image "
			"import)",
			img.ref);
	else if (!lists->child)
		pf_fail_kind(err, PF_ERR_INVALID, 0, "no packages are listed");
	else if (pf_layer_store_open(store, &s, err) == 0)
		record = find_or_make(&s, store, pinfold, &img, lists, opts ? opts : &defaults, err);
	pf_layer_store_close(&s);
	pf_image_done(&img);
	return record;
}
