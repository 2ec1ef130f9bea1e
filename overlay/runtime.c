/* Theory of operation
 *
 * A sandbox file may say "python3.9" where others would name an image. The table (images/runtimes.json) tells
 * which image brings which version of which language:
 *
 *   {"python": {"aliases": ["py"], "images": [{"version": "3.11", "image": "python"}], "host":
 * ["usr/bin/python3.%"]}}
 *
 * The host's own interpreters are found by name: in "host", % stands for the last number of the version,
 * which keeps this to reading one directory; where a program's name has no version ("node"), "host_version"
 * names a file whose text holds it as "#define KEY_MAJOR 20". Candidates are the table's images that are in
 * the store, the host, and last the table's images that are not in the store (so that the error that follows
 * names how to get them). Older versions never stand in for newer ones: what was written for 3.12 may not
 * start on 3.11. */
#include "overlay/runtime.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "overlay/image.h"

struct version {
	long major, minor; /* minor -1: not said */
};

struct candidate {
	struct version v;
	char *image;
	int rank; /* 0 stored image, 1 host, 2 image that is not in the store */
};

struct candidates {
	struct candidate v[64];
	size_t n;
};

static bool parse_version(const char *s, struct version *v)
{
	char *end;

	*v = (struct version){-1, -1};
	if (!isdigit((unsigned char)*s))
		return false;
	v->major = strtol(s, &end, 10);
	if (*end == '.' && isdigit((unsigned char)end[1]))
		v->minor = strtol(end + 1, &end, 10);
	/* A patch level ("3.11.4") is finer than what images are chosen by. */
	if (*end == '.' && isdigit((unsigned char)end[1]))
		(void)strtol(end + 1, &end, 10);
	return *end == '\0' && v->major < 10000 && v->minor < 10000;
}

/* "python3.9" → "python" and 3.9; "node:20", "node-20", "python" too. */
static int split(const char *runtime, char **language, struct version *v, struct pf_err *err)
{
	size_t n = 0;

	while (isalpha((unsigned char)runtime[n]) || runtime[n] == '+' || runtime[n] == '#')
		n++;
	const char *rest = runtime + n;
	if (*rest == ':' || *rest == '-' || *rest == '@' || *rest == ' ')
		rest++;
	*v = (struct version){-1, -1};
	if (n == 0 || n > 40 || (*rest ? !parse_version(rest, v) : runtime[n] != '\0'))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"runtime '%.80s' must be a language and a version, like python3.11 or node20",
			runtime);
	*language = pf_asprintf("%.*s", (int)n, runtime);
	for (char *c = *language; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	return 0;
}

static const cJSON *find_language(const cJSON *table, const char *name)
{
	const cJSON *lang, *alias;

	cJSON_ArrayForEach(lang, table)
	{
		if (strcmp(lang->string, name) == 0)
			return lang;
		cJSON_ArrayForEach(alias, cJSON_GetObjectItemCaseSensitive(lang, "aliases"))
		{
			if (cJSON_IsString(alias) && strcmp(alias->valuestring, name) == 0)
				return lang;
		}
	}
	return NULL;
}

static void add(struct candidates *c, struct version v, const char *image, int rank)
{
	if (c->n < sizeof(c->v) / sizeof(c->v[0]))
		c->v[c->n++] = (struct candidate){v, pf_strdup(image), rank};
}

static bool is_stored(const char *store, const char *ref)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *name = pf_image_ref_normalize(ref, &err);

	if (!name)
		return false;
	PF_FREE char *file = pf_image_ref_file(name);
	PF_FREE char *path = pf_asprintf("%s/images/refs/%s", store, file);
	return access(path, F_OK) == 0;
}

static int add_images(const cJSON *lang, const char *store, struct candidates *c, struct pf_err *err)
{
	const cJSON *images = NULL, *img;

	if (pf_json_arr(lang, lang->string, "images", &images, err) < 0)
		return -1;
	cJSON_ArrayForEach(img, images)
	{
		const char *version = NULL, *image = NULL;
		struct version v;
		if (pf_json_str(img, lang->string, "version", &version, err) < 0 ||
			pf_json_str(img, lang->string, "image", &image, err) < 0)
			return -1;
		if (!version || !image || !parse_version(version, &v))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"runtimes table: %s: a bad version or image", lang->string);
		if (strcmp(image, "host") != 0)
			add(c, v, image, is_stored(store, image) ? 0 : 2);
	}
	return 0;
}

/* "usr/bin/python3.%": every number that stands for % in that directory, after the version before it. Without
 * % the program is there or not, in a version that is not asked after. */
static void add_host_names(const char *pattern, struct candidates *c)
{
	const char *slash = strrchr(pattern, '/'), *percent = strchr(pattern, '%');
	struct dirent *e;

	if (!percent) {
		PF_FREE char *path = pf_asprintf("/%s", pattern);
		if (access(path, X_OK) == 0)
			add(c, (struct version){-1, -1}, "host", 1);
		return;
	}
	if (!slash || percent < slash)
		return;
	PF_FREE char *dir = pf_asprintf("/%.*s", (int)(slash - pattern), pattern);
	PF_FREE char *prefix = pf_asprintf("%.*s", (int)(percent - slash - 1), slash + 1);
	PF_CLOSEDIR DIR *d = opendir(dir);
	size_t plen = strlen(prefix), at = strcspn(prefix, "0123456789");
	while (d && (e = readdir(d))) {
		struct version v;
		if (strncmp(e->d_name, prefix, plen) == 0 && isdigit((unsigned char)e->d_name[plen]) &&
			parse_version(e->d_name + at, &v))
			add(c, v, "host", 1);
	}
}

/* {"program": "/usr/bin/node", "file": "/usr/include/node/node_version.h", "key": "NODE_MAJOR_VERSION"} */
static void add_host_header(const cJSON *hv, struct candidates *c)
{
	const char *program = NULL, *file = NULL, *key = NULL;
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_json_str(hv, "", "program", &program, &ignored) <= 0 ||
		pf_json_str(hv, "", "file", &file, &ignored) <= 0 ||
		pf_json_str(hv, "", "key", &key, &ignored) <= 0 || access(program, X_OK) < 0 ||
		pf_read_file_at(AT_FDCWD, file, 1 << 20, &text, NULL, &ignored) < 0)
		return;
	PF_FREE char *want = pf_asprintf("#define %s ", key);
	const char *at = strstr(text, want);
	if (at && isdigit((unsigned char)at[strlen(want)]))
		add(c, (struct version){strtol(at + strlen(want), NULL, 10), -1}, "host", 1);
}

static void add_host(const cJSON *lang, struct candidates *c)
{
	const cJSON *p;

	cJSON_ArrayForEach(p, cJSON_GetObjectItemCaseSensitive(lang, "host"))
	{
		if (cJSON_IsString(p))
			add_host_names(p->valuestring, c);
	}
	p = cJSON_GetObjectItemCaseSensitive(lang, "host_version");
	if (cJSON_IsObject(p))
		add_host_header(p, c);
}

/* How far c is above what is wanted; negative when it cannot stand in. A version without a minor fits any of
 * its major. */
static long distance(struct version have, struct version want)
{
	if (want.major < 0 || have.major < 0)
		return 0;
	if (have.major != want.major) {
		/* For languages numbered by major alone (node 18, 20, 22) the next major is the next version.
		 */
		return have.minor < 0 && want.minor < 0 && have.major > want.major ? have.major - want.major
										   : -1;
	}
	if (want.minor < 0 || have.minor < 0)
		return 0;
	return have.minor - want.minor;
}

static int newer(struct version a, struct version b)
{
	if (a.major != b.major)
		return a.major > b.major ? 1 : -1;
	return (a.minor > b.minor) - (a.minor < b.minor);
}

static const struct candidate *choose(
	const struct candidates *c, struct version want, bool strict, long *dist)
{
	const struct candidate *best = NULL;

	for (size_t i = 0; i < c->n; i++) {
		const struct candidate *x = &c->v[i];
		long d = distance(x->v, want);
		if (d < 0 || (strict && d > 0))
			continue;
		/* Nearest first; without a wanted minor what needs no download, then the newest. */
		bool better = !best || d < *dist;
		if (best && d == *dist)
			better = x->rank < best->rank || (x->rank == best->rank && newer(x->v, best->v) > 0);
		if (better) {
			best = x;
			*dist = d;
		}
	}
	return best;
}

static void version_text(struct version v, char out[48])
{
	if (v.major < 0)
		snprintf(out, 48, "any");
	else if (v.minor < 0)
		snprintf(out, 48, "%ld", v.major);
	else
		snprintf(out, 48, "%ld.%ld", v.major, v.minor);
}

static int unknown_language(const cJSON *table, const char *name, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};
	const cJSON *lang;

	pf_buf_str(&b, "");
	cJSON_ArrayForEach(lang, table)
	{
		pf_buf_printf(&b, "%s%s", b.len ? ", " : "", lang->string);
	}
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "no runtime for '%s'; there are: %s (or name an image)",
		name, b.data ? b.data : "none");
}

static int no_version(
	const cJSON *lang, const struct candidates *c, const char *runtime, bool strict, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};

	pf_buf_str(&b, "");
	for (size_t i = 0; i < c->n; i++) {
		char text[48];
		version_text(c->v[i].v, text);
		pf_buf_printf(&b, "%s%s %s (%s)", i ? ", " : "", lang->string, text, c->v[i].image);
	}
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "no image brings %s%s; there are: %s", runtime,
		strict ? " exactly" : " or a newer version of it", c->n ? b.data : "none");
}

int pf_runtime_map(const cJSON *table, const char *store, const char *runtime, bool strict, char **image_ref,
	char **note, struct pf_err *err)
{
	PF_FREE char *language = NULL;
	struct candidates c = {.n = 0};
	struct version want;
	long dist = 0;
	int r = -1;

	*note = NULL;
	if (split(runtime, &language, &want, err) < 0)
		return -1;
	const cJSON *lang = find_language(table, language);
	if (!lang)
		return unknown_language(table, language, err);
	if (add_images(lang, store, &c, err) == 0) {
		add_host(lang, &c);
		const struct candidate *best = choose(&c, want, strict, &dist);
		if (!best) {
			no_version(lang, &c, runtime, strict, err);
		} else {
			*image_ref = pf_strdup(best->image);
			if (dist > 0) {
				char text[48];
				version_text(best->v, text);
				*note = pf_asprintf("runtime %s is not there; using %s %s, the nearest newer "
						    "version (image %s)",
					runtime, lang->string, text, best->image);
			}
			r = 0;
		}
	}
	for (size_t i = 0; i < c.n; i++)
		free(c.v[i].image);
	return r;
}
