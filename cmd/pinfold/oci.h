/* What the OCI verbs share. They answer as runc does: 1 for failure (255 from exec), errors as text on
 * standard error and where --log says. */
#ifndef PF_CMD_PINFOLD_OCI_H
#define PF_CMD_PINFOLD_OCI_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"
#include "sandbox/container.h"

enum { PF_OCI_FAILED = 1, PF_OCI_EXEC_FAILED = 255 };

/* One container, with its directory and, if asked for, its lock. */
struct pf_oci {
	const char *id;
	int dir, lock;
	struct pf_container c;
};
#define PF_OCI PF_CLEANUP(pf_oci_close)
#define PF_OCI_INIT                   \
	{                             \
		.dir = -1, .lock = -1 \
	}

/* Open the container; PF_ERR_NOT_FOUND when there is none, PF_ERR_STATE when the id is a session's. */
int pf_oci_open(const char *id, bool lock, struct pf_oci *h, struct pf_err *err);
void pf_oci_close(struct pf_oci *h);
/* Whether id is a container's and not a session's. */
bool pf_oci_is(const char *id);
/* The cache of compiled filters; -1 when there is none to be had. */
int pf_oci_cache(void);

/* "what: error", printed and logged; returns code. */
int pf_oci_fail(const char *what, struct pf_err *err, int code);
/* Print and log warnings, a line each, and empty the buffer. */
void pf_oci_warn(struct pf_buf *warnings);

/* Whether descriptors 3 … 2+n have come from our caller, as --preserve-fds promises. */
int pf_oci_check_fds(unsigned n, struct pf_err *err);

/* A pair for a terminal that this process serves itself: [0] is kept, [1] is the console socket. */
int pf_oci_console_pair(int pair[2], struct pf_err *err);
/* Serve a process until it ends: signals that we get go to it, and if console >= 0 the terminal whose master
 * comes from there. Returns its exit code, 128 + n for a signal. Reaps it. */
int pf_oci_wait(pid_t pid, int pidfd, int console);
/* Block the signals that pf_oci_wait hands on; before the process is there, so that none is lost. Returns a
 * descriptor that is readable when one of them asks to give up; it is never read, so that the signal is there
 * for pf_oci_wait. */
int pf_oci_block_signals(struct pf_err *err);

/* The verbs that runc has and sessions have too: called when the id is a container's. */
int pf_oci_create(int argc, char **argv);
int pf_oci_exec(int argc, char **argv);
int pf_oci_state(const char *id);
int pf_oci_freeze(const char *id, bool freeze);
/* delete: force also ends one that runs, and one that is not there is no error then. */
int pf_oci_delete(const char *id, bool force, struct pf_err *err);
/* The container's line for list, NULL when it is not there any more. */
cJSON *pf_oci_list_entry(const char *id);

#endif
