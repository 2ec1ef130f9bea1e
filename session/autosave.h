/* The keeper's side of automatic checkpoints, and the process that makes them. */
#ifndef PF_SESSION_AUTOSAVE_H
#define PF_SESSION_AUTOSAVE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "session/config.h"
#include "session/dirs.h"

struct pf_autosave {
	int fd; /* readable when the saver has something to say; -1: there is none */
	pid_t pid;
	bool busy;        /* one is being made */
	int64_t next_us;  /* when the next one of `every` is due, pf_now_us(); 0: never */
	int64_t limit_us; /* when the last one for a kill inside was asked for; 0: never */
};
#define PF_AUTOSAVE_NONE ((struct pf_autosave){.fd = -1})

/* Whether the file asks for any that a keeper makes. */
bool pf_autosave_wanted(const struct pf_config_checkpoint *c);

/* Start the saver; to be called before the keeper opens what nobody else shall hold. upper_fd: the
 * workspace's upper, borrowed. */
int pf_autosave_start(const struct pf_dirs *d, const char *id, const struct pf_config_checkpoint *c,
	int upper_fd, struct pf_autosave *a, struct pf_err *err);

/* Ask for a checkpoint of the running sandbox, unless one is being made. "every" when it is due (call it as
 * often as you like), and "limit" after a kill, at most once a minute. */
void pf_autosave_tick(struct pf_autosave *a, const struct pf_config_checkpoint *c, int64_t now_us);
void pf_autosave_after_kill(struct pf_autosave *a, const struct pf_config_checkpoint *c, int64_t now_us);
/* fd is readable. */
void pf_autosave_event(struct pf_autosave *a, const struct pf_config_checkpoint *c);

/* The sandbox has ended: make a checkpoint of it (on: one of PF_ON_…; PF_N_ON: none), wait for that, end the
 * saver. -1: err says what went wrong, where the saver could not say so itself in the audit log. */
int pf_autosave_end(struct pf_autosave *a, const struct pf_dirs *d, const char *id, enum pf_config_on on,
	struct pf_err *err);

/* Whether the keeper of a sandbox that has ended is making its checkpoint; whoever waits for that keeper
 * waits on, for at most PF_AUTOSAVE_END_MS. */
#define PF_AUTOSAVE_END_MS 600000
bool pf_autosave_saving(const struct pf_dirs *d, const char *id);

#endif
