/* Profiles: sandbox files with the paths of this machine. "~" at the beginning of a path is the home
 * directory, and "." the working directory. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/config.h"
#include "session/config.h"

#define MAX_PROFILE ((size_t)1 << 20)

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

/* Who can write a profile says what the next jail shows and lets out: that must be nobody but the caller,
 * root, and whose this program is. what is the file, or a directory of profiles. */
static int check_trust(const char *what, const struct stat *st, struct pf_err *err)
{
	struct stat self;

	if (st->st_uid != 0 && st->st_uid != geteuid() &&
		(stat("/proc/self/exe", &self) < 0 || st->st_uid != self.st_uid))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--profile: %s belongs to user %u, who could change what your jails may do; use a "
			"copy "
			"of your own",
			what, (unsigned)st->st_uid);
	if (st->st_mode & 022)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--profile: %s can be written by others (mode %04o), who could change what your "
			"jails "
			"may do: chmod go-w %s",
			what, (unsigned)(st->st_mode & 07777), what);
	return 0;
}

cJSON *pf_jail_profile_load(const char *name, char **path, struct pf_err *err)
{
	PF_FREE char *file = find(name, err), *text = NULL;
	char link[64];
	struct stat st;
	size_t len;

	if (!file)
		return NULL;
	if (strcmp(file, name) != 0) {
		PF_FREE char *dir = pf_strdup(file);
		*strrchr(dir, '/') = '\0';
		if (stat(dir, &st) == 0 && check_trust(dir, &st, err) < 0)
			return NULL;
	}
	PF_CLOSE int fd = open(file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		pf_fail_kind(
			err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "--profile %s", file);
		return NULL;
	}
	if (check_trust(file, &st, err) < 0)
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	if (pf_read_file_at(AT_FDCWD, link, MAX_PROFILE, &text, &len, err) < 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "--profile %s: it is no file, or one of more than 1 MiB",
			file);
		return NULL;
	}
	cJSON *doc = pf_json_parse(file, text, len, err);
	if (doc)
		*path = pf_take(file);
	else
		pf_wrap(err, "--profile");
	return doc;
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
		struct stat st;
		int fd = pf_jail_open_path("profile", m->source, &real, err);
		if (fd < 0)
			return -1;
		pf_jail_add(j, (struct pf_jail_op){.kind = PF_JAIL_BIND,
				       .dest = pf_strdup(m->target),
				       .source = real,
				       .fd = fd,
				       .read_only = m->read_only,
				       .directory = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode),
				       .why = "profile"});
	}
	if (*size < 0)
		*size = c->filesystem.size;
	j->networking = cJSON_Duplicate(c->networking, true);
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

int pf_jail_profile_limits(struct pf_jail *j, const char *path, const cJSON *doc, struct pf_err *err)
{
	const cJSON *resources = cJSON_GetObjectItemCaseSensitive(doc, "resources");
	PF_JSON cJSON *part = cJSON_CreateObject();
	struct pf_config c;

	if (!resources)
		return 0;
	cJSON_AddItemToObject(part, "resources", cJSON_Duplicate(resources, true));
	if (pf_config_parse(part, &c, err) < 0)
		return pf_wrap(err, "--profile %s", path);
	if (j->memory < 0)
		j->memory = c.resources.memory;
	if (j->millicpus < 0)
		j->millicpus = c.resources.millicpus;
	/* A sandbox has a bound on its processes when its file says nothing; a jail is what was asked for. */
	if (j->pids < 0 && cJSON_HasObjectItem(resources, "pids"))
		j->pids = c.resources.pids;
	pf_config_done(&c);
	return 0;
}

int pf_jail_profile_apply(struct pf_jail *j, const char *path, cJSON *doc, int64_t *size, struct pf_err *err)
{
	struct pf_config c;

	expand(j, doc);
	if (pf_config_parse(doc, &c, err) < 0)
		return pf_wrap(err, "--profile %s", path);
	int r = check(&c, err);
	if (r == 0)
		r = apply(j, &c, size, err);
	pf_config_done(&c);
	return r < 0 ? pf_wrap(err, "--profile %s", path) : 0;
}
