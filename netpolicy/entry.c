#include "netpolicy/entry.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "netpolicy/suffix.h"

void pf_entry_done(struct pf_entry *e)
{
	free(e->ports);
	pf_scope_done(&e->scope);
	*e = (struct pf_entry){0};
}

bool pf_ports_have(const struct pf_ports *ports, size_t n, uint16_t port)
{
	if (n == 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (port >= ports[i].lo && port <= ports[i].hi)
			return true;
	return false;
}

bool pf_name_normal(const char *in, size_t len, char out[PF_NAME_MAX])
{
	size_t label = 0;

	if (len && in[len - 1] == '.')
		len--;
	if (len == 0 || len >= PF_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = in[i];
		if (c == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else {
			if (c >= 'A' && c <= 'Z')
				c = (char)(c - 'A' + 'a');
			if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
				return false;
			if (++label > 63)
				return false;
		}
		out[i] = c;
	}
	if (label == 0)
		return false;
	out[len] = '\0';
	return true;
}

static int parse_ports_text(const char *s, const char *where, struct pf_entry *e, struct pf_err *err)
{
	const char *dash = strchr(s, '-');
	int64_t lo, hi;

	PF_FREE char *first = dash ? strndup(s, (size_t)(dash - s)) : strdup(s);
	if (!first)
		return pf_fail(err, ENOMEM, "%s", where);
	if (pf_parse_int("port", first, 1, 65535, &lo, err) < 0)
		return pf_wrap(err, "%s", where);
	hi = lo;
	if (dash && pf_parse_int("port", dash + 1, 1, 65535, &hi, err) < 0)
		return pf_wrap(err, "%s", where);
	if (hi < lo)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s: port range '%s' ends before it begins", where, s);
	struct pf_ports *more = reallocarray(e->ports, e->n_ports + 1, sizeof(*more));
	if (!more)
		return pf_fail(err, ENOMEM, "%s", where);
	e->ports = more;
	e->ports[e->n_ports++] = (struct pf_ports){(uint16_t)lo, (uint16_t)hi};
	return 0;
}

int pf_cidr_parse(const char *s, const char *where, struct pf_cidr *c, struct pf_err *err)
{
	char text[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(s, '/');
	size_t len = slash ? (size_t)(slash - s) : strlen(s);
	int64_t prefix;

	*c = (struct pf_cidr){0};
	if (len >= sizeof(text))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: '%s' is no network", where, s);
	memcpy(text, s, len);
	text[len] = '\0';
	if (inet_pton(AF_INET, text, c->addr) == 1)
		c->family = AF_INET;
	else if (inet_pton(AF_INET6, text, c->addr) == 1)
		c->family = AF_INET6;
	else
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' is no network; write 10.0.0.0/8, 10.0.0.0/8:5432 or [2001:db8::/32]:443",
			where, s);
	int max = c->family == AF_INET ? 32 : 128;
	prefix = max;
	if (slash && pf_parse_int("prefix length", slash + 1, 0, max, &prefix, err) < 0)
		return pf_wrap(err, "%s: '%s'", where, s);
	c->prefix = (uint8_t)prefix;

	struct pf_cidr net = *c;
	for (unsigned int bit = c->prefix; bit < (unsigned int)max; bit++)
		net.addr[bit / 8] &= (uint8_t) ~(0x80U >> (bit % 8));
	if (memcmp(net.addr, c->addr, sizeof(net.addr)) != 0) {
		inet_ntop(c->family, net.addr, text, sizeof(text));
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' has bits beyond its prefix; the network is %s/%d", where, s, text,
			c->prefix);
	}
	if (c->family == AF_INET6 && memcmp(c->addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: write '%s' as an IPv4 network", where, s);
	return 0;
}

static int check_labels(const char *s, const char *where, const struct pf_entry *e, struct pf_err *err)
{
	bool digits = true;

	for (const char *p = e->host, *end; p; p = end ? end + 1 : NULL) {
		end = strchr(p, '.');
		size_t len = end ? (size_t)(end - p) : strlen(p);
		if (p[0] == '-' || p[len - 1] == '-')
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: '%s': a label may not begin or end with a hyphen", where, s);
	}
	const char *last = strrchr(e->host, '.');
	last = last ? last + 1 : e->host;
	if (last[0] == '0' && last[1] == 'x')
		digits = strspn(last + 2, "0123456789abcdef") == strlen(last + 2);
	else
		digits = strspn(last, "0123456789") == strlen(last);
	if (digits)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' looks like an address but is none; write a.b.c.d in plain decimal", where,
			s);
	if (strcmp(last, "localhost") == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' is the sandbox itself and needs no entry; for the host's loopback allow "
			"127.0.0.1 with allow_private",
			where, s);
	return 0;
}

static int parse_host(const char *s, const char *where, struct pf_entry *e, struct pf_err *err)
{
	PF_FREE char *ascii = NULL;
	const char *name = s;

	for (const char *p = s; *p && !ascii; p++)
		if ((unsigned char)*p >= 0x80) {
			bool wildcard = s[0] == '*' && s[1] == '.';
			PF_FREE char *converted = pf_name_to_ascii(wildcard ? s + 2 : s, err);
			if (!converted)
				return pf_wrap(err, "%s", where);
			ascii = pf_asprintf("%s%s", wildcard ? "*." : "", converted);
		}
	if (ascii)
		name = s = ascii;
	if (s[0] == '*' && s[1] == '.') {
		e->wildcard = true;
		name += 2;
	}
	if (strchr(name, '*'))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s': '*' may only stand for the first labels, as in *.example.com%s", where, s,
			strcmp(s, "*") == 0 ? " (for every name: type 'unrestricted')" : "");
	if (!pf_name_normal(name, strlen(name), e->host))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' is no host name (letters, digits, hyphens, dots; labels of 1 to 63)", where,
			s);
	if (check_labels(s, where, e, err) < 0)
		return -1;
	if (e->wildcard && pf_is_public_suffix(e->host))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' covers a whole public suffix; name the domain below it", where, s);
	return 0;
}

static int parse_target(const char *s, const char *where, struct pf_entry *e, struct pf_err *err)
{
	uint8_t addr[16];

	if (strchr(s, '/') || inet_pton(AF_INET, s, addr) == 1 || inet_pton(AF_INET6, s, addr) == 1) {
		e->is_cidr = true;
		return pf_cidr_parse(s, where, &e->cidr, err);
	}
	return parse_host(s, where, e, err);
}

int pf_entry_parse_text(const char *s, const char *where, struct pf_entry *e, struct pf_err *err)
{
	const char *ports = NULL, *colon = strchr(s, ':');
	PF_FREE char *target = NULL;

	if (strstr(s, "://"))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%s' is a URL; write the host, or host:port, alone", where, s);
	if (s[0] == '[') {
		const char *end = strchr(s, ']');
		if (!end || (end[1] && end[1] != ':'))
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: '%s': expected [address]:port or [network/prefix]:port", where, s);
		target = strndup(s + 1, (size_t)(end - s - 1));
		if (end[1])
			ports = end + 2;
	} else if (colon && !strchr(colon + 1, ':')) {
		target = strndup(s, (size_t)(colon - s));
		ports = colon + 1;
	} else {
		target = strdup(s);
	}
	if (!target)
		return pf_fail(err, ENOMEM, "%s", where);
	if (parse_target(target, where, e, err) < 0)
		return -1;
	return ports ? parse_ports_text(ports, where, e, err) : 0;
}

static int parse_ports(const cJSON *j, const char *where, struct pf_entry *e, struct pf_err *err)
{
	char text[16];

	if (cJSON_IsString(j))
		return parse_ports_text(j->valuestring, where, e, err);
	if (!cJSON_IsNumber(j) || j->valuedouble < 1 || j->valuedouble > 65535 ||
		j->valuedouble != (double)(int)j->valuedouble)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: a port is a number from 1 to 65535 or a range \"8000-8010\"", where);
	snprintf(text, sizeof(text), "%d", (int)j->valuedouble);
	return parse_ports_text(text, where, e, err);
}

/* What is asked of requests can only be had where they are seen. */
static int parse_tls(const cJSON *j, const char *where, struct pf_entry *e, struct pf_err *err)
{
	static const char *const words[] = {[PF_TLS_VERIFY] = "verify",
		[PF_TLS_PASSTHROUGH] = "passthrough",
		[PF_TLS_TERMINATE] = "terminate"};
	const char *tls = NULL, *protocol = "tcp";

	if (pf_json_str(j, where, "tls", &tls, err) < 0 ||
		pf_json_str(j, where, "protocol", &protocol, err) < 0 ||
		pf_scope_read(j, where, &e->scope, err) < 0 ||
		pf_json_int(j, where, "max_connections", 1, 65536, &e->max_connections, err) < 0)
		return -1;
	if (!pf_scope_is_empty(&e->scope))
		e->tls = PF_TLS_TERMINATE;
	for (size_t i = 0; tls && i < 3; i++)
		if (strcmp(tls, words[i]) == 0) {
			if (!pf_scope_is_empty(&e->scope) && i != PF_TLS_TERMINATE)
				return pf_fail_kind(err, PF_ERR_INVALID, 0,
					"%s: methods, paths and max_requests_per_hour need \"tls\": "
					"\"terminate\", "
					"not \"%s\"",
					where, tls);
			e->tls = (enum pf_tls)i;
			e->tls_set = true;
		}
	if (tls && !e->tls_set)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.tls: '%.32s' is none of verify, passthrough, terminate", where, tls);
	e->udp = strcmp(protocol, "udp") == 0;
	if (!e->udp && strcmp(protocol, "tcp") != 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.protocol: '%.32s' is neither tcp nor udp",
			where, protocol);
	if (e->udp && (e->tls_set || e->tls != PF_TLS_VERIFY || e->max_connections))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: tls, methods, paths, max_requests_per_hour and max_connections are of TCP, not "
			"of "
			"protocol \"udp\"",
			where);
	if (e->is_cidr && e->tls == PF_TLS_TERMINATE)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: TLS is ended by name; \"terminate\" (and methods, paths, max_requests_per_hour) "
			"needs a host, not a network",
			where);
	return 0;
}

static int parse_bytes(const cJSON *j, const char *where, struct pf_entry *e, struct pf_err *err)
{
	const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, "max_bytes_per_hour");
	PF_FREE char *what = pf_asprintf("%s.max_bytes_per_hour", where);

	if (cJSON_IsString(v))
		return pf_parse_size(what, v->valuestring, &e->max_bytes_per_hour, err);
	return pf_json_int(j, where, "max_bytes_per_hour", 1, (int64_t)1 << 53, &e->max_bytes_per_hour, err) <
			       0
		       ? -1
		       : 0;
}

int pf_entry_parse(const cJSON *j, const char *where, struct pf_entry *e, struct pf_err *err)
{
	static const char *const keys[] = {"host", "cidr", "ports", "allow_private", "protocol", "tls",
		"methods", "paths", "max_requests_per_hour", "max_connections", "max_bytes_per_hour", NULL};
	const char *host = NULL, *cidr = NULL;

	*e = (struct pf_entry){0};
	if (cJSON_IsString(j))
		return pf_entry_parse_text(j->valuestring, where, e, err);
	if (!cJSON_IsObject(j))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: expected a string or an object", where);
	if (pf_json_known(j, where, keys, err) < 0 || pf_json_str(j, where, "host", &host, err) < 0 ||
		pf_json_str(j, where, "cidr", &cidr, err) < 0 ||
		pf_json_bool(j, where, "allow_private", &e->allow_private, err) < 0)
		return -1;
	if (!host == !cidr)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: needs either \"host\" or \"cidr\"", where);
	if (cidr) {
		e->is_cidr = true;
		if (pf_cidr_parse(cidr, where, &e->cidr, err) < 0)
			return -1;
	} else if (parse_target(host, where, e, err) < 0) {
		return -1;
	}
	if (parse_tls(j, where, e, err) < 0 || parse_bytes(j, where, e, err) < 0)
		return -1;
	const cJSON *ports = cJSON_GetObjectItemCaseSensitive(j, "ports");
	if ((!ports || cJSON_IsNull(ports)) && e->udp)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.ports: is missing; with protocol \"udp\" it says which datagrams leave at all",
			where);
	if (!ports || cJSON_IsNull(ports))
		return 0;
	if (!cJSON_IsArray(ports))
		return parse_ports(ports, where, e, err);
	if (!ports->child)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s.ports: is empty; leave it out for all ports", where);
	for (const cJSON *p = ports->child; p; p = p->next)
		if (parse_ports(p, where, e, err) < 0)
			return -1;
	return 0;
}
