/* The gate: the one way out of a sandbox, held by its keeper. */
#ifndef PF_NETPOLICY_GATE_H
#define PF_NETPOLICY_GATE_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "netpolicy/creds.h"
#include "netpolicy/policy.h"

/* One line of the audit log. Strings are valid during the callback only; NULL or 0: does not apply. */
struct pf_gate_event {
	/* "dns", "connect" (decided), "close" (over), "packet" (rejected by the filter), "request" (of a
	 * connection that pinfold-tls has), "tls" (pinfold-tls itself) */
	const char *kind;
	const char *verdict; /* "allow", "deny", "error" (allowed, and did not work out) */
	const char *reason;  /* one word: "allowed", "not_listed", "port", "sni_mismatch", "resolve", … */
	const char *detail;  /* the other name of a mismatch, the class of an address, an error text */
	const char *name;    /* as the sandbox asked for it */
	const char *rule;    /* the entry that decided */
	const char *orig;    /* the address the sandbox dialled: synthetic, or a literal one */
	const char *addr;    /* the real address the keeper dialled */
	const char *proto;   /* "tcp", "udp", "icmp", … */
	uint16_t port;       /* of orig */
	const char *method, *path;    /* of "request"; the path without the query */
	const char *credential;       /* whose secret went into it */
	const char *exec, *process;   /* who in the sandbox it was, as far as that is known */
	uint64_t bytes_out, bytes_in; /* from and to the sandbox, of "close" */
	int64_t duration_us;          /* since the sandbox connected */
	uint64_t revision;            /* of the policy */
	uint64_t suppressed;          /* denials that were not reported since the last one that was */
};
/* An event as the members of the object that goes into the log (without time and sandbox id, which the caller
 * knows), appended: ,"kind":"connect",… */
struct pf_buf;
void pf_gate_event_text(const struct pf_gate_event *ev, struct pf_buf *out);

struct pf_gate_opts {
	/* Called from pf_gate_dispatch, pf_gate_set_policy and pf_gate_close; must not call the gate. May be
	 * NULL. Denials come at most at 20 a second after a burst of 200, per kind; the rest are counted in
	 * suppressed. */
	void (*audit)(void *user, const struct pf_gate_event *ev);
	/* Who in the sandbox made a socket in this v2 cgroup; malloc'ed, or NULL. May be NULL. */
	void (*whois)(void *user, uint64_t cgroup_id, char **exec, char **process);
	void *user;
	const char *hostname; /* the sandbox's own name: answered with loopback; may be NULL */
	const char *
		resolver; /* "IP[:PORT],…": when the policy names none; NULL: the host's; outlives the gate */
	unsigned int max_connections; /* 0: 16384; never more than the descriptor limit allows */
	/* The sandbox has an authority of its own: connections may be given to pinfold-tls. wake_tls has it
	 * started, and pf_gate_tls called in the end; it is called from where audit is. */
	bool authority;
	void (*wake_tls)(void *user);
	const struct pf_creds *creds; /* must outlive the gate; may be NULL */
	/* Called by pf_gate_open as soon as the namespace is there, while its rules are still to be loaded:
	 * who begins with the box then must let nothing of it run before pf_gate_open has returned. The
	 * descriptor is lent. May be NULL. */
	void (*made)(void *user, int netns_fd);
};

struct pf_gate;

/* Make a namespace, load the rules, open the sockets. The calling thread visits the new namespace and is back
 * in its own on return; dials are made from wherever it is when pf_gate_dispatch runs. policy NULL: nothing
 * leaves. The gate keeps its own reference. *netns_fd (close-on-exec, the caller's) is the namespace, owned
 * by the caller's user namespace: the payload must be born in it, in a user namespace of its own. The gate's
 * descriptors are close-on-exec too: a child that lives on without exec must close them, or it holds the gate
 * open. NULL with err; then nothing remains. */
struct pf_gate *pf_gate_open(
	const struct pf_policy *policy, const struct pf_gate_opts *opts, int *netns_fd, struct pf_err *err);

/* The same in a namespace that somebody else has made (netns_fd), for all who are in it or will be. Has it no
 * device but lo, the caller is back in its own on return. Else the calling thread stays in it for good, and
 * dials are made from there, so that they come from the address and are under the rules that its owner gave
 * it; what the payload must not have then is CAP_NET_ADMIN and CAP_NET_RAW over it. Rules that a dead keeper
 * left are replaced. */
struct pf_gate *pf_gate_join(
	const struct pf_policy *policy, const struct pf_gate_opts *opts, int netns_fd, struct pf_err *err);
/* Close a gate that has joined, as if it had never: the namespace is as open as it was. */
void pf_gate_undo(struct pf_gate *g);

/* Readable when there is something to dispatch. */
int pf_gate_fd(const struct pf_gate *g);
/* Milliseconds until pf_gate_dispatch wants to be called whatever the descriptor says; -1: never. */
int pf_gate_timeout_ms(const struct pf_gate *g);
/* Serve what is ready. Never blocks. */
void pf_gate_dispatch(struct pf_gate *g);
/* For a process that has nothing else to do: serve, and call on_fd when fd is readable, until that returns
 * false; idle before it would sleep, and now and then when it does not come to that. SIGPIPE must be ignored.
 * -1 with err when fd cannot be watched. */
int pf_gate_run(struct pf_gate *g, int fd, bool (*on_fd)(void *arg), void (*idle)(void *arg), void *arg,
	struct pf_err *err);

/* Change the policy: one atomic update of the rules, then connections that the new policy would not admit are
 * reset; the others live on. On failure the old policy stays in force. */
int pf_gate_set_policy(struct pf_gate *g, const struct pf_policy *policy, struct pf_err *err);
/* Tell pinfold-tls, if there is one, of the policy that was just set. One that cannot be told is given up
 * with its connections: the next is started with that policy. */
void pf_gate_tls_policy(struct pf_gate *g, const cJSON *networking);
/* The socket to pinfold-tls, set up, which is the gate's from here on; or -1, and why it could not be
 * started. */
int pf_gate_tls(struct pf_gate *g, int fd, const char *why, struct pf_err *err);
const struct pf_policy *pf_gate_policy(const struct pf_gate *g);

/* What would become of a connection to "HOST:PORT" or "[ADDRESS]:PORT": verdict, reason, rule, and what is
 * done with it. NULL with err. */
cJSON *pf_gate_explain(struct pf_gate *g, const char *target, struct pf_err *err);

/* Counters since the gate was opened. */
cJSON *pf_gate_stats(struct pf_gate *g);

/* Reset all connections and close the sockets: from here on nothing in the namespace gets an answer. The
 * rules stay as long as the namespace. NULL is fine. */
void pf_gate_close(struct pf_gate *g);

#endif
