/* What the parts of the keeper share. */
#ifndef PF_SESSION_KEEPER_PRIV_H
#define PF_SESSION_KEEPER_PRIV_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "sandbox/box.h"
#include "sandbox/cgroup.h"
#include "session/autosave.h"
#include "session/gateproc.h"
#include "session/keeper.h"
#include "session/tlsproc.h"

/* A connection to the control socket. */
struct conn {
	int fd;
	char *leaf;    /* of the exec that it stands for; NULL: a request only */
	bool exec;     /* stands or stood for one */
	bool freezing; /* whoever is at the other end may have frozen the box */
	struct conn *next;
};

struct keeper {
	const struct pf_keeper_params *p;
	struct pf_cgroup_host host;
	struct pf_cgroup *cgroup, *init_leaf;
	struct pf_gateproc gate;
	struct pf_tlsproc tls;
	uint64_t revision; /* of the policy that is in force */
	struct pf_box box;
	int audit, epoll, listen, signals, oom;
	int64_t oom_kills;
	bool oom_on_v2;
	int64_t oom_us;                  /* of the last kill, 0: none */
	int64_t oom_untold, oom_tell_us; /* kills that the log has not; when it may have the next line */
	struct pf_autosave autosave;
	int64_t deadline_us, idle_us; /* 0: none */
	const char *stop_reason;
	struct conn *conns;
	int execs;       /* connections that stand for one */
	char **leftover; /* leaves whose exec is over and which were not empty then; NULL-terminated */
	size_t n_leftover;
	int spare; /* a descriptor to give up when there is none left to accept with */
};

/* keeper.c */
int pf_keeper_watch(const struct keeper *k, int fd, void *tag);
void pf_keeper_unwatch(const struct keeper *k, int fd);
int pf_keeper_save_state(struct keeper *k, enum pf_status status, struct pf_err *err);
/* A line of the log; fields (taken) may be NULL. One that cannot be written is lost. */
void pf_keeper_log(const struct keeper *k, const char *event, cJSON *fields);

/* keeper_build.c: gate, cgroup, box; and what is to be undone when that fails. */
int pf_keeper_build(struct keeper *k, struct pf_err *err);
void pf_keeper_undo(struct keeper *k);

/* keeper_tls.c */
int pf_keeper_tls_begin(struct keeper *k, struct pf_err *err);
/* The certificates that the box will trust. The file must be there before it is bound. */
int pf_keeper_tls_trust(struct keeper *k, struct pf_err *err);
/* The gate wants it. */
void pf_keeper_tls_wake(void *keeper);
void pf_keeper_tls_ended(struct keeper *k);
cJSON *pf_keeper_tls_secret(struct keeper *k, const char *name, int fd, struct pf_err *err);

/* keeper_control.c */
void pf_keeper_on_listen(struct keeper *k);
void pf_keeper_on_conn(struct keeper *k, struct conn *c);

/* keeper_end.c */
void pf_keeper_on_oom(struct keeper *k);
/* Write down what kills for memory there were, when it is time. */
void pf_keeper_tell_oom(struct keeper *k, int64_t now);
void pf_keeper_on_saver(struct keeper *k);
/* Everything of the box goes; the workspace on disk stays. */
void pf_keeper_finish(struct keeper *k);

/* What epoll tells a descriptor by; a connection by itself. */
struct pf_keeper_tags {
	char init, gate, tls, oom, listen, signal, saver;
};
extern struct pf_keeper_tags pf_keeper_tags;

#endif
