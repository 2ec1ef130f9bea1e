/* OCI containers: the operations of runtime.md on a bundle, over the same boxes that sessions are made of.
 *
 * A container has a state directory <root>/ID, which the caller opens and holds the lock of while it creates,
 * starts or deletes:
 *     state.json    what is known since create; the status is never written down but looked up
 *     config.json   the configuration as it was at create; later changes of the bundle's do not count
 *     start result  FIFOs between a created process and `start`, see setup.c; gone when it runs
 *     hooks         empty; says that there are hooks for later */
#ifndef PF_SANDBOX_CONTAINER_H
#define PF_SANDBOX_CONTAINER_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "sandbox/cgroup.h"
#include "sandbox/spec.h"

enum pf_container_status {
	PF_CONTAINER_CREATING,
	PF_CONTAINER_CREATED,
	PF_CONTAINER_RUNNING,
	PF_CONTAINER_PAUSED,
	PF_CONTAINER_STOPPED
};

struct pf_container {
	char *id, *bundle, *rootfs, *created; /* created: RFC 3339, UTC */
	char *cgroup;                         /* path below the cgroup mounts */
	char *unit;                           /* systemd's scope that this is; NULL: not by systemd */
	cJSON *annotations;                   /* NULL: none */
	pid_t pid;                            /* of the first process, 0 before there is one */
	uint64_t pid_start;
	dev_t root_dev; /* st_dev of rootfs at create, 0: not known */
	bool ready;     /* create has succeeded */
	/* Whether it has namespaces of these kinds that are not the host's. */
	bool own_user, own_pid, own_time;
	bool no_new_keyring; /* its processes keep the session keyring of who starts them */
	enum pf_container_status status;
};

/* The cgroup above containers whose configuration names none. Not that of sessions: what limits them all is
 * set there. */
#define PF_CONTAINER_CGROUP "/pinfold-oci"

const char *pf_container_status_name(enum pf_container_status status);
/* Whether the state directory is a container's and not a session's. */
bool pf_container_is(int dir);
/* Read its state and look how it is. PF_ERR_NOT_FOUND: there is none. */
int pf_container_load(int dir, const char *id, struct pf_container *c, struct pf_err *err);
int pf_container_save(int dir, const struct pf_container *c, struct pf_err *err);
void pf_container_done(struct pf_container *c);
/* The state as runtime.md has it, with what runc adds; status overrides c's when not NULL, pid -1 leaves the
 * pid out. */
cJSON *pf_container_json(const struct pf_container *c, const char *status, pid_t pid);
/* The configuration it was created with. */
int pf_container_spec(int dir, struct pf_spec *spec, struct pf_err *err);
/* Its cgroup (PF_ERR_NOT_FOUND when that is gone). */
int pf_container_cgroup(const struct pf_container *c, struct pf_cgroup **cg, struct pf_err *err);

struct pf_container_opts {
	const char *id;
	const char *bundle; /* absolute */
	int dir, cache_dir; /* the state directory, empty; one for compiled filters, -1: none */
	int console_fd;     /* takes the terminal's master; -1: none */
	int cancel_fd;      /* readable: give up; -1: none */
	const char *pid_file, *pidfd_socket; /* NULL: none */
	bool no_pivot, no_new_keyring, systemd_cgroup;
	unsigned keep_fds;   /* descriptors from 3 on for the program, which the caller has inherited */
	unsigned listen_fds; /* and more behind those, that LISTEN_FDS tells it of */
};

/* Create the container of spec (from pf_container_config) as the caller's child, which the caller reaps or
 * leaves to a subreaper by exiting. On failure nothing is left of it but the state directory's files.
 * Warnings for people are added to warnings, a line each. *pidfd is the caller's to close. */
int pf_container_create(const struct pf_container_opts *o, struct pf_spec *spec, struct pf_container *c,
	int *pidfd, struct pf_buf *warnings, struct pf_err *err);
/* Read and check <bundle>/config.json. */
int pf_container_config(const char *bundle, struct pf_spec *spec, struct pf_err *err);

/* Let a created container run its program; on return it does (or has ended already). */
int pf_container_start(int dir, struct pf_container *c, struct pf_err *err);
/* Send a signal to its first process, or to all of them. */
int pf_container_kill(const struct pf_container *c, int sig, bool all, struct pf_err *err);
int pf_container_freeze(const struct pf_container *c, bool freeze, struct pf_err *err);
/* End what still runs of it, if force, and take back all that create made but the state directory's files,
 * which the caller removes. */
int pf_container_delete(
	int dir, struct pf_container *c, bool force, struct pf_buf *warnings, struct pf_err *err);

struct pf_container_exec {
	const struct pf_process *process;
	const char *cgroup; /* below the container's; NULL: the container's */
	int cache_dir, console_fd;
	unsigned keep_fds;
	bool ignore_paused;
	bool stay;     /* it outlives the caller */
	int cancel_fd; /* readable: give up waiting for it to start; -1: none */
};
/* One more process in a running container, see pf_box_exec. What is inside may stop it before it has started,
 * so that is waited for 30 s at most; with ignore_paused for ever. */
int pf_container_exec(const struct pf_container *c, const struct pf_spec *spec,
	const struct pf_container_exec *x, pid_t *pid, int *pidfd, struct pf_err *err);

/* Take out of caps what cannot be granted in a container, and say so in a line of warnings: the specification
 * wants no error for that (config.md, capabilities). */
void pf_container_clip_caps(struct pf_caps *caps, bool own_user, struct pf_buf *warnings);

/* Write a pid to a file, complete or not at all. */
int pf_container_pid_file(const char *path, pid_t pid, struct pf_err *err);

/* The name of the session keyring that create and exec give their processes; NULL: the caller's stays. */
char *pf_container_keyring(const struct pf_container *c);

/* What create and exec share (container_notify.c): hand a seccomp listener to the agent that the
 * configuration names. state is the container's, taken over. */
int pf_container_send_listener(const cJSON *seccomp, cJSON *state, pid_t pid, int fd, struct pf_err *err);

#endif
