/* Theory of operation: owners, deletions and mounts of layers need root; in a user namespace of one's own one
 * is that, over one's own files. What belongs to root in the checkpoint then belongs to the caller, as in the
 * jails that keep it.
 *
 * In there other owners than oneself cannot be told from each other, so the key, whose owner matters, is
 * fetched before. And where a machine gives namespaces without letting us be anybody in them, we would stay
 * nobody: so a child tries first where one may as well remain what one was. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "checkpoint/heavy.h"
#include "cmd/pinfold-store/verbs.h"

static int say(const char *file, const char *text)
{
	PF_CLOSE int fd = open(file, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -1 : pf_write_all(fd, text, strlen(text));
}

static int enter(void)
{
	unsigned uid = geteuid(), gid = getegid();
	char users[40], groups[40];

	snprintf(users, sizeof(users), "0 %u 1\n", uid);
	snprintf(groups, sizeof(groups), "0 %u 1\n", gid);
	return unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || say("/proc/self/setgroups", "deny") < 0 ||
			       say("/proc/self/uid_map", users) < 0 || say("/proc/self/gid_map", groups) < 0
		       ? -1
		       : 0;
}

static bool could_enter(void)
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(enter() == 0 ? 0 : 1);
	while (pid > 0 && waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return false;
	return pid > 0 && status == 0;
}

static int own_root(bool needed, struct pf_err *err)
{
	if (geteuid() == 0)
		return 0;
	pf_ckpt_fetch_key(pf_store.store);
	if (!needed && !could_enter())
		return 0;
	return enter() == 0 ? 0
			    : pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno,
				      "this needs root, or a machine that lets users have user namespaces");
}

int pf_store_own_root(struct pf_err *err)
{
	return own_root(true, err);
}

int pf_store_may_own_root(struct pf_err *err)
{
	return own_root(false, err);
}
