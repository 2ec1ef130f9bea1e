#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

static void set(struct pf_err *err, enum pf_err_kind kind, int errnum, const char *fmt, va_list ap)
{
	int n;

	err->kind = kind;
	err->errnum = errnum;
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	if (n < 0)
		n = 0;
	if (errnum != 0 && (size_t)n < sizeof(err->msg)) {
		const char *text = strerrordesc_np(errnum);
		snprintf(err->msg + n, sizeof(err->msg) - (size_t)n, ": %s", text ? text : "unknown error");
	}
	/* A message quotes what others wrote. */
	pf_one_line(err->msg);
}

int(pf_fail)(struct pf_err *err, int errnum, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	set(err, PF_ERR_SYSTEM, errnum, fmt, ap);
	va_end(ap);
	errno = saved;
	return -1;
}

int(pf_fail_kind)(struct pf_err *err, enum pf_err_kind kind, int errnum, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	va_start(ap, fmt);
	set(err, kind, errnum, fmt, ap);
	va_end(ap);
	errno = saved;
	return -1;
}

int(pf_wrap)(struct pf_err *err, const char *fmt, ...)
{
	int saved = errno;
	char old[sizeof(err->msg)];
	va_list ap;
	int n;

	memcpy(old, err->msg, sizeof(old));
	va_start(ap, fmt);
	n = vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	if ((size_t)n + 3 < sizeof(err->msg)) {
		size_t room = sizeof(err->msg) - (size_t)n - 3, len = strnlen(old, room);
		memcpy(err->msg + n, ": ", 2);
		memcpy(err->msg + n + 2, old, len);
		err->msg[(size_t)n + 2 + len] = '\0';
	}
	/* A message quotes what others wrote. */
	pf_one_line(err->msg);
	errno = saved;
	return -1;
}

const char *pf_err_kind_name(enum pf_err_kind kind)
{
	switch (kind) {
	case PF_ERR_SYSTEM:
		return "system";
	case PF_ERR_INVALID:
		return "invalid";
	case PF_ERR_EXISTS:
		return "exists";
	case PF_ERR_NOT_FOUND:
		return "not_found";
	case PF_ERR_STATE:
		return "state";
	case PF_ERR_UNSUPPORTED:
		return "unsupported";
	case PF_ERR_CORRUPT:
		return "corrupt";
	case PF_ERR_NO_EXEC:
		return "no_exec";
	case PF_ERR_NO_COMMAND:
		return "no_command";
	}
	return "system";
}
