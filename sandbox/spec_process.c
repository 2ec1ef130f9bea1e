/* process of config.json, and of exec --process. */
#include <ctype.h>
#include <limits.h>
#include <linux/ioprio.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "sandbox/spec_internal.h"

static int parse_user(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	const cJSON *user = NULL, *gids = NULL, *g;
	int64_t v;

	if (pf_json_obj(process, "process", "user", &user, err) < 0)
		return -1;
	if (!user)
		return 0;
	v = 0;
	if (pf_json_int(user, "process.user", "uid", 0, 4294967294LL, &v, err) < 0)
		return -1;
	p->uid = (uint32_t)v;
	v = 0;
	if (pf_json_int(user, "process.user", "gid", 0, 4294967294LL, &v, err) < 0)
		return -1;
	p->gid = (uint32_t)v;
	int r = pf_json_int(user, "process.user", "umask", 0, 0777, &v, err);
	if (r < 0)
		return -1;
	p->has_umask = r > 0;
	p->umask = r > 0 ? (uint32_t)v : 022;
	if (pf_json_arr(user, "process.user", "additionalGids", &gids, err) < 0)
		return -1;
	p->groups = pf_calloc((size_t)cJSON_GetArraySize(gids), sizeof(*p->groups));
	cJSON_ArrayForEach(g, gids)
	{
		if (!cJSON_IsNumber(g) || g->valuedouble < 0 || g->valuedouble > 4294967294.0 ||
			g->valuedouble != (double)(uint32_t)g->valuedouble)
			return pf_spec_invalid(err, "process.user.additionalGids", "must be group ids");
		p->groups[p->n_groups++] = (uint32_t)g->valuedouble;
	}
	return 0;
}

static int parse_caps(const cJSON *process, struct pf_caps *caps, struct pf_err *err)
{
	const struct {
		const char *key;
		uint64_t *set;
	} sets[] = {{"bounding", &caps->bounding}, {"effective", &caps->effective},
		{"permitted", &caps->permitted}, {"inheritable", &caps->inheritable},
		{"ambient", &caps->ambient}};
	const cJSON *obj = NULL;

	if (pf_json_obj(process, "process", "capabilities", &obj, err) < 0)
		return -1;
	for (size_t i = 0; obj && i < sizeof(sets) / sizeof(sets[0]); i++) {
		char **names = NULL;
		if (pf_json_strv(obj, "process.capabilities", sets[i].key, &names, err) < 0)
			return -1;
		int r = names ? pf_caps_parse((const char *const *)names, sets[i].set, err) : 0;
		pf_strv_free(names);
		if (r < 0)
			return pf_wrap(err, "process.capabilities.%s", sets[i].key);
	}
	return 0;
}

static int parse_rlimits(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	const cJSON *arr = NULL, *r;

	if (pf_json_arr(process, "process", "rlimits", &arr, err) < 0)
		return -1;
	p->rlimits = pf_calloc((size_t)cJSON_GetArraySize(arr), sizeof(*p->rlimits));
	cJSON_ArrayForEach(r, arr)
	{
		const char *type = NULL;
		int64_t soft = -1, hard = -1;
		struct pf_rlimit *out = &p->rlimits[p->n_rlimits];

		if (!cJSON_IsObject(r) || pf_json_str(r, "process.rlimits", "type", &type, err) < 0 || !type)
			return pf_spec_invalid(err, "process.rlimits", "each needs type, soft and hard");
		int s = pf_json_int(r, "process.rlimits", "soft", 0, INT64_MAX, &soft, err);
		int h = s < 0 ? -1 : pf_json_int(r, "process.rlimits", "hard", 0, INT64_MAX, &hard, err);
		if (s < 0 || h < 0)
			return -1;
		if (s == 0 || h == 0)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "process.rlimits: %s needs soft and hard", type);
		out->resource = pf_rlimit_parse(type, err);
		if (out->resource < 0)
			return pf_wrap(err, "process.rlimits");
		for (size_t i = 0; i < p->n_rlimits; i++)
			if (p->rlimits[i].resource == out->resource)
				return pf_fail_kind(
					err, PF_ERR_INVALID, 0, "process.rlimits: %s is given twice", type);
		/* RLIM_INFINITY is 2^64-1, which a double rounds up and pf_json_int saturates. */
		out->soft = soft == INT64_MAX ? UINT64_MAX : (uint64_t)soft;
		out->hard = hard == INT64_MAX ? UINT64_MAX : (uint64_t)hard;
		p->n_rlimits++;
	}
	return 0;
}

static int parse_scheduler(const cJSON *process, struct pf_scheduler *s, struct pf_err *err)
{
	static const struct pf_spec_word policies[] = {{"SCHED_OTHER", SCHED_NORMAL},
		{"SCHED_FIFO", SCHED_FIFO}, {"SCHED_RR", SCHED_RR}, {"SCHED_BATCH", SCHED_BATCH},
		{"SCHED_ISO", 4}, {"SCHED_IDLE", SCHED_IDLE}, {"SCHED_DEADLINE", SCHED_DEADLINE}, {NULL, 0}};
	static const struct pf_spec_word flags[] = {{"SCHED_FLAG_RESET_ON_FORK", SCHED_FLAG_RESET_ON_FORK},
		{"SCHED_FLAG_RECLAIM", SCHED_FLAG_RECLAIM}, {"SCHED_FLAG_DL_OVERRUN", SCHED_FLAG_DL_OVERRUN},
		{"SCHED_FLAG_KEEP_POLICY", SCHED_FLAG_KEEP_POLICY},
		{"SCHED_FLAG_KEEP_PARAMS", SCHED_FLAG_KEEP_PARAMS},
		{"SCHED_FLAG_UTIL_CLAMP_MIN", SCHED_FLAG_UTIL_CLAMP_MIN},
		{"SCHED_FLAG_UTIL_CLAMP_MAX", SCHED_FLAG_UTIL_CLAMP_MAX}, {NULL, 0}};
	static const char where[] = "process.scheduler";
	const cJSON *j = NULL;
	const char *policy = NULL;
	int64_t nice = 0, priority = 0, runtime = 0, deadline = 0, period = 0;
	uint64_t v = 0;

	if (pf_json_obj(process, "process", "scheduler", &j, err) < 0)
		return -1;
	if (!j)
		return 0;
	if (pf_json_str(j, where, "policy", &policy, err) < 0 ||
		pf_json_int(j, where, "nice", -20, 19, &nice, err) < 0 ||
		pf_json_int(j, where, "priority", 0, 99, &priority, err) < 0 ||
		pf_json_int(j, where, "runtime", 0, INT64_MAX, &runtime, err) < 0 ||
		pf_json_int(j, where, "deadline", 0, INT64_MAX, &deadline, err) < 0 ||
		pf_json_int(j, where, "period", 0, INT64_MAX, &period, err) < 0 ||
		pf_spec_flags(j, where, "flags", flags, &s->flags, err) < 0)
		return -1;
	if (!policy)
		return pf_spec_invalid(err, where, "needs a policy");
	if (pf_spec_word(policies, "process.scheduler.policy", policy, &v, err) < 0)
		return -1;
	if (priority != 0 && v != SCHED_FIFO && v != SCHED_RR)
		return pf_spec_invalid(err, where, "priority is for SCHED_FIFO and SCHED_RR");
	if ((runtime || deadline || period) && v != SCHED_DEADLINE)
		return pf_spec_invalid(err, where, "runtime, deadline and period are for SCHED_DEADLINE");
	s->policy = (uint32_t)v;
	s->nice = (int32_t)nice;
	s->priority = (uint32_t)priority;
	s->runtime = (uint64_t)runtime;
	s->deadline = (uint64_t)deadline;
	s->period = (uint64_t)period;
	s->set = true;
	return 0;
}

static int parse_io_priority(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	static const struct pf_spec_word classes[] = {{"IOPRIO_CLASS_RT", IOPRIO_CLASS_RT},
		{"IOPRIO_CLASS_BE", IOPRIO_CLASS_BE}, {"IOPRIO_CLASS_IDLE", IOPRIO_CLASS_IDLE}, {NULL, 0}};
	const cJSON *j = NULL;
	const char *class = NULL;
	int64_t level = 0;
	uint64_t v;

	if (pf_json_obj(process, "process", "ioPriority", &j, err) < 0)
		return -1;
	if (!j)
		return 0;
	if (pf_json_str(j, "process.ioPriority", "class", &class, err) < 0 ||
		pf_json_int(j, "process.ioPriority", "priority", 0, 7, &level, err) < 0)
		return -1;
	if (!class)
		return pf_spec_invalid(err, "process.ioPriority", "needs a class");
	if (pf_spec_word(classes, "process.ioPriority.class", class, &v, err) < 0)
		return -1;
	p->has_io_priority = true;
	p->io_priority = (int)(v << IOPRIO_CLASS_SHIFT) | (int)level;
	return 0;
}

static int parse_affinity(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	const struct {
		const char *key;
		char **out;
	} lists[] = {{"initial", &p->cpus_initial}, {"final", &p->cpus_final}};
	const cJSON *j = NULL;

	if (pf_json_obj(process, "process", "execCPUAffinity", &j, err) < 0)
		return -1;
	for (size_t i = 0; j && i < 2; i++) {
		const char *text = NULL;
		unsigned long set[16];
		char where[48];
		snprintf(where, sizeof(where), "process.execCPUAffinity.%s", lists[i].key);
		if (pf_json_str(j, "process.execCPUAffinity", lists[i].key, &text, err) < 0)
			return -1;
		if (!text)
			continue;
		if (pf_spec_cpu_list(where, text, set, 16, err) < 0)
			return -1;
		*lists[i].out = pf_strdup(text);
	}
	return 0;
}

static int parse_console(const cJSON *process, struct pf_process *p, struct pf_err *err)
{
	const cJSON *size = NULL;
	int64_t width = 0, height = 0;

	if (pf_json_obj(process, "process", "consoleSize", &size, err) < 0)
		return -1;
	if (size &&
		(pf_json_int(size, "process.consoleSize", "width", 0, UINT16_MAX, &width, err) < 0 ||
			pf_json_int(size, "process.consoleSize", "height", 0, UINT16_MAX, &height, err) < 0))
		return -1;
	p->console_width = (uint16_t)width;
	p->console_height = (uint16_t)height;
	return 0;
}

static int parse_labels(const cJSON *object, const char *where, struct pf_process *p, struct pf_err *err)
{
	const char *profile = NULL, *label = NULL;

	if (pf_json_str(object, where, "apparmorProfile", &profile, err) < 0 ||
		pf_json_str(object, where, "selinuxLabel", &label, err) < 0)
		return -1;
	if (profile && *profile)
		p->apparmor_profile = pf_strdup(profile);
	if (label && *label)
		p->selinux_label = pf_strdup(label);
	return 0;
}

static int check_env(char *const *env, struct pf_err *err)
{
	for (; env && *env; env++)
		if (!strchr(*env, '=') || **env == '=')
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "process.env: '%.64s' is not NAME=VALUE", *env);
	return 0;
}

int pf_process_parse(const cJSON *object, const char *where, struct pf_process *p, struct pf_err *err)
{
	const char *cwd = NULL;
	int64_t v;

	if (!cJSON_IsObject(object))
		return pf_spec_invalid(err, where, "must be an object");
	if (pf_json_bool(object, where, "terminal", &p->terminal, err) < 0 ||
		pf_json_strv(object, where, "args", &p->args, err) < 0 ||
		pf_json_strv(object, where, "env", &p->env, err) < 0 ||
		pf_json_str(object, where, "cwd", &cwd, err) < 0 ||
		pf_json_bool(object, where, "noNewPrivileges", &p->no_new_privileges, err) < 0)
		return -1;
	if (!cwd || cwd[0] != '/')
		return pf_spec_invalid(err, "process.cwd", "must be an absolute path");
	p->cwd = pf_strdup(cwd);
	int r = pf_json_int(object, where, "oomScoreAdj", -1000, 1000, &v, err);
	if (r < 0)
		return -1;
	if (r > 0) {
		p->has_oom_score_adj = true;
		p->oom_score_adj = (int)v;
	}
	if (check_env(p->env, err) < 0 || parse_user(object, p, err) < 0 ||
		parse_caps(object, &p->caps, err) < 0 || parse_rlimits(object, p, err) < 0 ||
		parse_console(object, p, err) < 0 || parse_scheduler(object, &p->scheduler, err) < 0 ||
		parse_io_priority(object, p, err) < 0 || parse_affinity(object, p, err) < 0 ||
		parse_labels(object, where, p, err) < 0)
		return -1;
	return 0;
}

void pf_process_done(struct pf_process *p)
{
	free(p->groups);
	pf_strv_free(p->args);
	pf_strv_free(p->env);
	free(p->cwd);
	free(p->rlimits);
	free(p->cpus_initial);
	free(p->cpus_final);
	free(p->apparmor_profile);
	free(p->selinux_label);
	*p = (struct pf_process){0};
}
