/* Theory of operation: a layer is unpacked below tmp/, in a directory nobody else can name, flushed, and
 * renamed to unpacked/sha256-DIFFID only after the last byte has matched both digests. So a directory that
 * has the name is complete and true, after a crash too, and later restores only stack it. */
#include "checkpoint/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/proc.h"
#include "checkpoint/store.h"
#include "overlay/unpack.h"

static int unpack_into(int storefd, int tmp_fd, const struct pf_ckpt_layer *l,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	char path[96], name[96];
	struct pf_unpack_stats got = {0};
	struct pf_unpack_opts o = {.max_bytes = PF_CKPT_MAX_BYTES,
		.max_entries = PF_CKPT_MAX_ENTRIES,
		.strict = true,
		.digest = l->digest.s,
		.diff_id = l->diff_id.s};
	PF_CLOSE int blob =
		openat(storefd, pf_ckpt_blob_path(&l->digest, path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (blob < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_CORRUPT : PF_ERR_SYSTEM, errno, "%s", path);
	if (mkdirat(tmp_fd, "layer", 0700) < 0 || mkdirat(tmp_fd, "layer/fs", 0755) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int fs = openat(tmp_fd, "layer/fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fs < 0)
		return pf_fail(err, errno, "layer/fs");
	if (pf_unpack_layer(blob, fs, &o, &got, err) < 0) {
		if (err->kind == PF_ERR_INVALID) /* beyond a limit: our writer refuses to make such a layer */
			err->kind = PF_ERR_CORRUPT;
		return -1;
	}
	if (syncfs(fs) < 0)
		return pf_fail(err, errno, "flush");
	if (mkdirat(storefd, "unpacked", 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir unpacked");
	PF_CLOSE int dest = openat(storefd, "unpacked", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dest < 0)
		return pf_fail(err, errno, "unpacked");
	/* Somebody else may have been faster with the same layer: theirs is as good. */
	if (renameat(tmp_fd, "layer", dest, pf_ckpt_unpacked_name(&l->diff_id, name)) < 0) {
		if (errno != EEXIST && errno != ENOTEMPTY)
			return pf_fail(err, errno, "name the unpacked layer");
		return 0;
	}
	stats->unpacked++;
	stats->entries += got.entries;
	stats->bytes += got.bytes;
	return pf_sync_dir(dest, err);
}

static int prepare_layer(
	int storefd, const struct pf_ckpt_layer *l, struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	char tmp[64];
	int tmp_fd = -1;

	if (pf_ckpt_tmp_make(storefd, tmp, &tmp_fd, err) < 0)
		return -1;
	int r = unpack_into(storefd, tmp_fd, l, stats, err);
	if (r < 0)
		pf_wrap(err, "layer %.19s", l->digest.s);
	pf_ckpt_tmp_remove(storefd, tmp, &tmp_fd);
	return r;
}

int pf_ckpt_prepare(const char *store, const char *digest, const char *image_digest,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(store, false, err);
	PF_CKPT struct pf_ckpt c = {0};
	int64_t t0 = pf_now_us();

	*stats = (struct pf_ckpt_prepare_stats){0};
	if (storefd < 0 || pf_ckpt_load(storefd, digest, NULL, &c, err) < 0)
		return -1;
	if (image_digest && pf_ckpt_check_base(&c, image_digest, err) < 0)
		return -1;
	stats->layers = (int64_t)c.n_layers;
	for (size_t i = 0; i < c.n_layers; i++)
		if (!c.layers[i].unpacked && prepare_layer(storefd, &c.layers[i], stats, err) < 0)
			return pf_wrap(err, "checkpoint %.19s", digest);
	stats->duration_us = pf_now_us() - t0;
	return 0;
}
