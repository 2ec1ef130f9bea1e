/* Theory of operation
 *
 * Parsing goes from the outside in and stops at the first thing that is wrong: first the shape (every key of
 * every object is known), then each setting in whichever spelling it was given, then what settings say about
 * each other. *out holds nothing unless all of it passed. A default that protects (no network, a bound on
 * processes, no swap) is applied here, so that no caller can forget it. */
#include "session/config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "session/config_read.h"

#define MAX_STRING 131071 /* what execve(2) takes for one argument or variable */
#define MIN_MEMORY ((int64_t)1 << 20)
#define MAX_CPU 8191
#define MIN_EVERY_MS 1000

static int read_identity(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at name = pf_cfg_at(doc, "", "name"), image = pf_cfg_at(doc, "", "image");
	struct pf_cfg_at runtime = pf_cfg_at(doc, "", "runtime"),
			 strict = pf_cfg_at(doc, "", "strict_runtime");

	if (pf_cfg_text(&name, 256, &c->name, err) < 0 || pf_cfg_text(&image, 512, &c->image, err) < 0 ||
		pf_cfg_text(&runtime, 64, &c->runtime, err) < 0 ||
		pf_cfg_bool(&strict, &c->strict_runtime, err) < 0)
		return -1;
	if (c->image && (c->image[0] == '-' || strchr(c->image, ' ')))
		return pf_cfg_bad(&image, err, "'%.64s' is not an image reference", c->image);
	if (c->image && c->runtime)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"'image' and 'runtime' both choose what the sandbox starts from: give one of them");
	if (c->strict_runtime && !c->runtime)
		return pf_cfg_bad(&strict, err, "has no effect without runtime");
	return 0;
}

static int read_env(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at at = pf_cfg_at(doc, "", "env");

	if (!at.node)
		return 0;
	if (!cJSON_IsObject(at.node))
		return pf_cfg_bad(&at, err, "must be an object of strings");
	free(c->env);
	c->env = pf_calloc((size_t)cJSON_GetArraySize(at.node) + 1, sizeof(char *));
	size_t n = 0;
	for (const cJSON *v = at.node->child; v; v = v->next) {
		const char *k = v->string;
		bool ok = *k && !isdigit((unsigned char)*k);
		for (const char *p = k; *p; p++)
			ok = ok && (isalnum((unsigned char)*p) || *p == '_');
		if (!ok)
			return pf_cfg_bad(&at, err,
				"'%.64s' is not a variable name (letters, digits and '_', not a digit first)",
				k);
		if (!cJSON_IsString(v))
			return pf_cfg_bad(&at, err, "'%.64s' must be a string", k);
		if (strlen(k) + 1 + strlen(v->valuestring) > MAX_STRING)
			return pf_cfg_bad(&at, err, "'%.64s' is longer than %d bytes", k, MAX_STRING);
		c->env[n++] = pf_asprintf("%s=%s", k, v->valuestring);
	}
	return 0;
}

static bool is_hostname(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > 63 || s[0] == '-' || s[0] == '.' || s[n - 1] == '-' || s[n - 1] == '.')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '-' && !(*s == '.' && s[1] != '.'))
			return false;
	return true;
}

static int read_process(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at command = pf_cfg_at(doc, "", "command"), user = pf_cfg_at(doc, "", "user");
	struct pf_cfg_at workdir = pf_cfg_at(doc, "", "workdir"), host = pf_cfg_at(doc, "", "hostname");

	if (pf_cfg_strings(&command, &c->command, err) < 0 || read_env(doc, c, err) < 0 ||
		pf_cfg_one_path(&workdir, &c->workdir, err) < 0 ||
		pf_cfg_text(&host, 63, &c->hostname, err) < 0)
		return -1;
	if (command.node && (!c->command[0] || !*c->command[0]))
		return pf_cfg_bad(&command, err, "must begin with the program to run");
	for (char **p = c->command; *p; p++)
		if (strlen(*p) > MAX_STRING)
			return pf_cfg_bad(&command, err, "an argument is longer than %d bytes", MAX_STRING);
	if (c->hostname && !is_hostname(c->hostname))
		return pf_cfg_bad(&host, err, "'%s' is not a host name", c->hostname);
	if (user.node) {
		if (!cJSON_IsString(user.node))
			return pf_cfg_bad(&user, err, "must be a string (as in \"1000\" or \"agent\")");
		return pf_config_user_parse("user", user.node->valuestring, &c->user, err);
	}
	return 0;
}

/* "0-3,5": numbers and rising ranges. */
static bool is_cpuset(const char *s)
{
	for (;;) {
		long range[2] = {-1, -1};
		for (int i = 0; i < 2; i++) {
			size_t n = strspn(s, "0123456789");
			if (n == 0 || n > 4)
				return false;
			range[i] = strtol(s, NULL, 10);
			s += n;
			if (range[i] > MAX_CPU || (i == 1 && range[1] < range[0]))
				return false;
			if (i == 0 && *s != '-')
				break;
			s += i == 0;
		}
		if (!*s)
			return true;
		if (*s++ != ',')
			return false;
	}
}

static int read_resources(const cJSON *doc, struct pf_config_resources *r, struct pf_err *err)
{
	const int64_t max_ops = 1000000000;
	struct pf_cfg_at cpus, memory;
	struct pf_cfg_at weight = pf_cfg_at(doc, "resources", "cpu_weight");
	struct pf_cfg_at set = pf_cfg_at(doc, "resources", "cpuset");
	struct pf_cfg_at swap = pf_cfg_at(doc, "resources", "memory_swap");
	struct pf_cfg_at pids = pf_cfg_at(doc, "resources", "pids");
	struct pf_cfg_at rb = pf_cfg_at(doc, "resources.io", "read_bps");
	struct pf_cfg_at wb = pf_cfg_at(doc, "resources.io", "write_bps");
	struct pf_cfg_at ro = pf_cfg_at(doc, "resources.io", "read_iops");
	struct pf_cfg_at wo = pf_cfg_at(doc, "resources.io", "write_iops");

	if (pf_cfg_find(doc, PF_SET_CPUS, &cpus, err) < 0 ||
		pf_cfg_find(doc, PF_SET_MEMORY, &memory, err) < 0)
		return -1;
	if (pf_cfg_cpus(&cpus, &r->millicpus, err) < 0 ||
		pf_cfg_int(&weight, 1, 10000, &r->cpu_weight, err) < 0 ||
		pf_cfg_text(&set, 1024, &r->cpuset, err) < 0 ||
		pf_cfg_size(&memory, MIN_MEMORY, &r->memory, err) < 0 ||
		pf_cfg_size(&swap, 0, &r->memory_swap, err) < 0 ||
		pf_cfg_int(&pids, 1, 4194304, &r->pids, err) < 0 ||
		pf_cfg_size(&rb, 4096, &r->read_bps, err) < 0 ||
		pf_cfg_size(&wb, 4096, &r->write_bps, err) < 0 ||
		pf_cfg_int(&ro, 1, max_ops, &r->read_iops, err) < 0 ||
		pf_cfg_int(&wo, 1, max_ops, &r->write_iops, err) < 0)
		return -1;
	if (r->cpuset && !is_cpuset(r->cpuset))
		return pf_cfg_bad(&set, err, "'%.64s' is not a list of cpus (as in \"0-3,5\")", r->cpuset);
	if (r->memory_swap > 0 && r->memory < 0)
		return pf_cfg_bad(&swap, err, "has no effect without resources.memory");
	return 0;
}

static const char *const managers[PF_N_MANAGERS] = {[PF_APT] = "apt",
	[PF_CARGO] = "cargo",
	[PF_GEM] = "gem",
	[PF_GO] = "go",
	[PF_NPM] = "npm",
	[PF_PIP] = "pip"};

const char *pf_config_manager_name(enum pf_config_manager m)
{
	return managers[m];
}

/* These names become arguments of package managers: an option or a blank among them would be another command
 * than the one that was written. */
static int check_packages(const struct pf_cfg_at *at, char *const *names, struct pf_err *err)
{
	for (; *names; names++) {
		const char *s = *names;
		bool ok = *s && *s != '-' && strlen(s) <= 256;
		for (; *s; s++)
			ok = ok && *s > 0x20 && *s < 0x7f;
		if (!ok)
			return pf_cfg_bad(at, err, "'%.64s' is not a package name", *names);
	}
	return 0;
}

static int read_packages(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at found;
	const char *type = "packages";

	if (pf_cfg_find(doc, PF_SET_PACKAGES, &found, err) < 0)
		return -1;
	if (!found.node)
		return 0;
	const char *where = *found.where ? "config.packages" : "packages";
	if (pf_json_str(found.node, where, "type", &type, err) < 0)
		return -1;
	if (strcmp(type, "packages") != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.type: must be \"packages\"", where);
	for (int m = 0; m < PF_N_MANAGERS; m++) {
		struct pf_cfg_at at = pf_cfg_in(found.node, where, managers[m]);
		if (pf_cfg_strings(&at, &c->packages[m], err) < 0 ||
			check_packages(&at, c->packages[m], err) < 0)
			return -1;
		c->has_packages |= c->packages[m][0] != NULL;
	}
	return 0;
}

static int read_limits(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_config_limits *l = &c->limits;
	struct pf_cfg_at run, idle = pf_cfg_at(doc, "limits", "idle"), one;

	if (pf_cfg_find(doc, PF_SET_MAX_RUNTIME, &run, err) < 0 ||
		pf_cfg_find(doc, PF_SET_EXEC_TIMEOUT, &one, err) < 0)
		return -1;
	if (pf_cfg_duration(&run, &l->max_runtime_ms, err) < 0 ||
		pf_cfg_duration(&idle, &l->idle_ms, err) < 0 ||
		pf_cfg_duration(&one, &l->exec_timeout_ms, err) < 0)
		return -1;
	return 0;
}

static const char *const on_names[PF_N_ON] = {"exit", "idle", "limit", "signal", "destroy"};

const char *pf_config_on_name(enum pf_config_on on)
{
	return on_names[on];
}

static int read_checkpoint(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_config_checkpoint *k = &c->checkpoint;
	struct pf_cfg_at on = pf_cfg_at(doc, "checkpoint", "on"),
			 every = pf_cfg_at(doc, "checkpoint", "every");
	struct pf_cfg_at keep = pf_cfg_at(doc, "checkpoint", "keep");
	struct pf_cfg_at exclude = pf_cfg_at(doc, "checkpoint", "exclude");
	struct pf_cfg_at pre = pf_cfg_at(doc, "checkpoint", "pre"),
			 post = pf_cfg_at(doc, "checkpoint", "post");
	char **words = NULL;

	if (pf_cfg_strings(&on, &words, err) < 0)
		return -1;
	for (char **w = words; w && *w; w++) {
		size_t i = 0;
		while (i < PF_N_ON && strcmp(*w, on_names[i]) != 0)
			i++;
		if (i == PF_N_ON || k->on[i]) {
			pf_cfg_bad(&on, err,
				i < PF_N_ON ? "'%.64s' is listed twice"
					    : "'%.64s' is not one of exit, idle, limit, signal, destroy",
				*w);
			pf_strv_free(words);
			return -1;
		}
		k->on[i] = true;
	}
	pf_strv_free(words);
	if (pf_cfg_duration(&every, &k->every_ms, err) < 0 ||
		pf_cfg_int(&keep, 1, 10000, &k->keep, err) < 0 || pf_cfg_strings(&pre, &k->pre, err) < 0 ||
		pf_cfg_strings(&post, &k->post, err) < 0 || pf_cfg_paths(&exclude, &k->exclude, err) < 0)
		return -1;
	if (k->on[PF_ON_IDLE] && c->limits.idle_ms < 0)
		return pf_cfg_bad(&on, err, "'idle' has no effect without limits.idle");
	if (k->every_ms >= 0 && k->every_ms < MIN_EVERY_MS)
		return pf_cfg_bad(&every, err, "must be 1s or more");
	if (k->keep >= 0 && k->every_ms < 0) {
		bool any = false;
		for (size_t i = 0; i < PF_N_ON; i++)
			any = any || k->on[i];
		if (!any)
			return pf_cfg_bad(
				&keep, err, "has no effect without checkpoint.on or checkpoint.every");
	}
	return 0;
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct pf_config_label *)a)->key, ((const struct pf_config_label *)b)->key);
}

static bool is_label_key(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n > 128 || !isalnum((unsigned char)s[0]) || !isalnum((unsigned char)s[n - 1]))
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("._-/", *s))
			return false;
	return true;
}

static int read_labels(const cJSON *doc, struct pf_config *c, struct pf_err *err)
{
	struct pf_cfg_at at = pf_cfg_at(doc, "", "labels");

	if (!at.node)
		return 0;
	if (!cJSON_IsObject(at.node))
		return pf_cfg_bad(&at, err, "must be an object of strings");
	size_t n = (size_t)cJSON_GetArraySize(at.node);
	if (n > 256)
		return pf_cfg_bad(&at, err, "more than 256 labels");
	c->labels = pf_calloc(n, sizeof(*c->labels));
	for (const cJSON *v = at.node->child; v; v = v->next) {
		if (!is_label_key(v->string))
			return pf_cfg_bad(&at, err,
				"'%.64s' is not a label key (letters and digits, between them also '.', '_', "
				"'-' "
				"and '/'; at most 128)",
				v->string);
		if (pf_starts_with(v->string, "io.pinfold"))
			return pf_cfg_bad(
				&at, err, "'%s': keys from io.pinfold on are Pinfold's own", v->string);
		if (!cJSON_IsString(v) || strlen(v->valuestring) > 4096)
			return pf_cfg_bad(&at, err, "'%s' must be a string of at most 4096 bytes", v->string);
		c->labels[c->n_labels++] =
			(struct pf_config_label){pf_strdup(v->string), pf_strdup(v->valuestring)};
	}
	qsort(c->labels, n, sizeof(*c->labels), by_key);
	return 0;
}

/* What belongs to the platform that wrote the document: known, checked for its type, and without effect. */
static int read_ignored(const cJSON *doc, struct pf_err *err)
{
	const cJSON *tools = NULL;
	const char *type = "self_hosted";

	if (pf_json_arr(doc, "", "tools", &tools, err) < 0)
		return -1;
	const cJSON *env = pf_cfg_object(doc, "config");
	if (env && pf_json_str(env, "config", "type", &type, err) < 0)
		return -1;
	if (strcmp(type, "self_hosted") != 0 && strcmp(type, "cloud") != 0)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "config.type: must be \"self_hosted\" or \"cloud\"");
	return 0;
}

static void init(struct pf_config *c)
{
	*c = (struct pf_config){
		.user = {.uid = -1, .gid = -1},
		.resources = {.millicpus = -1,
			.cpu_weight = -1,
			.memory = -1,
			.pids = PF_CONFIG_DEFAULT_PIDS,
			.read_bps = -1,
			.write_bps = -1,
			.read_iops = -1,
			.write_iops = -1},
		.filesystem = {.size = -1, .tmp_size = -1},
		.limits = {.max_runtime_ms = -1, .idle_ms = -1, .exec_timeout_ms = -1},
		.checkpoint = {.every_ms = -1, .keep = -1},
	};
	c->command = pf_cfg_empty_list();
	c->env = pf_cfg_empty_list();
	c->warnings = pf_cfg_empty_list();
	c->filesystem.writable_paths = pf_cfg_empty_list();
	c->filesystem.read_only_paths = pf_cfg_empty_list();
	c->checkpoint.exclude = pf_cfg_empty_list();
	c->checkpoint.pre = pf_cfg_empty_list();
	c->checkpoint.post = pf_cfg_empty_list();
	for (int m = 0; m < PF_N_MANAGERS; m++)
		c->packages[m] = pf_cfg_empty_list();
}

int pf_config_parse(const cJSON *doc, struct pf_config *out, struct pf_err *err)
{
	struct pf_config c;

	*out = (struct pf_config){0};
	if (pf_cfg_check_shape(doc, err) < 0)
		return -1;
	init(&c);
	if (read_ignored(doc, err) < 0 || read_identity(doc, &c, err) < 0 || read_process(doc, &c, err) < 0 ||
		read_resources(doc, &c.resources, err) < 0 || pf_cfg_filesystem(doc, &c, err) < 0 ||
		pf_cfg_networking(doc, &c, err) < 0 || read_packages(doc, &c, err) < 0 ||
		pf_cfg_credentials(doc, &c, err) < 0 || read_limits(doc, &c, err) < 0 ||
		read_checkpoint(doc, &c, err) < 0 || read_labels(doc, &c, err) < 0) {
		pf_config_done(&c);
		return -1;
	}
	if (c.filesystem.access == PF_ACCESS_TEMP_ONLY && !c.workdir)
		c.workdir = pf_strdup("/tmp");
	*out = c;
	return 0;
}

int pf_config_load(const char *path, struct pf_config *out, struct pf_err *err)
{
	*out = (struct pf_config){0};
	PF_JSON cJSON *doc = pf_json_load(path, err);

	if (!doc)
		return -1;
	if (pf_config_parse(doc, out, err) < 0)
		return pf_wrap(err, "%s", strcmp(path, "-") == 0 ? "standard input" : path);
	return 0;
}

void pf_config_done(struct pf_config *c)
{
	char *const texts[] = {c->name, c->image, c->runtime, c->workdir, c->hostname, c->resources.cpuset};
	char **const lists[] = {c->command, c->env, c->warnings, c->filesystem.writable_paths,
		c->filesystem.read_only_paths, c->checkpoint.exclude, c->checkpoint.pre, c->checkpoint.post};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free(texts[i]);
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		pf_strv_free(lists[i]);
	for (int m = 0; m < PF_N_MANAGERS; m++)
		pf_strv_free(c->packages[m]);
	for (size_t i = 0; i < c->filesystem.n_mounts; i++) {
		free(c->filesystem.mounts[i].source);
		free(c->filesystem.mounts[i].target);
	}
	free(c->filesystem.mounts);
	for (size_t i = 0; i < c->n_credentials; i++) {
		free(c->credentials[i].name);
		free(c->credentials[i].type);
		free(c->credentials[i].scope);
		pf_strv_free(c->credentials[i].databases);
	}
	free(c->credentials);
	for (size_t i = 0; i < c->n_labels; i++) {
		free(c->labels[i].key);
		free(c->labels[i].value);
	}
	free(c->labels);
	pf_config_user_done(&c->user);
	cJSON_Delete(c->networking);
	cJSON_Delete(c->credentials_raw);
	*c = (struct pf_config){0};
}
