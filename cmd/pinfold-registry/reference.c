#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "cmd/pinfold-registry/registry.h"

/* distribution-spec: names of repositories and tags. */
static bool repo_ok(const char *s)
{
	bool separated = true;

	for (; *s; s++) {
		if (islower((unsigned char)*s) || isdigit((unsigned char)*s)) {
			separated = false;
		} else if (strchr("._-/", *s)) {
			if (separated && (*s == '/' || s[-1] == '/'))
				return false;
			separated = true;
		} else {
			return false;
		}
	}
	return !separated;
}

static bool tag_ok(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > 128 || *s == '.' || *s == '-')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("._-", *s))
			return false;
	return true;
}

static bool host_ok(const char *s)
{
	for (const char *p = s; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr(".-:[]", *p))
			return false;
	return *s && (strchr(s, '.') || strchr(s, ':') || strcmp(s, "localhost") == 0);
}

int reg_ref_parse(const char *text, struct reg_ref *out, struct pf_err *err)
{
	PF_FREE char *copy = pf_strdup(text);
	char *slash = strchr(copy, '/'), *at, *colon;

	*out = (struct reg_ref){0};
	if (slash)
		*slash = '\0';
	if (!slash || !host_ok(copy))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: HOST/REPOSITORY:TAG is expected, the host with a dot or a port", text);
	char *repo = slash + 1;
	at = strchr(repo, '@');
	if (at)
		*at++ = '\0';
	colon = strrchr(repo, ':');
	if (colon)
		*colon++ = '\0';
	if (!repo_ok(repo) || (colon && !tag_ok(colon)) || (at && !pf_digest_ok(at)))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: no reference (a repository is lower case; then :TAG, or @sha256: and 64 digits)",
			text);
	out->host = pf_strdup(copy);
	out->repo = pf_strdup(repo);
	out->digest = at ? pf_strdup(at) : NULL;
	out->tag = at ? NULL : pf_strdup(colon ? colon : "latest");
	return 0;
}

void reg_ref_done(struct reg_ref *r)
{
	free(r->host);
	free(r->repo);
	free(r->tag);
	free(r->digest);
	*r = (struct reg_ref){0};
}
