#include "jail/config.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "base/units.h"
#include "jail/keep.h"
#include "jail/run.h"
#include "netpolicy/entry.h"

static int who(struct pf_jail *j, const cJSON *doc, uid_t caller, gid_t group, struct pf_err *err)
{
	const char *home = getenv("HOME"), *user = NULL;
	const struct passwd *pw;

	if (pf_json_str(doc, "", "user", &user, err) < 0)
		return -1;
	j->uid = caller;
	j->gid = group;
	if (user) {
		j->gid = (uint32_t)-1;
		if (pf_parse_user_ids("user", user, &j->uid, &j->gid, err) < 0)
			return -1;
		if (j->gid == (uint32_t)-1)
			j->gid = j->uid;
	}
	pw = getpwuid(caller);
	if (!home || home[0] != '/')
		home = pw && pw->pw_dir && pw->pw_dir[0] == '/' ? pw->pw_dir : "/home/user";
	j->user_name = pf_strdup(j->uid == 0 ? "root" : pw && j->uid == pw->pw_uid ? pw->pw_name : "user");
	/* As it really is, since rules are: a home behind a link would be another place. */
	PF_FREE char *real = realpath(home, NULL);
	j->home = real ? pf_take(real) : pf_path_clean(home, err);
	if (!j->home)
		return pf_wrap(err, "HOME");
	if (strcmp(j->home, "/") == 0) {
		free(j->home);
		j->home = pf_strdup("/home/user");
	}
	j->hostname = pf_strdup("pinfold-jail");
	return 0;
}

static int where(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	const char *cwd = NULL;
	char real[PATH_MAX];

	if (pf_json_str(doc, "", "cwd", &cwd, err) < 0)
		return -1;
	if (cwd) {
		PF_FREE char *place = NULL;
		PF_CLOSE int fd = pf_jail_open_path("--cwd", cwd, &place, err);
		if (fd < 0)
			return -1;
		if (fchdir(fd) < 0)
			return pf_fail_kind(err, PF_ERR_INVALID, errno, "--cwd %s", cwd);
	}
	if (!getcwd(real, sizeof(real)) || real[0] != '/')
		return pf_fail_kind(err, PF_ERR_INVALID, errno, "the working directory");
	j->cwd = pf_strdup(real);
	return 0;
}

static int apply_rule(struct pf_jail *j, const char *kind, const char *path, int64_t size, struct pf_err *err)
{
	if (strcmp(kind, "rw") == 0 || strcmp(kind, "rw_try") == 0)
		return pf_jail_show(j, "--rw", path, false, kind[2] != '\0', err);
	if (strcmp(kind, "ro") == 0 || strcmp(kind, "ro_try") == 0)
		return pf_jail_show(j, "--ro", path, true, kind[2] != '\0', err);
	return kind[0] == 'h' ? pf_jail_hide(j, "--hide", path, err)
			      : pf_jail_tmpfs(j, "--tmpfs", path, size, err);
}

static int apply_rules(struct pf_jail *j, const cJSON *doc, int64_t size, struct pf_err *err)
{
	static const char *const kinds[] = {"rw", "ro", "rw_try", "ro_try", "hide", "tmpfs", NULL};
	const cJSON *list = NULL, *item;

	if (pf_json_arr(doc, "", "files", &list, err) < 0)
		return -1;
	cJSON_ArrayForEach(item, list)
	{
		const cJSON *rule = item->child;
		if (!cJSON_IsObject(item) || !rule || rule->next || !cJSON_IsString(rule))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"files: each is an object {\"rw\": PATH} or the like");
		if (pf_json_known(item, "files", kinds, err) < 0 ||
			apply_rule(j, rule->string, rule->valuestring, size, err) < 0)
			return -1;
	}
	return 0;
}

static int add_allowed(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	char **allow = NULL;
	int r = pf_json_strv(doc, "", "allow", &allow, err);

	if (r <= 0 || !allow || !allow[0]) {
		pf_strv_free(allow);
		return r < 0 ? -1 : 0;
	}
	if (!j->networking)
		j->networking = cJSON_CreateObject();
	cJSON *type = cJSON_GetObjectItemCaseSensitive(j->networking, "type");
	if (!type || (cJSON_IsString(type) && strcmp(type->valuestring, "none") == 0)) {
		cJSON_DeleteItemFromObjectCaseSensitive(j->networking, "type");
		cJSON_AddStringToObject(j->networking, "type", "limited");
	}
	cJSON *hosts = cJSON_GetObjectItemCaseSensitive(j->networking, "allowed_hosts");
	if (!hosts)
		hosts = cJSON_AddArrayToObject(j->networking, "allowed_hosts");
	for (char **h = allow; r > 0 && *h; h++) {
		/* Here it still has the name that it was given by. */
		struct pf_entry entry = {0};
		PF_FREE char *where = pf_asprintf("--allow %s", *h);
		if (pf_entry_parse_text(*h, where, &entry, err) < 0)
			r = -1;
		else
			cJSON_AddItemToArray(hosts, cJSON_CreateString(*h));
		pf_entry_done(&entry);
	}
	pf_strv_free(allow);
	return r < 0 ? -1 : 0;
}

static int network(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	const cJSON *given = NULL;

	if (pf_json_obj(doc, "", "networking", &given, err) < 0)
		return -1;
	if (given) {
		cJSON_Delete(j->networking);
		j->networking = cJSON_Duplicate(given, true);
	}
	if (add_allowed(j, doc, err) < 0)
		return -1;
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j->networking, "type"));
	j->net = j->networking && (!type || strcmp(type, "none") != 0) ? PF_JAIL_NET_GATE : PF_JAIL_NET_NONE;
	return 0;
}

static int seccomp(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	const cJSON *given = cJSON_GetObjectItemCaseSensitive(doc, "seccomp");
	const char *word = cJSON_GetStringValue(given);

	if (!given || cJSON_IsNull(given) || (word && strcmp(word, "default") == 0))
		return 0;
	if (word && strcmp(word, "strict") == 0) {
		j->seccomp = PF_JAIL_SECCOMP_STRICT;
	} else if (word && strcmp(word, "off") == 0) {
		j->seccomp = PF_JAIL_SECCOMP_OFF;
	} else if (cJSON_IsObject(given)) {
		j->seccomp = PF_JAIL_SECCOMP_FILE;
		j->seccomp_object = cJSON_Duplicate(given, true);
	} else {
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"seccomp: \"default\", \"strict\", \"off\" or an OCI seccomp object is expected");
	}
	return 0;
}

/* A number as it is, or as people write it ("2G", "5m"). */
static int limit(const cJSON *limits, const char *key, int64_t *out,
	int (*parse)(const char *, const char *, int64_t *, struct pf_err *), struct pf_err *err)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(limits, key);
	PF_FREE char *what = pf_asprintf("%s%s", strcmp(key, "size") == 0 ? "" : "limits.", key),
		     *text = NULL;

	if (!v || cJSON_IsNull(v))
		return 0;
	if (!cJSON_IsString(v) && !cJSON_IsNumber(v))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: a number or a string is expected", what);
	text = cJSON_IsString(v) ? pf_strdup(v->valuestring) : cJSON_PrintUnformatted(v);
	return text ? parse(what, text, out, err) : pf_fail(err, ENOMEM, "%s", what);
}

static int parse_pids(const char *what, const char *s, int64_t *out, struct pf_err *err)
{
	return pf_parse_int(what, s, 1, 4194304, out, err);
}

static int limits(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	static const char *const known[] = {"memory", "pids", "cpus", "timeout", "grace", NULL};
	const cJSON *l = NULL;

	if (pf_json_obj(doc, "", "limits", &l, err) < 0)
		return -1;
	if (!l)
		return 0;
	return pf_json_known(l, "limits", known, err) < 0 ||
			       limit(l, "memory", &j->memory, pf_parse_size, err) < 0 ||
			       limit(l, "pids", &j->pids, parse_pids, err) < 0 ||
			       limit(l, "cpus", &j->millicpus, pf_parse_cpus, err) < 0 ||
			       limit(l, "timeout", &j->timeout_ms, pf_parse_duration, err) < 0 ||
			       limit(l, "grace", &j->grace_ms, pf_parse_duration, err) < 0
		       ? -1
		       : 0;
}

/* "env" and "bind_env" as "NAME=value". */
static int environment(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	const cJSON *env = NULL, *e;
	char **bound = NULL, **list;
	size_t n = 0;

	if (pf_json_obj(doc, "", "env", &env, err) < 0 || pf_json_strv(doc, "", "bind_env", &bound, err) < 0)
		return -1;
	list = pf_calloc((size_t)cJSON_GetArraySize(env) + pf_strv_len(bound) + 1, sizeof(*list));
	int r = 0;
	for (char **b = bound; r == 0 && b && *b; b++) {
		if (!getenv(*b))
			r = pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
				"--bind-env %s: no variable of this name is set (--env NAME=VALUE sets one)",
				*b);
		else
			list[n++] = pf_asprintf("%s=%s", *b, getenv(*b));
	}
	cJSON_ArrayForEach(e, env)
	{
		if (r < 0)
			break;
		if (!cJSON_IsString(e) || !*e->string || strchr(e->string, '='))
			r = pf_fail_kind(
				err, PF_ERR_INVALID, 0, "env: \"%s\" is no name with a string", e->string);
		else
			list[n++] = pf_asprintf("%s=%s", e->string, e->valuestring);
	}
	if (r == 0)
		pf_jail_environment(j, list, n);
	pf_strv_free(bound);
	pf_strv_free(list);
	return r;
}

/* Checkpoints of what an overlay holds. */
static int keeping(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	const char *keep = NULL, *from = NULL, *store = NULL;

	if (pf_json_str(doc, "", "keep", &keep, err) < 0 || pf_json_str(doc, "", "from", &from, err) < 0 ||
		pf_json_str(doc, "", "store", &store, err) < 0)
		return -1;
	if (store && store[0] != '/')
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "--store %s: an absolute path is expected", store);
	j->keep = keep ? pf_strdup(keep) : NULL;
	j->from = from ? pf_strdup(from) : NULL;
	j->store = store ? pf_path_clean(store, err) : pf_jail_default_store(j->home);
	return j->store ? 0 : pf_wrap(err, "--store");
}

int pf_jail_configure(struct pf_jail *j, const cJSON *doc, struct pf_err *err)
{
	static const char *const known[] = {"command", "cwd", "user", "env", "bind_env", "files", "home",
		"size", "overlay", "commit", "keep", "from", "store", "profile", "networking", "allow",
		"seccomp", "limits", "weak", NULL};
	const char *home = NULL, *profile = NULL;
	bool overlay = false;
	int64_t size = -1;

	if (!cJSON_IsObject(doc))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "a JSON object is expected");
	if (pf_json_known(doc, "", known, err) < 0 || pf_json_strv(doc, "", "command", &j->argv, err) < 0 ||
		pf_json_str(doc, "", "home", &home, err) < 0 ||
		pf_json_str(doc, "", "profile", &profile, err) < 0 ||
		pf_json_bool(doc, "", "overlay", &overlay, err) < 0 ||
		pf_json_bool(doc, "", "commit", &j->commit, err) < 0 ||
		pf_json_bool(doc, "", "weak", &j->weak, err) < 0 || limits(j, doc, err) < 0)
		return -1;
	if (!j->argv || !j->argv[0])
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "command: at least one word is expected");
	const cJSON *s = cJSON_GetObjectItemCaseSensitive(doc, "size");
	if (s && limit(doc, "size", &size, pf_parse_size, err) < 0)
		return -1;
	j->caller_uid = geteuid();
	PF_FREE char *profile_path = NULL;
	PF_JSON cJSON *profile_doc = profile ? pf_jail_profile_load(profile, &profile_path, err) : NULL;
	if (profile && (!profile_doc || pf_jail_profile_limits(j, profile_path, profile_doc, err) < 0))
		return -1;
	if (!j->weak)
		pf_jail_limits_scope(j);
	uid_t caller = geteuid();
	gid_t group = getegid();
	if (!j->weak && pf_jail_enter(j, err) < 0)
		return -1;
	/* Nothing can ask for another network any more. */
	if (!j->weak && !j->learn && !profile_doc && !cJSON_HasObjectItem(doc, "networking") &&
		!cJSON_HasObjectItem(doc, "allow") && pf_jail_lone_net_begin(j, err) < 0)
		return -1;
	if (who(j, doc, caller, group, err) < 0 || where(j, doc, err) < 0)
		return -1;
	if (profile_doc && pf_jail_profile_apply(j, profile_path, profile_doc, &size, err) < 0)
		return -1;
	if (apply_rules(j, doc, size, err) < 0 || keeping(j, doc, err) < 0 ||
		((overlay || j->commit || j->keep || j->from) && pf_jail_overlay(j, err) < 0) ||
		network(j, doc, err) < 0 || seccomp(j, doc, err) < 0 ||
		pf_jail_add_defaults(j, home, size, err) < 0)
		return -1;
	return environment(j, doc, err);
}
