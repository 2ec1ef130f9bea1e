/* What the files that read config.json share (spec.c, spec_mount.c, spec_linux.c, spec_process.c). */
#ifndef PF_SANDBOX_SPEC_INTERNAL_H
#define PF_SANDBOX_SPEC_INTERNAL_H

#include <stddef.h>

#include "sandbox/spec.h"

/* "where: text", PF_ERR_INVALID; -1. */
int pf_spec_invalid(struct pf_err *err, const char *where, const char *text);

/* One entry of mounts. *m is zero before; what a failing one allocated goes with the rest. */
int pf_spec_mount(const cJSON *j, size_t index, struct pf_mount *m, struct pf_err *err);
void pf_spec_mount_done(struct pf_mount *m);
/* "rslave" → MS_SLAVE | MS_REC; 0 for any other word. */
unsigned long pf_spec_propagation(const char *word);

/* An array of id mappings at obj[key] (none: *n stays 0). */
int pf_spec_maps(const cJSON *obj, const char *where, const char *key, struct pf_id_map **out, size_t *n,
	struct pf_err *err);

/* The object linux. */
int pf_spec_linux(const cJSON *linux_, struct pf_spec *spec, struct pf_err *err);
void pf_spec_linux_done(struct pf_spec *spec);

/* A value and its name, in tables that end with a NULL name. */
struct pf_spec_word {
	const char *name;
	uint64_t value;
};
/* The word's value into *out; PF_ERR_INVALID naming where and the nearest known word when there is none. */
int pf_spec_word(const struct pf_spec_word *words, const char *where, const char *word, uint64_t *out,
	struct pf_err *err);
/* The values of an array of words at obj[key], or'ed together. */
int pf_spec_flags(const cJSON *obj, const char *where, const char *key, const struct pf_spec_word *words,
	uint64_t *out, struct pf_err *err);

/* "0-3,7" → bits of set (of n longs), PF_ERR_INVALID naming where. */
int pf_spec_cpu_list(
	const char *where, const char *text, unsigned long *set, size_t n_longs, struct pf_err *err);

#endif
