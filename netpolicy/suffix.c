#include "netpolicy/suffix.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"

#define LIST "/usr/share/publicsuffix/public_suffix_list.dat"
#define LIST_MAX ((size_t)4 << 20)
#define ICANN_END "// ===END ICANN DOMAINS==="
/* idn2.h, which nothing else needs at build time. */
#define IDN2_NFC_INPUT 1
#define IDN2_NONTRANSITIONAL 8

/* Second-level suffixes that are the same in many countries: "*.co.uk" is as wide as "*.com". */
static bool is_common(const char *host, const char *dot)
{
	static const char *const shared[] = {
		"ac", "co", "com", "edu", "gov", "ne", "net", "nom", "or", "org", "web", NULL};

	if (strchr(dot + 1, '.') || strlen(dot + 1) != 2)
		return false;
	for (size_t i = 0; shared[i]; i++)
		if (strlen(shared[i]) == (size_t)(dot - host) &&
			strncmp(host, shared[i], (size_t)(dot - host)) == 0)
			return true;
	return false;
}

static bool has_line(const char *text, const char *mark, const char *name)
{
	PF_FREE char *line = pf_asprintf("\n%s%s\n", mark, name);

	return strstr(text, line) != NULL;
}

bool pf_is_public_suffix(const char *host)
{
	const char *dot = strchr(host, '.');
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *text = NULL;

	if (!dot || is_common(host, dot))
		return true;
	if (pf_read_file_at(AT_FDCWD, LIST, LIST_MAX, &text, NULL, &ignored) < 0)
		return false;
	/* What follows are domains of companies: "*.googleapis.com" is one owner's. */
	char *end = strstr(text, ICANN_END);
	if (end)
		*end = '\0';
	if (has_line(text, "!", host))
		return false;
	return has_line(text, "", host) || has_line(text, "*.", dot + 1);
}

char *pf_name_to_ascii(const char *name, struct pf_err *err)
{
	void *lib = dlopen("libidn2.so.0", RTLD_NOW | RTLD_LOCAL);
	int (*lookup)(const uint8_t *, uint8_t **, int) = NULL;
	uint8_t *ascii = NULL;

	if (lib)
		*(void **)&lookup = dlsym(lib, "idn2_lookup_u8");
	if (!lookup) {
		if (lib)
			dlclose(lib);
		pf_fail_kind(err, PF_ERR_UNSUPPORTED, 0,
			"'%s' is not ASCII, and libidn2 is not installed: write the name in its punycode "
			"form (xn--…)",
			name);
		return NULL;
	}
	int r = lookup((const uint8_t *)name, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	char *copy = r == 0 ? pf_strdup((char *)ascii) : NULL;
	free(ascii);
	dlclose(lib);
	if (!copy)
		pf_fail_kind(err, PF_ERR_INVALID, 0, "'%s' is no internationalised host name", name);
	return copy;
}
