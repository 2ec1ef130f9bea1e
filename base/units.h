/* Sizes, durations, cpu counts, user ids as people write them, refused when they are not exactly that. */
#ifndef PF_BASE_UNITS_H
#define PF_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* "512MB", "512M", "512MiB", "1.5g", "4096": bytes, binary multiples (docker's meaning). 0 < n < 2^53, so
 * that JSON keeps it. */
int pf_parse_size(const char *what, const char *s, int64_t *bytes, struct pf_err *err);
/* "300", "300s", "5m", "1h30m", "250ms", "30d": milliseconds, > 0, at most ten years. */
int pf_parse_duration(const char *what, const char *s, int64_t *ms, struct pf_err *err);
/* "1", "0.5", "2.25": thousandths of a cpu, at least 10 (0.01), at most 4096000. */
int pf_parse_cpus(const char *what, const char *s, int64_t *millicpus, struct pf_err *err);
/* Plain decimal in [min, max]; no sign, no blanks, no 0x. */
int pf_parse_int(const char *what, const char *s, int64_t min, int64_t max, int64_t *out, struct pf_err *err);
/* "UID" or "UID:GID", each in 0..4294967294, decimal digits only. *gid is untouched when it is not given. */
int pf_parse_user_ids(const char *what, const char *s, uint32_t *uid, uint32_t *gid, struct pf_err *err);

/* "12.3 MB" for people (SI), into a caller's buffer of at least 16 bytes; returns buf. */
char *pf_format_size(int64_t bytes, char *buf, size_t len);
/* "1.24 ms", "3.2 s". us is in microseconds. */
char *pf_format_us(int64_t us, char *buf, size_t len);

#endif
