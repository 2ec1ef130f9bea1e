/* Bringing images into the store, listing them, taking them out. Heavy part: only pinfold-store.
 *
 * Results are cJSON objects that the caller deletes; NULL means err is set. */
#ifndef PF_OVERLAY_IMPORT_H
#define PF_OVERLAY_IMPORT_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct pf_import_opts {
	const char *name;  /* NAME[:TAG], or NULL to take it from the source */
	int64_t max_bytes; /* per layer; 0 is pf_unpack_layer's default */
	/* Called now and then: what is worked on, bytes done, bytes in all (0: unknown). May be NULL. */
	void (*progress)(void *arg, const char *what, int64_t done, int64_t total);
	void *progress_arg;
};

/* source: oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE, dir:ROOTFS, tar:FILE, or a path without
 * a prefix, told apart by what is there; "-" is an archive of any kind on standard input. Everything is
 * verified against its digests while it is unpacked, and an image comes into being as a whole or not at all.
 * Any number of imports may run at once. The result is the image's record, with "skipped_devices" when device
 * nodes were left out. */
cJSON *pf_image_import(
	const char *store, const char *source, const struct pf_import_opts *opts, struct pf_err *err);

/* Array of records (without the config's text), sorted by name. */
cJSON *pf_image_list(const char *store, struct pf_err *err);
/* One record with sizes per layer; for "host" what the host image is. */
cJSON *pf_image_inspect(const char *store, const char *ref, struct pf_err *err);

/* Who needs an image: returns a malloc'ed description ("sandbox x1") of somebody who does, or NULL. digests
 * is NULL-terminated: what the image is called by (digest, manifest digest). */
typedef char *(*pf_image_user)(void *arg, const char *const *digests);
/* Of sandboxes: looks for the digests in the JSON files of every one, below root (/run/pinfold:
 * <id>/state.json) and store (/var/lib/pinfold: sandboxes/<id>/). Whoever cannot be asked is somebody who may
 * need it. */
char *pf_image_user_sandbox(const char *root, const char *store, const char *const *digests);

/* Remove the name ref, and layers that no other image has. PF_ERR_STATE when it is the last name of an image
 * that somebody uses. Result: {"removed": name, "layers": n, "bytes": n}. */
cJSON *pf_image_remove(const char *store, const char *ref, pf_image_user user, void *arg, struct pf_err *err);

/* Collect what interrupted work left: temporary directories without an owner, layers of no image, skeletons
 * of the host image that no sandbox stands on. Result: counts. */
cJSON *pf_image_gc(const char *store, struct pf_err *err);

/* Write an image as an OCI layout: dest is "oci:DIR[:TAG]" (made if missing, else added to). Layers are
 * packed anew, tar+zstd, deterministically; when that gives other diff ids than the image has (it was
 * imported from a foreign archive), the exported image has its own digest, told in the result: {"digest",
 * "same"}. */
cJSON *pf_image_export(const char *store, const char *ref, const char *dest,
	const struct pf_import_opts *opts, struct pf_err *err);

/* Build an image from DIR/recipe.json by mmdebstrap and this machine's own apt sources. Same recipe and same
 * packages give the same digest. */
cJSON *pf_image_build(
	const char *store, const char *dir, const struct pf_import_opts *opts, struct pf_err *err);

/* The image base with packages (packages.h) installed, as one more layer: each list by its manager, which
 * must be in the image, in a container of the program pinfold's with this machine's network and the machine's
 * own configuration of the managers, of which nothing stays in the image. It is called by what went into it
 * (pf_packages_ref) and, where opts says so, by that name; one that is there already is not made again. The
 * result is its record with "cached": bool. */
cJSON *pf_image_packages(const char *store, const char *pinfold, const char *base, const cJSON *packages,
	const struct pf_import_opts *opts, struct pf_err *err);

#endif
