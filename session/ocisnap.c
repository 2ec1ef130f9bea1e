/* Theory of operation: a checkpoint of a container that is not ours.
 *
 * containerd and podman mount a container's root as an overlay: the image's layers below, one directory of
 * the container's own above. That upper directory has what a checkpoint is made of, in the same form as a
 * session's. Where it is, the kernel says in our mount table, for an engine unmounts the root only when the
 * container is deleted; or, when the engine has a mount namespace of its own, in that of the container's
 * first process as long as there is one.
 *
 * That second table is the payload's: who has a user namespace can mount an overlay whose upper is any path
 * of ours, and be in it. So a line counts only if it speaks of the file system that was the root when the
 * container was created; the kernel writes what that was mounted with, and nobody mounts another of its
 * number while the engine holds it.
 *
 * What lies in the upper is the payload's too, device nodes among it if it may make them; we look at it
 * through a mount in which they are not opened.
 *
 * The packing is a session's (snapshot.c). What differs is the stop: there is no keeper to let the container
 * go on if we are killed in the meantime, so a child of ours waits for that. */
#include "session/ocisnap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/store.h"
#include "overlay/image.h"
#include "overlay/mount.h"
#include "session/audit.h"
#include "session/pod.h"
#include "session/snapshot.h"

#define MAX_MOUNTS ((size_t)16 << 20)
#define FREEZE_MS 5000
#define LAST "checkpoint" /* in the state directory: the digest of the container's newest */

/* ---- where the upper is ---- */

/* "\040" and its like become what they stand for. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] && s[3]) {
			*to++ = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
}

/* A line of mountinfo(5), cut apart in place. */
struct line {
	char *dev, *root, *target, *type, *options;
};

static bool cut_line(char *text, struct line *l)
{
	char *save = NULL, *word;

	for (int i = 0; i < 5; i++) {
		word = strtok_r(i ? NULL : text, " ", &save);
		if (!word)
			return false;
		if (i == 2)
			l->dev = word;
		else if (i == 3)
			l->root = word;
		else if (i == 4)
			l->target = word;
	}
	do
		word = strtok_r(NULL, " ", &save);
	while (word && strcmp(word, "-") != 0);
	l->type = strtok_r(NULL, " ", &save);
	(void)strtok_r(NULL, " ", &save); /* source */
	l->options = strtok_r(NULL, " ", &save);
	if (!l->options)
		return false;
	unescape(l->target);
	return true;
}

struct upper {
	char *path;
	bool userxattr;
};

/* Options of the overlay dev (0: any) that is mounted at target; the last one, which is on top. */
static int find_upper(
	const char *mountinfo, const char *target, dev_t dev, struct upper *u, struct pf_err *err)
{
	char number[32];
	PF_FREE char *text = NULL;
	char *save = NULL;
	bool found = false;

	snprintf(number, sizeof(number), "%u:%u", major(dev), minor(dev));
	if (pf_read_pseudo_at(AT_FDCWD, mountinfo, MAX_MOUNTS, &text, err) < 0)
		return -1;
	for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
		struct line line = {0};
		char *options = NULL;
		if (!cut_line(l, &line) || strcmp(line.target, target) != 0)
			continue;
		/* A directory of somebody's overlay is no overlay of the container's. */
		found = strcmp(line.type, "overlay") == 0 && strcmp(line.root, "/") == 0 &&
			(!dev || strcmp(line.dev, number) == 0);
		free(u->path);
		*u = (struct upper){0};
		for (char *o = found ? strtok_r(line.options, ",", &options) : NULL; o;
			o = strtok_r(NULL, ",", &options)) {
			if (pf_starts_with(o, "upperdir=")) {
				free(u->path);
				u->path = pf_strdup(o + strlen("upperdir="));
			}
			u->userxattr = u->userxattr || strcmp(o, "userxattr") == 0;
		}
	}
	if (!found)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the container's root is no overlay mount, in which what it has written lies apart "
			"(remedy: "
			"an engine with the overlay snapshotter or driver)");
	if (!u->path)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the container's root has no upper directory: nothing can have been written to it");
	unescape(u->path);
	if (u->path[0] != '/')
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"the container's upper directory '%.200s' was mounted by a path that is not absolute",
			u->path);
	return 0;
}

static int open_upper(const struct pf_container *c, struct upper *u, struct pf_err *err)
{
	char mountinfo[48];

	if (!c->rootfs)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the container's root is not known");
	if (find_upper("/proc/self/mountinfo", c->rootfs, c->root_dev, u, err) < 0) {
		if (c->status == PF_CONTAINER_STOPPED || !c->root_dev)
			return -1;
		*err = PF_ERR_INIT;
		snprintf(mountinfo, sizeof(mountinfo), "/proc/%d/mountinfo", (int)c->pid);
		if (find_upper(mountinfo, "/", c->root_dev, u, err) < 0)
			return -1;
	}
	PF_CLOSE int fd = open(u->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "upper directory %s", u->path) : pf_dir_without_devices(fd, err);
}

/* ---- the stop ---- */

struct stop {
	const struct pf_container *c;
	pid_t guard;
	int line; /* to the guard */
};

static int freeze(const struct pf_container *c, bool frozen, struct pf_err *err)
{
	PF_CGROUP struct pf_cgroup *cg = NULL;

	return pf_container_cgroup(c, &cg, err) < 0 ? -1 : pf_cgroup_freeze(cg, frozen, FREEZE_MS, err);
}

/* A child that lets the container go on when we end without a word. */
static int post_guard(struct stop *s, struct pf_err *err)
{
	struct pf_err ignored = PF_ERR_INIT;
	int fds[2];
	char byte;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return pf_fail(err, errno, "pipe");
	s->guard = fork();
	if (s->guard == 0) {
		close(fds[1]);
		(void)setsid(); /* not the interrupt that ends us */
		if (read(fds[0], &byte, 1) != 1)
			(void)freeze(s->c, false, &ignored);
		_exit(0);
	}
	int saved = errno;
	close(fds[0]);
	s->line = fds[1];
	return s->guard < 0 ? pf_fail(err, saved, "fork") : 0;
}

static void dismiss_guard(struct stop *s)
{
	if (s->line < 0)
		return;
	(void)pf_write_all(s->line, "", 1);
	close(pf_take_fd(&s->line));
	while (s->guard > 0 && waitpid(s->guard, NULL, 0) < 0 && errno == EINTR)
		;
}

static int set_frozen(void *arg, bool frozen, struct pf_err *err)
{
	struct stop *s = arg;

	if (frozen && post_guard(s, err) < 0)
		return -1;
	if (freeze(s->c, frozen, err) < 0)
		return -1;
	if (!frozen)
		dismiss_guard(s);
	return 0;
}

/* ---- the checkpoint ---- */

static const char *annotation(const struct pf_container *c, const char *key)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c->annotations, key));
}

/* How a session is made of the checkpoint when nobody says otherwise: where the container's program ran, and
 * what it might reach. */
static cJSON *sandbox_file(int dir, const struct pf_container *c)
{
	const char *policy = annotation(c, PF_POD_POLICY);
	struct pf_err ignored = PF_ERR_INIT;
	cJSON *file = cJSON_CreateObject(), *net;
	struct pf_spec spec;

	if (pf_container_spec(dir, &spec, &ignored) == 0) {
		if (spec.process.cwd)
			cJSON_AddStringToObject(file, "workdir", spec.process.cwd);
		pf_spec_done(&spec);
	}
	net = policy ? pf_json_parse(PF_POD_POLICY, policy, strlen(policy), &ignored) : NULL;
	if (net)
		cJSON_AddItemToObject(file, "networking", net);
	return file;
}

static cJSON *request(const struct pf_dirs *d, int dir, const struct pf_container *c, const char *image,
	const char *name, const cJSON *labels, const struct upper *u, struct pf_err *err)
{
	const char *ref = annotation(c, "io.kubernetes.cri.image-name");
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_image img = {0};
	PF_FREE char *parent = NULL;

	if (image && pf_image_resolve(d->store, image, &img, err) < 0)
		return NULL;
	cJSON *r = cJSON_CreateObject(), *base = cJSON_AddObjectToObject(r, "base_image");
	cJSON_AddStringToObject(r, "sandbox_id", c->id);
	if (name)
		cJSON_AddStringToObject(r, "name", name);
	if (pf_read_file_at(dir, LAST, 256, &parent, NULL, &ignored) == 0)
		cJSON_AddStringToObject(r, "parent", parent);
	cJSON_AddStringToObject(base, "ref", image ? image : ref ? ref : "");
	cJSON_AddStringToObject(base, "digest", image ? img.digest : "");
	if (labels)
		cJSON_AddItemToObject(r, "labels", cJSON_Duplicate(labels, true));
	cJSON_AddItemToObject(r, "sandbox_file", sandbox_file(dir, c));
	if (u->userxattr)
		cJSON_AddBoolToObject(r, "userxattr", true);
	pf_image_done(&img);
	return r;
}

static void after(const struct pf_dirs *d, int dir, const struct pf_container *c, const cJSON *result)
{
	struct pf_err ignored = PF_ERR_INIT;
	const char *digest = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(result, "checkpoint"));
	PF_CLOSE int log = pf_audit_open(d, c->id, &ignored);

	if (digest)
		(void)pf_replace_file_at(dir, LAST, digest, strlen(digest), 0600, false, &ignored);
	if (log >= 0)
		(void)pf_audit_write(log, "snapshot", cJSON_Duplicate(result, true), &ignored);
}

cJSON *pf_oci_snapshot(const struct pf_dirs *d, int dir, const struct pf_container *c, const char *image,
	const char *name, const cJSON *labels, struct pf_err *err)
{
	struct upper u = {0};
	struct stop s = {.c = c, .line = -1};
	const struct pf_snapshot_freezer by = {.set = set_frozen, .arg = &s};
	PF_CLOSE int fd = -1;
	PF_JSON cJSON *req = NULL;
	cJSON *result = NULL;
	int64_t frozen_us = 0;

	if (name && pf_check_id("checkpoint name", name, err) < 0)
		return NULL;
	fd = open_upper(c, &u, err);
	req = fd < 0 ? NULL : request(d, dir, c, image, name, labels, &u, err);
	if (req)
		result = pf_snapshot_pack(
			d, fd, req, c->status == PF_CONTAINER_RUNNING ? &by : NULL, &frozen_us, err);
	dismiss_guard(&s);
	free(u.path);
	if (result) {
		cJSON_DeleteItemFromObjectCaseSensitive(result, "frozen_ms");
		cJSON_AddNumberToObject(result, "frozen_ms", (double)frozen_us / 1000);
		after(d, dir, c, result);
	}
	return result;
}

/* ---- annotations ---- */

int pf_oci_check_annotations(const cJSON *annotations, struct pf_err *err)
{
	static const char prefix[] = "io.pinfold.";
	static const char *const keys[] = {PF_POD_POLICY, PF_OCI_SNAPSHOT, NULL};
	const cJSON *a;

	cJSON_ArrayForEach(a, annotations)
	{
		const char *value = cJSON_GetStringValue(a);
		/* What an image that was a checkpoint brings along asks for nothing. */
		if (!pf_starts_with(a->string, prefix) || strcmp(a->string, PF_POD_POLICY) == 0 ||
			pf_starts_with(a->string, PF_CKPT_KEY))
			continue;
		if (strcmp(a->string, PF_OCI_SNAPSHOT) == 0) {
			if (value && strcmp(value, "exit") == 0)
				continue;
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"annotation " PF_OCI_SNAPSHOT ": must be \"exit\", not '%.40s'",
				value ? value : "");
		}
		if (strcmp(a->string, "io.pinfold.restore") == 0)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"annotation io.pinfold.restore: the engine makes a container's root, not "
				"Pinfold "
				"(remedy: `pinfold checkpoint export --complete` makes an image of the "
				"checkpoint; "
				"run that)");
		return pf_json_unknown("annotations", a->string, keys, err);
	}
	return 0;
}

void pf_oci_snapshot_at_exit(
	const struct pf_dirs *d, int dir, const struct pf_container *c, struct pf_buf *warnings)
{
	const char *when = annotation(c, PF_OCI_SNAPSHOT),
		   *type = annotation(c, "io.kubernetes.cri.container-type");
	struct pf_container stopped = *c;
	struct pf_err err = PF_ERR_INIT;

	/* A pod's annotations come with its sandbox too, which has nothing to remember. */
	if (!when || strcmp(when, "exit") != 0 || (type && strcmp(type, "sandbox") == 0))
		return;
	stopped.status = PF_CONTAINER_STOPPED;
	cJSON *result = pf_oci_snapshot(d, dir, &stopped, NULL, NULL, NULL, &err);
	if (!result)
		pf_buf_printf(warnings, "annotation " PF_OCI_SNAPSHOT ": no checkpoint: %s\n", err.msg);
	cJSON_Delete(result);
}
