/* The child's half of making a box: what runs between clone and exec, in new namespaces, with the parent's
 * memory as a private copy. It takes no lock that another thread could have held, and reports by writing one
 * struct pf_err to the sync socket; a note says that it is about to exec, and an exec that succeeds closes
 * the socket. */
#ifndef PF_SANDBOX_CHILD_H
#define PF_SANDBOX_CHILD_H

#include <errno.h>

#include "base/sys.h"
#include "sandbox/box.h"

/* Messages from the parent: one byte each, the second with descriptors. */
enum { PF_SYNC_MAPPED = 'M', PF_SYNC_MOUNTS = 'F', PF_SYNC_GO_ON = 'G' };

/* Notes from the child: this, in one message. Whatever has another size is a struct pf_err. */
struct pf_child_note {
	int what; /* one of: */
	int fd;   /* the child's own descriptor, for LISTENER */
};
enum {
	PF_NOTE_HOOKS = 'H',    /* the namespaces and mounts are there: run the hooks, then GO_ON */
	PF_NOTE_LISTENER = 'L', /* a seccomp filter with a listener was loaded: take it, then GO_ON */
	PF_NOTE_READY = 'R',    /* everything is done but starting the program; the socket is left */
	PF_NOTE_EXEC = 'X',     /* exec is next */
};

/* Descriptors that the parent prepared, in this order: the root, one per mount of kind BIND or HOST, the
 * directory of device nodes if there is one. */
#define PF_MAX_MOUNT_FDS 250

struct pf_child_mounts {
	int root, nodes;
	int n;
	int fds[PF_MAX_MOUNT_FDS];
};

/* The child of pf_box_create; never returns. null: the null device, opened outside. */
__attribute__((noreturn)) void pf_child_main(
	const struct pf_box_params *params, struct pf_cgroup_join *join, int sync, int null);

/* Build the root from params and enter it (rootfs.c). With params->oci, hooks are run on the way; console
 * gets the box's end of its terminal, if it is to have one. */
int pf_child_enter_root(const struct pf_box_params *params, const struct pf_child_mounts *mounts, int sync,
	int *console, struct pf_err *err);

/* Who the process is to be. */
struct pf_become {
	const struct pf_process *process;
	const struct pf_bpf *seccomp; /* NULL: none */
	unsigned seccomp_flags;
	const struct pf_spec *spec; /* personality and memory policy from here; NULL: none */
	int lsm_fd;                 /* pf_lsm_open; -1: none */
	const char *lsm_label;
	bool keeps_groups; /* it has none, and the caller's cannot be dropped without root: so be it */
	bool oci;   /* OCI's manners: standard descriptors given to the user, HOME from the box's passwd */
	char **env; /* out: process->env, perhaps with HOME */
};

/* Identity, limits, filter: the last steps before exec, the same for the first process and for later ones.
 * The filter comes last where it may, see pf_child_late_filter. */
int pf_child_become(struct pf_become *b, int sync, struct pf_err *err);
/* Loads the filter if pf_child_become has not: with no_new_privs it can be the very last step. */
int pf_child_late_filter(const struct pf_become *b, struct pf_err *err);

/* The file that process->args[0] names: itself when it holds a slash, else found on env's PATH; NULL with
 * PF_ERR_NO_COMMAND or PF_ERR_NO_EXEC. buf holds the result. */
const char *pf_child_resolve(
	const struct pf_process *process, char *const *env, char *buf, size_t size, struct pf_err *err);
/* execve of file. Returns only on failure. sync -1: nobody is told. */
int pf_child_exec(
	int sync, const char *file, const struct pf_process *process, char *const *env, struct pf_err *err);

/* The same through process 1's program: it starts process->args, if there are any, and stays. */
void pf_child_exec_init(int sync, int init_fd, const struct pf_process *process, struct pf_err *err);

/* Put the three descriptors at 0, 1 and 2, and close all others but the next `keep` and those in need: from
 * here on paths are looked up that the box controls, and a magic link of /proc must find nothing of ours. No
 * -1 in stdio: a null device is opened outside, where its name means what it says. */
int pf_child_stdio(const int stdio[3], unsigned keep, const int *need, size_t n_need, struct pf_err *err);

/* A session keyring of its own, so that the keys of whoever called us are not there to be found. */
int pf_child_new_keyring(const char *name, struct pf_err *err);

/* Default dispositions and an empty mask: what the caller blocked or ignored for itself is not the command's.
 */
int pf_child_signals(struct pf_err *err);

/* SIGKILL when the parent dies, also if it has already. Lost at every change of ids. */
int pf_child_die_with_parent(int sync, struct pf_err *err);

/* Send a note; and wait for GO_ON. */
int pf_child_note(int sync, int what, int fd, struct pf_err *err);
int pf_child_wait_go_on(int sync, struct pf_err *err);

/* Send the error to the parent and leave. */
__attribute__((noreturn)) void pf_child_fail(int sync, const struct pf_err *err);

/* Have the process that args will clone start in cg: born there where that is safe, joining as its first act
 * (pf_cgroup_join_self) where not. cg may be NULL. */
int pf_clone_into_cgroup(
	const struct pf_cgroup *cg, struct clone_args *args, struct pf_cgroup_join *join, struct pf_err *err);

/* The parent's side: the child's oom_score_adj, if process has one. */
int pf_child_oom_score(pid_t pid, const struct pf_process *process, struct pf_err *err);

/* The parent's side: follow the child until it is READY or has exec'ed. Its notes in between go to on_note
 * (which answers with GO_ON itself, NULL: there are none). -1: the child's error, or on_note's, is in err. */
typedef int (*pf_child_note_fn)(void *arg, int sync, const struct pf_child_note *note, struct pf_err *err);

/* errnum of the error when the child ended without a word. */
enum { PF_CHILD_DIED = EOWNERDEAD };

/* patience NULL: for ever. */
int pf_child_follow(int sync, pf_child_note_fn on_note, void *arg, const struct pf_child_patience *patience,
	struct pf_err *err);

#endif
