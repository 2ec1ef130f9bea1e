/* From a policy (numbers, conditions, actions) to a BPF program. Used by the two front ends,
 * seccomp_default.c and seccomp_oci.c; nothing else includes this. */
#ifndef PF_SANDBOX_SECCOMP_GEN_H
#define PF_SANDBOX_SECCOMP_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/err.h"
#include "sandbox/seccomp.h"

/* Numbers of the x32 ABI carry this bit and share AUDIT_ARCH_X86_64. */
#define PF_SC_X32_BIT 0x40000000U

enum pf_sc_op {
	PF_SC_NE,
	PF_SC_LT,
	PF_SC_LE,
	PF_SC_EQ,
	PF_SC_GE,
	PF_SC_GT,
	PF_SC_MASKED_EQ, /* (argument & mask) == value */
	PF_SC_MASKED_NE,
};

/* One condition on one argument, unsigned. */
struct pf_sc_cond {
	uint8_t arg; /* 0..5 */
	uint8_t op;  /* enum pf_sc_op */
	bool low32;  /* the argument has 32 bits: its upper half is not looked at, nor value's and mask's */
	uint64_t value, mask;
};

/* Do action when all conditions hold (none: always). */
struct pf_sc_rule {
	uint32_t arch, nr, action;
	size_t cond0, n_conds; /* in the policy's conds */
	size_t seq;            /* rules of one number are tried in the order they were added */
	bool derived;          /* the OCI front end's own note */
};

/* From number first up to the next segment of the same arch, numbers without a (matching) rule do action. */
struct pf_sc_segment {
	uint32_t arch, first, action;
};

struct pf_sc_policy {
	struct pf_sc_rule *rules;
	size_t n_rules, cap_rules;
	struct pf_sc_cond *conds;
	size_t n_conds, cap_conds;
	struct pf_sc_segment *segs;
	size_t n_segs, cap_segs;
	uint32_t bad_arch; /* action for every arch without a segment */
};

#define PF_SC_POLICY PF_CLEANUP(pf_sc_policy_done)
void pf_sc_policy_done(struct pf_sc_policy *p);

/* An arch's first segment must begin at 0. */
void pf_sc_add_segment(struct pf_sc_policy *p, uint32_t arch, uint32_t first, uint32_t action);
/* The rule that was added; until the next is. */
struct pf_sc_rule *pf_sc_add_rule(struct pf_sc_policy *p, uint32_t arch, uint32_t nr, uint32_t action,
	const struct pf_sc_cond *conds, size_t n_conds);

/* qsort comparison: by arch, number, order of addition. */
int pf_sc_rule_order(const void *a, const void *b);

/* Exactly one action for every (arch, number, arguments): the first rule of that number whose conditions all
 * hold, else the segment's. PF_ERR_INVALID when it takes more than the kernel's 4096 instructions. */
int pf_sc_compile(const struct pf_sc_policy *p, struct pf_bpf *out, struct pf_err *err);

/* The number of a system call, or -1 when arch (a libseccomp token) has none by that name. Names newer than
 * the libseccomp at hand are known too, where their number is the same everywhere. */
int pf_sc_number(uint32_t token, const char *name);

#endif
