/* Theory of operation: from a scratch layer to a checkpoint and back.
 *
 * The packing is the helper's, as for sessions. It runs in the jail's own user namespace, where the caller's
 * files are root's: so a checkpoint speaks of root whoever made it, and whoever unpacks it has the files.
 *
 * Back means into a new scratch layer's upper, not below it: what --diff, --commit and the next --keep see is
 * then all that differs from the real directories, however often it was kept in between. The unpacked layer
 * is moved, not copied; should another jail take it first, it is unpacked once more. One that was unpacked by
 * somebody else is not used: root, outside, marks directories in another way. */
#include "jail/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/units.h"
#include "checkpoint/store.h"
#include "session/session.h"
#include "session/snapshot.h"

#define SANDBOX_ID "jail"

void pf_jail_from_done(struct pf_jail_from *f)
{
	free(f->digest);
	free(f->layer);
	pf_strv_free(f->paths);
	*f = (struct pf_jail_from){0};
}

char *pf_jail_default_store(const char *home)
{
	const char *state = getenv("XDG_STATE_HOME");

	return state && state[0] == '/' ? pf_asprintf("%s/pinfold", state)
					: pf_asprintf("%s/.local/state/pinfold", home);
}

int pf_jail_keep_check(const struct pf_jail *j, struct pf_err *err)
{
	struct pf_err why = PF_ERR_INIT;
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_check_id("--keep", j->keep, err) < 0)
		return -1;
	if (strcmp(j->keep, "latest") == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--keep latest: this means the newest checkpoint; choose another name");
	if (pf_mkdirs(j->store, 0700, err) < 0)
		return pf_wrap(err, "--store");
	PF_CLOSE int storefd = pf_ckpt_store_open(j->store, true, err);
	if (storefd < 0)
		return pf_wrap(err, "--store %s", j->store);
	if (pf_ckpt_resolve_at(storefd, j->keep, SANDBOX_ID, &c, &why) < 0)
		return why.kind == PF_ERR_NOT_FOUND ? 0 : pf_fail_kind(err, why.kind, 0, "%s", why.msg);
	return strcmp(c.name, j->keep) != 0 ? 0 /* the first digits of another's digest */
					    : pf_fail_kind(err, PF_ERR_EXISTS, 0,
						      "--keep %s: there is one of this name; choose another, "
						      "or remove that one first "
						      "(pinfold --store %s checkpoint rm %s)",
						      j->keep, j->store, j->keep);
}

static const struct pf_jail_op *overlay_at(const struct pf_jail *j, const char *path)
{
	for (size_t i = 0; i < j->n_ops; i++)
		if (j->ops[i].kind == PF_JAIL_OVERLAY && strcmp(j->ops[i].dest, path) == 0)
			return &j->ops[i];
	return NULL;
}

static int check_paths(const struct pf_jail *j, const struct pf_jail_from *f, struct pf_err *err)
{
	PF_BUF struct pf_buf rules = {0};
	bool all = true;

	for (char **p = f->paths; *p; p++) {
		all = all && overlay_at(j, *p);
		pf_buf_printf(&rules, " --rw %s", *p);
	}
	return all ? 0
		   : pf_fail_kind(err, PF_ERR_INVALID, 0,
			     "--from %s: it was made of other directories; say%s, or work in them", j->from,
			     rules.data);
}

int pf_jail_from_find(const struct pf_jail *j, struct pf_jail_from *f, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_resolve(j->store, j->from, SANDBOX_ID, &c, err) < 0)
		return pf_wrap(err, "--from, in %s", j->store);
	const cJSON *fs = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(c.record, "sandbox_file"), "filesystem");
	if (strcmp(c.base_image_ref, PF_CKPT_JAIL) != 0 || c.n_layers != 1 ||
		pf_json_strv(fs, "", "writable_paths", &f->paths, err) <= 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"--from %s: no jail made it (pinfold create --from)", j->from);
	f->digest = pf_strdup(c.digest.s);
	f->layer = pf_ckpt_layer_dir(j->store, &c.layers[0]);
	return check_paths(j, f, err);
}

/* Into name of dirfd. 0: moved; 1: it is not there. */
static int move_layer(const struct pf_jail_from *f, int dirfd, const char *name, struct pf_err *err)
{
	if (renameat(AT_FDCWD, f->layer, dirfd, name) == 0)
		return 0;
	return errno == ENOENT ? 1 : pf_fail(err, errno, "%s", f->layer);
}

int pf_jail_from_take(const struct pf_jail *j, const struct pf_jail_from *f, int dirfd, struct pf_err *err)
{
	enum { TRIES = 8 };
	PF_FREE char *helper = pf_helper_path("pinfold-store", err);
	char *argv[] = {helper, (char *)"--store", j->store, (char *)"checkpoint", (char *)"prepare",
		f->digest, NULL};
	PF_FREE char *parent = pf_strdup(f->layer);
	int r = helper ? 1 : -1;

	*strrchr(parent, '/') = '\0';
	for (int i = 0; r > 0 && i < TRIES; i++) {
		char aside[24];
		snprintf(aside, sizeof(aside), "old-%d", i);
		if (move_layer(f, dirfd, aside, err) < 0)
			return -1;
		(void)rmdir(parent);
		if (pf_run(argv, NULL, err) < 0)
			return pf_wrap(err, "--from %s", j->from);
		r = move_layer(f, dirfd, "upper", err);
		(void)rmdir(parent);
	}
	return r > 0 ? pf_fail(err, EBUSY, "--from %s: others take it away each time", j->from) : r;
}

static cJSON *request(const char *name, const char *parent, char *const *paths)
{
	cJSON *r = cJSON_CreateObject(), *base, *fs, *list;

	cJSON_AddStringToObject(r, "sandbox_id", SANDBOX_ID);
	cJSON_AddStringToObject(r, "name", name);
	if (parent)
		cJSON_AddStringToObject(r, "parent", parent);
	base = cJSON_AddObjectToObject(r, "base_image");
	cJSON_AddStringToObject(base, "ref", PF_CKPT_JAIL);
	fs = cJSON_AddObjectToObject(cJSON_AddObjectToObject(r, "sandbox_file"), "filesystem");
	list = cJSON_AddArrayToObject(fs, "writable_paths");
	for (; *paths; paths++)
		cJSON_AddItemToArray(list, cJSON_CreateString(*paths));
	/* Who is no root has overlay's marks in user.*, see scratch.c. */
	cJSON_AddTrueToObject(r, "userxattr");
	return r;
}

cJSON *pf_jail_keep(const char *store, const char *name, const char *parent, char *const *paths, int upper_fd,
	pid_t box_pid, struct pf_err *err)
{
	/* The helper looks at no sandbox. */
	const struct pf_dirs dirs = {.root = PF_DEFAULT_ROOT, .store = store};
	const struct pf_snapshot_freezer stop = {.set = pf_jail_stop, .arg = &box_pid};
	PF_JSON cJSON *req = request(name, parent, paths);
	int64_t frozen_us = 0;
	cJSON *made = pf_snapshot_pack(&dirs, upper_fd, req, box_pid > 0 ? &stop : NULL, &frozen_us, err);

	if (made) {
		cJSON_DeleteItemFromObjectCaseSensitive(made, "frozen_ms");
		cJSON_AddNumberToObject(made, "frozen_ms", (double)frozen_us / 1000);
	}
	return made;
}
