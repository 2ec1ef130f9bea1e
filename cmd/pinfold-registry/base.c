/* Theory of operation: a checkpoint is a difference to its image. Where the registry has the very image, by
 * the digest of its manifest, in the repository that is pushed to or in the one to mount from, what is pushed
 * refers to its layers, and is whole without a byte of them being sent. Nothing that is found on the way is
 * an error: then it is pushed without them. */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "checkpoint/oci.h"
#include "cmd/pinfold-registry/registry.h"

#define MAX_DOCUMENT ((size_t)4 << 20)

static const char *text_of(const cJSON *o, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
}

/* A document of repo by its digest, compared with it; NULL: it is not there, or not what it should be. */
static cJSON *fetch(struct reg *r, const char *repo, const char *kind, const char *digest)
{
	static const char *const headers[] = {"Accept: " PF_OCI_MANIFEST_TYPE
					      ", application/vnd.docker.distribution.manifest.v2+json",
		NULL};
	PF_FREE char *url = pf_asprintf(
		"%s://%s/v2/%s/%s/%s", r->plain_http ? "http" : "https", r->ref.host, repo, kind, digest);
	const struct reg_request q = {.method = "GET",
		.url = url,
		.headers = strcmp(kind, "manifests") == 0 ? headers : NULL,
		.fd = -1,
		.max = MAX_DOCUMENT,
		.retry = true};
	struct pf_err ignored = PF_ERR_INIT;
	struct reg_reply a = {0};
	struct pf_digest is;
	cJSON *j = NULL;

	if (reg_send(r, &q, &a, &ignored) == 0 && a.status == 200 && a.text) {
		pf_sha256_digest(a.text, a.len, &is);
		if (strcmp(is.s, digest) == 0)
			j = pf_json_parse(kind, a.text, a.len, &ignored);
	}
	reg_reply_done(&a);
	return j;
}

static bool all_there(struct reg *r, const cJSON *layers, struct reg_stats *s)
{
	struct pf_err ignored = PF_ERR_INIT;
	const cJSON *l;

	cJSON_ArrayForEach(l, layers)
	{
		const char *d = text_of(l, "digest");
		if (!d || !pf_digest_ok(d) || reg_has(r, d, s, &ignored) != 1)
			return false;
	}
	return true;
}

static cJSON *find_in(struct reg *r, const char *repo, const char *manifest_digest, const char *config_digest,
	struct reg_stats *s)
{
	PF_JSON cJSON *manifest = fetch(r, repo, "manifests", manifest_digest);
	cJSON *layers = cJSON_GetObjectItemCaseSensitive(manifest, "layers");
	const char *named = text_of(cJSON_GetObjectItemCaseSensitive(manifest, "config"), "digest");

	if (!named || strcmp(named, config_digest) != 0 || !cJSON_IsArray(layers))
		return NULL;
	PF_JSON cJSON *config = fetch(r, repo, "blobs", config_digest);
	cJSON *diff_ids = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(config, "rootfs"), "diff_ids");
	if (!cJSON_IsArray(diff_ids) || cJSON_GetArraySize(diff_ids) != cJSON_GetArraySize(layers) ||
		!all_there(r, layers, s))
		return NULL;
	static const char *const members[] = {"Env", "Entrypoint", "Cmd", "WorkingDir", "User"};
	const cJSON *inner = cJSON_GetObjectItemCaseSensitive(config, "config");
	cJSON *out = cJSON_CreateObject(), *kept = cJSON_CreateObject();
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
		const cJSON *m = cJSON_GetObjectItemCaseSensitive(inner, members[i]);
		if (m)
			cJSON_AddItemToObject(kept, members[i], cJSON_Duplicate(m, true));
	}
	cJSON_AddItemToObject(out, "layers", cJSON_Duplicate(layers, true));
	cJSON_AddItemToObject(out, "diff_ids", cJSON_Duplicate(diff_ids, true));
	cJSON_AddItemToObject(out, "config", kept);
	return out;
}

cJSON *reg_find_base(
	struct reg *r, const char *manifest_digest, const char *config_digest, struct reg_stats *s)
{
	if (!manifest_digest || !config_digest || !pf_digest_ok(manifest_digest) ||
		!pf_digest_ok(config_digest))
		return NULL;
	cJSON *found = find_in(r, r->ref.repo, manifest_digest, config_digest, s);
	return found || !r->mount_from ? found : find_in(r, r->mount_from, manifest_digest, config_digest, s);
}
