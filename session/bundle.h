/* A sandbox file and an image → an OCI runtime configuration. From here on a session is a container like any
 * other. */
#ifndef PF_SESSION_BUNDLE_H
#define PF_SESSION_BUNDLE_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "base/err.h"
#include "overlay/image.h"
#include "session/config.h"

struct pf_bundle_params {
	const char *id;
	const struct pf_config *config;
	const struct pf_image *image;
	uint32_t id_base;
	const char *cgroup;    /* path below the cgroup mounts */
	const char *store;     /* the directory whose disk the io limits are for */
	const char *files_dir; /* host directory with resolv.conf, hosts and hostname for /etc */
	/* What the merged bundle of certificates among them is bound over; NULL: there is none. */
	char *const *ca_targets;
};

/* config.json's document; the caller owns it. */
cJSON *pf_bundle_make(const struct pf_bundle_params *p, struct pf_err *err);

/* The environment that every command in the sandbox gets (image's, then the file's), NULL-terminated,
 * malloc'ed. */
char **pf_bundle_env(const struct pf_config *config, const struct pf_image *image);
/* Its working directory. */
const char *pf_bundle_cwd(const struct pf_config *config, const struct pf_image *image);

/* Write what pf_bundle_params.files_dir is to hold. */
int pf_bundle_write_files(int dirfd, const char *hostname, const char *nameserver, struct pf_err *err);
/* The sandbox's host name: the file's, or one made from the id; buf has at least 64 bytes. */
const char *pf_bundle_hostname(const struct pf_config *config, const char *id, char *buf);

/* What should be known of the writable mounts; malloc'ed, NULL: nothing. */
char *pf_bundle_mount_warning(const struct pf_config *config);

#endif
