/* pinfold-tls (cmd/pinfold-tls) of a sandbox, as its keeper has it: started once to make the sandbox's
 * authority, and again when a connection needs it. */
#ifndef PF_SESSION_TLSPROC_H
#define PF_SESSION_TLSPROC_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "session/credentials.h"

struct pf_tlsproc {
	/* What it is started with. */
	const char *helper;                 /* path of the program; NULL: this sandbox needs none */
	uint32_t id_base;                   /* of the sandbox: its own user id is made from it */
	cJSON *networking;                  /* as the policy was compiled from; owned */
	uint64_t revision;                  /* of the policy */
	int64_t lifetime_s;                 /* of the sandbox's authority */
	struct pf_credentials *credentials; /* the secrets' descriptors are closed once they were passed on */
	/* Where the authority's key and the secrets are while it does not run: memory that only who maps it
	 * can read, and the keeper does not. -1: the kernel has none, and it runs from the beginning on. */
	int vault;
	/* The one that runs. */
	pid_t pid;     /* 0: none */
	int pidfd;     /* readable when it has ended */
	int sock;      /* our copy of the gate's end */
	bool rests;    /* it ends by itself once the authority is made */
	uint64_t told; /* the last revision told here; while the gate has it, that tells it */
	unsigned crashes;
};
#define PF_TLSPROC_NONE ((struct pf_tlsproc){.vault = -1, .pidfd = -1, .sock = -1})

/* Start it, to make the authority and take the secrets; it works while the caller goes on. */
int pf_tlsproc_begin(struct pf_tlsproc *t, struct pf_err *err);
/* Wait until it is ready. The certificate of the sandbox's authority, malloc'ed. */
char *pf_tlsproc_ca(struct pf_tlsproc *t, struct pf_err *err);

/* Start it if it does not run, and see to it that it has the policy that is in force. A socket for the gate,
 * which is the caller's; -1 with err, also when it has died too often. */
int pf_tlsproc_wake(struct pf_tlsproc *t, struct pf_err *err);
/* The policy that is in force from now on; it has it before the gate gets the next socket. */
void pf_tlsproc_policy(struct pf_tlsproc *t, const cJSON *networking, uint64_t revision);
/* Give it a secret anew; fd stays the caller's and is not read here. */
int pf_tlsproc_secret(struct pf_tlsproc *t, const char *name, int fd, struct pf_err *err);

/* pidfd is readable: reap it. Returns what it died of, for people, malloc'ed; NULL: it ended as it should. */
char *pf_tlsproc_ended(struct pf_tlsproc *t);
/* End it. */
void pf_tlsproc_done(struct pf_tlsproc *t);

#endif
