/* One command in a box of its own, for whoever calls: no root, no set-up, nothing kept.
 *
 * What this folder promises. A pf_jail says what the command sees, may write, may reach and may use; it is
 * filled by the command lines (pinfold-jail, pinfold-bwrap) or by a program (pinfold.h). pf_jail_run() builds
 * the box through sandbox/ like every other one, serves it until the command has ended, and leaves nothing
 * behind. An ordinary user gets the same box as root: all is made inside a user namespace of the caller's
 * own. What cannot be had on this machine is an error that says what would change it.
 *
 * The calling process enters that user namespace for good (pf_jail_enter): do it in a process of its own, as
 * the command lines are and as pinfold_spawn() does. */
#ifndef PF_JAIL_JAIL_H
#define PF_JAIL_JAIL_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "sandbox/box.h"

enum pf_jail_kind {
	PF_JAIL_BIND,    /* source, seen at dest */
	PF_JAIL_HIDE,    /* dest: an empty directory, or an empty file */
	PF_JAIL_TMPFS,   /* a new, empty, writable file system */
	PF_JAIL_PROC,    /* a new procfs */
	PF_JAIL_DEV,     /* a new /dev with the few devices that every program expects */
	PF_JAIL_MQUEUE,  /* POSIX message queues */
	PF_JAIL_DIR,     /* in the root itself: an empty directory, */
	PF_JAIL_FILE,    /* a file with what can be read from fd, */
	PF_JAIL_SYMLINK, /* a link to source */
	PF_JAIL_OVERLAY, /* source at dest, writes go to scratch */
};

/* One thing in the command's file system. A BIND at "/" is the root instead of a tmpfs. */
struct pf_jail_op {
	enum pf_jail_kind kind;
	char *dest;      /* clean, absolute */
	char *source;    /* BIND, OVERLAY: the real path, for people; SYMLINK: the target */
	int fd;          /* BIND, OVERLAY: the source, opened O_PATH; FILE: its contents; else -1 */
	bool read_only;  /* BIND, TMPFS, FILE */
	bool devices;    /* BIND: device files in it work */
	bool directory;  /* BIND, HIDE: as opposed to a file */
	int64_t size;    /* TMPFS: bytes; -1: the kernel's default, half of the memory */
	mode_t mode;     /* TMPFS, DIR, FILE */
	const char *why; /* "--rw", "system", …: for --explain */
};

enum pf_jail_net {
	PF_JAIL_NET_NONE, /* a namespace in which every connection is refused at once */
	PF_JAIL_NET_GATE, /* what policy says, through the gate */
	PF_JAIL_NET_HOST, /* the caller's (pinfold-bwrap alone) */
};

enum pf_jail_seccomp {
	PF_JAIL_SECCOMP_DEFAULT, /* the list for sessions */
	PF_JAIL_SECCOMP_STRICT,  /* and no sockets but unix ones, no tracing */
	PF_JAIL_SECCOMP_OFF,
	PF_JAIL_SECCOMP_FILE, /* an OCI linux.seccomp object */
	PF_JAIL_SECCOMP_BPF,  /* a compiled program (bubblewrap's --seccomp FD) */
};

struct pf_jail {
	char **argv;
	char **env; /* "NAME=value", complete */
	size_t n_env;
	char *cwd;
	uint32_t uid, gid;   /* inside; outside all is the caller's */
	uint32_t caller_uid; /* as the machine knows it */
	bool scoped;         /* we are in a cgroup of our own that has the limits: pf_jail_limits_scope */
	char *user_name, *home;
	char *hostname;
	struct pf_jail_op *ops; /* made in this order */
	size_t n_ops;
	bool root_read_only; /* the root itself, once everything is in its place */
	bool etc;            /* a synthetic /etc below all ops */

	enum pf_jail_net net;
	cJSON *networking;        /* of a sandbox file, for the gate */
	struct pf_lone_net *lone; /* lonenet.c's; NULL: not begun */
	/* Namespaces that are the caller's own. */
	bool share_pid, share_ipc, share_uts, share_cgroup;
	bool as_pid_1;        /* the command is process 1 itself; no reaper */
	bool die_with_parent; /* we end when our own parent does; the command always ends with us */
	bool new_session;

	enum pf_jail_seccomp seccomp;
	cJSON *seccomp_object;
	int seccomp_fd;
	uint64_t caps; /* bubblewrap's --cap-add: in the box's own user namespace alone */

	int64_t memory, pids, millicpus, timeout_ms; /* -1: none */
	int64_t grace_ms;  /* how long after a SIGTERM that was handed on the command is killed */
	bool weak;         /* no namespaces: see weak.h */
	bool learn;        /* note what it misses: result.learned */
	bool list_changes; /* overlays: the result tells what was written */
	bool commit; /* overlays: what was written goes into the real directories if the command succeeds */
	char *keep;  /* overlays: make a checkpoint of this name in store at the end; NULL: none */
	char *from;  /* overlays: go on from this checkpoint in store; NULL */
	char *store; /* absolute; see keep.h */
	/* What later jails trust, where an overlay shows it: guard.c. */
	char **guarded;
	size_t n_guarded, cap_guarded;

	bool tty;     /* a terminal of its own between ours and the command */
	bool capture; /* keep the command's output in the result */
	size_t capture_max;
	bool keep_stdin; /* capture: standard input is the caller's; else nothing */

	int control_fd; /* messages (message.h) from a host program; the command ends with it; -1: none */
	/* Its namespaces and mounts are there, and nothing of the command runs before it returns; NULL:
	 * nobody asks. */
	int (*ready)(void *arg, pid_t pid, const uint64_t namespaces[PF_BOX_N_NS], struct pf_err *err);
	int ready_fd; /* what ready closes, of which the command's process must not keep a copy; -1 */
	void (*started)(void *arg, pid_t pid); /* the box's first process runs; may be NULL */
	void *started_arg;
	/* Words for people, while it runs: a denied connection (-v), how a limit is kept. NULL: nobody
	 * listens. */
	void (*say)(void *arg, const char *text);
	/* What should be known even without asking. NULL: as above. */
	void (*warn)(void *arg, const char *text);
	void *say_arg;
};

struct pf_jail_result {
	int exit_code; /* the command's; 128 + signal; 124 timed out; 137 killed for memory */
	int signal;
	const char *limit; /* "timeout", "memory", or NULL */
	int64_t wall_us, cpu_us, memory_peak;
	char *out, *err_out;
	size_t out_len, err_len;
	bool out_truncated, err_truncated;
	cJSON *changes; /* what was written to overlays, see changes.h; NULL: none, or not asked for */
	bool changes_truncated; /* and more than that */
	bool committed;
	cJSON *kept;    /* what the checkpoint is, see keep.h; NULL: none was asked for */
	cJSON *learned; /* a profile, see learn.h; NULL: not asked for */
	cJSON *denied;  /* [{name, addr, port, proto, reason, count}], by first appearance; NULL: none */
};

/* All as pinfold-jail has it with no option: no ops yet (pf_jail_add_defaults), not captured. */
void pf_jail_init(struct pf_jail *j);
void pf_jail_done(struct pf_jail *j);
void pf_jail_result_done(struct pf_jail_result *r);

/* Enter the user namespace that the box will be made in. Before any path is opened, because only what is
 * opened in its mount namespace can be shown in the box. The caller's ids are 0 from then on. */
int pf_jail_enter(struct pf_jail *j, struct pf_err *err);

/* ---- what it sees (paths.c) ---- */

/* Add op; takes over its strings and its fd. */
void pf_jail_add(struct pf_jail *j, struct pf_jail_op op);

/* Open what a user's path names, symlinks resolved now and never again. *real is its place. A path that is
 * not there is PF_ERR_NOT_FOUND and names the nearest directory that is; a place that would show the box too
 * much (proc, a device directory) is PF_ERR_INVALID. */
int pf_jail_open_path(const char *option, const char *path, char **real, struct pf_err *err);

/* A rule of pinfold-jail: path is seen read-only or writable, where it is. missing_ok: nothing happens when
 * it is not there. */
int pf_jail_show(struct pf_jail *j, const char *option, const char *path, bool read_only, bool missing_ok,
	struct pf_err *err);
/* path is empty, whatever shows what is around it. */
int pf_jail_hide(struct pf_jail *j, const char *option, const char *path, struct pf_err *err);
/* What pf_jail_show made writable is overlaid instead; with nothing writable the working directory is. */
int pf_jail_overlay(struct pf_jail *j, struct pf_err *err);
int pf_jail_tmpfs(struct pf_jail *j, const char *option, const char *path, int64_t size, struct pf_err *err);

/* How a jail without options is: the system's programs, /proc, /dev, private /tmp and home, the working
 * directory read-only. home: NULL is private, else a directory to have as home, or "keep". size: of each
 * scratch file system, -1 the kernel's. To be called last: it puts all rules in order, the shallow ones
 * first, later ones over earlier ones of the same place. */
int pf_jail_add_defaults(struct pf_jail *j, const char *home, int64_t size, struct pf_err *err);

/* Where a rule would let the command write the cache, or put another in its place, see to it that it cannot
 * (guard.c). To be called last. PF_ERR_INVALID or PF_ERR_UNSUPPORTED where that is not to be had. */
int pf_jail_guard_cache(struct pf_jail *j, struct pf_err *err);
/* With --from and --commit: PF_ERR_INVALID where a commit of upper, the layer of the overlay at dest, would
 * change what pf_jail_guard_cache keeps the command itself from. */
int pf_jail_guard_layer(const struct pf_jail *j, const char *dest, int upper, struct pf_err *err);
/* The synthetic /etc for j as a directory of the caller's cache; *path NULL when there is no place to keep it
 * (then pf_jail_fill_etc makes it anew). */
int pf_jail_cached_etc(const struct pf_jail *j, char **path, struct pf_err *err);
int pf_jail_fill_etc(const struct pf_jail *j, int dirfd, struct pf_err *err);
/* $XDG_RUNTIME_DIR/pinfold, $XDG_CACHE_HOME/pinfold or ~/.cache/pinfold, made and the caller's own; -1 when
 * there is none. What lies there is believed: no command may write it (pf_jail_guard_cache). */
int pf_jail_cache_dir(char **path);

/* ---- running it ---- */

/* The configuration that sandbox/ builds from. Sources are named by /proc/self/fd. */
cJSON *pf_jail_spec(const struct pf_jail *j);

/* Build, run, wait, clean up; after pf_jail_enter. */
int pf_jail_run(struct pf_jail *j, struct pf_jail_result *result, struct pf_err *err);

/* Why this machine lets no ordinary user make a user namespace, and the one command that changes it; into
 * err. errnum is what unshare(2) said. */
int pf_jail_explain_userns(int errnum, struct pf_err *err);

#endif
