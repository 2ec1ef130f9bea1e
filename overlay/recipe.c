/* Theory of operation
 *
 * Recipes are read strictly: an unknown key is an error, package names are checked against what a package
 * name may be (they go onto a command line), paths of files must be absolute and clean.
 *
 * Of the machine's apt sources those count whose suite is the release or one of its pockets (bookworm,
 * bookworm-updates, bookworm-security): both spellings, one-line .list and deb822 .sources, come out as
 * deb822. Other people's repositories serve the host, not an image that is to be the same elsewhere. An
 * address may carry a password; it must not end up in an image that travels, so such a source is refused
 * rather than written down. */
#include "overlay/recipe.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/packages.h"

#define MAX_BASES 8

static void free_strv(char ***v)
{
	pf_strv_free(*v);
	*v = NULL;
}

void pf_recipe_done(struct pf_recipe *r)
{
	free(r->name);
	free_strv(&r->packages);
	free_strv(&r->env);
	free_strv(&r->cmd);
	free_strv(&r->entrypoint);
	for (size_t i = 0; i < r->n_files; i++) {
		free(r->files[i].path);
		free(r->files[i].content);
	}
	free(r->files);
	free(r->workdir);
	free(r->user);
	cJSON_Delete(r->others);
	*r = (struct pf_recipe){0};
}

static bool package_name(const char *s)
{
	if (strlen(s) < 2 || strlen(s) > 100 || !isalnum((unsigned char)s[0]))
		return false;
	return strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.:=~") == strlen(s);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* j has Debian packages in its member key. */
static int add_debian(
	struct pf_recipe *r, const cJSON *j, const char *where, const char *key, struct pf_err *err)
{
	char **more = NULL;
	size_t n = pf_strv_len(r->packages), m, out = 0;

	if (pf_json_strv(j, where, key, &more, err) < 0)
		return -1;
	m = pf_strv_len(more);
	for (size_t i = 0; i < m; i++) {
		if (!package_name(more[i])) {
			pf_fail_kind(
				err, PF_ERR_INVALID, 0, "packages: '%.80s' is not a package name", more[i]);
			pf_strv_free(more);
			return -1;
		}
	}
	char **all = pf_calloc(n + m + 1, sizeof(*all));
	for (size_t i = 0; i < n; i++)
		all[i] = r->packages[i];
	for (size_t i = 0; i < m; i++)
		all[n + i] = more[i];
	free(more);
	free(r->packages);
	if (n + m)
		qsort(all, n + m, sizeof(*all), by_name);
	for (size_t i = 0; i < n + m; i++) {
		if (out && strcmp(all[out - 1], all[i]) == 0)
			free(all[i]);
		else
			all[out++] = all[i];
	}
	all[out] = NULL;
	r->packages = all;
	return 0;
}

/* A list of Debian packages, or lists by manager; in addition to the base's. */
static int add_packages(struct pf_recipe *r, const cJSON *j, struct pf_err *err)
{
	const cJSON *packages = cJSON_GetObjectItemCaseSensitive(j, "packages");

	if (!cJSON_IsObject(packages))
		return add_debian(r, j, "", "packages", err);
	PF_JSON cJSON *lists = pf_packages_read(packages, "packages", err);
	if (!lists || add_debian(r, lists, "packages", "apt", err) < 0)
		return -1;
	for (const char *const *m = pf_package_managers + 1; *m; m++) {
		cJSON *more = cJSON_DetachItemFromObjectCaseSensitive(lists, *m), *name;
		cJSON *had = cJSON_GetObjectItemCaseSensitive(r->others, *m);
		while (had && (name = cJSON_DetachItemFromArray(more, 0)))
			cJSON_AddItemToArray(had, name);
		if (had)
			cJSON_Delete(more);
		else if (more)
			cJSON_AddItemToObject(r->others, *m, more);
	}
	return 0;
}

static int add_files(struct pf_recipe *r, const cJSON *j, struct pf_err *err)
{
	static const char *const known[] = {"path", "content", "mode", NULL};
	const cJSON *files = NULL, *f;

	if (pf_json_arr(j, "", "files", &files, err) < 0)
		return -1;
	cJSON_ArrayForEach(f, files)
	{
		const char *path = NULL, *content = "", *mode = "0644";
		char *end;
		if (!cJSON_IsObject(f))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "files: each must be an object");
		if (pf_json_known(f, "files", known, err) < 0 ||
			pf_json_str(f, "files", "path", &path, err) < 0 ||
			pf_json_str(f, "files", "content", &content, err) < 0 ||
			pf_json_str(f, "files", "mode", &mode, err) < 0)
			return -1;
		unsigned long bits = strtoul(mode, &end, 8);
		if (!path || *end || end == mode || bits > 07777)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "files: %s",
				path ? "mode must be octal text" : "path is missing");
		char *clean = pf_path_clean(path, err);
		if (!clean)
			return -1;
		if (strcmp(clean, "/") == 0) {
			free(clean);
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "files: path must name a file");
		}
		r->files = realloc(r->files, (r->n_files + 1) * sizeof(*r->files));
		if (!r->files)
			abort();
		r->files[r->n_files++] = (struct pf_recipe_file){clean, pf_strdup(content), (mode_t)bits};
	}
	return 0;
}

/* A list that is given replaces the base's, except env, where a name replaces the name. */
static int take_list(const cJSON *c, const char *key, char ***slot, struct pf_err *err)
{
	char **v = NULL;
	int got = pf_json_strv(c, "config", key, &v, err);

	if (got > 0) {
		pf_strv_free(*slot);
		*slot = v;
	}
	return got < 0 ? -1 : 0;
}

static int add_env(struct pf_recipe *r, const cJSON *c, struct pf_err *err)
{
	char **more = NULL;

	if (pf_json_strv(c, "config", "env", &more, err) < 0)
		return -1;
	for (size_t i = 0; more && more[i]; i++) {
		size_t n = pf_strv_len(r->env), key = strcspn(more[i], "="), at = 0;
		if (key == 0 || !more[i][key]) {
			pf_fail_kind(
				err, PF_ERR_INVALID, 0, "config.env: '%.80s' is not NAME=VALUE", more[i]);
			pf_strv_free(more);
			return -1;
		}
		while (at < n && (strncmp(r->env[at], more[i], key + 1) != 0))
			at++;
		if (at == n) {
			r->env = realloc(r->env, (n + 2) * sizeof(*r->env));
			if (!r->env)
				abort();
			r->env[n + 1] = NULL;
		} else {
			free(r->env[at]);
		}
		r->env[at] = pf_strdup(more[i]);
	}
	pf_strv_free(more);
	return 0;
}

static int take_text(const cJSON *c, const char *key, char **slot, struct pf_err *err)
{
	const char *s = NULL;
	int got = pf_json_str(c, "config", key, &s, err);

	if (got > 0) {
		free(*slot);
		*slot = pf_strdup(s);
	}
	return got < 0 ? -1 : 0;
}

static int add_config(struct pf_recipe *r, const cJSON *j, struct pf_err *err)
{
	static const char *const known[] = {"env", "cmd", "entrypoint", "workdir", "user", NULL};
	const cJSON *c = NULL;

	if (pf_json_obj(j, "", "config", &c, err) < 0)
		return -1;
	if (!c)
		return 0;
	if (pf_json_known(c, "config", known, err) < 0 || add_env(r, c, err) < 0 ||
		take_list(c, "cmd", &r->cmd, err) < 0 ||
		take_list(c, "entrypoint", &r->entrypoint, err) < 0 ||
		take_text(c, "workdir", &r->workdir, err) < 0 || take_text(c, "user", &r->user, err) < 0)
		return -1;
	return r->workdir && r->workdir[0] != '/'
		       ? pf_fail_kind(err, PF_ERR_INVALID, 0, "config.workdir must be absolute")
		       : 0;
}

static int load_into(const char *dir, struct pf_recipe *r, int depth, struct pf_err *err)
{
	static const char *const known[] = {"description", "base", "packages", "files", "config", NULL};
	PF_FREE char *path = pf_asprintf("%s/recipe.json", dir);
	const char *base = NULL, *description = NULL;
	PF_JSON cJSON *j = pf_json_load(path, err);

	if (!j)
		return -1;
	if (!cJSON_IsObject(j))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", path);
	if (pf_json_known(j, "", known, err) < 0 || pf_json_str(j, "", "base", &base, err) < 0 ||
		pf_json_str(j, "", "description", &description, err) < 0)
		return pf_wrap(err, "%s", path);
	if (base) {
		PF_FREE char *sibling = pf_asprintf("%s/../%s", dir, base);
		if (pf_check_id("base", base, err) < 0)
			return pf_wrap(err, "%s", path);
		if (depth == MAX_BASES)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: bases nest too deep (a cycle?)", path);
		if (load_into(sibling, r, depth + 1, err) < 0)
			return -1;
	}
	if (add_packages(r, j, err) < 0 || add_files(r, j, err) < 0 || add_config(r, j, err) < 0)
		return pf_wrap(err, "%s", path);
	return 0;
}

int pf_recipe_load(const char *dir, struct pf_recipe *r, struct pf_err *err)
{
	*r = (struct pf_recipe){0};
	PF_FREE char *real = realpath(dir, NULL);
	if (!real)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno,
			"recipe directory %s", dir);
	r->name = pf_strdup(strrchr(real, '/') + 1);
	r->others = cJSON_CreateObject();
	int ok = load_into(real, r, 0, err);
	if (ok == 0 && !r->packages[0])
		ok = pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: the recipe names no packages", dir);
	if (ok < 0)
		pf_recipe_done(r);
	return ok;
}

static void add_list(cJSON *to, const char *key, char **v)
{
	if (!v)
		return;
	cJSON *a = cJSON_AddArrayToObject(to, key);
	for (; *v; v++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*v));
}

cJSON *pf_recipe_config(const struct pf_recipe *r, const char *diff_id, time_t created)
{
	cJSON *c = cJSON_CreateObject(), *settings, *rootfs, *ids;
	char text[32];
	struct tm tm;

#if defined(__aarch64__)
	cJSON_AddStringToObject(c, "architecture", "arm64");
#else
	cJSON_AddStringToObject(c, "architecture", "amd64");
#endif
	gmtime_r(&created, &tm);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	cJSON_AddStringToObject(c, "created", text);
	cJSON_AddStringToObject(c, "os", "linux");
	settings = cJSON_AddObjectToObject(c, "config");
	add_list(settings, "Env", r->env);
	add_list(settings, "Entrypoint", r->entrypoint);
	add_list(settings, "Cmd", r->cmd);
	if (r->workdir)
		cJSON_AddStringToObject(settings, "WorkingDir", r->workdir);
	if (r->user)
		cJSON_AddStringToObject(settings, "User", r->user);
	rootfs = cJSON_AddObjectToObject(c, "rootfs");
	cJSON_AddStringToObject(rootfs, "type", "layers");
	ids = cJSON_AddArrayToObject(rootfs, "diff_ids");
	cJSON_AddItemToArray(ids, cJSON_CreateString(diff_id));
	return c;
}

/* ---- apt sources ---- */

static bool our_suite(const char *word, size_t len, const char *release)
{
	size_t n = strlen(release);

	return len >= n && strncmp(word, release, n) == 0 && (len == n || word[n] == '-' || word[n] == '/');
}

static int check_address(const char *text, struct pf_err *err)
{
	for (const char *s = strstr(text, "://"); s; s = strstr(s + 3, "://")) {
		size_t host = strcspn(s + 3, "/ \t\n");
		if (memchr(s + 3, '@', host))
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"an apt source has a password in its address, which would end up in the "
				"image; move it to "
				"/etc/apt/auth.conf.d");
	}
	return 0;
}

/* Value of a deb822 field in stanza, or NULL; *len excludes the line end. */
static const char *field(const char *stanza, const char *key, size_t *len)
{
	size_t klen = strlen(key);

	for (const char *s = stanza; *s; s += strcspn(s, "\n"), s += *s == '\n') {
		if (strncasecmp(s, key, klen) == 0 && s[klen] == ':') {
			s += klen + 1;
			s += strspn(s, " \t");
			*len = strcspn(s, "\n");
			return s;
		}
	}
	return NULL;
}

static bool field_is(const char *stanza, const char *key, const char *value)
{
	size_t len;
	const char *v = field(stanza, key, &len);

	return v && len == strlen(value) && strncasecmp(v, value, len) == 0;
}

static int take_stanza(const char *stanza, const char *release, struct pf_buf *out, struct pf_err *err)
{
	size_t len, types_len;
	const char *suites = field(stanza, "Suites", &len), *types = field(stanza, "Types", &types_len);
	bool binary = false;

	if (!suites || !types || field_is(stanza, "Enabled", "no") || field_is(stanza, "Enabled", "false"))
		return 0;
	for (size_t i = 0; i + 3 <= types_len; i++)
		binary = binary ||
			 (strncmp(types + i, "deb", 3) == 0 && (i + 3 == types_len || types[i + 3] == ' '));
	for (size_t i = 0; i < len;) {
		size_t n = strcspn(suites + i, " \t\n");
		if (n > len - i)
			n = len - i;
		if (!our_suite(suites + i, n, release))
			return 0;
		i += n;
		i += strspn(suites + i, " \t");
	}
	if (!binary)
		return 0;
	if (check_address(stanza, err) < 0)
		return -1;
	for (const char *s = stanza; *s;) {
		size_t n = strcspn(s, "\n");
		if (*s != '#' && strncasecmp(s, "Types:", 6) != 0)
			pf_buf_printf(out, "%.*s\n", (int)n, s);
		s += n + (s[n] == '\n');
	}
	pf_buf_str(out, "Types: deb\n\n");
	return 0;
}

static int take_deb822(char *text, const char *release, struct pf_buf *out, struct pf_err *err)
{
	while (*text) {
		char *end = strstr(text, "\n\n");
		if (end)
			end[1] = '\0';
		if (take_stanza(text, release, out, err) < 0)
			return -1;
		if (!end)
			break;
		text = end + 2;
	}
	return 0;
}

/* deb [signed-by=KEY arch=amd64] URI SUITE COMPONENT… */
static int take_line(char *line, const char *release, struct pf_buf *out, struct pf_err *err)
{
	char *save = NULL, *signed_by = NULL;

	line[strcspn(line, "#")] = '\0';
	char *open = strchr(line, '['), *close_at = strchr(line, ']');
	if (open && close_at && open < close_at) {
		char *s = strstr(open, "signed-by=");
		if (s && s < close_at) {
			s += strlen("signed-by=");
			signed_by = pf_asprintf("%.*s", (int)strcspn(s, " \t]"), s);
		}
		memset(open, ' ', (size_t)(close_at - open) + 1);
	}
	PF_FREE char *key = signed_by;
	char *type = strtok_r(line, " \t", &save), *uri = strtok_r(NULL, " \t", &save),
	     *suite = strtok_r(NULL, " \t", &save);
	if (!suite || strcmp(type, "deb") != 0 || !our_suite(suite, strlen(suite), release))
		return 0;
	if (check_address(uri, err) < 0)
		return -1;
	pf_buf_printf(out, "URIs: %s\nSuites: %s\nComponents:", uri, suite);
	for (char *c = strtok_r(NULL, " \t", &save); c; c = strtok_r(NULL, " \t", &save))
		pf_buf_printf(out, " %s", c);
	pf_buf_str(out, "\n");
	if (key)
		pf_buf_printf(out, "Signed-By: %s\n", key);
	pf_buf_str(out, "Types: deb\n\n");
	return 0;
}

static int take_list_file(char *text, const char *release, struct pf_buf *out, struct pf_err *err)
{
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (take_line(line, release, out, err) < 0)
			return -1;
	return 0;
}

static int take_file(const char *path, const char *release, struct pf_buf *out, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	int r = pf_read_file_at(AT_FDCWD, path, 1 << 20, &text, NULL, err);

	if (r < 0)
		return err->kind == PF_ERR_NOT_FOUND ? 0 : -1;
	return pf_ends_with(path, ".sources") ? take_deb822(text, release, out, err)
					      : take_list_file(text, release, out, err);
}

static int take_dir(const char *path, const char *release, struct pf_buf *out, struct pf_err *err)
{
	struct dirent **v = NULL;
	int n = scandir(path, &v, NULL, alphasort), r = 0;

	for (int i = 0; i < n; i++) {
		const char *name = v[i]->d_name;
		if (r == 0 && name[0] != '.' &&
			(pf_ends_with(name, ".list") || pf_ends_with(name, ".sources"))) {
			PF_FREE char *file = pf_asprintf("%s/%s", path, name);
			r = take_file(file, release, out, err);
		}
		free(v[i]);
	}
	free(v);
	return r;
}

static int code_name(const char *root, char **out, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/etc/os-release", root);
	PF_FREE char *text = NULL;

	if (pf_read_file_at(AT_FDCWD, path, 65536, &text, NULL, err) < 0)
		return -1;
	const char *s =
		pf_starts_with(text, "VERSION_CODENAME=") ? text : strstr(text, "\nVERSION_CODENAME=");
	if (!s)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"%s names no release (VERSION_CODENAME): images are built on Debian and its "
			"derivatives",
			path);
	s = strchr(s, '=') + 1;
	s += *s == '"';
	*out = pf_asprintf("%.*s", (int)strcspn(s, "\"\n"), s);
	return 0;
}

int pf_apt_sources_at(const char *root, char **suite, char **sources, struct pf_err *err)
{
	PF_BUF struct pf_buf out = {0};
	PF_FREE char *release = NULL;
	PF_FREE char *list = pf_asprintf("%s/etc/apt/sources.list", root);
	PF_FREE char *dir = pf_asprintf("%s/etc/apt/sources.list.d", root);

	pf_buf_str(&out, "");
	if (code_name(root, &release, err) < 0 || take_file(list, release, &out, err) < 0 ||
		take_dir(dir, release, &out, err) < 0)
		return -1;
	if (out.len == 0)
		return pf_fail_kind(
			err, PF_ERR_UNSUPPORTED, 0, "the machine has no apt source for %s", release);
	*suite = pf_take(release);
	*sources = pf_take(out.data);
	return 0;
}
