/* The gate as a process of its own: the only one of a session that reads what its payload sends. Its keeper
 * talks to it over a socket, which is its life. */
#ifndef PF_SESSION_GATEPROC_H
#define PF_SESSION_GATEPROC_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "netpolicy/creds.h"
#include "netpolicy/policy.h"

struct pf_gateproc_params {
	const struct pf_policy *policy;
	const struct pf_creds *creds; /* may be NULL */
	const char *hostname;
	bool authority; /* gate.h */
	int audit;      /* the log; stays the caller's */
	uid_t uid;      /* who it becomes */
};

struct pf_gateproc {
	pid_t pid; /* 0: none */
	int sock;  /* readable: pf_gateproc_hear; -1: none */
	int last;  /* the same after pf_gateproc_hang_up */
	/* The gate wants pinfold-tls. Called from pf_gateproc_hear and pf_gateproc_grant. */
	void (*wake_tls)(void *arg);
	bool wished; /* while it was asked */
	void *arg;
};
#define PF_GATEPROC_NONE ((struct pf_gateproc){.sock = -1, .last = -1})

/* The line between keeper (pair[0]) and gate. The keeper waits for room in it for two seconds, never for
 * ever: a gate that was taken over might leave unread what it asks for. */
int pf_gateproc_line(int pair[2], struct pf_err *err);
/* Fork it. It makes the namespace and loads the rules while the caller goes on. */
int pf_gateproc_start(const struct pf_gateproc_params *p, struct pf_gateproc *g, struct pf_err *err);
/* Wait for the namespace, which is returned, the caller's to close; nothing of a payload may run in it before
 * pf_gateproc_ready. */
int pf_gateproc_netns(struct pf_gateproc *g, struct pf_err *err);
/* And wait until the rules are in force. */
int pf_gateproc_ready(struct pf_gateproc *g, struct pf_err *err);
/* Where its connections come from, so that the log can name the exec: the box's v2 cgroup (or -1) and its
 * process 1. Before that it handles no packet; without it, it ends when pf_gateproc_hang_up says so. */
int pf_gateproc_box(const struct pf_gateproc *g, int cgroup, int pidfd, struct pf_err *err);
/* The socket to pinfold-tls; or -1, and why there is none. A gate that cannot be told is killed. */
int pf_gateproc_tls(const struct pf_gateproc *g, int fd, const char *why, struct pf_err *err);

/* Ask it and wait: {"op":"policy"}, {"op":"policy-test","target"}, {"op":"policy-set"} with a document of
 * netpolicy/tlslink.h. Returns what it answers; NULL with err, also when it does not answer, which is the end
 * of it. To be followed by pf_gateproc_grant, once it is known which policy is in force. */
cJSON *pf_gateproc_ask(struct pf_gateproc *g, const cJSON *msg, int fd, struct pf_err *err);
void pf_gateproc_grant(struct pf_gateproc *g);
/* Read what it says by itself. false: it has ended. */
bool pf_gateproc_hear(struct pf_gateproc *g);

/* Tell it to end: it writes the last lines of its log. */
void pf_gateproc_hang_up(struct pf_gateproc *g);
/* Wait until they are. */
void pf_gateproc_last_words(struct pf_gateproc *g);
/* And until it has ended. */
void pf_gateproc_end(struct pf_gateproc *g);

#endif
