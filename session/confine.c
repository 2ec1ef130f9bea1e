#include "session/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "sandbox/caps.h"
#include "sandbox/idrange.h"
#include "sandbox/seccomp.h"

#define FIRST_TLS_UID 1879048192u  /* 0x70000000: above what systemd and we give to containers */
#define FIRST_GATE_UID 1879113728u /* 65536 further */
#define FIRST_POD_UID 1879179264u  /* and again */
#define POD_UIDS 250000000u
/* The kernel's PROC_DYNAMIC_FIRST: the least number that it gives to a namespace. */
#define FIRST_NAMESPACE 0xF0000000u
#ifdef __SANITIZE_ADDRESS__
#define GATE_SPACE RLIM_INFINITY
#else
#define GATE_SPACE ((rlim_t)2 << 30) /* shared mappings are no data */
#endif

uid_t pf_confine_tls_uid(uint32_t id_base)
{
	return FIRST_TLS_UID + id_base / PF_IDRANGE_SIZE;
}

uid_t pf_confine_gate_uid(uint32_t id_base)
{
	return FIRST_GATE_UID + id_base / PF_IDRANGE_SIZE;
}

uid_t pf_confine_pod_uid(int netns)
{
	struct stat st;

	if (fstat(netns, &st) < 0 || st.st_ino < FIRST_NAMESPACE || st.st_ino - FIRST_NAMESPACE >= POD_UIDS)
		return pf_confine_gate_uid(0);
	return FIRST_POD_UID + (uid_t)(st.st_ino - FIRST_NAMESPACE);
}

/* Refused with EPERM. Lists of what to refuse, not of what to allow: libc's and c-ares' calls differ from
 * release to release, and a keeper that is killed takes its sandbox along. */
static const char *const refused[] = {"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd",
	"mount", "umount2", "pivot_root", "chroot", "fsopen", "fsmount", "fspick", "fsconfig", "open_tree",
	"move_mount", "mount_setattr", "setns", "unshare", "bpf", "perf_event_open", "userfaultfd",
	"io_uring_setup", "io_uring_enter", "io_uring_register", "init_module", "finit_module",
	"delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff", "keyctl", "add_key",
	"request_key", "open_by_handle_at", "name_to_handle_at", "acct", "quotactl", "iopl", "ioperm",
	"mknod", "mknodat", "personality", "settimeofday", "clock_settime", "sethostname", "setdomainname",
	"syslog", NULL};
/* Of who starts no program. */
static const char *const starting[] = {
	"execve", "execveat", "fork", "vfork", "setuid", "setgid", "setresuid", "setresgid", "capset", NULL};
const char *const pf_confine_bystander[] = {"kill", "tkill", "pidfd_send_signal", "pidfd_open",
	"rt_sigqueueinfo", "rt_tgsigqueueinfo", "mkdir", "mkdirat", "rename", "renameat", "renameat2",
	"unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat",
	"chown", "fchown", "fchownat", "lchown", "setxattr", "fsetxattr", "lsetxattr", "utime", "utimes",
	"utimensat", "futimesat", "truncate", "fallocate", NULL};
/* Of a gate: of its log it changes nothing that is there. */
static const char *const gate_refused[] = {"ioctl", "pwritev2", "sched_setaffinity", "setpriority", "msgget",
	"semget", "shmget", "mq_open", "clone", "clone3", NULL};

static void refuse(cJSON *syscalls, const char *const *const lists[], size_t n)
{
	cJSON *rule = cJSON_CreateObject(), *names = cJSON_AddArrayToObject(rule, "names");

	for (size_t i = 0; i < n; i++)
		for (const char *const *s = lists[i]; s && *s; s++)
			cJSON_AddItemToArray(names, cJSON_CreateString(*s));
	cJSON_AddStringToObject(rule, "action", "SCMP_ACT_ERRNO");
	cJSON_AddItemToArray(syscalls, rule);
}

/* One call, where its argument compares so. Comparing with "equal" looks at the lower half, which is all that
 * the kernel takes of an int. */
static void refuse_if(cJSON *syscalls, const char *name, int arg, const char *op, int64_t value)
{
	cJSON *rule = cJSON_CreateObject(), *names = cJSON_AddArrayToObject(rule, "names"),
	      *a = cJSON_CreateObject();

	cJSON_AddItemToArray(names, cJSON_CreateString(name));
	cJSON_AddStringToObject(rule, "action", "SCMP_ACT_ERRNO");
	pf_json_add_int(a, "index", arg);
	bool masked = strcmp(op, "SCMP_CMP_MASKED_EQ") == 0;
	pf_json_add_int(a, "value", masked ? (int64_t)UINT32_MAX : value);
	if (masked)
		pf_json_add_int(a, "valueTwo", value);
	cJSON_AddStringToObject(a, "op", op);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(rule, "args"), a);
	cJSON_AddItemToArray(syscalls, rule);
}

static int load(const cJSON *list, struct pf_err *err)
{
	PF_BPF struct pf_bpf filter = {0};
	unsigned flags;
	int notify;

	if (pf_seccomp_oci(list, &filter, &flags, &notify, err) < 0)
		return -1;
	return pf_seccomp_load(&filter, flags) < 0 ? pf_fail(err, errno, "seccomp filter") : 0;
}

static cJSON *new_list(cJSON **syscalls)
{
	cJSON *list = cJSON_CreateObject();

	cJSON_AddStringToObject(list, "defaultAction", "SCMP_ACT_ALLOW");
	*syscalls = cJSON_AddArrayToObject(list, "syscalls");
	return list;
}

int pf_confine_filter(const char *const *more, struct pf_err *err)
{
	const char *const *const lists[] = {refused, starting, more};
	cJSON *syscalls;
	PF_JSON cJSON *list = new_list(&syscalls);

	refuse(syscalls, lists, 3);
	return load(list, err);
}

#define READS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITES                                                                                            \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE | \
		LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK)
#define NEVER                                                                                        \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK | \
		LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM)

static int allow_below(int ruleset, const char *const *paths, uint64_t rights, struct pf_err *err)
{
	for (; paths && *paths; paths++) {
		PF_CLOSE int fd = open(*paths, O_PATH | O_CLOEXEC);
		struct stat st;
		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		struct landlock_path_beneath_attr a = {.allowed_access = rights, .parent_fd = fd};
		if (!S_ISDIR(st.st_mode))
			a.allowed_access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE |
					    LANDLOCK_ACCESS_FS_EXECUTE;
		if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &a, 0) < 0)
			return pf_fail(err, errno, "landlock: %s", *paths);
	}
	return 0;
}

int pf_confine_files(const char *const *rw, const char *const *ro, const char *const *list,
	const char *const *exec, struct pf_err *err)
{
	const struct landlock_ruleset_attr all = {.handled_access_fs = READS | WRITES | NEVER};
	PF_CLOSE int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

	if (ruleset < 0)
		return 0;
	if (allow_below(ruleset, rw, READS | WRITES, err) < 0 || allow_below(ruleset, ro, READS, err) < 0 ||
		allow_below(ruleset, list, LANDLOCK_ACCESS_FS_READ_DIR, err) < 0 ||
		allow_below(ruleset, exec, READS | LANDLOCK_ACCESS_FS_EXECUTE, err) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return pf_fail(err, errno, "landlock");
	return 0;
}

static int privileges(uint64_t keep, uint64_t bounding, struct pf_err *err)
{
	const struct pf_caps caps = {.effective = keep, .permitted = keep};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "no new privileges");
	if (pf_caps_apply_bounding(bounding) < 0 || pf_caps_apply(&caps) < 0)
		return pf_fail(err, errno, "capabilities");
	return 0;
}

int pf_confine_keeper(bool starts_tls, struct pf_err *err)
{
	/* A program that root starts gets what is in the bounding set, as far as it was here. */
	const uint64_t more =
		starts_tls ? PF_CAP_BIT(CAP_SETUID) | PF_CAP_BIT(CAP_SETGID) | PF_CAP_BIT(CAP_IPC_LOCK) : 0;
	const char *const *const lists[] = {refused, starts_tls ? NULL : starting};
	cJSON *syscalls;
	PF_JSON cJSON *list = new_list(&syscalls);

	refuse(syscalls, lists, 2);
	return privileges(more | PF_CAP_BIT(CAP_KILL), more, err) < 0 || load(list, err) < 0
		       ? pf_wrap(err, "confine the keeper")
		       : 0;
}

int pf_confine_jail(struct pf_err *err)
{
	return privileges(PF_CAP_BIT(CAP_NET_ADMIN) | PF_CAP_BIT(CAP_KILL), 0, err) < 0 ||
			       pf_confine_filter(NULL, err) < 0
		       ? pf_wrap(err, "confine the jail's keeper")
		       : 0;
}

int pf_confine_bound(int what, rlim_t max, struct pf_err *err)
{
	struct rlimit r;

	if (getrlimit((__rlimit_resource_t)what, &r) < 0)
		return pf_fail(err, errno, "resource limits");
	if (r.rlim_max > max)
		r.rlim_max = max;
	r.rlim_cur = r.rlim_max;
	return setrlimit((__rlimit_resource_t)what, &r) < 0 ? pf_fail(err, errno, "resource limits") : 0;
}

static int bounds(struct pf_err *err)
{
	static const struct {
		__rlimit_resource_t what;
		rlim_t max;
	} limits[] = {{RLIMIT_CORE, 0}, {RLIMIT_NPROC, 0}, {RLIMIT_MEMLOCK, 0}, {RLIMIT_MSGQUEUE, 0},
		{RLIMIT_DATA, PF_CONFINE_DATA}, {RLIMIT_AS, GATE_SPACE}};

	for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++)
		if (pf_confine_bound((int)limits[i].what, limits[i].max, err) < 0)
			return -1;
	return 0;
}

static int become(uid_t uid, bool first, struct pf_err *err)
{
	/* The bounding set needs root's capabilities, the change of user must come before the rest goes. */
	if (pf_caps_apply_bounding(0) < 0 || prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return pf_fail(err, errno, "capabilities");
	if (setgroups(0, NULL) < 0 && first)
		return pf_fail(err, errno, "drop the groups");
	if ((setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0) && (first || errno != EINVAL))
		return pf_fail(err, errno, "become user %u", uid);
	return 0;
}

int pf_confine_gate(uid_t uid, bool first_userns, int cut, struct pf_err *err)
{
	const char *const *const lists[] = {refused, starting, pf_confine_bystander, gate_refused};
	cJSON *syscalls;
	PF_JSON cJSON *list = new_list(&syscalls);

	refuse(syscalls, lists, 4);
	/* CAP_NET_ADMIN is good for the host's network too; what could use it there is taken away: netlink,
	 * raw and packet sockets, ioctl, and the options of IP sockets by which tables are replaced. */
	refuse_if(syscalls, "socket", 0, "SCMP_CMP_LT", AF_INET);
	refuse_if(syscalls, "socket", 0, "SCMP_CMP_GT", AF_INET6);
	refuse_if(syscalls, "setsockopt", 1, "SCMP_CMP_MASKED_EQ", IPPROTO_IP);
	refuse_if(syscalls, "setsockopt", 1, "SCMP_CMP_MASKED_EQ", IPPROTO_IPV6);
	/* The log's descriptor appends, and stays so. -1 is no descriptor. */
	refuse_if(syscalls, "ftruncate", 0, "SCMP_CMP_NE", cut < 0 ? (int64_t)UINT32_MAX : (int64_t)cut);
	refuse_if(syscalls, "fcntl", 1, "SCMP_CMP_MASKED_EQ", F_SETFL);
	/* abort() is for itself. */
	refuse_if(syscalls, "tgkill", 0, "SCMP_CMP_NE", getpid());
	if (bounds(err) < 0 || become(uid, first_userns, err) < 0 ||
		privileges(PF_CAP_BIT(CAP_NET_ADMIN), 0, err) < 0 || load(list, err) < 0)
		return pf_wrap(err, "confine the gate");
	return 0;
}

int pf_confine_descriptors(int *const fds[], size_t n)
{
	int high[8];

	for (size_t i = 0; i < n; i++) {
		high[i] = *fds[i] < 0 ? -1 : fcntl(*fds[i], F_DUPFD_CLOEXEC, 3 + (int)n);
		if (*fds[i] >= 0 && high[i] < 0)
			return -1;
	}
	for (size_t i = 0; i < n; i++)
		if (high[i] >= 0 && (*fds[i] = dup3(high[i], 3 + (int)i, O_CLOEXEC)) < 0)
			return -1;
	for (size_t i = 0; i < n; i++)
		if (high[i] < 0)
			close(3 + (int)i);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		if (dup2(null, i) < 0)
			return -1;
	return close_range(3 + (unsigned)n, ~0U, 0);
}
