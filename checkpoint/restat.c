/* Theory of operation: the time that a box stands still for a snapshot is one stat for each of its names, so
 * these are shared out among the processors, directory by directory. Each directory is opened by its path
 * below the root without following any link, which nobody can change meanwhile. What cannot be reached in
 * this way (a path that is too long, a directory that is gone) is left to the walk that comes after, which is
 * not needed at all when nothing has changed. */
#include "checkpoint/restat.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "base/sys.h"

#define MAX_THREADS 8
#define SHARE 16 /* directories that a thread takes at once */

struct pf_restat {
	int rootfd;
	const struct pf_node *root;
	struct pf_node **dirs; /* directories that have names in them */
	size_t n_dirs, next;   /* next: atomically */
	struct stat *stats;    /* one for each name */
	size_t *first;         /* where those of a directory begin */
	struct timespec since;
	bool changed; /* atomically */
};

static void stat_dir(struct pf_restat *r, size_t i)
{
	struct stat *st = &r->stats[r->first[i]];
	PF_FREE char *path = pf_node_path(r->dirs[i]);
	PF_CLOSE int fd = pf_openat2(r->rootfd, *path ? path : ".", O_PATH | O_DIRECTORY, 0,
		RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);

	for (struct pf_node *n = r->dirs[i]->children; n; n = n->next, st++) {
		n->again = fd >= 0 && fstatat(fd, n->name, st, AT_SYMLINK_NOFOLLOW) == 0 ? st : NULL;
		if (!n->again || !pf_node_is(n, st, r->since))
			__atomic_store_n(&r->changed, true, __ATOMIC_RELAXED);
	}
}

static void *work(void *arg)
{
	struct pf_restat *r = arg;

	for (;;) {
		size_t at = __atomic_fetch_add(&r->next, SHARE, __ATOMIC_RELAXED);
		if (at >= r->n_dirs)
			return NULL;
		for (size_t i = at; i < at + SHARE && i < r->n_dirs; i++)
			stat_dir(r, i);
	}
}

/* Depth first without recursion: down, else right, else up and right. */
static struct pf_node *following(struct pf_node *n)
{
	if (n->children)
		return n->children;
	while (n && !n->next)
		n = n->parent;
	return n ? n->next : NULL;
}

static void list_dirs(struct pf_restat *r, const struct pf_tree *tree)
{
	size_t names = 0, cap = 0, dirs_cap = 0;

	for (struct pf_node *n = pf_tree_root(tree); n; n = following(n)) {
		if (!n->children)
			continue;
		if (r->n_dirs == dirs_cap) {
			dirs_cap = dirs_cap ? dirs_cap * 2 : 256;
			r->dirs = realloc(r->dirs, dirs_cap * sizeof(struct pf_node *));
			r->first = realloc(r->first, dirs_cap * sizeof(*r->first));
			if (!r->dirs || !r->first)
				abort();
		}
		r->dirs[r->n_dirs] = n;
		r->first[r->n_dirs++] = names;
		for (const struct pf_node *c = n->children; c; c = c->next)
			names++;
	}
	cap = names + 1;
	r->stats = malloc(cap * sizeof(*r->stats));
	if (!r->stats)
		abort();
	memset(r->stats, 0, cap * sizeof(*r->stats)); /* so that the pages are there */
}

struct pf_restat *pf_restat_new(int rootfd, const struct pf_tree *tree, struct timespec since)
{
	struct pf_restat *r = pf_calloc(1, sizeof(*r));

	r->rootfd = rootfd;
	r->root = pf_tree_root(tree);
	r->since = since;
	list_dirs(r, tree);
	return r;
}

bool pf_restat_run(struct pf_restat *r)
{
	struct stat st;
	pthread_t threads[MAX_THREADS];
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int n = 0;

	while (n < MAX_THREADS && n + 1 < cpus && pthread_create(&threads[n], NULL, work, r) == 0)
		n++;
	work(r);
	while (n-- > 0)
		pthread_join(threads[n], NULL);
	return !r->changed && fstat(r->rootfd, &st) == 0 && pf_node_is(r->root, &st, r->since);
}

void pf_restat_free(struct pf_restat *r)
{
	if (!r)
		return;
	free(r->dirs);
	free(r->first);
	free(r->stats);
	free(r);
}
