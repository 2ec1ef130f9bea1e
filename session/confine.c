#include "session/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "sandbox/caps.h"
#include "sandbox/seccomp.h"

/* Refused with EPERM. A list of what to refuse, not of what to allow: libc's and c-ares' calls differ from
 * release to release, and a keeper that is killed takes its sandbox along. */
static const char *const refused[] = {"execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv",
	"process_vm_writev", "pidfd_getfd", "mount", "umount2", "pivot_root", "chroot", "fsopen", "fsmount",
	"fspick", "fsconfig", "open_tree", "move_mount", "mount_setattr", "setns", "unshare", "bpf",
	"perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon",
	"swapoff", "keyctl", "add_key", "request_key", "open_by_handle_at", "name_to_handle_at", "acct",
	"quotactl", "iopl", "ioperm", "mknod", "mknodat", "setuid", "setgid", "setresuid", "setresgid",
	"capset", "personality", "settimeofday", "clock_settime", "sethostname", "setdomainname", "syslog"};

int pf_confine_filter(const char *const *more, struct pf_err *err)
{
	PF_JSON cJSON *list = cJSON_CreateObject();
	cJSON *rule = cJSON_CreateObject(), *names = cJSON_AddArrayToObject(rule, "names");
	PF_BPF struct pf_bpf filter = {0};
	unsigned flags;
	int notify;

	cJSON_AddStringToObject(list, "defaultAction", "SCMP_ACT_ALLOW");
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		cJSON_AddItemToArray(names, cJSON_CreateString(refused[i]));
	for (; more && *more; more++)
		cJSON_AddItemToArray(names, cJSON_CreateString(*more));
	cJSON_AddStringToObject(rule, "action", "SCMP_ACT_ERRNO");
	cJSON_AddItemToArray(cJSON_AddArrayToObject(list, "syscalls"), rule);
	if (pf_seccomp_oci(list, &filter, &flags, &notify, err) < 0)
		return -1;
	return pf_seccomp_load(&filter, flags) < 0 ? pf_fail(err, errno, "seccomp filter") : 0;
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
			a.allowed_access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
		if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &a, 0) < 0)
			return pf_fail(err, errno, "landlock: %s", *paths);
	}
	return 0;
}

int pf_confine_files(
	const char *const *rw, const char *const *ro, const char *const *list, struct pf_err *err)
{
	const struct landlock_ruleset_attr all = {.handled_access_fs = READS | WRITES | NEVER};
	PF_CLOSE int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof(all), 0);

	if (ruleset < 0)
		return 0;
	if (allow_below(ruleset, rw, READS | WRITES, err) < 0 || allow_below(ruleset, ro, READS, err) < 0 ||
		allow_below(ruleset, list, LANDLOCK_ACCESS_FS_READ_DIR, err) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return pf_fail(err, errno, "landlock");
	return 0;
}

int pf_confine_keeper(struct pf_err *err)
{
	const uint64_t keep = PF_CAP_BIT(CAP_NET_ADMIN) | PF_CAP_BIT(CAP_KILL);
	const struct pf_caps caps = {.effective = keep, .permitted = keep};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return pf_fail(err, errno, "confine the keeper");
	if (pf_caps_apply_bounding(0) < 0 || pf_caps_apply(&caps) < 0)
		return pf_fail(err, errno, "confine the keeper: capabilities");
	return pf_confine_filter(NULL, err) < 0 ? pf_wrap(err, "confine the keeper") : 0;
}
