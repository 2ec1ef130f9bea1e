/* Theory of operation: changing the key-encryption key.
 *
 * What is wrapped are the data keys in the heads of objects: of seal.key, of each pack (NAME.key), of
 * manifests, layer documents and the indexes of files. A head has two slots. First every head gets a slot for
 * the new key beside the old one; when all have it, every head loses the old one. So whenever this is killed,
 * the old key (before the first head lost it) or the new key (after the last head got it) opens all there is,
 * and doing it again does the rest.
 *
 * A file is rewritten as a whole under another name and renamed: of packs that is 152 bytes, of documents
 * what they are; the data behind the head is copied as it is. */
#include "checkpoint/seal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "checkpoint/seal_int.h"

#define TMP_NAME ".rotate.tmp"

/* Where sealed things lie, and what their heads authenticate. */
static const struct place {
	const char *dir, *kind;
	const char *suffix; /* of the files that count; it is not part of the object's name */
} places[] = {
	{"packs", "pack", ".key"},
	{"manifests", "manifest", ""},
	{"layers", "layer", ".sealed"},
	{"files", "files", ""},
};

struct rotation {
	const struct pf_kek *old, *new_kek;
	bool keep; /* second pass */
	struct pf_seal_rotated *stats;
};

static int copy_rest(int from, int to, struct pf_err *err)
{
	PF_FREE char *buf = malloc(1 << 16);
	ssize_t n;

	if (!buf)
		return pf_fail(err, ENOMEM, "copying");
	while ((n = pf_read_full(from, buf, 1 << 16)) > 0)
		if (pf_write_all(to, buf, (size_t)n) < 0)
			return pf_fail(err, errno, "writing");
	return n < 0 ? pf_fail(err, errno, "reading") : 0;
}

/* The file with another head and its old times (a manifest's are those of its use); the directory is synced
 * by the caller. */
static int replace_head(int dirfd, const char *file, int fd, const struct stat *st,
	const uint8_t head[PF_SEAL_HEAD], struct pf_err *err)
{
	const struct timespec times[2] = {st->st_atim, st->st_mtim};
	PF_CLOSE int to = -1;

	if (unlinkat(dirfd, TMP_NAME, 0) < 0 && errno != ENOENT)
		return pf_fail(err, errno, TMP_NAME);
	to = openat(dirfd, TMP_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (to < 0)
		return pf_fail(err, errno, TMP_NAME);
	if (pf_write_all(to, head, PF_SEAL_HEAD) < 0)
		pf_fail(err, errno, "writing");
	else if (copy_rest(fd, to, err) == 0) {
		if (futimens(to, times) == 0 && fsync(to) == 0 && renameat(dirfd, TMP_NAME, dirfd, file) == 0)
			return 0;
		pf_fail(err, errno, "writing");
	}
	(void)unlinkat(dirfd, TMP_NAME, 0);
	return -1;
}

static int rotate_file(const struct rotation *r, int dirfd, const char *file, const char *kind,
	const char *name, bool *changed, struct pf_err *err)
{
	PF_CLOSE int fd = openat(dirfd, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	uint8_t head[PF_SEAL_HEAD];
	bool here = false;
	struct stat st;
	ssize_t n;
	int done;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s %s", kind, name);
	if (!S_ISREG(st.st_mode))
		return 0;
	n = pf_read_full(fd, head, sizeof(head));
	if (n < 0)
		return pf_fail(err, errno, "%s %s", kind, name);
	if (!pf_is_sealed(head, (size_t)n)) /* a plain one beside sealed ones */
		return 0;
	if (n < PF_SEAL_HEAD)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "%s %s is cut off", kind, name);
	done = r->keep ? pf_seal_head_keep(r->new_kek, kind, name, head, &here, err)
		       : pf_seal_head_add(r->old, r->new_kek, kind, name, head, &here, err);
	if (done < 0 || (here && replace_head(dirfd, file, fd, &st, head, err) < 0))
		return pf_wrap(err, "%s %s", kind, name);
	*changed |= here;
	r->stats->objects += here && r->keep;
	return 0;
}

static int rotate_place(const struct rotation *r, int storefd, const struct place *p, struct pf_err *err)
{
	int fd = openat(storefd, p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	PF_CLOSEDIR DIR *d = fd < 0 ? NULL : fdopendir(fd);
	bool changed = false;
	struct dirent *e;

	if (!d) {
		int saved = errno;
		if (fd >= 0)
			close(fd);
		return saved == ENOENT ? 0 : pf_fail(err, saved, "checkpoint store: %s", p->dir);
	}
	/* A file that was replaced may be met again: it is then as it should be. */
	while ((errno = 0, e = readdir(d)) != NULL) {
		PF_FREE char *name = NULL;
		if (e->d_name[0] == '.' || !pf_ends_with(e->d_name, p->suffix))
			continue;
		name = pf_strdup(e->d_name);
		name[strlen(name) - strlen(p->suffix)] = '\0';
		if (rotate_file(r, dirfd(d), e->d_name, p->kind, name, &changed, err) < 0)
			return -1;
	}
	if (errno)
		return pf_fail(err, errno, "checkpoint store: %s", p->dir);
	return changed ? pf_sync_dir(dirfd(d), err) : 0;
}

static int rotate_all(const struct rotation *r, int storefd, struct pf_err *err)
{
	bool changed = false;

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		if (rotate_place(r, storefd, &places[i], err) < 0)
			return -1;
	/* Last: whoever opens the store with the old key until then finds that it is the old key's. */
	if (rotate_file(r, storefd, "seal.key", "store", "", &changed, err) < 0)
		return -1;
	return changed ? pf_sync_dir(storefd, err) : 0;
}

int pf_seal_rotate(int storefd, const struct pf_kek *old, const struct pf_kek *new_kek,
	struct pf_seal_rotated *stats, struct pf_err *err)
{
	struct rotation r = {.old = old, .new_kek = new_kek, .stats = stats};

	memset(stats, 0, sizeof(*stats));
	if (!pf_seal_exists(storefd))
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "nothing in this store is sealed");
	if (memcmp(old->id, new_kek->id, PF_KEK_ID_LEN) == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "the new key is the old one (%s)", old->name);
	if (rotate_all(&r, storefd, err) < 0)
		return -1;
	r.keep = true;
	return rotate_all(&r, storefd, err);
}
