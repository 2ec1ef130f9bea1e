/* features, spec, and what is not to be had: checkpoint, restore. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "cmd/pinfold/oci.h"
#include "sandbox/caps.h"
#include "sandbox/hooks.h"
#include "sandbox/lsm.h"
#include "sandbox/seccomp.h"

static cJSON *list(const char *const *words)
{
	cJSON *a = cJSON_CreateArray();

	for (; *words; words++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*words));
	return a;
}

static cJSON *enabled(cJSON *to, const char *key, bool on)
{
	cJSON *j = cJSON_AddObjectToObject(to, key);
	cJSON_AddBoolToObject(j, "enabled", on);
	return j;
}

static void add_seccomp(cJSON *linux_)
{
	cJSON *s = enabled(linux_, "seccomp", true);
	static const enum pf_seccomp_words kinds[] = {PF_SECCOMP_ACTIONS, PF_SECCOMP_OPERATORS,
		PF_SECCOMP_ARCHS, PF_SECCOMP_FLAGS, PF_SECCOMP_FLAGS};
	static const char *const keys[] = {"actions", "operators", "archs", "knownFlags", "supportedFlags"};

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		cJSON *a = cJSON_AddArrayToObject(s, keys[i]);
		const char *word;
		for (size_t k = 0; (word = pf_seccomp_word(kinds[i], k)) != NULL; k++)
			cJSON_AddItemToArray(a, cJSON_CreateString(word));
	}
}

static cJSON *make_features(void)
{
	static const char *const namespaces[] = {
		"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts", NULL};
	static const char *const unsafe[] = {"io.pinfold.", NULL};
	cJSON *j = cJSON_CreateObject(), *a, *linux_, *cg, *m;

	cJSON_AddStringToObject(j, "ociVersionMin", "1.0.0");
	cJSON_AddStringToObject(j, "ociVersionMax", PF_OCI_VERSION);
	a = cJSON_AddArrayToObject(j, "hooks");
	for (int k = 0; k < PF_HOOK_KINDS; k++)
		cJSON_AddItemToArray(a, cJSON_CreateString(pf_hook_kind_name((enum pf_hook_kind)k)));
	cJSON_AddItemToObject(j, "mountOptions", pf_mount_options_json());
	linux_ = cJSON_AddObjectToObject(j, "linux");
	cJSON_AddItemToObject(linux_, "namespaces", list(namespaces));
	a = cJSON_AddArrayToObject(linux_, "capabilities");
	for (unsigned c = 0; pf_cap_name(c); c++)
		cJSON_AddItemToArray(a, cJSON_CreateString(pf_cap_name(c)));
	cg = cJSON_AddObjectToObject(linux_, "cgroup");
	cJSON_AddTrueToObject(cg, "v1");
	cJSON_AddTrueToObject(cg, "v2");
	cJSON_AddTrueToObject(cg, "systemd");
	cJSON_AddFalseToObject(cg, "systemdUser");
	cJSON_AddTrueToObject(cg, "rdma");
	add_seccomp(linux_);
	enabled(linux_, "apparmor", true);
	enabled(linux_, "selinux", true);
	m = enabled(linux_, "intelRdt", false);
	cJSON_AddFalseToObject(m, "schemata");
	cJSON_AddFalseToObject(m, "monitoring");
	enabled(cJSON_AddObjectToObject(linux_, "mountExtensions"), "idmap", true);
	enabled(linux_, "netDevices", true);
	m = cJSON_AddObjectToObject(linux_, "memoryPolicy");
	static const char *const modes[] = {"MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE",
		"MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED", "MPOL_PREFERRED_MANY", "MPOL_LOCAL", NULL};
	static const char *const flags[] = {
		"MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES", NULL};
	cJSON_AddItemToObject(m, "modes", list(modes));
	cJSON_AddItemToObject(m, "flags", list(flags));
	cJSON *annotations = cJSON_AddObjectToObject(j, "annotations");
	cJSON_AddStringToObject(annotations, "io.pinfold.version", PF_VERSION);
	cJSON_AddItemToObject(j, "potentiallyUnsafeConfigAnnotations", list(unsafe));
	return j;
}

int pf_cmd_features(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

	while (pf_getopt(argc, argv, options, false,
		       "features\n\nWhat of the OCI runtime specification is known here, as JSON.\n") != -1)
		;
	if (optind != argc)
		return pf_usage("features", "takes no arguments");
	pf_print_json(make_features());
	return 0;
}

/* ---- spec ---- */

static void add_mount(
	cJSON *mounts, const char *dest, const char *type, const char *source, const char *const *opts)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "destination", dest);
	cJSON_AddStringToObject(m, "type", type);
	cJSON_AddStringToObject(m, "source", source);
	cJSON_AddItemToObject(m, "options", list(opts));
	cJSON_AddItemToArray(mounts, m);
}

static cJSON *make_process(void)
{
	static const char *const env[] = {
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", NULL};
	static const char *const args[] = {"sh", NULL};
	static const char *const caps[] = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", NULL};
	static const char *const sets[] = {"bounding", "effective", "permitted", NULL};
	cJSON *p = cJSON_CreateObject(), *user, *c, *r;

	cJSON_AddTrueToObject(p, "terminal");
	user = cJSON_AddObjectToObject(p, "user");
	cJSON_AddNumberToObject(user, "uid", 0);
	cJSON_AddNumberToObject(user, "gid", 0);
	cJSON_AddItemToObject(p, "args", list(args));
	cJSON_AddItemToObject(p, "env", list(env));
	cJSON_AddStringToObject(p, "cwd", "/");
	c = cJSON_AddObjectToObject(p, "capabilities");
	for (const char *const *s = sets; *s; s++)
		cJSON_AddItemToObject(c, *s, list(caps));
	r = cJSON_CreateObject();
	cJSON_AddStringToObject(r, "type", "RLIMIT_NOFILE");
	cJSON_AddNumberToObject(r, "hard", 1024);
	cJSON_AddNumberToObject(r, "soft", 1024);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(p, "rlimits"), r);
	cJSON_AddTrueToObject(p, "noNewPrivileges");
	return p;
}

static cJSON *make_mounts(bool rootless)
{
	static const char *const plain[] = {"nosuid", "noexec", "nodev", NULL};
	static const char *const read_only[] = {"nosuid", "noexec", "nodev", "ro", NULL};
	static const char *const dev[] = {"nosuid", "strictatime", "mode=755", "size=65536k", NULL};
	static const char *const pts[] = {
		"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", NULL};
	static const char *const rootless_pts[] = {
		"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", NULL};
	static const char *const shm[] = {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k", NULL};
	static const char *const sys_bind[] = {"rbind", "nosuid", "noexec", "nodev", "ro", NULL};
	static const char *const cgroup[] = {"nosuid", "noexec", "nodev", "relatime", "ro", NULL};
	cJSON *m = cJSON_CreateArray();

	add_mount(m, "/proc", "proc", "proc", (const char *const[]){NULL});
	add_mount(m, "/dev", "tmpfs", "tmpfs", dev);
	add_mount(m, "/dev/pts", "devpts", "devpts", rootless ? rootless_pts : pts);
	add_mount(m, "/dev/shm", "tmpfs", "shm", shm);
	add_mount(m, "/dev/mqueue", "mqueue", "mqueue", plain);
	if (rootless)
		add_mount(m, "/sys", "none", "/sys", sys_bind);
	else
		add_mount(m, "/sys", "sysfs", "sysfs", read_only);
	add_mount(m, "/sys/fs/cgroup", "cgroup", "cgroup", cgroup);
	return m;
}

static void add_id_map(cJSON *linux_, const char *key, unsigned id)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddNumberToObject(m, "containerID", 0);
	cJSON_AddNumberToObject(m, "hostID", id);
	cJSON_AddNumberToObject(m, "size", 1);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(linux_, key), m);
}

static cJSON *make_spec(bool rootless)
{
	static const char *const namespaces[] = {"pid", "network", "ipc", "uts", "mount", "cgroup", NULL};
	static const char *const rootless_namespaces[] = {
		"pid", "ipc", "uts", "mount", "cgroup", "user", NULL};
	static const char *const masked[] = {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/sys/firmware", "/proc/scsi", NULL};
	static const char *const read_only[] = {
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL};
	cJSON *j = cJSON_CreateObject(), *root, *linux_, *ns, *rule, *n;

	cJSON_AddStringToObject(j, "ociVersion", PF_OCI_VERSION);
	cJSON_AddItemToObject(j, "process", make_process());
	root = cJSON_AddObjectToObject(j, "root");
	cJSON_AddStringToObject(root, "path", "rootfs");
	cJSON_AddTrueToObject(root, "readonly");
	cJSON_AddStringToObject(j, "hostname", "pinfold");
	cJSON_AddItemToObject(j, "mounts", make_mounts(rootless));
	linux_ = cJSON_AddObjectToObject(j, "linux");
	if (rootless) {
		add_id_map(linux_, "uidMappings", geteuid());
		add_id_map(linux_, "gidMappings", getegid());
	} else {
		rule = cJSON_CreateObject();
		cJSON_AddFalseToObject(rule, "allow");
		cJSON_AddStringToObject(rule, "access", "rwm");
		cJSON_AddItemToArray(
			cJSON_AddArrayToObject(cJSON_AddObjectToObject(linux_, "resources"), "devices"),
			rule);
	}
	ns = cJSON_AddArrayToObject(linux_, "namespaces");
	for (const char *const *w = rootless ? rootless_namespaces : namespaces; *w; w++) {
		n = cJSON_CreateObject();
		cJSON_AddStringToObject(n, "type", *w);
		cJSON_AddItemToArray(ns, n);
	}
	cJSON_AddItemToObject(linux_, "maskedPaths", list(masked));
	cJSON_AddItemToObject(linux_, "readonlyPaths", list(read_only));
	return j;
}

int pf_cmd_spec(int argc, char **argv)
{
	static const struct option options[] = {{"bundle", required_argument, NULL, 'b'},
		{"rootless", no_argument, NULL, 1}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	static const char help[] = "spec [--bundle DIR] [--rootless]\n\n"
				   "Writes a config.json to begin with.\n";
	struct pf_err err = PF_ERR_INIT;
	const char *bundle = ".";
	bool rootless = false;
	int c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		if (c == 'b')
			bundle = optarg;
		rootless = rootless || c == 1;
	}
	if (optind != argc)
		return pf_usage("spec", "takes no arguments");
	PF_CLOSE int dir = open(bundle, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	PF_CLOSE int fd =
		dir < 0 ? -1 : openat(dir, "config.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0) {
		pf_fail(&err, errno, "%s/config.json", bundle);
		return pf_oci_fail("spec", &err, PF_OCI_FAILED);
	}
	PF_JSON cJSON *j = make_spec(rootless);
	char *text = cJSON_Print(j);
	if (!text)
		abort();
	int r = pf_write_all(fd, text, strlen(text)) < 0 || pf_write_all(fd, "\n", 1) < 0
			? pf_fail(&err, errno, "%s/config.json", bundle)
			: 0;
	free(text);
	return r < 0 ? pf_oci_fail("spec", &err, PF_OCI_FAILED) : 0;
}

int pf_cmd_no_checkpoint(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;

	(void)argc;
	pf_fail_kind(
		&err, PF_ERR_UNSUPPORTED, 0, "process checkpoints are not supported; see pinfold snapshot");
	return pf_oci_fail(argv[0], &err, PF_OCI_FAILED);
}
