/* Who we are to a registry: the files that podman, skopeo and docker keep. A password never comes from the
 * command line, where everybody on the machine could read it. */
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "cmd/pinfold-registry/registry.h"

static int decode(const char *text, struct reg_auth *out)
{
	size_t len = strlen(text);
	PF_FREE char *plain = pf_calloc(len + 4, 1);
	char *colon;

	if (len == 0 || len > 65536 || len % 4 != 0 ||
		EVP_DecodeBlock((unsigned char *)plain, (const unsigned char *)text, (int)len) < 0)
		return -1;
	colon = strchr(plain, ':');
	if (!colon)
		return -1;
	*colon = '\0';
	out->user = pf_strdup(plain);
	out->password = pf_strdup(colon + 1);
	OPENSSL_cleanse(plain, len);
	return 0;
}

/* The entry that names the most of host/repo. */
static const char *best_entry(const cJSON *auths, const struct reg_ref *ref)
{
	PF_FREE char *whole = pf_asprintf("%s/%s", ref->host, ref->repo);
	const cJSON *e;
	const char *best = NULL;
	size_t longest = 0;

	cJSON_ArrayForEach(e, auths)
	{
		const char *key = e->string,
			   *auth = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "auth"));
		if (strncmp(key, "https://", 8) == 0)
			key += 8;
		size_t n = strlen(key);
		while (n && key[n - 1] == '/')
			n--;
		if (auth && n > longest && strncmp(whole, key, n) == 0 &&
			(whole[n] == '\0' || whole[n] == '/')) {
			longest = n;
			best = auth;
		}
	}
	return best;
}

static int look_in(const char *path, const struct reg_ref *ref, struct reg_auth *out, struct pf_err *err)
{
	if (access(path, F_OK) < 0)
		return 0;
	PF_JSON cJSON *doc = pf_json_load(path, err);
	if (!doc)
		return pf_wrap(err, "credentials");
	const char *auth = best_entry(cJSON_GetObjectItemCaseSensitive(doc, "auths"), ref);
	if (!auth)
		return 0;
	if (decode(auth, out) < 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: the entry for %s is no user and password",
			path, ref->host);
	return 1;
}

int reg_auth_find(const struct reg_ref *ref, struct reg_auth *out, struct pf_err *err)
{
	const char *own = getenv("REGISTRY_AUTH_FILE"), *run = getenv("XDG_RUNTIME_DIR"),
		   *home = getenv("HOME");
	const char *docker = getenv("DOCKER_CONFIG");
	char *paths[3];
	int r = 0;

	if (own)
		return look_in(own, ref, out, err) < 0 ? -1 : 0;
	paths[0] = pf_asprintf("%s/containers/auth.json", run ? run : "/run/containers/0");
	paths[1] = pf_asprintf("%s/.config/containers/auth.json", home ? home : "/root");
	paths[2] = docker ? pf_asprintf("%s/config.json", docker)
			  : pf_asprintf("%s/.docker/config.json", home ? home : "/root");
	for (size_t i = 0; i < 3 && r == 0; i++)
		r = look_in(paths[i], ref, out, err);
	for (size_t i = 0; i < 3; i++)
		free(paths[i]);
	return r < 0 ? -1 : 0;
}
