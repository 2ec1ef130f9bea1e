/* Looking at every name of a tree again, with several threads. */
#ifndef PF_CHECKPOINT_RESTAT_H
#define PF_CHECKPOINT_RESTAT_H

#include "checkpoint/walk.h"

/* Everything that needs no standing still: memory, and which directories there are. The tree is borrowed. */
struct pf_restat;
struct pf_restat *pf_restat_new(int rootfd, const struct pf_tree *tree, struct timespec since);
/* Stat every name that the tree knows, and leave what was found with the nodes (their `again` member; NULL
 * where a name is not there any more, or was not reached). Nobody may write meanwhile; what is found is true
 * for as long as that holds, and lives until pf_restat_free(). True: every name was reached, and provably is
 * what it was (pf_node_is()), so there is nothing more to look at. */
bool pf_restat_run(struct pf_restat *r);
/* NULL is fine. */
void pf_restat_free(struct pf_restat *r);

#endif
