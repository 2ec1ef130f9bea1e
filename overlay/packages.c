/* Theory of operation: which packages on which image. An image with packages is known by what went into it:
 * the digest of the image below, and the lists, in one spelling. So whoever asks for the same finds it,
 * whatever the lists' order was and whoever had it made. */
#include "overlay/packages.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"

#define NAME_MAX_LEN 256
#define TAG_LEN 40

const char *const pf_package_managers[] = {"apt", "cargo", "gem", "go", "npm", "pip", NULL};

static bool good_name(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > NAME_MAX_LEN || *s == '-')
		return false;
	for (; *s; s++)
		if (*s <= 0x20 || *s >= 0x7f)
			return false;
	return true;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int read_list(
	const cJSON *packages, const char *where, const char *manager, cJSON *out, struct pf_err *err)
{
	char **names = NULL;
	int r = 0;

	if (pf_json_strv(packages, where, manager, &names, err) < 0)
		return -1;
	size_t n = pf_strv_len(names);
	for (size_t i = 0; i < n && r == 0; i++)
		if (!good_name(names[i]))
			r = pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.%s: '%.64s' is not a package name",
				where, manager, names[i]);
	if (r == 0 && n) {
		qsort(names, n, sizeof(*names), by_name);
		cJSON *list = cJSON_AddArrayToObject(out, manager);
		for (size_t i = 0; i < n; i++)
			if (i == 0 || strcmp(names[i - 1], names[i]) != 0)
				cJSON_AddItemToArray(list, cJSON_CreateString(names[i]));
	}
	pf_strv_free(names);
	return r;
}

cJSON *pf_packages_read(const cJSON *packages, const char *where, struct pf_err *err)
{
	PF_JSON cJSON *out = cJSON_CreateObject();

	if (!cJSON_IsObject(packages)) {
		pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s: must be an object of lists by package manager", where);
		return NULL;
	}
	if (pf_json_known(packages, where, pf_package_managers, err) < 0)
		return NULL;
	for (const char *const *m = pf_package_managers; *m; m++)
		if (read_list(packages, where, *m, out, err) < 0)
			return NULL;
	return pf_take(out);
}

char *pf_packages_text(const char *image_digest, const cJSON *packages)
{
	PF_FREE char *lists = pf_json_text(packages);

	return pf_asprintf("1\n%s\n%s\n", image_digest, lists);
}

char *pf_packages_ref(const char *digest)
{
	const char *hex = strchr(digest, ':');

	return pf_asprintf("packages:%.*s", TAG_LEN, hex ? hex + 1 : digest);
}
