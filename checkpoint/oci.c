#include "checkpoint/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"

#define MAX_DOC ((size_t)8 << 20)

cJSON *pf_oci_descriptor(const char *type, const struct pf_oci_blob *b)
{
	cJSON *d = cJSON_CreateObject();

	cJSON_AddStringToObject(d, "mediaType", type);
	cJSON_AddStringToObject(d, "digest", b->digest.s);
	pf_json_add_int(d, "size", b->size);
	return d;
}

int pf_oci_descriptor_read(const cJSON *d, const char *what, struct pf_oci_blob *b, struct pf_err *err)
{
	const char *digest = NULL;

	b->size = -1;
	if (!cJSON_IsObject(d) || pf_json_str(d, what, "digest", &digest, err) < 0 ||
		pf_json_int(d, what, "size", 0, INT64_C(1) << 52, &b->size, err) < 0 || !digest ||
		!pf_digest_ok(digest) || b->size < 0)
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "%s: no descriptor with a sha256 digest and a size", what);
	memcpy(b->digest.s, digest, sizeof(b->digest.s));
	return 0;
}

int pf_oci_put_document(int blobs, const char *text, struct pf_oci_blob *b, struct pf_err *err)
{
	pf_sha256_digest(text, strlen(text), &b->digest);
	b->size = (int64_t)strlen(text);
	return pf_replace_file_at(blobs, pf_digest_hex(&b->digest), text, strlen(text), 0600, true, err);
}

int pf_oci_get_document(int blobs, const struct pf_oci_blob *b, char **text, struct pf_err *err)
{
	struct pf_digest got;
	size_t len;

	if (b->size > (int64_t)MAX_DOC)
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "%s is larger than a document may be", b->digest.s);
	if (pf_read_plain_at(blobs, pf_digest_hex(&b->digest), MAX_DOC, text, &len, err) < 0) {
		if (err->kind == PF_ERR_NOT_FOUND)
			err->kind = PF_ERR_CORRUPT;
		return -1;
	}
	pf_sha256_digest(*text, len, &got);
	if ((int64_t)len == b->size && strcmp(got.s, b->digest.s) == 0 && strlen(*text) == len)
		return 0;
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s: content does not match its digest", b->digest.s);
}

int pf_oci_write_layout(
	int dirfd, const char *type, const struct pf_oci_blob *manifest, const char *name, struct pf_err *err)
{
	static const char layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
	PF_JSON cJSON *index = cJSON_CreateObject();

	cJSON_AddNumberToObject(index, "schemaVersion", 2);
	cJSON *list = cJSON_AddArrayToObject(index, "manifests"), *m = pf_oci_descriptor(type, manifest);
	if (*name)
		cJSON_AddStringToObject(cJSON_AddObjectToObject(m, "annotations"), PF_OCI_REF_NAME, name);
	cJSON_AddItemToArray(list, m);
	PF_FREE char *text = pf_json_text(index);
	if (pf_replace_file_at(dirfd, "oci-layout", layout, strlen(layout), 0600, true, err) < 0)
		return -1;
	return pf_replace_file_at(dirfd, "index.json", text, strlen(text), 0600, true, err);
}

cJSON *pf_oci_read_index(int dirfd, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	const cJSON *m;
	size_t len;

	if (pf_read_file_at(dirfd, "index.json", MAX_DOC, &text, &len, err) < 0)
		return NULL;
	cJSON *index = pf_json_parse("index.json", text, len, err);
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(index, "manifests");
	bool good = cJSON_IsArray(list);
	cJSON_ArrayForEach(m, list) good = good && cJSON_IsObject(m);
	if (index && !good) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index.json: no list of manifests");
		cJSON_Delete(index);
		index = NULL;
	}
	return index;
}

const char *pf_oci_note(const cJSON *descriptor, const char *key)
{
	const char *v = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(descriptor, "annotations"), key));

	return v ? v : "";
}

const cJSON *pf_oci_pick(const cJSON *index, const char *ref, struct pf_err *err)
{
	const cJSON *list = cJSON_GetObjectItemCaseSensitive(index, "manifests"), *m;

	if (!ref && cJSON_GetArraySize(list) != 1)
		pf_fail_kind(err, PF_ERR_INVALID, 0, "the layout has %d entries: say which with :NAME",
			cJSON_GetArraySize(list));
	cJSON_ArrayForEach(m, list)
	{
		const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "digest"));
		if (!ref)
			return cJSON_GetArraySize(list) == 1 ? m : NULL;
		if (strcmp(pf_oci_note(m, PF_OCI_REF_NAME), ref) == 0 || (digest && strcmp(digest, ref) == 0))
			return m;
	}
	if (ref)
		pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "the layout has no '%.100s'", ref);
	return NULL;
}

const char *pf_oci_machine(void)
{
	static const char *const map[][2] = {{"x86_64", "amd64"}, {"aarch64", "arm64"}, {"armv7l", "arm"},
		{"i686", "386"}, {"ppc64le", "ppc64le"}, {"s390x", "s390x"}, {"riscv64", "riscv64"}};
	struct utsname u;

	if (uname(&u) == 0)
		for (size_t i = 0; i < sizeof(map) / sizeof(*map); i++)
			if (strcmp(u.machine, map[i][0]) == 0)
				return map[i][1];
	return "unknown";
}
