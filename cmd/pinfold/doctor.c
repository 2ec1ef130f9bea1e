#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "cmd/pinfold/cmd.h"
#include "netpolicy/netns.h"
#include "netpolicy/nft.h"
#include "sandbox/caps.h"
#include "sandbox/cgroup.h"
#include "session/session.h"

static const char help[] =
	"doctor [--json]\n\n"
	"What this machine offers, what is missing, and what to do about it. Ends with 0 when sandboxes\n"
	"can be made here, 1 when something that they need is missing.\n";

enum level { OK, WARN, FAIL };
static const char *const level_names[] = {"ok", "warn", "fail"};

struct report {
	cJSON *checks;
	bool failed;
};

static void add(struct report *r, const char *name, enum level level, const char *detail, const char *remedy)
{
	cJSON *c = cJSON_CreateObject();

	cJSON_AddStringToObject(c, "check", name);
	cJSON_AddStringToObject(c, "status", level_names[level]);
	cJSON_AddStringToObject(c, "detail", detail);
	if (level != OK && remedy)
		cJSON_AddStringToObject(c, "remedy", remedy);
	cJSON_AddItemToArray(r->checks, c);
	r->failed = r->failed || level == FAIL;
}

/* Number of the initial user namespace, the same on every kernel since 3.8. */
#define INITIAL_USERNS 0xEFFFFFFDU

/* Whether we are root of the machine and not of a user namespace, whose root looks the same to most calls. */
static bool in_initial_userns(void)
{
	PF_FREE char *map = NULL;
	struct pf_err ignored = PF_ERR_INIT;
	unsigned long long inside, outside, count;
	struct stat st;

	if (pf_read_pseudo_at(AT_FDCWD, "/proc/self/uid_map", 65536, &map, &ignored) == 0 &&
		(sscanf(map, "%llu %llu %llu", &inside, &outside, &count) != 3 || inside || outside ||
			count != UINT32_MAX))
		return false;
	return stat("/proc/self/ns/user", &st) < 0 || st.st_ino == INITIAL_USERNS;
}

static void check_privileges(struct report *r)
{
	uint64_t needed = PF_CAP_BIT(CAP_SYS_ADMIN) | PF_CAP_BIT(CAP_NET_ADMIN) | PF_CAP_BIT(CAP_SYS_PTRACE);
	uint64_t missing = needed & ~pf_caps_held();
	bool initial = in_initial_userns();
	PF_BUF struct pf_buf text = {0};

	pf_buf_str(&text, missing ? "missing: " : "");
	pf_caps_format(missing ? missing : needed, &text);
	add(r, "capabilities", missing ? FAIL : OK, text.data,
		"in a container: add them (--cap-add, or --privileged)");
	add(r, "user namespace", initial ? OK : FAIL,
		initial ? "the initial one" : "one of its own: root here is not root of the machine",
		"run outside of it, or in a container without one");
}

/* Load the rules of a sandbox into a network namespace of our own. */
static int try_gate(struct pf_err *err)
{
	static const char text[] = "{\"type\":\"limited\",\"allowed_hosts\":[\"doctor.example.com\"],"
				   "\"allowed_cidrs\":[\"9.9.9.0/24\"]}";
	static const struct in6_addr synth6 = {{{0xfd}}};
	struct pf_netns_visit visit;
	struct pf_nft nft;
	bool v6;

	PF_JSON cJSON *networking = pf_json_parse("networking", text, strlen(text), err);
	struct pf_policy *policy = networking ? pf_policy_compile(networking, err) : NULL;
	if (!policy)
		return -1;
	PF_CLOSE int ns = pf_netns_make(&visit, true, &v6, err);
	if (ns < 0 || pf_nft_open(&nft, &synth6, err) < 0 || pf_nft_load(&nft, policy, err) < 0)
		return -1;
	PF_CLOSE int log = pf_nft_log_open(err);
	return log < 0 ? -1 : 0;
}

/* In a child, with which the namespaces it makes and all in them go, and who it became. */
static bool try_in_child(int (*try)(struct pf_err *err), struct pf_err *err)
{
	int fds[2], status = 0;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe") == 0;
	pid_t pid = fork();
	if (pid == 0) {
		if (try(err) < 0)
			(void)pf_write_all(fds[1], err, sizeof(*err));
		_exit(*err->msg ? 1 : 0);
	}
	close(fds[1]);
	if (pf_read_full(fds[0], err, sizeof(*err)) != (ssize_t)sizeof(*err))
		*err = PF_ERR_INIT;
	close(fds[0]);
	err->msg[sizeof(err->msg) - 1] = '\0';
	bool ok = pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
	if (!ok && !*err->msg)
		pf_fail(err, 0, "it cannot be tried");
	return ok;
}

static void check_gate(struct report *r)
{
	struct pf_err err = PF_ERR_INIT;
	bool ok = try_in_child(try_gate, &err);

	add(r, "packet filter", ok ? OK : FAIL, ok ? "nf_tables, in a network namespace" : err.msg,
		"modprobe nf_tables nft_ct nft_redir nft_reject_inet nft_log nft_limit nfnetlink_log; "
		"without it "
		"no sandbox is made");
}

#define NOBODY 65534

/* What an ordinary user has of pinfold-jail, by running one. */
static int try_jail(struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err), *path = dir ? pf_asprintf("%s/pinfold-jail", dir) : NULL;
	char *argv[] = {path, (char *)"--no-tty", (char *)"--", (char *)"/usr/bin/true", NULL};

	if (!path)
		return -1;
	/* Where there is neither a home nor a tree of anybody's. */
	if (clearenv() != 0 || chdir("/usr") < 0)
		return pf_fail(err, errno, "/usr");
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
				      setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return pf_fail(err, errno, "become a user to try it");
	if (access(path, X_OK) < 0)
		return pf_fail(err, errno, "users cannot run %s", path);
	return pf_run(argv, NULL, err);
}

static void check_jail(struct report *r)
{
	struct pf_err err = PF_ERR_INIT;
	bool ok = try_in_child(try_jail, &err);

	add(r, "pinfold-jail", ok ? OK : WARN, ok ? "works without root" : err.msg,
		"only pinfold-jail of users who are not root is concerned");
}

static void check_kernel(struct report *r)
{
	struct utsname u;
	int major = 0, minor = 0;

	uname(&u);
	(void)sscanf(u.release, "%d.%d", &major, &minor);
	bool ok = major > 5 || (major == 5 && minor >= 19);
	add(r, "kernel", ok ? OK : FAIL, u.release,
		"Linux 5.19 or newer is needed (id-mapped layers under overlayfs); Debian 12 has 6.1");
	add(r, "user", geteuid() == 0 ? OK : FAIL, geteuid() == 0 ? "root" : "not root",
		"sandboxes of sessions need root: run with sudo. One command needs none: pinfold-jail -- "
		"COMMAND");
}

/* Try each namespace in a child, which is what making a box does. */
static void check_namespaces(struct report *r)
{
	static const struct {
		const char *name;
		int flag;
	} kinds[] = {{"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID},
		{"network", CLONE_NEWNET}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS},
		{"cgroup", CLONE_NEWCGROUP}};
	PF_BUF struct pf_buf bad = {0};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		int status = 0;
		pid_t pid = fork();
		if (pid == 0)
			_exit(unshare(kinds[i].flag) < 0 ? errno : 0);
		(void)waitpid(pid, &status, 0);
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			pf_buf_printf(&bad, "%s%s: %s", bad.len ? ", " : "", kinds[i].name,
				strerrordesc_np(WEXITSTATUS(status)));
	}
	add(r, "namespaces", bad.len ? FAIL : OK,
		bad.len ? bad.data : "user mount pid network ipc uts cgroup",
		"in a container: allow unshare and clone (seccomp, CAP_SYS_ADMIN); on a host: "
		"sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone");
}

static void check_cgroups(struct report *r)
{
	static const struct {
		enum pf_cg_ctl ctl;
		const char *limit;
	} needed[] = {{PF_CG_MEMORY, "memory"}, {PF_CG_PIDS, "pids"}, {PF_CG_CPU, "cpu"}, {PF_CG_IO, "io"},
		{PF_CG_CPUSET, "cpuset"}};
	struct pf_cgroup_host host;
	struct pf_err err = PF_ERR_INIT;

	if (pf_cgroup_probe(&host, &err) < 0) {
		add(r, "cgroups", FAIL, err.msg, "mount cgroup2 at /sys/fs/cgroup");
		return;
	}
	add(r, "cgroups", OK, pf_cgroup_mode(&host), NULL);
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
		PF_FREE char *name = pf_asprintf("limit %s", needed[i].limit);
		int at = host.where[needed[i].ctl];
		if (at < 0)
			add(r, name, WARN, "no controller", "a sandbox file with this limit is refused here");
		else if (host.hier[at].readonly)
			add(r, name, FAIL, "its hierarchy is mounted read-only",
				"run where /sys/fs/cgroup is writable");
		else
			add(r, name, OK, host.hier[at].v2 ? "cgroup v2" : "cgroup v1", NULL);
	}
}

static void check_filesystems(struct report *r)
{
	static const char *const needed[] = {"overlay", "tmpfs", "ext4"};
	PF_FREE char *text = NULL;
	struct pf_err err = PF_ERR_INIT;

	if (pf_read_pseudo_at(AT_FDCWD, "/proc/filesystems", 1 << 20, &text, &err) < 0)
		return;
	for (size_t i = 0; i < 3; i++) {
		PF_FREE char *line = pf_asprintf("\t%s\n", needed[i]),
			     *name = pf_asprintf("file system %s", needed[i]);
		bool there = strstr(text, line) != NULL;
		PF_FREE char *remedy = pf_asprintf("modprobe %s", needed[i]);
		/* A module that is not loaded yet does not show: a warning only. */
		add(r, name, there ? OK : WARN, there ? "there" : "not loaded", remedy);
	}
	if (geteuid() != 0)
		return;
	int loop = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	add(r, "loop devices", loop >= 0 ? OK : WARN,
		loop >= 0 ? "/dev/loop-control" : "no /dev/loop-control",
		"modprobe loop; without it filesystem.size is refused");
	if (loop >= 0)
		close(loop);
}

static void check_programs(struct report *r)
{
	struct pf_err err = PF_ERR_INIT;
	PF_FREE char *helper = pf_helper_path("pinfold-store", &err);

	add(r, "helper program", helper ? OK : FAIL, helper ? helper : err.msg,
		"install pinfold whole (make install)");
	add(r, "mke2fs", access("/sbin/mke2fs", X_OK) == 0 ? OK : WARN,
		access("/sbin/mke2fs", X_OK) == 0 ? "/sbin/mke2fs" : "not there",
		"apt-get install e2fsprogs; without it filesystem.size is refused");
	add(r, "mmdebstrap", access("/usr/bin/mmdebstrap", X_OK) == 0 ? OK : WARN,
		access("/usr/bin/mmdebstrap", X_OK) == 0 ? "/usr/bin/mmdebstrap" : "not there",
		"apt-get install mmdebstrap; without it images cannot be built here");
}

static void check_rlimits(struct report *r)
{
	struct rlimit n;
	char text[64];

	if (getrlimit(RLIMIT_NOFILE, &n) < 0)
		return;
	snprintf(text, sizeof(text), "soft %llu, hard %llu", (unsigned long long)n.rlim_cur,
		(unsigned long long)n.rlim_max);
	add(r, "descriptor limit", n.rlim_max >= 4096 && n.rlim_cur >= 1024 ? OK : WARN, text,
		"raise RLIMIT_NOFILE (ulimit -n): the hard one bounds files in a sandbox, a third of the "
		"soft one "
		"connections through its gate");
	bool swap = false;
	PF_FREE char *swaps = NULL;
	struct pf_err err = PF_ERR_INIT;
	if (pf_read_pseudo_at(AT_FDCWD, "/proc/swaps", 65536, &swaps, &err) == 0)
		swap = strchr(swaps, '\n') && strchr(swaps, '\n')[1] != '\0';
	add(r, "swap", OK, swap ? "on" : "none", NULL);
}

/* For a crash inside, which may be on purpose, the kernel starts what this names as root, outside. */
static void check_cores(struct report *r)
{
	PF_FREE char *pattern = NULL;
	struct pf_err err = PF_ERR_INIT;

	if (pf_read_pseudo_at(AT_FDCWD, "/proc/sys/kernel/core_pattern", 4096, &pattern, &err) < 0)
		return;
	pattern[strcspn(pattern, "\n")] = '\0';
	add(r, "core dumps", *pattern == '|' ? WARN : OK, *pattern ? pattern : "none",
		"a payload that means to crash has this program started, outside: sysctl "
		"kernel.core_pattern=core, if nobody reads them");
}

static void print_people(const struct report *r)
{
	bool colour = isatty(STDOUT_FILENO);
	const cJSON *c;

	cJSON_ArrayForEach(c, r->checks)
	{
		const char *status = cJSON_GetObjectItemCaseSensitive(c, "status")->valuestring;
		const cJSON *remedy = cJSON_GetObjectItemCaseSensitive(c, "remedy");
		const char *on = !colour                       ? ""
				 : strcmp(status, "ok") == 0   ? "\033[32m"
				 : strcmp(status, "warn") == 0 ? "\033[33m"
							       : "\033[31m";
		printf("%s%-5s%s %-18s %s\n", on, status, colour ? "\033[0m" : "",
			cJSON_GetObjectItemCaseSensitive(c, "check")->valuestring,
			cJSON_GetObjectItemCaseSensitive(c, "detail")->valuestring);
		if (remedy)
			printf("      → %s\n", remedy->valuestring);
	}
}

int pf_cmd_doctor(int argc, char **argv)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct report r = {.checks = NULL};
	bool json = false;
	int c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1)
		json = json || c == 'j';
	if (optind != argc)
		return pf_usage("doctor", "takes no arguments");
	r.checks = cJSON_CreateArray();
	check_kernel(&r);
	/* What only root can have would be refused to another, and say nothing of the machine. */
	if (geteuid() == 0) {
		check_privileges(&r);
		check_namespaces(&r);
		check_gate(&r);
		check_cgroups(&r);
	}
	check_jail(&r);
	check_filesystems(&r);
	check_programs(&r);
	check_rlimits(&r);
	check_cores(&r);
	if (json) {
		cJSON *j = cJSON_CreateObject();
		cJSON_AddBoolToObject(j, "usable", !r.failed);
		cJSON_AddItemToObject(j, "checks", r.checks);
		pf_print_json(j);
	} else {
		print_people(&r);
		cJSON_Delete(r.checks);
	}
	return r.failed ? 1 : 0;
}
