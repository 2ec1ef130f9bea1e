/* Theory of operation: a tmpfs that is mounted nowhere. Its root is reached by the descriptor of the mount
 * alone, so it needs no name, no namespace and no clearing up, also after SIGKILL. Where the kernel can, it
 * is told not to write it to swap. */
#include "checkpoint/memdir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

static bool set(int fs, const char *key, const char *value)
{
	return fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) == 0;
}

int pf_memdir(struct pf_err *err)
{
	PF_CLOSE int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
	PF_CLOSE int mount = -1;
	PF_CLOSE int dir = -1;

	if (fs >= 0 && set(fs, "size", "75%") && set(fs, "mode", "755")) {
		(void)fsconfig(fs, FSCONFIG_SET_FLAG, "noswap", NULL, 0); /* since 6.4 */
		if (fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
			mount = fsmount(fs, FSMOUNT_CLOEXEC,
				MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	}
	if (mount >= 0)
		dir = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errno, "a directory in memory");
	if (fsetxattr(dir, "user.pinfold", "", 0, 0) < 0 || fremovexattr(dir, "user.pinfold") < 0)
		return pf_fail_kind(
			err, PF_ERR_UNSUPPORTED, errno, "a directory in memory with user attributes");
	return pf_take_fd(&dir);
}
