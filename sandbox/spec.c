#include "sandbox/spec.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/sys.h"
#include "base/units.h"

static int invalid(struct pf_err *err, const char *where, const char *text)
{
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: %s", where, text);
}

static int parse_user(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	const cJSON *user = NULL, *gids = NULL, *g;
	int64_t v;

	if (pf_json_obj(process, "process", "user", &user, err) < 0)
		return -1;
	if (!user)
		return 0;
	v = 0;
	if (pf_json_int(user, "process.user", "uid", 0, 4294967294LL, &v, err) < 0)
		return -1;
	p->uid = (uint32_t)v;
	v = 0;
	if (pf_json_int(user, "process.user", "gid", 0, 4294967294LL, &v, err) < 0)
		return -1;
	p->gid = (uint32_t)v;
	int r = pf_json_int(user, "process.user", "umask", 0, 0777, &v, err);
	if (r < 0)
		return -1;
	p->has_umask = r > 0;
	p->umask = r > 0 ? (uint32_t)v : 022;
	if (pf_json_arr(user, "process.user", "additionalGids", &gids, err) < 0)
		return -1;
	p->groups = pf_calloc((size_t)cJSON_GetArraySize(gids), sizeof(*p->groups));
	cJSON_ArrayForEach(g, gids)
	{
		if (!cJSON_IsNumber(g) || g->valuedouble < 0 || g->valuedouble > 4294967294.0)
			return invalid(err, "process.user.additionalGids", "must be group ids");
		p->groups[p->n_groups++] = (uint32_t)g->valuedouble;
	}
	return 0;
}

static int parse_caps(const cJSON *process, struct pf_caps *caps, struct pf_err *err)
{
	const struct {
		const char *key;
		uint64_t *set;
	} sets[] = {{"bounding", &caps->bounding}, {"effective", &caps->effective},
		{"permitted", &caps->permitted}, {"inheritable", &caps->inheritable},
		{"ambient", &caps->ambient}};
	const cJSON *obj = NULL;

	if (pf_json_obj(process, "process", "capabilities", &obj, err) < 0)
		return -1;
	for (size_t i = 0; obj && i < sizeof(sets) / sizeof(sets[0]); i++) {
		char **names = NULL;
		if (pf_json_strv(obj, "process.capabilities", sets[i].key, &names, err) < 0)
			return -1;
		int r = names ? pf_caps_parse((const char *const *)names, sets[i].set, err) : 0;
		pf_strv_free(names);
		if (r < 0)
			return pf_wrap(err, "process.capabilities.%s", sets[i].key);
	}
	return 0;
}

static int parse_rlimits(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	const cJSON *arr = NULL, *r;

	if (pf_json_arr(process, "process", "rlimits", &arr, err) < 0)
		return -1;
	p->rlimits = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(*p->rlimits));
	cJSON_ArrayForEach(r, arr)
	{
		const char *type = NULL;
		int64_t soft = -1, hard = -1;
		struct pf_rlimit *out = &p->rlimits[p->n_rlimits];

		if (!cJSON_IsObject(r) || pf_json_str(r, "process.rlimits", "type", &type, err) < 0 || !type)
			return invalid(err, "process.rlimits", "each needs type, soft and hard");
		if (pf_json_int(r, "process.rlimits", "soft", 0, INT64_MAX, &soft, err) <= 0 ||
			pf_json_int(r, "process.rlimits", "hard", 0, INT64_MAX, &hard, err) <= 0)
			return *err->msg ? -1 : invalid(err, type, "needs soft and hard");
		out->resource = pf_rlimit_parse(type, err);
		if (out->resource < 0)
			return -1;
		for (size_t i = 0; i < p->n_rlimits; i++)
			if (p->rlimits[i].resource == out->resource)
				return invalid(err, type, "is given twice in process.rlimits");
		/* RLIM_INFINITY is 2^64-1, which a double rounds up and pf_json_int saturates. */
		out->soft = soft == INT64_MAX ? UINT64_MAX : (uint64_t)soft;
		out->hard = hard == INT64_MAX ? UINT64_MAX : (uint64_t)hard;
		p->n_rlimits++;
	}
	return 0;
}

int pf_process_parse(const cJSON *object, const char *where, struct pf_process *p, struct pf_err *err)
{
	const char *cwd = NULL;
	int64_t v;

	if (pf_json_bool(object, where, "terminal", &p->terminal, err) < 0 ||
		pf_json_strv(object, where, "args", &p->args, err) < 0 ||
		pf_json_strv(object, where, "env", &p->env, err) < 0 ||
		pf_json_str(object, where, "cwd", &cwd, err) < 0 ||
		pf_json_bool(object, where, "noNewPrivileges", &p->no_new_privileges, err) < 0)
		return -1;
	if (!cwd || cwd[0] != '/')
		return invalid(err, "process.cwd", "must be an absolute path");
	p->cwd = pf_strdup(cwd);
	int r = pf_json_int(object, where, "oomScoreAdj", -1000, 1000, &v, err);
	if (r < 0)
		return -1;
	if (r > 0) {
		p->has_oom_score_adj = true;
		p->oom_score_adj = (int)v;
	}
	if (parse_user(object, p, err) < 0 || parse_caps(object, &p->caps, err) < 0 ||
		parse_rlimits(object, p, err) < 0)
		return -1;
	return 0;
}

void pf_process_done(struct pf_process *p)
{
	free(p->groups);
	pf_strv_free(p->args);
	pf_strv_free(p->env);
	free(p->cwd);
	free(p->rlimits);
	*p = (struct pf_process){0};
}

/* Mount options that are attributes of the mount (mount_setattr(2)). An option in the middle column clears
 * what it names, which is the state that a new mount starts in, so that only the last one of a pair counts.
 */
static const struct {
	const char *name;
	uint64_t set, clear;
} attr_options[] = {
	{"ro", MOUNT_ATTR_RDONLY, 0},
	{"rw", 0, MOUNT_ATTR_RDONLY},
	{"nosuid", MOUNT_ATTR_NOSUID, 0},
	{"suid", 0, MOUNT_ATTR_NOSUID},
	{"nodev", MOUNT_ATTR_NODEV, 0},
	{"dev", 0, MOUNT_ATTR_NODEV},
	{"noexec", MOUNT_ATTR_NOEXEC, 0},
	{"exec", 0, MOUNT_ATTR_NOEXEC},
	{"noatime", MOUNT_ATTR_NOATIME, 0},
	{"relatime", 0, 0},
	{"strictatime", MOUNT_ATTR_STRICTATIME, 0},
	{"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
	{"diratime", 0, MOUNT_ATTR_NODIRATIME},
	{"nosymfollow", MOUNT_ATTR_NOSYMFOLLOW, 0},
	{"defaults", 0, 0},
};

static const struct {
	const char *name;
	unsigned long flag;
} propagation_options[] = {
	{"private", MS_PRIVATE},
	{"rprivate", MS_PRIVATE | MS_REC},
	{"slave", MS_SLAVE},
	{"rslave", MS_SLAVE | MS_REC},
	{"shared", MS_SHARED},
	{"rshared", MS_SHARED | MS_REC},
	{"unbindable", MS_UNBINDABLE},
	{"runbindable", MS_UNBINDABLE | MS_REC},
};

static bool attr_option(struct pf_mount *m, const char *o)
{
	for (size_t i = 0; i < sizeof(attr_options) / sizeof(attr_options[0]); i++)
		if (strcmp(o, attr_options[i].name) == 0) {
			m->attr_set = (m->attr_set & ~attr_options[i].clear) | attr_options[i].set;
			return true;
		}
	for (size_t i = 0; i < sizeof(propagation_options) / sizeof(propagation_options[0]); i++)
		if (strcmp(o, propagation_options[i].name) == 0) {
			m->propagation = propagation_options[i].flag;
			return true;
		}
	return false;
}

static int parse_mount(const cJSON *j, struct pf_mount *m, struct pf_err *err)
{
	const char *dest = NULL, *type = NULL, *source = NULL;
	char **options = NULL;
	size_t n_data = 0;
	bool bind = false, self = false;

	if (!cJSON_IsObject(j))
		return invalid(err, "mounts", "each must be an object");
	if (pf_json_str(j, "mounts", "destination", &dest, err) < 0 ||
		pf_json_str(j, "mounts", "type", &type, err) < 0 ||
		pf_json_str(j, "mounts", "source", &source, err) < 0)
		return -1;
	if (!dest)
		return invalid(err, "mounts", "each needs a destination");
	m->destination = pf_path_clean(dest, err);
	if (!m->destination)
		return pf_wrap(err, "mounts");
	if (pf_json_strv(j, "mounts", "options", &options, err) < 0)
		return -1;
	m->data = pf_calloc(pf_strv_len(options) + 1, sizeof(*m->data));
	for (char **o = options; o && *o; o++) {
		if (strcmp(*o, "bind") == 0) {
			bind = true;
		} else if (strcmp(*o, "rbind") == 0) {
			bind = m->recursive = true;
		} else if (strcmp(*o, "x-pinfold.self") == 0) {
			self = true;
		} else if (strcmp(*o, "idmap") == 0 || strcmp(*o, "ridmap") == 0) {
			m->idmap = true;
		} else if (!attr_option(m, *o)) {
			m->data[n_data++] = pf_strdup(*o);
		}
	}
	pf_strv_free(options);
	m->type = pf_strdup(type ? type : bind ? "bind" : "none");
	m->source = pf_strdup(source ? source : m->type);
	if (self) {
		m->kind = PF_MOUNT_SELF;
	} else if (bind || strcmp(m->type, "bind") == 0) {
		m->kind = PF_MOUNT_BIND;
		if (!source || source[0] != '/')
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "mounts: %s: a bind needs an absolute source", dest);
		if (n_data)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"mounts: %s: option '%s' is not one for a bind", dest, m->data[0]);
	} else if (strcmp(m->type, "sysfs") == 0 || strcmp(m->destination, "/dev") == 0) {
		m->kind = PF_MOUNT_HOST;
	} else {
		m->kind = PF_MOUNT_FS;
	}
	return 0;
}

static int parse_maps(
	const cJSON *linux_, const char *key, struct pf_id_map **out, size_t *n, struct pf_err *err)
{
	const cJSON *arr = NULL, *m;

	if (pf_json_arr(linux_, "linux", key, &arr, err) < 0)
		return -1;
	*out = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(**out));
	cJSON_ArrayForEach(m, arr)
	{
		int64_t c = 0, h = 0, s = 0;
		if (!cJSON_IsObject(m) || pf_json_int(m, key, "containerID", 0, 4294967294LL, &c, err) < 0 ||
			pf_json_int(m, key, "hostID", 0, 4294967294LL, &h, err) < 0 ||
			pf_json_int(m, key, "size", 1, 4294967295LL, &s, err) <= 0)
			return *err->msg ? -1 : invalid(err, key, "needs containerID, hostID and size");
		(*out)[(*n)++] = (struct pf_id_map){
			.container = (uint32_t)c, .host = (uint32_t)h, .size = (uint32_t)s};
	}
	return 0;
}

static int parse_namespaces(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	static const struct {
		const char *name;
		uint64_t flag;
	} kinds[] = {{"pid", CLONE_NEWPID}, {"network", CLONE_NEWNET}, {"mount", CLONE_NEWNS},
		{"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"user", CLONE_NEWUSER},
		{"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME}};
	const cJSON *arr = NULL, *n;

	if (pf_json_arr(linux_, "linux", "namespaces", &arr, err) < 0)
		return -1;
	cJSON_ArrayForEach(n, arr)
	{
		const char *type = NULL, *path = NULL;
		size_t i = 0, count = sizeof(kinds) / sizeof(kinds[0]);
		if (!cJSON_IsObject(n) || pf_json_str(n, "linux.namespaces", "type", &type, err) < 0 ||
			!type || pf_json_str(n, "linux.namespaces", "path", &path, err) < 0)
			return invalid(err, "linux.namespaces", "each needs a type");
		while (i < count && strcmp(kinds[i].name, type) != 0)
			i++;
		if (i == count)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "linux.namespaces: unknown type '%s'", type);
		if (path)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"linux.namespaces: joining %s by path is not supported yet", path);
		if (spec->clone_flags & kinds[i].flag)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "linux.namespaces: '%s' is given twice", type);
		spec->clone_flags |= kinds[i].flag;
	}
	return 0;
}

static int parse_linux(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err)
{
	const char *cgroups_path = NULL;

	if (parse_namespaces(linux_, spec, err) < 0 ||
		parse_maps(linux_, "uidMappings", &spec->uid_maps, &spec->n_uid_maps, err) < 0 ||
		parse_maps(linux_, "gidMappings", &spec->gid_maps, &spec->n_gid_maps, err) < 0 ||
		pf_json_str(linux_, "linux", "cgroupsPath", &cgroups_path, err) < 0 ||
		pf_json_obj(linux_, "linux", "resources", &spec->resources, err) < 0 ||
		pf_json_obj(linux_, "linux", "seccomp", &spec->seccomp, err) < 0 ||
		pf_json_strv(linux_, "linux", "maskedPaths", &spec->masked_paths, err) < 0 ||
		pf_json_strv(linux_, "linux", "readonlyPaths", &spec->readonly_paths, err) < 0)
		return -1;
	if (cgroups_path)
		spec->cgroups_path = pf_strdup(cgroups_path);
	if ((spec->clone_flags & CLONE_NEWUSER) && (spec->n_uid_maps == 0 || spec->n_gid_maps == 0))
		return invalid(err, "linux.namespaces", "a user namespace needs uidMappings and gidMappings");
	if (!(spec->clone_flags & CLONE_NEWNS))
		return invalid(err, "linux.namespaces", "a mount namespace is required");
	return 0;
}

int pf_spec_parse(cJSON *document, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *process = NULL, *root = NULL, *mounts = NULL, *linux_ = NULL, *m;
	const char *hostname = NULL, *domainname = NULL, *path = NULL;

	*spec = (struct pf_spec){.document = document};
	if (!cJSON_IsObject(document)) {
		invalid(err, "config.json", "must be an object");
		goto fail;
	}
	if (pf_json_obj(document, "", "process", &process, err) < 0 ||
		pf_json_obj(document, "", "root", &root, err) < 0 ||
		pf_json_arr(document, "", "mounts", &mounts, err) < 0 ||
		pf_json_obj(document, "", "linux", &linux_, err) < 0 ||
		pf_json_str(document, "", "hostname", &hostname, err) < 0 ||
		pf_json_str(document, "", "domainname", &domainname, err) < 0)
		goto fail;
	if (!process || !linux_) {
		invalid(err, "config.json", "needs process and linux");
		goto fail;
	}
	if (pf_process_parse(process, "process", &spec->process, err) < 0)
		goto fail;
	if (root && (pf_json_str(root, "root", "path", &path, err) < 0 ||
			    pf_json_bool(root, "root", "readonly", &spec->root_readonly, err) < 0))
		goto fail;
	if (path)
		spec->root_path = pf_strdup(path);
	if (hostname)
		spec->hostname = pf_strdup(hostname);
	if (domainname)
		spec->domainname = pf_strdup(domainname);
	spec->mounts = pf_calloc((size_t)cJSON_GetArraySize(mounts), sizeof(*spec->mounts));
	cJSON_ArrayForEach(m, mounts)
	{
		/* Counted first: what a failing parse allocated is freed with the rest. */
		if (parse_mount(m, &spec->mounts[spec->n_mounts++], err) < 0)
			goto fail;
	}
	if (parse_linux(linux_, spec, err) < 0)
		goto fail;
	return 0;
fail:
	pf_spec_done(spec);
	return -1;
}

void pf_spec_done(struct pf_spec *spec)
{
	pf_process_done(&spec->process);
	free(spec->root_path);
	free(spec->hostname);
	free(spec->domainname);
	for (size_t i = 0; i < spec->n_mounts; i++) {
		struct pf_mount *m = &spec->mounts[i];
		free(m->destination);
		free(m->type);
		free(m->source);
		pf_strv_free(m->data);
	}
	free(spec->mounts);
	free(spec->uid_maps);
	free(spec->gid_maps);
	free(spec->cgroups_path);
	pf_strv_free(spec->masked_paths);
	pf_strv_free(spec->readonly_paths);
	cJSON_Delete(spec->document);
	*spec = (struct pf_spec){0};
}
