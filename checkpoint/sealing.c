#include "checkpoint/sealing.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"

#define FILE_NAME "sealing.json"

void pf_sealing_done(struct pf_sealing *s)
{
	free(s->key);
	*s = (struct pf_sealing){0};
}

int pf_sealing_read(int storefd, struct pf_sealing *s, struct pf_err *err)
{
	static const char *const keys[] = {"version", "key", "default", NULL};
	PF_FREE char *text = NULL;
	struct pf_err why = PF_ERR_INIT;
	const char *key = NULL;
	int64_t version = 0;
	size_t len = 0;

	*s = (struct pf_sealing){0};
	if (pf_read_file_at(storefd, FILE_NAME, 65536, &text, &len, &why) < 0) {
		if (why.kind == PF_ERR_NOT_FOUND)
			return 0;
		*err = why;
		return -1;
	}
	PF_JSON cJSON *j = pf_json_parse(FILE_NAME, text, len, err);
	if (!j || pf_json_known(j, FILE_NAME, keys, err) < 0 ||
		pf_json_int(j, FILE_NAME, "version", 1, 1, &version, err) < 0 ||
		pf_json_str(j, FILE_NAME, "key", &key, err) < 0 ||
		pf_json_bool(j, FILE_NAME, "default", &s->by_default, err) < 0)
		return -1;
	if (version != 1)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, FILE_NAME ": version must be 1");
	s->key = key ? pf_strdup(key) : NULL;
	return 0;
}

int pf_sealing_write(int storefd, const struct pf_sealing *s, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddNumberToObject(j, "version", 1);
	if (s->key)
		cJSON_AddStringToObject(j, "key", s->key);
	cJSON_AddBoolToObject(j, "default", s->by_default);
	PF_FREE char *text = pf_json_text(j);
	return pf_replace_file_at(storefd, FILE_NAME, text, strlen(text), 0600, true, err);
}
