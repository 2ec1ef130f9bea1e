#include "netpolicy/synth.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/str.h"
#include "netpolicy/nft.h"

#define POOL (1U << (32 - PF_SYNTH_PREFIX4))
#define FIRST_BUCKETS 32

int pf_synth_init(struct pf_synth *s, struct pf_err *err)
{
	struct {
		uint32_t salt, step;
		uint8_t prefix[7];
	} r;

	*s = (struct pf_synth){0};
	if (getrandom(&r, sizeof(r), 0) != (ssize_t)sizeof(r))
		return pf_fail(err, errno, "getrandom");
	s->salt = r.salt;
	s->step = r.step | 1; /* odd: a walk over the whole pool */
	s->net6.s6_addr[0] = 0xfd;
	memcpy(&s->net6.s6_addr[1], r.prefix, sizeof(r.prefix));
	return 0;
}

void pf_synth_done(struct pf_synth *s)
{
	for (struct pf_synth_name *e = s->newest, *older; e; e = older) {
		older = e->older;
		free(e->resolved);
		free(e);
	}
	free(s->names);
	free(s->indexes);
	*s = (struct pf_synth){0};
}

/* Salted, because the names below a wildcard are the sandbox's choice. */
static uint32_t hash(const struct pf_synth *s, const char *name)
{
	uint32_t h = 2166136261U ^ s->salt;
	for (; *name; name++)
		h = (h ^ (uint8_t)*name) * 16777619U;
	return h ^ (h >> 15);
}

static void link_hash(struct pf_synth *s, struct pf_synth_name *e)
{
	struct pf_synth_name **n = &s->names[hash(s, e->name) & (s->n_buckets - 1)];
	struct pf_synth_name **i = &s->indexes[e->index & (s->n_buckets - 1)];
	e->by_name = *n;
	*n = e;
	e->by_index = *i;
	*i = e;
}

static void unlink_hash(struct pf_synth *s, struct pf_synth_name *e)
{
	struct pf_synth_name **n = &s->names[hash(s, e->name) & (s->n_buckets - 1)];
	struct pf_synth_name **i = &s->indexes[e->index & (s->n_buckets - 1)];
	while (*n != e)
		n = &(*n)->by_name;
	*n = e->by_name;
	while (*i != e)
		i = &(*i)->by_index;
	*i = e->by_index;
}

static void rehash(struct pf_synth *s)
{
	s->n_buckets = s->n_buckets ? s->n_buckets * 2 : FIRST_BUCKETS;
	free(s->names);
	free(s->indexes);
	s->names = pf_calloc(s->n_buckets, sizeof(void *));
	s->indexes = pf_calloc(s->n_buckets, sizeof(void *));
	for (struct pf_synth_name *e = s->newest; e; e = e->older)
		link_hash(s, e);
}

static void link_newest(struct pf_synth *s, struct pf_synth_name *e)
{
	e->newer = NULL;
	e->older = s->newest;
	if (s->newest)
		s->newest->newer = e;
	else
		s->oldest = e;
	s->newest = e;
}

static void unlink_age(struct pf_synth *s, struct pf_synth_name *e)
{
	if (e->newer)
		e->newer->older = e->older;
	else
		s->newest = e->older;
	if (e->older)
		e->older->newer = e->newer;
	else
		s->oldest = e->newer;
}

static struct pf_synth_name *by_index(const struct pf_synth *s, uint32_t index)
{
	struct pf_synth_name *e = s->n_buckets ? s->indexes[index & (s->n_buckets - 1)] : NULL;
	while (e && e->index != index)
		e = e->by_index;
	return e;
}

static uint32_t fresh_index(struct pf_synth *s)
{
	for (;;) {
		uint32_t index = (s->salt + s->next++ * s->step) % POOL;
		/* Some software takes .0 and .255 for networks and broadcasts. */
		if ((index & 255) != 0 && (index & 255) != 255 && !by_index(s, index))
			return index;
	}
}

static bool evict(struct pf_synth *s)
{
	struct pf_synth_name *e = s->oldest;

	while (e && e->holds)
		e = e->newer;
	if (!e)
		return false;
	unlink_hash(s, e);
	unlink_age(s, e);
	free(e->resolved);
	free(e);
	s->n--;
	return true;
}

struct pf_synth_name *pf_synth_name(struct pf_synth *s, const char *name, bool make)
{
	struct pf_synth_name *e = s->n_buckets ? s->names[hash(s, name) & (s->n_buckets - 1)] : NULL;

	while (e && strcmp(e->name, name) != 0)
		e = e->by_name;
	if (e) {
		unlink_age(s, e);
		link_newest(s, e);
		return e;
	}
	if (!make || (s->n == PF_SYNTH_MAX && !evict(s)))
		return NULL;
	if (s->n >= s->n_buckets)
		rehash(s);
	size_t len = strlen(name) + 1;
	e = pf_calloc(1, sizeof(*e) + len);
	memcpy(e->name, name, len);
	e->index = fresh_index(s);
	link_hash(s, e);
	link_newest(s, e);
	s->n++;
	return e;
}

static bool index_of(const struct pf_synth *s, const struct sockaddr *sa, uint32_t *index)
{
	uint32_t a;

	if (sa->sa_family == AF_INET) {
		a = ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr);
	} else if (sa->sa_family == AF_INET6) {
		const uint8_t *b = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr;
		if (memcmp(b, &s->net6, 8) != 0)
			return false;
		/* Anything but our own form in this /64 belongs to nobody, and is still ours to refuse. */
		memcpy(&a, b + 12, 4);
		a = memcmp(b + 8, "\0\0\0\0", 4) == 0 ? ntohl(a) : PF_SYNTH_NET4;
	} else {
		return false;
	}
	if ((a & ~(POOL - 1)) != PF_SYNTH_NET4) {
		*index = 0;
		return sa->sa_family == AF_INET6;
	}
	*index = a & (POOL - 1);
	return true;
}

bool pf_synth_has(const struct pf_synth *s, const struct sockaddr *sa)
{
	uint32_t index;
	return index_of(s, sa, &index);
}

struct pf_synth_name *pf_synth_addr(struct pf_synth *s, const struct sockaddr *sa)
{
	uint32_t index;
	return index_of(s, sa, &index) ? by_index(s, index) : NULL;
}

struct in_addr pf_synth_addr4(const struct pf_synth_name *e)
{
	return (struct in_addr){htonl(PF_SYNTH_NET4 | e->index)};
}

struct in6_addr pf_synth_addr6(const struct pf_synth *s, const struct pf_synth_name *e)
{
	struct in6_addr a = s->net6;
	uint32_t low = htonl(PF_SYNTH_NET4 | e->index);
	memcpy(&a.s6_addr[12], &low, 4);
	return a;
}
