/* Theory of operation: device rules as a BPF_PROG_TYPE_CGROUP_DEVICE program.
 *
 * The kernel asks once per open or mknod with a set of wanted accesses. The program walks the rules from the
 * last to the first and keeps the accesses that no rule has decided yet: an allow rule that matches the
 * device settles its accesses, a deny rule that touches an undecided one ends it. So each access is decided
 * by the last rule that names it, and "allow rwm, deny w" refuses O_RDWR, which testing whole rules would let
 * through.
 *
 * Programs in one cgroup are all asked and all must agree (BPF_F_ALLOW_MULTI). Replacing attaches the new one
 * first and then detaches the old ones: in between, both hold. Loading costs 0.4 ms, attaching 1 us, so
 * loaded programs are kept for the life of the process, keyed by their code. */
#include "sandbox/bpf_device.h"

#include <errno.h>
#include <linux/bpf.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "sandbox/cgroup_internal.h"

#define MAX_RULES 512
#define MAX_ATTACHED 64 /* the kernel's own limit per cgroup */

void pf_device_rules_done(struct pf_device_rules *r)
{
	free(r->rule);
	*r = (struct pf_device_rules){0};
}

void pf_device_rules_add(struct pf_device_rules *r, struct pf_device_rule rule)
{
	struct pf_device_rule *more = realloc(r->rule, (r->n + 1) * sizeof(*more));

	if (!more)
		abort();
	r->rule = more;
	more[r->n++] = rule;
}

void pf_device_rules_add_default(struct pf_device_rules *r, bool mknod)
{
	static const int32_t nodes[][2] = {
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}}; /* … tty, ptmx, pts */

	if (mknod) {
		pf_device_rules_add(r, (struct pf_device_rule){true, 'c', -1, -1, PF_DEV_MKNOD});
		pf_device_rules_add(r, (struct pf_device_rule){true, 'b', -1, -1, PF_DEV_MKNOD});
	}
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)
		pf_device_rules_add(r, (struct pf_device_rule){true, 'c', nodes[i][0], nodes[i][1],
					       mknod ? PF_DEV_ALL : PF_DEV_READ | PF_DEV_WRITE});
}

static int rule_from_oci(const cJSON *e, const char *at, struct pf_device_rule *rule, struct pf_err *err)
{
	const char *type = "a", *access = NULL;
	int64_t major = -1, minor = -1;
	int allow;

	if (!cJSON_IsObject(e))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", at);
	allow = pf_json_bool(e, at, "allow", &rule->allow, err);
	if (allow < 0 || pf_json_str(e, at, "type", &type, err) < 0 ||
		pf_json_str(e, at, "access", &access, err) < 0 ||
		pf_json_int(e, at, "major", -1, 4095, &major, err) < 0 ||
		pf_json_int(e, at, "minor", -1, 1048575, &minor, err) < 0)
		return -1;
	if (allow == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.allow: is missing", at);
	/* "u" is the old name of an unbuffered character device; "p" is a FIFO, which no filter asks about.
	 */
	if (strlen(type) != 1 || !strchr("abcup", *type))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.type: must be a, b or c", at);
	rule->type = *type == 'u' ? 'c' : *type;
	rule->major = (int32_t)major;
	rule->minor = (int32_t)minor;
	rule->access = access && *access ? 0 : PF_DEV_ALL;
	for (const char *p = access; p && *p; p++) {
		unsigned bit = *p == 'r'   ? PF_DEV_READ
			       : *p == 'w' ? PF_DEV_WRITE
			       : *p == 'm' ? PF_DEV_MKNOD
					   : 0;
		if (bit == 0)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "%s.access: may have r, w and m, not '%c'", at, *p);
		rule->access |= bit;
	}
	return 0;
}

int pf_device_rules_from_oci(const cJSON *resources, struct pf_device_rules *r, struct pf_err *err)
{
	const cJSON *list = NULL;
	int n = 0;

	if (cJSON_IsObject(resources) && pf_json_arr(resources, "linux.resources", "devices", &list, err) < 0)
		return -1;
	for (const cJSON *e = list ? list->child : NULL; e; e = e->next, n++) {
		struct pf_device_rule rule = {0};
		char at[64];
		snprintf(at, sizeof(at), "linux.resources.devices[%d]", n);
		if (rule_from_oci(e, at, &rule, err) < 0)
			return -1;
		if (rule.type != 'p')
			pf_device_rules_add(r, rule);
	}
	pf_device_rules_add_default(r, true);
	return 0;
}

/* ---- the program ---- */

struct code {
	struct bpf_insn *insn;
	size_t n;
};

/* The fields of one instruction: opcode, registers, jump offset, immediate. */
static void emit(struct code *c, unsigned op, unsigned dst, unsigned src, int off, int imm)
{
	c->insn[c->n++] = (struct bpf_insn){.code = (uint8_t)op,
		.dst_reg = dst & 15U,
		.src_reg = src & 15U,
		.off = (int16_t)off,
		.imm = imm};
}

static void emit_return(struct code *c, int verdict)
{
	emit(c, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict);
	emit(c, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

enum { R_LEFT = BPF_REG_2, R_TYPE = BPF_REG_3, R_MAJOR = BPF_REG_4, R_MINOR = BPF_REG_5, R_TMP = BPF_REG_6 };

#define INSNS_PER_RULE 9

static void emit_rule(struct code *c, const struct pf_device_rule *r)
{
	size_t jumps[5], n = 0;

	if (r->type != 'a') {
		jumps[n++] = c->n;
		emit(c, BPF_JMP | BPF_JNE | BPF_K, R_TYPE, 0, 0,
			r->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
	}
	if (r->major >= 0) {
		jumps[n++] = c->n;
		emit(c, BPF_JMP | BPF_JNE | BPF_K, R_MAJOR, 0, 0, r->major);
	}
	if (r->minor >= 0) {
		jumps[n++] = c->n;
		emit(c, BPF_JMP | BPF_JNE | BPF_K, R_MINOR, 0, 0, r->minor);
	}
	if (r->allow) {
		emit(c, BPF_ALU64 | BPF_AND | BPF_K, R_LEFT, 0, 0, (int)~r->access);
		jumps[n++] = c->n;
		emit(c, BPF_JMP | BPF_JNE | BPF_K, R_LEFT, 0, 0, 0);
		emit_return(c, 1);
	} else {
		emit(c, BPF_ALU64 | BPF_MOV | BPF_X, R_TMP, R_LEFT, 0, 0);
		emit(c, BPF_ALU64 | BPF_AND | BPF_K, R_TMP, 0, 0, (int)r->access);
		jumps[n++] = c->n;
		emit(c, BPF_JMP | BPF_JEQ | BPF_K, R_TMP, 0, 0, 0);
		emit_return(c, 0);
	}
	for (size_t i = 0; i < n; i++)
		c->insn[jumps[i]].off = (int16_t)(c->n - jumps[i] - 1);
}

static void compile(const struct pf_device_rules *r, struct code *c)
{
	c->insn = pf_calloc(r->n * INSNS_PER_RULE + 8, sizeof(*c->insn));
	c->n = 0;
	emit(c, BPF_LDX | BPF_W | BPF_MEM, R_LEFT, BPF_REG_1,
		offsetof(struct bpf_cgroup_dev_ctx, access_type), 0);
	emit(c, BPF_ALU64 | BPF_MOV | BPF_X, R_TYPE, R_LEFT, 0, 0);
	emit(c, BPF_ALU64 | BPF_AND | BPF_K, R_TYPE, 0, 0, 0xffff);
	emit(c, BPF_ALU64 | BPF_RSH | BPF_K, R_LEFT, 0, 0, 16);
	emit(c, BPF_LDX | BPF_W | BPF_MEM, R_MAJOR, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, major), 0);
	emit(c, BPF_LDX | BPF_W | BPF_MEM, R_MINOR, BPF_REG_1, offsetof(struct bpf_cgroup_dev_ctx, minor), 0);
	for (size_t i = r->n; i-- > 0;) {
		const struct pf_device_rule *e = &r->rule[i];
		emit_rule(c, e);
		/* Nothing before a rule about everything has a say. */
		if (e->type == 'a' && e->major < 0 && e->minor < 0 && e->access == PF_DEV_ALL)
			break;
	}
	emit_return(c, 0);
}

static int sys_bpf(int cmd, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int load(const struct code *c, struct pf_err *err)
{
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insn_cnt = (uint32_t)c->n,
		.insns = (uint64_t)(uintptr_t)c->insn,
		.license = (uint64_t)(uintptr_t) "Apache-2.0",
		.prog_name = "pinfold_dev"};
	int fd = sys_bpf(BPF_PROG_LOAD, &attr);

	if (fd < 0 && errno == EPERM) {
		/* Before 5.11 programs count as locked memory. Raising the limit may be refused: then the
		 * load tells. */
		struct rlimit r;
		if (getrlimit(RLIMIT_MEMLOCK, &r) == 0) {
			r.rlim_cur = r.rlim_max;
			(void)setrlimit(RLIMIT_MEMLOCK, &r);
		}
		fd = sys_bpf(BPF_PROG_LOAD, &attr);
	}
	if (fd < 0)
		return pf_fail_kind(err,
			errno == EPERM || errno == ENOSYS ? PF_ERR_UNSUPPORTED : PF_ERR_SYSTEM, errno,
			"load the device filter (remedy: run as root on a kernel with CONFIG_CGROUP_BPF)");
	return fd;
}

#define KEPT 16

static struct {
	struct code code;
	int fd;
} kept[KEPT];
static size_t n_kept;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

/* A loaded program for the rules. *own is set when the caller has to close it (the cache is full). Takes code
 * over. */
static int loaded(struct code *code, bool *own, struct pf_err *err)
{
	size_t len = code->n * sizeof(*code->insn);
	int fd = -1;

	*own = false;
	pthread_mutex_lock(&kept_lock);
	for (size_t i = 0; i < n_kept && fd < 0; i++)
		if (kept[i].code.n == code->n && memcmp(kept[i].code.insn, code->insn, len) == 0)
			fd = kept[i].fd;
	if (fd < 0 && (fd = load(code, err)) >= 0) {
		if (n_kept < KEPT) {
			kept[n_kept].code = *code;
			kept[n_kept++].fd = fd;
			code->insn = NULL;
		} else {
			*own = true;
		}
	}
	pthread_mutex_unlock(&kept_lock);
	free(code->insn);
	code->insn = NULL;
	return fd;
}

static int program_id(int fd, uint32_t *id)
{
	struct bpf_prog_info info = {0};
	union bpf_attr attr = {.info = {.bpf_fd = (uint32_t)fd,
				       .info_len = sizeof(info),
				       .info = (uint64_t)(uintptr_t)&info}};

	if (sys_bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) < 0)
		return -1;
	*id = info.id;
	return 0;
}

static int attach(const struct pf_cgroup *cg, int prog, struct pf_err *err)
{
	uint32_t ids[MAX_ATTACHED] = {0}, own = 0;
	union bpf_attr query;
	bool there = false;

	memset(&query, 0, sizeof(query));
	query.query.target_fd = (uint32_t)pf_cgroup_fd(cg);
	query.query.attach_type = BPF_CGROUP_DEVICE;
	query.query.prog_ids = (uint64_t)(uintptr_t)ids;
	query.query.prog_cnt = MAX_ATTACHED;
	if (sys_bpf(BPF_PROG_QUERY, &query) < 0 || program_id(prog, &own) < 0)
		return pf_fail(err, errno, "device filter of cgroup %s", pf_cgroup_path(cg));
	for (uint32_t i = 0; i < query.query.prog_cnt; i++)
		there |= ids[i] == own;
	union bpf_attr put = {.target_fd = (uint32_t)pf_cgroup_fd(cg),
		.attach_bpf_fd = (uint32_t)prog,
		.attach_type = BPF_CGROUP_DEVICE,
		.attach_flags = BPF_F_ALLOW_MULTI};
	if (!there && sys_bpf(BPF_PROG_ATTACH, &put) < 0)
		return pf_fail(err, errno, "attach the device filter to cgroup %s%s", pf_cgroup_path(cg),
			errno == EPERM
				? " (remedy: run as root; a parent cgroup must not have an exclusive filter)"
				: "");
	for (uint32_t i = 0; i < query.query.prog_cnt; i++) {
		union bpf_attr get = {.prog_id = ids[i]};
		PF_CLOSE int old = ids[i] == own ? -1 : sys_bpf(BPF_PROG_GET_FD_BY_ID, &get);
		if (ids[i] == own || (old < 0 && errno == ENOENT))
			continue;
		union bpf_attr drop = {.target_fd = (uint32_t)pf_cgroup_fd(cg),
			.attach_bpf_fd = (uint32_t)old,
			.attach_type = BPF_CGROUP_DEVICE};
		if (old < 0 || sys_bpf(BPF_PROG_DETACH, &drop) < 0)
			return pf_fail(
				err, errno, "detach the old device filter of cgroup %s", pf_cgroup_path(cg));
	}
	return 0;
}

int pf_device_in_force(const struct pf_cgroup *cg)
{
	union bpf_attr query;

	memset(&query, 0, sizeof(query));
	query.query.target_fd = (uint32_t)pf_cgroup_fd(cg);
	query.query.attach_type = BPF_CGROUP_DEVICE;
	if (pf_cgroup_fd(cg) < 0 || sys_bpf(BPF_PROG_QUERY, &query) < 0)
		return -1;
	return query.query.prog_cnt > 0;
}

/* ---- v1 alone ---- */

static bool is_all(const struct pf_device_rule *e)
{
	return e->type == 'a' && e->major < 0 && e->minor < 0 && e->access == PF_DEV_ALL;
}

static bool same_numbers(const struct pf_device_rule *a, const struct pf_device_rule *b)
{
	return a->type == b->type && a->major == b->major && a->minor == b->minor;
}

static bool overlap(const struct pf_device_rule *a, const struct pf_device_rule *b)
{
	return (a->access & b->access) && (a->type == 'a' || b->type == 'a' || a->type == b->type) &&
	       (a->major < 0 || b->major < 0 || a->major == b->major) &&
	       (a->minor < 0 || b->minor < 0 || a->minor == b->minor);
}

/* v1 keeps one default and a list of exceptions. A rule that goes back on an exception takes effect only if
 * it has exactly its numbers, and is ignored without a word otherwise. Such lists are refused. */
static int check_v1(const struct pf_device_rules *r, size_t first, bool def, struct pf_err *err)
{
	for (size_t i = first; i < r->n; i++)
		for (size_t k = first; k < i; k++)
			if (r->rule[i].allow == def && r->rule[k].allow != def &&
				overlap(&r->rule[i], &r->rule[k]) && !same_numbers(&r->rule[i], &r->rule[k]))
				return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
					"device rules: cgroup v1 cannot take a part out of rule %zu as rule "
					"%zu asks (remedy: "
					"list what is allowed after a rule that denies everything)",
					k, i);
	return 0;
}

static int write_v1(int dir, const struct pf_cgroup *cg, const struct pf_device_rule *e, struct pf_err *err)
{
	const char *file = e->allow ? "devices.allow" : "devices.deny";
	char major[16] = "*", minor[16] = "*", text[64];

	if (e->major >= 0)
		snprintf(major, sizeof(major), "%d", e->major);
	if (e->minor >= 0)
		snprintf(minor, sizeof(minor), "%d", e->minor);
	/* For the kernel "a" means everything, whatever numbers and accesses follow: spell both types out. */
	for (const char *t = is_all(e) ? "a" : e->type == 'a' ? "bc" : e->type == 'b' ? "b" : "c"; *t; t++) {
		snprintf(text, sizeof(text), "%c %s:%s %s%s%s", *t, major, minor,
			e->access & PF_DEV_READ ? "r" : "", e->access & PF_DEV_WRITE ? "w" : "",
			e->access & PF_DEV_MKNOD ? "m" : "");
		if (pf_write_pseudo_at(dir, file, text) < 0)
			return pf_fail(
				err, errno, "write '%s' to %s of cgroup %s", text, file, pf_cgroup_path(cg));
	}
	return 0;
}

static int apply_v1(const struct pf_cgroup *cg, const struct pf_device_rules *r, struct pf_err *err)
{
	int h = cg->host.where[PF_CG_DEVICES], dir = h < 0 ? -1 : cg->dir[h];
	size_t first = r->n;

	if (dir < 0)
		return pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"device rules: this host has neither cgroup v2 nor the devices controller (remedy: "
			"mount a cgroup2 "
			"file system)");
	/* The last rule about everything sets the default; without one it is to deny. */
	while (first > 0 && !is_all(&r->rule[first - 1]))
		first--;
	bool def = first > 0 && r->rule[first - 1].allow;
	if (check_v1(r, first, def, err) < 0)
		return -1;
	/* Deny first, in any case: it also empties the list. */
	if (pf_write_pseudo_at(dir, "devices.deny", "a") < 0 ||
		(def && pf_write_pseudo_at(dir, "devices.allow", "a") < 0))
		return pf_fail(err, errno, "write the default device rule of cgroup %s", pf_cgroup_path(cg));
	for (size_t i = first; i < r->n; i++)
		if (write_v1(dir, cg, &r->rule[i], err) < 0)
			return -1;
	return 0;
}

int pf_device_apply(const struct pf_cgroup *cg, const struct pf_device_rules *r, struct pf_err *err)
{
	struct code code;
	bool own;

	if (r->n > MAX_RULES)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "device rules: more than %d", MAX_RULES);
	if (pf_cgroup_fd(cg) < 0)
		return apply_v1(cg, r, err);
	compile(r, &code);
	int prog = loaded(&code, &own, err);
	if (prog < 0)
		return -1;
	int rc = attach(cg, prog, err);
	if (own)
		close(prog);
	return rc;
}
