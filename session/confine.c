#include "session/confine.h"

#include <errno.h>
#include <sys/prctl.h>

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
