/* What pinfold-jail prints of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "base/units.h"
#include "cmd/pinfold-jail/jail_cmd.h"

static const char *const kinds[] = {[PF_JAIL_BIND] = "bind",
	[PF_JAIL_HIDE] = "hide",
	[PF_JAIL_TMPFS] = "tmpfs",
	[PF_JAIL_PROC] = "proc",
	[PF_JAIL_DEV] = "dev",
	[PF_JAIL_MQUEUE] = "mqueue",
	[PF_JAIL_DIR] = "directory",
	[PF_JAIL_FILE] = "file",
	[PF_JAIL_SYMLINK] = "link",
	[PF_JAIL_OVERLAY] = "overlay"};

static const char *access_of(const struct pf_jail_op *op)
{
	if (op->kind == PF_JAIL_BIND)
		return op->read_only ? "read-only" : "writable";
	if (op->kind == PF_JAIL_TMPFS)
		return "writable, gone at the end";
	return op->kind == PF_JAIL_HIDE ? "hidden" : "";
}

static void print_json(cJSON *j)
{
	PF_FREE char *text = isatty(STDOUT_FILENO) ? cJSON_Print(j) : pf_json_text(j);

	puts(text);
	cJSON_Delete(j);
}

static cJSON *plan(const struct pf_jail *j)
{
	cJSON *o = cJSON_CreateObject(), *a = cJSON_AddArrayToObject(o, "files"), *limits;

	for (size_t i = 0; i < j->n_ops; i++) {
		const struct pf_jail_op *op = &j->ops[i];
		cJSON *e = cJSON_CreateObject();
		cJSON_AddStringToObject(e, "path", op->dest);
		cJSON_AddStringToObject(e, "kind", kinds[op->kind]);
		if (op->source && strcmp(op->source, op->dest) != 0)
			cJSON_AddStringToObject(e, "source", op->source);
		if (op->kind == PF_JAIL_BIND)
			cJSON_AddBoolToObject(e, "read_only", op->read_only);
		cJSON_AddStringToObject(e, "why", op->why);
		cJSON_AddItemToArray(a, e);
	}
	if (j->networking)
		cJSON_AddItemToObject(o, "networking", cJSON_Duplicate(j->networking, true));
	else
		cJSON_AddStringToObject(cJSON_AddObjectToObject(o, "networking"), "type", "none");
	a = cJSON_AddArrayToObject(o, "env");
	for (size_t i = 0; i < j->n_env; i++)
		cJSON_AddItemToArray(a, cJSON_CreateString(j->env[i]));
	cJSON_AddStringToObject(o, "cwd", j->cwd);
	cJSON_AddNumberToObject(o, "uid", j->uid);
	cJSON_AddNumberToObject(o, "gid", j->gid);
	limits = cJSON_AddObjectToObject(o, "limits");
	if (j->memory >= 0)
		pf_json_add_int(limits, "memory", j->memory);
	if (j->pids >= 0)
		pf_json_add_int(limits, "pids", j->pids);
	if (j->millicpus >= 0)
		cJSON_AddNumberToObject(limits, "cpus", (double)j->millicpus / 1000);
	if (j->timeout_ms >= 0)
		cJSON_AddNumberToObject(limits, "timeout_seconds", (double)j->timeout_ms / 1000);
	return o;
}

void pf_jail_print_plan(const struct pf_jail *j, bool json, const cJSON *doc)
{
	if (json) {
		cJSON *p = plan(j);
		cJSON_AddItemToObject(p, "config", cJSON_Duplicate(doc, true));
		print_json(p);
		return;
	}
	printf("command   ");
	for (char **a = j->argv; *a; a++)
		printf(" %s", *a);
	printf("\nas         %s (%u:%u), in %s\n", j->user_name, j->uid, j->gid, j->cwd);
	for (size_t i = 0; i < j->n_ops; i++) {
		const struct pf_jail_op *op = &j->ops[i];
		const char *how = access_of(op);
		printf("%-10s %-28s %s%s%s%s(%s)\n", kinds[op->kind], op->dest,
			op->source && strcmp(op->source, op->dest) != 0 ? "from " : "",
			op->source && strcmp(op->source, op->dest) != 0 ? op->source : "", how,
			*how || (op->source && strcmp(op->source, op->dest) != 0) ? " " : "", op->why);
	}
	printf("network    ");
	if (j->net == PF_JAIL_NET_GATE) {
		PF_FREE char *text = pf_json_text(j->networking);
		puts(text);
	} else {
		puts("none: every connection is refused at once");
	}
	printf("seccomp    %s\n", j->seccomp == PF_JAIL_SECCOMP_OFF      ? "off"
				  : j->seccomp == PF_JAIL_SECCOMP_STRICT ? "strict"
				  : j->seccomp == PF_JAIL_SECCOMP_FILE   ? "as the file says"
									 : "default");
	char buf[32];
	if (j->memory >= 0)
		printf("memory     %s\n", pf_format_size(j->memory, buf, sizeof(buf)));
	if (j->pids >= 0)
		printf("processes  %lld\n", (long long)j->pids);
	if (j->millicpus >= 0)
		printf("cpus       %.2f\n", (double)j->millicpus / 1000);
	if (j->timeout_ms >= 0)
		printf("timeout    %.1f s\n", (double)j->timeout_ms / 1000);
	printf("environment");
	for (size_t i = 0; i < j->n_env; i++)
		printf(" %.*s", (int)strcspn(j->env[i], "="), j->env[i]);
	putchar('\n');
}

void pf_jail_print_learned(const cJSON *profile)
{
	PF_FREE char *text = cJSON_Print(profile);

	puts(text);
}

void pf_jail_print_changes(const cJSON *changes)
{
	bool colour = isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
	const cJSON *e;

	cJSON_ArrayForEach(e, changes)
	{
		const char *change = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "change"));
		const char *path = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "path"));
		const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "type"));
		char letter = !change || *change == 'm' ? 'M' : *change == 'a' ? 'A' : 'D';
		const char *on = !colour         ? ""
				 : letter == 'A' ? "\033[32m"
				 : letter == 'D' ? "\033[31m"
						 : "\033[33m";
		/* The names are the command's: they must not hide or forge a line of the list. */
		PF_BUF struct pf_buf name = {0};
		pf_quote_name(&name, "", path ? path : "", path ? strlen(path) : 0);
		pf_buf_str(&name, type && strcmp(type, "directory") == 0 ? "/" : "");
		printf("%s%c %s%s\n", on, letter, name.data, colour ? "\033[0m" : "");
	}
}

cJSON *pf_jail_result_json(const struct pf_jail_result *r)
{
	cJSON *j = cJSON_CreateObject();

	pf_json_add_int(j, "exit_code", r->exit_code);
	if (r->signal)
		pf_json_add_int(j, "signal", r->signal);
	if (r->limit)
		cJSON_AddStringToObject(j, "limit", r->limit);
	cJSON_AddNumberToObject(j, "wall_ms", (double)r->wall_us / 1000);
	cJSON_AddNumberToObject(j, "cpu_ms", (double)r->cpu_us / 1000);
	pf_json_add_int(j, "memory_peak", r->memory_peak);
	if (r->out && r->err_out) {
		pf_json_add_bytes(j, "stdout", r->out, r->out_len);
		pf_json_add_bytes(j, "stderr", r->err_out, r->err_len);
		cJSON_AddBoolToObject(j, "stdout_truncated", r->out_truncated);
		cJSON_AddBoolToObject(j, "stderr_truncated", r->err_truncated);
	}
	if (r->changes) {
		cJSON_AddItemToObject(j, "changes", cJSON_Duplicate(r->changes, true));
		if (r->changes_truncated)
			cJSON_AddTrueToObject(j, "changes_truncated");
		cJSON_AddBoolToObject(j, "committed", r->committed);
	}
	if (r->kept)
		cJSON_AddItemToObject(j, "kept", cJSON_Duplicate(r->kept, true));
	if (r->learned)
		cJSON_AddItemToObject(j, "learned", cJSON_Duplicate(r->learned, true));
	if (r->denied)
		cJSON_AddItemToObject(j, "denied", cJSON_Duplicate(r->denied, true));
	return j;
}

void pf_jail_print_result(const struct pf_jail_result *r)
{
	print_json(pf_jail_result_json(r));
}
