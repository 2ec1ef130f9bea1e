/* Errors: one type, carried up by value, set once, wrapped with context on the way.
 *
 * A fallible function takes `struct pf_err *err` last and returns 0 (or an fd, or a pointer) on success and
 * -1 (or NULL) on failure. On failure it has called pf_fail() once at the place that knows the cause; each
 * caller that can add something ("create: cgroup: memory.max") calls pf_wrap(). Library code never prints.
 * A message is one line: control characters in what it quotes become blanks and '?'.
 * `err` is never NULL and is left untouched on success. errno keeps the cause's value across both calls. */
#ifndef PF_BASE_ERR_H
#define PF_BASE_ERR_H

#include <stdarg.h>

/* What a caller can act on. The names (pf_err_kind_name) are part of the command line's JSON. */
enum pf_err_kind {
	PF_ERR_SYSTEM = 0,  /* a system call failed; see errnum */
	PF_ERR_INVALID,     /* the input is wrong: a file, an argument, an id */
	PF_ERR_EXISTS,      /* the id is taken */
	PF_ERR_NOT_FOUND,   /* no such sandbox, image, checkpoint, file */
	PF_ERR_STATE,       /* not possible in the state the thing is in */
	PF_ERR_UNSUPPORTED, /* this host cannot do it; the message names the remedy */
	PF_ERR_CORRUPT,     /* stored data is damaged, or hostile */
	PF_ERR_NO_EXEC,     /* the command was found and cannot be executed (exit code 126) */
	PF_ERR_NO_COMMAND,  /* the command was not found (exit code 127) */
};

struct pf_err {
	enum pf_err_kind kind;
	int errnum;     /* errno of the cause, 0 when the cause is not a system call */
	char msg[1000]; /* "create: cgroup: memory.max: Permission denied" */
};

#define PF_ERR_INIT ((struct pf_err){.kind = PF_ERR_SYSTEM})

/* Set the error and return -1. errnum != 0 appends ": strerror". */
int pf_fail(struct pf_err *err, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same with a kind other than PF_ERR_SYSTEM. */
int pf_fail_kind(struct pf_err *err, enum pf_err_kind kind, int errnum, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Put "context: " before the message that is there. Returns -1. */
int pf_wrap(struct pf_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#ifdef __clang_analyzer__
/* What the analyzer cannot see from another file: these never return 0. */
#define pf_fail(...) (pf_fail(__VA_ARGS__), -1)
#define pf_fail_kind(...) (pf_fail_kind(__VA_ARGS__), -1)
#define pf_wrap(...) (pf_wrap(__VA_ARGS__), -1)
#endif

/* "exists", "not_found", … : stable words for JSON output. */
const char *pf_err_kind_name(enum pf_err_kind kind);

#endif
