#include "session/bundle.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "sandbox/caps.h"
#include "sandbox/cgroup.h"
#include "sandbox/idrange.h"
#include "sandbox/rlimit.h"
#include "sandbox/spec_write.h"
#include "session/trust.h"

#define SHM_SIZE "67108864"

static cJSON *strings(const char *const *v)
{
	cJSON *a = cJSON_CreateArray();
	for (; v && *v; v++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*v));
	return a;
}

static void add_mount(
	cJSON *mounts, const char *dest, const char *type, const char *source, const char *const *options)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "destination", dest);
	cJSON_AddStringToObject(m, "type", type);
	cJSON_AddStringToObject(m, "source", source);
	cJSON_AddItemToObject(m, "options", strings(options));
	cJSON_AddItemToArray(mounts, m);
}

static void add_bind(cJSON *mounts, const char *dest, const char *source, bool read_only)
{
	const char *options[] = {"bind", "idmap", "nodev", read_only ? "ro" : "rw", NULL};
	add_mount(mounts, dest, "bind", source, options);
}

/* Add to a list of id maps: disk ids from disk on are the box's ids from box on. */
static void add_extent(cJSON *list, uint32_t disk, uint32_t host, uint32_t size)
{
	cJSON *e = cJSON_CreateObject();

	if (size == 0) {
		cJSON_Delete(e);
		return;
	}
	cJSON_AddNumberToObject(e, "containerID", disk);
	cJSON_AddNumberToObject(e, "hostID", host);
	cJSON_AddNumberToObject(e, "size", size);
	cJSON_AddItemToArray(list, e);
}

/* owner is who the box's root is on disk, 0: nobody. Everybody else has the same number inside and outside,
 * but the machine's root, whom nobody inside is. */
static cJSON *writable_map(uint32_t owner, uint32_t base)
{
	cJSON *list = cJSON_CreateArray();

	if (owner == 0) {
		add_extent(list, 1, base + 1, PF_IDRANGE_SIZE - 1);
		return list;
	}
	add_extent(list, owner, base, 1);
	if (owner < PF_IDRANGE_SIZE) {
		add_extent(list, 1, base + 1, owner - 1);
		add_extent(list, owner + 1, base + owner + 1, PF_IDRANGE_SIZE - owner - 1);
	} else {
		add_extent(list, 1, base + 1, PF_IDRANGE_SIZE - 1);
	}
	return list;
}

/* A place of the host's that can be written. What root makes inside belongs to the directory's owner outside,
 * never to the machine's root: a file of his, with the set-user-id bit, would be the way out. Only where the
 * directory is root's own is root inside root outside; pf_bundle_warnings tells of that. */
static void add_writable_bind(
	cJSON *mounts, const struct pf_bundle_params *p, const struct pf_config_mount *c)
{
	bool runs_as_root = !p->config->user.text || p->config->user.uid == 0;
	struct stat st = {0};

	add_bind(mounts, c->target, c->source, false);
	cJSON *m = cJSON_GetArrayItem(mounts, cJSON_GetArraySize(mounts) - 1);
	if (stat(c->source, &st) < 0 || (st.st_uid == 0 && runs_as_root))
		return;
	uint32_t uid = runs_as_root ? st.st_uid : 0, gid = uid && st.st_gid ? st.st_gid : uid;
	cJSON_AddItemToObject(m, "uidMappings", writable_map(uid, p->id_base));
	cJSON_AddItemToObject(m, "gidMappings", writable_map(gid, p->id_base));
}

char *pf_bundle_mount_warning(const struct pf_config *config)
{
	struct stat st;

	for (size_t i = 0; i < config->filesystem.n_mounts; i++) {
		const struct pf_config_mount *m = &config->filesystem.mounts[i];
		if (!m->read_only && (!config->user.text || config->user.uid == 0) &&
			stat(m->source, &st) == 0 && st.st_uid == 0)
			return pf_asprintf(
				"filesystem.mounts: %s is writable and root's, so what the sandbox's root "
				"writes there is the machine's root's: give the directory to an ordinary "
				"user, or the sandbox a user",
				m->source);
	}
	return NULL;
}

static const char *const etc_files[] = {"resolv.conf", "hosts", "hostname"};

/* Paths of the box with a rule of their own, the shallow ones first so that deeper ones nest in them. */
struct path_rule {
	const char *path;
	bool read_only;
};

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct path_rule *)a)->path, ((const struct path_rule *)b)->path);
}

static void add_path_rules(cJSON *mounts, const struct pf_config_filesystem *fs)
{
	size_t nw = pf_strv_len(fs->writable_paths), nr = pf_strv_len(fs->read_only_paths), n = 0;
	struct path_rule *rules = pf_calloc(nw + nr, sizeof(*rules));

	for (size_t i = 0; i < nw; i++)
		rules[n++] = (struct path_rule){fs->writable_paths[i], false};
	for (size_t i = 0; i < nr; i++)
		rules[n++] = (struct path_rule){fs->read_only_paths[i], true};
	qsort(rules, n, sizeof(*rules), by_path);
	for (size_t i = 0; i < n; i++) {
		const char *options[] = {"x-pinfold.self", rules[i].read_only ? "ro" : "rw", NULL};
		/* /tmp is a writable file system of its own already. */
		if (fs->tmp_size >= 0 && !rules[i].read_only && pf_path_below(rules[i].path, "/tmp"))
			continue;
		add_mount(mounts, rules[i].path, "none", "none", options);
	}
	free(rules);
}

static cJSON *make_mounts(const struct pf_bundle_params *p)
{
	const struct pf_config_filesystem *fs = &p->config->filesystem;
	cJSON *m = cJSON_CreateArray();

	for (size_t i = 0; i < p->image->n_binds; i++)
		add_bind(m, p->image->binds[i].target, p->image->binds[i].source,
			p->image->binds[i].read_only);
	add_mount(m, "/proc", "proc", "proc", (const char *[]){"nosuid", "noexec", "nodev", NULL});
	add_mount(m, "/dev", "tmpfs", "tmpfs",
		(const char *[]){"nosuid", "noexec", "mode=755", "size=65536k", NULL});
	add_mount(m, "/dev/pts", "devpts", "devpts",
		(const char *[]){"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "max=1024",
			"gid=5", NULL});
	add_mount(m, "/dev/shm", "tmpfs", "shm",
		(const char *[]){"nosuid", "noexec", "nodev", "mode=1777", "size=" SHM_SIZE, NULL});
	add_mount(m, "/dev/mqueue", "mqueue", "mqueue", (const char *[]){"nosuid", "noexec", "nodev", NULL});
	add_mount(m, "/sys", "sysfs", "sysfs", (const char *[]){"nosuid", "noexec", "nodev", "ro", NULL});
	add_mount(m, "/sys/fs/cgroup", "cgroup2", "cgroup",
		(const char *[]){"nosuid", "noexec", "nodev", "ro", NULL});
	for (size_t i = 0; i < sizeof(etc_files) / sizeof(etc_files[0]); i++) {
		char *dest = pf_asprintf("/etc/%s", etc_files[i]),
		     *src = pf_asprintf("%s/%s", p->files_dir, etc_files[i]);
		/* Read-only: they lie on the host's disk, where filesystem.size does not reach. */
		add_bind(m, dest, src, true);
		free(dest);
		free(src);
	}
	for (char *const *t = p->ca_targets; t && *t; t++) {
		PF_FREE char *src = pf_asprintf("%s/" PF_TRUST_FILE, p->files_dir);
		add_bind(m, *t, src, true);
	}
	if (fs->tmp_size >= 0) {
		char *size = pf_asprintf("size=%lld", (long long)fs->tmp_size);
		add_mount(m, "/tmp", "tmpfs", "tmpfs",
			(const char *[]){"nosuid", "nodev", "mode=1777", size, NULL});
		free(size);
	}
	add_path_rules(m, fs);
	for (size_t i = 0; i < fs->n_mounts; i++)
		if (fs->mounts[i].read_only)
			add_bind(m, fs->mounts[i].target, fs->mounts[i].source, true);
		else
			add_writable_bind(m, p, &fs->mounts[i]);
	return m;
}

static cJSON *make_process(const struct pf_bundle_params *p)
{
	cJSON *process = cJSON_CreateObject(), *user = cJSON_AddObjectToObject(process, "user"), *caps,
	      *limits;
	char **env = pf_bundle_env(p->config, p->image);
	struct rlimit nofile;

	cJSON_AddNumberToObject(user, "uid", 0);
	cJSON_AddNumberToObject(user, "gid", 0);
	cJSON_AddItemToObject(process, "args", strings((const char *const *)p->config->command));
	cJSON_AddItemToObject(process, "env", strings((const char *const *)env));
	pf_strv_free(env);
	cJSON_AddStringToObject(process, "cwd", pf_bundle_cwd(p->config, p->image));
	cJSON_AddTrueToObject(process, "noNewPrivileges");
	caps = cJSON_AddObjectToObject(process, "capabilities");
	cJSON_AddItemToObject(caps, "bounding", pf_spec_cap_names(PF_CAPS_SESSION_ROOT));
	cJSON_AddItemToObject(caps, "effective", pf_spec_cap_names(PF_CAPS_SESSION_ROOT));
	cJSON_AddItemToObject(caps, "permitted", pf_spec_cap_names(PF_CAPS_SESSION_ROOT));
	cJSON_AddItemToObject(caps, "inheritable", pf_spec_cap_names(0));
	cJSON_AddItemToObject(caps, "ambient", pf_spec_cap_names(0));
	limits = cJSON_AddArrayToObject(process, "rlimits");
	pf_spec_add_rlimit(limits, "RLIMIT_CORE", pf_rlimit_no_core(), pf_rlimit_no_core());
	/* As much as builds and servers want, never more than we may hand on. */
	if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
		rlim_t hard = nofile.rlim_max < 1048576 ? nofile.rlim_max : 1048576;
		pf_spec_add_rlimit(limits, "RLIMIT_NOFILE", hard < 65536 ? hard : 65536, hard);
	}
	return process;
}

static void add_map(cJSON *linux_, const char *key, uint32_t base)
{
	cJSON *a = cJSON_AddArrayToObject(linux_, key), *m = cJSON_CreateObject();

	cJSON_AddNumberToObject(m, "containerID", 0);
	cJSON_AddNumberToObject(m, "hostID", base);
	cJSON_AddNumberToObject(m, "size", PF_IDRANGE_SIZE);
	cJSON_AddItemToArray(a, m);
}

/* The whole disk below path: limits are kept per disk, not per partition. */
static int find_disk(const char *path, unsigned *major_, unsigned *minor_, struct pf_err *err)
{
	struct stat st;
	char link[PATH_MAX], *text = NULL;

	if (stat(path, &st) < 0)
		return pf_fail(err, errno, "%s", path);
	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u/partition", major(st.st_dev), minor(st.st_dev));
	snprintf(link, sizeof(link), "/sys/dev/block/%u:%u/%sdev", major(st.st_dev), minor(st.st_dev),
		access(link, F_OK) == 0 ? "../" : "");
	struct pf_err e = PF_ERR_INIT;
	int r = pf_read_pseudo_at(AT_FDCWD, link, 64, &text, &e);
	if (r == 0 && sscanf(text, "%u:%u", major_, minor_) != 2)
		r = -1;
	free(text);
	if (r < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"resources.io: %s is not on a disk of its own (device %u:%u), so input and output to "
			"it cannot be limited",
			path, major(st.st_dev), minor(st.st_dev));
	return 0;
}

static int add_io(cJSON *res, const struct pf_config_resources *r, const char *store, struct pf_err *err)
{
	const struct {
		const char *key;
		int64_t rate;
	} limits[] = {{"throttleReadBpsDevice", r->read_bps}, {"throttleWriteBpsDevice", r->write_bps},
		{"throttleReadIOPSDevice", r->read_iops}, {"throttleWriteIOPSDevice", r->write_iops}};
	cJSON *io = NULL;
	unsigned ma = 0, mi = 0;

	for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		if (limits[i].rate < 0)
			continue;
		if (!io && find_disk(store, &ma, &mi, err) < 0)
			return -1;
		if (!io)
			io = cJSON_AddObjectToObject(res, "blockIO");
		cJSON *d = cJSON_CreateObject();
		cJSON_AddNumberToObject(d, "major", ma);
		cJSON_AddNumberToObject(d, "minor", mi);
		cJSON_AddNumberToObject(d, "rate", (double)limits[i].rate);
		cJSON_AddItemToArray(cJSON_AddArrayToObject(io, limits[i].key), d);
	}
	return 0;
}

static cJSON *make_resources(const struct pf_config_resources *r)
{
	cJSON *res = cJSON_CreateObject(), *cpu = cJSON_CreateObject(), *mem = cJSON_CreateObject();

	if (r->memory >= 0) {
		cJSON_AddNumberToObject(mem, "limit", (double)(r->memory));
		/* OCI counts swap together with memory. */
		cJSON_AddNumberToObject(
			mem, "swap", (double)(r->memory + (r->memory_swap > 0 ? r->memory_swap : 0)));
	}
	cJSON_AddItemToObject(res, "memory", mem);
	if (r->millicpus >= 0) {
		cJSON_AddNumberToObject(cpu, "quota", (double)(r->millicpus * 100));
		cJSON_AddNumberToObject(cpu, "period", 100000);
	}
	if (r->cpuset)
		cJSON_AddStringToObject(cpu, "cpus", r->cpuset);
	cJSON_AddItemToObject(res, "cpu", cpu);
	if (r->pids >= 0)
		cJSON_AddNumberToObject(cJSON_AddObjectToObject(res, "pids"), "limit", (double)r->pids);
	if (r->cpu_weight >= 0)
		cJSON_AddNumberToObject(cpu, "shares", (double)pf_cpu_weight_to_shares(r->cpu_weight));
	return res;
}

cJSON *pf_bundle_make(const struct pf_bundle_params *p, struct pf_err *err)
{
	static const char *const namespaces[] = {"user", "pid", "mount", "ipc", "uts", "cgroup", "network"};
	/* What the kernel shows of the whole machine, and the levers in it. */
	static const char *const masked[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/scsi", "/proc/interrupts", "/proc/kallsyms", "/proc/kpagecount", "/proc/kpageflags",
		"/sys/firmware", "/sys/devices/virtual/powercap", NULL};
	static const char *const read_only[] = {
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL};
	cJSON *j, *root, *linux_, *ns, *resources = make_resources(&p->config->resources);
	char hostname[64];

	if (add_io(resources, &p->config->resources, p->store, err) < 0) {
		cJSON_Delete(resources);
		return NULL;
	}
	j = cJSON_CreateObject();
	cJSON_AddStringToObject(j, "ociVersion", "1.2.0");
	cJSON_AddItemToObject(j, "process", make_process(p));
	root = cJSON_AddObjectToObject(j, "root");
	/* The workspace is stacked on the image's layers when the sandbox starts; there is no directory to
	 * name. */
	cJSON_AddStringToObject(root, "path", "rootfs");
	cJSON_AddBoolToObject(root, "readonly", p->config->filesystem.access != PF_ACCESS_FULL);
	cJSON_AddStringToObject(j, "hostname", pf_bundle_hostname(p->config, p->id, hostname));
	cJSON_AddItemToObject(j, "mounts", make_mounts(p));
	linux_ = cJSON_AddObjectToObject(j, "linux");
	ns = cJSON_AddArrayToObject(linux_, "namespaces");
	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		cJSON *n = cJSON_CreateObject();
		cJSON_AddStringToObject(n, "type", namespaces[i]);
		cJSON_AddItemToArray(ns, n);
	}
	add_map(linux_, "uidMappings", p->id_base);
	add_map(linux_, "gidMappings", p->id_base);
	cJSON_AddStringToObject(linux_, "cgroupsPath", p->cgroup);
	cJSON_AddItemToObject(linux_, "resources", resources);
	cJSON_AddItemToObject(linux_, "maskedPaths", strings(masked));
	cJSON_AddItemToObject(linux_, "readonlyPaths", strings(read_only));
	return j;
}

/* Later entries win; the order of first appearance stays. */
static void set_env(char **env, size_t *n, const char *entry)
{
	size_t name = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < *n; i++)
		if (strncmp(env[i], entry, name) == 0) {
			free(env[i]);
			env[i] = pf_strdup(entry);
			return;
		}
	env[(*n)++] = pf_strdup(entry);
}

char **pf_bundle_env(const struct pf_config *config, const struct pf_image *image)
{
	size_t n = 0;
	char **env = pf_calloc(pf_strv_len(image->env) + pf_strv_len(config->env) + 3, sizeof(*env));

	set_env(env, &n, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
	set_env(env, &n, "LANG=C.UTF-8");
	for (char *const *e = image->env; e && *e; e++)
		set_env(env, &n, *e);
	for (char *const *e = config->env; e && *e; e++)
		set_env(env, &n, *e);
	return env;
}

const char *pf_bundle_cwd(const struct pf_config *config, const struct pf_image *image)
{
	if (config->workdir)
		return config->workdir;
	return image->workdir ? image->workdir : "/workspace";
}

const char *pf_bundle_hostname(const struct pf_config *config, const char *id, char *buf)
{
	size_t n = 0;

	if (config->hostname)
		return config->hostname;
	for (const char *p = id; *p && n < 63; p++)
		buf[n++] = isalnum((unsigned char)*p) ? (char)tolower((unsigned char)*p) : '-';
	buf[n] = '\0';
	return buf;
}

int pf_bundle_write_files(int dirfd, const char *hostname, const char *nameserver, struct pf_err *err)
{
	char *text[] = {
		pf_asprintf("nameserver %s\noptions timeout:5 attempts:2\n", nameserver),
		pf_asprintf("127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname),
		pf_asprintf("%s\n", hostname),
	};
	int r = 0;

	for (size_t i = 0; i < 3; i++) {
		if (r == 0)
			r = pf_new_file_at(dirfd, etc_files[i], text[i], strlen(text[i]), 0644, err);
		free(text[i]);
	}
	return r;
}
