/* Theory of operation
 *
 * What may be written is decided by depth: filesystem.access is the rule for "/", every path in
 * writable_paths, read_only_paths or mounts is a rule for itself and all below it, and the deepest rule that
 * covers a file counts. So a writable directory below a read-only one works, and the other way round. Two
 * rules for one path would need an order between them; they are refused instead. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "base/str.h"
#include "overlay/workspace.h"
#include "session/config_read.h"

#define MIN_TMP_SIZE ((int64_t)1 << 20)
#define MAX_MOUNTS 256

static const char *const access_names[] = {
	[PF_ACCESS_FULL] = "full", [PF_ACCESS_READ_ONLY] = "read_only", [PF_ACCESS_TEMP_ONLY] = "temp_only"};
#define N_ACCESS (sizeof(access_names) / sizeof(access_names[0]))

const char *pf_config_access_name(enum pf_config_access a)
{
	return access_names[a];
}

/* Where the kernel's own file systems are: nothing there is the workspace's to give or to take. */
static const char *kernel_owned(const char *path)
{
	static const char *const trees[] = {"/proc", "/sys", "/dev"};

	for (size_t i = 0; i < sizeof(trees) / sizeof(trees[0]); i++)
		if (pf_path_below(path, trees[i]))
			return trees[i];
	return NULL;
}

static int check_listed(const struct pf_cfg_at *at, char *const *paths, struct pf_err *err)
{
	for (; *paths; paths++) {
		const char *tree = kernel_owned(*paths);
		if (strcmp(*paths, "/") == 0)
			return pf_cfg_bad(at, err, "'/' is not for this list: set filesystem.access");
		if (tree)
			return pf_cfg_bad(
				at, err, "'%s' is in %s, which is always the sandbox's own", *paths, tree);
	}
	return 0;
}

static bool listed(char *const *paths, const char *path)
{
	for (; *paths; paths++)
		if (strcmp(*paths, path) == 0)
			return true;
	return false;
}

static int read_mount(const struct pf_cfg_at *at, const cJSON *node, size_t i,
	struct pf_config_filesystem *fs, struct pf_err *err)
{
	static const char *const keys[] = {"source", "target", "read_only", NULL};
	struct pf_config_mount *m = &fs->mounts[i];
	char where[64];

	snprintf(where, sizeof(where), "filesystem.mounts[%zu]", i);
	if (!cJSON_IsObject(node))
		return pf_cfg_bad(at, err, "must be an array of objects {source, target, read_only}");
	if (pf_json_known(node, where, keys, err) < 0)
		return -1;
	const struct pf_cfg_at source = pf_cfg_in(node, where, "source");
	const struct pf_cfg_at target = pf_cfg_in(node, where, "target");
	m->read_only = true;
	if (pf_cfg_one_path(&source, &m->source, err) < 0 || pf_cfg_one_path(&target, &m->target, err) < 0 ||
		pf_json_bool(node, where, "read_only", &m->read_only, err) < 0)
		return -1;
	if (!m->source)
		return pf_cfg_bad(&source, err, "is missing");
	if (!m->target)
		return pf_cfg_bad(&target, err, "is missing");
	if (strcmp(m->target, "/") == 0 || kernel_owned(m->target))
		return pf_cfg_bad(&target, err, "'%s' cannot be mounted over", m->target);
	for (size_t j = 0; j < i; j++)
		if (strcmp(fs->mounts[j].target, m->target) == 0)
			return pf_cfg_bad(&target, err, "'%s' is also the target of filesystem.mounts[%zu]",
				m->target, j);
	if (listed(fs->writable_paths, m->target) || listed(fs->read_only_paths, m->target))
		return pf_cfg_bad(&target, err,
			"'%s' is also listed in %s: a mount says it with its own read_only", m->target,
			listed(fs->writable_paths, m->target) ? "writable_paths" : "read_only_paths");
	return 0;
}

static int read_mounts(const cJSON *doc, struct pf_config_filesystem *fs, struct pf_err *err)
{
	struct pf_cfg_at at = pf_cfg_at(doc, "filesystem", "mounts");

	if (!at.node)
		return 0;
	if (!cJSON_IsArray(at.node))
		return pf_cfg_bad(&at, err, "must be an array of objects {source, target, read_only}");
	size_t n = (size_t)cJSON_GetArraySize(at.node);
	if (n > MAX_MOUNTS)
		return pf_cfg_bad(&at, err, "more than %d mounts", MAX_MOUNTS);
	fs->mounts = pf_calloc(n, sizeof(*fs->mounts));
	fs->n_mounts = n;
	const cJSON *node = at.node->child;
	for (size_t i = 0; i < n; i++, node = node->next)
		if (read_mount(&at, node, i, fs, err) < 0)
			return -1;
	return 0;
}

static int read_access(
	const struct pf_cfg_at *at, struct pf_config_filesystem *fs, bool has_writable, struct pf_err *err)
{
	if (!at->node) {
		/* A list of what is writable means that the rest is not. */
		fs->access = has_writable ? PF_ACCESS_READ_ONLY : PF_ACCESS_FULL;
		return 0;
	}
	const char *s = cJSON_IsString(at->node) ? at->node->valuestring : "";
	for (size_t i = 0; i < N_ACCESS; i++)
		if (strcmp(s, access_names[i]) == 0) {
			fs->access = (enum pf_config_access)i;
			return 0;
		}
	return pf_cfg_bad(at, err, "must be \"full\", \"read_only\" or \"temp_only\"");
}

static bool mounted_at(const struct pf_config_filesystem *fs, const char *path)
{
	for (size_t i = 0; i < fs->n_mounts; i++)
		if (strcmp(fs->mounts[i].target, path) == 0)
			return true;
	return false;
}

/* /tmp is a tmpfs, unless a rule or a mount names it or what is not named is read-only; as a tmpfs it has to
 * be writable. */
static int settle_tmp(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_config_filesystem *fs = &c->filesystem;
	struct pf_cfg_at at = pf_cfg_at(doc, "filesystem", "tmp_size");
	bool temp = fs->access == PF_ACCESS_TEMP_ONLY;

	if (pf_cfg_size(&at, MIN_TMP_SIZE, &fs->tmp_size, err) < 0)
		return -1;
	if (temp && (listed(fs->read_only_paths, "/tmp") || mounted_at(fs, "/tmp")))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"filesystem: access \"temp_only\" makes /tmp the one writable place, and /tmp is "
			"listed as %s",
			mounted_at(fs, "/tmp") ? "a mount" : "read-only");
	if (temp && fs->tmp_size < 0)
		fs->tmp_size = fs->size > 0 ? fs->size : PF_CONFIG_DEFAULT_TMP;
	if (fs->access == PF_ACCESS_FULL && fs->tmp_size < 0 && !listed(fs->writable_paths, "/tmp") &&
		!listed(fs->read_only_paths, "/tmp") && !mounted_at(fs, "/tmp"))
		fs->tmp_size = PF_CONFIG_DEFAULT_TMP;
	if (fs->tmp_size >= 0 && mounted_at(fs, "/tmp"))
		return pf_cfg_bad(&at, err, "/tmp is also the target of a mount");
	if (fs->tmp_size >= 0 && !pf_config_writable(fs, "/tmp"))
		return pf_cfg_bad(&at, err, "/tmp is read-only here: list it in writable_paths");
	return 0;
}

int pf_cfg_filesystem(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_config_filesystem *fs = &c->filesystem;
	struct pf_cfg_at access, size, writable, read_only;

	if (pf_cfg_find(doc, PF_SET_ACCESS, &access, err) < 0 ||
		pf_cfg_find(doc, PF_SET_SIZE, &size, err) < 0 ||
		pf_cfg_find(doc, PF_SET_WRITABLE, &writable, err) < 0 ||
		pf_cfg_find(doc, PF_SET_READ_ONLY, &read_only, err) < 0)
		return -1;
	if (pf_cfg_size(&size, PF_WORKSPACE_MIN_SIZE, &fs->size, err) < 0 ||
		pf_cfg_paths(&writable, &fs->writable_paths, err) < 0 ||
		pf_cfg_paths(&read_only, &fs->read_only_paths, err) < 0 ||
		check_listed(&writable, fs->writable_paths, err) < 0 ||
		check_listed(&read_only, fs->read_only_paths, err) < 0)
		return -1;
	if (fs->size > PF_WORKSPACE_MAX_SIZE)
		return pf_cfg_bad(&size, err, "must be at most 8T");
	for (char **p = fs->writable_paths; *p; p++)
		if (listed(fs->read_only_paths, *p))
			return pf_cfg_bad(&read_only, err, "'%s' is listed in writable_paths too", *p);
	if (read_access(&access, fs, writable.node != NULL, err) < 0 || read_mounts(doc, fs, err) < 0)
		return -1;
	return settle_tmp(doc, c, err);
}

/* Whether rule covers path and lies at least as deep as the best one so far. */
static bool deeper(const char *rule, const char *path, size_t *best)
{
	size_t len = strlen(rule);

	if (!pf_path_below(path, rule) || len < *best)
		return false;
	*best = len;
	return true;
}

bool pf_config_writable(const struct pf_config_filesystem *fs, const char *path)
{
	bool writable = fs->access == PF_ACCESS_FULL;
	size_t best = 0;

	if (fs->access == PF_ACCESS_TEMP_ONLY && deeper("/tmp", path, &best))
		writable = true;
	for (char **p = fs->writable_paths; *p; p++)
		if (deeper(*p, path, &best))
			writable = true;
	for (char **p = fs->read_only_paths; *p; p++)
		if (deeper(*p, path, &best))
			writable = false;
	for (size_t i = 0; i < fs->n_mounts; i++)
		if (deeper(fs->mounts[i].target, path, &best))
			writable = !fs->mounts[i].read_only;
	return writable;
}
