/* What linux.seccomp means, shown in two ways: against libseccomp, which other runtimes use, wherever its own
 * meaning is plain; and against a second, slow reading of the rules for profiles that contradict themselves.
 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/path.h"
#include "base/str.h"
#include "sandbox/seccomp.h"
#include "tests/unit/seccomp_run.h"

#define X32 0x40000000U
#define ENOSYS_ACTION (SECCOMP_RET_ERRNO | ENOSYS)

struct names {
	const char *name;
	uint32_t value;
};
static const struct names action_names[] = {{"SCMP_ACT_KILL_PROCESS", SECCOMP_RET_KILL_PROCESS},
	{"SCMP_ACT_KILL_THREAD", SECCOMP_RET_KILL_THREAD}, {"SCMP_ACT_KILL", SECCOMP_RET_KILL_THREAD},
	{"SCMP_ACT_TRAP", SECCOMP_RET_TRAP}, {"SCMP_ACT_ERRNO", SECCOMP_RET_ERRNO},
	{"SCMP_ACT_NOTIFY", SECCOMP_RET_USER_NOTIF}, {"SCMP_ACT_TRACE", SECCOMP_RET_TRACE},
	{"SCMP_ACT_LOG", SECCOMP_RET_LOG}, {"SCMP_ACT_ALLOW", SECCOMP_RET_ALLOW}, {NULL, 0}};
static const struct names op_names[] = {{"SCMP_CMP_NE", SCMP_CMP_NE}, {"SCMP_CMP_LT", SCMP_CMP_LT},
	{"SCMP_CMP_LE", SCMP_CMP_LE}, {"SCMP_CMP_EQ", SCMP_CMP_EQ}, {"SCMP_CMP_GE", SCMP_CMP_GE},
	{"SCMP_CMP_GT", SCMP_CMP_GT}, {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}, {NULL, 0}};
static const struct names arch_names[] = {{"SCMP_ARCH_X86", SCMP_ARCH_X86},
	{"SCMP_ARCH_X86_64", SCMP_ARCH_X86_64}, {"SCMP_ARCH_X32", SCMP_ARCH_X32},
	{"SCMP_ARCH_ARM", SCMP_ARCH_ARM}, {"SCMP_ARCH_AARCH64", SCMP_ARCH_AARCH64},
	{"SCMP_ARCH_RISCV64", SCMP_ARCH_RISCV64}, {NULL, 0}};

static uint32_t value_of(const struct names *n, const char *name)
{
	for (; n->name; n++)
		if (strcmp(n->name, name) == 0)
			return n->value;
	fail_msg("unknown word %s", name);
	return 0;
}

static uint64_t number(const cJSON *obj, const char *key, uint64_t otherwise)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(obj, key);

	return m ? (uint64_t)m->valuedouble : otherwise;
}

static uint32_t action_of(const cJSON *obj, const char *key, const char *errno_key)
{
	uint32_t a = value_of(action_names, cJSON_GetObjectItem(obj, key)->valuestring);

	if (a == SECCOMP_RET_ERRNO || a == SECCOMP_RET_TRACE)
		a |= (uint32_t)number(obj, errno_key, EPERM);
	return a;
}

static cJSON *parse(const char *text)
{
	struct pf_err err = PF_ERR_INIT;
	cJSON *j = pf_json_parse("profile", text, strlen(text), &err);

	if (!j)
		fail_msg("%s", err.msg);
	return j;
}

static struct pf_bpf compile(const cJSON *profile)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_bpf out = {0};
	unsigned flags = 0;
	int notify = 0;

	if (pf_seccomp_oci(profile, &out, &flags, &notify, &err) < 0)
		fail_msg("%s", err.msg);
	return out;
}

static void expect_error(const char *text, const char *part)
{
	PF_JSON cJSON *j = parse(text);
	struct pf_err err = PF_ERR_INIT;
	struct pf_bpf out = {0};
	unsigned flags = 0;
	int notify = 0;

	assert_int_equal(pf_seccomp_oci(j, &out, &flags, &notify, &err), -1);
	if (!strstr(err.msg, part))
		fail_msg("'%s' is not in '%s'", part, err.msg);
	assert_null(out.insns);
}

/* --- the oracle ------------------------------------------------------------------------------------------
 */

/* The profile as other runtimes give it to libseccomp. */
static struct pf_bpf oracle(const cJSON *profile)
{
	uint32_t def = action_of(profile, "defaultAction", "defaultErrnoRet");
	const cJSON *archs = cJSON_GetObjectItem(profile, "architectures"), *a, *entry, *name, *arg;
	scmp_filter_ctx ctx = seccomp_init(def);
	struct pf_bpf out = {0};
	off_t size;
	int fd;

	assert_non_null(ctx);
	assert_int_equal(seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS), 0);
	cJSON_ArrayForEach(a, archs)
	{
		int r = seccomp_arch_add(ctx, value_of(arch_names, a->valuestring));

		assert_true(r == 0 || r == -EEXIST);
	}
	cJSON_ArrayForEach(entry, cJSON_GetObjectItem(profile, "syscalls"))
	{
		uint32_t action = action_of(entry, "action", "errnoRet");
		struct scmp_arg_cmp cmp[6];
		unsigned n = 0;

		cJSON_ArrayForEach(arg, cJSON_GetObjectItem(entry, "args"))
		{
			cmp[n] = (struct scmp_arg_cmp){.arg = (unsigned)number(arg, "index", 0),
				.op = (enum scmp_compare)value_of(
					op_names, cJSON_GetObjectItem(arg, "op")->valuestring),
				.datum_a = number(arg, "value", 0),
				.datum_b = number(arg, "valueTwo", 0)};
			n++;
		}
		if (action == def)
			continue;
		cJSON_ArrayForEach(name, cJSON_GetObjectItem(entry, "names"))
		{
			int nr = seccomp_syscall_resolve_name(name->valuestring), r;

			if (nr == __NR_SCMP_ERROR)
				continue;
			r = seccomp_rule_add_array(ctx, action, nr, n, cmp);
			if (r != 0 && r != -EEXIST)
				fail_msg("libseccomp: %s: %s", name->valuestring, strerror(-r));
		}
	}
	fd = memfd_create("oracle", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(seccomp_export_bpf(ctx, fd), 0);
	size = lseek(fd, 0, SEEK_END);
	out.insns = pf_calloc(1, (size_t)size);
	out.len = (unsigned short)((size_t)size / sizeof(*out.insns));
	assert_int_equal(pread(fd, out.insns, (size_t)size, 0), size);
	close(fd);
	seccomp_release(ctx);
	return out;
}

/* The newest number that the profile names on an architecture, -1 without any or when it is for others. */
static int64_t newest(const cJSON *profile, uint32_t token)
{
	bool listed = token == seccomp_arch_native();
	const cJSON *entry, *name, *arch;
	int64_t last = -1;

	cJSON_ArrayForEach(arch, cJSON_GetObjectItem(profile, "architectures"))
	{
		if (value_of(arch_names, arch->valuestring) == token)
			listed = true;
	}
	if (!listed)
		return -1;
	cJSON_ArrayForEach(entry, cJSON_GetObjectItem(profile, "syscalls"))
	{
		cJSON_ArrayForEach(name, cJSON_GetObjectItem(entry, "names"))
		{
			int nr = seccomp_syscall_resolve_name_arch(token, name->valuestring);

			for (int i = 337;
				token == SCMP_ARCH_X86 && nr < 0 && nr != __NR_SCMP_ERROR && i < 403; i++) {
				PF_FREE char *n = seccomp_syscall_resolve_num_arch(token, i);

				if (n && strcmp(n, name->valuestring) == 0)
					nr = i;
			}
			if (nr > last)
				last = nr;
		}
	}
	return last;
}

/* Values around everything the profile compares with. */
static size_t samples(const cJSON *profile, uint64_t *v, size_t max)
{
	const cJSON *entry, *arg;
	static const uint64_t always[] = {0, 1, UINT64_MAX, UINT32_MAX, 1ULL << 32};
	size_t n = sizeof(always) / sizeof(always[0]);

	memcpy(v, always, sizeof(always));
	cJSON_ArrayForEach(entry, cJSON_GetObjectItem(profile, "syscalls"))
	{
		cJSON_ArrayForEach(arg, cJSON_GetObjectItem(entry, "args"))
		{
			uint64_t a = number(arg, "value", 0), b = number(arg, "valueTwo", 0);
			uint64_t around[] = {a, a - 1, a + 1, ~a, a | 1ULL << 40, b, b | ~a, b ^ (a & -a)};

			for (size_t i = 0; i < sizeof(around) / sizeof(around[0]) && n < max; i++)
				v[n++] = around[i];
		}
	}
	return n;
}

static const uint32_t all_archs[] = {AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM,
	AUDIT_ARCH_RISCV64, AUDIT_ARCH_MIPS};

static uint64_t seed = 88172645463325252ULL;
static uint64_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	return seed ^= seed << 17;
}

static bool stub_applies(uint32_t def)
{
	return def != SECCOMP_RET_ALLOW && def != SECCOMP_RET_LOG &&
	       (def & SECCOMP_RET_ACTION_FULL) != SECCOMP_RET_TRACE;
}

static void same_as_oracle(const cJSON *profile)
{
	PF_BPF struct pf_bpf ours = compile(profile), theirs = oracle(profile);
	uint32_t def = action_of(profile, "defaultAction", "defaultErrnoRet");
	uint64_t v[256];
	size_t n = samples(profile, v, 256);

	for (size_t a = 0; a < sizeof(all_archs) / sizeof(all_archs[0]); a++) {
		uint32_t tokens[2] = {all_archs[a], all_archs[a] == AUDIT_ARCH_X86_64 ? SCMP_ARCH_X32 : 0};

		for (int x32 = 0; x32 < (tokens[1] ? 2 : 1); x32++) {
			int64_t last = newest(profile, tokens[x32]);

			for (int64_t i = -1; i < 1024; i++) {
				struct seccomp_data d = {.arch = all_archs[a], .nr = (int)i};
				size_t tries = n > 24 ? n : 24;

				if (x32 && i >= 0)
					d.nr = (int)((uint32_t)i | X32);
				for (size_t t = 0; t < tries; t++) {
					uint32_t want, got;

					for (int k = 0; k < 6; k++)
						d.args[k] = v[t < n ? t : rnd() % (n > 0 ? n : 1)];
					want = seccomp_run(theirs.insns, theirs.len, &d);
					if (stub_applies(def) && last >= 0 && i >= 0 && d.nr > last)
						want = ENOSYS_ACTION;
					got = seccomp_run(ours.insns, ours.len, &d);
					if (want != got)
						fail_msg("arch %x nr %d args %llx %llx %llx: libseccomp "
							 "0x%x, ours 0x%x",
							d.arch, d.nr, (unsigned long long)d.args[0],
							(unsigned long long)d.args[1],
							(unsigned long long)d.args[2], want, got);
				}
			}
		}
	}
}

/* Promise: every operator, on all bits of the argument, means what libseccomp means by it. */
static void test_operators(void **state)
{
	static const char *const ops[] = {"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"};
	static const uint64_t values[] = {
		0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000, 0x1234567890};

	(void)state;
	for (size_t o = 0; o < 7; o++)
		for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
			PF_FREE char *text =
				pf_asprintf("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"architectures\":["
					    "\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\",\"SCMP_ARCH_X32\"],"
					    "\"syscalls\":[{\"names\":[\"read\",\"lseek\"],\"action\":"
					    "\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":2,\"value\":%llu,"
					    "\"valueTwo\":%llu,\"op\":\"SCMP_CMP_%s\"}]}]}",
					(unsigned long long)values[i],
					(unsigned long long)(values[i] & 0x1111111111), ops[o]);
			PF_JSON cJSON *j = parse(text);

			same_as_oracle(j);
		}
}

/* A profile without contradictions: each name once, several rules for a name with one action only. */
static cJSON *random_profile(bool contradictions)
{
	static const char *const acts[] = {
		"ALLOW", "ERRNO", "KILL_PROCESS", "TRAP", "LOG", "TRACE", "KILL_THREAD"};
	static const char *const ops[] = {"NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"};
	PF_BUF struct pf_buf b = {0};
	int entries = (int)(rnd() % 12) + 1;

	pf_buf_printf(&b, "{\"defaultAction\":\"SCMP_ACT_%s\",\"architectures\":[", acts[rnd() % 3]);
	pf_buf_str(&b, (rnd() & 1) ? "\"SCMP_ARCH_X86\"" : "\"SCMP_ARCH_X86_64\"");
	if (rnd() & 1)
		pf_buf_str(&b, ",\"SCMP_ARCH_X32\"");
	if (rnd() & 1)
		pf_buf_str(&b, ",\"SCMP_ARCH_AARCH64\"");
	pf_buf_str(&b, "],\"syscalls\":[");
	for (int e = 0; e < entries; e++) {
		const char *action = acts[rnd() % 7];
		int names = (int)(rnd() % 40) + 1, comma = 0;

		pf_buf_printf(&b, "%s{\"names\":[", e ? "," : "");
		for (int i = 0; i < names; i++) {
			int nr = contradictions ? (int)(rnd() % 24) : (int)(rnd() % 36) * 12 + e;
			PF_FREE char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);

			/* Subcalls have a test of their own. */
			if (!name || (nr >= 29 && nr <= 31) || (nr >= 41 && nr <= 71) ||
				strstr(name, "mmsg") || strcmp(name, "accept4") == 0 ||
				strcmp(name, "semtimedop") == 0)
				continue;
			pf_buf_printf(&b, "%s\"%s\"", comma++ ? "," : "", name);
		}
		if (comma == 0)
			pf_buf_str(&b, "\"read\"");
		pf_buf_printf(&b, "],\"action\":\"SCMP_ACT_%s\"", action);
		if (strcmp(action, "ERRNO") == 0)
			pf_buf_printf(&b, ",\"errnoRet\":%d", (int)(rnd() % 50));
		if (rnd() & 1) {
			unsigned first = (unsigned)(rnd() % 3), n = (unsigned)(rnd() % 3) + 1;

			pf_buf_str(&b, ",\"args\":[");
			for (unsigned i = 0; i < n; i++)
				pf_buf_printf(&b,
					"%s{\"index\":%u,\"value\":%llu,\"valueTwo\":%llu,\"op\":\"SCMP_CMP_%"
					"s\"}",
					i ? "," : "", contradictions ? (unsigned)(rnd() % 2) : first + i,
					(unsigned long long)(rnd() & ((rnd() & 1) ? 0x7 : 0xf00000007)),
					(unsigned long long)(rnd() & 0x7), ops[rnd() % 7]);
			pf_buf_str(&b, "]");
		}
		pf_buf_str(&b, "}");
	}
	pf_buf_str(&b, "]}");
	return parse(b.data);
}

/* Promise: a profile of many rules, over several architectures, is the same filter as libseccomp's. */
static void test_random_profiles(void **state)
{
	(void)state;
	for (int i = 0; i < 15; i++) {
		PF_JSON cJSON *j = random_profile(false);
		same_as_oracle(j);
	}
}

/* Promise: the list that podman ships means the same here. */
static void test_real_profile(void **state)
{
	struct pf_err err = PF_ERR_INIT;
	PF_JSON cJSON *j = NULL;
	const cJSON *entry;
	cJSON *archs;

	(void)state;
	if (access("/usr/share/containers/seccomp.json", R_OK) < 0) {
		print_message("no /usr/share/containers/seccomp.json here\n");
		skip();
	}
	j = pf_json_load("/usr/share/containers/seccomp.json", &err);
	assert_non_null(j);
	archs = cJSON_AddArrayToObject(j, "architectures");
	cJSON_AddItemToArray(archs, cJSON_CreateString("SCMP_ARCH_X86_64"));
	cJSON_AddItemToArray(archs, cJSON_CreateString("SCMP_ARCH_X86"));
	cJSON_AddItemToArray(archs, cJSON_CreateString("SCMP_ARCH_X32"));
	/* As podman resolves it for a container with few capabilities. */
	for (int i = 0; (entry = cJSON_GetArrayItem(cJSON_GetObjectItem(j, "syscalls"), i));) {
		const cJSON *caps = cJSON_GetObjectItem(cJSON_GetObjectItem(entry, "includes"), "caps");

		if (caps)
			cJSON_DeleteItemFromArray(cJSON_GetObjectItem(j, "syscalls"), i);
		else
			i++;
	}
	same_as_oracle(j);
	{
		PF_BPF struct pf_bpf ours = compile(j), theirs = oracle(j);
		print_message("podman's list for three ABIs: %d instructions, libseccomp %d\n", ours.len,
			theirs.len);
	}
}

/* --- contradictions --------------------------------------------------------------------------------------
 */

static int strictness(uint32_t action)
{
	for (int i = 0; action_names[i].name; i++)
		if (action_names[i].value == (action & SECCOMP_RET_ACTION_FULL))
			return i;
	return -1;
}

static bool holds(const cJSON *arg, uint64_t x)
{
	uint64_t v = number(arg, "value", 0), two = number(arg, "valueTwo", 0);

	switch (value_of(op_names, cJSON_GetObjectItem(arg, "op")->valuestring)) {
	case SCMP_CMP_NE:
		return x != v;
	case SCMP_CMP_LT:
		return x < v;
	case SCMP_CMP_LE:
		return x <= v;
	case SCMP_CMP_EQ:
		return x == v;
	case SCMP_CMP_GE:
		return x >= v;
	case SCMP_CMP_GT:
		return x > v;
	default:
		return (x & v) == (two & v);
	}
}

static uint32_t slow_reading(const cJSON *profile, int64_t last, const struct seccomp_data *d)
{
	uint32_t def = action_of(profile, "defaultAction", "defaultErrnoRet"), plain = def, best = def;
	bool have_plain = false, have_best = false;
	PF_FREE char *mine = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, d->nr);
	const cJSON *entry, *name, *arg;

	if (stub_applies(def) && d->nr > last)
		return ENOSYS_ACTION;
	cJSON_ArrayForEach(entry, cJSON_GetObjectItem(profile, "syscalls"))
	{
		uint32_t action = action_of(entry, "action", "errnoRet");
		bool named = false, all = true;

		cJSON_ArrayForEach(name, cJSON_GetObjectItem(entry, "names"))
		{
			if (mine && strcmp(name->valuestring, mine) == 0)
				named = true;
		}
		cJSON_ArrayForEach(arg, cJSON_GetObjectItem(entry, "args"))
		{
			if (!holds(arg, d->args[number(arg, "index", 0)]))
				all = false;
		}
		if (!named || !all)
			continue;
		if (!cJSON_GetObjectItem(entry, "args")) {
			if (!have_plain && action != def) {
				plain = action;
				have_plain = true;
			}
		} else if (!have_best || strictness(action) < strictness(best)) {
			best = action;
			have_best = true;
		}
	}
	if (have_plain)
		return have_best && strictness(best) < strictness(plain) ? best : plain;
	return best;
}

/* Promise: with any number of conflicting rules and several conditions on one argument, the filter does what
 * the documented order says, and nothing else. */
static void test_contradictions(void **state)
{
	(void)state;
	if (seccomp_arch_native() != SCMP_ARCH_X86_64)
		skip();
	for (int i = 0; i < 300; i++) {
		PF_JSON cJSON *j = random_profile(true);
		PF_BPF struct pf_bpf ours = compile(j);
		uint64_t v[256];
		size_t n = samples(j, v, 256);
		int64_t last = newest(j, SCMP_ARCH_X86_64);

		for (int nr = 0; nr < 30; nr++)
			for (int t = 0; t < 40; t++) {
				struct seccomp_data d = {.arch = AUDIT_ARCH_X86_64, .nr = nr};
				uint32_t want, got;

				for (int k = 0; k < 6; k++)
					d.args[k] = v[rnd() % n];
				want = slow_reading(j, last, &d);
				got = seccomp_run(ours.insns, ours.len, &d);
				if (want != got) {
					PF_FREE char *text = pf_json_text(j);
					fail_msg("nr %d args %llx %llx: want 0x%x got 0x%x in %s", nr,
						(unsigned long long)d.args[0], (unsigned long long)d.args[1],
						want, got, text);
				}
			}
	}
}

static uint32_t ask(const struct pf_bpf *b, uint32_t arch, uint32_t nr, uint64_t a0)
{
	struct seccomp_data d = {.arch = arch, .nr = (int)nr, .args = {a0}};

	return seccomp_run(b->insns, b->len, &d);
}

/* Promise: two "not equal" on one argument refuse both values; elsewhere they became an OR that admits all.
 */
static void test_two_conditions_on_one_argument(void **state)
{
	PF_JSON cJSON *j = parse(
		"{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{\"names\":[\"socket\"],"
		"\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0,\"value\":40,\"op\":\"SCMP_CMP_NE\"},"
		"{\"index\":0,\"value\":38,\"op\":\"SCMP_CMP_NE\"}]}]}");
	PF_BPF struct pf_bpf b = compile(j);
	uint32_t arch = seccomp_arch_native(), nr = (uint32_t)seccomp_syscall_resolve_name("socket");

	(void)state;
	for (uint64_t family = 0; family < 64; family++)
		assert_int_equal(ask(&b, arch, nr, family),
			family == 38 || family == 40 ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_ALLOW);
}

/* Promise: an explicit refusal holds next to a rule that allows the call. */
static void test_refusal_beside_allow(void **state)
{
	static const char *const orders[] = {
		"{\"names\":[\"socket\"],\"action\":\"SCMP_ACT_ALLOW\"},{\"names\":[\"socket\"],\"action\":"
		"\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":38,\"op\":\"SCMP_CMP_EQ\"}]}",
		"{\"names\":[\"socket\"],\"action\":\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":38,"
		"\"op\":"
		"\"SCMP_CMP_EQ\"}]},{\"names\":[\"socket\"],\"action\":\"SCMP_ACT_ALLOW\"}"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		PF_FREE char *text =
			pf_asprintf("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[%s]}", orders[i]);
		PF_JSON cJSON *j = parse(text);
		PF_BPF struct pf_bpf b = compile(j);
		uint32_t arch = seccomp_arch_native(), nr = (uint32_t)seccomp_syscall_resolve_name("socket");

		assert_int_equal(ask(&b, arch, nr, 38), SECCOMP_RET_ERRNO | EPERM);
		assert_int_equal(ask(&b, arch, nr, 2), SECCOMP_RET_ALLOW);
	}
}

/* Promise: what is refused is refused through i386's socketcall and ipc too, also with ipc's version bits
 * set, and nothing is allowed through them whose arguments the filter cannot see. */
static void test_subcalls(void **state)
{
	PF_JSON cJSON *deny = parse(
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_X86\"],\"syscalls\":[{"
		"\"names\":"
		"[\"bind\",\"shmget\"],\"action\":\"SCMP_ACT_ERRNO\"},{\"names\":[\"socket\"],\"action\":"
		"\"SCMP_ACT_ERRNO\",\"args\":[{\"index\":0,\"value\":38,\"op\":\"SCMP_CMP_EQ\"}]}]}");
	PF_JSON cJSON *allow = parse(
		"{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"architectures\":[\"SCMP_ARCH_X86\"],\"syscalls\":[{"
		"\"names\":"
		"[\"listen\",\"shutdown\"],\"action\":\"SCMP_ACT_ALLOW\"},{\"names\":[\"socket\"],\"action\":"
		"\"SCMP_ACT_ALLOW\",\"args\":[{\"index\":0,\"value\":2,\"op\":\"SCMP_CMP_EQ\"}]}]}");
	PF_BPF struct pf_bpf d = compile(deny), a = compile(allow);
	const uint32_t socketcall = 102, ipc = 117, x86 = AUDIT_ARCH_I386, no = SECCOMP_RET_ERRNO | EPERM;

	(void)state;
	assert_int_equal(ask(&d, x86, 361, 0), no); /* bind itself */
	assert_int_equal(ask(&d, x86, socketcall, 2), no);
	assert_int_equal(ask(&d, x86, socketcall, 1), no); /* socket: the family is out of sight */
	assert_int_equal(ask(&d, x86, socketcall, 3), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&d, x86, ipc, 23), no);
	assert_int_equal(ask(&d, x86, ipc, 23 | 1 << 16), no);
	assert_int_equal(ask(&d, x86, ipc, 24), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&a, x86, socketcall, 4), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&a, x86, socketcall, 13), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&a, x86, socketcall, 1), no);
	assert_int_equal(ask(&a, x86, 359, 2), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&a, x86, 359, 3), no);
}

/* Promise: calls younger than the profile fail with ENOSYS; the newest named and older ones do not; a profile
 * that names a call younger than libseccomp means it. */
static void test_young_calls(void **state)
{
	PF_JSON cJSON *j =
		parse("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[{\"names\":[\"read\",\"statx\","
		      "\"not_a_call\"],\"action\":\"SCMP_ACT_ALLOW\"}]}");
	PF_JSON cJSON *young =
		parse("{\"defaultAction\":\"SCMP_ACT_KILL\",\"syscalls\":[{\"names\":[\"mseal\"],"
		      "\"action\":\"SCMP_ACT_ALLOW\"}]}");
	PF_BPF struct pf_bpf b = compile(j), y = compile(young);
	uint32_t arch = seccomp_arch_native(), statx = (uint32_t)seccomp_syscall_resolve_name("statx");

	(void)state;
	assert_int_equal(ask(&b, arch, statx, 0), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&b, arch, statx - 1, 0), SECCOMP_RET_ERRNO | EPERM);
	assert_int_equal(ask(&b, arch, statx + 1, 0), ENOSYS_ACTION);
	assert_int_equal(ask(&b, arch, 435, 0), ENOSYS_ACTION);
	assert_int_equal(ask(&b, arch, UINT32_MAX, 0), SECCOMP_RET_ERRNO | EPERM);
	assert_int_equal(ask(&y, arch, 462, 0), SECCOMP_RET_ALLOW);
	assert_int_equal(ask(&y, arch, 461, 0), SECCOMP_RET_KILL_THREAD);
	assert_int_equal(ask(&y, arch, 463, 0), ENOSYS_ACTION);
}

/* Promise: whatever is not understood is an error that names it; nothing is left out silently. */
static void test_errors(void **state)
{
	(void)state;
	expect_error("{}", "defaultAction is missing");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ERNO\"}", "did you mean 'SCMP_ACT_ERRNO'");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"defaultErrnoRet\":1}", "takes no errno");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"defaultErrnoRet\":5000}", "defaultErrnoRet");
	expect_error("{\"defaultAction\":\"SCMP_ACT_NOTIFY\"}", "cannot be the default");
	expect_error(
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_PDP11\"]}", "PDP11");
	expect_error(
		"{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"SECCOMP_FILTER_FLAG_X\"]}", "FLAG_X");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerMetadata\":\"x\"}", "listenerPath");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[],\"action\":\"SCMP_"
		     "ACT_KILL\"}]}",
		"syscalls[0]: names");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"]}]}",
		"action is missing");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":"
		     "\"SCMP_ACT_NOTIFY\"}]}",
		"needs a listenerPath");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerPath\":\"/"
		     "x\",\"syscalls\":[{\"names\":[\"write\"],"
		     "\"action\":\"SCMP_ACT_NOTIFY\"}]}",
		"write");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":"
		     "\"SCMP_ACT_KILL\",\"args\":[{\"index\":6,\"value\":0,\"op\":\"SCMP_CMP_EQ\"}]}]}",
		"args[0].index");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":"
		     "\"SCMP_ACT_KILL\",\"args\":[{\"index\":0,\"value\":0,\"op\":\"SCMP_CMP_EQUAL\"}]}]}",
		"unknown operator 'SCMP_CMP_EQUAL'");
	expect_error("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"read\"],\"action\":"
		     "\"SCMP_ACT_KILL\",\"args\":[{\"index\":0,\"value\":18446744073709551615,\"op\":\"SCMP_"
		     "CMP_EQ\"}]}]}",
		"args[0].value");
}

/* Promise: flags go through, and notification brings the listener and what it needs. */
static void test_flags(void **state)
{
	PF_JSON cJSON *j =
		parse("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"listenerPath\":\"/x\",\"flags\":["
		      "\"SECCOMP_FILTER_FLAG_TSYNC\",\"SECCOMP_FILTER_FLAG_LOG\"],\"syscalls\":[{\"names\":"
		      "[\"mkdir\"],\"action\":\"SCMP_ACT_NOTIFY\"}]}");
	PF_JSON cJSON *k =
		parse("{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":["
		      "\"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\",\"SECCOMP_FILTER_FLAG_SPEC_ALLOW\"]}");
	struct pf_err err = PF_ERR_INIT;
	unsigned flags = 0;
	int notify = -1;

	(void)state;
	assert_int_equal(pf_seccomp_oci_flags(j, &flags, &notify, &err), 0);
	assert_int_equal(notify, 1);
	assert_int_equal(flags, 1 | 2 | 8 | 16);
	assert_int_equal(pf_seccomp_oci_flags(k, &flags, &notify, &err), 0);
	assert_int_equal(notify, 0);
	assert_int_equal(flags, SECCOMP_FILTER_FLAG_SPEC_ALLOW);
}

/* Promise: through the cache comes the same filter, with the same flags, the first time and the second. */
static void test_cached(void **state)
{
	PF_FREE char *dir = pf_asprintf("/tmp/pf-seccomp-oci-%d", (int)getpid());
	PF_JSON cJSON *j = random_profile(true), *bad = parse("{\"defaultAction\":\"SCMP_ACT_NO\"}");
	PF_BPF struct pf_bpf built = compile(j);
	struct pf_err err = PF_ERR_INIT;
	struct pf_bpf none = {0};
	unsigned flags = 0;
	int notify = 0, fd;

	(void)state;
	assert_int_equal(mkdir(dir, 0700), 0);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		PF_BPF struct pf_bpf out = {0};

		assert_int_equal(pf_seccomp_oci_cached(fd, j, &out, &flags, &notify, &err), 0);
		assert_int_equal(out.len, built.len);
		assert_memory_equal(out.insns, built.insns, built.len * sizeof(*built.insns));
	}
	assert_int_equal(pf_seccomp_oci_cached(fd, bad, &none, &flags, &notify, &err), -1);
	close(fd);
	assert_int_equal(pf_rm_rf_at(AT_FDCWD, dir, &err), 0);
}

/* Promise: jumps across more than 255 instructions work, and a filter the kernel would not take is an error.
 */
static void test_large(void **state)
{
	PF_BUF struct pf_buf b = {0};
	PF_JSON cJSON *j = NULL, *too_large = NULL;

	(void)state;
	for (int pass = 0; pass < 2; pass++) {
		pf_buf_done(&b);
		pf_buf_str(&b, "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[");
		for (int nr = 0; nr < 300; nr++) {
			PF_FREE char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);

			if (!name || (pass == 0 && nr >= 100))
				continue;
			for (int i = 0; i < (pass ? 8 : 3); i++)
				pf_buf_printf(&b,
					"%s{\"names\":[\"%s\"],\"action\":\"SCMP_ACT_ALLOW\",\"args\":[{"
					"\"index\":%d,"
					"\"value\":%d,\"op\":\"SCMP_CMP_GT\"},{\"index\":%d,\"value\":%lld,"
					"\"op\":"
					"\"SCMP_CMP_LT\"}]}",
					nr || i ? "," : "", name, i % 6, nr * 7 + i, (i + 1) % 6,
					(long long)(nr * 77LL << 20) + i);
		}
		pf_buf_str(&b, "]}");
		if (pass == 0) {
			j = parse(b.data);
		} else {
			struct pf_err err = PF_ERR_INIT;
			struct pf_bpf out = {0};
			unsigned flags = 0;
			int notify = 0;

			too_large = parse(b.data);
			assert_int_equal(pf_seccomp_oci(too_large, &out, &flags, &notify, &err), -1);
			assert_non_null(strstr(err.msg, "4096"));
		}
	}
	if (seccomp_arch_native() == SCMP_ARCH_X86_64) {
		PF_BPF struct pf_bpf ours = compile(j);
		int64_t last = newest(j, SCMP_ARCH_X86_64);

		assert_true(ours.len > 1000);
		for (int nr = 0; nr < 101; nr++)
			for (int t = 0; t < 100; t++) {
				struct seccomp_data d = {.arch = AUDIT_ARCH_X86_64, .nr = nr};

				for (int k = 0; k < 6; k++)
					d.args[k] = (uint64_t)(nr * 7) + rnd() % 8 +
						    ((rnd() & 1) ? (rnd() % 9) << 31 : 0);
				assert_int_equal(
					seccomp_run(ours.insns, ours.len, &d), slow_reading(j, last, &d));
			}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operators),
		cmocka_unit_test(test_random_profiles),
		cmocka_unit_test(test_real_profile),
		cmocka_unit_test(test_contradictions),
		cmocka_unit_test(test_two_conditions_on_one_argument),
		cmocka_unit_test(test_refusal_beside_allow),
		cmocka_unit_test(test_subcalls),
		cmocka_unit_test(test_young_calls),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
