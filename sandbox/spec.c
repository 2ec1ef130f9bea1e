/* config.json as a whole; its parts are in spec_process.c, spec_mount.c and spec_linux.c. */
#include "sandbox/spec.h"

#include <ctype.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "base/sys.h"
#include "sandbox/spec_internal.h"

int pf_spec_invalid(struct pf_err *err, const char *where, const char *text)
{
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: %s", where, text);
}

int pf_spec_word(const struct pf_spec_word *words, const char *where, const char *word, uint64_t *out,
	struct pf_err *err)
{
	const char *names[64];
	size_t n = 0;

	for (; words->name && n < 63; words++) {
		if (strcmp(words->name, word) == 0) {
			*out = words->value;
			return 0;
		}
		names[n++] = words->name;
	}
	names[n] = NULL;
	const char *near = pf_nearest(word, names);
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: unknown '%.60s'%s%s%s", where, word,
		near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
}

int pf_spec_flags(const cJSON *obj, const char *where, const char *key, const struct pf_spec_word *words,
	uint64_t *out, struct pf_err *err)
{
	const cJSON *arr = NULL, *f;
	char at[64];

	snprintf(at, sizeof(at), "%s.%s", where, key);
	if (pf_json_arr(obj, where, key, &arr, err) < 0)
		return -1;
	cJSON_ArrayForEach(f, arr)
	{
		uint64_t v = 0;
		if (!cJSON_IsString(f))
			return pf_spec_invalid(err, at, "must be an array of strings");
		if (pf_spec_word(words, at, f->valuestring, &v, err) < 0)
			return -1;
		*out |= v;
	}
	return 0;
}

int pf_spec_cpu_list(
	const char *where, const char *text, unsigned long *set, size_t n_longs, struct pf_err *err)
{
	const unsigned long bits = sizeof(long) * CHAR_BIT, max = n_longs * bits;
	const char *p = text;

	memset(set, 0, n_longs * sizeof(*set));
	for (;;) {
		char *end;
		if (!isdigit((unsigned char)*p))
			break;
		unsigned long first = strtoul(p, &end, 10), last = first;
		p = end;
		if (*p == '-') {
			if (!isdigit((unsigned char)p[1]))
				break;
			last = strtoul(p + 1, &end, 10);
			p = end;
		}
		if (first > last || last >= max)
			break;
		for (unsigned long i = first; i <= last; i++)
			set[i / bits] |= 1UL << (i % bits);
		if (*p == '\0')
			return 0;
		if (*p++ != ',')
			break;
	}
	return pf_fail_kind(
		err, PF_ERR_INVALID, 0, "%s: '%.60s' is not a list like 0-3,7 (below %lu)", where, text, max);
}

bool pf_spec_own_ns(const struct pf_spec *spec, uint64_t flag)
{
	for (size_t i = 0; i < spec->n_joins; i++)
		if (spec->joins[i].flag == flag)
			return true;
	return (spec->clone_flags & flag) != 0;
}

static int parse_top(const cJSON *document, struct pf_spec *spec, const cJSON **linux_, struct pf_err *err)
{
	const cJSON *process = NULL, *root = NULL, *mounts = NULL, *hooks = NULL, *m;
	const char *hostname = NULL, *domainname = NULL, *path = NULL;

	if (!cJSON_IsObject(document))
		return pf_spec_invalid(err, "config.json", "must be an object");
	if (pf_json_obj(document, "", "process", &process, err) < 0 ||
		pf_json_obj(document, "", "root", &root, err) < 0 ||
		pf_json_arr(document, "", "mounts", &mounts, err) < 0 ||
		pf_json_obj(document, "", "hooks", &hooks, err) < 0 ||
		pf_json_obj(document, "", "annotations", &spec->annotations, err) < 0 ||
		pf_json_obj(document, "", "linux", linux_, err) < 0 ||
		pf_json_str(document, "", "hostname", &hostname, err) < 0 ||
		pf_json_str(document, "", "domainname", &domainname, err) < 0)
		return -1;
	if (!process || !*linux_)
		return pf_spec_invalid(err, "config.json", "needs process and linux");
	if (pf_process_parse(process, "process", &spec->process, err) < 0)
		return -1;
	if (root && (pf_json_str(root, "root", "path", &path, err) < 0 ||
			    pf_json_bool(root, "root", "readonly", &spec->root_readonly, err) < 0))
		return -1;
	if (path)
		spec->root_path = pf_strdup(path);
	if (hostname && *hostname)
		spec->hostname = pf_strdup(hostname);
	if (domainname && *domainname)
		spec->domainname = pf_strdup(domainname);
	cJSON_ArrayForEach(m, spec->annotations)
	{
		if (!cJSON_IsString(m))
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "annotations.%.100s: must be a string", m->string);
	}
	spec->mounts = pf_calloc((size_t)cJSON_GetArraySize(mounts), sizeof(*spec->mounts));
	cJSON_ArrayForEach(m, mounts)
	{
		/* Counted first: what a failing parse allocated is freed with the rest. */
		size_t i = spec->n_mounts++;
		if (pf_spec_mount(m, i, &spec->mounts[i], err) < 0)
			return -1;
	}
	return pf_hooks_parse(hooks, spec->hooks, err);
}

/* What only makes sense together. */
static int check_whole(const struct pf_spec *spec, struct pf_err *err)
{
	if ((spec->hostname || spec->domainname) && !pf_spec_own_ns(spec, CLONE_NEWUTS))
		return pf_spec_invalid(err, spec->hostname ? "hostname" : "domainname",
			"needs a uts namespace in linux.namespaces");
	for (size_t i = 0; i < spec->n_mounts; i++)
		if (spec->mounts[i].idmap && spec->mounts[i].n_uid_maps == 0 &&
			spec->mounts[i].kind == PF_MOUNT_BIND && !pf_spec_own_ns(spec, CLONE_NEWUSER))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"mounts: %s: idmap without uidMappings and gidMappings needs a user "
				"namespace",
				spec->mounts[i].destination);
	return 0;
}

int pf_spec_parse(cJSON *document, struct pf_spec *spec, struct pf_err *err)
{
	const cJSON *linux_ = NULL;

	*spec = (struct pf_spec){.document = document};
	if (parse_top(document, spec, &linux_, err) == 0 && pf_spec_linux(linux_, spec, err) == 0 &&
		check_whole(spec, err) == 0)
		return 0;
	pf_spec_done(spec);
	return -1;
}

void pf_spec_done(struct pf_spec *spec)
{
	pf_process_done(&spec->process);
	free(spec->root_path);
	free(spec->hostname);
	free(spec->domainname);
	for (size_t i = 0; i < spec->n_mounts; i++)
		pf_spec_mount_done(&spec->mounts[i]);
	free(spec->mounts);
	pf_hooks_done(spec->hooks);
	pf_spec_linux_done(spec);
	cJSON_Delete(spec->document);
	*spec = (struct pf_spec){0};
}
