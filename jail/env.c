/* The command's environment: what programs need to find their way, and nothing that could hold a secret. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/config.h"

static const char *const kept[] = {
	"LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES"};

extern char **environ;

static void set(struct pf_jail *j, const char *entry)
{
	size_t name = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < j->n_env; i++)
		if (strncmp(j->env[i], entry, name) == 0) {
			free(j->env[i]);
			j->env[i] = pf_strdup(entry);
			return;
		}
	char **more = realloc(j->env, (j->n_env + 2) * sizeof(*more));
	if (!more)
		abort();
	more[j->n_env++] = pf_strdup(entry);
	more[j->n_env] = NULL;
	j->env = more;
}

static void set_pair(struct pf_jail *j, const char *name, const char *value)
{
	PF_FREE char *entry = pf_asprintf("%s=%s", name, value);

	set(j, entry);
}

/* Whether a directory of the caller's PATH is there inside. */
static bool visible(const struct pf_jail *j, const char *dir)
{
	const struct pf_jail_op *best = NULL;

	for (size_t i = 0; i < j->n_ops; i++)
		if (pf_path_below(dir, j->ops[i].dest))
			best = &j->ops[i]; /* sorted: the deepest comes last */
	return best && (best->kind == PF_JAIL_BIND || best->kind == PF_JAIL_OVERLAY);
}

/* The system's directories, and of the caller's own those that the command can see. */
static char *make_path(const struct pf_jail *j)
{
	static const char system[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	PF_FREE char *own = pf_strdup(getenv("PATH") ? getenv("PATH") : "");
	PF_BUF struct pf_buf b = {0};

	for (char *save = NULL, *d = strtok_r(own, ":", &save); d; d = strtok_r(NULL, ":", &save)) {
		PF_FREE char *colons = pf_asprintf(":%s:", d), *all = pf_asprintf(":%s:", system);
		if (d[0] == '/' && !strstr(all, colons) && visible(j, d))
			pf_buf_printf(&b, "%s:", d);
	}
	pf_buf_str(&b, system);
	return pf_take(b.data);
}

void pf_jail_environment(struct pf_jail *j, char *const *given, size_t n)
{
	PF_FREE char *path = make_path(j);
	/* A profile's are there already: over what is usual, and below what is given beside it. */
	char **profile = j->env;
	size_t n_profile = j->n_env;

	j->env = NULL;
	j->n_env = 0;
	set_pair(j, "PATH", path);
	set_pair(j, "HOME", j->home);
	set_pair(j, "USER", j->user_name);
	set_pair(j, "LOGNAME", j->user_name);
	set_pair(j, "SHELL", "/bin/sh");
	set_pair(j, "PWD", j->cwd);
	set_pair(j, "LANG", "C.UTF-8");
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		if (getenv(kept[i]))
			set_pair(j, kept[i], getenv(kept[i]));
	for (char **e = environ; e && *e; e++)
		if (pf_starts_with(*e, "LC_"))
			set(j, *e);
	for (size_t i = 0; i < n_profile; i++)
		set(j, profile[i]);
	for (size_t i = 0; i < n; i++)
		set(j, given[i]);
	pf_strv_free(profile);
}
