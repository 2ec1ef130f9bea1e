/* The canonical spelling of a parsed sandbox file: what state files, checkpoints and `inspect` show. Sizes
 * are bytes and durations milliseconds with their unit, so that reading it back gives the same values to the
 * last digit. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "session/config.h"

static void add_text(cJSON *obj, const char *key, const char *value)
{
	if (value)
		cJSON_AddStringToObject(obj, key, value);
}

static void add_number(cJSON *obj, const char *key, int64_t v)
{
	if (v >= 0)
		cJSON_AddNumberToObject(obj, key, (double)v); /* below 2^53 by the parser's ranges */
}

static void add_duration(cJSON *obj, const char *key, int64_t ms)
{
	char text[32];

	if (ms < 0)
		return;
	if (ms % 1000 == 0)
		snprintf(text, sizeof(text), "%" PRId64 "s", ms / 1000);
	else
		snprintf(text, sizeof(text), "%" PRId64 "ms", ms);
	cJSON_AddStringToObject(obj, key, text);
}

static void add_list(cJSON *obj, const char *key, char *const *v)
{
	if (!v || !v[0])
		return;
	cJSON *a = cJSON_AddArrayToObject(obj, key);
	for (; *v; v++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*v));
}

/* Add child under key unless it stayed empty. */
static void add_object(cJSON *obj, const char *key, cJSON *child)
{
	if (child->child)
		cJSON_AddItemToObject(obj, key, child);
	else
		cJSON_Delete(child);
}

static cJSON *resources(const struct pf_config_resources *r)
{
	cJSON *o = cJSON_CreateObject(), *io = cJSON_CreateObject();
	char cpus[32];

	if (r->millicpus >= 0) {
		snprintf(cpus, sizeof(cpus), "%" PRId64 ".%03" PRId64, r->millicpus / 1000,
			r->millicpus % 1000);
		for (size_t n = strlen(cpus); cpus[n - 1] == '0' || cpus[n - 1] == '.'; n--) {
			bool point = cpus[n - 1] == '.';
			cpus[n - 1] = '\0';
			if (point)
				break;
		}
		cJSON_AddStringToObject(o, "cpus", cpus);
	}
	add_number(o, "cpu_weight", r->cpu_weight);
	add_text(o, "cpuset", r->cpuset);
	add_number(o, "memory", r->memory);
	add_number(o, "memory_swap", r->memory_swap);
	add_number(o, "pids", r->pids);
	add_number(io, "read_bps", r->read_bps);
	add_number(io, "write_bps", r->write_bps);
	add_number(io, "read_iops", r->read_iops);
	add_number(io, "write_iops", r->write_iops);
	add_object(o, "io", io);
	return o;
}

static cJSON *filesystem(const struct pf_config_filesystem *fs)
{
	cJSON *o = cJSON_CreateObject();

	cJSON_AddStringToObject(o, "access", pf_config_access_name(fs->access));
	add_number(o, "size", fs->size);
	add_number(o, "tmp_size", fs->tmp_size);
	add_list(o, "writable_paths", fs->writable_paths);
	add_list(o, "read_only_paths", fs->read_only_paths);
	if (fs->n_mounts) {
		cJSON *a = cJSON_AddArrayToObject(o, "mounts");
		for (size_t i = 0; i < fs->n_mounts; i++) {
			cJSON *m = cJSON_CreateObject();
			cJSON_AddStringToObject(m, "source", fs->mounts[i].source);
			cJSON_AddStringToObject(m, "target", fs->mounts[i].target);
			cJSON_AddBoolToObject(m, "read_only", fs->mounts[i].read_only);
			cJSON_AddItemToArray(a, m);
		}
	}
	return o;
}

static cJSON *checkpoint(const struct pf_config_checkpoint *k)
{
	cJSON *o = cJSON_CreateObject();

	cJSON *on = NULL;
	for (int i = 0; i < PF_N_ON; i++) {
		if (!k->on[i])
			continue;
		if (!on)
			on = cJSON_AddArrayToObject(o, "on");
		cJSON_AddItemToArray(on, cJSON_CreateString(pf_config_on_name((enum pf_config_on)i)));
	}
	add_duration(o, "every", k->every_ms);
	add_number(o, "keep", k->keep);
	add_list(o, "pre", k->pre);
	add_list(o, "post", k->post);
	add_list(o, "exclude", k->exclude);
	return o;
}

cJSON *pf_config_packages(const struct pf_config *c)
{
	cJSON *packages = cJSON_CreateObject();

	for (int m = 0; m < PF_N_MANAGERS; m++)
		add_list(packages, pf_config_manager_name((enum pf_config_manager)m), c->packages[m]);
	return packages;
}

cJSON *pf_config_to_json(const struct pf_config *c)
{
	cJSON *o = cJSON_CreateObject(), *env = cJSON_CreateObject(), *limits = cJSON_CreateObject();
	cJSON *labels = cJSON_CreateObject();

	add_text(o, "name", c->name);
	add_text(o, "image", c->image);
	add_text(o, "runtime", c->runtime);
	if (c->strict_runtime)
		cJSON_AddTrueToObject(o, "strict_runtime");
	add_list(o, "command", c->command);
	for (char **e = c->env; *e; e++) {
		const char *eq = strchr(*e, '=');
		PF_FREE char *name = pf_asprintf("%.*s", (int)(eq - *e), *e);
		cJSON_AddStringToObject(env, name, eq + 1);
	}
	add_object(o, "env", env);
	add_text(o, "workdir", c->workdir);
	add_text(o, "user", c->user.text);
	add_text(o, "hostname", c->hostname);
	cJSON_AddItemToObject(o, "resources", resources(&c->resources));
	cJSON_AddItemToObject(o, "filesystem", filesystem(&c->filesystem));
	cJSON *networking = cJSON_Duplicate(c->networking, true);
	if (c->allow_package_managers)
		cJSON_AddTrueToObject(networking, "allow_package_managers");
	cJSON_AddItemToObject(o, "networking", networking);
	add_object(o, "packages", pf_config_packages(c));
	if (c->credentials_raw)
		cJSON_AddItemToObject(o, "credentials", cJSON_Duplicate(c->credentials_raw, true));
	add_duration(limits, "max_runtime", c->limits.max_runtime_ms);
	add_duration(limits, "idle", c->limits.idle_ms);
	add_duration(limits, "exec_timeout", c->limits.exec_timeout_ms);
	add_object(o, "limits", limits);
	add_object(o, "checkpoint", checkpoint(&c->checkpoint));
	for (size_t i = 0; i < c->n_labels; i++)
		cJSON_AddStringToObject(labels, c->labels[i].key, c->labels[i].value);
	add_object(o, "labels", labels);
	return o;
}
