/* Webhooks as Standard Webhooks has them: who sent one, when, and whether it came before. No network here. */
#ifndef PF_WORKER_WEBHOOK_H
#define PF_WORKER_WEBHOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* How far a message's time may be from ours, either way; seconds. */
#define PF_HOOK_TOLERANCE_S 300

/* The keys of which any may have signed: while they are rotated, there are two. */
struct pf_hook_keys {
	struct pf_hook_key {
		unsigned char *bytes;
		size_t len;
	} * v;
	size_t n;
};
/* Keys apart by white space, each base64 with or without "whsec_" before it; '#' begins a comment line. An
 * error never quotes one. */
int pf_hook_keys_parse(const char *text, struct pf_hook_keys *keys, struct pf_err *err);
/* Overwrites them. */
void pf_hook_keys_done(struct pf_hook_keys *keys);

enum pf_hook_verdict {
	PF_HOOK_GENUINE,
	PF_HOOK_MALFORMED, /* a header is missing, or is no such thing */
	PF_HOOK_STALE,     /* its time is too far from now_s */
	PF_HOOK_FORGED,    /* no signature is one of ours */
};
/* The three headers (NULL: not there) and the body as it came. Compares in constant time, every signature
 * with every key. now_s: seconds since 1970. */
enum pf_hook_verdict pf_hook_verify(const struct pf_hook_keys *keys, const char *id, const char *timestamp,
	const char *signatures, const void *body, size_t len, int64_t now_s);

/* The ids of genuine messages of the last minutes. */
#define PF_HOOK_SEEN_MAX 4096
struct pf_hook_seen {
	struct {
		uint64_t hash[2];
		int64_t at_s;
	} v[PF_HOOK_SEEN_MAX];
	size_t next;
};
/* Remembers the id; true if it was there already and could still be verified. */
bool pf_hook_seen(struct pf_hook_seen *seen, const char *id, int64_t now_s);

#endif
