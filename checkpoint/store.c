/* Theory of operation.
 *
 * A checkpoint is what its manifest's digest says. The index maps names to digests and is the only mutable
 * document: it is replaced whole (fsync, rename, fsync of the directory) under the store's lock. Everything a
 * reader uses is reached from there by digest, and the two JSON documents on the way are hashed before they
 * are believed, so a flipped bit in a record is an error and never a different sandbox.
 *
 * Order in the index is order of commit. "latest" is the last entry of a sandbox, not the largest time stamp:
 * clocks step back. */
#include "checkpoint/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"
#include "base/json.h"
#include "base/path.h"
#include "base/proc.h"
#include "base/str.h"

void pf_ckpt_done(struct pf_ckpt *c)
{
	free(c->name);
	free(c->sandbox_id);
	free(c->created);
	free(c->parent);
	free(c->base_image_ref);
	free(c->base_image_digest);
	cJSON_Delete(c->record);
	free(c->layers);
	*c = (struct pf_ckpt){0};
}

void pf_ckpt_list_free(struct pf_ckpt *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		pf_ckpt_done(&v[i]);
	free(v);
}

char *pf_ckpt_manifest_path(const struct pf_digest *d, char buf[96])
{
	snprintf(buf, 96, "manifests/%s", pf_digest_hex(d));
	return buf;
}

char *pf_ckpt_layer_path(const struct pf_digest *id, bool sealed, char buf[96])
{
	snprintf(buf, 96, "layers/%s%s", pf_digest_hex(id), sealed ? ".sealed" : "");
	return buf;
}

char *pf_ckpt_unpacked_name(const struct pf_digest *id, char buf[96])
{
	snprintf(buf, 96, "sha256-%s", pf_digest_hex(id));
	return buf;
}

char *pf_ckpt_layer_dir(const char *store, const struct pf_ckpt_layer *l)
{
	return pf_asprintf("%s/checkpoints/unpacked/sha256-%s/fs", store, pf_digest_hex(&l->id));
}

/* What chunks are cut by: other parameters would find nothing that is there. */
static const char format_params[] = "\"chunker\":{\"min\":16384,\"average\":65536,\"max\":262144}";

static int make_store(int fd, struct pf_err *err)
{
	static const char index[] = "{\"version\":2,\"checkpoints\":[]}";
	static const char *const dirs[] = {"manifests", "layers", "packs", "files", "unpacked", "tmp"};
	struct stat st;

	if (fstatat(fd, "format", &st, 0) == 0)
		return 0;
	PF_CLOSE int lock = pf_ckpt_lock(fd, err);
	if (lock < 0)
		return -1;
	if (fstatat(fd, "format", &st, 0) == 0 || fstatat(fd, "oci-layout", &st, 0) == 0)
		return 0;
	for (size_t i = 0; i < sizeof(dirs) / sizeof(*dirs); i++)
		if (mkdirat(fd, dirs[i], 0700) < 0 && errno != EEXIST)
			return pf_fail(err, errno, "mkdir checkpoints/%s", dirs[i]);
	unsigned char id[16];
	char hex[33];
	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return pf_fail(err, errno, "random numbers");
	for (size_t i = 0; i < sizeof(id); i++)
		snprintf(hex + 2 * i, 3, "%02x", id[i]);
	PF_FREE char *format =
		pf_asprintf("{\"version\":%d,%s,\"id\":\"%s\"}", PF_CKPT_VERSION, format_params, hex);
	/* The format last: with it the store is there. An index without it may be somebody's. */
	if ((fstatat(fd, "index.json", &st, 0) < 0 &&
		    pf_replace_file_at(fd, "index.json", index, strlen(index), 0600, true, err) < 0) ||
		pf_replace_file_at(fd, "format", format, strlen(format), 0600, true, err) < 0)
		return -1;
	return 0;
}

/* A store of another form is refused before anything is done to it. */
static int check_format(int fd, const char *path, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	struct stat st;
	size_t len;
	int64_t version = 0;
	struct pf_err why = PF_ERR_INIT;

	if (fstatat(fd, "format", &st, 0) < 0 && errno == ENOENT) {
		if (fstatat(fd, "oci-layout", &st, 0) == 0)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"%s was made by an older version: move it aside, then take in what you need "
				"with `pinfold checkpoint import oci:OLD_DIRECTORY:NAME`",
				path);
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, ENOENT, "checkpoint store %s", path);
	}
	if (pf_read_file_at(fd, "format", 65536, &text, &len, err) < 0)
		return pf_wrap(err, "checkpoint store %s", path);
	PF_JSON cJSON *j = pf_json_parse("format", text, len, &why);
	if (!j || pf_json_int(j, "format", "version", 0, INT32_MAX, &version, &why) < 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "checkpoint store %s: %s", path, why.msg);
	if (version != PF_CKPT_VERSION)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"checkpoint store %s is of version %d, this program knows version %d: use the one "
			"that "
			"made it, or another --store",
			path, (int)version, PF_CKPT_VERSION);
	PF_FREE char *params = pf_json_text(cJSON_GetObjectItemCaseSensitive(j, "chunker"));
	if (!params || strcmp(params, strchr(format_params, '{')) != 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"checkpoint store %s: its files are cut into chunks in a way that this program does "
			"not "
			"know: use the one that made it, or another --store",
			path);
	return 0;
}

int pf_ckpt_store_open(const char *store, bool create, struct pf_err *err)
{
	PF_FREE char *path = pf_asprintf("%s/checkpoints", store);

	if (create && pf_mkdirs(path, 0700, err) < 0)
		return pf_wrap(err, "checkpoint store");
	/* Who uses what is asked of ../sandboxes: behind a link that would be another directory, or none. */
	PF_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int saved = errno;
	struct stat st;
	if (fd < 0 && lstat(path, &st) == 0 && S_ISLNK(st.st_mode))
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, saved,
			"checkpoint store %s is a symbolic link: bind-mount the directory there instead",
			path);
	if (fd < 0)
		return pf_fail_kind(err, saved == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, saved,
			"checkpoint store %s", path);
	if (create && make_store(fd, err) < 0)
		return pf_wrap(err, "checkpoint store %s", path);
	return check_format(fd, path, err) < 0 ? -1 : pf_take_fd(&fd);
}

int pf_ckpt_lock(int storefd, struct pf_err *err)
{
	return pf_lock_file_at(storefd, "lock", true, err);
}

/* ---- the index ---- */

cJSON *pf_ckpt_index_entries(const cJSON *index)
{
	return cJSON_GetObjectItemCaseSensitive(index, "checkpoints");
}

static cJSON *read_index(int storefd, struct pf_err *err)
{
	PF_FREE char *text = NULL;
	PF_JSON cJSON *index = NULL;
	const cJSON *list = NULL, *m;
	const char *digest;
	size_t len;

	if (pf_read_file_at(storefd, "index.json", PF_CKPT_MAX_DOC, &text, &len, err) < 0)
		return NULL;
	index = pf_json_parse("index.json", text, len, err);
	if (!index || pf_json_arr(index, "index.json", "checkpoints", &list, err) < 0) {
		err->kind = PF_ERR_CORRUPT;
		return NULL;
	}
	if (!list) {
		pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index.json: no list of checkpoints");
		return NULL;
	}
	cJSON_ArrayForEach(m, list)
	{
		digest = "";
		if (!cJSON_IsObject(m) || pf_json_str(m, "checkpoints[]", "digest", &digest, err) < 0 ||
			!pf_digest_ok(digest)) {
			pf_fail_kind(err, PF_ERR_CORRUPT, 0, "index.json: an entry without a sha256 digest");
			return NULL;
		}
	}
	return pf_take(index);
}

cJSON *pf_ckpt_index_read(int storefd, struct pf_err *err)
{
	cJSON *index = read_index(storefd, err);

	if (!index && (err->kind == PF_ERR_CORRUPT || err->errnum == ENOENT)) {
		struct pf_err why = *err;
		pf_fail_kind(err, PF_ERR_CORRUPT, why.errnum,
			"%.700s (`pinfold checkpoint verify --all --repair-index` writes it anew)", why.msg);
	}
	return index;
}

int pf_ckpt_index_check_size(const cJSON *index, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(index);

	return strlen(text) <= PF_CKPT_MAX_DOC
		       ? 0
		       : pf_fail_kind(err, PF_ERR_UNSUPPORTED, EFBIG,
				 "the store's index has no room for another checkpoint: make some with "
				 "`pinfold checkpoint prune`");
}

int pf_ckpt_index_write(int storefd, const cJSON *index, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(index);

	return pf_replace_file_at(storefd, "index.json", text, strlen(text), 0600, true, err);
}

const char *pf_ckpt_index_str(const cJSON *entry, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, key));

	return s ? s : "";
}

bool pf_ckpt_index_sealed(const cJSON *entry)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, "sealed"));
}

bool pf_ckpt_index_foreign(const cJSON *entry)
{
	return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, "foreign"));
}

cJSON *pf_ckpt_index_find(const cJSON *index, const char *digest, const char *name)
{
	cJSON *m;

	cJSON_ArrayForEach(m, pf_ckpt_index_entries(index))
	{
		if (digest && strcmp(pf_ckpt_index_str(m, "digest"), digest) == 0)
			return m;
		if (name && strcmp(pf_ckpt_index_str(m, "name"), name) == 0)
			return m;
	}
	return NULL;
}

void pf_ckpt_index_add(cJSON *index, const struct pf_digest *digest, const char *name, const char *sandbox,
	const char *created, bool sealed, bool foreign)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "digest", digest->s);
	cJSON_AddStringToObject(m, "name", name);
	cJSON_AddStringToObject(m, "sandbox", sandbox);
	cJSON_AddStringToObject(m, "created", created);
	cJSON_AddBoolToObject(m, "sealed", sealed);
	if (foreign)
		cJSON_AddTrueToObject(m, "foreign");
	cJSON_AddItemToArray(pf_ckpt_index_entries(index), m);
}

void pf_ckpt_index_remove(cJSON *index, const char *digest)
{
	cJSON_Delete(cJSON_DetachItemViaPointer(
		pf_ckpt_index_entries(index), pf_ckpt_index_find(index, digest, NULL)));
}

/* ---- manifests ---- */

static int copy_digest(const char *where, const char *s, struct pf_digest *out, struct pf_err *err)
{
	if (!s || !pf_digest_ok(s))
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "%s: '%.80s' is no sha256 digest", where, s ? s : "");
	memcpy(out->s, s, sizeof(out->s));
	return 0;
}

static bool is_there(int storefd, const char *path, mode_t type)
{
	struct stat st;

	return storefd >= 0 && fstatat(storefd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (st.st_mode & S_IFMT) == type;
}

static int read_layer(int storefd, const cJSON *j, struct pf_ckpt_layer *l, struct pf_err *err)
{
	const char *id = NULL;
	char path[96], name[128];

	if (pf_json_str(j, "layers[]", "id", &id, err) < 0 ||
		pf_json_int(j, "layers[]", "bytes", 0, (int64_t)1 << 53, &l->bytes, err) < 0 ||
		pf_json_int(j, "layers[]", "entries", 0, (int64_t)1 << 53, &l->entries, err) < 0 ||
		copy_digest("layers[].id", id, &l->id, err) < 0)
		return -1;
	l->present = is_there(storefd, pf_ckpt_layer_path(&l->id, false, path), S_IFREG) ||
		     is_there(storefd, pf_ckpt_layer_path(&l->id, true, path), S_IFREG);
	snprintf(name, sizeof(name), "unpacked/%s/fs", pf_ckpt_unpacked_name(&l->id, path));
	l->unpacked = is_there(storefd, name, S_IFDIR);
	return 0;
}

static int read_layers(int storefd, struct pf_ckpt *out, struct pf_err *err)
{
	const cJSON *layers = NULL, *l;

	if (pf_json_arr(out->record, "", "layers", &layers, err) < 0)
		return -1;
	int n = layers ? cJSON_GetArraySize(layers) : 0;
	if (n < 1 || n > PF_CKPT_MAX_LAYERS)
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "%d layers: must be 1 to %d", n, PF_CKPT_MAX_LAYERS);
	out->layers = pf_calloc((size_t)n, sizeof(*out->layers));
	out->n_layers = (size_t)n;
	l = layers->child;
	for (int i = n - 1; i >= 0; i--, l = l->next)
		if (!cJSON_IsObject(l))
			return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "layers[]: must be objects");
		else if (read_layer(storefd, l, &out->layers[i], err) < 0)
			return -1;
	return 0;
}

/* What goes to a terminal as it is. */
static bool plain(const char *s)
{
	for (size_t i = 0, len = strlen(s); i < len; i++)
		if (pf_is_control(s, len, i))
			return false;
	return true;
}

static int read_record(struct pf_ckpt *out, struct pf_err *err)
{
	const cJSON *record = out->record, *base = NULL;
	const char *sandbox = "", *created = "", *parent = "", *ref = "", *digest = "";
	int64_t version = 0;

	if (pf_json_int(record, "", "version", 0, INT32_MAX, &version, err) < 0 ||
		pf_json_str(record, "", "sandbox_id", &sandbox, err) < 0 ||
		pf_json_str(record, "", "created", &created, err) < 0 ||
		pf_json_str(record, "", "parent", &parent, err) < 0 ||
		pf_json_obj(record, "", "base_image", &base, err) < 0)
		return -1;
	if (version != PF_CKPT_VERSION)
		return pf_fail_kind(
			err, PF_ERR_CORRUPT, 0, "its version is %d, not %d", (int)version, PF_CKPT_VERSION);
	if (base && (pf_json_str(base, "base_image", "ref", &ref, err) < 0 ||
			    pf_json_str(base, "base_image", "digest", &digest, err) < 0))
		return -1;
	if (pf_check_id("the checkpoint's sandbox id", sandbox, err) < 0)
		return -1;
	if (!plain(created) || !plain(ref))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "control characters in the manifest");
	if (*parent && !pf_digest_ok(parent))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "parent: '%.80s' is no sha256 digest", parent);
	out->sandbox_id = pf_strdup(sandbox);
	out->created = pf_strdup(created);
	out->parent = pf_strdup(parent);
	out->base_image_ref = pf_strdup(ref);
	out->base_image_digest = pf_strdup(digest);
	return 0;
}

static int parse(int storefd, const struct pf_digest *digest, const char *text, size_t len,
	struct pf_ckpt *out, struct pf_err *err)
{
	struct pf_digest got;

	pf_sha256_digest(text, len, &got);
	if (strcmp(got.s, digest->s) != 0)
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the manifest's digest is %s", got.s);
	out->record = pf_json_parse("manifest", text, len, err);
	if (!out->record)
		return -1;
	if (!cJSON_IsObject(out->record))
		return pf_fail_kind(err, PF_ERR_CORRUPT, 0, "the manifest is not a JSON object");
	return read_record(out, err) < 0 ? -1 : read_layers(storefd, out, err);
}

int pf_ckpt_parse(int storefd, const struct pf_digest *digest, const char *name, const char *text, size_t len,
	bool sealed, struct pf_ckpt *out, struct pf_err *err)
{
	*out = (struct pf_ckpt){.digest = *digest, .manifest_size = (int64_t)len, .sealed = sealed};
	if (parse(storefd, digest, text, len, out, err) < 0) {
		pf_ckpt_done(out);
		/* What was wrong is stored data, not the caller's input. */
		if (err->kind == PF_ERR_INVALID)
			err->kind = PF_ERR_CORRUPT;
		return pf_wrap(err, "checkpoint %.19s", digest->s);
	}
	out->name = pf_strdup(name ? name : "");
	return 0;
}

/* What seal.c begins a document with; a manifest begins with a brace. */
static bool looks_sealed(const char *text, size_t len)
{
	return len >= 6 && memcmp(text, "PFSEAL", 6) == 0;
}

pf_ckpt_manifest_opener *pf_ckpt_open_manifest;

bool pf_ckpt_not_now(const struct pf_err *err)
{
	static const int ours[] = {EACCES, EPERM, EMFILE, ENFILE, ENOMEM, EINTR};

	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (err->errnum == ours[i])
			return true;
	return false;
}

void pf_ckpt_unreadable(struct pf_err *err)
{
	if (!pf_ckpt_not_now(err) && (err->kind == PF_ERR_SYSTEM || err->kind == PF_ERR_NOT_FOUND))
		err->kind = PF_ERR_CORRUPT;
}

int pf_ckpt_load(int storefd, const char *digest, const char *name, struct pf_ckpt *out, struct pf_err *err)
{
	PF_FREE char *opened = NULL;
	PF_FREE char *text = NULL;
	struct pf_digest d;
	char path[96];
	size_t len;

	*out = (struct pf_ckpt){0};
	if (copy_digest("checkpoint", digest, &d, err) < 0)
		return -1;
	if (pf_read_file_at(storefd, pf_ckpt_manifest_path(&d, path), PF_CKPT_MAX_DOC, &text, &len, err) <
		0) {
		pf_ckpt_unreadable(err);
		return pf_wrap(err, "checkpoint %.19s", digest);
	}
	if (looks_sealed(text, len)) {
		*out = (struct pf_ckpt){.digest = d, .sealed = true};
		if (!pf_ckpt_open_manifest)
			return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
				"checkpoint %.19s is sealed: it needs its key", digest);
		if (pf_ckpt_open_manifest(storefd, &d, text, len, &opened, &len, err) < 0)
			return pf_wrap(err, "checkpoint %.19s", digest);
	}
	if (pf_ckpt_parse(storefd, &d, name, opened ? opened : text, len, opened != NULL, out, err) == 0)
		return 0;
	out->sealed = opened != NULL;
	return -1;
}

static bool is_hex_prefix(const char *s)
{
	size_t n = strlen(s);
	return n >= 6 && n <= 64 && strspn(s, "0123456789abcdef") == n;
}

/* "there are: a, b, c" for the error text; a handful is enough to see a typo. */
static int not_found(const cJSON *index, const char *spec, struct pf_err *err)
{
	PF_BUF struct pf_buf b = {0};
	const cJSON *m, *list = pf_ckpt_index_entries(index);
	int n = cJSON_GetArraySize(list), i = 0;

	cJSON_ArrayForEach(m, list)
	{
		if (i++ < n - 8)
			continue;
		const char *name = pf_ckpt_index_str(m, "name");
		pf_buf_printf(&b, "%s%.60s",
			b.len   ? ", "
			: n > 8 ? "…, "
				: "",
			*name ? name
			      : cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "digest")) + 7);
	}
	return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "no checkpoint '%.100s' (%s%s)", spec,
		b.len ? "there are: " : "the store holds none", b.len ? b.data : "");
}

static const char *entry_digest(const cJSON *m)
{
	return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "digest"));
}

static int resolve_latest(
	int storefd, const cJSON *index, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err)
{
	const cJSON *list = pf_ckpt_index_entries(index);
	struct pf_err first = PF_ERR_INIT;
	size_t damaged = 0;

	if (!sandbox_id || !*sandbox_id)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"'latest' means the newest checkpoint of one sandbox: name the sandbox");
	for (int i = cJSON_GetArraySize(list) - 1; i >= 0; i--) {
		const cJSON *m = cJSON_GetArrayItem(list, i);
		if (strcmp(pf_ckpt_index_str(m, "sandbox"), sandbox_id) != 0)
			continue;
		struct pf_err why = PF_ERR_INIT;
		size_t missing = 0;
		if (pf_ckpt_load(storefd, entry_digest(m), pf_ckpt_index_str(m, "name"), out, &why) == 0) {
			for (size_t l = 0; l < out->n_layers; l++)
				missing += !out->layers[l].present;
			/* The index's word for whose checkpoint this is counts only with the record's. */
			if (missing == 0 && strcmp(out->sandbox_id, sandbox_id) == 0) {
				out->n_damaged = damaged;
				out->foreign = pf_ckpt_index_foreign(m);
				return 0;
			}
			pf_ckpt_done(out);
			pf_fail_kind(&why, PF_ERR_CORRUPT, 0, "checkpoint %.19s: %zu layers missing or cut",
				entry_digest(m), missing);
		}
		if (damaged++ == 0)
			first = why;
	}
	if (damaged > 0) {
		*err = first;
		return pf_wrap(err, "no undamaged checkpoint of sandbox %s", sandbox_id);
	}
	return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "sandbox %s has no checkpoint", sandbox_id);
}

static const cJSON *find_entry(const cJSON *index, const char *spec, struct pf_err *err)
{
	const cJSON *m, *found = NULL;
	const char *hex = pf_starts_with(spec, "sha256:") ? spec + 7 : spec;

	if (*spec)
		found = pf_ckpt_index_find(index, NULL, spec);
	if (!found && is_hex_prefix(hex)) {
		cJSON_ArrayForEach(m, pf_ckpt_index_entries(index))
		{
			if (!pf_starts_with(entry_digest(m) + 7, hex))
				continue;
			if (found && strcmp(entry_digest(found), entry_digest(m)) != 0) {
				pf_fail_kind(err, PF_ERR_INVALID, 0,
					"checkpoint '%s' is ambiguous: give more digits", spec);
				return NULL;
			}
			found = m;
		}
	}
	if (!found)
		not_found(index, spec, err);
	return found;
}

int pf_ckpt_find_digest(int storefd, const char *spec, struct pf_digest *out, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	const cJSON *m = index ? find_entry(index, spec, err) : NULL;

	return m ? copy_digest("checkpoint", entry_digest(m), out, err) : -1;
}

int pf_ckpt_resolve_at(
	int storefd, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err)
{
	*out = (struct pf_ckpt){0};
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);

	if (!index)
		return -1;
	if (strcmp(spec, "latest") == 0)
		return resolve_latest(storefd, index, sandbox_id, out, err);
	const cJSON *m = find_entry(index, spec, err);
	if (!m || pf_ckpt_load(storefd, entry_digest(m), pf_ckpt_index_str(m, "name"), out, err) < 0)
		return -1;
	out->foreign = pf_ckpt_index_foreign(m);
	return 0;
}

int pf_ckpt_resolve(
	const char *store, const char *spec, const char *sandbox_id, struct pf_ckpt *out, struct pf_err *err)
{
	*out = (struct pf_ckpt){0};
	PF_CLOSE int fd = pf_ckpt_store_open(store, false, err);

	if (fd < 0)
		return err->kind == PF_ERR_NOT_FOUND
			       ? pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
					 "no checkpoint '%.100s' (the store holds none)", spec)
			       : -1;
	return pf_ckpt_resolve_at(fd, spec, sandbox_id, out, err);
}

int pf_ckpt_check_no_jail(const struct pf_ckpt *c, struct pf_err *err)
{
	if (strcmp(c->base_image_ref, PF_CKPT_JAIL) != 0 || *c->base_image_digest)
		return 0;
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"checkpoint %.80s was kept by pinfold-jail: it is what differs from directories of its user, "
		"and no root for a "
		"sandbox (pinfold-jail --from goes on from it; pinfold checkpoint export --to tar:FILE takes "
		"the files out)",
		*c->name ? c->name : c->digest.s);
}

int pf_ckpt_check_foreign_base(const struct pf_ckpt *c, const char *remedy, struct pf_err *err)
{
	if (!c->foreign || c->base_image_ref[0] != '/')
		return 0;
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"checkpoint %.19s came from elsewhere and stands on %.200s, a directory there%s%s",
		c->digest.s, c->base_image_ref, remedy ? ": " : "", remedy ? remedy : "");
}

int pf_ckpt_check_base(const struct pf_ckpt *c, const char *image_digest, struct pf_err *err)
{
	if (*c->base_image_digest && strcmp(c->base_image_digest, image_digest) == 0)
		return 0;
	return pf_fail_kind(err, PF_ERR_STATE, 0,
		"checkpoint %.19s was made on image %s (%.80s), not on %.80s: import that image, or start "
		"without "
		"the checkpoint",
		c->digest.s, c->base_image_ref,
		*c->base_image_digest ? c->base_image_digest : "digest unknown", image_digest);
}

int pf_ckpt_list(int storefd, struct pf_ckpt **out, size_t *n, struct pf_err *err)
{
	PF_JSON cJSON *index = pf_ckpt_index_read(storefd, err);
	const cJSON *m;

	if (!index)
		return -1;
	const cJSON *list = pf_ckpt_index_entries(index);
	struct pf_ckpt *v = pf_calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*v));
	size_t i = 0;
	cJSON_ArrayForEach(m, list)
	{
		struct pf_err why = PF_ERR_INIT;
		const char *name = pf_ckpt_index_str(m, "name");
		if (pf_ckpt_load(storefd, entry_digest(m), name, &v[i], &why) < 0) {
			memcpy(v[i].digest.s, entry_digest(m), sizeof(v[i].digest.s));
			v[i].name = pf_strdup(name);
			v[i].sandbox_id = pf_strdup(pf_ckpt_index_str(m, "sandbox"));
		}
		v[i].foreign = pf_ckpt_index_foreign(m);
		i++;
	}
	*out = v;
	*n = i;
	return 0;
}

int pf_ckpt_tmp_make(int storefd, char name[64], int *lockfd, struct pf_err *err)
{
	/* Between mkdir and flock the directory looks abandoned; gc holds the store's lock, so take it too.
	 */
	PF_CLOSE int lock = pf_ckpt_lock(storefd, err);

	return lock < 0 ? -1 : pf_ckpt_tmp_make_locked(storefd, name, lockfd, err);
}

int pf_ckpt_tmp_make_locked(int storefd, char name[64], int *lockfd, struct pf_err *err)
{
	static unsigned counter;

	/* A store that was copied without what can be made again is as good. */
	if (mkdirat(storefd, "tmp", 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir tmp");
	for (int tries = 0; tries < 100; tries++) {
		snprintf(name, 64, "tmp/%d.%llx.%u", (int)getpid(), (unsigned long long)pf_now_us(),
			__atomic_fetch_add(&counter, 1, __ATOMIC_RELAXED));
		pf_guard_add(storefd, name);
		if (mkdirat(storefd, name, 0700) < 0) {
			pf_guard_drop(storefd, name);
			if (errno == EEXIST)
				continue;
			return pf_fail(err, errno, "mkdir %s", name);
		}
		PF_CLOSE int fd = openat(storefd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0) {
			pf_fail(err, errno, "lock %s", name);
			(void)unlinkat(storefd, name, AT_REMOVEDIR);
			pf_guard_drop(storefd, name);
			return -1;
		}
		*lockfd = pf_take_fd(&fd);
		return 0;
	}
	return pf_fail(err, EEXIST, "mkdir %s", name);
}

void pf_ckpt_tmp_remove(int storefd, const char *name, int *lockfd)
{
	int saved = errno;
	struct pf_err ignored = PF_ERR_INIT; /* what cannot be removed now is collected by gc */

	if (*lockfd < 0)
		return;
	(void)pf_rm_rf_at(storefd, name, &ignored);
	pf_guard_drop(storefd, name);
	close(*lockfd);
	*lockfd = -1;
	errno = saved;
}
