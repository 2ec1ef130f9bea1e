#include "checkpoint/packs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

int pf_packs_lock(int storefd, bool exclusive, struct pf_err *err)
{
	PF_CLOSE int fd = openat(storefd, "packs.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return pf_fail(err, errno, "checkpoint store: packs.lock");
	while (flock(fd, exclusive ? LOCK_EX : LOCK_SH) < 0)
		if (errno != EINTR)
			return pf_fail(err, errno, "checkpoint store: packs.lock");
	return pf_take_fd(&fd);
}
