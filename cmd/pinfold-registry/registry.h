/* pinfold-registry: images and checkpoints to and from OCI registries, over HTTPS by libcurl.
 *
 * Source of the protocol: OCI distribution-spec, and docker's token authentication for registries. What a
 * registry sends is believed only after it has been compared with a digest that was known before. */
#ifndef PF_CMD_PINFOLD_REGISTRY_H
#define PF_CMD_PINFOLD_REGISTRY_H

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"
#include "checkpoint/sha256.h"

/* "registry.example.com:5000/team/repo:tag" or "…@sha256:…". */
struct reg_ref {
	char *host; /* with its port */
	char *repo;
	char *tag;    /* NULL with a digest */
	char *digest; /* NULL with a tag; both absent: "latest" */
};
int reg_ref_parse(const char *text, struct reg_ref *out, struct pf_err *err);
void reg_ref_done(struct reg_ref *r);

struct reg_auth {
	char *user, *password; /* NULL: nobody */
};
/* What the user's own files say for host/repo ($REGISTRY_AUTH_FILE, containers' auth.json, docker's
 * config.json). Nothing found is no error; a file that is no JSON is. */
int reg_auth_find(const struct reg_ref *ref, struct reg_auth *out, struct pf_err *err);

/* A connection to one repository. */
struct reg {
	CURL *curl;
	struct reg_ref ref;
	struct reg_auth auth;
	char *base;  /* "https://host/v2/repo" */
	char *token; /* of the registry's token service; NULL: none yet */
	bool basic;  /* the registry wants the password itself */
	bool asking; /* a token is being asked for */
	const char *ca, *mount_from;
	bool plain_http, push;
	/* Progress: bytes of all blobs, done so far. */
	bool progress;
	int64_t total, done, begin_us, shown_us;
};
int reg_open(struct reg *r, const char *ref, struct pf_err *err);
void reg_close(struct reg *r);
/* Say how far it is, on a terminal, ten times a second. */
void reg_progress(struct reg *r, int64_t more, bool last);

/* One request. Retried with growing pauses on 408, 429, 5xx and broken connections, where that is safe
 * (retry); a 401 is answered with a token or password once. */
struct reg_request {
	const char *method, *url;
	const char *const *headers; /* NULL-terminated; may be NULL */
	const char *body;           /* sent; or: */
	int fd;                     /* bytes [offset, offset + length) of it, with body NULL; -1: no body */
	int64_t offset, length;
	/* Received: into text up to max bytes, or through sink, which returns false to stop. */
	size_t max;
	bool (*sink)(void *arg, const char *data, size_t len);
	void *arg;
	bool retry;
};
struct reg_stats {
	int64_t blobs, sent, sent_bytes, mounted;
	struct pf_digest digest;
};
struct reg_reply {
	long status;
	char *text; /* malloc'ed, NUL-terminated, when there was no sink */
	size_t len;
	char *location, *range, *digest, *type; /* headers, or NULL */
	bool cut;                               /* the connection broke in the middle of the answer */
};
void reg_reply_done(struct reg_reply *a);
/* -1 when there was no answer at all. An answer of any status is 0. */
int reg_send(struct reg *r, const struct reg_request *q, struct reg_reply *a, struct pf_err *err);
/* The error for an answer that is not what was needed; what says what was tried. */
int reg_refused(const struct reg *r, const struct reg_reply *a, const char *what, struct pf_err *err);

/* What a descriptor says is the blob's size, in bytes; -1: nothing, or nothing that could be. */
int64_t reg_size_of(const cJSON *descriptor);

/* Whether the repository has the blob, or, having been asked to, has taken it from mount_from: 1, 0, -1. */
int reg_has(struct reg *r, const char *digest, struct reg_stats *s, struct pf_err *err);

/* Send what an OCI layout directory holds (one manifest) to ref; the digest in stats is the manifest's. A
 * blob that is not in the layout must be in the repository. */
int reg_push(struct reg *r, int layout_fd, struct reg_stats *s, struct pf_err *err);

/* What the repository (or mount_from) has of the image whose manifest and configuration have these digests:
 * {"layers": [descriptor...], "diff_ids": [...], "config": {...}}, or NULL when that is not all of it. */
cJSON *reg_find_base(
	struct reg *r, const char *manifest_digest, const char *config_digest, struct reg_stats *s);

/* Fetch ref into a new layout below dir_fd, with the entry's name in its index. storefd: a checkpoint store
 * whose layers need not be fetched; -1: none. */
int reg_pull(
	struct reg *r, int dir_fd, int storefd, const char *name, struct reg_stats *s, struct pf_err *err);

#endif
