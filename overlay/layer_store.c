/* Theory of operation
 *
 * Three directories: layers/ by diff id, refs/ with one record per name, tmp/ for what is being made. The
 * order of every change is: make in tmp/, sync, rename into layers/, sync, write the record by fsync and
 * rename. So a record never names a layer that is not complete on disk, whenever the power goes. Removal goes
 * the other way round. Between the two an exclusive lock keeps order; unpacking, which takes long, happens
 * outside of it. */
#include "overlay/layer_store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "overlay/image.h"

#define MAX_ACCOUNTS ((off_t)10 << 20)

static int open_sub(int dir, const char *name, struct pf_err *err)
{
	if (mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir %s", name);
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "open %s", name) : fd;
}

int pf_layer_store_open(const char *store, struct pf_layer_store *s, struct pf_err *err)
{
	*s = PF_LAYER_STORE_INIT;
	s->path = pf_asprintf("%s/images", store);
	if (pf_mkdirs(s->path, 0700, err) < 0)
		goto fail;
	s->fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->fd < 0) {
		pf_fail(err, errno, "open %s", s->path);
		goto fail;
	}
	if ((s->layers = open_sub(s->fd, "layers", err)) < 0 ||
		(s->refs = open_sub(s->fd, "refs", err)) < 0 || (s->tmp = open_sub(s->fd, "tmp", err)) < 0)
		goto fail;
	return 0;
fail:
	pf_layer_store_close(s);
	return pf_wrap(err, "image store");
}

void pf_layer_store_close(struct pf_layer_store *s)
{
	int *fds[] = {&s->fd, &s->layers, &s->refs, &s->tmp};

	for (size_t i = 0; i < 4; i++) {
		if (*fds[i] >= 0)
			close(*fds[i]);
		*fds[i] = -1;
	}
	free(s->path);
	s->path = NULL;
}

int pf_layer_store_lock(struct pf_layer_store *s, struct pf_err *err)
{
	return pf_lock_file_at(s->fd, ".lock", true, err);
}

int pf_store_tmp_new(struct pf_layer_store *s, struct pf_store_tmp *t, struct pf_err *err)
{
	uint64_t r;

	*t = PF_STORE_TMP_INIT;
	if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return pf_fail(err, errno, "getrandom");
	t->name = pf_asprintf("%016llx", (unsigned long long)r);
	/* gc holds the store's lock while it looks for unlocked directories, so there is no gap between
	 * making one and locking it. */
	PF_CLOSE int lock = pf_layer_store_lock(s, err);
	if (lock < 0)
		goto fail;
	pf_guard_add(s->tmp, t->name);
	if (mkdirat(s->tmp, t->name, 0700) < 0) {
		pf_fail(err, errno, "image store: make a temporary directory");
		goto fail;
	}
	t->fd = openat(s->tmp, t->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (t->fd < 0)
		pf_fail(err, errno, "image store: open a temporary directory");
	else if ((t->lock = pf_lock_file_at(t->fd, ".lock", true, err)) >= 0)
		return 0;
fail:
	pf_store_tmp_drop(s, t);
	return -1;
}

void pf_store_tmp_drop(struct pf_layer_store *s, struct pf_store_tmp *t)
{
	struct pf_err ignored = PF_ERR_INIT;
	int saved = errno;

	if (t->fd >= 0) {
		close(t->fd);
		(void)pf_rm_rf_at(s->tmp, t->name, &ignored);
	}
	if (t->name)
		pf_guard_drop(s->tmp, t->name);
	if (t->lock >= 0)
		close(t->lock);
	free(t->name);
	*t = PF_STORE_TMP_INIT;
	errno = saved;
}

bool pf_layer_present(const struct pf_layer_store *s, const char *diff_id)
{
	PF_FREE char *dir = pf_digest_dir(diff_id);
	PF_FREE char *fs = pf_asprintf("%s/fs", dir);

	return faccessat(s->layers, fs, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int64_t pf_layer_bytes(const struct pf_layer_store *s, const char *diff_id)
{
	PF_FREE char *dir = pf_digest_dir(diff_id);
	PF_FREE char *path = pf_asprintf("%s/info.json", dir);
	PF_FREE char *text = NULL;
	struct pf_err ignored = PF_ERR_INIT;
	int64_t bytes = 0;
	size_t len;

	if (pf_read_file_at(s->layers, path, 4096, &text, &len, &ignored) < 0)
		return 0;
	PF_JSON cJSON *j = pf_json_parse(path, text, len, &ignored);
	if (j && pf_json_int(j, "", "bytes", 0, INT64_MAX, &bytes, &ignored) < 0)
		return 0;
	return bytes;
}

/* What reads a root's accounts must not block on a FIFO or swallow gigabytes. */
static int check_accounts(int fs_fd, const char *path, struct pf_err *err)
{
	struct stat st;

	if (fstatat(fs_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT || errno == ENOTDIR ? 0 : pf_fail(err, errno, "%s", path);
	if (S_ISREG(st.st_mode) ? st.st_size <= MAX_ACCOUNTS
				: S_ISLNK(st.st_mode) || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0)))
		return 0;
	return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "/%s is not a regular file of reasonable size", path);
}

int pf_layer_check_tree(int fs_fd, struct pf_err *err)
{
	static const char *const paths[] = {"etc/passwd", "etc/group"};

	for (size_t i = 0; i < 2; i++)
		if (check_accounts(fs_fd, paths[i], err) < 0)
			return -1;
	return 0;
}

int pf_layer_unpack(struct pf_store_tmp *t, int archive_fd, const struct pf_unpack_opts *opts,
	struct pf_unpack_stats *stats, struct pf_err *err)
{
	if (mkdirat(t->fd, "fs", 0755) < 0)
		return pf_fail(err, errno, "mkdir");
	PF_CLOSE int fs = openat(t->fd, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fs < 0)
		return pf_fail(err, errno, "open");
	if (fchmod(fs, 0755) < 0)
		return pf_fail(err, errno, "chmod");
	if (pf_unpack_layer(archive_fd, fs, opts, stats, err) < 0)
		return -1;
	return pf_layer_check_tree(fs, err);
}

int pf_layer_commit(struct pf_layer_store *s, struct pf_store_tmp *t, const char *diff_id, int64_t bytes,
	int64_t entries, struct pf_err *err)
{
	PF_FREE char *dir = pf_digest_dir(diff_id);
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_layer_present(s, diff_id)) {
		pf_store_tmp_drop(s, t);
		return 0;
	}
	PF_JSON cJSON *info = cJSON_CreateObject();
	pf_json_add_int(info, "bytes", bytes);
	pf_json_add_int(info, "entries", entries);
	PF_FREE char *text = pf_json_text(info);
	if (pf_replace_file_at(t->fd, "info.json", text, strlen(text), 0600, false, err) < 0)
		return -1;
	if (syncfs(t->fd) < 0)
		return pf_fail(err, errno, "write the layer out");
	/* A directory without fs is what is left of a removal that was cut short. */
	if (pf_rm_rf_at(s->layers, dir, &ignored) < 0 || renameat(s->tmp, t->name, s->layers, dir) < 0)
		return pf_fail(err, errno, "image store: put layer %s in place", diff_id);
	close(t->fd);
	t->fd = -1;
	pf_store_tmp_drop(s, t);
	return pf_sync_dir(s->layers, err);
}

int pf_record_write(struct pf_layer_store *s, const cJSON *record, struct pf_err *err)
{
	const char *ref = NULL;
	const cJSON *layers = NULL, *l;

	if (pf_json_str(record, "", "ref", &ref, err) < 0 ||
		pf_json_arr(record, "", "layers", &layers, err) < 0)
		return -1;
	cJSON_ArrayForEach(l, layers)
	{
		if (!pf_layer_present(s, l->valuestring))
			return pf_fail_kind(err, PF_ERR_STATE, 0,
				"layer %s was removed by somebody else meanwhile; try again", l->valuestring);
	}
	PF_FREE char *file = pf_image_ref_file(ref);
	PF_FREE char *text = pf_json_text(record);
	return pf_replace_file_at(s->refs, file, text, strlen(text), 0600, true, err);
}

/* OCI's names for what uname says. */
static const char *machine(void)
{
	static struct utsname u;

	if (uname(&u) < 0)
		return "unknown";
	if (strcmp(u.machine, "x86_64") == 0)
		return "amd64";
	if (strcmp(u.machine, "aarch64") == 0)
		return "arm64";
	return u.machine;
}

static int take_strings(const cJSON *from, const char *key, cJSON *to, const char *as, struct pf_err *err)
{
	char **v = NULL;

	if (pf_json_strv(from, "config", key, &v, err) < 0)
		return -1;
	cJSON *arr = cJSON_AddArrayToObject(to, as);
	for (size_t i = 0; v && v[i]; i++) {
		/* An environment entry without '=' is nothing that can be set. */
		if (strcmp(as, "env") == 0 && (v[i][0] == '=' || !strchr(v[i], '=')))
			continue;
		cJSON_AddItemToArray(arr, cJSON_CreateString(v[i]));
	}
	pf_strv_free(v);
	return 0;
}

static int take_settings(const cJSON *c, cJSON *record, struct pf_err *err)
{
	const char *dir = NULL, *user = NULL;

	if (take_strings(c, "Env", record, "env", err) < 0 ||
		take_strings(c, "Entrypoint", record, "entrypoint", err) < 0 ||
		take_strings(c, "Cmd", record, "cmd", err) < 0 ||
		pf_json_str(c, "config", "WorkingDir", &dir, err) < 0 ||
		pf_json_str(c, "config", "User", &user, err) < 0)
		return -1;
	if (dir && *dir) {
		PF_FREE char *absolute = pf_asprintf("/%s", dir);
		PF_FREE char *clean = pf_path_clean(absolute, err);
		if (!clean)
			return -1;
		cJSON_AddStringToObject(record, "workdir", clean);
	}
	if (user && *user) {
		if (strlen(user) > 255)
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "config.User is too long");
		cJSON_AddStringToObject(record, "user", user);
	}
	return 0;
}

int pf_record_from_config(const cJSON *config, cJSON *record, struct pf_err *err)
{
	const char *os = "linux", *arch = NULL, *created = NULL;
	const cJSON *settings = NULL, *rootfs = NULL, *diff_ids = NULL, *d;

	if (!cJSON_IsObject(config))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the image's configuration is not an object");
	if (pf_json_str(config, "", "os", &os, err) < 0 ||
		pf_json_str(config, "", "architecture", &arch, err) < 0 ||
		pf_json_str(config, "", "created", &created, err) < 0 ||
		pf_json_obj(config, "", "config", &settings, err) < 0 ||
		pf_json_obj(config, "", "rootfs", &rootfs, err) < 0)
		return -1;
	if (strcmp(os, "linux") != 0 || (arch && strcmp(arch, machine()) != 0))
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the image is for %.20s on %.20s, this machine is linux on %s", os, arch ? arch : "?",
			machine());
	if (!rootfs || pf_json_arr(rootfs, "rootfs", "diff_ids", &diff_ids, err) <= 0 ||
		cJSON_GetArraySize(diff_ids) == 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the image's configuration names no layers");
	cJSON *layers = cJSON_AddArrayToObject(record, "layers");
	cJSON_ArrayForEach(d, diff_ids)
	{
		if (!cJSON_IsString(d) || !pf_digest_valid(d->valuestring))
			return pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "the image's configuration holds a bad diff id");
		cJSON_AddItemToArray(layers, cJSON_CreateString(d->valuestring));
	}
	if (created)
		cJSON_AddStringToObject(record, "created", created);
	return settings ? take_settings(settings, record, err) : 0;
}
