/* linux of config.json. */
#include <ctype.h>
#include <errno.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/spec_internal.h"
#include "sandbox/sysctl.h"

#ifndef MPOL_PREFERRED_MANY
#define MPOL_PREFERRED_MANY 5
#endif
#ifndef MPOL_WEIGHTED_INTERLEAVE
#define MPOL_WEIGHTED_INTERLEAVE 6
#endif
#ifndef MPOL_F_NUMA_BALANCING
#define MPOL_F_NUMA_BALANCING (1 << 13)
#endif
#define RDTGROUP_MAGIC 0x7655821

static const struct pf_spec_word ns_words[] = {{"pid", CLONE_NEWPID}, {"network", CLONE_NEWNET},
	{"mount", CLONE_NEWNS}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"user", CLONE_NEWUSER},
	{"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}, {NULL, 0}};

int pf_spec_maps(const cJSON *obj, const char *where, const char *key, struct pf_id_map **out, size_t *n,
	struct pf_err *err)
{
	const cJSON *arr = NULL, *m;
	char at[64];

	if (pf_json_arr(obj, where, key, &arr, err) < 0)
		return -1;
	snprintf(at, sizeof(at), "%s.%s", where, key);
	*out = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(**out));
	cJSON_ArrayForEach(m, arr)
	{
		int64_t c = 0, h = 0, s = 0;
		if (!cJSON_IsObject(m))
			return pf_spec_invalid(err, at, "needs containerID, hostID and size");
		if (pf_json_int(m, at, "containerID", 0, 4294967294LL, &c, err) < 0 ||
			pf_json_int(m, at, "hostID", 0, 4294967294LL, &h, err) < 0)
			return -1;
		int r = pf_json_int(m, at, "size", 1, 4294967295LL, &s, err);
		if (r <= 0)
			return r < 0 ? -1 : pf_spec_invalid(err, at, "needs containerID, hostID and size");
		(*out)[(*n)++] = (struct pf_id_map){
			.container = (uint32_t)c, .host = (uint32_t)h, .size = (uint32_t)s};
	}
	return 0;
}

static int parse_namespaces(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *arr = NULL, *n;

	if (pf_json_arr(linux_, "linux", "namespaces", &arr, err) < 0)
		return -1;
	spec->joins = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(*spec->joins));
	cJSON_ArrayForEach(n, arr)
	{
		const char *type = NULL, *path = NULL;
		uint64_t flag = 0;
		if (!cJSON_IsObject(n))
			return pf_spec_invalid(err, "linux.namespaces", "each needs a type");
		if (pf_json_str(n, "linux.namespaces", "type", &type, err) < 0 ||
			pf_json_str(n, "linux.namespaces", "path", &path, err) < 0)
			return -1;
		if (!type)
			return pf_spec_invalid(err, "linux.namespaces", "each needs a type");
		if (pf_spec_word(ns_words, "linux.namespaces", type, &flag, err) < 0)
			return -1;
		if (pf_spec_own_ns(spec, flag))
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "linux.namespaces: '%s' is given twice", type);
		if (!path || !*path) {
			spec->clone_flags |= flag;
			continue;
		}
		if (path[0] != '/')
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.namespaces: the path of '%s' must be absolute", type);
		if (flag == CLONE_NEWNS)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"linux.namespaces: joining a mount namespace (%s) is not supported, since "
				"the "
				"container's root is made in one of its own (remedy: leave the path out)",
				path);
		spec->joins[spec->n_joins++] = (struct pf_ns_join){.flag = flag, .path = pf_strdup(path)};
	}
	return 0;
}

static int parse_time_offsets(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *obj = NULL, *c;
	PF_BUF struct pf_buf b = {0};

	if (pf_json_obj(linux_, "linux", "timeOffsets", &obj, err) < 0)
		return -1;
	for (c = obj ? obj->child : NULL; c; c = c->next) {
		int64_t secs = 0, nanos = 0;
		if (strcmp(c->string, "monotonic") != 0 && strcmp(c->string, "boottime") != 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.timeOffsets: clock '%.40s' has no offset (monotonic and boottime "
				"have)",
				c->string);
		if (!cJSON_IsObject(c))
			return pf_spec_invalid(err, "linux.timeOffsets", "each must be an object");
		if (pf_json_int(c, "linux.timeOffsets", "secs", -(INT64_C(1) << 53), INT64_C(1) << 53, &secs,
			    err) < 0 ||
			pf_json_int(c, "linux.timeOffsets", "nanosecs", 0, 999999999, &nanos, err) < 0)
			return -1;
		pf_buf_printf(&b, "%s %lld %lld\n", c->string, (long long)secs, (long long)nanos);
	}
	if (b.len == 0)
		return 0;
	if (!(spec->clone_flags & CLONE_NEWTIME))
		return pf_spec_invalid(err, "linux.timeOffsets", "needs a new time namespace");
	spec->time_offsets = pf_take(b.data);
	return 0;
}

static int parse_device(const cJSON *j, const char *where, struct pf_device *d, struct pf_err *err)
{
	const char *type = NULL, *path = NULL;
	int64_t major = -1, minor = -1, mode = 0666, uid = 0, gid = 0;

	if (!cJSON_IsObject(j))
		return pf_spec_invalid(err, where, "must be an object");
	if (pf_json_str(j, where, "type", &type, err) < 0 || pf_json_str(j, where, "path", &path, err) < 0 ||
		pf_json_int(j, where, "major", 0, 4095, &major, err) < 0 ||
		pf_json_int(j, where, "minor", 0, 1048575, &minor, err) < 0 ||
		pf_json_int(j, where, "fileMode", 0, 0177777, &mode, err) < 0 ||
		pf_json_int(j, where, "uid", 0, 4294967294LL, &uid, err) < 0 ||
		pf_json_int(j, where, "gid", 0, 4294967294LL, &gid, err) < 0)
		return -1;
	if (!type || strlen(type) != 1 || !strchr("cubp", *type))
		return pf_spec_invalid(err, where, "type must be c, u, b or p");
	if (!path || path[0] != '/')
		return pf_spec_invalid(err, where, "path must be absolute");
	if (*type != 'p' && (major < 0 || minor < 0))
		return pf_spec_invalid(err, where, "needs major and minor");
	d->path = pf_path_clean(path, err);
	if (!d->path)
		return pf_wrap(err, "%s", where);
	d->type = *type == 'p' ? S_IFIFO : *type == 'b' ? S_IFBLK : S_IFCHR;
	d->major = *type == 'p' ? 0 : (uint32_t)major;
	d->minor = *type == 'p' ? 0 : (uint32_t)minor;
	d->mode = (mode_t)mode & 07777;
	d->uid = (uint32_t)uid;
	d->gid = (uint32_t)gid;
	return 0;
}

static int parse_devices(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *arr = NULL, *j;

	if (pf_json_arr(linux_, "linux", "devices", &arr, err) < 0)
		return -1;
	spec->devices = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(*spec->devices));
	cJSON_ArrayForEach(j, arr)
	{
		char where[40];
		snprintf(where, sizeof(where), "linux.devices[%zu]", spec->n_devices);
		if (parse_device(j, where, &spec->devices[spec->n_devices++], err) < 0)
			return -1;
	}
	return 0;
}

static int parse_sysctls(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *obj = NULL, *c;

	if (pf_json_obj(linux_, "linux", "sysctl", &obj, err) < 0)
		return -1;
	spec->sysctls = pf_calloc((size_t)cJSON_GetArraySize(obj), sizeof(*spec->sysctls));
	for (c = obj ? obj->child : NULL; c; c = c->next) {
		struct pf_sysctl *s = &spec->sysctls[spec->n_sysctls++];
		if (!cJSON_IsString(c))
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "linux.sysctl: '%.100s' must be a string", c->string);
		s->file = pf_sysctl_check(c->string, c->valuestring, spec, err);
		if (!s->file)
			return -1;
		s->value = pf_strdup(c->valuestring);
	}
	return 0;
}

static int parse_personality(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	static const struct pf_spec_word domains[] = {
		{"LINUX", PER_LINUX}, {"LINUX32", PER_LINUX32}, {NULL, 0}};
	const cJSON *obj = NULL, *flags = NULL;
	const char *domain = NULL;
	uint64_t v = 0;

	if (pf_json_obj(linux_, "linux", "personality", &obj, err) < 0)
		return -1;
	if (!obj)
		return 0;
	if (pf_json_str(obj, "linux.personality", "domain", &domain, err) < 0 ||
		pf_json_arr(obj, "linux.personality", "flags", &flags, err) < 0)
		return -1;
	if (!domain)
		return pf_spec_invalid(err, "linux.personality", "needs a domain");
	if (pf_spec_word(domains, "linux.personality.domain", domain, &v, err) < 0)
		return -1;
	if (cJSON_GetArraySize(flags) > 0)
		return pf_spec_invalid(err, "linux.personality.flags", "the specification has none yet");
	spec->has_personality = true;
	spec->personality = (unsigned long)v;
	return 0;
}

static int parse_mempolicy(const cJSON *linux_, struct pf_mempolicy *p, struct pf_err *err)
{
	static const struct pf_spec_word modes[] = {{"MPOL_DEFAULT", MPOL_DEFAULT}, {"MPOL_BIND", MPOL_BIND},
		{"MPOL_INTERLEAVE", MPOL_INTERLEAVE}, {"MPOL_WEIGHTED_INTERLEAVE", MPOL_WEIGHTED_INTERLEAVE},
		{"MPOL_PREFERRED", MPOL_PREFERRED}, {"MPOL_PREFERRED_MANY", MPOL_PREFERRED_MANY},
		{"MPOL_LOCAL", MPOL_LOCAL}, {NULL, 0}};
	static const struct pf_spec_word flags[] = {{"MPOL_F_NUMA_BALANCING", MPOL_F_NUMA_BALANCING},
		{"MPOL_F_RELATIVE_NODES", MPOL_F_RELATIVE_NODES},
		{"MPOL_F_STATIC_NODES", MPOL_F_STATIC_NODES}, {NULL, 0}};
	static const char where[] = "linux.memoryPolicy";
	const char *mode = NULL, *nodes = NULL;
	const cJSON *obj = NULL;
	uint64_t m = 0, f = 0;

	if (pf_json_obj(linux_, "linux", "memoryPolicy", &obj, err) < 0)
		return -1;
	if (!obj)
		return 0;
	if (pf_json_str(obj, where, "mode", &mode, err) < 0 ||
		pf_json_str(obj, where, "nodes", &nodes, err) < 0 ||
		pf_spec_flags(obj, where, "flags", flags, &f, err) < 0)
		return -1;
	if (!mode)
		return pf_spec_invalid(err, where, "needs a mode");
	if (pf_spec_word(modes, "linux.memoryPolicy.mode", mode, &m, err) < 0)
		return -1;
	if (nodes && *nodes && pf_spec_cpu_list("linux.memoryPolicy.nodes", nodes, p->nodes, 16, err) < 0)
		return -1;
	p->set = true;
	p->mode = (int)(m | f);
	return 0;
}

/* Of the kernel's rules those that concern text; "%d" in a name is for it to replace by a number. */
static bool is_device_name(const char *s, bool template)
{
	size_t n = strlen(s);
	const char *percent = strchr(s, '%');

	if (percent && (!template || percent[1] != 'd' || strchr(percent + 1, '%')))
		return false;

	if (n == 0 || n > 15 || strcmp(s, ".") == 0 || strcmp(s, "..") == 0)
		return false;
	for (; *s; s++)
		if (*s == '/' || *s == ':' || (unsigned char)*s <= ' ' || *s == 0x7f)
			return false;
	return true;
}

static int parse_netdevs(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *obj = NULL, *c;

	if (pf_json_obj(linux_, "linux", "netDevices", &obj, err) < 0)
		return -1;
	spec->netdevs = pf_calloc((size_t)cJSON_GetArraySize(obj), sizeof(*spec->netdevs));
	for (c = obj ? obj->child : NULL; c; c = c->next) {
		struct pf_netdev *d = &spec->netdevs[spec->n_netdevs];
		const char *name = c->string;
		if (!cJSON_IsObject(c))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.netDevices.%.40s: must be an object", c->string);
		if (pf_json_str(c, "linux.netDevices", "name", &name, err) < 0)
			return -1;
		if (!*name)
			name = c->string;
		if (!is_device_name(c->string, false) || !is_device_name(name, true))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.netDevices: '%.40s' is no name of a network device",
				is_device_name(c->string, false) ? name : c->string);
		for (size_t i = 0; i < spec->n_netdevs; i++)
			if (strcmp(spec->netdevs[i].name, name) == 0 && !strchr(name, '%'))
				return pf_fail_kind(err, PF_ERR_INVALID, 0,
					"linux.netDevices: two devices would be %s in the container", name);
		d->device = pf_strdup(c->string);
		snprintf(d->name, sizeof(d->name), "%s", name);
		spec->n_netdevs++;
	}
	if (spec->n_netdevs > 0 && !pf_spec_own_ns(spec, CLONE_NEWNET))
		return pf_spec_invalid(
			err, "linux.netDevices", "needs a network namespace in linux.namespaces");
	return 0;
}

/* What is known and cannot be done here. */
static int refuse(const cJSON *linux_, struct pf_err *err)
{
	const cJSON *rdt = NULL;
	struct statfs fs;

	if (pf_json_obj(linux_, "linux", "intelRdt", &rdt, err) < 0)
		return -1;
	if (rdt && (statfs("/sys/fs/resctrl", &fs) < 0 || fs.f_type != RDTGROUP_MAGIC))
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"linux.intelRdt: no resctrl file system is mounted at /sys/fs/resctrl (remedy: leave "
			"it "
			"out)");
	if (rdt)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"linux.intelRdt: is not supported (remedy: leave it out)");
	return 0;
}

static int parse_propagation(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const char *word = NULL;

	if (pf_json_str(linux_, "linux", "rootfsPropagation", &word, err) < 0)
		return -1;
	if (!word || !*word)
		return 0;
	spec->rootfs_propagation = pf_spec_propagation(word);
	if (!spec->rootfs_propagation)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"linux.rootfsPropagation: '%.40s' is none of shared, slave, private, unbindable, or "
			"these "
			"with an r before",
			word);
	return 0;
}

/* Paths that are compared with the mounts' as text: absolute, in one spelling, without "..". */
static int clean_paths(char **paths, const char *where, struct pf_err *err)
{
	for (; paths && *paths; paths++) {
		if (**paths != '/')
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: '%.100s' is no absolute path", where, *paths);
		char *clean = pf_path_clean(*paths, err);
		if (!clean)
			return pf_wrap(err, "%s", where);
		free(*paths);
		*paths = clean;
	}
	return 0;
}

int pf_spec_linux(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const char *cgroups_path = NULL, *label = NULL;

	if (parse_namespaces(linux_, spec, err) < 0 ||
		pf_spec_maps(linux_, "linux", "uidMappings", &spec->uid_maps, &spec->n_uid_maps, err) < 0 ||
		pf_spec_maps(linux_, "linux", "gidMappings", &spec->gid_maps, &spec->n_gid_maps, err) < 0 ||
		pf_json_str(linux_, "linux", "cgroupsPath", &cgroups_path, err) < 0 ||
		pf_json_obj(linux_, "linux", "resources", &spec->resources, err) < 0 ||
		pf_json_obj(linux_, "linux", "seccomp", &spec->seccomp, err) < 0 ||
		pf_json_strv(linux_, "linux", "maskedPaths", &spec->masked_paths, err) < 0 ||
		pf_json_strv(linux_, "linux", "readonlyPaths", &spec->readonly_paths, err) < 0 ||
		clean_paths(spec->masked_paths, "linux.maskedPaths", err) < 0 ||
		clean_paths(spec->readonly_paths, "linux.readonlyPaths", err) < 0 ||
		pf_json_str(linux_, "linux", "mountLabel", &label, err) < 0)
		return -1;
	if (cgroups_path && *cgroups_path)
		spec->cgroups_path = pf_strdup(cgroups_path);
	if (label && *label)
		spec->mount_label = pf_strdup(label);
	if (parse_time_offsets(linux_, spec, err) < 0 || parse_devices(linux_, spec, err) < 0 ||
		parse_sysctls(linux_, spec, err) < 0 || parse_propagation(linux_, spec, err) < 0 ||
		parse_personality(linux_, spec, err) < 0 ||
		parse_mempolicy(linux_, &spec->mempolicy, err) < 0 || parse_netdevs(linux_, spec, err) < 0 ||
		refuse(linux_, err) < 0)
		return -1;
	if ((spec->clone_flags & CLONE_NEWUSER) && (spec->n_uid_maps == 0 || spec->n_gid_maps == 0))
		return pf_spec_invalid(
			err, "linux.namespaces", "a user namespace needs uidMappings and gidMappings");
	if (!pf_spec_own_ns(spec, CLONE_NEWUSER) && (spec->n_uid_maps || spec->n_gid_maps))
		return pf_spec_invalid(err, "linux.uidMappings",
			"and gidMappings need a user namespace in linux.namespaces");
	if (!(spec->clone_flags & CLONE_NEWNS))
		return pf_spec_invalid(err, "linux.namespaces", "a mount namespace is required");
	return 0;
}

void pf_spec_linux_done(struct pf_spec *spec)
{
	for (size_t i = 0; i < spec->n_joins; i++)
		free(spec->joins[i].path);
	free(spec->joins);
	free(spec->time_offsets);
	for (size_t i = 0; i < spec->n_devices; i++)
		free(spec->devices[i].path);
	free(spec->devices);
	for (size_t i = 0; i < spec->n_sysctls; i++) {
		free(spec->sysctls[i].file);
		free(spec->sysctls[i].value);
	}
	free(spec->sysctls);
	for (size_t i = 0; i < spec->n_netdevs; i++)
		free(spec->netdevs[i].device);
	free(spec->netdevs);
	free(spec->uid_maps);
	free(spec->gid_maps);
	free(spec->cgroups_path);
	free(spec->mount_label);
	pf_strv_free(spec->masked_paths);
	pf_strv_free(spec->readonly_paths);
}
