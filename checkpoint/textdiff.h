/* Two texts as a unified diff, the form that people review and `patch -p1` and `git apply` take. */
#ifndef PF_CHECKPOINT_TEXTDIFF_H
#define PF_CHECKPOINT_TEXTDIFF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

/* What is longer is not compared by lines: the working memory is up to 20 bytes for each byte of a text that
 * is nothing but line ends. */
#define PF_TEXTDIFF_MAX ((size_t)4 << 20)

/* Whether these are not the bytes of a text: a NUL among the first 8000, as git decides it. */
bool pf_textdiff_binary(const char *data, size_t len);

/* Call fn for every line of the hunks, without its line end: mark is '@' (a hunk's header, "@@ -1,3 +1,4
 * @@"), ' ' (the same on both sides), '-' (of a), '+' (of b) or '\\' (the line before has no end). context:
 * how many equal lines surround a change. fn may return -1 to stop. Equal texts give no line. A text longer
 * than PF_TEXTDIFF_MAX is PF_ERR_UNSUPPORTED. */
struct pf_textdiff_sink {
	int (*fn)(void *ctx, char mark, const char *text, size_t len, struct pf_err *err);
	void *ctx;
};
int pf_textdiff(const char *a, size_t a_len, const char *b, size_t b_len, size_t context,
	const struct pf_textdiff_sink *sink, struct pf_err *err);

#endif
