/* Strings: a growing buffer, checks of names, nearest match for error texts. */
#ifndef PF_BASE_STR_H
#define PF_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/cleanup.h"
#include "base/err.h"

/* A growing byte buffer, always NUL-terminated once something was added. Out of memory aborts: nothing here
 * grows by what a sandbox sends. */
struct pf_buf {
	char *data;
	size_t len, cap;
};

#define PF_BUF PF_CLEANUP(pf_buf_done)
void pf_buf_done(struct pf_buf *b);
void pf_buf_add(struct pf_buf *b, const void *data, size_t len);
void pf_buf_str(struct pf_buf *b, const char *s);
void pf_buf_printf(struct pf_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* malloc'ed printf and strdup that abort when memory is out. */
char *pf_asprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
char *pf_strdup(const char *s);
void *pf_calloc(size_t n, size_t size);
/* An array with room for one more than n elements: v, or what it was moved to. *cap: for how many it is; 0
 * and NULL at first. Aborts when there is no memory. */
void *pf_grow(void *v, size_t n, size_t *cap, size_t size);

bool pf_starts_with(const char *s, const char *prefix);
bool pf_ends_with(const char *s, const char *suffix);

/* Whether a terminal obeys the byte at i: a control character of ASCII, or half of one of those of Latin-1 in
 * UTF-8, U+0080 to U+009F. */
bool pf_is_control(const char *s, size_t len, size_t i);
/* Make of a text that others wrote one line that holds nothing which a terminal would obey; in place. */
void pf_one_line(char *s);
/* Append a name as git shows it: as it is, or, if it holds such characters, '"', '\\' or what is no UTF-8, in
 * "…" with three octal digits for what cannot be shown. prefix is inside of the quotes and plain. */
void pf_quote_name(struct pf_buf *out, const char *prefix, const char *s, size_t len);

/* Whether the bytes are UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool pf_utf8_valid(const char *s, size_t len);

/* A sandbox id, image name or checkpoint name: [a-zA-Z0-9_+-][a-zA-Z0-9_+.-]*, at most 128 bytes, so that it
 * can be one path component and one cgroup name. what ("sandbox id") begins the error text. */
int pf_check_id(const char *what, const char *id, struct pf_err *err);

/* The element of the NULL-terminated list that is closest to word (edit distance at most a third of the
 * length), or NULL: for "unknown key 'memroy': did you mean 'memory'?". */
const char *pf_nearest(const char *word, const char *const *list);

#endif
