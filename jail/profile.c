/* Profiles: sandbox files with the paths of this machine. "~" at the beginning of a path is the home
 * directory, and "." the working directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/config.h"
#include "session/config.h"

static char *find(const char *name, struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);
	const char *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");

	if (!dir)
		return NULL;
	if (strchr(name, '/') || pf_ends_with(name, ".json"))
		return pf_strdup(name);
	/* The user's own last: a command that could write there must not give a shipped name another meaning.
	 */
	char *places[] = {pf_asprintf("/etc/pinfold/profiles/%s.json", name),
		pf_asprintf("%s/../share/pinfold/profiles/%s.json", dir, name),
		pf_asprintf("%s/../../jail/profiles/%s.json", dir, name),
		xdg ? pf_asprintf("%s/pinfold/profiles/%s.json", xdg, name)
		    : pf_asprintf("%s/.config/pinfold/profiles/%s.json", home ? home : "", name)};
	char *found = NULL;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (!found && access(places[i], R_OK) == 0)
			found = places[i];
		else
			free(places[i]);
	}
	if (!found)
		pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
			"--profile %s: there is no such profile (shipped are default, build, node, python, "
			"offline-strict; a file's name has a / or ends in .json)",
			name);
	return found;
}

/* "~/x" and "./x" in the lists of paths become absolute, which is all that a sandbox file knows. */
static void expand(const struct pf_jail *j, cJSON *doc)
{
	static const char *const lists[] = {"writable_paths", "read_only_paths"};
	cJSON *fs = cJSON_GetObjectItemCaseSensitive(doc, "filesystem"), *item;

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(fs, lists[i]))
		{
			const char *s = cJSON_GetStringValue(item);
			if (!s || (s[0] != '~' && s[0] != '.') || (s[1] && s[1] != '/'))
				continue;
			PF_FREE char *whole = pf_asprintf("%s%s", s[0] == '~' ? j->home : j->cwd, s + 1);
			cJSON_SetValuestring(item, whole);
		}
}

/* What a sandbox file may say and a jail cannot do is refused: it would be promised and not kept. */
static int check(const struct pf_config *c, struct pf_err *err)
{
	const struct {
		bool given;
		const char *key;
	} not_here[] = {{c->image != NULL, "image"}, {c->runtime != NULL, "runtime"},
		{c->command && c->command[0], "command"}, {c->credentials_raw != NULL, "credentials"},
		{c->has_packages, "packages"}, {c->resources.cpuset != NULL, "resources.cpuset"},
		{c->resources.read_bps >= 0 || c->resources.write_bps >= 0 || c->resources.read_iops >= 0 ||
				c->resources.write_iops >= 0,
			"resources.io"},
		{c->allow_package_managers, "networking.allow_package_managers"},
		{c->limits.idle_ms >= 0, "limits.idle"}};

	for (size_t i = 0; i < sizeof(not_here) / sizeof(not_here[0]); i++)
		if (not_here[i].given)
			return pf_fail_kind(
				err, PF_ERR_UNSUPPORTED, 0, "%s is not for a jail", not_here[i].key);
	return 0;
}

static int apply(struct pf_jail *j, const struct pf_config *c, int64_t *size, struct pf_err *err)
{
	for (char **p = c->filesystem.writable_paths; *p; p++)
		if (pf_jail_show(j, "profile", *p, false, true, err) < 0)
			return -1;
	for (char **p = c->filesystem.read_only_paths; *p; p++)
		if (pf_jail_show(j, "profile", *p, true, true, err) < 0)
			return -1;
	for (size_t i = 0; i < c->filesystem.n_mounts; i++) {
		const struct pf_config_mount *m = &c->filesystem.mounts[i];
		char *real = NULL;
		int fd = pf_jail_open_path("profile", m->source, &real, err);
		if (fd < 0)
			return -1;
		pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
				       .dest = pf_strdup(m->target),
				       .source = real,
				       .fd = fd,
				       .read_only = m->read_only,
				       .why = "profile"});
	}
	if (*size < 0)
		*size = c->filesystem.size;
	j->networking = cJSON_Duplicate(c->networking, true);
	if (j->memory < 0)
		j->memory = c->resources.memory;
	if (j->millicpus < 0)
		j->millicpus = c->resources.millicpus;
	if (j->timeout_ms < 0)
		j->timeout_ms = c->limits.max_runtime_ms;
	for (char **e = c->env; e && *e; e++) {
		char **more = realloc(j->env, (j->n_env + 2) * sizeof(*more));
		if (!more)
			abort();
		j->env = more;
		j->env[j->n_env++] = pf_strdup(*e);
		j->env[j->n_env] = NULL;
	}
	return 0;
}

int pf_jail_profile(struct pf_jail *j, const char *name, int64_t *size, struct pf_err *err)
{
	PF_FREE char *path = NULL;
	struct pf_config c;

	path = find(name, err);
	if (!path)
		return -1;
	PF_JSON cJSON *doc = pf_json_load(path, err);
	if (!doc)
		return -1;
	/* A sandbox has a bound on its processes when its file says nothing; a jail is what was asked for. */
	const cJSON *pids =
		cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(doc, "resources"), "pids");
	bool has_pids = pids != NULL;
	expand(j, doc);
	if (pf_config_parse(doc, &c, err) < 0)
		return pf_wrap(err, "%s", path);
	if (has_pids && j->pids < 0)
		j->pids = c.resources.pids;
	int r = check(&c, err);
	if (r == 0)
		r = apply(j, &c, size, err);
	pf_config_done(&c);
	return r < 0 ? pf_wrap(err, "%s", path) : 0;
}
