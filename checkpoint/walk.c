/* Theory of operation.
 *
 * Depth first, each directory's names sorted by bytes, everything by descriptor: a name is stat'ed and opened
 * relative to the open directory it was listed in, never followed, so a process inside the box that swaps
 * directories for symlinks gains nothing. Paths are only labels; they may be longer than PATH_MAX.
 *
 * Overlay marks become properties of nodes: a 0/0 character device is a whiteout, the opaque attribute a
 * flag. Which attribute family counts is the caller's word, because with trusted.* in force anybody inside
 * may set user.overlay.opaque on his own directory and must not thereby edit what is restored. Marks that
 * make an upper unreadable as a plain difference (redirect, metacopy) are refused: our mounts never make
 * them.
 *
 * The tree is kept: hard links need the path of their first name, and a live snapshot compares a second walk,
 * made while the box stands still, with the first. In that second walk the listing of a directory whose ctime
 * has not moved is taken from the first (a name cannot come or go without moving it), and it is not even
 * opened unless something in it has to be read; only stats remain, which were done before (restat.h), and
 * that is what the frozen time consists of. */
#include "checkpoint/walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

#define CHUNK ((size_t)256 << 10)
#define MAX_DEPTH 8192 /* one descriptor and one stack frame per level */

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(16) char data[];
};

struct pf_tree {
	struct chunk *chunks;
	struct pf_node *root;
};

/* Names of inodes with more than one: open addressing, at most half full. */
struct link_table {
	struct pf_node **slots;
	size_t cap, used;
};

struct walk {
	const struct pf_walk_opts *o;
	struct pf_tree *tree;
	struct pf_walk_stats *stats;
	struct link_table links;
	struct pf_buf path;
	char dents[64 << 10];
};

static void *tree_alloc(struct pf_tree *t, size_t size)
{
	size = (size + 15) & ~(size_t)15;
	if (!t->chunks || t->chunks->size - t->chunks->used < size) {
		size_t want = size > CHUNK ? size : CHUNK;
		struct chunk *c = malloc(sizeof(*c) + want);
		if (!c)
			return NULL;
		*c = (struct chunk){.next = t->chunks, .size = want};
		t->chunks = c;
	}
	void *p = t->chunks->data + t->chunks->used;
	t->chunks->used += size;
	return p;
}

struct pf_tree *pf_tree_new(const struct pf_tree *like)
{
	struct pf_tree *t = pf_calloc(1, sizeof(*t));
	size_t size = 0;

	for (const struct chunk *c = like->chunks; c; c = c->next)
		size += c->used;
	size += size / 16;
	struct chunk *c = malloc(sizeof(*c) + size);
	if (!c)
		abort();
	memset(c, 0, sizeof(*c) + size); /* so that the pages are there */
	c->size = size;
	t->chunks = c;
	return t;
}

void pf_tree_free(struct pf_tree *t)
{
	if (!t)
		return;
	while (t->chunks) {
		struct chunk *c = t->chunks;
		t->chunks = c->next;
		free(c);
	}
	free(t);
}

struct pf_node *pf_tree_root(const struct pf_tree *tree)
{
	return tree->root;
}

char *pf_node_path(const struct pf_node *n)
{
	size_t len = 0;

	for (const struct pf_node *p = n; p->parent; p = p->parent)
		len += strlen(p->name) + (p->parent->parent ? 1 : 0);
	char *out = pf_calloc(len + 1, 1);
	for (const struct pf_node *p = n; p->parent; p = p->parent) {
		size_t l = strlen(p->name);
		len -= l;
		memcpy(out + len, p->name, l);
		if (p->parent->parent)
			out[--len] = '/';
	}
	return out;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool before(struct timespec a, struct timespec b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

bool pf_node_is(const struct pf_node *n, const struct stat *st, struct timespec since)
{
	return !n->unstable && n->ino == st->st_ino && n->dev == st->st_dev && n->mode == st->st_mode &&
	       n->uid == st->st_uid && n->gid == st->st_gid && n->nlink == st->st_nlink &&
	       (!S_ISREG(st->st_mode) || n->size == st->st_size) && same_time(n->ctime, st->st_ctim) &&
	       same_time(n->mtime, st->st_mtim) && before(n->ctime, since);
}

bool pf_node_unchanged(const struct pf_node *n, struct timespec since)
{
	const struct pf_node *t = n->twin;

	return t && !t->unstable && t->kind == n->kind && t->ino == n->ino && t->dev == n->dev &&
	       t->mode == n->mode && t->uid == n->uid && t->gid == n->gid && t->size == n->size &&
	       same_time(t->ctime, n->ctime) && same_time(t->mtime, n->mtime) && before(n->ctime, since);
}

/* The first node of this inode, or NULL after having entered n as the first. */
static struct pf_node *link_leader(struct link_table *t, struct pf_node *n)
{
	if (t->used * 2 >= t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 1024;
		struct pf_node **slots = pf_calloc(cap, sizeof(struct pf_node *));
		for (size_t i = 0; i < t->cap; i++) {
			if (!t->slots[i])
				continue;
			size_t at = (size_t)t->slots[i]->ino * 0x9e3779b1u & (cap - 1);
			while (slots[at])
				at = (at + 1) & (cap - 1);
			slots[at] = t->slots[i];
		}
		free(t->slots);
		t->slots = slots;
		t->cap = cap;
	}
	size_t at = (size_t)n->ino * 0x9e3779b1u & (t->cap - 1);
	for (; t->slots[at]; at = (at + 1) & (t->cap - 1))
		if (t->slots[at]->ino == n->ino && t->slots[at]->dev == n->dev)
			return t->slots[at];
	t->slots[at] = n;
	t->used++;
	return NULL;
}

static struct pf_node *new_node(
	struct walk *w, struct pf_node *parent, const char *name, const struct stat *st, struct pf_err *err)
{
	size_t len = strlen(name);
	struct pf_node *n = tree_alloc(w->tree, sizeof(*n) + len + 1);

	if (!n) {
		pf_fail(err, ENOMEM, "%s", w->path.data);
		return NULL;
	}
	*n = (struct pf_node){.parent = parent,
		.dev = st->st_dev,
		.ino = st->st_ino,
		.nlink = st->st_nlink,
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.size = S_ISREG(st->st_mode) ? st->st_size : 0,
		.blocks = st->st_blocks,
		.mtime = st->st_mtim,
		.ctime = st->st_ctim};
	memcpy(n->name, name, len + 1);
	return n;
}

static void mark_name(const struct walk *w, const char *mark, char name[64])
{
	snprintf(name, 64, "%s.overlay.%s", w->o->userxattr ? "user" : "trusted", mark);
}

/* 1: the mark is set to value, 0: not. */
static int overlay_mark(const struct walk *w, int fd, const char *mark, char value)
{
	char name[64], got[2];

	mark_name(w, mark, name);
	return fgetxattr(fd, name, got, sizeof(got)) == 1 && got[0] == value;
}

static int cmp_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All names of a directory, sorted; one allocation for the text, one for the pointers. */
static int list_names(struct walk *w, int fd, char ***names, size_t *count, char **text, struct pf_err *err)
{
	struct pf_buf all = {0};
	size_t n = 0;

	for (;;) {
		long got = syscall(SYS_getdents64, fd, w->dents, sizeof(w->dents));
		if (got < 0 && w->o->live && errno == ENOENT)
			break; /* the directory itself was removed under us */
		if (got < 0) {
			int e = errno;
			pf_buf_done(&all);
			return pf_fail(err, e, "readdir /%s", w->path.data);
		}
		if (got == 0)
			break;
		for (long at = 0; at < got;) {
			struct dirent64 *d = (void *)(w->dents + at);
			at += d->d_reclen;
			if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
				continue;
			pf_buf_add(&all, d->d_name, strlen(d->d_name) + 1);
			n++;
		}
	}
	char **v = pf_calloc(n + 1, sizeof(*v)), *p = all.data;
	for (size_t i = 0; i < n; i++, p += strlen(p) + 1)
		v[i] = p;
	if (n > 1)
		qsort(v, n, sizeof(*v), cmp_names);
	*names = v;
	*count = n;
	*text = all.data;
	return 0;
}

static bool has_path(const struct walk *w, const char *const *list)
{
	for (; list && *list; list++)
		if ((*list)[0] == '/' && strcmp(*list + 1, w->path.data) == 0)
			return true;
	return false;
}

/* A directory on the way down. */
struct at {
	struct at *up; /* NULL: the root */
	struct pf_node *node;
	int fd; /* -1: not open yet */
};

static int walk_dir(struct walk *w, struct pf_node *dir, struct at *at, int depth, struct pf_err *err);

/* The twin among the twin parent's children: both lists are sorted, *cursor only moves forward. */
static struct pf_node *find_twin(struct pf_node **cursor, const char *name)
{
	while (*cursor) {
		int c = strcmp((*cursor)->name, name);
		if (c == 0)
			return *cursor;
		if (c > 0)
			break;
		*cursor = (*cursor)->next;
	}
	return NULL;
}

/* Its descriptor. */
static int at_fd(struct walk *w, struct at *at, struct pf_err *err)
{
	struct pf_node *n = at->node;
	struct stat st;

	if (at->fd >= 0)
		return at->fd;
	int dirfd = at_fd(w, at->up, err);
	if (dirfd < 0)
		return -1;
	PF_CLOSE int fd = openat(dirfd, n->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE
			       ? pf_fail_kind(err, PF_ERR_UNSUPPORTED, EMFILE, "directories nest too deep")
			       : pf_fail(err, errno, "open /%s", w->path.data);
	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "stat /%s", w->path.data);
	if (st.st_dev != n->dev)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"/%s: another file system is mounted inside the tree", w->path.data);
	if (st.st_ino != n->ino)
		n->unstable = true;
	return at->fd = pf_take_fd(&fd);
}

/* self: the node is a directory. */
static int visit(struct walk *w, struct pf_node *n, struct at *dir, struct at *self, struct pf_err *err)
{
	int fd, self_fd = -1;

	if (w->o->same && n->twin && w->o->same(w->o->ctx, n))
		return 0;
	fd = at_fd(w, dir, err);
	if (fd < 0 || (self && (self_fd = at_fd(w, self, err)) < 0))
		return -1;
	return w->o->visit(w->o->ctx, n, fd, self_fd, w->path.data, err);
}

static int enter_dir(struct walk *w, struct pf_node *n, struct at *up, int depth, struct pf_err *err)
{
	struct at at = {.up = up, .node = n, .fd = -1};
	bool later = w->o->same && !w->o->live && pf_node_unchanged(n, w->o->since);
	int r;

	if (!later && at_fd(w, &at, err) < 0) {
		if (!w->o->live || (err->errnum != ENOENT && err->errnum != ENOTDIR && err->errnum != ELOOP))
			return -1;
		/* Gone or replaced; the second walk sees what it is now. */
		*err = (struct pf_err)PF_ERR_INIT;
		n->unstable = n->cut = true;
		w->stats->vanished++;
		return w->o->visit(w->o->ctx, n, up->fd, -1, w->path.data, err);
	}
	r = walk_dir(w, n, &at, depth, err);
	if (at.fd >= 0)
		close(at.fd);
	return r;
}

/* Classify by mode. 0: keep, 1: skip. */
static int classify(const struct stat *st, const char *name, enum pf_node_kind *kind)
{
	/* In a layer such a name would be a deletion: the format cannot carry it. */
	if (strncmp(name, ".wh.", 4) == 0)
		return 1;
	switch (st->st_mode & S_IFMT) {
	case S_IFREG:
		*kind = PF_NODE_FILE;
		return 0;
	case S_IFDIR:
		*kind = PF_NODE_DIR;
		return 0;
	case S_IFLNK:
		*kind = PF_NODE_SYMLINK;
		return 0;
	case S_IFIFO:
		*kind = PF_NODE_FIFO;
		return 0;
	case S_IFCHR:
		if (st->st_rdev == makedev(0, 0)) {
			*kind = PF_NODE_WHITEOUT;
			return 0;
		}
		return 1;
	default:
		return 1; /* sockets, devices */
	}
}

static void count(struct pf_walk_stats *s, const struct pf_node *n)
{
	if (n->leader) {
		s->hardlinks++;
		return;
	}
	switch (n->kind) {
	case PF_NODE_DIR:
		s->dirs++;
		break;
	case PF_NODE_FILE:
		s->files++;
		if (__builtin_add_overflow(s->bytes, n->size, &s->bytes)) /* holes cost nothing */
			s->bytes = INT64_MAX;
		break;
	case PF_NODE_SYMLINK:
		s->symlinks++;
		break;
	case PF_NODE_FIFO:
		s->fifos++;
		break;
	case PF_NODE_WHITEOUT:
		s->whiteouts++;
		break;
	}
}

/* What the name is: 1 if it is gone. */
static int stat_name(struct walk *w, struct at *at, const char *name, const struct pf_node *twin,
	struct stat *st, struct pf_err *err)
{
	if (twin && twin->again) {
		*st = *twin->again;
		return 0;
	}
	int fd = at_fd(w, at, err);
	if (fd < 0)
		return -1;
	if (fstatat(fd, name, st, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	if (errno == ENOENT && w->o->live) {
		w->stats->vanished++;
		return 1;
	}
	return pf_fail_kind(err, errno == ENOENT ? PF_ERR_STATE : PF_ERR_SYSTEM, errno,
		"/%s changed while it was read: the tree is in use", w->path.data);
}

static int visit_name(struct walk *w, struct pf_node *dir, struct at *at, const char *name, bool xwhiteouts,
	struct pf_node ***tail, struct pf_node **cursor, int depth, struct pf_err *err)
{
	struct pf_node *twin = cursor ? find_twin(cursor, name) : NULL;
	struct stat st;
	enum pf_node_kind kind;

	int r = stat_name(w, at, name, twin, &st, err);
	if (r != 0)
		return r < 0 ? -1 : 0;
	bool cut = has_path(w, w->o->exclude);
	if (cut && !S_ISDIR(st.st_mode))
		return 0;
	if (S_ISREG(st.st_mode) && st.st_size == 0 && has_path(w, w->o->exclude_empty)) {
		/* Filled later, it is not in the listing that the second walk would take from this one. */
		dir->points = true;
		return 0;
	}
	if (classify(&st, name, &kind)) {
		w->stats->skipped++;
		dir->skipped++;
		return 0;
	}
	struct pf_node *n = new_node(w, dir, name, &st, err);
	if (!n)
		return -1;
	n->kind = kind;
	n->cut = cut;
	if (xwhiteouts && kind == PF_NODE_FILE && st.st_size == 0) {
		PF_CLOSE int file = openat(at->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		char key[64], v[8];
		mark_name(w, "whiteout", key);
		if (file >= 0 && fgetxattr(file, key, v, sizeof(v)) >= 0)
			n->kind = PF_NODE_WHITEOUT;
	}
	if (n->kind != PF_NODE_DIR && n->kind != PF_NODE_WHITEOUT && n->nlink > 1)
		n->leader = link_leader(&w->links, n);
	**tail = n;
	*tail = &n->next;
	n->twin = twin;
	count(w->stats, n);
	if (n->kind == PF_NODE_DIR)
		return enter_dir(w, n, at, depth + 1, err);
	return visit(w, n, at, NULL, err);
}

static int walk_children(struct walk *w, struct pf_node *dir, struct at *at, int depth, struct pf_err *err)
{
	PF_FREE char **names = NULL;
	PF_FREE char *text = NULL;
	size_t n = 0, base = w->path.len;
	struct pf_node **tail = &dir->children, *cursor = dir->twin ? dir->twin->children : NULL;
	bool xwhiteouts = false;

	if (w->o->previous && dir->twin && !dir->twin->cut && !dir->twin->points &&
		pf_node_unchanged(dir, w->o->since)) {
		for (struct pf_node *c = cursor; c; c = c->next)
			n++;
		names = pf_calloc(n + 1, sizeof(*names));
		n = 0;
		for (struct pf_node *c = cursor; c; c = c->next)
			names[n++] = c->name;
		dir->skipped = dir->twin->skipped;
		w->stats->skipped += dir->skipped;
	} else {
		int fd = at_fd(w, at, err);
		if (fd < 0 || list_names(w, fd, &names, &n, &text, err) < 0)
			return -1;
		xwhiteouts = overlay_mark(w, fd, "opaque", 'x');
	}
	for (size_t i = 0; i < n; i++) {
		w->path.len = base;
		if (base > 0)
			pf_buf_add(&w->path, "/", 1);
		pf_buf_str(&w->path, names[i]);
		if (visit_name(w, dir, at, names[i], xwhiteouts, &tail, dir->twin ? &cursor : NULL, depth,
			    err) < 0)
			return -1;
	}
	w->path.len = base;
	if (w->path.data)
		w->path.data[base] = '\0';
	return 0;
}

static int walk_dir(struct walk *w, struct pf_node *dir, struct at *at, int depth, struct pf_err *err)
{
	if (depth > MAX_DEPTH)
		return pf_fail_kind(
			err, PF_ERR_UNSUPPORTED, 0, "directories nest deeper than %d levels", MAX_DEPTH);
	if (w->o->previous && dir->twin && pf_node_unchanged(dir, w->o->since)) {
		dir->opaque = dir->twin->opaque;
	} else if (!dir->cut) {
		int fd = at_fd(w, at, err);
		if (fd < 0)
			return -1;
		dir->opaque = overlay_mark(w, fd, "opaque", 'y');
	}
	if (visit(w, dir, at->up ? at->up : at, at, err) < 0)
		return -1;
	return dir->cut ? 0 : walk_children(w, dir, at, depth, err);
}

int pf_walk(int rootfd, const struct pf_walk_opts *opts, struct pf_tree **tree, struct pf_walk_stats *stats,
	struct pf_err *err)
{
	PF_CLOSE int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_NOATIME | O_CLOEXEC);
	struct stat st;
	int r = -1;

	if (fd < 0 || fstat(fd, &st) < 0) {
		pf_tree_free(opts->into);
		return pf_fail(err, errno, "open the tree");
	}
	struct walk *w = pf_calloc(1, sizeof(*w));
	w->o = opts;
	w->stats = stats;
	w->tree = opts->into ? opts->into : pf_calloc(1, sizeof(*w->tree));
	*stats = (struct pf_walk_stats){0};
	pf_buf_str(&w->path, "");
	struct pf_node *root = new_node(w, NULL, "", &st, err);
	if (root) {
		w->tree->root = root;
		root->kind = PF_NODE_DIR;
		root->twin = opts->previous ? opts->previous->root : NULL;
		count(stats, root);
		r = walk_dir(w, root, &(struct at){.node = root, .fd = fd}, 0, err);
	}
	pf_buf_done(&w->path);
	free(w->links.slots);
	if (r == 0)
		*tree = w->tree;
	else
		pf_tree_free(w->tree);
	free(w);
	return r;
}
