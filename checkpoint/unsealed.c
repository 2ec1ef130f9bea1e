/* Theory of operation: overlayfs needs directories, so a layer of a sealed checkpoint lies in clear in
 * unpacked/ while it is a sandbox's lower. When the last sandbox on it is destroyed (and at each gc) it goes.
 * Which sandboxes stand on a layer is in their records, and that a layer is sealed is in its document's name,
 * so none of this needs the key. A sandbox that is being made holds a lock (shared) from before it asks for
 * its layers until its record is there. */
#include "checkpoint/unsealed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "checkpoint/store.h"

static int take_lock(int storefd, int how, struct pf_err *err)
{
	PF_CLOSE int fd = openat(storefd, "unpacked.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return pf_fail(err, errno, "checkpoint store: unpacked.lock");
	while (flock(fd, how) < 0)
		if (errno != EINTR)
			return pf_fail(err, errno, "checkpoint store: unpacked.lock");
	return pf_take_fd(&fd);
}

int pf_ckpt_hold_unpacked(const char *store, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);

	return storefd < 0 ? -1 : take_lock(storefd, LOCK_SH, err);
}

/* Every layer that a sandbox's record names, one a line. */
static int layers_in_use(int storefd, struct pf_buf *used, struct pf_err *err)
{
	PF_CLOSEDIR DIR *d = NULL;
	int fd = openat(storefd, "../sandboxes", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *e;

	pf_buf_str(used, "\n");
	if (fd < 0)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "sandboxes");
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return pf_fail(err, ENOMEM, "sandboxes");
	}
	while ((errno = 0, e = readdir(d)) != NULL) {
		struct pf_err why = PF_ERR_INIT;
		PF_FREE char *path = pf_asprintf("%s/sandbox.json", e->d_name);
		PF_FREE char *text = NULL;
		const cJSON *layers = NULL, *l;
		size_t len = 0;
		if (e->d_name[0] == '.')
			continue;
		if (pf_read_file_at(dirfd(d), path, PF_CKPT_MAX_DOC, &text, &len, &why) < 0) {
			if (why.kind == PF_ERR_NOT_FOUND || why.errnum == ENOTDIR)
				continue;
			*err = why;
			return -1;
		}
		PF_JSON cJSON *j = pf_json_parse(path, text, len, err);
		if (!j || pf_json_arr(j, path, "checkpoint_layers", &layers, err) < 0)
			return -1;
		cJSON_ArrayForEach(l, layers) if (cJSON_IsString(l))
			pf_buf_printf(used, "%s\n", l->valuestring);
	}
	return errno ? pf_fail(err, errno, "sandboxes") : 0;
}

/* name is "sha256-HEX". */
static bool sealed_only(int storefd, const char *name)
{
	struct pf_digest id;
	struct stat st;
	char path[96];

	snprintf(id.s, sizeof(id.s), "sha256:%.64s", name + 7);
	return pf_digest_ok(id.s) && fstatat(storefd, pf_ckpt_layer_path(&id, true, path), &st, 0) == 0 &&
	       fstatat(storefd, pf_ckpt_layer_path(&id, false, path), &st, 0) < 0 && errno == ENOENT;
}

static bool in_use(const struct pf_buf *used, const char *name)
{
	PF_FREE char *line = pf_asprintf("\nsha256:%s\n", name + 7);

	return strstr(used->data, line) != NULL;
}

/* Out of the way in one step, so that a removal that is cut short leaves no half of a layer under its name.
 */
static int drop(int storefd, int unpacked, const char *name, struct pf_err *err)
{
	PF_FREE char *trash = pf_asprintf("tmp/trash-%s", name);

	if (renameat(unpacked, name, storefd, trash) < 0 && errno != ENOTEMPTY && errno != EEXIST)
		return pf_fail(err, errno, "remove unpacked/%s", name);
	return pf_rm_rf_at(storefd, trash, err);
}

int pf_ckpt_drop_unsealed(const char *store, int64_t *dropped, struct pf_err *err)
{
	PF_BUF struct pf_buf used = {0};
	struct pf_err why = PF_ERR_INIT;
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, &why);
	PF_CLOSE int lock = -1;
	PF_CLOSEDIR DIR *d = NULL;
	struct dirent *e;
	int fd;

	*dropped = 0;
	if (storefd < 0 || faccessat(storefd, "seal.key", F_OK, 0) < 0)
		return 0; /* no store, or nothing in it was ever sealed */
	lock = take_lock(storefd, LOCK_EX | LOCK_NB, &why);
	if (lock < 0) {
		if (why.errnum == EWOULDBLOCK)
			return 0;
		*err = why;
		return -1;
	}
	if (layers_in_use(storefd, &used, err) < 0)
		return -1;
	fd = openat(storefd, "unpacked", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || !(d = fdopendir(fd)))
		return errno == ENOENT ? 0 : pf_fail(err, errno, "unpacked");
	while ((errno = 0, e = readdir(d)) != NULL) {
		if (!pf_starts_with(e->d_name, "sha256-") || !sealed_only(storefd, e->d_name) ||
			in_use(&used, e->d_name))
			continue;
		if (drop(storefd, dirfd(d), e->d_name, err) < 0)
			return -1;
		++*dropped;
	}
	return errno ? pf_fail(err, errno, "unpacked") : 0;
}
