/* Seccomp program generator: theory of operation.
 *
 * A policy maps (architecture, number, arguments) to an action. libseccomp's export is a chain that compares
 * the number with every listed call in turn; both loading it (the kernel verifies, translates and then runs
 * it once per system call to find out which are always allowed) and passing it cost by its length. Here
 * numbers become intervals:
 *
 *  1. The rules of one number, in order, are its *target*. Equal targets are interned, so that neighbours
 * with the same fate merge into one interval and equal argument checks are emitted once.
 *  2. Per architecture, a search tree over the intervals: JGE in the middle, JEQ for a lone number inside an
 *     interval of another fate.
 *  3. Leaves are a RET, or a block that tests arguments rule by rule. A failed test goes on with the next
 * rule, past its load when the accumulator already holds what the rule wants to look at.
 *
 * BPF jumps only forward, and conditional ones at most 255 instructions. So the program is made back to
 * front: whatever an instruction jumps to is already there and has a place, counted from the end, that never
 * moves. A target too far away gets a stepping stone: a second RET, or an unconditional jump, which has 32
 * bits.
 *
 * Numbers compare as unsigned: -1 (a call that a tracer skipped) is the last of them. */
#include "sandbox/seccomp_gen.h"

#include <endian.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define NR_OFF ((uint32_t)offsetof(struct seccomp_data, nr))
#define ARCH_OFF ((uint32_t)offsetof(struct seccomp_data, arch))

/* What one number (or a run of them) leads to. */
struct target {
	const struct pf_sc_rule *rules; /* n of them, consecutive; NULL for a bare action */
	size_t n;
	uint32_t action; /* when no rule matches */
};

/* Numbers from first up to the next interval's first lead to targets[target]. */
struct interval {
	uint32_t first;
	size_t target;
};

/* A place in the program, counted from its end. */
typedef size_t ref;
#define NO_REF ((ref)-1)

/* What the accumulator holds: one half of an argument, masked. off == 0 is "unknown" (the number lives there,
 * and argument code never looks at it). */
struct acc {
	uint32_t off, mask;
};

/* A way into a test: behind its load, for whoever already holds what it wants to look at, or with it. The
 * load is only emitted when somebody needs it. */
struct entry {
	ref loaded, full;
	struct acc held;
};

struct gen {
	const struct pf_sc_policy *policy;
	struct sock_filter code[BPF_MAXINSNS]; /* reversed: code[0] is the program's last instruction */
	size_t n;
	bool overflow;
	struct target *targets;
	size_t n_targets;
	ref *places; /* per target, NO_REF until emitted */
};

/* --- the policy ------------------------------------------------------------------------------------------
 */

static void *grown(void *array, size_t n, size_t *cap, size_t size)
{
	void *bigger;

	if (n < *cap)
		return array;
	bigger = pf_calloc(*cap ? *cap * 2 : 64, size);
	if (n > 0)
		memcpy(bigger, array, n * size);
	free(array);
	*cap = *cap ? *cap * 2 : 64;
	return bigger;
}

void pf_sc_policy_done(struct pf_sc_policy *p)
{
	free(p->rules);
	free(p->conds);
	free(p->segs);
	*p = (struct pf_sc_policy){0};
}

void pf_sc_add_segment(struct pf_sc_policy *p, uint32_t arch, uint32_t first, uint32_t action)
{
	p->segs = grown(p->segs, p->n_segs, &p->cap_segs, sizeof(*p->segs));
	p->segs[p->n_segs++] = (struct pf_sc_segment){.arch = arch, .first = first, .action = action};
}

struct pf_sc_rule *pf_sc_add_rule(struct pf_sc_policy *p, uint32_t arch, uint32_t nr, uint32_t action,
	const struct pf_sc_cond *conds, size_t n_conds)
{
	size_t cond0 = p->n_conds;

	for (size_t i = 0; i < n_conds; i++) {
		p->conds = grown(p->conds, p->n_conds, &p->cap_conds, sizeof(*p->conds));
		p->conds[p->n_conds++] = conds[i];
	}
	p->rules = grown(p->rules, p->n_rules, &p->cap_rules, sizeof(*p->rules));
	p->rules[p->n_rules] = (struct pf_sc_rule){.arch = arch,
		.nr = nr,
		.action = action,
		.cond0 = cond0,
		.n_conds = n_conds,
		.seq = p->n_rules};
	return &p->rules[p->n_rules++];
}

void pf_bpf_done(struct pf_bpf *bpf)
{
	free(bpf->insns);
	*bpf = (struct pf_bpf){0};
}

/* --- instructions, back to front -------------------------------------------------------------------------
 */

static ref emit(struct gen *g, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	if (g->n == BPF_MAXINSNS) {
		g->overflow = true;
		return 0;
	}
	g->code[g->n] = (struct sock_filter){.code = code, .jt = jt, .jf = jf, .k = k};
	return g->n++;
}

/* Conditional jumps reach 255; this leaves room for the few instructions that go with one. */
#define REACH 250

/* A RET that a jump emitted next can reach. */
static ref emit_ret(struct gen *g, uint32_t action)
{
	for (size_t i = g->n; i-- > 0 && g->n - i <= REACH;)
		if (g->code[i].code == (BPF_RET | BPF_K) && g->code[i].k == action)
			return i;
	return emit(g, BPF_RET | BPF_K, action, 0, 0);
}

/* Another way to `to`, right here. */
static ref stepping_stone(struct gen *g, ref to)
{
	if (g->code[to].code == (BPF_RET | BPF_K))
		return emit(g, BPF_RET | BPF_K, g->code[to].k, 0, 0);
	return emit(g, BPF_JMP | BPF_JA, (uint32_t)(g->n - to - 1), 0, 0);
}

static ref reachable(struct gen *g, ref to)
{
	if (g->n - to <= REACH)
		return to;
	if (g->code[to].code == (BPF_RET | BPF_K))
		return emit_ret(g, g->code[to].k);
	return stepping_stone(g, to);
}

static ref emit_jump(struct gen *g, uint16_t op, uint32_t k, ref yes, ref no)
{
	if (yes == no)
		return yes;
	yes = reachable(g, yes);
	no = reachable(g, no);
	return emit(
		g, (uint16_t)(BPF_JMP | BPF_K | op), k, (uint8_t)(g->n - yes - 1), (uint8_t)(g->n - no - 1));
}

/* An instruction that runs on into the next one. */
static ref emit_before(struct gen *g, uint16_t code, uint32_t k, ref next)
{
	if (next + 1 != g->n)
		stepping_stone(g, next);
	return emit(g, code, k, 0, 0);
}

/* --- arguments -------------------------------------------------------------------------------------------
 */

static uint32_t arg_off(unsigned arg, bool high)
{
	uint32_t off = (uint32_t)(offsetof(struct seccomp_data, args) + arg * sizeof(uint64_t));

	return high == (__BYTE_ORDER == __LITTLE_ENDIAN) ? off + 4 : off;
}

static bool same_acc(struct acc a, struct acc b)
{
	return a.off == b.off && a.mask == b.mask;
}

/* Where to go on at e when the accumulator is in state now. */
static ref enter(struct gen *g, struct entry *e, struct acc now)
{
	ref next = e->loaded;

	if (e->held.off != 0 && same_acc(e->held, now))
		return e->loaded;
	if (e->full != NO_REF)
		return e->full;
	if (e->held.mask != UINT32_MAX)
		next = emit_before(g, BPF_ALU | BPF_AND | BPF_K, e->held.mask, next);
	e->full = emit_before(g, BPF_LD | BPF_W | BPF_ABS, e->held.off, next);
	return e->full;
}

/* A test of what the accumulator holds in state want. */
static struct entry emit_test(
	struct gen *g, uint16_t op, uint32_t k, struct acc want, struct entry *yes, struct entry *no)
{
	ref to_no = enter(g, no, want);
	ref to_yes = enter(g, yes, want);

	return (struct entry){.loaded = emit_jump(g, op, k, to_yes, to_no), .full = NO_REF, .held = want};
}

/* (half & mask) == value: `yes`, else `no`. Comparing with no bits needs no AND, and so leaves the whole half
 * in the accumulator. */
static struct entry emit_half_eq(
	struct gen *g, uint32_t off, uint32_t mask, uint32_t value, struct entry *yes, struct entry *no)
{
	struct acc raw = {.off = off, .mask = UINT32_MAX}, masked = {.off = off, .mask = mask};

	if (mask != UINT32_MAX && value == 0)
		return emit_test(g, BPF_JSET, mask, raw, no, yes);
	return emit_test(g, BPF_JEQ, value, masked, yes, no);
}

/* argument > value (or >= value when `equal`): `yes`, else `no`. */
static struct entry emit_greater(
	struct gen *g, const struct pf_sc_cond *c, bool equal, struct entry *yes, struct entry *no)
{
	struct acc lo = {.off = arg_off(c->arg, false), .mask = UINT32_MAX};
	struct acc hi = {.off = arg_off(c->arg, true), .mask = UINT32_MAX};
	uint32_t high = (uint32_t)(c->value >> 32);
	struct entry low = emit_test(g, equal ? BPF_JGE : BPF_JGT, (uint32_t)c->value, lo, yes, no), same;

	if (c->low32)
		return low;
	same = emit_test(g, BPF_JEQ, high, hi, &low, no);
	return emit_test(g, BPF_JGT, high, hi, yes, &same);
}

static struct entry emit_cond(struct gen *g, const struct pf_sc_cond *c, struct entry *yes, struct entry *no)
{
	bool masked = c->op == PF_SC_MASKED_EQ || c->op == PF_SC_MASKED_NE;
	uint64_t mask = masked ? c->mask : UINT64_MAX;
	struct entry low, *swap;

	switch ((enum pf_sc_op)c->op) {
	case PF_SC_GT:
	case PF_SC_GE:
		return emit_greater(g, c, c->op == PF_SC_GE, yes, no);
	case PF_SC_LE:
	case PF_SC_LT:
		return emit_greater(g, c, c->op == PF_SC_LT, no, yes);
	case PF_SC_NE:
	case PF_SC_MASKED_NE:
		swap = yes;
		yes = no;
		no = swap;
		break;
	case PF_SC_EQ:
	case PF_SC_MASKED_EQ:
		break;
	}
	low = emit_half_eq(g, arg_off(c->arg, false), (uint32_t)mask, (uint32_t)c->value, yes, no);
	/* A half that is masked out entirely equals zero, whatever it is. */
	if (c->low32 || (mask >> 32 == 0 && c->value >> 32 == 0))
		return low;
	return emit_half_eq(
		g, arg_off(c->arg, true), (uint32_t)(mask >> 32), (uint32_t)(c->value >> 32), &low, no);
}

static bool same_cond(const struct pf_sc_cond *a, const struct pf_sc_cond *b)
{
	return a->arg == b->arg && a->op == b->op && a->low32 == b->low32 && a->value == b->value &&
	       a->mask == b->mask;
}

static struct entry done(struct gen *g, uint32_t action)
{
	ref ret = emit_ret(g, action);

	return (struct entry){.loaded = ret, .full = ret};
}

static ref place_of(struct gen *g, size_t target)
{
	const struct target *t = &g->targets[target];
	struct entry next;

	if (t->n == 0)
		return emit_ret(g, t->action);
	if (g->places[target] != NO_REF)
		return g->places[target];
	next = done(g, t->action);
	for (size_t i = t->n; i-- > 0;) {
		const struct pf_sc_rule *r = &t->rules[i];
		struct entry no = next;

		next = done(g, r->action);
		for (size_t c = r->n_conds; c-- > 0;) {
			struct entry yes = next;
			next = emit_cond(g, &g->policy->conds[r->cond0 + c], &yes, &no);
		}
	}
	g->places[target] = enter(g, &next, (struct acc){0});
	return g->places[target];
}

/* --- numbers ---------------------------------------------------------------------------------------------
 */

static bool same_rules(const struct pf_sc_policy *p, const struct target *a, const struct target *b)
{
	if (a->n != b->n || a->action != b->action)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct pf_sc_rule *x = &a->rules[i], *y = &b->rules[i];

		if (x->action != y->action || x->n_conds != y->n_conds)
			return false;
		for (size_t c = 0; c < x->n_conds; c++)
			if (!same_cond(&p->conds[x->cond0 + c], &p->conds[y->cond0 + c]))
				return false;
	}
	return true;
}

static size_t intern(struct gen *g, struct target t)
{
	for (size_t i = 0; i < g->n_targets; i++)
		if (same_rules(g->policy, &g->targets[i], &t))
			return i;
	g->targets[g->n_targets] = t;
	g->places[g->n_targets] = NO_REF;
	return g->n_targets++;
}

/* What a number with these rules and this default leads to. What comes after a rule without conditions is
 * never reached. */
static size_t target_of(struct gen *g, const struct pf_sc_rule *rules, size_t n, uint32_t action)
{
	for (size_t i = 0; i < n; i++)
		if (rules[i].n_conds == 0) {
			action = rules[i].action;
			n = i;
		}
	/* Nor does a last rule matter that does what would be done anyway. */
	while (n > 0 && rules[n - 1].action == action)
		n--;
	return intern(g, (struct target){.rules = rules, .n = n, .action = action});
}

int pf_sc_rule_order(const void *a, const void *b)
{
	const struct pf_sc_rule *x = a, *y = b;

	if (x->arch != y->arch)
		return x->arch < y->arch ? -1 : 1;
	if (x->nr != y->nr)
		return x->nr < y->nr ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static int by_first(const void *a, const void *b)
{
	const struct pf_sc_segment *x = a, *y = b;

	if (x->arch != y->arch)
		return x->arch < y->arch ? -1 : 1;
	return x->first < y->first ? -1 : x->first > y->first;
}

static void push(struct interval *v, size_t *n, uint32_t first, size_t target)
{
	if (*n > 0 && v[*n - 1].first == first)
		(*n)--; /* empty: it would have ended where it began */
	if (*n > 0 && v[*n - 1].target == target)
		return;
	v[(*n)++] = (struct interval){.first = first, .target = target};
}

/* Numbers on a scale that counts what real calls use. */
static uint32_t position(uint32_t nr)
{
	if (nr >= PF_SC_X32_BIT)
		return 512 + (nr - PF_SC_X32_BIT < 512 ? nr - PF_SC_X32_BIT : 512);
	return nr < 512 ? nr : 512;
}

/* Where to divide v[0..n), n > 1: in the middle of the numbers rather than of the intervals, because the
 * kernel runs a new program once for every number. */
static size_t split(const struct interval *v, size_t n)
{
	uint32_t first = position(v[0].first), last = position(v[n - 1].first),
		 middle = first + (last - first) / 2;
	size_t mid = 1;

	if (first == last) /* another scale (MIPS) */
		return n / 2;
	while (mid + 1 < n && position(v[mid].first) < middle)
		mid++;
	if (mid > 1 && middle - position(v[mid - 1].first) < position(v[mid].first) - middle)
		mid--;
	return mid;
}

/* The tree over v[0..n). v is used up. */
static ref emit_tree(struct gen *g, struct interval *v, size_t n)
{
	uint32_t middle;
	size_t mid;
	ref lo, hi;

	if (n == 1)
		return place_of(g, v[0].target);
	/* A lone number between equals costs one test instead of two, but makes a chain: only near the
	 * leaves. */
	for (size_t i = 1; n <= 9 && i + 1 < n; i++) {
		uint32_t nr = v[i].first;
		size_t target = v[i].target;

		if (v[i + 1].first != nr + 1 || v[i - 1].target != v[i + 1].target)
			continue;
		memmove(&v[i], &v[i + 2], (n - i - 2) * sizeof(*v));
		lo = emit_tree(g, v, n - 2);
		hi = place_of(g, target);
		return emit_jump(g, BPF_JEQ, nr, hi, lo);
	}
	mid = split(v, n);
	middle = v[mid].first;
	hi = emit_tree(g, v + mid, n - mid);
	lo = emit_tree(g, v, mid);
	return emit_jump(g, BPF_JGE, middle, hi, lo);
}

/* All numbers of one architecture. segs and rules are this architecture's, sorted. */
static ref emit_arch(struct gen *g, const struct pf_sc_segment *segs, size_t n_segs,
	const struct pf_sc_rule *rules, size_t n_rules)
{
	PF_FREE struct interval *v = pf_calloc(2 * (n_segs + n_rules) + 1, sizeof(*v));
	size_t n = 0, r = 0;

	for (size_t s = 0; s < n_segs; s++) {
		uint32_t end = s + 1 < n_segs ? segs[s + 1].first - 1 : UINT32_MAX;
		size_t plain = target_of(g, NULL, 0, segs[s].action);

		push(v, &n, segs[s].first, plain);
		while (r < n_rules && rules[r].nr <= end) {
			size_t first = r;

			while (r < n_rules && rules[r].nr == rules[first].nr)
				r++;
			push(v, &n, rules[first].nr, target_of(g, &rules[first], r - first, segs[s].action));
			if (rules[first].nr < end)
				push(v, &n, rules[first].nr + 1, plain);
		}
	}
	return emit_before(g, BPF_LD | BPF_W | BPF_ABS, NR_OFF, emit_tree(g, v, n));
}

static int emit_program(
	struct gen *g, struct pf_sc_rule *rules, struct pf_sc_segment *segs, struct pf_err *err)
{
	const struct pf_sc_policy *p = g->policy;
	ref next = emit_ret(g, p->bad_arch);
	size_t r = 0, s = 0;

	if (p->n_rules > 0)
		qsort(rules, p->n_rules, sizeof(*rules), pf_sc_rule_order);
	if (p->n_segs > 0)
		qsort(segs, p->n_segs, sizeof(*segs), by_first);
	while (s < p->n_segs && !g->overflow) {
		uint32_t arch = segs[s].arch;
		size_t s0 = s, r0;
		ref here;

		if (segs[s].first != 0)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "seccomp: arch 0x%x has no first segment", arch);
		while (s < p->n_segs && segs[s].arch == arch)
			s++;
		while (r < p->n_rules && rules[r].arch < arch)
			r++;
		for (r0 = r; r < p->n_rules && rules[r].arch == arch; r++)
			;
		here = emit_arch(g, &segs[s0], s - s0, &rules[r0], r - r0);
		next = emit_jump(g, BPF_JEQ, arch, here, next);
	}
	emit_before(g, BPF_LD | BPF_W | BPF_ABS, ARCH_OFF, next);
	if (g->overflow)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"seccomp: the filter needs more than the kernel's %d instructions: use fewer rules "
			"with conditions",
			BPF_MAXINSNS);
	return 0;
}

int pf_sc_compile(const struct pf_sc_policy *p, struct pf_bpf *out, struct pf_err *err)
{
	PF_FREE struct gen *g = pf_calloc(1, sizeof(*g));
	PF_FREE struct target *targets = pf_calloc(p->n_rules + p->n_segs + 1, sizeof(*targets));
	PF_FREE ref *places = pf_calloc(p->n_rules + p->n_segs + 1, sizeof(*places));
	PF_FREE struct pf_sc_rule *rules = pf_calloc(p->n_rules + 1, sizeof(*rules));
	PF_FREE struct pf_sc_segment *segs = pf_calloc(p->n_segs + 1, sizeof(*segs));

	g->policy = p;
	g->targets = targets;
	g->places = places;
	if (p->n_rules > 0)
		memcpy(rules, p->rules, p->n_rules * sizeof(*rules));
	if (p->n_segs > 0)
		memcpy(segs, p->segs, p->n_segs * sizeof(*segs));
	if (emit_program(g, rules, segs, err) < 0)
		return -1;
	out->insns = pf_calloc(g->n, sizeof(*out->insns));
	out->len = (unsigned short)g->n;
	for (size_t i = 0; i < g->n; i++)
		out->insns[i] = g->code[g->n - 1 - i];
	return 0;
}
