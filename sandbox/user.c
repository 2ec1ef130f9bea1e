#include "sandbox/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "base/units.h"

#define MAX_FILE ((size_t)10 << 20)
#define MAX_GROUPS 256

/* *text is "" when there is no such file: images without users are common. */
static int read_db(int rootfd, const char *path, char **text, struct pf_err *err)
{
	PF_CLOSE int fd = pf_open_in_root(rootfd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	struct stat st;

	if (fd < 0) {
		if (errno != ENOENT && errno != ENOTDIR)
			return pf_fail(err, errno, "%s in the sandbox", path);
		*text = pf_strdup("");
		return 0;
	}
	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s in the sandbox", path);
	if (!S_ISREG(st.st_mode) || (size_t)st.st_size > MAX_FILE)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s in the sandbox is not a regular file of at most 10 MiB", path);
	char *buf = pf_calloc((size_t)st.st_size + 1, 1);
	ssize_t n = pf_read_full(fd, buf, (size_t)st.st_size);
	if (n < 0) {
		free(buf);
		return pf_fail(err, errno, "read %s in the sandbox", path);
	}
	buf[n] = '\0';
	*text = buf;
	return 0;
}

/* Cut the next line off *p and split it at ':' into at most n fields. Returns the number of fields, -1 at the
 * end. */
static int next_entry(char **p, char *fields[], int n)
{
	char *line = *p;
	int i = 0;

	if (!line || !*line)
		return -1;
	*p = strchr(line, '\n');
	if (*p)
		*(*p)++ = '\0';
	while (i < n) {
		fields[i++] = line;
		line = strchr(line, ':');
		if (!line)
			break;
		*line++ = '\0';
	}
	return i;
}

static bool parse_id(const char *s, uint32_t *id)
{
	struct pf_err ignored = PF_ERR_INIT;
	int64_t v;

	if (pf_parse_int("id", s, 0, 4294967294LL, &v, &ignored) < 0)
		return false;
	*id = (uint32_t)v;
	return true;
}

static int find_user(int rootfd, const char *name, int64_t uid, struct pf_user *out, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	char *f[7];
	int n;

	if (read_db(rootfd, "/etc/passwd", &text, err) < 0)
		return -1;
	for (char *p = text; (n = next_entry(&p, f, 7)) >= 0;) {
		uint32_t u, g;
		if (n < 6 || !parse_id(f[2], &u) || !parse_id(f[3], &g))
			continue;
		if (name ? strcmp(f[0], name) != 0 : (int64_t)u != uid)
			continue;
		out->uid = u;
		out->gid = g;
		out->home = pf_strdup(f[5][0] == '/' ? f[5] : "/");
		out->name = pf_strdup(f[0]);
		return 0;
	}
	if (name)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "user '%.64s' is not in the sandbox's /etc/passwd", name);
	out->uid = (uint32_t)uid;
	out->gid = uid == 0 ? 0 : (uint32_t)uid;
	out->home = pf_strdup(uid == 0 ? "/root" : "/");
	return 0;
}

static bool member(const char *list, const char *name)
{
	size_t n = strlen(name);

	for (const char *p = list; p && *p;) {
		size_t len = strcspn(p, ",");
		if (len == n && strncmp(p, name, n) == 0)
			return true;
		p += len + (p[len] == ',');
	}
	return false;
}

/* The wanted group's id, and the groups that the user is a member of. */
static int find_groups(int rootfd, const char *group, struct pf_user *u, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	bool found = group == NULL;
	char *f[4];
	int n;

	if (read_db(rootfd, "/etc/group", &text, err) < 0)
		return -1;
	u->groups = pf_calloc(MAX_GROUPS, sizeof(*u->groups));
	u->n_groups = 1; /* [0] is the primary one, set last */
	for (char *p = text; (n = next_entry(&p, f, 4)) >= 0;) {
		uint32_t g;
		if (n < 3 || !parse_id(f[2], &g))
			continue;
		if (group && !found && strcmp(f[0], group) == 0) {
			u->gid = g;
			found = true;
		}
		if (n == 4 && u->name && member(f[3], u->name) && u->n_groups < MAX_GROUPS)
			u->groups[u->n_groups++] = g;
	}
	if (!found)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "group '%.64s' is not in the sandbox's /etc/group", group);
	u->groups[0] = u->gid;
	return 0;
}

int pf_user_lookup(int rootfd, const char *name, int64_t uid, const char *group, int64_t gid,
	struct pf_user *out, struct pf_err *err)
{
	*out = (struct pf_user){0};
	if (find_user(rootfd, name, uid, out, err) < 0)
		return -1;
	if (!group && gid >= 0)
		out->gid = (uint32_t)gid;
	if (find_groups(rootfd, group, out, err) < 0) {
		pf_user_done(out);
		return -1;
	}
	return 0;
}

void pf_user_done(struct pf_user *u)
{
	free(u->groups);
	free(u->home);
	free(u->name);
	*u = (struct pf_user){0};
}
