#include "base/units.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Reads digits with an optional fraction as thousandths. Returns the first byte after, NULL on overflow or
 * when there is no digit. */
static const char *read_milli(const char *s, int64_t *milli)
{
	int64_t v = 0;
	const char *p = s;

	if (!isdigit((unsigned char)*p))
		return NULL;
	for (; isdigit((unsigned char)*p); p++) {
		if (v > (INT64_MAX / 1000 - 9) / 10)
			return NULL;
		v = v * 10 + (*p - '0');
	}
	v *= 1000;
	if (*p == '.') {
		int64_t scale = 100;
		p++;
		if (!isdigit((unsigned char)*p))
			return NULL;
		for (; isdigit((unsigned char)*p); p++) {
			v += scale * (*p - '0');
			scale /= 10;
		}
	}
	*milli = v;
	return p;
}

int pf_parse_size(const char *what, const char *s, int64_t *bytes, struct pf_err *err)
{
	static const char *const units[] = {"", "k", "m", "g", "t"};
	int64_t milli;
	const char *p = read_milli(s, &milli);

	if (p) {
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
			char one[8], two[8], three[8];
			snprintf(one, sizeof(one), "%s", units[i]);
			snprintf(two, sizeof(two), "%sb", units[i]);
			snprintf(three, sizeof(three), "%sib", units[i]);
			if (strcasecmp(p, one) != 0 && strcasecmp(p, two) != 0 &&
				(i == 0 || strcasecmp(p, three) != 0))
				continue;
			int64_t mult = (int64_t)1 << (10 * i);
			if (milli / 1000 >= ((int64_t)1 << 53) / mult)
				break;
			/* Whole part first, so that large sizes keep every bit. */
			int64_t v = milli / 1000 * mult + milli % 1000 * mult / 1000;
			if (v <= 0)
				break;
			*bytes = v;
			return 0;
		}
	}
	return pf_fail_kind(err, PF_ERR_INVALID, 0,
		"%s: '%.64s' is not a size (write bytes, or a number with K, M, G or T, as in 512M)", what,
		s);
}

int pf_parse_duration(const char *what, const char *s, int64_t *ms, struct pf_err *err)
{
	static const struct {
		const char *name;
		int64_t ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	const int64_t max = (int64_t)3650 * 86400000;
	int64_t total = 0;
	const char *p = s;
	bool ok = *s != '\0';

	while (ok && *p) {
		int64_t milli;
		const char *q = read_milli(p, &milli);
		if (!q || milli / 1000 > max) {
			ok = false;
			break;
		}
		size_t len = 0;
		while (isalpha((unsigned char)q[len]))
			len++;
		int64_t unit = 0;
		if (len == 0 && p == s && *q == '\0')
			unit = 1000; /* a plain number is seconds */
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
			if (len == strlen(units[i].name) && strncmp(q, units[i].name, len) == 0)
				unit = units[i].ms;
		if (unit == 0 || milli / 1000 > max / unit) {
			ok = false;
			break;
		}
		total += milli / 1000 * unit + milli % 1000 * unit / 1000;
		if (total > max)
			ok = false;
		p = q + len;
	}
	if (!ok || total <= 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%.64s' is not a duration (write seconds, or as in 90s, 5m, 1h30m, 250ms, 30d)",
			what, s);
	*ms = total;
	return 0;
}

int pf_parse_cpus(const char *what, const char *s, int64_t *millicpus, struct pf_err *err)
{
	int64_t milli;
	const char *p = read_milli(s, &milli);

	if (!p || *p || milli < 10 || milli > 4096000)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%.64s' is not a cpu count (write as in 1, 0.5 or 2.25; at least 0.01)", what,
			s);
	*millicpus = milli;
	return 0;
}

int pf_parse_int(const char *what, const char *s, int64_t min, int64_t max, int64_t *out, struct pf_err *err)
{
	int64_t v = 0;
	const char *p = s;

	for (; isdigit((unsigned char)*p) && v <= INT64_MAX / 10 - 1; p++)
		v = v * 10 + (*p - '0');
	if (p == s || *p || v < min || v > max)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: '%.64s' is not a number from %lld to %lld",
			what, s, (long long)min, (long long)max);
	*out = v;
	return 0;
}

int pf_parse_user_ids(const char *what, const char *s, uint32_t *uid, uint32_t *gid, struct pf_err *err)
{
	char one[32];
	const char *colon = strchr(s, ':');
	size_t len = colon ? (size_t)(colon - s) : strlen(s);
	int64_t v;

	/* Never cut: of 31 zeros and a 5, the zeros alone would be root. */
	if (len >= sizeof(one))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: '%.64s' is not a user id", what, s);
	memcpy(one, s, len);
	one[len] = '\0';
	if (pf_parse_int(what, one, 0, 4294967294LL, &v, err) < 0)
		return -1;
	uint32_t u = (uint32_t)v;
	if (colon) {
		if (pf_parse_int(what, colon + 1, 0, 4294967294LL, &v, err) < 0)
			return -1;
		*gid = (uint32_t)v;
	}
	*uid = u;
	return 0;
}

char *pf_format_size(int64_t bytes, char *buf, size_t len)
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double v = (double)bytes;
	size_t i = 0;

	for (; (v >= 1000 || v <= -1000) && i + 1 < sizeof(units) / sizeof(units[0]); i++)
		v /= 1000;
	snprintf(buf, len, i == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, units[i]);
	return buf;
}

char *pf_format_us(int64_t us, char *buf, size_t len)
{
	if (us < 1000)
		snprintf(buf, len, "%lld us", (long long)us);
	else if (us < 1000000)
		snprintf(buf, len, "%.2f ms", (double)us / 1e3);
	else
		snprintf(buf, len, "%.2f s", (double)us / 1e6);
	return buf;
}
