/* The parts of pinfold-tool, which runs the agent's tools inside a sandbox (main.c). No library but libc,
 * linked statically: it runs in every image. Out of memory ends it; the worker starts another. */
#ifndef PF_CMD_TOOL_H
#define PF_CMD_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing buffer, NUL-terminated. */
struct text {
	char *s;
	size_t len, cap;
};
void add(struct text *t, const void *data, size_t len);
void add_str(struct text *t, const char *s);
void add_fmt(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void text_done(struct text *t);

/* What a call was given: NULL for what it was not. Strings may hold NULs; *_len counts. */
struct request {
	const char *tool;
	const char *command, *path, *content, *old_string, *new_string, *pattern;
	size_t command_len, content_len, old_len, new_len;
	bool restart, replace_all;
	long timeout_ms; /* of this call; -1: the usual */
	int n_range;     /* members that view_range has; 0: not given */
	long range[2];
};

/* Each fills out and returns whether it succeeded. */
bool tool_bash(const struct request *r, struct text *out);
bool tool_read(const struct request *r, struct text *out);
bool tool_write(const struct request *r, struct text *out);
bool tool_edit(const struct request *r, struct text *out);
bool tool_glob(const struct request *r, struct text *out);
bool tool_grep(const struct request *r, struct text *out);

/* out = message; returns false. */
bool fail(struct text *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Kills the shell and its process group. */
void bash_close(void);
/* The environment for what is started: ours without every ANTHROPIC_*. */
char **scrubbed_env(char *const *more);

/* Memory stores (memory.c): what only the worker asks for. */
bool tool_memory(const struct request *r, struct text *out);

/* A directory beside the working directory that the file tools may use, too; it need not exist yet. */
void allow_root(const char *dir, bool read_only);
/* The read-only one that a resolved path lies in; NULL. */
const char *read_only_root(const char *path);
/* Whether path lies in one of them. */
bool in_roots(const char *path);

/* The working directory, resolved; its own buffer. */
const char *workdir(void);
/* p against the working directory, all symlinks followed, also those of what does not exist yet; malloc'ed.
 * NULL with the message in out when it leads outside. */
char *resolve(const char *p, struct text *out);
/* Whether p is dir or below it; both resolved. */
bool within(const char *dir, const char *p);
/* "FILE: no such file or directory": the same words on every system. */
void add_fs_error(struct text *out, const char *file, int e);
int64_t now_ms(void);

#endif
