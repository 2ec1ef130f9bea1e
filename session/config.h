/* The sandbox file: one JSON document that says what a session's sandbox is (docs/sandbox-file.md).
 *
 * Four spellings of the same settings are understood (canonical, enterprise, SDK, environment); parsing turns
 * every one into this one typed form, and pf_config_to_json() writes the canonical spelling of it. What is
 * not understood is refused with its place in the document. Parsing looks at the document alone: whether an
 * image exists, a user is known or a limit can be set on this host is for the caller. */
#ifndef PF_SESSION_CONFIG_H
#define PF_SESSION_CONFIG_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define PF_CONFIG_DEFAULT_PIDS 2048
#define PF_CONFIG_DEFAULT_TMP ((int64_t)1 << 30)

/* Who commands run as. Each half is a number or a name of the image's own /etc/passwd and /etc/group. */
struct pf_config_user {
	char *text;       /* as given, "1000:agent"; NULL: not given */
	char *name;       /* NULL: uid is the number */
	char *group_name; /* NULL: gid is the number */
	int64_t uid;      /* -1: see name */
	int64_t gid;      /* -1: see group_name; when that is NULL too, the user's own group */
};

struct pf_config_resources {
	int64_t millicpus;   /* thousandths of a cpu; -1 no limit */
	int64_t cpu_weight;  /* 1..10000; -1 the kernel's 100 */
	char *cpuset;        /* "0-3,5"; NULL any */
	int64_t memory;      /* bytes; -1 no limit */
	int64_t memory_swap; /* bytes of swap on top of memory; 0 (the default) none */
	int64_t pids;        /* processes and threads; PF_CONFIG_DEFAULT_PIDS when not given */
	/* On the device that holds the workspace; -1 no limit. */
	int64_t read_bps, write_bps, read_iops, write_iops;
};

enum pf_config_access {
	PF_ACCESS_FULL,      /* the whole root is writable (in the workspace) */
	PF_ACCESS_READ_ONLY, /* nothing is, but what writable_paths and mounts say */
	PF_ACCESS_TEMP_ONLY, /* nothing is but /tmp, a tmpfs that no checkpoint keeps, and those */
};

struct pf_config_mount {
	char *source, *target; /* clean, absolute */
	bool read_only;
};

struct pf_config_filesystem {
	enum pf_config_access access; /* the rule for "/"; the deepest listed path above a file decides */
	char **writable_paths;        /* clean, absolute, sorted, NULL-terminated, never NULL */
	char **read_only_paths;       /* likewise */
	struct pf_config_mount *mounts;
	size_t n_mounts;
	int64_t size;     /* bytes of the workspace; -1 no limit of its own */
	int64_t tmp_size; /* /tmp is a tmpfs of that many bytes; -1: /tmp is part of the workspace */
};

enum pf_config_manager { PF_APT, PF_CARGO, PF_GEM, PF_GO, PF_NPM, PF_PIP, PF_N_MANAGERS };

struct pf_config_credential {
	char *name, *type;             /* type: "api_key", "database", … as written */
	char *scope;                   /* NULL: not given */
	int64_t validity_ms;           /* -1: not given */
	int64_t max_requests_per_hour; /* -1: not given */
	char **databases;              /* never NULL */
};

struct pf_config_limits {
	int64_t max_runtime_ms;  /* life of the sandbox; -1 none */
	int64_t idle_ms;         /* without a running command; -1 none */
	int64_t exec_timeout_ms; /* one command; -1 none */
};

/* checkpoint.on: what makes a checkpoint by itself. */
enum pf_config_on {
	PF_ON_EXIT,    /* its command has ended by itself */
	PF_ON_IDLE,    /* limits.idle */
	PF_ON_LIMIT,   /* limits.max_runtime, or a kill for memory */
	PF_ON_SIGNAL,  /* its keeper was told to end */
	PF_ON_DESTROY, /* before `pinfold destroy` */
	PF_N_ON
};

struct pf_config_checkpoint {
	bool on[PF_N_ON];
	int64_t every_ms;   /* while it runs; -1: not by time */
	int64_t keep;       /* newest automatic ones kept per sandbox; -1 all */
	char **pre, **post; /* commands around the freeze; empty: none; never NULL */
	char **exclude;     /* clean, absolute; never NULL */
};

struct pf_config_label {
	char *key, *value;
};

struct pf_config {
	char *name;    /* what the document calls itself; NULL: nothing */
	char *image;   /* NULL: chosen from runtime, or the default image */
	char *runtime; /* "python3.9"; NULL when image is given */
	bool strict_runtime;
	char **command; /* empty: the sandbox only waits for exec */
	char **env;     /* "NAME=value" */
	char *workdir;  /* clean, absolute; NULL: the image's, else /workspace */
	char *hostname; /* NULL: from the sandbox id */
	struct pf_config_user user;
	struct pf_config_resources resources;
	struct pf_config_filesystem filesystem;
	/* What the policy compiler takes: type (always), allowed_hosts, denied_hosts, allowed_cidrs,
	 * allow_private, resolver. {"type":"none"} when the document says nothing. Hosts and ranges
	 * themselves are checked where the policy is compiled. */
	cJSON *networking;
	bool allow_package_managers; /* what that opens depends on the image: the caller's to add */
	char **packages[PF_N_MANAGERS];
	bool has_packages;
	struct pf_config_credential *credentials;
	size_t n_credentials;
	cJSON *credentials_raw; /* the object as given, NULL when there is none */
	struct pf_config_limits limits;
	struct pf_config_checkpoint checkpoint;
	struct pf_config_label *labels; /* sorted by key */
	size_t n_labels;
	char **warnings; /* for people, one sentence each; never NULL */
};

/* Read a sandbox file ("-": standard input). On success *out is owned by the caller (pf_config_done); on
 * failure *out is empty and err names file, key and what was expected (kind invalid; not_found for the file).
 */
int pf_config_load(const char *path, struct pf_config *out, struct pf_err *err);

/* The same from a parsed document, which stays the caller's. */
int pf_config_parse(const cJSON *doc, struct pf_config *out, struct pf_err *err);

/* The canonical document of c: parsing it gives c again (warnings apart). Settings that were not given are
 * left out, defaults that were applied are written. The caller deletes it. */
cJSON *pf_config_to_json(const struct pf_config *c);

void pf_config_done(struct pf_config *c);

/* "UID[:GID]", "name[:group]" or a mixture; what begins the error text. Digits mean a number and nothing
 * else: signs, blanks, 0x, empty halves and numbers from 4294967295 up are refused, never taken as root.
 * pf_config_user_done() frees. */
int pf_config_user_parse(const char *what, const char *text, struct pf_config_user *out, struct pf_err *err);
void pf_config_user_done(struct pf_config_user *u);

/* Whether a file at path (clean, absolute) may be written by the deepest rule of fs that covers it. */
bool pf_config_writable(const struct pf_config_filesystem *fs, const char *path);

/* "full", "read_only", "temp_only". */
const char *pf_config_access_name(enum pf_config_access a);
/* "exit", "idle", … */
const char *pf_config_on_name(enum pf_config_on on);
/* "apt", "cargo", … */
const char *pf_config_manager_name(enum pf_config_manager m);
/* {"apt": [...], ...} as overlay/packages.h reads it; to be deleted. */
cJSON *pf_config_packages(const struct pf_config *c);

#endif
