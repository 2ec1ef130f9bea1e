/* Theory of operation: everything is made below tmp/, durable, before any of it is moved to where it can be
 * found: packs, then layers' documents, then the manifest, then the index, each with the fsync of its
 * directory. Whatever stops it in between leaves things that nothing refers to, which the next collection
 * removes; packs.lock is held shared for the whole time, so that no collection removes them now, nor the
 * chunks that were found in the store and are not written again. */
#include "checkpoint/txn.h"

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
#include "base/json.h"
#include "base/str.h"
#include "checkpoint/content.h"
#include "checkpoint/filesindex.h"
#include "checkpoint/layer.h"
#include "checkpoint/packs.h"
#include "checkpoint/take.h"

/* A layer that is to be committed. */
struct made {
	struct pf_digest id;
	struct pf_layer_doc doc;
	bool keep_old;    /* the document in the store is as good */
	char *index_name; /* NULL: no index of unchanged files */
	struct pf_buf index;
};

struct pf_txn {
	struct pf_ckpt_heavy *h;
	struct pf_packs *packs;
	bool sealed, foreign;
	char name[64];
	int tmp_fd, packs_fd;
	struct pf_packs_writer *writer;
	bool finished;
	struct made *made;
	size_t n_made;
};

int pf_txn_tmp(const struct pf_txn *t)
{
	return t->tmp_fd;
}

static int start(struct pf_txn *t, const struct pf_txn_opts *o, struct pf_err *err)
{
	struct pf_packs_writer_opts w = {.level = o->level, .threads = o->threads};

	t->packs = pf_ckpt_heavy_packs(t->h, o->sealed, err);
	if (!t->packs || pf_ckpt_tmp_make(t->h->storefd, t->name, &t->tmp_fd, err) < 0)
		return -1;
	if (mkdirat(t->tmp_fd, "packs", 0700) < 0)
		return pf_fail(err, errno, "mkdir");
	t->packs_fd = openat(t->tmp_fd, "packs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->packs_fd < 0)
		return pf_fail(err, errno, "open");
	return pf_packs_writer_new(t->packs, t->packs_fd, &w, &t->writer, err);
}

int pf_txn_begin(
	struct pf_ckpt_heavy *h, const struct pf_txn_opts *o, struct pf_txn **out, struct pf_err *err)
{
	struct pf_txn *t = pf_calloc(1, sizeof(*t));

	t->h = h;
	t->sealed = o->sealed;
	t->foreign = o->foreign;
	t->tmp_fd = t->packs_fd = -1;
	if (start(t, o, err) < 0) {
		pf_txn_end(t);
		return -1;
	}
	*out = t;
	return 0;
}

static void made_done(struct made *m)
{
	pf_layer_doc_done(&m->doc);
	free(m->index_name);
	pf_buf_done(&m->index);
	*m = (struct made){0};
}

void pf_txn_end(struct pf_txn *t)
{
	if (!t)
		return;
	int saved = errno;
	pf_packs_writer_free(t->writer);
	if (t->packs_fd >= 0)
		close(t->packs_fd);
	pf_ckpt_tmp_remove(t->h->storefd, t->name, &t->tmp_fd);
	for (size_t i = 0; i < t->n_made; i++)
		made_done(&t->made[i]);
	free(t->made);
	free(t);
	errno = saved;
}

/* ---- layers ---- */

static bool same_streams(const struct pf_layer_doc *a, const struct pf_layer_doc *b)
{
	return a->n_tree == b->n_tree && a->n_map == b->n_map &&
	       (a->n_tree == 0 || memcmp(a->tree, b->tree, a->n_tree * 32) == 0) &&
	       (a->n_map == 0 || memcmp(a->map, b->map, a->n_map * 32) == 0);
}

/* What the store has of this layer. Its map may be another one; ours leads to data that is there, so where
 * they differ ours is taken, and what was published of the layer is kept. */
static void look_for_old(struct pf_txn *t, struct made *m, struct pf_txn_layer *out)
{
	struct pf_err ignored = PF_ERR_INIT;
	struct pf_layer_doc old;

	if (pf_layer_doc_load_as(t->h, &m->id, t->sealed, &old, &ignored) < 0)
		return;
	out->was_there = true;
	m->keep_old = same_streams(&old, &m->doc);
	m->doc.published = old.published;
	m->doc.n_published = old.n_published;
	old.published = NULL;
	old.n_published = 0;
	pf_layer_doc_done(&old);
}

/* Whether it is to be another layer than the one that was made. What an older pinfold published has its
 * files' sums in the older form. */
static bool to_be_older(const struct pf_txn_source *s, int version, const struct made *m)
{
	return s->expected && version != 2 && strcmp(m->id.s, s->expected->s) != 0;
}

static int store_streams(
	struct pf_content_writer *cw, const struct pf_take *k, struct made *m, struct pf_err *err)
{
	uint8_t raw[32];

	if (EVP_Digest(k->tree.data, k->tree.len, raw, NULL, EVP_sha256(), NULL) != 1)
		return pf_fail(err, EIO, "SHA-256");
	pf_digest_from_raw(raw, &m->id);
	if (to_be_older(k->src, k->version, m))
		return 0; /* no document will name them */
	m->doc.tree_bytes = (int64_t)k->tree.len;
	m->doc.map_bytes = (int64_t)k->map.len;
	return pf_content_stream(cw, k->tree.data, k->tree.len, &m->doc.tree, &m->doc.n_tree, err) < 0 ||
			       pf_content_stream(
				       cw, k->map.data, k->map.len, &m->doc.map, &m->doc.n_map, err) < 0
		       ? -1
		       : 0;
}

/* What restoring would refuse must not be written. */
static int check_limits(const struct pf_txn_layer *l, struct pf_err *err)
{
	if (pf_take_check_bytes(l, err) < 0)
		return -1;
	if (l->entries > PF_CKPT_MAX_ENTRIES)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0, "%lld names; a checkpoint holds %lld",
			(long long)l->entries, (long long)PF_CKPT_MAX_ENTRIES);
	return 0;
}

static int add_layer(struct pf_txn *t, const struct pf_txn_source *s, struct pf_content_writer *cw,
	struct pf_take *k, struct made *m, struct pf_err *err)
{
	if (pf_take_tree(k, err) < 0 || check_limits(k->out, err) < 0 || store_streams(cw, k, m, err) < 0)
		return -1;
	k->out->id = m->id;
	k->out->tree_bytes = m->doc.tree_bytes;
	k->out->map_bytes = m->doc.map_bytes;
	look_for_old(t, m, k->out);
	if (s->files_index && k->index.len > 0) {
		m->index_name = pf_strdup(s->files_index);
		m->index = k->index;
		k->index = (struct pf_buf){0};
	}
	return 0;
}

static int make_layer(struct pf_txn *t, const struct pf_txn_source *s, int version, struct made *m,
	struct pf_txn_layer *out, struct pf_err *err)
{
	struct pf_arena arena = {0};
	struct pf_content_writer *cw = pf_content_writer_new(t->packs, t->writer, &arena, version);
	/* The index has sums of the newest version. */
	struct pf_files_index *known =
		s->files_index && version == PF_TREE_VERSION
			? pf_files_index_load(t->h, s->files_index, s->rootfd, t->sealed)
			: NULL;
	struct pf_take k = {.src = s,
		.packs = t->packs,
		.writer = cw,
		.arena = &arena,
		.known = known,
		.tmp_fd = t->tmp_fd,
		.version = version,
		.out = out};

	*out = (struct pf_txn_layer){0};
	int r = add_layer(t, s, cw, &k, m, err);
	pf_buf_done(&k.tree);
	pf_buf_done(&k.map);
	pf_buf_done(&k.index);
	pf_files_index_free(known);
	pf_content_writer_free(cw);
	pf_arena_done(&arena);
	return r;
}

int pf_txn_layer(
	struct pf_txn *t, const struct pf_txn_source *s, struct pf_txn_layer *out, struct pf_err *err)
{
	int version = s->tree_version ? s->tree_version : PF_TREE_VERSION;
	struct made *v = realloc(t->made, (t->n_made + 1) * sizeof(*v));

	if (!v)
		abort();
	t->made = v;
	struct made *m = &v[t->n_made++];
	*m = (struct made){0};
	int r = make_layer(t, s, version, m, out, err);
	if (r < 0 || !to_be_older(s, version, m))
		return r;
	made_done(m);
	return make_layer(t, s, 2, m, out, err);
}

/* ---- commit ---- */

static int write_doc(struct pf_txn *t, const struct made *m, int64_t *bytes, struct pf_err *err)
{
	PF_FREE char *text = pf_layer_doc_text(&m->id, &m->doc);
	struct stat st;

	if (pf_ckpt_heavy_write(t->h, "layer", pf_digest_hex(&m->id), t->tmp_fd, pf_digest_hex(&m->id), text,
		    strlen(text), t->sealed, true, err) < 0)
		return -1;
	if (fstatat(t->tmp_fd, pf_digest_hex(&m->id), &st, AT_SYMLINK_NOFOLLOW) == 0)
		*bytes += st.st_size;
	return 0;
}

int pf_txn_finish(struct pf_txn *t, struct pf_txn_written *w, struct pf_err *err)
{
	struct pf_packs_written p;

	if (pf_packs_finish(t->writer, &p, err) < 0)
		return -1;
	*w = (struct pf_txn_written){.chunks_new = p.new_chunks,
		.chunks_reused = p.chunks - p.new_chunks,
		.bytes_new = p.stored_bytes};
	for (size_t i = 0; i < t->n_made; i++)
		if (!t->made[i].keep_old && write_doc(t, &t->made[i], &w->bytes_new, err) < 0)
			return -1;
	t->finished = true;
	return 0;
}

static int open_dir(int storefd, const char *name, struct pf_err *err)
{
	if (mkdirat(storefd, name, 0700) < 0 && errno != EEXIST)
		return pf_fail(err, errno, "mkdir %s", name);
	int fd = openat(storefd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? pf_fail(err, errno, "%s", name) : fd;
}

static int move_layers(struct pf_txn *t, struct pf_err *err)
{
	PF_CLOSE int dir = open_dir(t->h->storefd, "layers", err);

	if (dir < 0)
		return -1;
	for (size_t i = 0; i < t->n_made; i++) {
		const struct made *m = &t->made[i];
		char path[96];
		/* Two equal layers in one transaction are one document. */
		if (!m->keep_old &&
			renameat(t->tmp_fd, pf_digest_hex(&m->id), dir,
				pf_ckpt_layer_path(&m->id, t->sealed, path) + strlen("layers/")) < 0 &&
			errno != ENOENT)
			return pf_fail(err, errno, "move a layer into place");
	}
	return pf_sync_dir(dir, err);
}

/* Layers that this transaction did not make must be in the store. */
static int check_layers(
	struct pf_txn *t, const struct pf_digest *digest, const char *manifest, struct pf_err *err)
{
	PF_CKPT struct pf_ckpt c = {0};

	if (pf_ckpt_parse(t->h->storefd, digest, NULL, manifest, strlen(manifest), t->sealed, &c, err) < 0)
		return -1;
	for (size_t i = 0; i < c.n_layers; i++)
		if (!c.layers[i].present)
			return pf_fail_kind(
				err, PF_ERR_CORRUPT, 0, "layer %s is not in the store", c.layers[i].id.s);
	return 0;
}

static int move_manifest(
	struct pf_txn *t, const struct pf_digest *digest, const char *manifest, struct pf_err *err)
{
	PF_CLOSE int dir = open_dir(t->h->storefd, "manifests", err);

	return dir < 0 ? -1
		       : pf_ckpt_heavy_write(t->h, "manifest", pf_digest_hex(digest), dir,
				 pf_digest_hex(digest), manifest, strlen(manifest), t->sealed, true, err);
}

static void save_indexes(struct pf_txn *t)
{
	struct pf_err ignored = PF_ERR_INIT; /* the next snapshot then reads every file */

	for (size_t i = 0; i < t->n_made; i++)
		if (t->made[i].index_name)
			(void)pf_files_index_save(
				t->h, t->made[i].index_name, &t->made[i].index, t->sealed, &ignored);
}

int pf_txn_commit_locked(struct pf_txn *t, const char *manifest, const char *name, const char *sandbox_id,
	const char *created, struct pf_digest *digest, struct pf_err *err)
{
	struct pf_txn_written w;
	PF_JSON cJSON *index = NULL;

	if (!t->finished && pf_txn_finish(t, &w, err) < 0)
		return -1;
	pf_sha256_digest(manifest, strlen(manifest), digest);
	index = pf_ckpt_index_read(t->h->storefd, err);
	if (!index)
		return -1;
	if (pf_ckpt_index_find(index, digest->s, NULL))
		return pf_fail_kind(
			err, PF_ERR_EXISTS, 0, "checkpoint %s is in the store already", digest->s);
	if (*name && pf_ckpt_index_find(index, NULL, name))
		return pf_fail_kind(err, PF_ERR_EXISTS, 0,
			"the checkpoint name '%s' is taken: choose another, or remove that one first", name);
	pf_ckpt_index_add(index, digest, name, sandbox_id, created, t->sealed, t->foreign);
	if (pf_ckpt_index_check_size(index, err) < 0)
		return -1;
	/* When writing the index fails it may be in force all the same (its directory's fsync comes last):
	 * so the manifest stays. If nothing names it, the next collection takes it. */
	if (pf_packs_publish(t->h->storefd, t->packs_fd, err) < 0 || move_layers(t, err) < 0 ||
		check_layers(t, digest, manifest, err) < 0 || move_manifest(t, digest, manifest, err) < 0 ||
		pf_ckpt_index_write(t->h->storefd, index, err) < 0)
		return -1;
	save_indexes(t);
	return 0;
}

int pf_txn_commit(struct pf_txn *t, const char *manifest, const char *name, const char *sandbox_id,
	const char *created, struct pf_digest *digest, struct pf_err *err)
{
	PF_CLOSE int lock = pf_ckpt_lock(t->h->storefd, err);

	return lock < 0 ? -1 : pf_txn_commit_locked(t, manifest, name, sandbox_id, created, digest, err);
}

int pf_txn_keep_unpacked(
	struct pf_txn *t, const char *name, const struct pf_digest *layer, struct pf_err *err)
{
	char to[96];

	if (t->sealed) /* in clear only while a sandbox stands on it */
		return 0;
	PF_CLOSE int dir = open_dir(t->h->storefd, "unpacked", err);
	if (dir < 0)
		return -1;
	/* Nobody has flushed what is in it, and the name says that it is whole. */
	PF_CLOSE int made = openat(t->tmp_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (made < 0 || syncfs(made) < 0)
		return pf_fail(err, errno, "flush the unpacked layer");
	if (renameat(t->tmp_fd, name, dir, pf_ckpt_unpacked_name(layer, to)) < 0 && errno != EEXIST &&
		errno != ENOTEMPTY)
		return pf_fail(err, errno, "name the unpacked layer");
	return pf_sync_dir(dir, err);
}
