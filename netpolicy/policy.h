/* What may leave a sandbox: compiled once from the sandbox file's networking object, immutable afterwards. */
#ifndef PF_NETPOLICY_POLICY_H
#define PF_NETPOLICY_POLICY_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/err.h"
#include "netpolicy/addrfilter.h"
#include "netpolicy/entry.h"

enum pf_policy_type { PF_POLICY_NONE, PF_POLICY_LIMITED, PF_POLICY_UNRESTRICTED };

/* One entry of the policy. Owned by the policy; two connections are under the same rule when the pointers are
 * equal. */
struct pf_rule {
	char *text; /* canonical: "*.example.com:443", "10.0.0.0/8" */
	char *host; /* of a wildcard what follows "*."; NULL for a network */
	struct pf_cidr cidr;
	struct pf_ports *ports; /* n_ports 0: every port */
	uint32_t n_ports;
	uint32_t next; /* next rule with the same hash, 0 none, else index + 1 */
	bool wildcard, allow_private, denied;
	bool udp;                   /* this rule is for UDP alone, the others for TCP alone */
	bool tls_set;               /* tls was asked for in so many words */
	uint8_t tls;                /* enum pf_tls */
	uint32_t max_connections;   /* at a time; 0: no limit */
	int64_t max_bytes_per_hour; /* both directions; 0: no limit */
	struct pf_scope *scope;     /* NULL: none */
};

struct pf_policy;

/* Compile. networking NULL or of type "none": nothing leaves. Keys: type, allowed_hosts, denied_hosts,
 * allowed_cidrs, allow_private (bool, or a list of hosts and networks), resolver ("IP[:PORT]" or a list),
 * explain_denied (bool), upstream_ca (certificates, PEM).
 * The result has one reference and revision 0. NULL with err. */
struct pf_policy *pf_policy_compile(const cJSON *networking, struct pf_err *err);
struct pf_policy *pf_policy_ref(const struct pf_policy *p);
void pf_policy_unref(struct pf_policy *p); /* NULL is fine */

/* To be called before the policy is given to a gate. */
void pf_policy_set_revision(struct pf_policy *p, uint64_t revision);
uint64_t pf_policy_revision(const struct pf_policy *p);
enum pf_policy_type pf_policy_type(const struct pf_policy *p);

/* Why something is denied; PF_VERDICT_ALLOW is 0. Names: pf_verdict_reason. */
enum pf_verdict {
	PF_VERDICT_ALLOW = 0,
	PF_VERDICT_NOT_LISTED,  /* no rule */
	PF_VERDICT_DENIED_HOST, /* a rule of denied_hosts */
	PF_VERDICT_PORT,        /* the name or network is allowed, this port is not */
	PF_VERDICT_PROTOCOL,    /* only TCP leaves */
	PF_VERDICT_SHAPE,       /* below a wildcard, but deeper or longer than a host name is */
	PF_VERDICT_RESOLVER,    /* a public DNS-over-HTTPS service that only a wildcard would admit */
	PF_VERDICT_ADDRESS,     /* a private, loopback, metadata, … address without opt-in */
};
const char *pf_verdict_reason(enum pf_verdict v); /* "not_listed", "port", … */

/* Below a wildcard at most this many labels and bytes: queries must not become a channel. */
#define PF_WILDCARD_LABELS 6
#define PF_WILDCARD_BYTES 128

/* May the sandbox reach name on port over TCP? name must be normal (pf_name_normal). port 0: on any port (the
 * question DNS asks). *rule is the rule that decided, NULL when there is none. */
enum pf_verdict pf_policy_host(
	const struct pf_policy *p, const char *name, uint16_t port, const struct pf_rule **rule);

/* The same over UDP, for which only rules of its own count. */
enum pf_verdict pf_policy_host_udp(
	const struct pf_policy *p, const char *name, uint16_t port, const struct pf_rule **rule);
bool pf_policy_has_udp(const struct pf_policy *p);

/* May the sandbox dial this literal address (with its port)? proto is IPPROTO_TCP or another. */
enum pf_verdict pf_policy_addr(const struct pf_policy *p, const struct sockaddr *sa, int proto,
	const struct pf_own_addrs *own, const struct pf_rule **rule);

/* May the keeper dial sa, to which a name under rule resolved? *class says what kind of address it is. */
enum pf_verdict pf_policy_result(const struct pf_policy *p, const struct pf_rule *rule,
	const struct sockaddr *sa, const struct pf_own_addrs *own, enum pf_addr_class *class);

/* Whether the rule opens private addresses for the network it names, or the policy does for that network. */
bool pf_policy_cidr_private(const struct pf_policy *p, const struct pf_rule *rule);

/* Whether some rule cannot be served without pinfold-tls. */
bool pf_policy_ends_tls(const struct pf_policy *p);
/* Whether names that are not allowed are answered, so that a client can be told what is the matter. */
bool pf_policy_explains(const struct pf_policy *p);
/* PEM of authorities for upstream servers beside the host's; NULL: none. */
const char *pf_policy_upstream_ca(const struct pf_policy *p);

/* What the sandbox's authority may speak for: the names that are allowed now, a wildcard by what follows it;
 * NULL (anything) when everything is allowed, refusals are explained, or there are more than 200. malloc'ed.
 */
char **pf_policy_ca_names(const struct pf_policy *p);

/* All rules, allowed and denied. */
const struct pf_rule *pf_policy_rules(const struct pf_policy *p, size_t *n);
/* The union of the ports of all allowed host rules of the protocol, sorted, merged; malloc'ed, NULL when
 * there are none. */
struct pf_ports *pf_policy_host_ports(const struct pf_policy *p, bool udp, size_t *n);
/* "1.2.3.4:53,[::1]:5353", or NULL for the host's resolver. */
const char *pf_policy_resolver(const struct pf_policy *p);

/* For `policy ID show`. */
cJSON *pf_policy_describe(const struct pf_policy *p);

#endif
