/* Theory of operation: root without root.
 *
 *   caller's user namespace ── U1 (caller = 0; network namespace, gate, mounts) ── U2 (caller = itself;
 * command)
 *
 * The jail's process enters U1, where it may mount and make namespaces, and the box is made from there in a
 * user namespace of its own, U2. The network namespace and its rules belong to U1: whatever the command may
 * become in U2, it has no power over them. Both map one id, the caller's, so that every file that the command
 * makes is the caller's. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/str.h"
#include "jail/jail.h"

static long number_in(const char *path)
{
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	return pf_read_pseudo_at(AT_FDCWD, path, 64, &text, &ignored) < 0 ? -1 : strtol(text, NULL, 10);
}

/* The AppArmor profile that confines us, "name (enforce)"; NULL: none does. malloc'ed. */
static char *apparmor_profile(void)
{
	static const char *const files[] = {"/proc/self/attr/apparmor/current", "/proc/self/attr/current"};
	struct pf_err ignored = PF_ERR_INIT;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		PF_FREE char *text = NULL;
		if (pf_read_pseudo_at(AT_FDCWD, files[i], 512, &text, &ignored) < 0)
			continue;
		text[strcspn(text, "\n")] = '\0';
		return pf_ends_with(text, " (enforce)") ? pf_take(text) : NULL;
	}
	return NULL;
}

/* The profile lies where we are installed, bin and share side by side. */
static int explain_apparmor(struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *dir = pf_program_dir(&ignored);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (slash)
		*slash = '\0';
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
		"AppArmor keeps programs without a profile from using user namespaces; as root: cp "
		"%s/share/pinfold/apparmor/pinfold-jail /etc/apparmor.d/ && apparmor_parser -r "
		"/etc/apparmor.d/pinfold-jail",
		slash ? dir : "/usr/local");
}

int pf_jail_explain_userns(int errnum, struct pf_err *err)
{
	if (number_in("/proc/sys/kernel/unprivileged_userns_clone") == 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"this machine lets no ordinary user make a user namespace; as root: sysctl -w "
			"kernel.unprivileged_userns_clone=1");
	if (number_in("/proc/sys/user/max_user_namespaces") == 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"this machine allows no user namespaces at all; as root: sysctl -w "
			"user.max_user_namespaces=15000");
	if (number_in("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == 1)
		return explain_apparmor(err);
	PF_FREE char *profile = errnum == EACCES || errnum == EPERM ? apparmor_profile() : NULL;
	if (profile)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errnum,
			"the AppArmor profile %s, which confines this program, lets it make no user "
			"namespace; "
			"as root: add the line \"userns,\" to it and load it anew (apparmor_parser -r FILE)",
			profile);
	if (errnum == ENOSPC || errnum == EUSERS)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errnum,
			"no further user namespace can be made (nested too deep, or "
			"user.max_user_namespaces=%ld is used up)",
			number_in("/proc/sys/user/max_user_namespaces"));
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errnum,
		"no user namespace can be made here (in a container it takes one that allows it: docker run "
		"--security-opt seccomp=unconfined)");
}

static int write_self(const char *name, const char *text)
{
	PF_FREE char *path = pf_asprintf("/proc/self/%s", name);

	return pf_write_pseudo_at(AT_FDCWD, path, text);
}

int pf_jail_enter(struct pf_jail *j, struct pf_err *err)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	PF_FREE char *uid_map = pf_asprintf("0 %u 1\n", (unsigned)uid);
	PF_FREE char *gid_map = pf_asprintf("0 %u 1\n", (unsigned)gid);

	j->caller_uid = uid;
	/* Who may drop the groups of the caller does; an ordinary user cannot. */
	(void)setgroups(0, NULL);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return pf_jail_explain_userns(errno, err);
	/* Without this the kernel lets nobody without privileges map groups: user_namespaces(7). */
	if (write_self("setgroups", "deny") < 0 || write_self("uid_map", uid_map) < 0 ||
		write_self("gid_map", gid_map) < 0)
		return pf_jail_explain_userns(errno, err);
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return pf_jail_explain_userns(errno, err);
	return 0;
}
