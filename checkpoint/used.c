/* Theory of operation: a checkpoint's last use is the time of its manifest's file: it is set when the
 * checkpoint is made or taken in, and again by `create --from`. A store that was copied without its times is
 * all new, so that what is wrong keeps too much rather than too little. Light. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "checkpoint/prune.h"
#include "checkpoint/store.h"

void pf_ckpt_mark_used(const char *store, const struct pf_digest *digest)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int fd = pf_ckpt_store_open(store, false, &ignored);
	char path[96];

	if (fd >= 0)
		(void)utimensat(fd, pf_ckpt_manifest_path(digest, path), NULL, AT_SYMLINK_NOFOLLOW);
}

int64_t pf_ckpt_last_used(int storefd, const struct pf_digest *digest)
{
	struct stat st;
	char path[96];

	return fstatat(storefd, pf_ckpt_manifest_path(digest, path), &st, AT_SYMLINK_NOFOLLOW) < 0
		       ? 0
		       : st.st_mtim.tv_sec;
}
