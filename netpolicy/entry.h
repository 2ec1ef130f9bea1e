/* The entries a policy is written in: hosts, networks, ports. */
#ifndef PF_NETPOLICY_ENTRY_H
#define PF_NETPOLICY_ENTRY_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "netpolicy/addrfilter.h"
#include "netpolicy/scope.h"

#define PF_NAME_MAX 254 /* a host name in text form without the trailing dot, and its NUL */

struct pf_ports {
	uint16_t lo, hi;
};

/* What is done with TLS of a rule. */
enum pf_tls {
	PF_TLS_VERIFY,      /* the server name is checked, what is inside stays between the two ends */
	PF_TLS_PASSTHROUGH, /* not even that */
	PF_TLS_TERMINATE,   /* ended by pinfold-tls: requests are seen, and must be HTTP/1 */
};

/* One parsed entry. Owns ports and scope. No ports: every port. */
struct pf_entry {
	char host[PF_NAME_MAX]; /* lower case, no trailing dot; of a wildcard what follows "*." */
	bool wildcard, is_cidr;
	struct pf_cidr cidr;
	struct pf_ports *ports;
	size_t n_ports;
	/* object form only */
	bool allow_private;
	bool udp;     /* "protocol": "udp" */
	bool tls_set; /* tls was given, not assumed */
	enum pf_tls tls;
	struct pf_scope scope;
	int64_t max_connections;    /* at a time; 0: no limit of its own */
	int64_t max_bytes_per_hour; /* likewise */
};
void pf_entry_done(struct pf_entry *e);

/* An array element: "host", "*.host", "host:443", "host:8000-8010", "10.0.0.0/8:5432", "[2001:db8::/32]:443",
 * an address, or {"host"|"cidr": …, "ports": 443 | "8000-8010" | […], "allow_private": true, "protocol":
 * "tcp"|"udp", "tls": "verify"|"passthrough"|"terminate", "methods": […], "paths": […],
 * "max_requests_per_hour": N, "max_connections": N, "max_bytes_per_hour": N | "500MB"}. where names the place
 * for error texts. */
int pf_entry_parse(const cJSON *j, const char *where, struct pf_entry *e, struct pf_err *err);
int pf_entry_parse_text(const char *s, const char *where, struct pf_entry *e, struct pf_err *err);

/* "10.0.0.0/8" or one address. Host bits must be zero. */
int pf_cidr_parse(const char *s, const char *where, struct pf_cidr *c, struct pf_err *err);

/* Lower-case a host name and strip its trailing dot. false: not a host name (bytes other than letters, digits
 * and hyphens, an empty or overlong label, too long, empty). */
bool pf_name_normal(const char *in, size_t len, char out[PF_NAME_MAX]);

bool pf_ports_have(const struct pf_ports *ports, size_t n, uint16_t port);

#endif
