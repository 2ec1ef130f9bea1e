/* Theory of operation
 *
 * The same setting may stand in several places of a sandbox file, because the platforms that write such files
 * each have their own. Rather than translate one document into another first (which would make every error
 * message speak of keys the reader never wrote), a reader asks for a *setting* and is told where in this
 * document it stands; the value readers then take it from there and name that very place when it is wrong.
 *
 * The table of objects is the whole grammar of keys. It is checked before anything is read, so that a key
 * with a typing error is refused even where its value would never have been looked at. */
#include "session/config_read.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/path.h"
#include "base/str.h"
#include "base/units.h"

#define PATH_LIMIT 4095
#define SIZE_LIMIT ((int64_t)1 << 50) /* 1 PiB: exact as a double, and beyond any machine meant here */
#define DURATION_LIMIT_S (3650.0 * 86400)

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

#define NETWORKING_KEYS                                                                             \
	KEYS("type", "allowed_hosts", "denied_hosts", "allowed_cidrs", "allow_private", "resolver", \
		"allow_package_managers", "allow_mcp_servers", "explain_denied", "upstream_ca")
#define PACKAGES_KEYS KEYS("apt", "cargo", "gem", "go", "npm", "pip", "type")

static const struct object {
	const char *where;
	const char *const *keys;
} objects[] = {
	{"", KEYS("name", "image", "runtime", "strict_runtime", "command", "env", "workdir", "user",
		     "hostname", "resources", "filesystem", "networking", "packages", "credentials", "limits",
		     "checkpoint", "labels",
		     /* enterprise */ "cpu_limit", "memory_limit", "timeout_seconds", "network_whitelist",
		     "filesystem_access",
		     /* SDK */ "sandbox", "tools",
		     /* environment */ "config")},
	{"resources", KEYS("cpus", "cpu_weight", "cpuset", "memory", "memory_swap", "pids", "io")},
	{"resources.io", KEYS("read_bps", "write_bps", "read_iops", "write_iops")},
	{"filesystem", KEYS("access", "size", "tmp_size", "writable_paths", "read_only_paths", "mounts")},
	{"networking", NETWORKING_KEYS},
	{"packages", PACKAGES_KEYS},
	{"limits", KEYS("max_runtime", "idle", "exec_timeout")},
	{"checkpoint", KEYS("on", "every", "keep", "exclude", "pre", "post")},
	{"sandbox", KEYS("allowed_domains", "filesystem", "max_runtime_seconds", "max_memory_mb")},
	{"sandbox.filesystem", KEYS("max_size_mb", "writable_paths", "read_only_paths")},
	{"config", KEYS("type", "networking", "packages")},
	{"config.networking", NETWORKING_KEYS},
	{"config.packages", PACKAGES_KEYS},
};
#define N_OBJECTS (sizeof(objects) / sizeof(objects[0]))

/* What an environment carries besides its config when it was fetched rather than written. */
static const char *const environment_keys[] = {
	"id", "type", "description", "metadata", "scope", "archived_at", "created_at", "updated_at", NULL};

static const struct spelling {
	const char *where, *key;
	enum pf_cfg_unit unit;
} spellings[][4] = {
	[PF_SET_CPUS] = {{"resources", "cpus", PF_UNIT_ANY}, {"", "cpu_limit", PF_UNIT_ANY}},
	[PF_SET_MEMORY] = {{"resources", "memory", PF_UNIT_ANY}, {"", "memory_limit", PF_UNIT_ANY},
		{"sandbox", "max_memory_mb", PF_UNIT_MB}},
	[PF_SET_MAX_RUNTIME] = {{"limits", "max_runtime", PF_UNIT_ANY},
		{"sandbox", "max_runtime_seconds", PF_UNIT_SECONDS}},
	[PF_SET_EXEC_TIMEOUT] = {{"limits", "exec_timeout", PF_UNIT_ANY},
		{"", "timeout_seconds", PF_UNIT_SECONDS}},
	[PF_SET_SIZE] = {{"filesystem", "size", PF_UNIT_ANY},
		{"sandbox.filesystem", "max_size_mb", PF_UNIT_MB}},
	[PF_SET_WRITABLE] = {{"filesystem", "writable_paths", PF_UNIT_ANY},
		{"sandbox.filesystem", "writable_paths", PF_UNIT_ANY}},
	[PF_SET_READ_ONLY] = {{"filesystem", "read_only_paths", PF_UNIT_ANY},
		{"sandbox.filesystem", "read_only_paths", PF_UNIT_ANY}},
	[PF_SET_ACCESS] = {{"filesystem", "access", PF_UNIT_ANY}, {"", "filesystem_access", PF_UNIT_ANY}},
	[PF_SET_PACKAGES] = {{"", "packages", PF_UNIT_ANY}, {"config", "packages", PF_UNIT_ANY}},
	[PF_SET_NETWORKING] = {{"", "networking", PF_UNIT_ANY}, {"config", "networking", PF_UNIT_ANY},
		{"", "network_whitelist", PF_UNIT_HOSTS}, {"sandbox", "allowed_domains", PF_UNIT_HOSTS}},
};
#define MAX_SPELLINGS (sizeof(spellings[0]) / sizeof(spellings[0][0]))

const cJSON *pf_cfg_object(const cJSON *doc, const char *where)
{
	const cJSON *obj = doc;

	while (obj && *where) {
		char part[32];
		size_t len = strcspn(where, ".");
		snprintf(part, sizeof(part), "%.*s", (int)len, where);
		obj = cJSON_GetObjectItemCaseSensitive(obj, part);
		where += len + (where[len] == '.');
	}
	return cJSON_IsNull(obj) ? NULL : obj;
}

struct pf_cfg_at pf_cfg_at(const cJSON *doc, const char *where, const char *key)
{
	return pf_cfg_in(pf_cfg_object(doc, where), where, key);
}

struct pf_cfg_at pf_cfg_in(const cJSON *obj, const char *where, const char *key)
{
	struct pf_cfg_at at = {.obj = obj, .where = where, .key = key};

	if (obj)
		at.node = cJSON_GetObjectItemCaseSensitive(obj, key);
	if (cJSON_IsNull(at.node))
		at.node = NULL;
	return at;
}

const char *pf_cfg_path(const struct pf_cfg_at *at, char buf[PF_CFG_PATH_MAX])
{
	snprintf(buf, PF_CFG_PATH_MAX, "%s%s%s", at->where, *at->where ? "." : "", at->key);
	return buf;
}

int pf_cfg_find(const cJSON *doc, enum pf_cfg_setting setting, struct pf_cfg_at *out, struct pf_err *err)
{
	char first[PF_CFG_PATH_MAX], second[PF_CFG_PATH_MAX];
	struct pf_cfg_at found = {.node = NULL};

	for (size_t i = 0; i < MAX_SPELLINGS && spellings[setting][i].key; i++) {
		const struct spelling *s = &spellings[setting][i];
		struct pf_cfg_at at = pf_cfg_at(doc, s->where, s->key);
		at.unit = s->unit;
		if (!at.node)
			continue;
		if (found.node)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"'%s' and '%s' are two spellings of one setting: give one of them",
				pf_cfg_path(&found, first), pf_cfg_path(&at, second));
		found = at;
	}
	*out = found;
	return 0;
}

/* "memory" at the top of a document belongs into "resources": say so. NULL when no object knows the key. */
static const char *home_of(const char *key)
{
	for (size_t i = 1; i < N_OBJECTS; i++)
		for (const char *const *k = objects[i].keys; *k; k++)
			if (strcmp(*k, key) == 0)
				return objects[i].where;
	return NULL;
}

static int check_keys(const struct object *o, const cJSON *obj, bool fetched, struct pf_err *err)
{
	for (const cJSON *c = obj->child; c; c = c->next) {
		const char *const *k = o->keys;
		while (*k && strcmp(*k, c->string) != 0)
			k++;
		if (*k)
			continue;
		if (fetched && !*o->where) {
			for (k = environment_keys; *k && strcmp(*k, c->string) != 0;)
				k++;
			if (*k)
				continue;
		}
		const char *home = pf_nearest(c->string, o->keys) ? NULL : home_of(c->string);
		if (home)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"unknown key '%s%s%.100s': did you mean '%s.%.100s'?", o->where,
				*o->where ? "." : "", c->string, home, c->string);
		return pf_json_unknown(o->where, c->string, o->keys, err);
	}
	return 0;
}

int pf_cfg_check_shape(const cJSON *doc, struct pf_err *err)
{
	if (!cJSON_IsObject(doc))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "a sandbox file must be one JSON object");
	bool fetched = cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(doc, "config"));
	for (size_t i = 0; i < N_OBJECTS; i++) {
		const cJSON *obj = pf_cfg_object(doc, objects[i].where);
		if (!obj)
			continue;
		if (!cJSON_IsObject(obj))
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: must be an object", objects[i].where);
		if (check_keys(&objects[i], obj, fetched, err) < 0)
			return -1;
	}
	return 0;
}

int pf_cfg_bad(const struct pf_cfg_at *at, struct pf_err *err, const char *fmt, ...)
{
	char path[PF_CFG_PATH_MAX], text[600];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: %s", pf_cfg_path(at, path), text);
}

int pf_cfg_int(const struct pf_cfg_at *at, int64_t min, int64_t max, int64_t *out, struct pf_err *err)
{
	if (!at->node)
		return 0;
	return pf_json_int(at->obj, at->where, at->key, min, max, out, err) < 0 ? -1 : 0;
}

int pf_cfg_bool(const struct pf_cfg_at *at, bool *out, struct pf_err *err)
{
	if (!at->node)
		return 0;
	return pf_json_bool(at->obj, at->where, at->key, out, err) < 0 ? -1 : 0;
}

int pf_cfg_size(const struct pf_cfg_at *at, int64_t min, int64_t *out, struct pf_err *err)
{
	char path[PF_CFG_PATH_MAX];
	int64_t v;

	if (!at->node)
		return 0;
	if (at->unit == PF_UNIT_MB) {
		if (pf_cfg_int(at, 1, SIZE_LIMIT >> 20, &v, err) < 0)
			return -1;
		v <<= 20;
	} else if (cJSON_IsString(at->node)) {
		const char *s = at->node->valuestring;
		if (min == 0 && strcmp(s, "0") == 0)
			v = 0;
		else if (pf_parse_size(pf_cfg_path(at, path), s, &v, err) < 0)
			return -1;
	} else if (cJSON_IsNumber(at->node)) {
		if (pf_cfg_int(at, min > 0, SIZE_LIMIT, &v, err) < 0)
			return -1;
	} else {
		return pf_cfg_bad(at, err, "must be a size (as in \"512M\") or a number of bytes");
	}
	if (v < min || v > SIZE_LIMIT) {
		bool mib = min >= 1 << 20 && min % (1 << 20) == 0;
		return pf_cfg_bad(at, err, "must be from %lld%s to 1024T", (long long)(mib ? min >> 20 : min),
			mib ? "M" : " bytes");
	}
	*out = v;
	return 0;
}

int pf_cfg_duration(const struct pf_cfg_at *at, int64_t *ms, struct pf_err *err)
{
	char path[PF_CFG_PATH_MAX];

	if (!at->node)
		return 0;
	if (cJSON_IsNumber(at->node)) {
		double s = at->node->valuedouble;
		if (!(s >= 0.001 && s <= DURATION_LIMIT_S))
			return pf_cfg_bad(at, err, "must be seconds, from 0.001 to ten years");
		*ms = (int64_t)(s * 1000 + 0.5);
		return 0;
	}
	if (at->unit == PF_UNIT_SECONDS || !cJSON_IsString(at->node))
		return pf_cfg_bad(at, err,
			at->unit == PF_UNIT_SECONDS ? "must be a number of seconds"
						    : "must be a duration (as in \"5m\") or seconds");
	return pf_parse_duration(pf_cfg_path(at, path), at->node->valuestring, ms, err);
}

int pf_cfg_cpus(const struct pf_cfg_at *at, int64_t *millicpus, struct pf_err *err)
{
	char path[PF_CFG_PATH_MAX];

	if (!at->node)
		return 0;
	if (cJSON_IsNumber(at->node)) {
		double v = at->node->valuedouble;
		if (!(v >= 0.01 && v <= 4096))
			return pf_cfg_bad(at, err, "must be a cpu count from 0.01 to 4096");
		*millicpus = (int64_t)(v * 1000 + 0.5);
		return 0;
	}
	if (!cJSON_IsString(at->node))
		return pf_cfg_bad(at, err, "must be a cpu count (as in \"0.5\" or 2)");
	return pf_parse_cpus(pf_cfg_path(at, path), at->node->valuestring, millicpus, err);
}

static bool printable(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return false;
	return true;
}

int pf_cfg_text(const struct pf_cfg_at *at, size_t max, char **out, struct pf_err *err)
{
	const char *s = NULL;

	if (!at->node)
		return 0;
	if (pf_json_str(at->obj, at->where, at->key, &s, err) < 0)
		return -1;
	if (!*s || strlen(s) > max || !printable(s))
		return pf_cfg_bad(at, err, "must hold 1 to %zu bytes and no control characters", max);
	free(*out);
	*out = pf_strdup(s);
	return 0;
}

static char *clean(const struct pf_cfg_at *at, const char *s, struct pf_err *err)
{
	char path[PF_CFG_PATH_MAX];

	if (strlen(s) > PATH_LIMIT || !printable(s)) {
		pf_cfg_bad(at, err, "'%.64s' is not a path (at most %d bytes, no control characters)", s,
			PATH_LIMIT);
		return NULL;
	}
	char *p = pf_path_clean(s, err);
	if (!p)
		pf_wrap(err, "%s", pf_cfg_path(at, path));
	return p;
}

int pf_cfg_one_path(const struct pf_cfg_at *at, char **out, struct pf_err *err)
{
	const char *s = NULL;

	if (!at->node)
		return 0;
	if (pf_json_str(at->obj, at->where, at->key, &s, err) < 0)
		return -1;
	char *p = clean(at, s, err);
	if (!p)
		return -1;
	free(*out);
	*out = p;
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int pf_cfg_paths(const struct pf_cfg_at *at, char ***out, struct pf_err *err)
{
	char **list = NULL;

	if (pf_cfg_strings(at, &list, err) < 0)
		return -1;
	if (!list)
		return 0;
	size_t n = pf_strv_len(list);
	for (size_t i = 0; i < n; i++) {
		char *p = clean(at, list[i], err);
		if (!p) {
			pf_strv_free(list);
			return -1;
		}
		free(list[i]);
		list[i] = p;
	}
	qsort(list, n, sizeof(*list), by_text);
	for (size_t i = 1; i < n; i++)
		if (strcmp(list[i - 1], list[i]) == 0) {
			pf_cfg_bad(at, err, "'%s' is listed twice", list[i]);
			pf_strv_free(list);
			return -1;
		}
	pf_strv_free(*out);
	*out = list;
	return 0;
}

int pf_cfg_strings(const struct pf_cfg_at *at, char ***out, struct pf_err *err)
{
	char **list = NULL;

	if (!at->node)
		return 0;
	if (pf_json_strv(at->obj, at->where, at->key, &list, err) < 0)
		return -1;
	pf_strv_free(*out);
	*out = list;
	return 0;
}

char **pf_cfg_empty_list(void)
{
	return pf_calloc(1, sizeof(char *));
}

void pf_cfg_append(char ***list, const char *fmt, ...)
{
	size_t n = pf_strv_len(*list);
	char **more = pf_calloc(n + 2, sizeof(*more)), *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		abort();
	va_end(ap);
	for (size_t i = 0; i < n; i++)
		more[i] = (*list)[i];
	more[n] = text;
	free(*list);
	*list = more;
}
