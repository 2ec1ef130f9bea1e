#include "checkpoint/packs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

/* To read a store that is mounted read-only is enough for a lock that others see who have it writable. A copy
 * may come without the file; then nobody can have made it the lock of anything. */
static int open_read_only(int storefd)
{
	int fd = openat(storefd, "packs.lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 && errno == ENOENT ? openat(storefd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : fd;
}

int pf_packs_lock(int storefd, bool exclusive, struct pf_err *err)
{
	PF_CLOSE int fd = openat(storefd, "packs.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0 && errno == EROFS && !exclusive)
		fd = open_read_only(storefd);
	if (fd < 0)
		return pf_fail(err, errno, "checkpoint store: packs.lock");
	while (flock(fd, exclusive ? LOCK_EX : LOCK_SH) < 0)
		if (errno != EINTR)
			return pf_fail(err, errno, "checkpoint store: packs.lock");
	return pf_take_fd(&fd);
}
