#include "session/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "session/state.h"

static char *json_line(const char *level, const char *msg, const char *code)
{
	PF_JSON cJSON *j = cJSON_CreateObject();
	char now[32];

	cJSON_AddStringToObject(j, "level", level);
	cJSON_AddStringToObject(j, "msg", msg);
	if (code)
		cJSON_AddStringToObject(j, "code", code);
	cJSON_AddStringToObject(j, "time", pf_time_now(now));
	return pf_json_text(j);
}

void pf_log_say(const struct pf_log_to *to, const char *level, const char *msg, const char *code)
{
	PF_FREE char *json = to->json ? json_line(level, msg, code) : NULL;
	bool error = strcmp(level, "error") == 0;
	const char *mark = error ? "" : "warning: ";

	if (to->file) {
		PF_CLOSE int fd = open(to->file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (fd >= 0 && json)
			dprintf(fd, "%s\n", json);
		else if (fd >= 0)
			dprintf(fd, "pinfold: %s%s\n", mark, msg);
	}
	if (json && !to->file)
		fprintf(stderr, "%s\n", json);
	else if (error || !to->file)
		fprintf(stderr, "pinfold: %s%s\n", mark, msg);
}
