/* User strings. A number that is not quite a number must never fall back to 0, and a name must never be read
 * as one: whatever begins with a digit is a number as a whole, or it is refused. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "base/units.h"
#include "session/config.h"

#define MAX_NAME 64
#define MAX_ID 4294967294LL /* the one above means "unchanged" to chown(2) and setuid(2) */

static bool is_name(const char *s)
{
	if (!isalpha((unsigned char)*s) && *s != '_')
		return false;
	for (const char *p = s; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("_.-", *p))
			return false;
	return strlen(s) <= MAX_NAME;
}

static int half(const char *what, const char *s, int64_t *id, char **name, struct pf_err *err)
{
	if (isdigit((unsigned char)*s))
		return pf_parse_int(what, s, 0, MAX_ID, id, err);
	if (!is_name(s))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: '%.64s' is neither a number nor a name (write UID, UID:GID or name:group)", what,
			s);
	*name = pf_strdup(s);
	return 0;
}

int pf_config_user_parse(const char *what, const char *text, struct pf_config_user *out, struct pf_err *err)
{
	PF_FREE char *copy = pf_strdup(text);
	struct pf_config_user u = {.uid = -1, .gid = -1};
	char *colon = strchr(copy, ':');

	if (colon)
		*colon++ = '\0';
	if (half(what, copy, &u.uid, &u.name, err) < 0 ||
		(colon && half(what, colon, &u.gid, &u.group_name, err) < 0)) {
		pf_config_user_done(&u);
		return -1;
	}
	u.text = pf_strdup(text);
	*out = u;
	return 0;
}

void pf_config_user_done(struct pf_config_user *u)
{
	free(u->text);
	free(u->name);
	free(u->group_name);
	*u = (struct pf_config_user){.uid = -1, .gid = -1};
}
