/* Theory of operation: grep. Where the image has ripgrep, outside of the working directory, it does the work.
 * Else the files are searched here, with libc's extended regular expressions: the pattern, which is written
 * for another dialect, is put into that one as far as it goes, and what has no counterpart (looking around)
 * is refused. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/pinfold-tool/tool.h"

#define OUTPUT_MAX ((size_t)100 * 1024)
#define TIMEOUT_MS 60000
#define LINE_MAX_LEN 2000
#define DEPTH_MAX 40
#define ENTRIES_MAX 50000

/* ---- ripgrep ---- */

/* The first executable `rg` of an absolute PATH entry that does not lie in the working directory. */
static char *find_rg(void)
{
	const char *path = getenv("PATH");
	char *copy = strdup(path ? path : ""), *save = NULL, *found = NULL;

	for (char *dir = strtok_r(copy, ":", &save); dir && !found; dir = strtok_r(NULL, ":", &save)) {
		struct text t = {0};
		struct stat st;
		add_str(&t, dir);
		add_str(&t, "/rg");
		char *real = *dir == '/' ? realpath(t.s, NULL) : NULL;
		if (real && stat(real, &st) == 0 && S_ISREG(st.st_mode) && access(real, X_OK) == 0 &&
			!within(workdir(), real) && !in_roots(real))
			found = real;
		else
			free(real);
		text_done(&t);
	}
	free(copy);
	return found;
}

static void reap(pid_t pid, int *status)
{
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
}

/* Reads both pipes until they end. Returns false when it took too long. */
static bool collect(int out_fd, int err_fd, pid_t pid, struct text *out, struct text *errors)
{
	struct pollfd p[2] = {{.fd = out_fd, .events = POLLIN}, {.fd = err_fd, .events = POLLIN}};
	int64_t end = now_ms() + TIMEOUT_MS;
	static char buf[65536];

	while (p[0].fd >= 0 || p[1].fd >= 0) {
		int64_t left = end - now_ms();
		if (left <= 0)
			return false;
		if (poll(p, 2, (int)left) < 0 && errno != EINTR)
			return false;
		for (int i = 0; i < 2; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			ssize_t n = read(p[i].fd, buf, sizeof(buf));
			struct text *t = i ? errors : out;
			if (n > 0 && t->len <= OUTPUT_MAX)
				add(t, buf, (size_t)n);
			if (n <= 0)
				p[i].fd = -1;
		}
		if (out->len > OUTPUT_MAX) {
			(void)kill(pid, SIGKILL);
			return true;
		}
	}
	return true;
}

static bool run_rg(const char *rg, const char *pattern, const char *where, struct text *out)
{
	static char *const nothing[] = {NULL};
	char *argv[] = {(char *)"rg", (char *)"--no-config", (char *)"-n", (char *)"--no-heading",
		(char *)"-e", (char *)(uintptr_t)pattern, (char *)"--", (char *)(uintptr_t)where, NULL};
	struct text errors = {0};
	int o[2], e[2], status = 0;

	if (pipe2(o, O_CLOEXEC) < 0)
		return fail(out, "grep: rg failed: %s", strerror(errno));
	if (pipe2(e, O_CLOEXEC) < 0) {
		close(o[0]);
		close(o[1]);
		return fail(out, "grep: rg failed: %s", strerror(errno));
	}
	char **env = scrubbed_env(nothing);
	pid_t pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);
		if (null >= 0 && dup2(null, 0) == 0 && dup2(o[1], 1) == 1 && dup2(e[1], 2) == 2)
			execve(rg, argv, env);
		_exit(127);
	}
	free(env);
	close(o[1]);
	close(e[1]);
	bool in_time = pid > 0 && collect(o[0], e[0], pid, out, &errors);
	close(o[0]);
	close(e[0]);
	if (pid > 0) {
		if (!in_time)
			(void)kill(pid, SIGKILL);
		reap(pid, &status);
	}
	bool ok = true;
	if (!in_time) {
		ok = fail(out, "grep: timed out after %ds", TIMEOUT_MS / 1000);
	} else if (out->len > OUTPUT_MAX) {
		out->len = OUTPUT_MAX;
		add_fmt(out, "\n[output truncated at %zu bytes]", OUTPUT_MAX);
	} else if (WIFEXITED(status) && WEXITSTATUS(status) == 1) {
		out->len = 0;
		add_str(out, "no matches");
	} else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		struct text why = {0};
		if (errors.len)
			add(&why, errors.s, errors.len);
		else
			add_fmt(&why, "exit %d",
				WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		ok = fail(out, "grep: rg failed: %s", why.s);
		text_done(&why);
	}
	text_done(&errors);
	return ok;
}

/* ---- the pattern ---- */

#define UNCLOSED "brackets that do not close"

/* One escape of the other dialect, behind its backslash; *p is left on its last character. */
static const char *escape(const char **p, bool in_set, struct text *to)
{
	static const struct {
		char c;
		const char *set, *word;
	} classes[] = {{'d', "0-9", "[0-9]"}, {'D', NULL, "[^0-9]"}, {'w', "A-Za-z0-9_", "[A-Za-z0-9_]"},
		{'W', NULL, "[^A-Za-z0-9_]"}, {'s', " \t\r\n\f\v", "[ \t\r\n\f\v]"},
		{'S', NULL, "[^ \t\r\n\f\v]"}, {'b', NULL, "\\b"}, {'B', NULL, "\\B"}};
	static const char controls[] = "t\tr\rn\nf\fv\v";
	char c = **p;

	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (c == classes[i].c) {
			if (in_set && !classes[i].set)
				return "a negated class inside brackets";
			add_str(to, in_set ? classes[i].set : classes[i].word);
			return NULL;
		}
	for (size_t i = 0; controls[i]; i += 2)
		if (c == controls[i]) {
			add(to, &controls[i + 1], 1);
			return NULL;
		}
	if (c == 'x' || c == 'u') {
		char digits[5] = {0}, *end;
		memcpy(digits, *p + 1, strnlen(*p + 1, c == 'x' ? 2 : 4));
		long v = strtol(digits, &end, 16);
		if (strlen(digits) != (c == 'x' ? 2u : 4u) || *end || v == 0 || v > 127)
			return "that \\x or \\u";
		*p += strlen(digits);
		if (!in_set && strchr(".[]{}()*+?|^$\\", (int)v))
			add_str(to, "\\");
		add_fmt(to, "%c", (char)v);
		return NULL;
	}
	if (!in_set)
		add_str(to, "\\");
	/* A letter that is no escape stands for itself in neither dialect the same way: take the letter. */
	if (!in_set && ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("/\"'-:;,=@%&#~`!<> ", c)))
		to->s[--to->len] = '\0';
	add(to, &c, 1);
	return NULL;
}

/* A set in brackets: POSIX has no escapes there, `]` must come first and `-` last. */
static const char *set(const char **at, struct text *to)
{
	const char *p = *at + 1, *bad;
	struct text body = {0};
	bool bracket = false, dash = false, negated = *p == '^', caret = false;

	p += negated;
	for (; *p && *p != ']'; p++) {
		if (*p == '\\' && p[1]) {
			p++;
			if (*p == ']') {
				bracket = true;
			} else if (*p == '-') {
				dash = true;
			} else if (*p == '^') {
				caret = true;
			} else if ((bad = escape(&p, true, &body))) {
				text_done(&body);
				return bad;
			}
		} else {
			add(&body, p, 1);
			if (*p == '[' && strchr(".:=", p[1])) {
				/* Not a class name in the other dialect. */
				text_done(&body);
				return "that set in brackets";
			}
		}
	}
	if (!*p)
		return text_done(&body), UNCLOSED;
	add_str(to, negated ? "[^" : "[");
	add_str(to, bracket ? "]" : "");
	if (body.len)
		add(to, body.s, body.len);
	add_str(to, caret ? "^" : "");
	add_str(to, dash ? "-" : "");
	add_str(to, "]");
	text_done(&body);
	*at = p;
	return NULL;
}

/* Returns what of the pattern has no counterpart, or NULL. */
static const char *translate(const char *pattern, struct text *to)
{
	const char *bad = NULL;

	add_str(to, "");
	for (const char *p = pattern; *p && !bad; p++) {
		if (*p == '\\' && p[1]) {
			p++;
			if (*p >= '1' && *p <= '9')
				add_fmt(to, "\\%c", *p);
			else
				bad = escape(&p, false, to);
		} else if (*p == '[') {
			bad = set(&p, to);
		} else if (*p == '(' && p[1] == '?') {
			if (p[2] == ':') {
				add_str(to, "(");
				p += 2;
			} else {
				bad = "looking around and named groups";
			}
		} else if (*p == '{' && p[1 + strspn(p + 1, "0123456789,")] != '}') {
			/* No quantifier: a brace. */
			add_str(to, "\\{");
		} else {
			add(to, p, 1);
			/* A lazy quantifier matches where the greedy one does. */
			if (strchr("*+?}", *p) && p[1] == '?' && p > pattern)
				p++;
		}
	}
	return bad;
}

/* ---- the walk ---- */

struct search {
	regex_t re;
	struct text *out;
	size_t budget;
	int64_t end;
	long left;
	bool any, full, late;
};

static bool give(struct search *s, const char *file, long line, const char *text)
{
	struct text hit = {0};

	add_fmt(&hit, "%s:%ld:%s", file, line, text);
	if (s->any)
		add_str(s->out, "\n");
	s->any = true;
	if (hit.len + 1 > s->budget) {
		add_fmt(s->out, "[output truncated at %zu bytes]", OUTPUT_MAX);
		s->full = true;
	} else {
		s->budget -= hit.len + 1;
		add(s->out, hit.s, hit.len);
	}
	text_done(&hit);
	return !s->full;
}

static void search_file(struct search *s, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	struct stat st;
	FILE *f = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? fdopen(fd, "r") : NULL;
	char *line = NULL;
	size_t cap = 0;
	long number = 0;
	ssize_t n;

	if (!f) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (!s->full && (n = getline(&line, &cap, f)) > 0) {
		number++;
		if (memchr(line, '\0', (size_t)n))
			break; /* no text */
		if (line[n - 1] == '\n')
			line[--n] = '\0';
		if (n > 0 && line[n - 1] == '\r')
			line[--n] = '\0';
		if (n > LINE_MAX_LEN)
			continue;
		if (now_ms() > s->end) {
			s->late = true;
			break;
		}
		if (regexec(&s->re, line, 0, NULL, 0) == 0 && !give(s, path, number, line))
			break;
	}
	free(line);
	(void)fclose(f);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void walk(struct search *s, const char *dir, int depth)
{
	struct dirent **names;
	int n = depth > DEPTH_MAX ? -1 : scandir(dir, &names, NULL, by_name);

	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;
		struct stat st = {0};
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && strcmp(name, ".git") != 0 &&
			strcmp(name, "node_modules") != 0 && s->left-- > 0 && !s->full && !s->late) {
			struct text path = {0};
			add_fmt(&path, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name);
			if (lstat(path.s, &st) == 0 && S_ISDIR(st.st_mode))
				walk(s, path.s, depth + 1);
			else if (S_ISREG(st.st_mode))
				search_file(s, path.s);
			text_done(&path);
		}
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

/* The words of the platform's SDK for a pattern that does not compile; NULL: it has others. */
static const char *words_for(int e, const char *bad)
{
	if (bad)
		return strcmp(bad, UNCLOSED) == 0 ? "Unterminated character class" : NULL;
	return e == REG_EPAREN    ? "Unterminated group"
	       : e == REG_EBRACK  ? "Unterminated character class"
	       : e == REG_BADRPT  ? "Nothing to repeat"
	       : e == REG_EESCAPE ? "\\ at end of pattern"
				  : NULL;
}

static bool walk_grep(const char *pattern, const char *where, struct text *out)
{
	struct search s = {
		.out = out, .budget = OUTPUT_MAX, .end = now_ms() + TIMEOUT_MS, .left = ENTRIES_MAX};
	struct text ere = {0};
	struct stat st;
	char why[200];

	const char *bad = translate(pattern, &ere);
	int e = bad ? 0 : regcomp(&s.re, ere.s, REG_EXTENDED | REG_NOSUB);
	text_done(&ere);
	const char *words = bad || e ? words_for(e, bad) : NULL;
	if (words)
		return fail(out, "grep: invalid regex: Invalid regular expression: /%s/: %s", pattern, words);
	if (bad)
		return fail(out, "grep: invalid regex: %s: not supported without ripgrep in the image", bad);
	if (e) {
		(void)regerror(e, NULL, why, sizeof(why));
		return fail(out, "grep: invalid regex: %s", why);
	}
	if (stat(where, &st) == 0 && S_ISREG(st.st_mode))
		search_file(&s, where);
	else
		walk(&s, where, 0);
	regfree(&s.re);
	if (s.late && !s.any)
		return fail(out, "grep: timed out after %ds", TIMEOUT_MS / 1000);
	if (s.late)
		add_fmt(out, "\n[the search was cut short after %d ms]", TIMEOUT_MS);
	if (!s.any)
		add_str(out, "no matches");
	return true;
}

bool tool_grep(const struct request *r, struct text *out)
{
	if (!r->pattern || !*r->pattern)
		return fail(out, "grep: pattern is required");
	char *where = r->path && *r->path ? resolve(r->path, out) : strdup(workdir());
	if (!where)
		return false;
	char *rg = find_rg();
	bool ok = rg ? run_rg(rg, r->pattern, where, out) : walk_grep(r->pattern, where, out);
	free(rg);
	free(where);
	return ok;
}
