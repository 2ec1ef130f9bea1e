/* Inside of the sandbox file's parser: where settings stand, and readers of single values. */
#ifndef PF_SESSION_CONFIG_READ_H
#define PF_SESSION_CONFIG_READ_H

#include "base/json.h"
#include "session/config.h"

/* Settings that have more than one spelling. */
enum pf_cfg_setting {
	PF_SET_CPUS,
	PF_SET_MEMORY,
	PF_SET_MAX_RUNTIME,
	PF_SET_EXEC_TIMEOUT,
	PF_SET_NETWORKING,
	PF_SET_SIZE,
	PF_SET_WRITABLE,
	PF_SET_READ_ONLY,
	PF_SET_ACCESS,
	PF_SET_PACKAGES,
};

enum pf_cfg_unit {
	PF_UNIT_ANY,     /* a string with a unit, or a number of bytes or seconds */
	PF_UNIT_MB,      /* a number of mebibytes, as the key's name says */
	PF_UNIT_SECONDS, /* a number of seconds, as the key's name says */
	PF_UNIT_HOSTS,   /* an array of host names in place of a networking object */
};

/* A value in the document: obj[key], where obj stands at the dotted path where. */
struct pf_cfg_at {
	const cJSON *obj;
	const char *where, *key;
	const cJSON *node; /* NULL: absent or null */
	enum pf_cfg_unit unit;
};

/* Every object of the document is an object and holds known keys only. */
int pf_cfg_check_shape(const cJSON *doc, struct pf_err *err);

/* The object at the dotted path, NULL when it is absent. pf_cfg_check_shape() has passed. */
const cJSON *pf_cfg_object(const cJSON *doc, const char *where);
/* One value by its canonical place. */
struct pf_cfg_at pf_cfg_at(const cJSON *doc, const char *where, const char *key);
/* One value of an object that the reader holds itself. */
struct pf_cfg_at pf_cfg_in(const cJSON *obj, const char *where, const char *key);
/* One value under whichever spelling it was given; two spellings of it at once are an error naming both. */
int pf_cfg_find(const cJSON *doc, enum pf_cfg_setting setting, struct pf_cfg_at *out, struct pf_err *err);

/* "resources.memory" into buf; returns buf. */
#define PF_CFG_PATH_MAX 192
const char *pf_cfg_path(const struct pf_cfg_at *at, char buf[PF_CFG_PATH_MAX]);
/* "PATH: text" with kind invalid; returns -1. */
int pf_cfg_bad(const struct pf_cfg_at *at, struct pf_err *err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Readers: an absent value leaves *out as it is. All return 0 or -1. */
int pf_cfg_size(const struct pf_cfg_at *at, int64_t min, int64_t *out, struct pf_err *err);
int pf_cfg_duration(const struct pf_cfg_at *at, int64_t *ms, struct pf_err *err);
int pf_cfg_cpus(const struct pf_cfg_at *at, int64_t *millicpus, struct pf_err *err);
int pf_cfg_int(const struct pf_cfg_at *at, int64_t min, int64_t max, int64_t *out, struct pf_err *err);
int pf_cfg_bool(const struct pf_cfg_at *at, bool *out, struct pf_err *err);
/* A string of 1..max bytes without control characters; *out is replaced by a copy. */
int pf_cfg_text(const struct pf_cfg_at *at, size_t max, char **out, struct pf_err *err);
/* One clean absolute path. */
int pf_cfg_one_path(const struct pf_cfg_at *at, char **out, struct pf_err *err);
/* Clean absolute paths, sorted, each once. */
int pf_cfg_paths(const struct pf_cfg_at *at, char ***out, struct pf_err *err);
/* Strings, in the order given. */
int pf_cfg_strings(const struct pf_cfg_at *at, char ***out, struct pf_err *err);

/* Add a formatted sentence to a NULL-terminated list. */
void pf_cfg_append(char ***list, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char **pf_cfg_empty_list(void);

/* session/config_net.c: networking and credentials. */
int pf_cfg_networking(const cJSON *doc, struct pf_config *c, struct pf_err *err);
int pf_cfg_credentials(const cJSON *doc, struct pf_config *c, struct pf_err *err);
/* session/config_fs.c: filesystem and all that depends on it. */
int pf_cfg_filesystem(const cJSON *doc, struct pf_config *c, struct pf_err *err);

#endif
