/* Capabilities by raw system calls: theory of operation.
 *
 * The setting functions run between clone and exec, where libcap (which allocates) has no place. Order, in
 * the child: pf_caps_apply_bounding, PR_SET_KEEPCAPS, setgroups, setresgid, setresuid, pf_caps_apply, exec.
 *
 * Dropping from the bounding set first means that nothing executed later, whatever file capabilities or
 * setuid bits it has, gets a dropped capability back. Inheritable is set exactly as asked (OCI files without
 * it mean none), since leftovers there have let files with inheritable bits gain what was meant to be gone.
 * The ambient set is emptied before it is raised: it survives the change of user id. */
#include "sandbox/caps.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* By number. */
static const char *const cap_names[] = {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE", NULL};
#define N_CAPS (sizeof(cap_names) / sizeof(cap_names[0]) - 1)

const char *pf_cap_name(unsigned cap)
{
	return cap < N_CAPS ? cap_names[cap] : NULL;
}

int pf_caps_parse(const char *const *names, uint64_t *mask, struct pf_err *err)
{
	uint64_t found = 0;

	for (; names && *names; names++) {
		bool prefixed = strncasecmp(*names, "CAP_", 4) == 0;
		char upper[64];
		const char *near;
		unsigned cap = 0;

		snprintf(upper, sizeof(upper), "%s%s", prefixed ? "" : "CAP_", *names);
		for (char *p = upper; *p; p++)
			*p = (char)toupper((unsigned char)*p);
		while (cap < N_CAPS && strcmp(cap_names[cap], upper) != 0)
			cap++;
		if (cap == N_CAPS) {
			near = pf_nearest(upper, cap_names);
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "unknown capability '%s'%s%s%s", *names,
				near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
		}
		found |= PF_CAP_BIT(cap);
	}
	*mask = found;
	return 0;
}

void pf_caps_format(uint64_t mask, struct pf_buf *out)
{
	bool comma = false;

	for (unsigned cap = 0; cap < 64; cap++) {
		if (!(mask & PF_CAP_BIT(cap)))
			continue;
		if (comma)
			pf_buf_str(out, ", ");
		comma = true;
		if (cap < N_CAPS)
			pf_buf_str(out, cap_names[cap]);
		else
			pf_buf_printf(out, "%u", cap);
	}
}

uint64_t pf_caps_kernel(void)
{
	static uint64_t mask; /* does not change */
	unsigned known = 0, unknown = 64;

	while (!mask && known < unknown) {
		unsigned cap = (known + unknown) / 2;
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) < 0)
			unknown = cap;
		else
			known = cap + 1;
	}
	if (!mask)
		mask = known == 64 ? UINT64_MAX : PF_CAP_BIT(known) - 1;
	return mask;
}

uint64_t pf_caps_held(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
	uint64_t held;

	if (syscall(SYS_capget, &header, data) < 0)
		return 0;
	held = data[0].permitted | (uint64_t)data[1].permitted << 32;
	for (unsigned cap = 0; cap < 64; cap++)
		if ((held & PF_CAP_BIT(cap)) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1)
			held &= ~PF_CAP_BIT(cap);
	return held;
}

static int fail_names(struct pf_err *err, enum pf_err_kind kind, uint64_t mask, const char *text)
{
	PF_BUF struct pf_buf names = {0};

	pf_caps_format(mask, &names);
	return pf_fail_kind(err, kind, 0, "capabilities: %s %s", names.data, text);
}

int pf_caps_check(const struct pf_caps *caps, struct pf_err *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
	uint64_t held, missing;

	if ((missing = caps->effective & ~caps->permitted))
		return fail_names(err, PF_ERR_INVALID, missing,
			"is effective and not permitted: list it under permitted too");
	if ((missing = caps->ambient & ~(caps->permitted & caps->inheritable)))
		return fail_names(err, PF_ERR_INVALID, missing,
			"is ambient and not both permitted and inheritable: list it there too");
	if (syscall(SYS_capget, &header, data) < 0)
		return pf_fail(err, errno, "capget");
	held = data[0].permitted | (uint64_t)data[1].permitted << 32;
	missing = (caps->permitted | caps->inheritable) & ~held & pf_caps_kernel();
	if (missing)
		return fail_names(err, PF_ERR_UNSUPPORTED, missing,
			"is not ours to give: leave it out, or start with it, or use a user namespace");
	return 0;
}

int pf_caps_apply_bounding(uint64_t mask)
{
	uint64_t drop = pf_caps_kernel() & ~mask;

	/* One that is not there any more may be dropped by who has the power to, and need not be by others.
	 */
	for (unsigned cap = 0; cap < 64; cap++)
		if ((drop & PF_CAP_BIT(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 &&
			prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0)
			return -1;
	return 0;
}

int pf_caps_apply(const struct pf_caps *caps)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	uint64_t known = pf_caps_kernel();

	for (unsigned half = 0; half < 2; half++) {
		data[half].effective = (uint32_t)((caps->effective & known) >> (32 * half));
		data[half].permitted = (uint32_t)((caps->permitted & known) >> (32 * half));
		data[half].inheritable = (uint32_t)((caps->inheritable & known) >> (32 * half));
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 ||
		syscall(SYS_capset, &header, data) < 0)
		return -1;
	for (unsigned cap = 0; cap < 64; cap++)
		if ((caps->ambient & known & PF_CAP_BIT(cap)) &&
			prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return -1;
	return 0;
}
