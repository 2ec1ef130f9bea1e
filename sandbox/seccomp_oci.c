/* OCI's linux.seccomp object: theory of operation.
 *
 * The specification says what one rule means and not how rules for the same call combine; profiles in the
 * world were written against libseccomp. So:
 *
 *  - All conditions of one rule must hold, also several on the same argument. (Some runtimes hand such rules
 * on in pieces, of which any one then suffices: two "not equal" on one argument admit everything.)
 *  - Among rules without conditions the first one counts, and one that repeats the default action is as good
 *    as absent.
 *  - A rule with conditions comes before one without if its action is stricter, else it has no effect: what a
 *    profile denies explicitly stays denied next to a broad ALLOW. libseccomp drops such a rule.
 *  - Among rules with conditions that hold for the same arguments the strictest action wins, in the kernel's
 *    own order; of equally strict ones the first.
 *  - Calls with a number beyond the newest one that the profile names fail with ENOSYS, if the default action
 *    would stop them: the profile cannot have meant calls that are younger than itself, and libraries fall
 *    back on ENOSYS alone. (The highest number, -1, is a call that a tracer skipped; it gets the default.)
 *  - Where an architecture also has the socket and System V calls as subcalls of socketcall and ipc, rules
 * for them cover the subcall. Their arguments are behind a pointer, so that of a rule with conditions the
 *    subcall gets a stricter action in any case, and a milder one never. A rule without conditions for
 *    socketcall or ipc itself has precedence.
 *  - Another architecture than those listed, and the machine's own, kills the process. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/str.h"
#include "sandbox/seccomp_gen.h"

#ifndef SECCOMP_FILTER_FLAG_TSYNC_ESRCH
#define SECCOMP_FILTER_FLAG_TSYNC_ESRCH (1UL << 4)
#endif
#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAX_CONDS 32
#define MAX_ARCHS 24
#define MAX_ERRNO 4095
#define EXACT_MAX (((int64_t)1 << 53) - 1) /* JSON numbers are read as doubles */

struct word {
	const char *name;
	uint32_t value;
};

/* Strictest first, as the kernel ranks them. */
static const struct word actions[] = {{"SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS},
	{"SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD}, {"SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD},
	{"SCMP_ACT_TRAP", SECCOMP_RET_TRAP}, {"SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO},
	{"SCMP_ACT_NOTIFY", SECCOMP_RET_USER_NOTIF}, {"SCMP_ACT_TRACE", SECCOMP_RET_TRACE},
	{"SCMP_ACT_LOG", SECCOMP_RET_LOG}, {"SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW}};

static const struct word ops[] = {{"SCMP_CMP_NE", PF_SC_NE}, {"SCMP_CMP_LT", PF_SC_LT},
	{"SCMP_CMP_LE", PF_SC_LE}, {"SCMP_CMP_EQ", PF_SC_EQ}, {"SCMP_CMP_GE", PF_SC_GE},
	{"SCMP_CMP_GT", PF_SC_GT}, {"SCMP_CMP_MASKED_EQ", PF_SC_MASKED_EQ}};

static const struct word flag_words[] = {{"SECCOMP_FILTER_FLAG_TSYNC", SECCOMP_FILTER_FLAG_TSYNC},
	{"SECCOMP_FILTER_FLAG_LOG", SECCOMP_FILTER_FLAG_LOG},
	{"SECCOMP_FILTER_FLAG_SPEC_ALLOW", SECCOMP_FILTER_FLAG_SPEC_ALLOW},
	{"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV}};

static const struct word archs[] = {{"SCMP_ARCH_X86", SCMP_ARCH_X86}, {"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64},
	{"SCMP_ARCH_X32", SCMP_ARCH_X32}, {"SCMP_ARCH_ARM", SCMP_ARCH_ARM},
	{"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64}, {"SCMP_ARCH_MIPS", SCMP_ARCH_MIPS},
	{"SCMP_ARCH_MIPS64", SCMP_ARCH_MIPS64}, {"SCMP_ARCH_MIPS64N32", SCMP_ARCH_MIPS64N32},
	{"SCMP_ARCH_MIPSEL", SCMP_ARCH_MIPSEL}, {"SCMP_ARCH_MIPSEL64", SCMP_ARCH_MIPSEL64},
	{"SCMP_ARCH_MIPSEL64N32", SCMP_ARCH_MIPSEL64N32}, {"SCMP_ARCH_PPC", SCMP_ARCH_PPC},
	{"SCMP_ARCH_PPC64", SCMP_ARCH_PPC64}, {"SCMP_ARCH_PPC64LE", SCMP_ARCH_PPC64LE},
	{"SCMP_ARCH_S390", SCMP_ARCH_S390}, {"SCMP_ARCH_S390X", SCMP_ARCH_S390X},
	{"SCMP_ARCH_PARISC", SCMP_ARCH_PARISC}, {"SCMP_ARCH_PARISC64", SCMP_ARCH_PARISC64},
	{"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64}};

/* Calls that exist as subcalls too: name, and number within socketcall or ipc. */
static const struct word socketcalls[] = {{"socket", 1}, {"bind", 2}, {"connect", 3}, {"listen", 4},
	{"accept", 5}, {"getsockname", 6}, {"getpeername", 7}, {"socketpair", 8}, {"send", 9}, {"recv", 10},
	{"sendto", 11}, {"recvfrom", 12}, {"shutdown", 13}, {"setsockopt", 14}, {"getsockopt", 15},
	{"sendmsg", 16}, {"recvmsg", 17}, {"accept4", 18}, {"recvmmsg", 19}, {"sendmmsg", 20}};
static const struct word ipcs[] = {{"semop", 1}, {"semget", 2}, {"semctl", 3}, {"semtimedop", 4},
	{"msgsnd", 11}, {"msgrcv", 12}, {"msgget", 13}, {"msgctl", 14}, {"shmat", 21}, {"shmdt", 22},
	{"shmget", 23}, {"shmctl", 24}};

static const struct word *find(const struct word *words, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(words[i].name, name) == 0)
			return &words[i];
	return NULL;
}

const char *pf_seccomp_word(enum pf_seccomp_words kind, size_t i)
{
	static const struct {
		const struct word *words;
		size_t n;
	} tables[] = {[PF_SECCOMP_ACTIONS] = {actions, COUNT(actions)},
		[PF_SECCOMP_OPERATORS] = {ops, COUNT(ops)},
		[PF_SECCOMP_ARCHS] = {archs, COUNT(archs)},
		[PF_SECCOMP_FLAGS] = {flag_words, COUNT(flag_words)}};

	return i < tables[kind].n ? tables[kind].words[i].name : NULL;
}

/* The word at obj[key], which must be there and known; what names its kind for the error. */
static const struct word *word_at(const cJSON *obj, const char *where, const char *key, const char *what,
	const struct word *words, size_t n, struct pf_err *err)
{
	const char *list[MAX_ARCHS] = {0}, *name = NULL, *near;
	const struct word *w;
	int r = pf_json_str(obj, where, key, &name, err);

	if (r < 0)
		return NULL;
	if (!name) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: %s is missing", where, key);
		return NULL;
	}
	w = find(words, n, name);
	if (w)
		return w;
	for (size_t i = 0; i < n; i++)
		list[i] = words[i].name;
	near = pf_nearest(name, list);
	pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.%s: unknown %s '%s'%s%s%s", where, key, what, name,
		near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
	return NULL;
}

/* An action and its errno: 0 and *out. */
static int read_action(const cJSON *obj, const char *where, const char *key, const char *errno_key,
	uint32_t *out, struct pf_err *err)
{
	const struct word *w = word_at(obj, where, key, "action", actions, COUNT(actions), err);
	int64_t e = EPERM;
	int r;

	if (!w)
		return -1;
	*out = w->value;
	r = pf_json_int(
		obj, where, errno_key, 0, w->value == SECCOMP_RET_TRACE ? UINT16_MAX : MAX_ERRNO, &e, err);
	if (r < 0)
		return -1;
	if (w->value == SECCOMP_RET_ERRNO || w->value == SECCOMP_RET_TRACE)
		*out |= (uint32_t)e;
	else if (r > 0)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s.%s: %s takes no errno", where, errno_key, w->name);
	return 0;
}

static int rank(uint32_t action)
{
	for (size_t i = 0; i < COUNT(actions); i++)
		if (actions[i].value == (action & SECCOMP_RET_ACTION_FULL))
			return (int)i;
	return COUNT(actions);
}

/* --- rules -----------------------------------------------------------------------------------------------
 */

struct arch {
	uint32_t token, audit;
	bool wide;             /* arguments have 64 bits */
	int socketcall, ipc;   /* their numbers, or -1 */
	int direct_socket[20]; /* per socketcalls[], the number of the call's own, or -1 */
	int direct_ipc[12];
	uint32_t newest; /* highest number that a rule names */
	bool any;        /* whether one does */
};

struct profile {
	uint32_t default_action;
	struct arch archs[MAX_ARCHS];
	size_t n_archs;
	struct pf_sc_policy raw; /* every rule of the profile for every number it means */
};

static void profile_done(struct profile *p)
{
	pf_sc_policy_done(&p->raw);
}

static uint32_t audit_of(uint32_t token)
{
	return token == SCMP_ARCH_X32 ? AUDIT_ARCH_X86_64 : token;
}

/* libseccomp treats x32 as an ABI of 32-bit arguments, and so does what is written for it. */
static bool is_wide(uint32_t token)
{
	return token != SCMP_ARCH_X32 && (token & __AUDIT_ARCH_64BIT) != 0;
}

/* libseccomp knows calls that have a subcall only by names of its own; their numbers are found by asking what
 * each number is called. */
static void find_direct(struct arch *a)
{
	int read_nr = seccomp_syscall_resolve_name_arch(a->token, "read");
	int base = read_nr >= 4000 && read_nr < 7000 ? read_nr / 1000 * 1000 : 0;

	memset(a->direct_socket, -1, sizeof(a->direct_socket));
	memset(a->direct_ipc, -1, sizeof(a->direct_ipc));
	for (int nr = base; (a->socketcall >= 0 || a->ipc >= 0) && nr < base + 512; nr++) {
		PF_FREE char *name = seccomp_syscall_resolve_num_arch(a->token, nr);
		const struct word *s = name ? find(socketcalls, COUNT(socketcalls), name) : NULL;
		const struct word *i = name ? find(ipcs, COUNT(ipcs), name) : NULL;

		if (s)
			a->direct_socket[s - socketcalls] = nr;
		if (i)
			a->direct_ipc[i - ipcs] = nr;
	}
}

static int add_arch(struct profile *p, uint32_t token, struct pf_err *err)
{
	struct arch *a = &p->archs[p->n_archs];

	for (size_t i = 0; i < p->n_archs; i++)
		if (p->archs[i].token == token)
			return 0;
	if (p->n_archs == MAX_ARCHS)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "linux.seccomp.architectures: too many");
	*a = (struct arch){.token = token, .audit = audit_of(token), .wide = is_wide(token)};
	a->socketcall = pf_sc_number(token, "socketcall");
	a->ipc = pf_sc_number(token, "ipc");
	find_direct(a);
	p->n_archs++;
	return 0;
}

static int read_archs(const cJSON *seccomp, struct profile *p, struct pf_err *err)
{
	const cJSON *list = NULL, *item;

	if (add_arch(p, seccomp_arch_native(), err) < 0 ||
		pf_json_arr(seccomp, "linux.seccomp", "architectures", &list, err) < 0)
		return -1;
	cJSON_ArrayForEach(item, list)
	{
		const struct word *w = NULL;

		if (cJSON_IsString(item))
			w = find(archs, COUNT(archs), item->valuestring);
		if (!w)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"linux.seccomp.architectures: unknown architecture '%s'",
				cJSON_IsString(item) ? item->valuestring : "(not a string)");
		if (add_arch(p, w->value, err) < 0)
			return -1;
	}
	return 0;
}

static int read_cond(const cJSON *arg, const char *where, struct pf_sc_cond *c, struct pf_err *err)
{
	const struct word *op = word_at(arg, where, "op", "operator", ops, COUNT(ops), err);
	int64_t index = -1, value = -1, two = 0;

	if (!op || pf_json_int(arg, where, "index", 0, 5, &index, err) < 0 ||
		pf_json_int(arg, where, "value", 0, EXACT_MAX, &value, err) < 0 ||
		pf_json_int(arg, where, "valueTwo", 0, EXACT_MAX, &two, err) < 0)
		return -1;
	if (index < 0 || value < 0)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s: %s is missing", where, index < 0 ? "index" : "value");
	*c = (struct pf_sc_cond){.arg = (uint8_t)index, .op = (uint8_t)op->value, .value = (uint64_t)value};
	if (c->op == PF_SC_MASKED_EQ) {
		c->mask = (uint64_t)value;
		/* Bits of the wanted value outside the mask do not count, as in libseccomp. */
		c->value = (uint64_t)two & c->mask;
	}
	return 0;
}

static int read_conds(
	const cJSON *entry, const char *where, struct pf_sc_cond *conds, size_t *n, struct pf_err *err)
{
	const cJSON *args = NULL, *arg;

	*n = 0;
	if (pf_json_arr(entry, where, "args", &args, err) < 0)
		return -1;
	cJSON_ArrayForEach(arg, args)
	{
		char at[80];

		snprintf(at, sizeof(at), "%s.args[%zu]", where, *n);
		if (!cJSON_IsObject(arg))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: not an object", at);
		if (*n == MAX_CONDS)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s: more than %d conditions", where, MAX_CONDS);
		if (read_cond(arg, at, &conds[*n], err) < 0)
			return -1;
		(*n)++;
	}
	return 0;
}

static void add(struct profile *p, const struct arch *a, int nr, uint32_t action,
	const struct pf_sc_cond *conds, size_t n, bool derived)
{
	struct pf_sc_cond narrow[MAX_CONDS];

	for (size_t i = 0; i < n; i++) {
		narrow[i] = conds[i];
		narrow[i].low32 = conds[i].low32 || !a->wide;
	}
	pf_sc_add_rule(&p->raw, a->audit, (uint32_t)nr, action, narrow, n)->derived = derived;
}

/* One name of one entry on one architecture. */
static void add_name(struct profile *p, struct arch *a, const char *name, uint32_t action,
	const struct pf_sc_cond *conds, size_t n)
{
	const struct word *s = find(socketcalls, COUNT(socketcalls), name),
			  *i = find(ipcs, COUNT(ipcs), name);
	bool covers = n == 0 || rank(action) < rank(p->default_action);
	/* The kernel reads a version from the upper bits of ipc's number, and ignores those of socketcall's.
	 */
	struct pf_sc_cond subcall = {.low32 = true, .op = PF_SC_MASKED_EQ, .mask = i ? 0xffff : UINT32_MAX};
	int whole = -1, nr;

	if (s && a->socketcall >= 0) {
		whole = a->socketcall;
		nr = a->direct_socket[s - socketcalls];
		subcall.value = s->value;
	} else if (i && a->ipc >= 0) {
		whole = a->ipc;
		nr = a->direct_ipc[i - ipcs];
		subcall.value = i->value;
	} else {
		nr = pf_sc_number(a->token, name);
	}
	if (whole >= 0 && covers)
		add(p, a, whole, action, &subcall, 1, true);
	if (nr < 0)
		return;
	add(p, a, nr, action, conds, n, false);
	if (!a->any || (uint32_t)nr > a->newest)
		a->newest = (uint32_t)nr;
	a->any = true;
}

static int read_entry(const cJSON *entry, size_t index, struct profile *p, struct pf_err *err)
{
	struct pf_sc_cond conds[MAX_CONDS];
	const cJSON *names = NULL, *name;
	uint32_t action = 0;
	char where[48];
	size_t n;

	snprintf(where, sizeof(where), "linux.seccomp.syscalls[%zu]", index);
	if (!cJSON_IsObject(entry))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: not an object", where);
	if (read_action(entry, where, "action", "errnoRet", &action, err) < 0 ||
		read_conds(entry, where, conds, &n, err) < 0 ||
		pf_json_arr(entry, where, "names", &names, err) < 0)
		return -1;
	if (!names || !names->child)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: names is missing or empty", where);
	cJSON_ArrayForEach(name, names)
	{
		if (!cJSON_IsString(name))
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.names: not a string", where);
		if (action == SECCOMP_RET_USER_NOTIF && strcmp(name->valuestring, "write") == 0)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: SCMP_ACT_NOTIFY for write would stop the runtime itself before it can "
				"hand the listener over",
				where);
		for (size_t i = 0; i < p->n_archs; i++)
			add_name(p, &p->archs[i], name->valuestring, action, conds, n);
	}
	return 0;
}

/* --- combining -------------------------------------------------------------------------------------------
 */

static int by_strictness(const void *a, const void *b)
{
	const struct pf_sc_rule *x = a, *y = b;
	int rx = rank(x->action), ry = rank(y->action);

	if (rx != ry)
		return rx - ry;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

/* The rules r[0..n) of one number, as the first comment says, into out, where the first match counts. */
static void combine(const struct profile *p, struct pf_sc_rule *r, size_t n, struct pf_sc_policy *out)
{
	struct pf_sc_rule plain = {0};
	bool have_plain = false;

	for (size_t i = 0; i < n && !have_plain; i++)
		if (r[i].n_conds == 0 && r[i].action != p->default_action) {
			plain = r[i];
			have_plain = true;
		}
	qsort(r, n, sizeof(*r), by_strictness);
	for (size_t i = 0; i < n; i++) {
		if (r[i].n_conds == 0)
			continue;
		if (have_plain && (r[i].derived || rank(r[i].action) >= rank(plain.action)))
			continue;
		pf_sc_add_rule(out, r[i].arch, r[i].nr, r[i].action, &p->raw.conds[r[i].cond0], r[i].n_conds);
	}
	if (have_plain)
		pf_sc_add_rule(out, plain.arch, plain.nr, plain.action, NULL, 0);
}

static void combine_all(struct profile *p, struct pf_sc_policy *out)
{
	struct pf_sc_rule *r = p->raw.rules;
	size_t n = p->raw.n_rules;

	if (n > 0)
		qsort(r, n, sizeof(*r), pf_sc_rule_order);
	for (size_t i = 0, j; i < n; i = j) {
		for (j = i; j < n && r[j].arch == r[i].arch && r[j].nr == r[i].nr; j++)
			;
		combine(p, &r[i], j - i, out);
	}
}

static bool stops(uint32_t action)
{
	return rank(action) < rank(SECCOMP_RET_TRACE);
}

static void add_segments(const struct profile *p, struct pf_sc_policy *out)
{
	uint32_t enosys = SECCOMP_RET_ERRNO | ENOSYS;
	bool x86_64 = false, x32 = false;

	for (size_t i = 0; i < p->n_archs; i++) {
		const struct arch *a = &p->archs[i];
		uint32_t first = a->token == SCMP_ARCH_X32 ? PF_SC_X32_BIT : 0;

		x86_64 = x86_64 || a->token == SCMP_ARCH_X86_64;
		x32 = x32 || a->token == SCMP_ARCH_X32;
		pf_sc_add_segment(out, a->audit, first, p->default_action);
		if (a->any && stops(p->default_action))
			pf_sc_add_segment(out, a->audit, a->newest + 1, enosys);
		if (a->token != SCMP_ARCH_X32)
			pf_sc_add_segment(out, a->audit, UINT32_MAX, p->default_action);
	}
	if (x86_64 && !x32)
		pf_sc_add_segment(out, AUDIT_ARCH_X86_64, PF_SC_X32_BIT, out->bad_arch);
	if (x32 && !x86_64)
		pf_sc_add_segment(out, AUDIT_ARCH_X86_64, 0, out->bad_arch);
}

/* --- the object's other members --------------------------------------------------------------------------
 */

static int scan_notify(const cJSON *seccomp, int *has_notify, struct pf_err *err)
{
	const cJSON *list = NULL, *entry;
	const char *action = NULL;

	*has_notify = 0;
	if (pf_json_str(seccomp, "linux.seccomp", "defaultAction", &action, err) < 0 ||
		pf_json_arr(seccomp, "linux.seccomp", "syscalls", &list, err) < 0)
		return -1;
	if (action && strcmp(action, "SCMP_ACT_NOTIFY") == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot be the default: the runtime "
			"itself would stop");
	cJSON_ArrayForEach(entry, list)
	{
		action = NULL;
		if (pf_json_str(entry, "linux.seccomp.syscalls[]", "action", &action, err) < 0)
			return -1;
		if (action && strcmp(action, "SCMP_ACT_NOTIFY") == 0)
			*has_notify = 1;
	}
	return 0;
}

int pf_seccomp_oci_flags(const cJSON *seccomp, unsigned *flags, int *has_notify, struct pf_err *err)
{
	const char *listener = NULL, *metadata = NULL;
	const cJSON *list = NULL, *item;
	unsigned f = 0;

	if (!cJSON_IsObject(seccomp))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "linux.seccomp: not an object");
	if (scan_notify(seccomp, has_notify, err) < 0 ||
		pf_json_str(seccomp, "linux.seccomp", "listenerPath", &listener, err) < 0 ||
		pf_json_str(seccomp, "linux.seccomp", "listenerMetadata", &metadata, err) < 0 ||
		pf_json_arr(seccomp, "linux.seccomp", "flags", &list, err) < 0)
		return -1;
	cJSON_ArrayForEach(item, list)
	{
		const struct word *w = NULL;

		if (cJSON_IsString(item))
			w = find(flag_words, COUNT(flag_words), item->valuestring);
		if (!w)
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "linux.seccomp.flags: unknown flag '%s'",
				cJSON_IsString(item) ? item->valuestring : "(not a string)");
		f |= w->value;
	}
	if (*has_notify && (!listener || !*listener))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath to send the listener to");
	if (metadata && *metadata && (!listener || !*listener))
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "linux.seccomp: listenerMetadata without a listenerPath");
	if (*has_notify) {
		f |= SECCOMP_FILTER_FLAG_NEW_LISTENER;
		/* With a listener fd as the result, a failed TSYNC has to be told apart. */
		if (f & SECCOMP_FILTER_FLAG_TSYNC)
			f |= SECCOMP_FILTER_FLAG_TSYNC_ESRCH;
	} else {
		/* It is about notifications; the kernel refuses it where there are none. */
		f &= ~(unsigned)SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
	}
	*flags = f;
	return 0;
}

int pf_seccomp_oci(
	const cJSON *seccomp, struct pf_bpf *out, unsigned *flags, int *has_notify, struct pf_err *err)
{
	PF_SC_POLICY struct pf_sc_policy policy = {.bad_arch = SECCOMP_RET_KILL_PROCESS};
	PF_CLEANUP(profile_done) struct profile p = {0};
	const cJSON *list = NULL, *entry;
	size_t index = 0;

	if (pf_seccomp_oci_flags(seccomp, flags, has_notify, err) < 0 ||
		read_action(seccomp, "linux.seccomp", "defaultAction", "defaultErrnoRet", &p.default_action,
			err) < 0 ||
		read_archs(seccomp, &p, err) < 0 ||
		pf_json_arr(seccomp, "linux.seccomp", "syscalls", &list, err) < 0)
		return -1;
	cJSON_ArrayForEach(entry, list)
	{
		if (read_entry(entry, index++, &p, err) < 0)
			return -1;
	}
	add_segments(&p, &policy);
	combine_all(&p, &policy);
	return pf_sc_compile(&policy, out, err);
}

static int build(void *arg, struct pf_bpf *out, struct pf_err *err)
{
	unsigned flags;
	int has_notify;

	return pf_seccomp_oci(arg, out, &flags, &has_notify, err);
}

int pf_seccomp_oci_cached(int cache_dirfd, const cJSON *seccomp, struct pf_bpf *out, unsigned *flags,
	int *has_notify, struct pf_err *err)
{
	PF_BUF struct pf_buf key = {0};
	PF_FREE char *text = NULL;

	if (pf_seccomp_oci_flags(seccomp, flags, has_notify, err) < 0)
		return -1;
	text = pf_json_text(seccomp);
	pf_buf_str(&key, "oci ");
	pf_buf_str(&key, text);
	return pf_seccomp_cached(cache_dirfd, key.data, key.len, build, (void *)(uintptr_t)seccomp, out, err);
}
