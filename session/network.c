/* Theory of operation.
 *
 * Which hosts a package manager needs is written down where it is configured: in the image. The files of the
 * common ones are searched for addresses, without understanding more of them than that an http or https URL
 * names a host. What managers have built in (their default registries) is in no file; those hosts are the
 * administrator's to list, and nobody else's: none is known to this program. */
#include "session/network.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "netpolicy/entry.h"
#include "session/record.h"

#define FILE_MAX ((size_t)256 << 10)
#define HOSTS_MAX 200
#define ETC_HOSTS "/etc/pinfold/package-hosts"

/* Files, and directories whose files count. */
static const char *const config_files[] = {"/etc/apt/sources.list", "/etc/apk/repositories", "/etc/pip.conf",
	"/root/.pip/pip.conf", "/root/.config/pip/pip.conf", "/etc/npmrc", "/usr/etc/npmrc",
	"/usr/local/etc/npmrc", "/root/.npmrc", "/root/.cargo/config.toml", "/usr/local/cargo/config.toml",
	"/root/.gemrc", "/etc/gemrc", "/root/.config/go/env", "/etc/dnf/dnf.conf", "/etc/yum.conf", NULL};
static const char *const config_dirs[] = {
	"/etc/apt/sources.list.d", "/etc/yum.repos.d", "/etc/zypp/repos.d", NULL};

struct found {
	cJSON *hosts; /* entries of allowed_hosts */
	size_t n;
};

static void add_host(struct found *f, const char *entry)
{
	const cJSON *j;

	cJSON_ArrayForEach(j, f->hosts) if (cJSON_IsString(j) && strcmp(j->valuestring, entry) == 0) return;
	if (f->n++ < HOSTS_MAX)
		cJSON_AddItemToArray(f->hosts, cJSON_CreateString(entry));
}

/* "http(s)://[user@]host[:port]/…" anywhere in the text, but for comments. */
static void find_urls(struct found *f, const char *line, size_t len)
{
	const char *end = line + len, *p = line;

	while ((p = memmem(p, (size_t)(end - p), "://", 3))) {
		bool tls = p - line >= 5 && memcmp(p - 5, "https", 5) == 0;
		bool plain = p - line >= 4 && memcmp(p - 4, "http", 4) == 0;
		const char *host = p + 3, *stop = host;
		char name[PF_NAME_MAX], entry[PF_NAME_MAX + 8];
		while (stop < end && !strchr("/ \t\r\"'?#,;]", *stop))
			stop++;
		p = stop;
		if (!tls && !plain)
			continue;
		const char *at = memchr(host, '@', (size_t)(stop - host));
		if (at)
			host = at + 1;
		const char *colon = memchr(host, ':', (size_t)(stop - host));
		if (!pf_name_normal(host, (size_t)((colon ? colon : stop) - host), name) ||
			!strchr(name, '.'))
			continue;
		long port = colon ? strtol(colon + 1, NULL, 10) : tls ? 443 : 80;
		if (port < 1 || port > 65535)
			continue;
		snprintf(entry, sizeof(entry), "%s:%ld", name, port);
		add_host(f, entry);
	}
}

static void read_lines(struct found *f, const char *text, bool list)
{
	while (*text) {
		size_t len = strcspn(text, "\n");
		const char *s = text + strspn(text, " \t");
		size_t n = len - (size_t)(s - text);
		text += len + (text[len] == '\n');
		while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r'))
			n--;
		if (n == 0 || *s == '#')
			continue;
		if (!list) {
			find_urls(f, s, n);
		} else {
			PF_FREE char *entry = strndup(s, n);
			if (entry)
				add_host(f, entry);
		}
	}
}

static void read_at(struct found *f, int dirfd, const char *name)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *text = NULL;

	if (pf_read_file_at(dirfd, name, FILE_MAX, &text, NULL, &ignored) == 0)
		read_lines(f, text, false);
}

/* An image is not trusted: its paths are resolved inside of it, and what is no file is not read. */
static void read_image(struct found *f, int layer)
{
	for (size_t i = 0; config_files[i]; i++) {
		PF_FREE char *copy = pf_strdup(config_files[i]);
		char *slash = strrchr(copy, '/');
		*slash = '\0';
		PF_CLOSE int dir = pf_open_in_root(layer, copy, O_PATH | O_DIRECTORY, 0);
		struct stat st;
		if (dir >= 0 && fstatat(dir, slash + 1, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
			read_at(f, dir, slash + 1);
	}
	for (size_t i = 0; config_dirs[i]; i++) {
		int dir = pf_open_in_root(layer, config_dirs[i], O_RDONLY | O_DIRECTORY, 0);
		PF_CLOSEDIR DIR *d = dir < 0 ? NULL : fdopendir(dir);
		struct dirent *e;
		while (d && (e = readdir(d)))
			if (e->d_type == DT_REG || e->d_type == DT_UNKNOWN)
				read_at(f, dir, e->d_name);
	}
}

static int add_packages(cJSON *net, const char *store, char *const *lowers, struct pf_err *err)
{
	PF_FREE char *own = pf_asprintf("%s/package-hosts", store), *text = NULL;
	const char *list = access(own, F_OK) == 0 ? own : access(ETC_HOSTS, F_OK) == 0 ? ETC_HOSTS : NULL;
	struct found f = {.hosts = cJSON_GetObjectItemCaseSensitive(net, "allowed_hosts")};

	if (!f.hosts)
		f.hosts = cJSON_AddArrayToObject(net, "allowed_hosts");
	size_t before = (size_t)cJSON_GetArraySize(f.hosts);
	for (; *lowers; lowers++) {
		PF_CLOSE int layer = open(*lowers, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (layer >= 0)
			read_image(&f, layer);
	}
	if (list && pf_read_file_at(AT_FDCWD, list, FILE_MAX, &text, NULL, err) < 0)
		return -1;
	if (text)
		read_lines(&f, text, true);
	if (f.n > HOSTS_MAX)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"networking.allow_package_managers: the image names more than %d hosts; list those "
			"that are "
			"wanted in allowed_hosts",
			HOSTS_MAX);
	if ((size_t)cJSON_GetArraySize(f.hosts) == before && f.n == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"networking.allow_package_managers: the image's package configuration names no host, "
			"and "
			"there is no list in %s or " ETC_HOSTS
			"; write one (an entry of allowed_hosts a line), or list "
			"the hosts in allowed_hosts",
			own);
	return 0;
}

static int add_upstream_ca(cJSON *net, struct pf_err *err)
{
	const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(net, "upstream_ca"));
	PF_FREE char *pem = NULL;

	/* Of a policy that was kept from before, it is what was in the file then. */
	if (!path || pf_starts_with(path, "-----BEGIN"))
		return 0;
	if (*path != '/')
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "networking.upstream_ca: '%.200s' is no absolute path", path);
	if (pf_read_file_at(AT_FDCWD, path, FILE_MAX, &pem, NULL, err) < 0)
		return pf_wrap(err, "networking.upstream_ca");
	const char *begin = strstr(pem, "-----BEGIN");
	if (!begin)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "networking.upstream_ca: %s holds no certificate", path);
	cJSON_ReplaceItemInObjectCaseSensitive(net, "upstream_ca", cJSON_CreateString(begin));
	return 0;
}

cJSON *pf_session_networking(
	const struct pf_config *config, const char *store, char *const *lowers, struct pf_err *err)
{
	PF_JSON cJSON *net = cJSON_Duplicate(config->networking, true);

	if (add_upstream_ca(net, err) < 0 ||
		(config->allow_package_managers && add_packages(net, store, lowers, err) < 0))
		return NULL;
	return pf_take(net);
}

cJSON *pf_session_networking_of(
	const struct pf_dirs *d, const char *id, const struct pf_config *config, struct pf_err *err)
{
	char *none[] = {NULL}, **layers = NULL;

	if (config->allow_package_managers) {
		PF_CLOSE int dir = pf_dirs_sandbox(d, id, false, err);
		PF_JSON cJSON *record = dir < 0 ? NULL : pf_session_record_load(dir, err);
		if (!record || pf_json_strv(record, "sandbox.json", "image_layers", &layers, err) < 0)
			return NULL;
	}
	cJSON *net = pf_session_networking(config, d->store, layers ? layers : none, err);
	pf_strv_free(layers);
	return net;
}
