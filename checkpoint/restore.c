/* Theory of operation: a layer is unpacked below tmp/, in a directory nobody else can name, flushed, and
 * renamed to unpacked/sha256-ID only after everything in it was compared. So a directory that has the name is
 * complete and true, after a crash too, and later restores only stack it. */
#include "checkpoint/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/path.h"
#include "base/proc.h"
#include "checkpoint/memdir.h"
#include "checkpoint/unpacklayer.h"

static int make_dir(int dirfd, const char *path, mode_t mode, struct pf_err *err)
{
	if (mkdirat(dirfd, path, mode) < 0)
		return pf_fail(err, errno, "mkdir");
	int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "%s", path) : fd;
}

static int unpack_into(struct pf_ckpt_heavy *h, int tmp_fd, const struct pf_ckpt_layer *l,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	struct pf_unpacked got;
	char name[96];
	PF_CLOSE int layer = make_dir(tmp_fd, "layer", 0700, err);
	PF_CLOSE int fs = layer < 0 ? -1 : make_dir(layer, "fs", 0755, err);
	PF_CLOSE int links = fs < 0 ? -1 : make_dir(tmp_fd, "links", 0700, err);

	if (links < 0 || pf_ckpt_layer_unpack(h, &l->id, fs, links, 0, &got, err) < 0)
		return -1;
	if (syncfs(fs) < 0)
		return pf_fail(err, errno, "flush");
	if (mkdirat(h->storefd, "unpacked", 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir unpacked");
	PF_CLOSE int dest = openat(h->storefd, "unpacked", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dest < 0)
		return pf_fail(err, errno, "unpacked");
	/* Somebody else may have been faster with the same layer: theirs is as good. */
	if (renameat(tmp_fd, "layer", dest, pf_ckpt_unpacked_name(&l->id, name)) < 0) {
		if (errno != EEXIST && errno != ENOTEMPTY)
			return pf_fail(err, errno, "name the unpacked layer");
		return 0;
	}
	stats->unpacked++;
	stats->entries += got.entries;
	stats->bytes += got.bytes;
	return pf_sync_dir(dest, err);
}

static int prepare_layer(struct pf_ckpt_heavy *h, const struct pf_ckpt_layer *l,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	char tmp[64];
	int tmp_fd = -1;

	if (pf_ckpt_tmp_make(h->storefd, tmp, &tmp_fd, err) < 0)
		return -1;
	int r = unpack_into(h, tmp_fd, l, stats, err);
	pf_ckpt_tmp_remove(h->storefd, tmp, &tmp_fd);
	return r;
}

static bool seen_before(const struct pf_ckpt *c, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (strcmp(c->layers[k].id.s, c->layers[i].id.s) == 0)
			return true;
	return false;
}

int pf_ckpt_prepare_in(struct pf_ckpt_heavy *h, const char *digest, const char *image_digest,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};
	int64_t t0 = pf_now_us();

	*stats = (struct pf_ckpt_prepare_stats){0};
	if (pf_ckpt_heavy_load(h, digest, NULL, &c, err) < 0)
		return -1;
	if (image_digest && pf_ckpt_check_base(&c, image_digest, err) < 0)
		return -1;
	stats->layers = (int64_t)c.n_layers;
	for (size_t i = 0; i < c.n_layers; i++)
		if (!c.layers[i].unpacked && !seen_before(&c, i) &&
			prepare_layer(h, &c.layers[i], stats, err) < 0)
			return pf_wrap(err, "checkpoint %.19s", digest);
	stats->duration_us = pf_now_us() - t0;
	return 0;
}

int pf_ckpt_prepare(const char *store, const char *digest, const char *image_digest,
	struct pf_ckpt_prepare_stats *stats, struct pf_err *err)
{
	PF_CKPT_HEAVY struct pf_ckpt_heavy h = PF_CKPT_HEAVY_NONE;

	*stats = (struct pf_ckpt_prepare_stats){0};
	return pf_ckpt_heavy_open(store, false, false, &h, err) < 0
		       ? -1
		       : pf_ckpt_prepare_in(&h, digest, image_digest, stats, err);
}

/* ---- to be read alone ---- */

bool pf_ckpt_read_only(int storefd)
{
	struct statvfs fs;

	return fstatvfs(storefd, &fs) == 0 && (fs.f_flag & ST_RDONLY);
}

/* Layer i in the directory in memory, as "i". */
static int unpack_in_memory(
	struct pf_ckpt_heavy *h, int mem, size_t i, const struct pf_ckpt_layer *l, struct pf_err *err)
{
	struct pf_unpacked got;
	char name[24];

	snprintf(name, sizeof(name), "%zu", i);
	PF_CLOSE int fs = make_dir(mem, name, 0755, err);
	PF_CLOSE int links = fs < 0 ? -1 : make_dir(mem, "links", 0700, err);
	if (links < 0)
		return -1;
	if (pf_ckpt_layer_unpack(h, &l->id, fs, links, 0, &got, err) < 0)
		return err->errnum == ENOSPC ? pf_wrap(err, "the machine's memory is too small for it") : -1;
	return pf_rm_rf_at(mem, "links", err) < 0 ? -1 : pf_take_fd(&fs);
}

static int open_unpacked(const struct pf_ckpt_heavy *h, const struct pf_digest *id, struct pf_err *err)
{
	char name[96], path[128];

	snprintf(path, sizeof(path), "unpacked/%s/fs", pf_ckpt_unpacked_name(id, name));
	int fd = openat(h->storefd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "%s", path) : fd;
}

int pf_ckpt_open_layers(struct pf_ckpt_heavy *h, const struct pf_ckpt *c, int *fds, struct pf_err *err)
{
	bool read_only = pf_ckpt_read_only(h->storefd);
	struct pf_err cannot = PF_ERR_INIT;
	PF_CLOSE int mem = read_only || c->sealed ? pf_memdir(&cannot) : -1;
	size_t n = 0;

	if (mem < 0 && read_only) {
		*err = cannot;
		return pf_wrap(err, "the store is read-only");
	}
	for (; n < c->n_layers; n++) {
		struct pf_ckpt_prepare_stats stats = {0};
		const struct pf_ckpt_layer *l = &c->layers[n];
		fds[n] = l->unpacked ? open_unpacked(h, &l->id, err)
			 : mem >= 0  ? unpack_in_memory(h, mem, n, l, err)
			 : seen_before(c, n) || prepare_layer(h, l, &stats, err) == 0
				 ? open_unpacked(h, &l->id, err)
				 : -1;
		if (fds[n] < 0)
			break;
	}
	if (n == c->n_layers)
		return 0;
	while (n > 0)
		close(pf_take_fd(&fds[--n]));
	return pf_wrap(err, "checkpoint %.19s", c->digest.s);
}
