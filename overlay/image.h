/* Images as the box sees them: a reference in, directories to stack out. Light: no archive, hash or
 * compression library, because `pinfold create` comes through here. Making and removing images is import.h.
 *
 * Store layout, below <store>/images:
 *   layers/sha256-<diff id>/fs   one unpacked layer, shared by all images that have it
 *   refs/<name>:<tag>.json       one image record ('/' written as %2F)
 *   host/<version>/fs            the generated skeleton of the host image
 *   tmp/                         whatever is half-made; collected by gc */
#ifndef PF_OVERLAY_IMAGE_H
#define PF_OVERLAY_IMAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

enum pf_image_kind {
	PF_IMAGE_HOST,   /* `host`: the machine's own /usr, read-only, below a synthetic root */
	PF_IMAGE_STORED, /* imported or built */
	PF_IMAGE_DIR,    /* an absolute path: a root directory used where it lies */
};

/* A host path that belongs to the image and is bound over the layers. */
struct pf_image_bind {
	char *source, *target; /* absolute; target is inside the box and exists in the layers */
	bool read_only;
};

/* All members are owned by the struct; pf_image_done() frees them. */
struct pf_image {
	enum pf_image_kind kind;
	char *ref; /* normalised: "host", "python:latest", "/srv/rootfs" */
	/* What a checkpoint remembers: the config digest "sha256:…" (the image id that docker and podman
	 * print; it covers the layers' content and does not change with compression),
	 * "host:<id>:<version>:<machine>" from os-release (so that a security upgrade does not orphan
	 * checkpoints), or "dir:<path>". */
	char *digest;
	char **layers; /* host directories, TOPMOST FIRST, NULL-terminated */
	struct pf_image_bind *binds;
	size_t n_binds;
	char **env;    /* "K=V", NULL-terminated, never NULL */
	char **cmd;    /* entrypoint and command joined, NULL-terminated, never NULL */
	char *workdir; /* absolute, or NULL */
	char *user;    /* as the image says it, or NULL */
};

void pf_image_done(struct pf_image *img);

/* Find what ref names: "host", NAME[:TAG] (tag defaults to latest), a digest, a unique prefix of one (at
 * least six hex digits), or the absolute path of a root directory. For "host" the skeleton is made when it is
 * missing or the machine's /etc has changed. Errors: PF_ERR_NOT_FOUND listing what is there, PF_ERR_CORRUPT
 * when a layer of the image is gone. */
int pf_image_resolve(const char *store, const char *ref, struct pf_image *out, struct pf_err *err);

/* Check and normalise a stored image's name: "python" → "python:latest"; malloc'ed, NULL on error. */
char *pf_image_ref_normalize(const char *ref, struct pf_err *err);
/* The record's file name below refs/ for a normalised reference; malloc'ed. */
char *pf_image_ref_file(const char *ref);

/* "sha256:<64 hex>" exactly. */
bool pf_digest_valid(const char *digest);
/* Directory name below layers/ (and of unpacked checkpoints): "sha256-<hex>"; malloc'ed. */
char *pf_digest_dir(const char *digest);

/* The names of all stored images (normalised, sorted), NULL-terminated; for error texts and `image ls`. */
char **pf_image_names(const char *store, struct pf_err *err);

#endif
