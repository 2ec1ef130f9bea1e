/* Theory of operation: glob. Braces are multiplied out first; each pattern is then walked word by word, a
 * plain word without reading its directory. `**` is any number of directories, links not followed. Names that
 * begin with a dot are matched only by words that do. `.git` and `node_modules` are passed over. */

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/pinfold-tool/tool.h"

#define RESULTS_MAX 200
#define ENTRIES_MAX 50000
#define PATTERNS_MAX 256
#define WORDS_MAX 64

struct match {
	char *path;
	struct timespec mtime;
};

struct search {
	const char *root;
	struct match *found;
	size_t n;
	long left; /* entries that may still be looked at */
};

static bool skipped(const char *name)
{
	return strcmp(name, ".git") == 0 || strcmp(name, "node_modules") == 0;
}

static void take(struct search *s, const char *path, const struct stat *st)
{
	char *real = realpath(path, NULL);
	bool inside = real && within(s->root, real);

	free(real);
	if (!inside)
		return;
	for (size_t i = s->n; i > 0 && s->n - i < 1000; i--)
		if (strcmp(s->found[i - 1].path, path) == 0)
			return;
	s->found = reallocarray(s->found, s->n + 1, sizeof(*s->found));
	if (!s->found)
		abort();
	s->found[s->n++] = (struct match){.path = strdup(path), .mtime = st->st_mtim};
}

static char *below(const char *dir, const char *name)
{
	struct text t = {0};

	add_str(&t, strcmp(dir, "/") == 0 ? "" : dir);
	add_str(&t, "/");
	add_str(&t, name);
	return t.s;
}

static bool is_plain(const char *word)
{
	return !strpbrk(word, "*?[(");
}

static void walk(struct search *s, const char *dir, char *const *words, int depth);

static void visit(struct search *s, const char *dir, const char *name, char *const *words, int depth)
{
	char *path = below(dir, name);
	struct stat st;
	bool globstar = strcmp(words[0], "**") == 0;

	if (lstat(path, &st) == 0) {
		if (globstar) {
			/* `**` as the last word is every file below; else it may also be nothing here. */
			if (S_ISDIR(st.st_mode) && name[0] != '.')
				walk(s, path, words, depth + 1);
			else if (!words[1] && S_ISREG(st.st_mode) && name[0] != '.')
				take(s, path, &st);
		} else if (is_plain(words[0]) ||
			   fnmatch(words[0], name, FNM_PERIOD | FNM_PATHNAME | FNM_EXTMATCH | FNM_NOESCAPE) ==
				   0) {
			if (!words[1] && S_ISREG(st.st_mode))
				take(s, path, &st);
			else if (words[1] && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
				walk(s, path, words + 1, depth + 1);
		}
	}
	free(path);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void walk(struct search *s, const char *dir, char *const *words, int depth)
{
	struct dirent **names;

	if (!words[0] || depth > 200 || s->left <= 0)
		return;
	if (strcmp(words[0], "**") == 0 && words[1])
		walk(s, dir, words + 1, depth);
	if (is_plain(words[0])) {
		s->left--;
		if (!skipped(words[0]))
			visit(s, dir, words[0], words, depth);
		return;
	}
	int n = scandir(dir, &names, NULL, by_name);
	for (int i = 0; i < n; i++) {
		const char *name = names[i]->d_name;
		if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !skipped(name) && s->left-- > 0)
			visit(s, dir, name, words, depth);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

static void walk_pattern(struct search *s, const char *pattern)
{
	char *copy = strdup(pattern), *words[WORDS_MAX + 1], *save = NULL;
	int n = 0;

	/* A backslash separates, as with others of this contract; what ends with a separator is no file. */
	for (char *c = copy; *c; c++)
		if (*c == '\\')
			*c = '/';
	if (*copy && copy[strlen(copy) - 1] == '/') {
		free(copy);
		return;
	}
	for (char *w = strtok_r(copy, "/", &save); w && n < WORDS_MAX; w = strtok_r(NULL, "/", &save))
		if (strcmp(w, ".") != 0 &&
			!(n > 0 && strcmp(w, "**") == 0 && strcmp(words[n - 1], "**") == 0))
			words[n++] = w;
	words[n] = NULL;
	walk(s, s->root, words, 0);
	free(copy);
}

/* Multiply out the first pair of braces that holds a comma, and go on with what comes of it. */
static void expand(struct search *s, const char *pattern, int *budget)
{
	const char *open = NULL, *part, *p;
	int depth = 0;
	bool comma = false;

	if ((*budget)-- <= 0)
		return;
	for (p = pattern; *p; p++) {
		if (*p == '\\' && p[1]) {
			p++;
		} else if (*p == '{') {
			if (depth++ == 0)
				open = p;
		} else if (*p == ',' && depth == 1) {
			comma = true;
		} else if (*p == '}' && depth > 0 && --depth == 0 && comma) {
			break;
		}
	}
	if (!*p || !open) {
		walk_pattern(s, pattern);
		return;
	}
	const char *end = p;
	part = open + 1;
	for (p = part; p <= end; p++) {
		if (*p == '\\' && p[1])
			p++;
		else if (*p == '{')
			depth++;
		else if (*p == '}' && p != end)
			depth--;
		else if ((*p == ',' && depth == 0) || p == end) {
			struct text t = {0};
			add(&t, pattern, (size_t)(open - pattern));
			add(&t, part, (size_t)(p - part));
			add_str(&t, end + 1);
			expand(s, t.s, budget);
			text_done(&t);
			part = p + 1;
		}
	}
}

static bool can_ascend(const char *pattern)
{
	for (const char *p = pattern; *p;) {
		size_t n = strcspn(p, "\\/{},");
		if (n == 2 && memcmp(p, "..", 2) == 0)
			return true;
		p += n + (p[n] != '\0');
	}
	return false;
}

static int newest_first(const void *a, const void *b)
{
	const struct match *x = a, *y = b;

	if (x->mtime.tv_sec != y->mtime.tv_sec)
		return x->mtime.tv_sec < y->mtime.tv_sec ? 1 : -1;
	if (x->mtime.tv_nsec != y->mtime.tv_nsec)
		return x->mtime.tv_nsec < y->mtime.tv_nsec ? 1 : -1;
	return strcmp(x->path, y->path);
}

bool tool_glob(const struct request *r, struct text *out)
{
	struct search s = {.left = ENTRIES_MAX};
	int budget = PATTERNS_MAX;
	char *root;

	if (!r->pattern || !*r->pattern)
		return fail(out, "glob: pattern is required");
	if (*r->pattern == '/')
		return fail(out, "glob: absolute pattern not permitted; pass a relative pattern (and "
				 "optionally path)");
	if (can_ascend(r->pattern))
		return fail(out, "glob: \"..\" is not permitted in the pattern");
	root = resolve(r->path && *r->path ? r->path : ".", out);
	if (!root)
		return false;
	s.root = root;
	expand(&s, r->pattern, &budget);
	if (s.n)
		qsort(s.found, s.n, sizeof(*s.found), newest_first);
	for (size_t i = 0; i < s.n && i < RESULTS_MAX; i++) {
		add_str(out, i ? "\n" : "");
		add_str(out, s.found[i].path);
	}
	if (!s.n)
		add_str(out, "no matches");
	for (size_t i = 0; i < s.n; i++)
		free(s.found[i].path);
	free(s.found);
	free(root);
	return true;
}
