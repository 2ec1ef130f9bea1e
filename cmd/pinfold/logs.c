#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"

static const char help[] =
	"logs ID [--follow] [--denied] [--json]\n\n"
	"The sandbox's audit log: create, exec, egress verdicts, limits, snapshots, stop. "
	"It stays after destroy.\n\n"
	"  --denied    only connections, names and requests that were refused, as a table\n"
	"  --json      the lines as they are stored\n"
	"  -f, --follow  go on with new lines until interrupted\n";

static const char *str(const cJSON *j, const char *key)
{
	char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, key));

	/* Some of it is what a payload chose, or a gate wrote that it has taken over. */
	if (s)
		pf_one_line(s);
	return s ? s : "";
}

/* The rest of an event as "key=value" for people. */
static void print_fields(const cJSON *j)
{
	const cJSON *f;

	cJSON_ArrayForEach(f, j)
	{
		if (strcmp(f->string, "time") == 0 || strcmp(f->string, "event") == 0 || cJSON_IsNull(f))
			continue;
		PF_FREE char *text =
			cJSON_IsString(f) ? pf_strdup(f->valuestring) : cJSON_PrintUnformatted(f);
		pf_one_line(f->string);
		if (text)
			pf_one_line(text);
		printf(" %s=%s", f->string, text ? text : "");
	}
}

/* Refusals as a table: when, who, what to, why. */
static void print_denied(const cJSON *j)
{
	const cJSON *port = cJSON_GetObjectItemCaseSensitive(j, "port");
	const char *target = *str(j, "name") ? str(j, "name") : str(j, "orig"), *detail = str(j, "detail");
	char where[300], what[200] = "", who[100] = "";

	snprintf(where, sizeof(where), cJSON_IsNumber(port) ? "%s:%d" : "%s", target,
		cJSON_IsNumber(port) ? port->valueint : 0);
	if (*str(j, "method"))
		snprintf(what, sizeof(what), " %s %.160s", str(j, "method"), str(j, "path"));
	if (*str(j, "process"))
		snprintf(who, sizeof(who), "%.40s (%.40s)", str(j, "process"), str(j, "exec"));
	printf("%.8s  %-7s  %-16s  %-40s  %s%s%s%s%s%s\n",
		strlen(str(j, "time")) > 19 ? str(j, "time") + 11 : "", str(j, "kind"), str(j, "reason"),
		where, who, *who ? "  " : "", *str(j, "rule") ? "rule " : "", str(j, "rule"),
		*detail ? "  " : "", detail);
	if (*what)
		printf("%36s%s\n", "", what);
}

static void print_line(const char *line, size_t len, bool denied, bool json)
{
	struct pf_err ignored = PF_ERR_INIT;
	PF_FREE char *copy = strndup(line, len);
	char *text = copy;
	PF_JSON cJSON *j = text ? pf_json_parse("log line", text, strlen(text), &ignored) : NULL;
	bool colour = isatty(STDOUT_FILENO);

	/* A line that a full disk cut has no end: another follows on it. */
	while (!j && text && *text && (text = strstr(text + 1, "{\"time\":\"")))
		j = pf_json_parse("log line", text, strlen(text), &ignored);
	if (!j || (denied && strcmp(str(j, "event"), "egress_denied") != 0))
		return;
	if (json) {
		pf_one_line(text);
		printf("%s\n", text);
		return;
	}
	if (denied) {
		print_denied(j);
		return;
	}
	const char *event = str(j, "event");
	bool red = colour && (strstr(event, "denied") || strstr(event, "limit"));
	printf("%s %s%-14s%s", str(j, "time"), red ? "\033[31m" : "", event, red ? "\033[0m" : "");
	print_fields(j);
	putchar('\n');
}

/* Print the whole lines that are there; what begins a line that is still being written stays in rest. */
static void pump(int fd, struct pf_buf *rest, bool denied, bool json)
{
	char chunk[65536];
	struct stat st;
	ssize_t n;

	/* Somebody has copied it away and emptied it. */
	if (fstat(fd, &st) == 0 && st.st_size < lseek(fd, 0, SEEK_CUR)) {
		(void)lseek(fd, 0, SEEK_SET);
		rest->len = 0;
	}
	while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
		pf_buf_add(rest, chunk, (size_t)n);
		char *start = rest->data, *nl;
		while ((nl = memchr(start, '\n', rest->len - (size_t)(start - rest->data)))) {
			print_line(start, (size_t)(nl - start), denied, json);
			start = nl + 1;
		}
		size_t left = rest->len - (size_t)(start - rest->data);
		memmove(rest->data, start, left);
		rest->len = left;
	}
}

int pf_cmd_logs(int argc, char **argv)
{
	static const struct option options[] = {{"follow", no_argument, NULL, 'f'},
		{"denied", no_argument, NULL, 'd'}, {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	bool follow = false, denied = false, json = false;
	struct pf_err err = PF_ERR_INIT;
	PF_BUF struct pf_buf rest = {0};
	int c;

	while ((c = pf_getopt(argc, argv, options, false, help)) != -1) {
		follow = follow || c == 'f';
		denied = denied || c == 'd';
		json = json || c == 'j';
	}
	if (optind + 1 != argc)
		return pf_usage("logs", "takes one ID");
	if (pf_check_id("sandbox id", argv[optind], &err) < 0)
		return pf_report(&err);
	PF_FREE char *path = pf_asprintf("%s/logs/%s.jsonl", pf_globals.dirs.store, argv[optind]);
	PF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC), in = -1;
	if (fd < 0) {
		pf_fail_kind(&err, PF_ERR_NOT_FOUND, errno == ENOENT ? 0 : errno, "no log of sandbox '%s'",
			argv[optind]);
		return pf_report(&err);
	}
	if (follow) {
		in = inotify_init1(IN_CLOEXEC);
		if (in < 0 || inotify_add_watch(in, path, IN_MODIFY) < 0) {
			pf_fail(&err, errno, "watch the log");
			return pf_report(&err);
		}
	}
	if (denied && !json)
		printf("%-8s  %-7s  %-16s  %-40s  %s\n", "TIME", "KIND", "REASON", "TARGET",
			"WHO, RULE, DETAIL");
	for (;;) {
		char events[4096];
		pump(fd, &rest, denied, json);
		if (pf_finish_output(0, NULL) != 0)
			return PF_EXIT_FAILED;
		if (!follow || (read(in, events, sizeof(events)) < 0 && errno != EINTR))
			return 0;
	}
}
