/* Theory of operation: the worker's hand inside a sandbox.
 *
 * pinfold-worker runs this program in the sandbox, bound there read-only, and speaks with it over its
 * standard input and output: a request is a frame of named fields, the answer a frame with one byte (1:
 * error) and the text. A frame is its length in four bytes, most significant first, and the bytes; a field is
 * its name with a NUL, the length of its value likewise, and the value. No format to parse, so nothing to get
 * wrong on either side; the worker believes nothing of what comes back, since whoever is in the sandbox may
 * be speaking for us.
 *
 * Its arguments are pairs of --root or --read-only-root and a directory: where the session's memory stores
 * are.
 *
 * It is one process and does one thing at a time. The shell (bash.c) is its child and lives as long as it
 * does. End of input ends both. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "cmd/pinfold-tool/tool.h"

#define FRAME_MAX (64u << 20)

extern char **environ;
static char cwd[PATH_MAX];

void add(struct text *t, const void *data, size_t len)
{
	if (t->len + len + 1 > t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 256;
		while (cap < t->len + len + 1)
			cap *= 2;
		t->s = realloc(t->s, cap);
		if (!t->s)
			abort();
		t->cap = cap;
	}
	if (len)
		memcpy(t->s + t->len, data, len);
	t->len += len;
	t->s[t->len] = '\0';
}

void add_str(struct text *t, const char *s)
{
	add(t, s, strlen(s));
}

static void add_va(struct text *t, const char *fmt, va_list ap)
{
	char *s;
	int n = vasprintf(&s, fmt, ap);

	if (n < 0)
		abort();
	add(t, s, (size_t)n);
	free(s);
}

void add_fmt(struct text *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	add_va(t, fmt, ap);
	va_end(ap);
}

void text_done(struct text *t)
{
	free(t->s);
	*t = (struct text){0};
}

bool fail(struct text *out, const char *fmt, ...)
{
	va_list ap;

	out->len = 0;
	va_start(ap, fmt);
	add_va(out, fmt, ap);
	va_end(ap);
	return false;
}

int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

const char *workdir(void)
{
	return cwd;
}

char **scrubbed_env(char *const *more)
{
	size_t n = 0, k = 0;

	while (environ[n])
		n++;
	for (size_t i = 0; more[i]; i++)
		k++;
	char **env = calloc(n + k + 1, sizeof(*env));
	if (!env)
		abort();
	n = 0;
	for (char **e = environ; *e; e++) {
		bool replaced = strncasecmp(*e, "ANTHROPIC_", 10) == 0;
		for (size_t i = 0; more[i]; i++) {
			size_t name = (size_t)(strchr(more[i], '=') - more[i]) + 1;
			replaced = replaced || strncmp(*e, more[i], name) == 0;
		}
		if (!replaced)
			env[n++] = *e;
	}
	for (size_t i = 0; i < k; i++)
		env[n++] = more[i];
	return env;
}

static bool read_all(void *to, size_t len)
{
	char *p = to;

	while (len) {
		ssize_t n = read(STDIN_FILENO, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static bool write_all(const void *from, size_t len)
{
	const char *p = from;

	while (len) {
		ssize_t n = write(STDOUT_FILENO, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static uint32_t number(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A value ends with the NUL that stands behind it in the copy which parse made. */
static void set_field(struct request *r, const char *name, const char *value, size_t len)
{
	if (strcmp(name, "tool") == 0) {
		r->tool = value;
	} else if (strcmp(name, "command") == 0) {
		r->command = value;
		r->command_len = len;
	} else if (strcmp(name, "path") == 0) {
		r->path = value;
	} else if (strcmp(name, "content") == 0) {
		r->content = value;
		r->content_len = len;
	} else if (strcmp(name, "old_string") == 0) {
		r->old_string = value;
		r->old_len = len;
	} else if (strcmp(name, "new_string") == 0) {
		r->new_string = value;
		r->new_len = len;
	} else if (strcmp(name, "pattern") == 0) {
		r->pattern = value;
	} else if (strcmp(name, "restart") == 0) {
		r->restart = true;
	} else if (strcmp(name, "replace_all") == 0) {
		r->replace_all = true;
	} else if (strcmp(name, "timeout_ms") == 0) {
		r->timeout_ms = strtol(value, NULL, 10);
	} else if (strcmp(name, "range") == 0) {
		if (r->n_range < 2)
			r->range[r->n_range] = strtol(value, NULL, 10);
		r->n_range++;
	}
}

/* buf holds the frame and one byte more. Values are moved one byte to the front of their length, which makes
 * room for a NUL behind each. */
static bool parse(char *buf, size_t len, struct request *r)
{
	size_t at = 0;

	*r = (struct request){.timeout_ms = -1};
	while (at < len) {
		char *name = buf + at;
		size_t n = strnlen(name, len - at);
		if (n == len - at || len - at - n - 1 < 4)
			return false;
		at += n + 1;
		uint32_t size = number((unsigned char *)buf + at);
		if (size > len - at - 4)
			return false;
		memmove(buf + at, buf + at + 4, size);
		buf[at + size] = '\0';
		set_field(r, name, buf + at, size);
		at += 4 + size;
	}
	return r->tool != NULL;
}

static bool run(const struct request *r, struct text *out)
{
	static const struct {
		const char *name;
		bool (*run)(const struct request *, struct text *);
	} tools[] = {{"bash", tool_bash}, {"read", tool_read}, {"write", tool_write}, {"edit", tool_edit},
		{"glob", tool_glob}, {"grep", tool_grep}};

	for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++)
		if (strcmp(r->tool, tools[i].name) == 0)
			return tools[i].run(r, out);
	if (strncmp(r->tool, "_memory_", 8) == 0)
		return tool_memory(r, out);
	return fail(out, "Error: unknown tool");
}

int main(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i += 2)
		allow_root(argv[i + 1], strcmp(argv[i], "--read-only-root") == 0);
	(void)signal(SIGPIPE, SIG_IGN);
	if (!getcwd(cwd, sizeof(cwd))) {
		fprintf(stderr, "pinfold-tool: the working directory: %s\n", strerror(errno));
		return 1;
	}
	for (;;) {
		unsigned char head[4];
		if (!read_all(head, sizeof(head)))
			break;
		size_t len = number(head);
		char *buf = len <= FRAME_MAX ? malloc(len + 1) : NULL;
		struct request r;
		struct text out = {0};
		if (!buf || !read_all(buf, len) || !parse(buf, len, &r)) {
			free(buf);
			bash_close();
			return 1;
		}
		add(&out, "", 0);
		unsigned char bad = !run(&r, &out);
		uint32_t n = (uint32_t)out.len + 1;
		unsigned char reply[5] = {(unsigned char)(n >> 24), (unsigned char)(n >> 16),
			(unsigned char)(n >> 8), (unsigned char)n, bad};
		bool sent = write_all(reply, sizeof(reply)) && write_all(out.s, out.len);
		free(buf);
		text_done(&out);
		if (!sent)
			break;
	}
	bash_close();
	return 0;
}
