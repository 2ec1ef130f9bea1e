/* Theory of operation: which controller is where.
 *
 * A host is v2 alone, v1 alone, or hybrid: a v2 tree beside v1 hierarchies, each controller bound to exactly
 * one of them. Everything above this file asks host->where[controller] and never the kernel. On hybrid hosts
 * the v2 tree always gives membership, freeze, kill, device filter and cpu time (its cpu.stat needs no
 * controller), whatever else is bound to v1.
 *
 * A v2-alone host is recognised by the file system of /sys/fs/cgroup, so that the common case never reads the
 * mount table, which can have thousands of lines. */
#include "sandbox/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "sandbox/cgroup_internal.h"

static const struct {
	const char *v2, *v1;
} names[PF_CG_CTLS] = {
	[PF_CG_CPU] = {"cpu", "cpu"},
	[PF_CG_CPUACCT] = {NULL, "cpuacct"},
	[PF_CG_CPUSET] = {"cpuset", "cpuset"},
	[PF_CG_MEMORY] = {"memory", "memory"},
	[PF_CG_PIDS] = {"pids", "pids"},
	[PF_CG_IO] = {"io", "blkio"},
	[PF_CG_HUGETLB] = {"hugetlb", "hugetlb"},
	[PF_CG_DEVICES] = {NULL, "devices"},
	[PF_CG_FREEZER] = {NULL, "freezer"},
	[PF_CG_RDMA] = {"rdma", "rdma"},
	[PF_CG_MISC] = {"misc", "misc"},
};

const char *pf_cgroup_ctl_name(enum pf_cg_ctl ctl)
{
	return ctl >= PF_CG_CTLS ? "cgroup" : names[ctl].v2 ? names[ctl].v2 : names[ctl].v1;
}

/* Whether word is one of the words of list, separated by sep (the list ends at a NUL or newline). */
static bool has_word(const char *list, char sep, const char *word)
{
	size_t len = strlen(word);

	while (*list && *list != '\n') {
		size_t n = strcspn(list, (const char[]){sep, '\n', '\0'});
		if (n == len && memcmp(list, word, len) == 0)
			return true;
		list += n;
		if (*list == sep)
			list++;
	}
	return false;
}

static void host_init(struct pf_cgroup_host *host)
{
	memset(host, 0, sizeof(*host));
	host->v2 = -1;
	for (int c = 0; c < PF_CG_CTLS; c++)
		host->where[c] = -1;
}

/* The v2 tree takes what it offers; the controllers that need no binding are its in any case. */
static int claim_v2(struct pf_cgroup_host *host, struct pf_err *err)
{
	const char *mount = host->hier[host->v2].mount;
	char file[sizeof(host->hier[0].mount) + 32];
	PF_FREE char *list = NULL;

	snprintf(file, sizeof(file), "%s/cgroup.controllers", mount);
	if (pf_read_pseudo_at(AT_FDCWD, file, 4096, &list, err) < 0)
		return pf_wrap(err, "cgroup v2");
	for (int c = 0; c < PF_CG_CTLS; c++)
		if (names[c].v2 && has_word(list, ' ', names[c].v2))
			host->where[c] = host->v2;
	host->where[PF_CG_DEVICES] = host->v2;
	host->where[PF_CG_FREEZER] = host->v2;
	if (host->where[PF_CG_CPUACCT] < 0)
		host->where[PF_CG_CPUACCT] = host->v2;
	return 0;
}

/* mountinfo writes blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' && s[3] >= '0' &&
			s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* Enter one mount; of several mounts of the same hierarchy a writable one wins, then the first. */
static void add_mount(
	struct pf_cgroup_host *host, const char *mount, bool v2, bool readonly, const char *super)
{
	int at = v2 ? host->v2 : -1;

	for (int c = 0; !v2 && c < PF_CG_CTLS; c++)
		if (has_word(super, ',', names[c].v1) && host->where[c] >= 0)
			at = host->where[c];
	if (at >= 0 && (!host->hier[at].readonly || readonly))
		return;
	if (at < 0) {
		if (host->n_hier == PF_CG_HIERS)
			return;
		at = host->n_hier++;
	}
	snprintf(host->hier[at].mount, sizeof(host->hier[at].mount), "%s", mount);
	host->hier[at].v2 = v2;
	host->hier[at].readonly = readonly;
	if (v2)
		host->v2 = at;
	for (int c = 0; !v2 && c < PF_CG_CTLS; c++)
		if (has_word(super, ',', names[c].v1))
			host->where[c] = at;
}

int pf_cgroup_probe_mountinfo(struct pf_cgroup_host *host, const char *mountinfo, struct pf_err *err)
{
	PF_FREE char *text = pf_strdup(mountinfo);
	char *save = NULL;

	host_init(host);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		/* "31 23 0:28 ROOT MOUNT OPTIONS [tags…] - TYPE SOURCE SUPEROPTIONS" */
		char *rest = strstr(line, " - "), *field = line, *mount, *options;
		if (!rest || !pf_starts_with(rest + 3, "cgroup"))
			continue;
		bool v2 = pf_starts_with(rest + 3, "cgroup2 ");
		if (!v2 && !pf_starts_with(rest + 3, "cgroup "))
			continue;
		char *super = strrchr(rest, ' ') + 1;
		*rest = '\0';
		for (int i = 0; field && i < 4; i++) {
			field = strchr(field, ' ');
			if (field)
				field++;
		}
		if (!field)
			continue;
		mount = field;
		options = strchr(mount, ' ');
		if (!options)
			continue;
		*options++ = '\0';
		options[strcspn(options, " ")] = '\0';
		unescape(mount);
		if (strlen(mount) >= sizeof(host->hier[0].mount) || has_word(super, ',', "name=systemd"))
			continue;
		bool known = v2;
		for (int c = 0; c < PF_CG_CTLS; c++)
			known |= has_word(super, ',', names[c].v1);
		if (known)
			add_mount(host, mount, v2, has_word(options, ',', "ro"), super);
	}
	if (host->n_hier == 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"no cgroup file system is mounted (remedy: mount -t cgroup2 none /sys/fs/cgroup)");
	return host->v2 >= 0 ? claim_v2(host, err) : 0;
}

int pf_cgroup_probe(struct pf_cgroup_host *host, struct pf_err *err)
{
	static const char mount[] = "/sys/fs/cgroup";
	PF_FREE char *text = NULL;
	struct statfs fs;

	if (statfs(mount, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC) {
		host_init(host);
		snprintf(host->hier[0].mount, sizeof(host->hier[0].mount), "%s", mount);
		host->hier[0].v2 = true;
		host->hier[0].readonly = (fs.f_flags & ST_RDONLY) != 0;
		host->n_hier = 1;
		host->v2 = 0;
		return claim_v2(host, err);
	}
	if (pf_read_pseudo_at(AT_FDCWD, "/proc/self/mountinfo", (size_t)64 << 20, &text, err) < 0)
		return pf_wrap(err, "cgroups");
	return pf_cgroup_probe_mountinfo(host, text, err);
}

const char *pf_cgroup_mode(const struct pf_cgroup_host *host)
{
	if (host->v2 < 0)
		return "v1";
	return host->n_hier == 1 ? "v2" : "hybrid";
}

cJSON *pf_cgroup_host_json(const struct pf_cgroup_host *host)
{
	cJSON *j = cJSON_CreateObject(), *ctl;

	cJSON_AddStringToObject(j, "mode", pf_cgroup_mode(host));
	if (host->v2 >= 0) {
		cJSON *u = cJSON_AddObjectToObject(j, "unified");
		cJSON_AddStringToObject(u, "mount", host->hier[host->v2].mount);
		cJSON_AddBoolToObject(u, "readonly", host->hier[host->v2].readonly);
	} else {
		cJSON_AddNullToObject(j, "unified");
	}
	ctl = cJSON_AddObjectToObject(j, "controllers");
	for (int c = 0; c < PF_CG_CTLS; c++) {
		int h = host->where[c];
		const char *name = pf_cgroup_ctl_name((enum pf_cg_ctl)c);
		if (h < 0)
			cJSON_AddNullToObject(ctl, name);
		else
			cJSON_AddStringToObject(ctl, name, host->hier[h].v2 ? "v2" : "v1");
	}
	return j;
}

char *pf_cgroup_self(const struct pf_cgroup_host *host, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	char *save = NULL;

	if (pf_read_pseudo_at(AT_FDCWD, "/proc/self/cgroup", 65536, &text, err) < 0)
		return NULL;
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		/* "0::/path" or "4:memory:/path" */
		char *list = strchr(line, ':'), *path = list ? strchr(list + 1, ':') : NULL;
		if (!path)
			continue;
		*path++ = '\0';
		if (host->v2 >= 0 ? list[1] == '\0' : has_word(list + 1, ',', "memory"))
			return pf_strdup(path);
	}
	pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "/proc/self/cgroup does not name a cgroup of ours");
	return NULL;
}
