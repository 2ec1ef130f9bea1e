#include "session/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "netpolicy/gate.h"
#include "session/state.h"

int pf_audit_open(const struct pf_dirs *d, const char *id, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_open(d->store, "logs", err);
	char name[200];

	if (dir < 0)
		return -1;
	snprintf(name, sizeof(name), "%.128s.jsonl", id);
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? pf_fail(err, errno, "audit log %s", name) : fd;
}

/* On a full disk the beginning of a line may fit. It is ended before the next one, which would be lost with
 * it; where that is another process's, the reader finds where it begins. */
static int append(int fd, const char *text, size_t len)
{
	static bool cut;

	if (cut && pf_write_all(fd, "\n", 1) < 0)
		return -1;
	cut = pf_write_all(fd, text, len) < 0;
	return cut ? -1 : 0;
}

int pf_audit_write(int fd, const char *event, cJSON *fields, struct pf_err *err)
{
	PF_JSON cJSON *line = cJSON_CreateObject();
	char now[32];

	cJSON_AddStringToObject(line, "time", pf_time_now(now));
	cJSON_AddStringToObject(line, "event", event);
	while (fields && fields->child) {
		cJSON *f = fields->child;
		PF_FREE char *key = pf_strdup(f->string);
		cJSON_AddItemToObject(line, key, cJSON_DetachItemViaPointer(fields, f));
	}
	cJSON_Delete(fields);
	PF_FREE char *text = pf_json_text(line);
	PF_BUF struct pf_buf b = {0};
	pf_buf_str(&b, text);
	pf_buf_add(&b, "\n", 1);
	if (append(fd, b.data, b.len) < 0)
		return pf_fail(err, errno, "audit log");
	return 0;
}

#define LINES_MAX ((size_t)32 << 10)

bool pf_audit_is_full(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size >= PF_AUDIT_FULL;
}

/* A payload can have lines written as fast as it connects, also to what it may: what the file holds of the
 * host's disk is bounded, until somebody rotates it. What was left out is told, once at each end. */
static bool is_full(struct pf_audit_lines *l)
{
	struct pf_err ignored = PF_ERR_INIT;
	bool full = pf_audit_is_full(l->fd);

	if (full == l->full)
		return full;
	cJSON *fields = cJSON_CreateObject();
	pf_json_add_int(fields, full ? "limit" : "suppressed", full ? PF_AUDIT_FULL : (int64_t)l->left_out);
	(void)pf_audit_write(l->fd, full ? "log_full" : "log_resumed", fields, &ignored);
	l->full = full;
	l->left_out = 0;
	return full;
}

void pf_audit_flush(struct pf_audit_lines *l)
{
	if (l->text.len && !is_full(l))
		(void)append(l->fd, l->text.data, l->text.len);
	else
		for (size_t i = 0; i < l->text.len; i++)
			l->left_out += l->text.data[i] == '\n';
	l->text.len = 0;
}

void pf_audit_verdict(struct pf_audit_lines *l, const struct pf_gate_event *ev)
{
	const char *event = strcmp(ev->verdict, "deny") == 0    ? "egress_denied"
			    : strcmp(ev->verdict, "allow") == 0 ? "egress_allowed"
								: "egress_error";
	char now[32];

	pf_buf_str(&l->text, "{\"time\":\"");
	pf_buf_str(&l->text, pf_time_now(now));
	pf_buf_str(&l->text, "\",\"event\":\"");
	pf_buf_str(&l->text, event);
	pf_buf_str(&l->text, "\"");
	pf_gate_event_text(ev, &l->text);
	pf_buf_str(&l->text, "}\n");
	if (l->text.len > LINES_MAX)
		pf_audit_flush(l);
}
