/* Starting pinfold-tls (cmd/pinfold-tls) for a sandbox, before its keeper is confined. */
#ifndef PF_SESSION_TLSPROC_H
#define PF_SESSION_TLSPROC_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "base/err.h"
#include "session/credentials.h"

struct pf_tlsproc {
	const char *helper;                 /* path of the program */
	uint32_t id_base;                   /* of the sandbox: its own user id is made from it */
	const cJSON *networking;            /* as the policy was compiled from */
	uint64_t revision;                  /* of the policy */
	int64_t lifetime_s;                 /* of the sandbox's authority */
	struct pf_credentials *credentials; /* the secrets' descriptors are closed once they were passed on */
};

/* Start it and tell it all; it works while the caller goes on. Its socket, which is its life. */
int pf_tlsproc_start(const struct pf_tlsproc *p, struct pf_err *err);
/* Wait until it is ready. The certificate of the sandbox's authority, malloc'ed. */
char *pf_tlsproc_ca(int sock, struct pf_err *err);

#endif
