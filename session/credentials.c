/* Theory of operation.
 *
 * A sandbox file names credentials and says what they may be used for; where a secret comes from and which
 * hosts it is for is mostly not its author's business but the administrator's, who keeps that in a file of
 * his own (the bindings). Each setting may stand in one of both, never in both: neither silently overrules
 * the other.
 *
 * Secrets go from where they are into a memfd, are looked at there once (is it one line?), and go on as a
 * descriptor to pinfold-tls. This program's own memory, which the keeper inherits, never holds a copy. */
#include "session/credentials.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "netpolicy/creds.h"
#include "session/config_read.h"
#include "session/control.h"
#include "session/record.h"

#define SECRET_MAX 16384
#define COMMAND_MS 30000
#define ETC_BINDINGS "/etc/pinfold/credentials.json"

void pf_credentials_done(struct pf_credentials *c)
{
	cJSON_Delete(c->list);
	for (size_t i = 0; i < c->n_secrets; i++) {
		free(c->secrets[i].name);
		if (c->secrets[i].fd >= 0)
			close(c->secrets[i].fd);
	}
	free(c->secrets);
	pf_strv_free(c->env);
	pf_strv_free(c->warnings);
	*c = (struct pf_credentials){0};
}

/* ---- where secrets come from */

static int from_fd(int fd, int to, const char *where, struct pf_err *err)
{
	char chunk[4096];
	size_t total = 0;
	ssize_t n;

	while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 || (total += (size_t)n) > SECRET_MAX || pf_write_all(to, chunk, (size_t)n) < 0) {
			int e = n < 0 ? errno : 0;
			explicit_bzero(chunk, sizeof(chunk));
			return pf_fail_kind(err, PF_ERR_INVALID, e,
				"%s: cannot be read, or is longer than 16 KiB", where);
		}
	}
	explicit_bzero(chunk, sizeof(chunk));
	return 0;
}

/* A line end inside would be another header to an HTTP server. */
static int check_line(int fd, const char *where, struct pf_err *err)
{
	struct stat st;
	bool odd = false;

	if (fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s", where);
	if (st.st_size == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: the secret is empty", where);
	size_t len = (size_t)st.st_size;
	const char *s = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
	if (s == MAP_FAILED)
		return pf_fail(err, errno, "%s: mmap", where);
	size_t n = len;
	while (n && (s[n - 1] == '\n' || s[n - 1] == '\r'))
		n--;
	for (size_t i = 0; i < n; i++)
		odd = odd || (unsigned char)s[i] < ' ' || s[i] == 0x7f;
	(void)munmap((void *)(uintptr_t)s, len);
	if (n == 0 || odd)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: the secret is empty, or has a line break or another control character in it",
			where);
	return 0;
}

static int from_file(const char *path, int to, const char *where, struct pf_err *err)
{
	PF_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno, "%s: %s",
			where, path);
	if (!S_ISREG(st.st_mode) || st.st_size > SECRET_MAX)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s: %s is no regular file of at most 16 KiB", where, path);
	off_t at = 0;
	while (at < st.st_size) {
		ssize_t n = sendfile(to, fd, &at, (size_t)(st.st_size - at));
		if (n <= 0)
			return pf_fail(err, n < 0 ? errno : EIO, "%s: %s", where, path);
	}
	return 0;
}

static int from_command(char *const *argv, int to, const char *where, struct pf_err *err)
{
	if (!argv || !argv[0] || argv[0][0] != '/')
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s.command: begins with an absolute path", where);
	pid_t pid = fork();
	if (pid == 0) {
		char *const env[] = {
			(char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
		int null = open("/dev/null", O_RDWR);
		(void)dup2(null, 0);
		(void)dup2(to, 1);
		(void)close_range(3, ~0U, 0);
		execve(argv[0], argv, env);
		_exit(127);
	}
	if (pid < 0)
		return pf_fail(err, errno, "%s: fork", where);
	PF_CLOSE int pidfd = pidfd_open(pid, 0);
	int status = 0;
	bool late = pidfd < 0 || pf_pidfd_wait(pidfd, COMMAND_MS) != 1;
	if (late)
		(void)kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (late)
		return pf_fail_kind(
			err, PF_ERR_SYSTEM, 0, "%s: %s did not end within 30 seconds", where, argv[0]);
	if (status != 0)
		return pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s: %s failed (status %d)", where, argv[0],
			WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	return 0;
}

static int fetch(const cJSON *source, const char *where, struct pf_err *err)
{
	static const char *const keys[] = {"file", "fd", "command", NULL};
	PF_CLOSE int to = memfd_create("secret", MFD_CLOEXEC);
	const char *file = NULL;
	char **argv = NULL;
	int64_t fd = -1;
	int r;

	if (to < 0)
		return pf_fail(err, errno, "%s: memfd_create", where);
	if (!cJSON_IsObject(source) || cJSON_GetArraySize(source) != 1)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: must be {\"file\": PATH}, {\"fd\": N} or {\"command\": [PROGRAM, …]}", where);
	if (pf_json_known(source, where, keys, err) < 0 ||
		pf_json_str(source, where, "file", &file, err) < 0 ||
		pf_json_int(source, where, "fd", 0, 65536, &fd, err) < 0 ||
		pf_json_strv(source, where, "command", &argv, err) < 0)
		return -1;
	if (file)
		r = from_file(file, to, where, err);
	else if (fd >= 0)
		r = from_fd((int)fd, to, where, err);
	else
		r = from_command(argv, to, where, err);
	pf_strv_free(argv);
	return r < 0 || check_line(to, where, err) < 0 ? -1 : pf_take_fd(&to);
}

/* ---- what it is for */

static void add_strings(cJSON *to, const char *key, const char *const *v)
{
	cJSON *a = cJSON_AddArrayToObject(to, key);
	for (; *v; v++)
		cJSON_AddItemToArray(a, cJSON_CreateString(*v));
}

/* "read:contacts": reading methods, and paths that are about contacts. */
static int read_scope(
	const char *scope, const cJSON *scopes, cJSON *to, const char *where, struct pf_err *err)
{
	static const char *const reading[] = {"GET", "HEAD", "OPTIONS", NULL};
	const char *colon = strchr(scope, ':'), *what = colon ? colon + 1 : "*";
	size_t verb = colon ? (size_t)(colon - scope) : strlen(scope);
	bool reads =
		(verb == 4 && strncmp(scope, "read", 4) == 0) ||
		(verb == 9 && (strncmp(scope, "read_only", 9) == 0 || strncmp(scope, "read-only", 9) == 0));
	bool all = (verb == 1 && *scope == '*') || (verb == 4 && strncmp(scope, "full", 4) == 0) ||
		   (verb == 5 && strncmp(scope, "write", 5) == 0) ||
		   (verb == 10 && strncmp(scope, "read_write", 10) == 0);

	for (const char *p = what; *p; p++)
		all = all && (isalnum((unsigned char)*p) || strchr("_.-*", *p));
	if ((!reads && !all) || !*what || strpbrk(what, " ,:/"))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.scope: '%.64s' is not understood (read_only, read:*, read:WHAT, write:WHAT, "
			"full): say it "
			"with methods and paths",
			where, scope);
	if (reads && !cJSON_HasObjectItem(to, "methods"))
		add_strings(to, "methods", reading);
	cJSON_AddStringToObject(to, "scope", scope);
	if (strcmp(what, "*") == 0 || cJSON_HasObjectItem(to, "paths"))
		return 0;
	const cJSON *mapped = cJSON_GetObjectItemCaseSensitive(scopes, what);
	if (mapped) {
		cJSON_AddItemToObject(to, "paths", cJSON_Duplicate(mapped, true));
		return 0;
	}
	PF_FREE char *a = pf_asprintf("/%s", what), *b = pf_asprintf("/%s/**", what);
	PF_FREE char *c = pf_asprintf("/**/%s", what), *d = pf_asprintf("/**/%s/**", what);
	add_strings(to, "paths", (const char *const[]){a, b, c, d, NULL});
	return 0;
}

static void make_placeholder(char out[PF_PLACEHOLDER_LEN + 1])
{
	uint8_t r[20];

	/* Unguessable, or one sandbox could use what another was given. */
	if (getrandom(r, sizeof(r), 0) != (ssize_t)sizeof(r))
		abort();
	strcpy(out, PF_PLACEHOLDER_PREFIX);
	for (size_t i = 0; i < sizeof(r); i++)
		sprintf(out + sizeof(PF_PLACEHOLDER_PREFIX) - 1 + 2 * i, "%02x", r[i]);
}

static char *env_name(const char *given, const char *name)
{
	char *s = pf_strdup(given ? given : name);

	for (char *p = s; !given && *p; p++)
		*p = isalnum((unsigned char)*p) ? (char)toupper((unsigned char)*p) : '_';
	return s;
}

static bool is_env_name(const char *s)
{
	if (!*s || isdigit((unsigned char)*s))
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '_')
			return false;
	return true;
}

/* The setting of the sandbox file or of the bindings. */
static int either(const cJSON *file, const cJSON *binding, const char *where, const char *key,
	const cJSON **out, struct pf_err *err)
{
	const cJSON *a = cJSON_GetObjectItemCaseSensitive(file, key),
		    *b = cJSON_GetObjectItemCaseSensitive(binding, key);

	if (a && b)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s.%s: stands in the sandbox file and in the administrator's credentials; one must "
			"go",
			where, key);
	*out = a ? a : b;
	return 0;
}

static int read_injection(const cJSON *j, cJSON *to, const char *where, struct pf_err *err)
{
	static const char *const keys[] = {"header", "headers", "body", NULL};
	const cJSON *headers = NULL, *h;
	bool header = !j, body = false;

	if (j && (!cJSON_IsObject(j) || pf_json_known(j, where, keys, err) < 0 ||
			 pf_json_bool(j, where, "header", &header, err) < 0 ||
			 pf_json_arr(j, where, "headers", &headers, err) < 0 ||
			 pf_json_bool(j, where, "body", &body, err) < 0))
		return *err->msg ? -1 : pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: must be an object", where);
	if (headers && header)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: header is all of them, headers are some; one must go", where);
	if (headers && cJSON_GetArraySize(headers) == 0)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.headers: is empty", where);
	cJSON_ArrayForEach(h, headers)
	{
		const char *name = cJSON_GetStringValue(h);
		if (!name || !*name || name[strcspn(name, " \t\r\n:")])
			return pf_fail_kind(err, PF_ERR_INVALID, 0,
				"%s.headers: '%.64s' is no name of a header", where, name ? name : "");
	}
	if (!header && !headers && !body)
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s: neither header nor body is true", where);
	cJSON_AddBoolToObject(to, "header", header);
	if (headers)
		cJSON_AddItemToObject(to, "headers", cJSON_Duplicate(headers, true));
	cJSON_AddBoolToObject(to, "body", body);
	return 0;
}

static bool is_set(char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return true;
	return false;
}

static int check_env(const struct pf_config *config, const struct pf_credentials *out, const char *name,
	const char *where, struct pf_err *err)
{
	if (!is_env_name(name))
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s.env: '%.64s' is no name of a variable", where, name);
	if (is_set(config->env, name))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: its placeholder would be in %s, which env sets too", where, name);
	/* "api.key" and "api-key" are both API_KEY. */
	if (is_set(out->env, name))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s: its placeholder would be in %s, as that of another credential; give one of them "
			"another env",
			where, name);
	return 0;
}

static int resolve_one(const struct pf_config *config, const struct pf_config_credential *cr,
	const cJSON *raw, const cJSON *binding, struct pf_credentials *out, struct pf_err *err)
{
	static const char *const copied[] = {"hosts", "methods", "paths"};
	PF_FREE char *where = pf_asprintf("credentials.%s", cr->name);
	PF_FREE char *at_source = pf_asprintf("%s.source", where),
		     *at_where = pf_asprintf("%s.injection_location", where);
	const cJSON *source, *env, *injection, *scopes, *j;
	char placeholder[PF_PLACEHOLDER_LEN + 1];

	if (either(raw, binding, where, "source", &source, err) < 0 ||
		either(raw, binding, where, "env", &env, err) < 0 ||
		either(raw, binding, where, "injection_location", &injection, err) < 0 ||
		either(raw, binding, where, "scopes", &scopes, err) < 0)
		return -1;
	if (strcasecmp(cr->type, "database") == 0 || !source) {
		pf_cfg_append(&out->warnings, "credentials.%s: %s", cr->name,
			source ? "a database speaks no HTTP: the secret is not used"
			       : "no source is given, neither here nor by the administrator: it is not "
				 "there");
		return 0;
	}
	cJSON *to = cJSON_CreateObject();
	cJSON_AddItemToArray(out->list, to);
	cJSON_AddStringToObject(to, "name", cr->name);
	for (size_t i = 0; i < sizeof(copied) / sizeof(*copied); i++) {
		if (either(raw, binding, where, copied[i], &j, err) < 0)
			return -1;
		if (j)
			cJSON_AddItemToObject(to, copied[i], cJSON_Duplicate(j, true));
	}
	if (cr->scope && read_scope(cr->scope, scopes, to, where, err) < 0)
		return -1;
	if (cr->max_requests_per_hour > 0)
		pf_json_add_int(to, "max_requests_per_hour", cr->max_requests_per_hour);
	if (cr->validity_ms > 0)
		pf_json_add_int(to, "expires", (int64_t)time(NULL) + cr->validity_ms / 1000);
	if (read_injection(injection, to, at_where, err) < 0)
		return -1;
	if (env && !cJSON_IsString(env))
		return pf_fail_kind(err, PF_ERR_INVALID, 0, "%s.env: expected a string", where);
	PF_FREE char *name = env_name(env ? env->valuestring : NULL, cr->name);
	if (check_env(config, out, name, where, err) < 0)
		return -1;
	make_placeholder(placeholder);
	cJSON_AddStringToObject(to, "placeholder", placeholder);
	pf_cfg_append(&out->env, "%s=%s", name, placeholder);
	int fd = fetch(source, at_source, err);
	if (fd < 0)
		return -1;
	out->secrets[out->n_secrets++] = (struct pf_secret){.name = pf_strdup(cr->name), .fd = fd};
	return 0;
}

/* ---- the administrator's file */

/* It says which programs are run, as whoever runs us. */
static int check_owner(const char *path, struct pf_err *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return pf_fail_kind(err, errno == ENOENT ? PF_ERR_NOT_FOUND : PF_ERR_SYSTEM, errno,
			"credentials file %s", path);
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & 022))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"credentials file %s: others than its owner can write to it (chmod 600 it)", path);
	return 0;
}

static int load_bindings(const char *store, const char *path, cJSON **out, struct pf_err *err)
{
	static const char *const keys[] = {
		"source", "hosts", "env", "injection_location", "scopes", "methods", "paths", NULL};
	PF_FREE char *own = pf_asprintf("%s/credentials.json", store);

	*out = NULL;
	if (!path)
		path = access(own, F_OK) == 0 ? own : access(ETC_BINDINGS, F_OK) == 0 ? ETC_BINDINGS : NULL;
	if (!path)
		return 0;
	if (check_owner(path, err) < 0)
		return -1;
	*out = pf_json_load(path, err);
	if (!*out)
		return -1;
	if (!cJSON_IsObject(*out))
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "%s: must be an object of named credentials", path);
	for (const cJSON *j = (*out)->child; j; j = j->next)
		if (!cJSON_IsObject(j) || pf_json_known(j, j->string, keys, err) < 0)
			return *err->msg ? pf_wrap(err, "%s", path)
					 : pf_fail_kind(err, PF_ERR_INVALID, 0,
						   "%s: '%.64s' must be an object", path, j->string);
	return 0;
}

int pf_credentials_resolve(const struct pf_config *config, const char *store, const char *bindings,
	struct pf_credentials *out, struct pf_err *err)
{
	PF_JSON cJSON *bound = NULL;

	*out = (struct pf_credentials){0};
	if (!config->n_credentials)
		return 0;
	if (load_bindings(store, bindings, &bound, err) < 0)
		return -1;
	out->list = cJSON_CreateArray();
	out->env = pf_cfg_empty_list();
	out->warnings = pf_cfg_empty_list();
	out->secrets = pf_calloc(config->n_credentials, sizeof(*out->secrets));
	for (size_t i = 0; i < config->n_credentials; i++) {
		const char *name = config->credentials[i].name;
		if (resolve_one(config, &config->credentials[i],
			    cJSON_GetObjectItemCaseSensitive(config->credentials_raw, name),
			    cJSON_GetObjectItemCaseSensitive(bound, name), out, err) < 0) {
			pf_credentials_done(out);
			return -1;
		}
	}
	return 0;
}

/* ---- rotation */

static int fetch_again(
	const struct pf_dirs *d, const char *id, const char *name, const char *bindings, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_sandbox(d, id, false, err);
	PF_JSON cJSON *record = dir < 0 ? NULL : pf_session_record_load(dir, err), *bound = NULL;
	PF_FREE char *where = pf_asprintf("credentials.%s.source", name);

	if (!record || load_bindings(d->store, bindings, &bound, err) < 0)
		return -1;
	const cJSON *config = cJSON_GetObjectItemCaseSensitive(record, "config");
	const cJSON *raw = cJSON_GetObjectItemCaseSensitive(
		cJSON_GetObjectItemCaseSensitive(config, "credentials"), name);
	const cJSON *source = cJSON_GetObjectItemCaseSensitive(raw, "source");
	if (!source)
		source = cJSON_GetObjectItemCaseSensitive(
			cJSON_GetObjectItemCaseSensitive(bound, name), "source");
	if (!source)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0,
			"credential '%s' of sandbox '%s' has no source to read again; give a file", name, id);
	/* Here that number is another descriptor, or none. */
	if (cJSON_HasObjectItem(source, "fd"))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"credential '%s' of sandbox '%s' was given as a descriptor; give a file", name, id);
	return fetch(source, where, err);
}

int pf_session_rotate(const struct pf_dirs *d, const char *id, const char *name, const char *file,
	const char *bindings, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject(), *answer = NULL;
	PF_CLOSE int fd = -1;

	if (!file) {
		fd = fetch_again(d, id, name, bindings, err);
	} else {
		PF_CLOSE int to = memfd_create("secret", MFD_CLOEXEC);
		int r = to < 0                   ? pf_fail(err, errno, "memfd_create")
			: strcmp(file, "-") == 0 ? from_fd(STDIN_FILENO, to, "standard input", err)
						 : from_file(file, to, "secret", err);
		if (r == 0 && check_line(to, "secret", err) == 0)
			fd = pf_take_fd(&to);
	}
	if (fd < 0)
		return -1;
	cJSON_AddStringToObject(msg, "op", "secret");
	cJSON_AddStringToObject(msg, "name", name);
	answer = pf_control_ask_with(d, id, msg, fd, err);
	return answer ? 0 : -1;
}
