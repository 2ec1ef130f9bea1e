#include "sandbox/lsm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/sys.h"

bool pf_lsm_apparmor(void)
{
	PF_CLOSE int fd = open("/sys/module/apparmor/parameters/enabled", O_RDONLY | O_CLOEXEC);
	char c = 'N';

	return fd >= 0 && read(fd, &c, 1) == 1 && c == 'Y';
}

bool pf_lsm_selinux(void)
{
	return access("/sys/fs/selinux/enforce", F_OK) == 0;
}

int pf_lsm_plan(const struct pf_process *p, struct pf_lsm *lsm, struct pf_err *err)
{
	int n;

	*lsm = (struct pf_lsm){0};
	if (p->apparmor_profile && !pf_lsm_apparmor())
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"process.apparmorProfile: this kernel does not run AppArmor (remedy: leave it out)");
	if (p->selinux_label && !pf_lsm_selinux())
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"process.selinuxLabel: this kernel does not run SELinux (remedy: leave it out)");
	if (p->apparmor_profile && p->selinux_label)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"process.apparmorProfile and process.selinuxLabel exclude each other");
	if (p->apparmor_profile) {
		snprintf(lsm->file, sizeof(lsm->file), "attr/apparmor/exec");
		n = snprintf(lsm->label, sizeof(lsm->label), "exec %s", p->apparmor_profile);
	} else if (p->selinux_label) {
		snprintf(lsm->file, sizeof(lsm->file), "attr/exec");
		n = snprintf(lsm->label, sizeof(lsm->label), "%s", p->selinux_label);
	} else {
		return 0;
	}
	if (n >= (int)sizeof(lsm->label))
		return pf_fail_kind(err, PF_ERR_INVALID, ENAMETOOLONG, "security label");
	return 0;
}

int pf_lsm_open(int procfd, const struct pf_lsm *lsm, struct pf_err *err)
{
	PF_CLOSE int self = openat(procfd, "thread-self", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = self < 0 ? -1 : pf_openat2(self, lsm->file, O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV);

	/* Kernels before 5.8 have the one file for whichever module there is. */
	if (fd < 0 && errno == ENOENT && self >= 0)
		fd = pf_openat2(self, "attr/exec", O_WRONLY, 0, RESOLVE_BENEATH | RESOLVE_NO_XDEV);
	return fd < 0 ? pf_fail(err, errno, "security label: %s", lsm->file) : fd;
}
