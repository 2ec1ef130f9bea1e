/* A jail as the OCI configuration that sandbox/ builds from: the one way to make a box. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "jail/jail.h"
#include "sandbox/caps.h"
#include "sandbox/rlimit.h"
#include "sandbox/spec_write.h"

static cJSON *strings(char *const *v)
{
	cJSON *a = cJSON_CreateArray();

	for (; v && *v; v++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*v));
	return a;
}

static void add_mount(
	cJSON *mounts, const char *dest, const char *type, const char *source, const char *const *options)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "destination", dest);
	cJSON_AddStringToObject(m, "type", type);
	cJSON_AddStringToObject(m, "source", source);
	cJSON_AddItemToObject(m, "options", strings((char *const *)options));
	cJSON_AddItemToArray(mounts, m);
}

static void add_bind(cJSON *mounts, const struct pf_jail_op *op)
{
	char source[64];
	const char *options[8];
	size_t n = 0;

	snprintf(source, sizeof(source), "/proc/self/fd/%d", op->fd);
	/* What is mounted below it comes along: to leave it out would uncover what it hides, and the kernel
	 * does not let an ordinary user do that. */
	options[n++] = "rbind";
	options[n++] = "rprivate";
	options[n++] = "rnosuid";
	if (!op->devices)
		options[n++] = "rnodev";
	if (op->read_only)
		options[n++] = "rro";
	options[n] = NULL;
	add_mount(mounts, op->dest, "bind", source, options);
}

static void add_tmpfs(cJSON *mounts, const struct pf_jail_op *op, bool read_only)
{
	char mode[24], size[40];
	const char *options[8];
	size_t n = 0;

	snprintf(mode, sizeof(mode), "mode=%o", (unsigned)op->mode);
	options[n++] = "nosuid";
	options[n++] = "nodev";
	options[n++] = mode;
	if (op->size >= 0) {
		snprintf(size, sizeof(size), "size=%lld", (long long)op->size);
		options[n++] = size;
	}
	if (read_only)
		options[n++] = "ro";
	options[n] = NULL;
	add_mount(mounts, op->dest, "tmpfs", "tmpfs", options);
}

static void add_dev(cJSON *mounts, const char *dest)
{
	char *pts = pf_asprintf("%s/pts", dest);

	add_mount(mounts, dest, "tmpfs", "tmpfs",
		(const char *[]){"nosuid", "noexec", "mode=755", "size=64k", NULL});
	add_mount(mounts, pts, "devpts", "devpts",
		(const char *[]){"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", NULL});
	free(pts);
}

static cJSON *make_mounts(const struct pf_jail *j)
{
	cJSON *m = cJSON_CreateArray();

	for (size_t i = 0; i < j->n_ops; i++) {
		const struct pf_jail_op *op = &j->ops[i];
		if (strcmp(op->dest, "/") == 0)
			continue; /* the root itself: root.c */
		switch (op->kind) {
		case PF_JAIL_BIND:
		case PF_JAIL_OVERLAY:
			add_bind(m, op);
			break;
		case PF_JAIL_HIDE:
			if (op->directory)
				add_tmpfs(m, op, true);
			else
				add_mount(m, op->dest, "bind", "/dev/null",
					(const char *[]){"bind", "ro", "nosuid", "noexec", NULL});
			break;
		case PF_JAIL_TMPFS:
			add_tmpfs(m, op, op->read_only);
			break;
		case PF_JAIL_PROC:
			add_mount(m, op->dest, "proc", "proc",
				(const char *[]){"nosuid", "noexec", "nodev", NULL});
			break;
		case PF_JAIL_MQUEUE:
			add_mount(m, op->dest, "mqueue", "mqueue",
				(const char *[]){"nosuid", "noexec", "nodev", NULL});
			break;
		case PF_JAIL_DEV:
			add_dev(m, op->dest);
			break;
		case PF_JAIL_DIR:
		case PF_JAIL_FILE:
		case PF_JAIL_SYMLINK:
		default:
			break; /* in the root itself: root.c */
		}
	}
	return m;
}

static cJSON *make_process(const struct pf_jail *j)
{
	static const char *const sets[] = {"bounding", "effective", "permitted", "inheritable", "ambient"};
	cJSON *p = cJSON_CreateObject(), *user = cJSON_AddObjectToObject(p, "user"), *caps, *limits;

	cJSON_AddNumberToObject(user, "uid", j->uid);
	cJSON_AddNumberToObject(user, "gid", j->gid);
	cJSON_AddItemToObject(p, "args", strings(j->argv));
	cJSON_AddItemToObject(p, "env", strings(j->env));
	cJSON_AddStringToObject(p, "cwd", j->cwd);
	cJSON_AddTrueToObject(p, "noNewPrivileges");
	caps = cJSON_AddObjectToObject(p, "capabilities");
	for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
		cJSON_AddItemToObject(caps, sets[i], pf_spec_cap_names(j->caps));
	limits = cJSON_AddArrayToObject(p, "rlimits");
	pf_spec_add_rlimit(limits, "RLIMIT_CORE", pf_rlimit_no_core(), pf_rlimit_no_core());
	/* Root has a cgroup for these: limits.c. */
	if (j->caller_uid != 0 && j->pids >= 0)
		pf_spec_add_rlimit(limits, "RLIMIT_NPROC", (uint64_t)j->pids, (uint64_t)j->pids);
	if (j->caller_uid != 0 && j->memory >= 0)
		pf_spec_add_rlimit(limits, "RLIMIT_DATA", (uint64_t)j->memory, (uint64_t)j->memory);
	return p;
}

static void add_map(cJSON *linux_, const char *key, uint32_t inside)
{
	cJSON *a = cJSON_AddArrayToObject(linux_, key), *m = cJSON_CreateObject();

	cJSON_AddNumberToObject(m, "containerID", inside);
	cJSON_AddNumberToObject(m, "hostID", 0);
	cJSON_AddNumberToObject(m, "size", 1);
	cJSON_AddItemToArray(a, m);
}

/* The names below every procfs of the command's own, wherever it was asked for. */
static cJSON *below_each_proc(const struct pf_jail *j, const char *const *names)
{
	cJSON *a = cJSON_CreateArray();

	for (size_t i = 0; i < j->n_ops; i++)
		for (const char *const *n = names; j->ops[i].kind == PF_JAIL_PROC && *n; n++) {
			PF_FREE char *path = pf_asprintf("%s/%s", j->ops[i].dest, *n);
			cJSON_AddItemToArray(a, cJSON_CreateString(path));
		}
	return a;
}

cJSON *pf_jail_spec(const struct pf_jail *j)
{
	static const char *const masked[] = {"acpi", "asound", "kcore", "keys", "latency_stats", "timer_list",
		"sched_debug", "scsi", "kallsyms", "kpagecount", "kpageflags", NULL};
	static const char *const masked_for_users[] = {"keys", "kallsyms", NULL};
	static const char *const read_only[] = {"bus", "fs", "irq", "sys", "sysrq-trigger", NULL};
	const struct {
		const char *type;
		bool shared;
	} namespaces[] = {{"user", false}, {"mount", false}, {"pid", j->share_pid}, {"ipc", j->share_ipc},
		{"uts", j->share_uts}, {"cgroup", j->share_cgroup}, {"network", j->net == PF_JAIL_NET_HOST}};
	cJSON *doc = cJSON_CreateObject(), *root, *linux_, *ns;

	cJSON_AddStringToObject(doc, "ociVersion", "1.2.0");
	cJSON_AddItemToObject(doc, "process", make_process(j));
	root = cJSON_AddObjectToObject(doc, "root");
	cJSON_AddStringToObject(root, "path", "rootfs");
	cJSON_AddBoolToObject(root, "readonly", j->root_read_only);
	if (j->hostname && !j->share_uts)
		cJSON_AddStringToObject(doc, "hostname", j->hostname);
	cJSON_AddItemToObject(doc, "mounts", make_mounts(j));
	linux_ = cJSON_AddObjectToObject(doc, "linux");
	ns = cJSON_AddArrayToObject(linux_, "namespaces");
	for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++) {
		if (namespaces[i].shared)
			continue;
		cJSON *n = cJSON_CreateObject();
		cJSON_AddStringToObject(n, "type", namespaces[i].type);
		cJSON_AddItemToArray(ns, n);
	}
	add_map(linux_, "uidMappings", j->uid);
	add_map(linux_, "gidMappings", j->gid);
	/* The rest only root could read at all. */
	cJSON_AddItemToObject(
		linux_, "maskedPaths", below_each_proc(j, j->caller_uid == 0 ? masked : masked_for_users));
	/* Settings of the network namespace may be written by whose user namespace it is: the caller's id,
	 * which the command has too. */
	cJSON_AddItemToObject(linux_, "readonlyPaths", below_each_proc(j, read_only));
	return doc;
}
