/* Theory of operation: an archive of a layout is written member by member. The files of a checkpoint are read
 * through an overlay mount of its layers that is nowhere attached: which of several files of a name counts,
 * and what is deleted, is the kernel's business, as it is in a sandbox. */
#include "checkpoint/export_tar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/oci.h"
#include "checkpoint/tarhdr.h"
#include "checkpoint/tarout.h"
#include "overlay/mount.h"
#include "overlay/pack.h"

/* ---- a layout ---- */

static int add_file(struct pf_tarout *o, int dirfd, const char *prefix, const char *name, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	PF_FREE char *path = pf_asprintf("%s%s", prefix, name);
	PF_BUF struct pf_buf head = {0};
	struct stat st;
	int64_t got;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s", path);
	struct pf_tar_member m = {
		.type = '0', .path = path, .mode = 0644, .size = st.st_size, .sparse_size = -1};
	pf_tar_header(&head, &m);
	if (pf_tarout_write(o, head.data, head.len, err) < 0 ||
		pf_tarout_from_fd(o, fd, st.st_size, &got, err) < 0)
		return -1;
	if (got != st.st_size)
		return pf_fail(err, 0, "%s changed while it was read", path);
	return pf_tarout_zeros(o, (size_t)(-st.st_size & (PF_TAR_BLOCK - 1)), err);
}

static int add_dir(struct pf_tarout *o, const char *path, struct pf_err *err)
{
	PF_BUF struct pf_buf head = {0};
	struct pf_tar_member m = {.type = '5', .path = path, .mode = 0755, .sparse_size = -1};

	pf_tar_header(&head, &m);
	return pf_tarout_write(o, head.data, head.len, err);
}

static int no_dots(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int add_blobs(struct pf_tarout *o, int layout, struct pf_err *err)
{
	struct dirent **v = NULL;
	PF_CLOSE int blobs = openat(layout, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int n = blobs < 0 ? -1 : scandirat(blobs, ".", &v, no_dots, by_bytes), r = 0;

	if (n < 0)
		return pf_fail(err, errno, "blobs");
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add_file(o, blobs, "blobs/sha256/", v[i]->d_name, err);
		free(v[i]);
	}
	free(v);
	return r;
}

int pf_ckpt_export_archive(int layout, const char *path, struct pf_err *err)
{
	PF_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct pf_tarout *o = fd < 0 ? NULL : pf_tarout_spool(fd, err);

	if (fd < 0)
		return pf_fail(err, errno, "%s", path);
	if (!o)
		return -1;
	if (add_dir(o, "blobs/", err) < 0 || add_dir(o, "blobs/sha256/", err) < 0 ||
		add_blobs(o, layout, err) < 0 || add_file(o, layout, "", "index.json", err) < 0 ||
		add_file(o, layout, "", "oci-layout", err) < 0 ||
		pf_tarout_zeros(o, (size_t)2 * PF_TAR_BLOCK, err) < 0) {
		pf_tarout_abort(o);
		return -1;
	}
	if (pf_tarout_finish(o, NULL, err) < 0)
		return -1;
	return fsync(fd) < 0 ? pf_fail(err, errno, "%s", path) : 0;
}

/* ---- the files ---- */

struct file {
	int fd;
	EVP_MD_CTX *md;
	int64_t size;
};

static int put(void *arg, const void *data, size_t len, struct pf_err *err)
{
	struct file *f = arg;

	if (EVP_DigestUpdate(f->md, data, len) != 1)
		return pf_fail(err, EIO, "SHA-256");
	if (pf_write_all(f->fd, data, len) < 0)
		return pf_fail(err, errno, "write the tar");
	f->size += (int64_t)len;
	return 0;
}

struct stack {
	int *fd;
	size_t n;
	char empty[40]; /* of a lower that is there because overlayfs wants two */
};

static void stack_done(struct stack *s)
{
	for (size_t i = 0; i < s->n; i++)
		close(s->fd[i]);
	free(s->fd);
	if (*s->empty)
		(void)rmdir(s->empty);
}

static int push(struct stack *s, const char *dir, struct pf_err *err)
{
	int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int *v = fd < 0 ? NULL : realloc(s->fd, (s->n + 1) * sizeof(*v));

	if (fd < 0)
		return pf_fail(err, errno, "layer %s", dir);
	if (!v)
		abort();
	s->fd = v;
	v[s->n++] = fd;
	return 0;
}

static int mount_all(struct stack *s, char *const *unpacked, char *const *base_layers, struct pf_err *err)
{
	for (; unpacked && *unpacked; unpacked++)
		if (push(s, *unpacked, err) < 0)
			return -1;
	for (; base_layers && *base_layers; base_layers++)
		if (push(s, *base_layers, err) < 0)
			return -1;
	if (s->n < 2) {
		snprintf(s->empty, sizeof(s->empty), "/tmp/pinfold-export-XXXXXX");
		if (!mkdtemp(s->empty)) {
			*s->empty = '\0';
			return pf_fail(err, errno, "/tmp");
		}
		if (push(s, s->empty, err) < 0)
			return -1;
	}
	return pf_overlay_mount(s->fd, s->n, -1, -1, true, err);
}

int pf_ckpt_export_files(char *const *unpacked, char *const *base_layers, const char *path,
	struct pf_ckpt_export_stats *stats, struct pf_err *err)
{
	PF_CLEANUP(stack_done) struct stack s = {0};
	const struct pf_pack_opts pack = {.overlay = true};
	uint8_t raw[32];
	PF_CLOSE int root = mount_all(&s, unpacked, base_layers, err);
	PF_CLOSE int fd = root < 0 ? -1 : open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (root < 0)
		return -1;
	if (fd < 0)
		return pf_fail(err, errno, "%s", path);
	PF_CLOSE int top = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0)
		return pf_fail(err, errno, "the stacked layers");
	struct file f = {.fd = fd, .md = EVP_MD_CTX_new()};
	int r = !f.md || EVP_DigestInit_ex(f.md, EVP_sha256(), NULL) != 1
			? pf_fail(err, ENOMEM, "SHA-256")
			: pf_pack_tree(top, &pack, put, &f, NULL, err);
	if (r == 0 && (EVP_DigestFinal_ex(f.md, raw, NULL) != 1 || fsync(fd) < 0))
		r = pf_fail(err, errno, "%s", path);
	EVP_MD_CTX_free(f.md);
	if (r < 0)
		return -1;
	pf_digest_from_raw(raw, &stats->digest);
	stats->blobs = 1;
	stats->bytes = f.size;
	return 0;
}
