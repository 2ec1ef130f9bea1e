/* Theory of operation: skills.
 *
 * A skill is an archive, zip or tar, of somebody else's making. It is not opened here: it goes into the
 * sandbox as it is, where the sandbox's own unzip or tar unpacks it as the sandbox's user, so what is hostile
 * about it meets the sandbox's walls. Still, what would surprise there is refused or left out, as the
 * platform's SDK does: members outside of the directory, links and devices, the modes and owners of its
 * maker. The one directory that an archive is wrapped in is taken off. */

#include "worker/skills.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "worker/api.h"
#include "worker/log.h"

#define REQUEST_MS 120000
#define SKILLS_MAX 100

/* $1: the directory. */
static const char unpack[] =
	"set -e; umask 077; mkdir -p skills\n"
	"w=$(mktemp -d skills/.skill-stage-XXXXXX); trap 'rm -rf \"$w\"' EXIT\n"
	"cat >\"$w/archive\"; mkdir \"$w/stage\"\n"
	"if [ \"$(head -c 4 \"$w/archive\" | od -An -tx1 | tr -d ' ')\" = 504b0304 ]; then\n"
	"  unzip -oq \"$w/archive\" -d \"$w/stage\"\n"
	"else\n"
	"  tar -xf \"$w/archive\" -C \"$w/stage\" --no-same-owner --no-same-permissions\n"
	"fi\n"
	"find \"$w/stage\" ! -type d ! -type f -exec rm -f -- {} +\n"
	"find \"$w/stage\" -type d -exec chmod 700 -- {} +\n"
	"find \"$w/stage\" -type f -perm /111 -exec chmod 755 -- {} +\n"
	"find \"$w/stage\" -type f ! -perm /111 -exec chmod 644 -- {} +\n"
	"from=\"$w/stage\"\n"
	"if [ \"$(ls -A \"$from\" | wc -l)\" = 1 ] && [ -d \"$from/$(ls -A \"$from\")\" ]; then "
	"from=\"$from/$(ls -A "
	"\"$from\")\"; fi\n"
	"rm -rf -- \"skills/$1\"; mv -- \"$from\" \"skills/$1\"";

static const char clear[] = "rm -rf skills/.skill-stage-*; for d; do rm -rf -- \"skills/$d\"; done; rmdir "
			    "skills 2>/dev/null; true";

static const char *member(const cJSON *j, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	return s ? s : "";
}

/* The directory that a name gives; malloc'ed. */
static char *dir_of(const char *name, const char *id)
{
	const char *last = strrchr(name, '/');
	size_t n;

	name = last ? last + 1 : name;
	name += strspn(name, " \t\n");
	n = strlen(name);
	while (n && strchr(" \t\n", name[n - 1]))
		n--;
	if (n == 0 || n > 200 || *name == '.')
		return pf_strdup(id);
	return strndup(name, n);
}

static bool get(struct pf_http *h, const char *bearer, const char *path, struct pf_http_resp *resp)
{
	struct pf_http_req req = {.method = "GET", .path = path, .bearer = bearer, .timeout_ms = REQUEST_MS};
	struct pf_err err = PF_ERR_INIT;

	if (pf_http_retry(h, &req, resp, &err) == 0 && resp->status == 200)
		return true;
	if (resp->status)
		(void)pf_http_fail(resp, "skill", &err);
	pf_wlog("warning", "%s", err.msg);
	pf_http_resp_done(resp);
	return false;
}

void pf_skills_resolve(struct pf_http *h, const char *bearer, const cJSON *session, struct pf_skills *s)
{
	const cJSON *agent = cJSON_GetObjectItemCaseSensitive(session, "agent"),
		    *list = cJSON_GetObjectItemCaseSensitive(agent, "skills"), *item;

	s->list = pf_calloc(SKILLS_MAX, sizeof(*s->list));
	cJSON_ArrayForEach(item, list)
	{
		struct pf_http_resp resp;
		struct pf_err err = PF_ERR_INIT;
		const char *plain = member(item, "skill_id");
		if (s->n == SKILLS_MAX || pf_check_id("skill", plain, &err) < 0)
			continue;
		PF_FREE char *version =
			pf_url_word(*member(item, "version") ? member(item, "version") : "latest");
		PF_FREE char *path = pf_asprintf("/v1/skills/%s/versions/%s", plain, version);
		if (!get(h, bearer, path, &resp))
			continue;
		cJSON *j = cJSON_ParseWithLength(resp.body.data, resp.body.len);
		pf_http_resp_done(&resp);
		if (*member(j, "id"))
			s->list[s->n++] = (struct pf_skill){.id = pf_strdup(plain),
				.version = pf_url_word(member(j, "id")),
				.dir = dir_of(member(j, "name"), plain)};
		cJSON_Delete(j);
	}
}

void pf_skills_install(const struct pf_skills *s, struct pf_http *h, const char *bearer,
	const struct pf_box_opts *o, const char *id)
{
	for (size_t i = 0; i < s->n; i++) {
		const struct pf_skill *k = &s->list[i];
		const char *words[] = {"exec", id, "--timeout", "120s", "--", "/bin/sh", "-c", unpack,
			"skill", k->dir, NULL};
		PF_FREE char *path = pf_asprintf("/v1/skills/%s/versions/%s/content", k->id, k->version);
		struct pf_http_resp resp;
		struct pf_err err = PF_ERR_INIT;
		if (!get(h, bearer, path, &resp))
			continue;
		if (pf_box_feed(o, words, resp.body.data, resp.body.len, NULL, &err) < 0)
			pf_wlog("warning", "skill %s: %s", k->id, err.msg);
		else
			pf_wlog("info", "skill %s in skills/%s", k->id, k->dir);
		pf_http_resp_done(&resp);
	}
}

void pf_skills_remove(const struct pf_skills *s, const struct pf_box_opts *o, const char *id)
{
	const char *words[SKILLS_MAX + 10] = {
		"exec", id, "--timeout", "60s", "--", "/bin/sh", "-c", clear, "skills"};
	struct pf_err err = PF_ERR_INIT;

	if (s->n == 0)
		return;
	for (size_t i = 0; i < s->n; i++)
		words[9 + i] = s->list[i].dir;
	if (pf_box_run(o, words, NULL, NULL, &err) < 0)
		pf_wlog("warning", "skills: %s", err.msg);
}

void pf_skills_done(struct pf_skills *s)
{
	for (size_t i = 0; i < s->n; i++) {
		free(s->list[i].id);
		free(s->list[i].version);
		free(s->list[i].dir);
	}
	free(s->list);
	*s = (struct pf_skills){0};
}
