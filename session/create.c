/* Theory of operation: creating a session.
 *
 * Under the id's lock: resolve the sandbox file, the image and the checkpoint (reading only), then make the
 * directory, the workspace, the id range and the bundle, then start the keeper, which makes the box. Whatever
 * fails takes back all that was made before it, in reverse. Nothing here is fsynced: a sandbox that was being
 * created when the power went is no sandbox, and gc removes its pieces, unless it has its record already; the
 * files that a session must not lose are in checkpoints. */

#include "session/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"
#include "checkpoint/packs.h"
#include "checkpoint/prune.h"
#include "checkpoint/store.h"
#include "checkpoint/unsealed.h"
#include "overlay/image.h"
#include "overlay/packages.h"
#include "overlay/runtime.h"
#include "overlay/workspace.h"
#include "sandbox/idrange.h"
#include "session/audit.h"
#include "session/bundle.h"
#include "session/credentials.h"
#include "session/keeper.h"
#include "session/network.h"
#include "session/record.h"
#include "session/trust.h"

/* Any address would do: the gate answers all DNS of its namespace. This one is no address of anybody's. */
#define NAMESERVER "198.18.0.1"

struct making {
	const struct pf_dirs *d;
	const char *id;
	const struct pf_create_opts *opts;
	struct pf_config config;
	struct pf_image image;
	struct pf_ckpt ckpt;
	bool has_ckpt;
	char **lowers;
	struct pf_workspace ws;
	struct pf_spec spec;
	struct pf_policy *policy;
	cJSON *networking; /* what the policy was compiled from */
	struct pf_credentials credentials;
	struct pf_creds creds;
	char **ca_targets; /* bundles to put the sandbox's own authority into; NULL: it has none */
	char *tls_helper;
	struct pf_state *state;
	int sandbox_fd, lock;
	bool made_dir, reopened;
	uint32_t id_base;
	cJSON *record;     /* sandbox.json of the dead sandbox that is started again */
	const char *from;  /* checkpoint to start from, or NULL */
	uint64_t revision; /* of the policy that was last in force */
};

char *pf_helper_path(const char *name, struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);

	if (!dir)
		return NULL;
	char *path = pf_asprintf("%s/../libexec/pinfold/%s", dir, name);
	if (access(path, X_OK) == 0)
		return path;
	/* The caller may be a libexec program itself. */
	free(path);
	path = pf_asprintf("%s/%s", dir, name);
	if (access(path, X_OK) == 0)
		return path;
	pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
		"the helper program %s is not installed (looked in %s/../libexec/pinfold)", name, dir);
	free(path);
	return NULL;
}

char *pf_session_cgroup(const struct pf_dirs *d, const char *id)
{
	uint64_t hash = 14695981039346656037u;

	if (strcmp(d->root, PF_DEFAULT_ROOT) == 0)
		return pf_asprintf(PF_SESSION_CGROUP "/%s", id);
	for (const char *p = d->root; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 1099511628211u;
	return pf_asprintf(PF_SESSION_CGROUP "/.%016llx.%s", (unsigned long long)hash, id);
}

/* ---- what it is to be
 * ----------------------------------------------------------------------------------------- */

static void warn(struct making *m, char *text)
{
	size_t n = pf_strv_len(m->state->warnings);
	char **more = realloc(m->state->warnings, (n + 2) * sizeof(*more));

	if (!more)
		abort();
	more[n] = text;
	more[n + 1] = NULL;
	m->state->warnings = more;
}

/* What a canonical sandbox file wants of this machine that a sandbox with no file would not have; NULL:
 * nothing. A key that is not known here to be harmless is not. */
static const char *asks_for(const cJSON *canonical)
{
	static const char *const inside[] = {"name", "image", "runtime", "strict_runtime", "command", "env",
		"workdir", "user", "hostname", "resources", "filesystem", "networking", "packages", "limits",
		"checkpoint", "labels", NULL};
	const char *text;
	const cJSON *c;

	cJSON_ArrayForEach(c, canonical)
	{
		size_t i = 0;
		while (inside[i] && strcmp(inside[i], c->string) != 0)
			i++;
		if (!inside[i])
			return c->string;
	}
	text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(canonical, "image"));
	if (text && *text == '/')
		return "image";
	if (cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(
		    cJSON_GetObjectItemCaseSensitive(canonical, "filesystem"), "mounts")) > 0)
		return "filesystem.mounts";
	text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(canonical, "networking"), "type"));
	return !text || strcmp(text, "none") != 0 ? "networking" : NULL;
}

/* Whoever made a checkpoint that was imported may give its files, but not himself ours, nor commands of the
 * host (credentials have such), nor the network. */
static int check_foreign(const struct making *m, struct pf_err *err)
{
	PF_JSON cJSON *canonical = pf_config_to_json(&m->config);
	const char *what = asks_for(canonical);

	if (!what)
		return 0;
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"checkpoint %.19s came from elsewhere, and its sandbox file has '%s': give one of yours with "
		"--config, or --trust that one (pinfold checkpoint inspect shows it)",
		m->ckpt.digest.s, what);
}

static int load_config(struct making *m, struct pf_err *err)
{
	const cJSON *recorded = NULL;

	if (m->opts->config_path)
		return pf_config_load(m->opts->config_path, &m->config, err);
	if (m->record)
		recorded = cJSON_GetObjectItemCaseSensitive(m->record, "config");
	else if (m->has_ckpt)
		recorded = cJSON_GetObjectItemCaseSensitive(m->ckpt.record, "sandbox_file");
	if (recorded && pf_config_parse(recorded, &m->config, err) < 0)
		return pf_wrap(err, "sandbox file of the checkpoint");
	if (recorded)
		return !m->record && m->ckpt.foreign && !m->opts->trust ? check_foreign(m, err) : 0;
	PF_JSON cJSON *empty = cJSON_CreateObject();
	return pf_config_parse(empty, &m->config, err);
}

/* The table that says which image serves which runtime: the administrator's, else the shipped one. */
static cJSON *runtime_table(const struct pf_dirs *d, struct pf_err *err)
{
	PF_FREE char *dir = pf_program_dir(err);
	PF_FREE char *own = pf_asprintf("%s/runtimes.json", d->store);
	const char *places[] = {own, "/etc/pinfold/runtimes.json", NULL, NULL};

	if (!dir)
		return NULL;
	PF_FREE char *installed = pf_asprintf("%s/../share/pinfold/images/runtimes.json", dir);
	PF_FREE char *built = pf_asprintf("%s/../../images/runtimes.json", dir);
	places[2] = installed;
	places[3] = built;
	for (size_t i = 0; i < 4; i++)
		if (access(places[i], R_OK) == 0)
			return pf_json_load(places[i], err);
	pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
		"no table of runtimes (looked for /etc/pinfold/runtimes.json and %s)", installed);
	return NULL;
}

static int find_image(struct making *m, struct pf_err *err)
{
	PF_FREE char *ref = NULL, *note = NULL;

	if (m->opts->image) {
		ref = pf_strdup(m->opts->image);
	} else if (m->config.image) {
		ref = pf_strdup(m->config.image);
	} else if (m->config.runtime) {
		PF_JSON cJSON *table = runtime_table(m->d, err);
		if (!table ||
			pf_runtime_map(table, m->d->store, m->config.runtime,
				m->opts->strict_runtime || m->config.strict_runtime, &ref, &note, err) < 0)
			return -1;
		if (note)
			warn(m, pf_take(note));
	} else {
		if (m->has_ckpt && !m->opts->trust &&
			pf_ckpt_check_foreign_base(
				&m->ckpt, "say with --image what it shall stand on here", err) < 0)
			return -1;
		ref = pf_strdup(m->has_ckpt && *m->ckpt.base_image_ref ? m->ckpt.base_image_ref : "host");
	}
	return pf_image_resolve(m->d->store, ref, &m->image, err);
}

/* The image with the file's packages in place of the one without, where it has been made. */
static int add_packages(struct making *m, struct pf_err *err)
{
	struct pf_err why = PF_ERR_INIT;
	struct pf_image with = {0};
	struct pf_digest digest;

	if (!m->config.has_packages)
		return 0;
	PF_JSON cJSON *given = pf_config_packages(&m->config);
	PF_JSON cJSON *lists = pf_packages_read(given, "packages", err);
	if (!lists)
		return -1;
	PF_FREE char *text = pf_packages_text(m->image.digest, lists);
	pf_sha256_digest(text, strlen(text), &digest);
	PF_FREE char *ref = pf_packages_ref(digest.s);
	if (pf_image_resolve(m->d->store, ref, &with, &why) < 0) {
		if (why.kind != PF_ERR_NOT_FOUND) {
			*err = why;
			return -1;
		}
		warn(m, pf_asprintf("image %s is without the packages that the sandbox file lists: "
				    "'pinfold image packages FILE' makes one with them",
				m->image.ref));
		return 0;
	}
	pf_image_done(&m->image);
	m->image = with;
	return 0;
}

/* What was written above one image means nothing above another. */
static int check_same_image(const struct making *m, struct pf_err *err)
{
	const char *was =
		m->record ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m->record, "image_digest"))
			  : NULL;

	if (was && strcmp(was, m->image.digest) != 0 && !m->opts->rebase)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"the workspace of '%s' was written above image %s, and %s is %s now (--rebase takes "
			"it nevertheless)",
			m->id, was, m->image.ref, m->image.digest);
	return 0;
}

/* The layers of the checkpoint must be directories before they can be stacked; the helper makes and checks
 * them. */
static int prepare_checkpoint(struct making *m, struct pf_err *err)
{
	bool ready = true;

	if (!m->opts->rebase && pf_ckpt_check_base(&m->ckpt, m->image.digest, err) < 0)
		return -1;
	pf_ckpt_mark_used(m->d->store, &m->ckpt.digest);
	for (size_t i = 0; i < m->ckpt.n_layers; i++)
		ready = ready && m->ckpt.layers[i].unpacked;
	if (ready)
		return 0;
	PF_FREE char *helper = pf_helper_path("pinfold-store", err);
	if (!helper)
		return -1;
	char *argv[] = {helper, (char *)"--store", (char *)m->d->store, (char *)"checkpoint",
		(char *)"prepare", m->ckpt.digest.s, NULL};
	return pf_run(argv, NULL, err);
}

/* From here until the record names the checkpoint a collection waits: whoever removes it meanwhile would not
 * know that it is in use. It may have been removed since it was found; what is collected loses its manifest
 * first. Returns the lock. */
static int hold_checkpoint(const struct making *m, struct pf_err *err)
{
	PF_CLOSE int storefd = pf_ckpt_store_open(m->d->store, false, err);
	PF_CLOSE int lock = storefd < 0 ? -1 : pf_packs_lock(storefd, false, err);
	char path[96];

	if (lock < 0)
		return -1;
	if (faccessat(storefd, pf_ckpt_manifest_path(&m->ckpt.digest, path), F_OK, 0) < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno,
			"checkpoint %.19s was removed meanwhile", m->ckpt.digest.s);
	return pf_take_fd(&lock);
}

static void stack_lowers(struct making *m)
{
	size_t n = 0, images = pf_strv_len(m->image.layers);

	m->lowers = pf_calloc((m->has_ckpt ? m->ckpt.n_layers : 0) + images + 1, sizeof(*m->lowers));
	for (size_t i = 0; m->has_ckpt && i < m->ckpt.n_layers; i++)
		m->lowers[n++] = pf_ckpt_layer_dir(m->d->store, &m->ckpt.layers[i]);
	for (size_t i = 0; i < images; i++)
		m->lowers[n++] = pf_strdup(m->image.layers[i]);
}

/* ---- making it
 * ------------------------------------------------------------------------------------------------ */

/* The default working directory is there from the start, and belongs to whom commands run as. */
static int make_workdir(struct making *m, struct pf_err *err)
{
	const char *cwd = pf_bundle_cwd(&m->config, &m->image);
	int64_t uid = m->config.user.uid > 0 ? m->config.user.uid : 0,
		gid = m->config.user.gid > 0 ? m->config.user.gid : uid;
	PF_FREE char *path = NULL;

	for (char **l = m->lowers; *l; l++) {
		PF_CLOSE int layer = open(*l, O_PATH | O_DIRECTORY | O_CLOEXEC);
		PF_CLOSE int there = layer < 0 ? -1 : pf_open_in_root(layer, cwd, O_PATH | O_DIRECTORY, 0);
		if (there >= 0)
			return 0;
	}
	PF_CLOSE int fd = pf_mkdirs_in_root(m->ws.upper_fd, cwd, 0755);
	if (fd < 0 || fchownat(fd, "", (uid_t)uid, (gid_t)gid, AT_EMPTY_PATH) < 0)
		return pf_fail(err, errno, "make the working directory %s", cwd);
	return 0;
}

static int make_workspace(struct making *m, struct pf_err *err)
{
	struct stat st;

	if (fstatat(m->sandbox_fd, "workspace", &st, 0) == 0 ||
		fstatat(m->sandbox_fd, "workspace.img", &st, 0) == 0)
		return pf_workspace_open(m->sandbox_fd, &m->ws, err);
	PF_CLOSE int templates = pf_dirs_open(m->d->store, "templates", err);
	int64_t size = m->config.filesystem.size;
	if (templates < 0 ||
		pf_workspace_create(m->sandbox_fd, templates, size > 0 ? size : 0, &m->ws, err) < 0)
		return -1;
	return m->has_ckpt ? 0 : make_workdir(m, err);
}

/* sandbox.json: what `image rm`, `checkpoint rm`, snapshot and gc need to know of this sandbox. */
static int write_record(struct making *m, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();
	cJSON *layers = cJSON_AddArrayToObject(j, "checkpoint_layers");
	cJSON *image_layers = cJSON_AddArrayToObject(j, "image_layers");

	cJSON_AddStringToObject(j, "id", m->id);
	cJSON_AddStringToObject(j, "image", m->image.ref);
	cJSON_AddStringToObject(j, "image_digest", m->image.digest);
	for (char **l = m->image.layers; *l; l++)
		cJSON_AddItemToArray(image_layers, cJSON_CreateString(*l));
	if (m->has_ckpt) {
		cJSON_AddStringToObject(j, "checkpoint", m->ckpt.digest.s);
		for (size_t i = 0; i < m->ckpt.n_layers; i++)
			cJSON_AddItemToArray(layers, cJSON_CreateString(m->ckpt.layers[i].id.s));
	}
	cJSON *config = pf_config_to_json(&m->config);
	cJSON_AddItemToObject(j, "config", config);
	/* A policy that was set stands in for the record's, but not for that of the file which is given now.
	 */
	if (m->revision &&
		pf_session_policy_save(m->sandbox_fd, cJSON_GetObjectItemCaseSensitive(config, "networking"),
			m->revision + 1, err) < 0)
		return -1;
	PF_FREE char *text = pf_json_text(j);
	return pf_replace_file_at(m->sandbox_fd, "sandbox.json", text, strlen(text), 0600, false, err);
}

static int write_bundle(struct making *m, struct pf_err *err)
{
	char hostname[64];
	PF_FREE char *files = pf_asprintf("%s/sandboxes/%s/etc", m->d->store, m->id);
	struct pf_bundle_params p = {.id = m->id,
		.config = &m->config,
		.image = &m->image,
		.id_base = m->id_base,
		.cgroup = m->state->cgroup,
		.store = m->d->store,
		.files_dir = files,
		.ca_targets = m->ca_targets};
	PF_CLOSE int etc = -1;

	if (mkdirat(m->sandbox_fd, "etc", 0755) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir %s", files);
	etc = openat(m->sandbox_fd, "etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (etc < 0)
		return pf_fail(err, errno, "%s", files);
	if (pf_bundle_write_files(etc, pf_bundle_hostname(&m->config, m->id, hostname), NAMESERVER, err) < 0)
		return -1;
	cJSON *document = pf_bundle_make(&p, err);
	if (!document)
		return -1;
	PF_FREE char *text = pf_json_text(document);
	if (pf_new_file_at(m->sandbox_fd, "config.json", text, strlen(text), 0600, err) < 0) {
		cJSON_Delete(document);
		return -1;
	}
	return pf_spec_parse(document, &m->spec, err);
}

static void fill_state(struct making *m)
{
	struct pf_state *s = m->state;
	char now[32];

	s->id = pf_strdup(m->id);
	s->created = pf_strdup(pf_time_now(now));
	s->id_base = m->id_base;
	s->image = pf_strdup(m->image.ref);
	s->image_digest = pf_strdup(m->image.digest);
	s->checkpoint = m->has_ckpt ? pf_strdup(m->ckpt.digest.s) : NULL;
	s->bundle = pf_asprintf("%s/sandboxes/%s", m->d->store, m->id);
	s->env = pf_bundle_env(&m->config, &m->image);
	s->cwd = pf_strdup(pf_bundle_cwd(&m->config, &m->image));
	const char *user = m->config.user.text ? m->config.user.text : m->image.user;
	s->user = user && *user ? pf_strdup(user) : NULL;
	s->exec_timeout_ms = m->config.limits.exec_timeout_ms;
}

static int start(struct making *m, struct pf_err *err)
{
	char hostname[64];
	struct pf_keeper_params k = {.dirs = m->d,
		.config = &m->config,
		.spec = &m->spec,
		.policy = m->policy,
		.workspace = &m->ws,
		.lowers = m->lowers,
		.networking = m->networking,
		.credentials = &m->credentials,
		.creds = &m->creds,
		.tls_helper = m->tls_helper,
		.state = m->state,
		.hostname = pf_bundle_hostname(&m->config, m->id, hostname),
		.lock_fd = m->lock};

	return pf_keeper_start(&k, err);
}

/* The network's and the credentials' side of what is asked for, and whether they need an authority. */
static int make_policy(struct making *m, struct pf_err *err)
{
	/* The image's layers alone: those of a checkpoint a payload has written. */
	m->networking = pf_session_networking(&m->config, m->d->store, m->image.layers, err);
	if (!m->networking)
		return -1;
	m->policy = pf_policy_compile(m->networking, err);
	if (!m->policy)
		return pf_wrap(err, "networking");
	pf_policy_set_revision(m->policy, m->revision + 1);
	if (pf_credentials_resolve(&m->config, m->d->store, m->opts->credentials, &m->credentials, err) < 0 ||
		pf_creds_read(m->credentials.list, &m->creds, err) < 0)
		return -1;
	for (char **w = m->credentials.warnings; w && *w; w++)
		warn(m, pf_strdup(*w));
	if (!m->creds.n && !pf_policy_ends_tls(m->policy))
		return 0;
	m->tls_helper = pf_helper_path("pinfold-tls", err);
	if (!m->tls_helper)
		return -1;
	m->ca_targets = pf_trust_targets(m->lowers);
	/* Before the image's and the file's own variables, which win. */
	size_t n = pf_strv_len(m->image.env);
	char **env = pf_calloc(n + pf_strv_len((char *const *)(uintptr_t)pf_trust_env()) +
				       pf_strv_len(m->credentials.env) + 1,
		sizeof(*env));
	size_t k = 0;
	for (const char *const *e = pf_trust_env(); *e; e++)
		env[k++] = pf_strdup(*e);
	for (char **e = m->image.env; e && *e; e++)
		env[k++] = *e;
	for (char **e = m->credentials.env; e && *e; e++)
		env[k++] = pf_strdup(*e);
	free(m->image.env);
	m->image.env = env;
	return 0;
}

static int make(struct making *m, struct pf_err *err)
{
	PF_CLOSE int unpacked = -1, packs = -1;

	if (m->from) {
		/* Layers of sealed checkpoints are unpacked only for sandboxes whose records name them. */
		struct pf_err why = PF_ERR_INIT;
		unpacked = pf_ckpt_hold_unpacked(m->d->store, &why);
		if (unpacked < 0 && why.kind != PF_ERR_NOT_FOUND) {
			*err = why;
			return -1;
		}
		if (pf_ckpt_resolve(m->d->store, m->from, m->id, &m->ckpt, err) < 0)
			return -1;
		m->has_ckpt = true;
		if (pf_ckpt_check_no_jail(&m->ckpt, err) < 0)
			return -1;
	}
	if (load_config(m, err) < 0 || find_image(m, err) < 0 || add_packages(m, err) < 0)
		return -1;
	if (check_same_image(m, err) < 0)
		return -1;
	for (char **w = m->config.warnings; w && *w; w++)
		warn(m, pf_strdup(*w));
	char *mounts = pf_bundle_mount_warning(&m->config);
	if (mounts)
		warn(m, mounts);
	/* The record of one that is started again has named its checkpoint all along. */
	if (m->has_ckpt && !m->reopened && (packs = hold_checkpoint(m, err)) < 0)
		return -1;
	if (m->has_ckpt && prepare_checkpoint(m, err) < 0)
		return -1;
	stack_lowers(m);
	if (make_policy(m, err) < 0)
		return -1;
	m->sandbox_fd = pf_dirs_sandbox(m->d, m->id, true, err);
	if (m->sandbox_fd < 0)
		return -1;
	m->made_dir = true;
	/* Destroy must work when the disk is full: what it needs is there before anything is written. */
	PF_CLOSE int trash = pf_dirs_open(m->d->store, "trash", err);
	if (trash < 0)
		return -1;
	/* Before the id range that it owns. */
	PF_CLOSE int run = pf_dirs_run(m->d, m->id, true, err);
	PF_FREE char *owner = pf_asprintf("%s/%s", m->d->root, m->id);
	if (run < 0 || make_workspace(m, err) < 0 || pf_idrange_take(owner, &m->id_base, err) < 0)
		return -1;
	m->state->cgroup = pf_session_cgroup(m->d, m->id);
	if (write_record(m, err) < 0 || write_bundle(m, err) < 0)
		return -1;
	/* Before anybody is forked who would hold them for longer. */
	if (unpacked >= 0)
		close(pf_take_fd(&unpacked));
	if (packs >= 0)
		close(pf_take_fd(&packs));
	fill_state(m);
	return start(m, err);
}

static void audit_create(struct making *m)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int fd = pf_audit_open(m->d, m->id, &ignored);
	cJSON *line = cJSON_CreateObject();

	cJSON_AddStringToObject(line, "id", m->id);
	cJSON_AddStringToObject(line, "image", m->image.ref);
	cJSON_AddStringToObject(line, "image_digest", m->image.digest);
	if (m->state->checkpoint)
		cJSON_AddStringToObject(line, "from", m->state->checkpoint);
	cJSON_AddItemToObject(line, "networking", cJSON_Duplicate(m->config.networking, true));
	if (fd >= 0)
		(void)pf_audit_write(fd, "create", line, &ignored);
	else
		cJSON_Delete(line);
}

/* What is taken back when it failed. A workspace that was there before is not ours to remove. */
static void unmake(struct making *m)
{
	struct pf_err ignored = PF_ERR_INIT;

	pf_session_release_ids(m->d, m->id, m->id_base);
	pf_workspace_close(&m->ws);
	if (m->made_dir && !m->reopened && pf_dirs_trash(m->d, m->id, &ignored) == 0)
		(void)pf_dirs_empty_trash(m->d, &ignored);
	PF_CLOSE int root = pf_dirs_open(m->d->root, "", &ignored);
	if (root >= 0 && !m->reopened)
		(void)pf_rm_rf_at(root, m->id, &ignored);
	/* A log in which nothing was written yet; one of an earlier sandbox of this name stays. */
	PF_FREE char *log = pf_asprintf("%s/logs/%s.jsonl", m->d->store, m->id);
	struct stat st;
	if (lstat(log, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0)
		(void)unlink(log);
}

static void done(struct making *m)
{
	pf_workspace_close(&m->ws);
	pf_config_done(&m->config);
	pf_image_done(&m->image);
	pf_ckpt_done(&m->ckpt);
	pf_strv_free(m->lowers);
	pf_spec_done(&m->spec);
	pf_policy_unref(m->policy);
	cJSON_Delete(m->networking);
	pf_credentials_done(&m->credentials);
	pf_creds_done(&m->creds);
	pf_strv_free(m->ca_targets);
	free(m->tls_helper);
	cJSON_Delete(m->record);
	if (m->sandbox_fd >= 0)
		close(m->sandbox_fd);
	if (m->lock >= 0)
		close(m->lock);
}

/* The workspace of a dead sandbox lies on the layers that it was started with, whatever is asked for now. */
static int reopen(struct making *m, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_sandbox(m->d, m->id, false, err);
	PF_FREE char *text = NULL;
	size_t len;

	if (dir < 0 || pf_read_file_at(dir, "sandbox.json", (size_t)8 << 20, &text, &len, err) < 0)
		return pf_wrap(err,
			"sandbox '%s' is dead and cannot be started again (`pinfold destroy %s` removes it)",
			m->id, m->id);
	m->record = pf_json_parse("sandbox.json", text, len, err);
	if (!m->record)
		return -1;
	if (m->opts->from)
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"sandbox '%s' has stopped and still has its workspace; --from would lose it: "
			"`pinfold destroy %s` "
			"first, or leave --from out",
			m->id, m->id);
	m->from = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m->record, "checkpoint"));
	m->reopened = true;
	return pf_session_live_policy(dir, m->record, &m->revision, err);
}

/* No runtime state, but perhaps a workspace: of before a reboot, or of a create that was killed. One with a
 * record has run and is somebody's; one without never did. */
static int meet_orphan(struct making *m, struct pf_err *err)
{
	PF_FREE char *dir = pf_asprintf("%s/sandboxes/%s", m->d->store, m->id);
	PF_FREE char *record = pf_asprintf("%s/sandbox.json", dir);

	if (access(record, F_OK) == 0) {
		/* Written down first: whatever becomes of this create, nobody takes the workspace for a piece
		 * of one. */
		if (m->opts->reuse)
			return pf_session_record_stopped(m->d, m->id, err) < 0 ? -1 : reopen(m, err);
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"sandbox '%s' exists (stopped); use --reuse to take it, or `pinfold destroy %s`",
			m->id, m->id);
	}
	return access(dir, F_OK) == 0 ? pf_dirs_trash(m->d, m->id, err) : 0;
}

/* Another sandbox has this id. Returns 1 when --reuse returns it as it is, 0 when it is dead and to be
 * started again on its workspace. */
static int meet_existing(struct making *m, struct pf_err *err)
{
	struct pf_state old;
	struct pf_err seen = PF_ERR_INIT;

	if (pf_state_load(m->d, m->id, &old, &seen) < 0)
		return seen.kind == PF_ERR_NOT_FOUND ? meet_orphan(m, err) : (*err = seen, -1);
	if (!m->opts->reuse) {
		pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"sandbox '%s' exists (%s); use --reuse to take it, or `pinfold destroy %s`", m->id,
			pf_status_name(old.status), m->id);
		pf_state_done(&old);
		return -1;
	}
	if (old.status == PF_STATUS_STOPPED) {
		/* Its keeper may still be tidying up; what it removes and writes must be the old sandbox's.
		 */
		if (pf_session_end_processes(m->d, &old, err) < 0) {
			pf_state_done(&old);
			return -1;
		}
		pf_session_release_ids(m->d, m->id, old.id_base);
		pf_state_done(&old);
		return reopen(m, err);
	}
	*m->state = old;
	if (old.status == PF_STATUS_PAUSED && pf_session_pause_locked(m->d, m->id, false, err) < 0)
		return -1;
	m->state->status = PF_STATUS_RUNNING;
	if (m->opts->config_path || m->opts->image || m->opts->from)
		warn(m, pf_strdup("the sandbox lives: it is as it was made, whatever --config, --image and "
				  "--from say"));
	return 1;
}

int pf_session_create(const struct pf_dirs *d, const char *id, const struct pf_create_opts *opts,
	struct pf_state *state, bool *existed, struct pf_err *err)
{
	struct making m = {.d = d,
		.id = id,
		.opts = opts,
		.ws = PF_WORKSPACE_INIT,
		.state = state,
		.sandbox_fd = -1,
		.lock = -1,
		.from = opts->from};
	int r;

	*state = (struct pf_state){.exit_code = -1, .exec_timeout_ms = -1};
	*existed = false;
	if (pf_check_id("sandbox id", id, err) < 0)
		return -1;
	m.lock = pf_dirs_lock(d, id, true, err);
	if (m.lock < 0)
		return -1;
	r = meet_existing(&m, err);
	if (r == 0) {
		r = make(&m, err);
		if (r == 0)
			audit_create(&m);
		else
			unmake(&m);
		if (r < 0 && !m.reopened)
			pf_dirs_unlock_remove(d, id, &m.lock);
	} else if (r == 1) {
		*existed = true;
		r = 0;
	}
	done(&m);
	if (r < 0) {
		pf_state_done(state);
		return -1;
	}
	if (!*existed) {
		/* The keeper wrote down what only it knew. */
		pf_state_done(state);
		return pf_state_load(d, id, state, err);
	}
	return 0;
}
