/* Strict reading of JSON objects on top of cJSON: every wrong type, duplicate or unknown key is an error that
 * names its place ("resources.memory") and what was expected. */
#ifndef PF_BASE_JSON_H
#define PF_BASE_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"

#define PF_JSON PF_CLEANUP(pf_json_cleanup)
void pf_json_cleanup(cJSON **j);

/* Parse one whole document of len bytes; text[len] is NUL. Anything after it, nesting deeper than 64, a
 * duplicate key in any object, an escaped NUL or a byte that is not UTF-8 is an error. NULL on error. */
cJSON *pf_json_parse(const char *what, const char *text, size_t len, struct pf_err *err);
/* Read and parse a file (at most 8 MiB). "-" is standard input. */
cJSON *pf_json_load(const char *path, struct pf_err *err);

/* Member look-ups. where is the path of obj for error texts ("" at the top). A member that is absent or null
 * leaves *out as it is and returns 0; a wrong type returns -1; found returns 1. Strings stay owned by obj. A
 * number beyond a max of INT64_MAX becomes that (up to 2^64). */
int pf_json_str(const cJSON *obj, const char *where, const char *key, const char **out, struct pf_err *err);
int pf_json_bool(const cJSON *obj, const char *where, const char *key, bool *out, struct pf_err *err);
int pf_json_int(const cJSON *obj, const char *where, const char *key, int64_t min, int64_t max, int64_t *out,
	struct pf_err *err);
int pf_json_obj(const cJSON *obj, const char *where, const char *key, const cJSON **out, struct pf_err *err);
int pf_json_arr(const cJSON *obj, const char *where, const char *key, const cJSON **out, struct pf_err *err);
/* An array of strings as a malloc'ed, NULL-terminated list of copies. */
int pf_json_strv(const cJSON *obj, const char *where, const char *key, char ***out, struct pf_err *err);

/* obj's keys must all be in the NULL-terminated list, else an error with the nearest known key. */
int pf_json_known(const cJSON *obj, const char *where, const char *const *keys, struct pf_err *err);

/* The error for a key that is not in the list; returns -1. */
int pf_json_unknown(const char *where, const char *key, const char *const *keys, struct pf_err *err);

void pf_strv_free(char **v);
size_t pf_strv_len(char *const *v);

/* Compact text, malloc'ed. */
char *pf_json_text(const cJSON *j);
/* cJSON keeps numbers as doubles; 64-bit counters are added exactly with this. */
void pf_json_add_int(cJSON *obj, const char *key, int64_t v);

/* The same without cJSON, for lines that are written often: "s", quoted, appended to out; what is not UTF-8
 * becomes U+FFFD. */
struct pf_buf;
void pf_json_quoted(struct pf_buf *out, const char *s);

/* Output of a program as a string: bytes that are not UTF-8, and NUL, become U+FFFD, and a member
 * KEY_not_utf8 says so. */
void pf_json_add_bytes(cJSON *obj, const char *key, const char *data, size_t len);

#endif
