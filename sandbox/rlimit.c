/* Resource limits. Raising a hard limit takes CAP_SYS_RESOURCE in the *initial* user namespace, which a
 * container host often lacks: that is found out before anything is built, and said with its remedy. */
#include "sandbox/rlimit.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/str.h"

_Static_assert(RLIM_INFINITY == UINT64_MAX, "limits go through unchanged");

/* By number, which differs between architectures. */
static const char *const limit_names[] = {[RLIMIT_CPU] = "RLIMIT_CPU",
	[RLIMIT_FSIZE] = "RLIMIT_FSIZE",
	[RLIMIT_DATA] = "RLIMIT_DATA",
	[RLIMIT_STACK] = "RLIMIT_STACK",
	[RLIMIT_CORE] = "RLIMIT_CORE",
	[RLIMIT_RSS] = "RLIMIT_RSS",
	[RLIMIT_NPROC] = "RLIMIT_NPROC",
	[RLIMIT_NOFILE] = "RLIMIT_NOFILE",
	[RLIMIT_MEMLOCK] = "RLIMIT_MEMLOCK",
	[RLIMIT_AS] = "RLIMIT_AS",
	[RLIMIT_LOCKS] = "RLIMIT_LOCKS",
	[RLIMIT_SIGPENDING] = "RLIMIT_SIGPENDING",
	[RLIMIT_MSGQUEUE] = "RLIMIT_MSGQUEUE",
	[RLIMIT_NICE] = "RLIMIT_NICE",
	[RLIMIT_RTPRIO] = "RLIMIT_RTPRIO",
	[RLIMIT_RTTIME] = "RLIMIT_RTTIME",
	[RLIM_NLIMITS] = NULL};

const char *pf_rlimit_name(int resource)
{
	return resource >= 0 && resource < (int)RLIM_NLIMITS ? limit_names[resource] : NULL;
}

int pf_rlimit_parse(const char *name, struct pf_err *err)
{
	bool prefixed = strncasecmp(name, "RLIMIT_", 7) == 0;
	const char *near;
	char upper[64];

	snprintf(upper, sizeof(upper), "%s%s", prefixed ? "" : "RLIMIT_", name);
	for (char *p = upper; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	for (int i = 0; limit_names[i]; i++)
		if (strcmp(limit_names[i], upper) == 0)
			return i;
	near = pf_nearest(upper, limit_names);
	return pf_fail_kind(err, PF_ERR_INVALID, 0, "unknown resource limit '%s'%s%s%s", name,
		near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool may_raise(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

	return syscall(SYS_capget, &header, data) == 0 && (data[0].effective & (1U << CAP_SYS_RESOURCE)) != 0;
}

static int fail_raise(const struct pf_rlimit *l, uint64_t ours, int errnum, struct pf_err *err)
{
	const char *name = pf_rlimit_name(l->resource);
	char want[24] = "unlimited";

	if (l->hard != UINT64_MAX)
		snprintf(want, sizeof(want), "%" PRIu64, l->hard);
	return pf_fail_kind(err, PF_ERR_UNSUPPORTED, errnum,
		"%s: hard limit %s is above our own, %" PRIu64
		", and raising it takes CAP_SYS_RESOURCE: ask for at most %" PRIu64
		", or raise the caller's limit",
		name ? name : "resource limit", want, ours, ours);
}

int pf_rlimits_check(const struct pf_rlimit *limits, size_t n, struct pf_err *err)
{
	bool seen[RLIM_NLIMITS] = {false}, raise = may_raise();

	for (size_t i = 0; i < n; i++) {
		const struct pf_rlimit *l = &limits[i];
		const char *name = pf_rlimit_name(l->resource);
		struct rlimit64 own;

		if (!name)
			return pf_fail_kind(
				err, PF_ERR_INVALID, 0, "no resource limit has number %d", l->resource);
		if (seen[l->resource])
			return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s is given twice", name);
		seen[l->resource] = true;
		if (l->soft > l->hard)
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s: soft limit %" PRIu64 " is above the hard limit %" PRIu64, name, l->soft,
				l->hard);
		if (syscall(SYS_prlimit64, 0, l->resource, NULL, &own) < 0)
			return pf_fail(err, errno, "%s", name);
		if (l->hard > own.rlim_max && !raise)
			return fail_raise(l, own.rlim_max, 0, err);
	}
	return 0;
}

uint64_t pf_rlimit_no_core(void)
{
	struct rlimit own;

	return getrlimit(RLIMIT_CORE, &own) == 0 && own.rlim_max > 0 ? 1 : 0;
}

int pf_rlimits_apply(const struct pf_rlimit *limits, size_t n, size_t *failed)
{
	for (size_t i = 0; i < n; i++) {
		struct rlimit64 l = {.rlim_cur = limits[i].soft, .rlim_max = limits[i].hard};

		if (syscall(SYS_prlimit64, 0, limits[i].resource, &l, NULL) < 0) {
			if (failed)
				*failed = i;
			return -1;
		}
	}
	return 0;
}

int pf_rlimit_fail(const struct pf_rlimit *limit, int errnum, struct pf_err *err)
{
	const char *name = pf_rlimit_name(limit->resource);
	struct rlimit64 own = {0};

	if (errnum == EPERM && syscall(SYS_prlimit64, 0, limit->resource, NULL, &own) == 0 &&
		limit->hard > own.rlim_max)
		return fail_raise(limit, own.rlim_max, errnum, err);
	return pf_fail(err, errnum, "%s", name ? name : "resource limit");
}
