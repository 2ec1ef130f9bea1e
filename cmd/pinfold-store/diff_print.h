/* How differences are shown. */
#ifndef PF_CMD_STORE_DIFF_PRINT_H
#define PF_CMD_STORE_DIFF_PRINT_H

#include <stddef.h>

#include "checkpoint/diff.h"

enum pf_diff_style {
	PF_DIFF_UNIFIED, /* texts by lines, as git shows them */
	PF_DIFF_STAT,    /* a line for each name, and the sum */
	PF_DIFF_NAMES,   /* paths alone */
	PF_DIFF_JSON,    /* one object */
};

struct pf_diff_printer;
/* For standard output; colours when that is a terminal and NO_COLOR is not set. context: how many equal lines
 * surround a change. */
struct pf_diff_printer *pf_diff_printer_new(enum pf_diff_style style, size_t context);
void pf_diff_printer_free(struct pf_diff_printer *p);

/* For pf_diff(), ctx being the printer. */
int pf_diff_print(void *ctx, const struct pf_diff_entry *e, struct pf_err *err);
/* What stands at the end. */
void pf_diff_print_sum(struct pf_diff_printer *p, const struct pf_diff_sum *sum);

#endif
