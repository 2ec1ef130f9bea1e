/* Theory of operation: owners, deletions and mounts of layers need root; in a user namespace of one's own one
 * is that, over one's own files. What belongs to root in the checkpoint then belongs to the caller, as in the
 * jails that keep it. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "cmd/pinfold-store/verbs.h"

static int say(const char *file, const char *text)
{
	PF_CLOSE int fd = open(file, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -1 : pf_write_all(fd, text, strlen(text));
}

int pf_store_own_root(struct pf_err *err)
{
	unsigned uid = geteuid(), gid = getegid();
	char users[40], groups[40];

	if (uid == 0)
		return 0;
	snprintf(users, sizeof(users), "0 %u 1\n", uid);
	snprintf(groups, sizeof(groups), "0 %u 1\n", gid);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || say("/proc/self/setgroups", "deny") < 0 ||
		say("/proc/self/uid_map", users) < 0 || say("/proc/self/gid_map", groups) < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
			"this needs root, or a machine that lets users have user namespaces");
	return 0;
}
