/* Which parameters are a namespace's own follows from the kernel: ipc_namespaces(7), network_namespaces(7),
 * uts_namespaces(7). A name that is not on the list would change the machine. */
#include "sandbox/sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/sys.h"

static const char *const ipc_files[] = {"kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem",
	"kernel/shmall", "kernel/shmmax", "kernel/shmmni", "kernel/shm_rmid_forced", NULL};

/* "net.ipv4.ip_forward" → "net/ipv4/ip_forward". Where the first separator is a slash, slashes separate and
 * dots are part of a name: sysctl(8). */
static char *to_file(const char *name)
{
	char *file = pf_strdup(name), *first = strpbrk(file, "./");

	if (first && *first == '.')
		for (char *p = file; *p; p++)
			*p = *p == '.' ? '/' : *p == '/' ? '.' : *p;
	return file;
}

static bool sane(const char *file)
{
	const char *p = file;

	while (*p) {
		size_t n = strcspn(p, "/");
		if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		for (size_t i = 0; i < n; i++)
			if ((unsigned char)p[i] <= ' ' || (unsigned char)p[i] >= 0x7f)
				return false;
		p += n;
		if (*p == '/' && *++p == '\0')
			return false;
	}
	return p != file;
}

static int check_scope(const char *name, const char *file, const struct pf_spec *spec, struct pf_err *err)
{
	uint64_t need = 0;
	const char *kind = NULL;

	for (const char *const *f = ipc_files; *f; f++)
		if (strcmp(file, *f) == 0) {
			need = CLONE_NEWIPC;
			kind = "ipc";
		}
	if (pf_starts_with(file, "fs/mqueue/")) {
		need = CLONE_NEWIPC;
		kind = "ipc";
	} else if (pf_starts_with(file, "net/")) {
		need = CLONE_NEWNET;
		kind = "network";
	} else if (strcmp(file, "kernel/domainname") == 0) {
		need = CLONE_NEWUTS;
		kind = "uts";
	}
	if (!need)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"linux.sysctl: '%.100s' is not a container's own, setting it would change the whole "
			"machine%s",
			name, strcmp(file, "kernel/hostname") == 0 ? " (remedy: use hostname)" : "");
	if (!pf_spec_own_ns(spec, need))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"linux.sysctl: '%.100s' needs a %s namespace of the container's own", name, kind);
	return 0;
}

char *pf_sysctl_check(const char *name, const char *value, const struct pf_spec *spec, struct pf_err *err)
{
	PF_FREE char *file = to_file(name);

	if (!sane(file)) {
		pf_fail_kind(
			err, PF_ERR_INVALID, 0, "linux.sysctl: '%.100s' is no name of a parameter", name);
		return NULL;
	}
	for (const char *p = value; *p; p++)
		if ((unsigned char)*p < ' ' && *p != '\t') {
			pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.sysctl: the value of '%.100s' has a control character in it", name);
			return NULL;
		}
	return check_scope(name, file, spec, err) < 0 ? NULL : pf_take(file);
}

int pf_sysctl_apply(int procfd, const struct pf_sysctl *sysctls, size_t n, struct pf_err *err)
{
	if (n == 0)
		return 0;
	PF_CLOSE int sys = openat(procfd, "sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (sys < 0)
		return pf_fail(err, errno, "linux.sysctl: /proc/sys");
	for (size_t i = 0; i < n; i++) {
		PF_CLOSE int fd = pf_openat2(sys, sysctls[i].file, O_WRONLY | O_NOFOLLOW, 0,
			RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV);
		size_t len = strlen(sysctls[i].value);
		if (fd < 0 || write(fd, sysctls[i].value, len) != (ssize_t)len)
			return pf_fail(err, errno, "linux.sysctl: %s", sysctls[i].file);
	}
	return 0;
}
