#include "sandbox/selfguard.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"
#include "base/sys.h"

/* Holds the path that we have left behind, and is against going round in circles; whether we are safe is
 * asked of the kernel. */
#define TRIED "PINFOLD_SELF_GUARD"

extern char **environ;

bool pf_self_in_reach(const struct pf_spec *spec)
{
	struct stat st;

	if (!pf_spec_own_ns(spec, CLONE_NEWUSER) || stat("/proc/self/exe", &st) < 0 ||
		(st.st_mode & (S_IWGRP | S_IWOTH)))
		return true;
	for (size_t i = 0; i < spec->n_joins; i++)
		if (spec->joins[i].flag == CLONE_NEWUSER)
			return true;
	for (size_t i = 0; i < spec->n_uid_maps; i++)
		if (st.st_uid >= spec->uid_maps[i].host &&
			st.st_uid - spec->uid_maps[i].host < spec->uid_maps[i].size)
			return true;
	return false;
}

int pf_self_guard(char *const argv[], struct pf_err *err)
{
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
	struct statvfs st;
	char path[PATH_MAX];

	if (statvfs("/proc/self/exe", &st) == 0 && (st.f_flag & ST_RDONLY)) {
		if (getenv(TRIED))
			pf_program_was(getenv(TRIED));
		(void)unsetenv(TRIED);
		return 0;
	}
	if (getenv(TRIED))
		return pf_fail(err, 0, "our own program file cannot be protected from the container");
	PF_CLOSE int fd = open_tree(AT_FDCWD, "/proc/self/exe", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (fd < 0 || mount_setattr(fd, "", AT_EMPTY_PATH, &ro, sizeof(ro)) < 0)
		return pf_fail(err, errno, "protect our own program file from the container");
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	path[n < 0 ? 0 : n] = '\0';
	if (setenv(TRIED, path, 1) < 0)
		return pf_fail(err, errno, "environment");
	(void)syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
	return pf_fail(err, errno, "start from a protected copy of our own program file");
}
