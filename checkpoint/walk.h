/* A sorted walk over an overlay upper directory (or any layer directory in overlay form): what is in it, in
 * an order that depends on names alone. The walk knows overlayfs and races; it does not know tar. */
#ifndef PF_CHECKPOINT_WALK_H
#define PF_CHECKPOINT_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "base/err.h"

enum pf_node_kind { PF_NODE_DIR, PF_NODE_FILE, PF_NODE_SYMLINK, PF_NODE_FIFO, PF_NODE_WHITEOUT };

/* One name. Lives as long as its tree. */
struct pf_node {
	struct pf_node *parent;   /* NULL for the root */
	struct pf_node *children; /* sorted by name (bytes) */
	struct pf_node *next;
	struct pf_node *leader;   /* another name of the same inode came before: that one holds the data */
	struct pf_node *twin;     /* rescan: the node at the same path in the previous tree */
	void *note;               /* the visitor's */
	const struct stat *again; /* in the previous tree: what the name is now (restat.h); or NULL */
	dev_t dev;
	ino_t ino;
	nlink_t nlink;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	int64_t size;   /* regular files */
	int64_t blocks; /* 512-byte units on disk */
	struct timespec mtime, ctime;
	enum pf_node_kind kind;
	unsigned skipped; /* directories: sockets, devices, reserved names left out directly below */
	bool opaque;      /* directories: hides what lower layers have */
	bool cut;         /* directories: excluded, children not walked */
	bool unstable;    /* changed while it was read: what was packed is not one version of it */
	bool points;      /* of exclude_empty, something was left out of its children */
	char name[];      /* "" for the root */
};

struct pf_walk_stats {
	int64_t files, dirs, symlinks, fifos, whiteouts, hardlinks;
	int64_t bytes;    /* sum of file sizes, each inode once */
	int64_t skipped;  /* sockets, device nodes and reserved names, all together */
	int64_t vanished; /* live only: names that were gone when we came to them */
};

struct pf_tree;

struct pf_walk_opts {
	const char *const *exclude;       /* NULL-terminated clean absolute paths: a directory stays, empty */
	const char *const *exclude_empty; /* likewise, left out when they are empty regular files; or NULL */
	bool userxattr; /* the overlay keeps its marks in user.overlay.* (rootless) instead of trusted.* */
	bool live;      /* somebody writes: what vanishes is counted; otherwise it is an error */
	/* Rescan: nodes get twins, and a directory that has not changed since `since` is not listed again. */
	const struct pf_tree *previous;
	struct pf_tree *into;  /* an empty tree to be filled, from pf_tree_new(); NULL: a new one */
	struct timespec since; /* ctimes from here on prove nothing: they count as changed */
	/* Called for each node, parents first. dirfd is the directory the name is in (for the root: itself),
	 * selffd is the open directory for directories, else -1. path has no leading slash; "" is the root.
	 */
	int (*visit)(
		void *ctx, struct pf_node *node, int dirfd, int selffd, const char *path, struct pf_err *err);
	/* Rescan, may be NULL: asked of each node that has a twin before it is visited. True: it is dealt
	 * with. A directory that has not changed is opened only when something in it has to be visited. */
	bool (*same)(void *ctx, struct pf_node *node);
	void *ctx;
};

/* Walk the directory rootfd. *tree owns the nodes; free with pf_tree_free(). On error nothing is
 * left, nor of opts->into. */
int pf_walk(int rootfd, const struct pf_walk_opts *opts, struct pf_tree **tree, struct pf_walk_stats *stats,
	struct pf_err *err);
/* An empty tree with memory for as many nodes as `like` has, so that none is asked for during the walk. */
struct pf_tree *pf_tree_new(const struct pf_tree *like);
/* NULL is fine. */
void pf_tree_free(struct pf_tree *tree);
struct pf_node *pf_tree_root(const struct pf_tree *tree);

/* Path of a node without leading slash, malloc'ed. */
char *pf_node_path(const struct pf_node *n);

/* Whether this stat is that of n still, with a ctime old enough to be believed. */
bool pf_node_is(const struct pf_node *n, const struct stat *st, struct timespec since);
/* Whether n is what its twin was: same inode, same stat, and a ctime old enough to be believed. */
bool pf_node_unchanged(const struct pf_node *n, struct timespec since);

#endif
