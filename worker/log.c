#include "worker/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "worker/work.h"

static struct {
	bool json;
	char session[132];
} log_to;

void pf_wlog_setup(bool json, const char *session)
{
	log_to.json = json;
	(void)snprintf(log_to.session, sizeof(log_to.session), "%s", session ? session : "");
}

void pf_wlog(const char *level, const char *fmt, ...)
{
	PF_BUF struct pf_buf b = {0};
	char msg[1200], now[40];
	struct timespec ts;
	struct tm tm;
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (log_to.json) {
		clock_gettime(CLOCK_REALTIME, &ts);
		gmtime_r(&ts.tv_sec, &tm);
		(void)strftime(now, sizeof(now), "%Y-%m-%dT%H:%M:%S", &tm);
		pf_buf_printf(
			&b, "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\"", now, ts.tv_nsec / 1000000, level);
		if (*log_to.session)
			pf_buf_printf(&b, ",\"session\":\"%s\"", log_to.session);
		pf_buf_str(&b, ",\"msg\":");
		pf_json_quote(&b, msg, strlen(msg));
		pf_buf_str(&b, "}\n");
	} else {
		for (char *p = msg; *p; p++)
			if ((unsigned char)*p < ' ')
				*p = ' ';
		pf_buf_printf(&b, "pinfold-worker: %s%s%s%s%s\n", log_to.session, *log_to.session ? ": " : "",
			strcmp(level, "info") ? level : "", strcmp(level, "info") ? ": " : "", msg);
	}
	/* One write, so that lines of several sessions do not mix. */
	(void)pf_write_all(STDERR_FILENO, b.data, b.len);
}
