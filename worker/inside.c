/* Theory of operation: a worker inside.
 *
 * The sandbox runs somebody else's worker (the platform's SDK, its command line), which believes that it
 * talks to the platform: its base URL is the gateway (gateway.c), its secret a placeholder that is good for
 * nothing elsewhere. Here it is started, watched and ended. It decides when the session is idle; we end it
 * when the lease is lost (at once), when the item is to be stopped or we are told to end (SIGTERM, and after
 * some grace the sandbox's own way of killing all that a command has started), or when it hangs: a worker
 * that does not beat its heart, as the contract wants it to. What it prints is a stranger's word: it becomes
 * lines of our log, without control characters and not without end. */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/proc.h"
#include "base/str.h"
#include "worker/api.h"
#include "worker/gateway.h"
#include "worker/log.h"
#include "worker/runner_priv.h"
#include "worker/work.h"

#define LOG_LINE_MAX 500
#define LOG_MAX ((size_t)1 << 20)
#define READS_MAX 16

struct inside {
	struct run *r;
	struct pf_gatewayd gateway;
	enum pf_lease_state told_state; /* what the gateway knows */
	int64_t told_ttl_ms, beat_us;   /* beat_us: the last heartbeat from inside, or its start */
	bool said;                      /* it has stopped its item */
	struct pf_tool worker;          /* its output is what it prints */
	char line[LOG_LINE_MAX + 1];
	size_t line_len, logged;
	int64_t told_us; /* when it was told to end; 0: it was not */
};

/* ---- what it prints ---- */

static void end_line(struct inside *in)
{
	in->line[in->line_len] = '\0';
	if (in->line_len && in->logged <= LOG_MAX)
		pf_wlog("info", "inside: %s", in->line);
	in->logged += in->line_len;
	in->line_len = 0;
}

/* 1: something came, 0: nothing now, -1: it has closed its output. */
static int take_print(struct inside *in)
{
	char buf[4096];
	ssize_t n = read(in->worker.out, buf, sizeof(buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	for (ssize_t i = 0; i < n; i++) {
		unsigned char b = (unsigned char)buf[i];
		if (b == '\n' || in->line_len == LOG_LINE_MAX)
			end_line(in);
		if (b != '\n')
			in->line[in->line_len++] = (char)(b < ' ' || b == 0x7f ? ' ' : b);
	}
	return n > 0 ? 1 : -1;
}

/* ---- its end ---- */

static void tell(struct inside *in)
{
	if (in->told_us)
		return;
	in->told_us = pf_now_us();
	/* pinfold exec hands it on to the command's process group. */
	(void)kill(in->worker.pid, SIGTERM);
}

static bool hangs(struct inside *in)
{
	/* It beats every half of a length at most; one that got lost or was late is no reason. */
	int64_t least = 3 * pf_lease_ttl_ms(in->r->lease), limit = in->r->o->hang_ms;

	return limit > 0 && pf_now_us() - in->beat_us > (least > limit ? least : limit) * 1000;
}

/* Whether it has ended; then *code is its exit code. */
static bool ended(struct inside *in, int *code)
{
	int status;
	pid_t p = waitpid(in->worker.pid, &status, WNOHANG);

	if (p != in->worker.pid)
		return false;
	in->worker.pid = 0;
	*code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return true;
}

/* What the gateway has to know and to tell. false: it is gone. */
static bool confer(struct inside *in)
{
	enum pf_lease_state state = pf_lease_state(in->r->lease);
	int64_t ttl = pf_lease_ttl_ms(in->r->lease);
	bool beat = false;

	if (state != in->told_state || ttl != in->told_ttl_ms)
		pf_gatewayd_tell(&in->gateway, state, ttl);
	in->told_state = state;
	in->told_ttl_ms = ttl;
	bool there = pf_gatewayd_hear(&in->gateway, &beat, &in->said);
	if (beat)
		in->beat_us = pf_now_us();
	return there;
}

/* Until it has ended, or must not go on. */
static enum end watch(struct inside *in, int *code)
{
	struct run *r = in->r;
	bool open = true, warned = false;
	int printed = 0;

	for (;;) {
		enum end e = pf_run_look(r);
		bool there = confer(in);
		bool over = ended(in, code);
		/* What it prints without end keeps us from nothing else. */
		printed = 1;
		for (int n = 0; n < READS_MAX && open && printed > 0; n++)
			printed = take_print(in);
		open = open && printed >= 0;
		if (over) {
			end_line(in);
			return e;
		}
		if (e == LOST)
			return LOST;
		if (!there) {
			pf_wlog("error", "the gateway's process has ended");
			*code = 137;
			return FAILED;
		}
		if (e == STOPPING || e == SIGNALLED)
			tell(in);
		if (in->told_us && pf_now_us() - in->told_us > r->o->grace_ms * 1000) {
			pf_wlog("warning", "the worker inside did not end when it was told to");
			*code = 137;
			return e;
		}
		if (!in->told_us && hangs(in)) {
			if (!warned)
				pf_wlog("error", "the worker inside hangs: no heartbeat for %lld s (--hang)",
					(long long)((pf_now_us() - in->beat_us) / 1000000));
			warned = true;
			tell(in);
		}
		pf_run_wait(r, open ? in->worker.out : -1, POLLIN, open ? 1000 : 50);
	}
}

/* ---- its start ---- */

static void base64url(struct pf_buf *b, const char *s)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t len = strlen(s);

	for (size_t i = 0; i < len; i += 3) {
		size_t n = len - i < 3 ? len - i : 3;
		uint32_t v = (uint32_t)(unsigned char)s[i] << 16;
		v |= n > 1 ? (uint32_t)(unsigned char)s[i + 1] << 8 : 0;
		v |= n > 2 ? (uint32_t)(unsigned char)s[i + 2] : 0;
		for (size_t k = 0; k <= n; k++)
			pf_buf_add(b, &digits[v >> (18 - 6 * k) & 63], 1);
	}
}

static char *make_placeholder(void)
{
	unsigned char bytes[16];
	struct pf_buf b = {0};

	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		abort();
	pf_buf_str(&b, "placeholder-");
	for (size_t i = 0; i < sizeof(bytes); i++)
		pf_buf_printf(&b, "%02x", bytes[i]);
	return b.data;
}

static int start_worker(struct inside *in, const char *placeholder, uint16_t port, struct pf_err *err)
{
	struct run *r = in->r;
	PF_FREE char *secret = pf_asprintf("{\"sessions_token\":\"%s\"}", placeholder);
	PF_BUF struct pf_buf coded = {0};
	char *env[9] = {0};

	base64url(&coded, secret);
	env[0] = pf_asprintf("ANTHROPIC_BASE_URL=http://127.0.0.1:%u", port);
	env[1] = pf_asprintf("ANTHROPIC_WORK_ID=%s", r->w->id);
	env[2] = pf_asprintf("ANTHROPIC_ENVIRONMENT_ID=%s", r->env);
	env[3] = pf_asprintf("ANTHROPIC_SESSION_ID=%s", r->w->session_id);
	env[4] = pf_asprintf("ANTHROPIC_WORK_SECRET=%s", coded.data);
	/* Workers that know no secret want a key, and older ones insist on it. */
	env[5] = pf_asprintf("ANTHROPIC_ENVIRONMENT_KEY=%s", placeholder);
	env[6] = pf_asprintf("PINFOLD_MAX_IDLE_MS=%lld", (long long)r->o->max_idle_ms);
	int rc = pf_box_start_worker(
		&r->o->box, r->w->session_id, (const char *const *)env, r->o->command, &in->worker, err);
	for (char **e = env; *e; e++)
		free(*e);
	return rc;
}

/* How the session stands after its worker has ended by itself. */
static enum end afterwards(struct run *r, int code)
{
	struct pf_err err = PF_ERR_INIT;
	long status = 0;
	cJSON *s = pf_api_session(r->http, r->bearer, r->w->session_id, &status, &err);
	const char *is = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "status"));
	enum end e = status == 404 || status == 410        ? DELETED
		     : is && strcmp(is, "terminated") == 0 ? TERMINATED
		     : code                                ? FAILED
							   : IDLE;

	cJSON_Delete(s);
	return e;
}

enum end pf_run_inside(struct run *r, int *exit_code, struct pf_err *err)
{
	PF_FREE char *placeholder = make_placeholder();
	struct inside in = {.r = r, .gateway = PF_GATEWAYD_INIT, .worker = PF_TOOL_INIT};
	struct pf_gateway_opts o = {.base_url = r->o->base_url,
		.agent = r->o->agent,
		.placeholder = placeholder,
		.bearer = r->bearer,
		.token = r->w->token,
		.key = r->o->key,
		.env = r->env,
		.work_id = r->w->id,
		.session_id = r->w->session_id,
		.session = r->session};
	struct pf_box_first first;
	uint16_t port;
	enum end e = FAILED;

	*exit_code = 125;
	if (pf_box_init(&r->o->box, r->w->session_id, &first, err) < 0)
		return FAILED;
	PF_CLOSE int fd = pf_gateway_listen(first.pid, first.start, &port, err);
	if (fd < 0 ||
		pf_gatewayd_start(&in.gateway, &o, fd, first.uid, r->w->session_id, r->o->log_json, err) < 0)
		return FAILED;
	if (start_worker(&in, placeholder, port, err) == 0) {
		in.beat_us = pf_now_us();
		e = watch(&in, exit_code);
		(void)confer(&in);
		if (e == GOING_ON)
			e = afterwards(r, *exit_code);
		pf_wlog(*exit_code ? "warning" : "info", "the worker inside ended with %d%s", *exit_code,
			in.said ? "" : ", without stopping its item");
		if (e == FAILED)
			pf_fail(err, 0, "the worker in the sandbox ended with %d", *exit_code);
	}
	pf_tool_stop(&in.worker);
	pf_gatewayd_stop(&in.gateway);
	return e;
}
