/* Theory of operation: one work item.
 *
 * The order is the contract's: a first heartbeat, the session, the sandbox, the stream, the list of events;
 * then call by call, each run inside by pinfold-tool and answered by one post; at the end checkpoint,
 * destroy, stop. Two threads help (lease.c, stream.c); this one does the rest and waits in one place for all
 * that can happen.
 *
 * No result is posted twice: after a post of which nobody knows whether it arrived, the list of events is
 * asked first. None is lost: it is posted until the lease cannot be ours any more. Once the lease is lost
 * nothing is posted, neither result nor stop nor checkpoint; the sandbox's processes are ended and its files
 * left for whoever has the session now. */

#include "worker/runner_priv.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "worker/api.h"
#include "worker/call.h"
#include "worker/inputs.h"
#include "worker/log.h"
#include "worker/metrics.h"

/* Of the half minute that whoever stops us gives: for the call that runs, and for its result. The rest is for
 * the checkpoint. */
#define CALL_GRACE_MS 15000
#define POST_GRACE_MS 20000
#define POST_WINDOW_MS 300000
#define POST_BACKOFF_MS 1000
#define POST_BACKOFF_MAX_MS 30000
#define HISTORY_AGAIN_MS 2000
#define LOCK_WAIT_MS 120000
/* For memory stores: between two calls, at a clean end, and when we are told to end. */
#define MEMORY_SYNC_MS 30000
#define MEMORY_FLUSH_MS 8000

/* Whether we have been told to end, for that long at least. */
static bool told_since(struct run *r, int64_t ms)
{
	struct signalfd_siginfo info;

	while (read(r->signals, &info, sizeof(info)) == sizeof(info)) {
		if (!r->signalled)
			r->signalled_us = pf_now_us();
		r->signalled = true;
	}
	return r->signalled && pf_now_us() - r->signalled_us >= ms * 1000;
}

/* What the session's requests end with: no answer is waited for so long that nothing could be kept. */
static bool requests_over(void *arg)
{
	return told_since(arg, POST_GRACE_MS);
}

/* And what its memory does. */
static bool memory_over(void *arg)
{
	struct run *r = arg;

	return pf_lease_state(r->lease) == PF_LEASE_LOST || (!r->ending && told_since(r, MEMORY_FLUSH_MS));
}

enum end pf_run_look(struct run *r)
{
	uint64_t n;

	(void)!read(r->wake, &n, sizeof(n));
	(void)told_since(r, 0);
	switch (pf_lease_state(r->lease)) {
	case PF_LEASE_LOST:
		return LOST;
	case PF_LEASE_STOPPING:
		return STOPPING;
	default:
		return r->signalled ? SIGNALLED : GOING_ON;
	}
}

void pf_run_wait(struct run *r, int fd, short events, int64_t ms)
{
	struct pollfd p[3] = {{.fd = r->wake, .events = POLLIN}, {.fd = r->signals, .events = POLLIN},
		{.fd = fd, .events = events}};

	(void)poll(p, 3, ms < 0 ? -1 : ms > 3600000 ? 3600000 : (int)ms);
}

static int read_history(struct run *r, struct pf_err *err)
{
	if (pf_api_history(r->http, r->bearer, r->w->session_id, &r->ledger, pf_now_us(), err) < 0)
		return -1;
	pf_ledger_history_read(&r->ledger);
	r->history_us = 0;
	return 0;
}

/* ---- answering a call ---- */

/* Whether a post after which no answer came has arrived nevertheless. -1: cannot be known now. */
static int arrived(struct run *r, const char *call_id)
{
	struct pf_err err = PF_ERR_INIT;

	if (pf_api_history(r->http, r->bearer, r->w->session_id, &r->ledger, pf_now_us(), &err) < 0)
		return -1;
	return pf_ledger_is_answered(&r->ledger, call_id);
}

/* Returns GOING_ON once it is settled, whichever way. */
static enum end post(struct run *r, const char *call_id, const char *body)
{
	int64_t begun = pf_now_us();
	bool doubtful = false;

	for (unsigned n = 0;; n++) {
		struct pf_err err = PF_ERR_INIT;
		bool again = true;
		enum end e = pf_run_look(r);
		if (e == LOST || e == STOPPING)
			return e;
		/* A lease that may have run out is not ours to post with: the next beat tells. */
		int known = !pf_lease_sure(r->lease) ? -1 : doubtful ? arrived(r, call_id) : 0;
		if (known > 0) {
			pf_metric_add(PF_M_POSTED, 1);
			return GOING_ON;
		}
		if (known == 0) {
			if (pf_api_post(r->http, r->bearer, r->w->session_id, body, &again, &err) == 0) {
				pf_ledger_answered(&r->ledger, call_id);
				pf_metric_add(PF_M_POSTED, 1);
				return GOING_ON;
			}
			if (!again) {
				pf_metric_add(PF_M_POST_FAILED, 1);
				pf_wlog("error", "the result of %s was refused: %s", call_id, err.msg);
				pf_ledger_answered(&r->ledger, call_id);
				return GOING_ON;
			}
			doubtful = true;
			pf_metric_add(PF_M_POST_AGAIN, 1);
			pf_wlog("warning", "the result of %s is not delivered yet: %s", call_id, err.msg);
		}
		int64_t ttl = pf_lease_ttl_ms(r->lease), end, wait, until;
		end = begun + (ttl ? ttl : POST_WINDOW_MS) * 1000;
		if (e == SIGNALLED && r->signalled_us + POST_GRACE_MS * 1000 < end)
			end = r->signalled_us + POST_GRACE_MS * 1000;
		if (pf_now_us() >= end) {
			pf_metric_add(PF_M_POST_FAILED, 1);
			pf_wlog("error", "the result of %s could not be delivered in time", call_id);
			return e == SIGNALLED ? SIGNALLED : FAILED;
		}
		until = pf_now_us() + pf_backoff_ms(n, POST_BACKOFF_MS, POST_BACKOFF_MAX_MS) * 1000;
		/* What wakes us is mostly an event, which makes it no later; a lost lease is. */
		while ((wait = (until - pf_now_us()) / 1000) > 0) {
			e = pf_run_look(r);
			if (e == LOST || e == STOPPING)
				return e;
			if (e == SIGNALLED && r->signalled_us + POST_GRACE_MS * 1000 < until)
				until = r->signalled_us + POST_GRACE_MS * 1000;
			else
				pf_run_wait(r, -1, 0, wait);
		}
	}
}

static int open_box(struct run *r, const char **how, struct pf_err *err)
{
	return pf_box_open(&r->o->box, r->w->session_id, (const char *const *)r->leave_out, how, err);
}

static int start_tool(struct run *r, struct pf_err *err)
{
	const char *const *roots = r->memory ? pf_memory_roots(r->memory) : NULL;

	return r->tool.pid ? 0 : pf_tool_start(&r->o->box, r->w->session_id, roots, &r->tool, err);
}

/* Have the call run inside. Returns GOING_ON with the result's text, or why there is none. */
static enum end execute(struct run *r, const struct pf_call *c, bool *is_error, struct pf_buf *text)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_exchange x = PF_EXCHANGE_INIT;
	enum end e = GOING_ON;
	int64_t deadline = pf_now_us() + PF_CALL_CEILING_MS * 1000;

	if (r->suspect && !pf_box_runs(&r->o->box, r->w->session_id)) {
		const char *how;
		pf_wlog("warning", "the sandbox has ended by itself: it is started again on its files");
		if (open_box(r, &how, &err) < 0) {
			pf_wlog("error", "%s", err.msg);
			return FAILED;
		}
	}
	r->suspect = false;
	if (start_tool(r, &err) < 0) {
		pf_wlog("error", "%s", err.msg);
		return FAILED;
	}
	pf_exchange_begin(&x, c);
	for (;;) {
		enum pf_exchange_state s = pf_exchange_step(&x, &r->tool, is_error, text);
		if (s == PF_EXCHANGE_DONE)
			break;
		e = pf_run_look(r);
		if (e == LOST || e == STOPPING)
			break;
		int64_t left = deadline - pf_now_us();
		/* Told to end, we still let it finish, for as long as we are given. */
		if (e == SIGNALLED && r->signalled_us + CALL_GRACE_MS * 1000 - pf_now_us() < left)
			left = r->signalled_us + CALL_GRACE_MS * 1000 - pf_now_us();
		if (s == PF_EXCHANGE_BROKEN || left <= 0) {
			/* The helper died, perhaps by the agent's own hand; or it hangs. Another is started
			 * for the next call. */
			pf_tool_stop(&r->tool);
			r->suspect = s == PF_EXCHANGE_BROKEN;
			*is_error = true;
			pf_buf_done(text);
			if (s == PF_EXCHANGE_BROKEN)
				pf_buf_printf(text, "%s: %s", c->name,
					strcmp(c->name, "bash") ? "the tool process ended"
								: "bash session terminated");
			else if (e == SIGNALLED)
				pf_buf_printf(text, "%s: interrupted: the worker was told to stop", c->name);
			else
				pf_buf_printf(text, "%s: timed out after %dms", c->name, PF_CALL_CEILING_MS);
			break;
		}
		pf_run_wait(r, s == PF_EXCHANGE_WRITING ? r->tool.in : r->tool.out,
			s == PF_EXCHANGE_WRITING ? POLLOUT : POLLIN, left / 1000 + 1);
	}
	pf_exchange_end(&x);
	return e == SIGNALLED ? GOING_ON : e;
}

static enum end answer(struct run *r, const struct pf_call *call)
{
	PF_BUF struct pf_buf text = {0};
	bool is_error = false, custom = call->custom;
	/* The ledger's own may move when events come in. */
	PF_FREE char *id = pf_strdup(call->id), *name = pf_strdup(call->name);
	int64_t begun = pf_now_us();

	enum end e = execute(r, call, &is_error, &text);
	if (e != GOING_ON)
		return e;
	int64_t ran = pf_now_us();
	pf_metric_add(is_error ? PF_M_CALL_ERROR : PF_M_CALL_OK, 1);
	pf_metric_time(PF_H_CALL, ran - begun);
	PF_FREE char *body = pf_result_body(id, custom, is_error, text.data, text.len);
	e = post(r, id, body);
	if (e == GOING_ON)
		pf_metric_time(PF_H_POST, pf_now_us() - ran);
	pf_wlog("info", "%s %s: %s, %zu bytes, ran %.1f ms, posted %.1f ms", name, id,
		is_error ? "error" : "ok", text.len, (double)(ran - begun) / 1000,
		(double)(pf_now_us() - ran) / 1000);
	return e;
}

/* ---- the loop ---- */

static void take_events(struct run *r)
{
	struct pf_stream_item *i;

	while (!r->refused && (i = pf_stream_take(r->stream))) {
		if (i->kind == PF_STREAM_OPENED)
			r->history_us = pf_now_us();
		else if (i->kind == PF_STREAM_ENDED)
			r->refused = pf_strdup(i->text);
		else if (pf_ledger_event(&r->ledger, i->text, i->len, pf_now_us()) < 0)
			pf_wlog("warning", "an event that is no JSON object was passed over");
		enum pf_stream_kind kind = i->kind;
		pf_stream_item_free(i);
		/* The list first: what is queued behind it came later. */
		if (kind == PF_STREAM_OPENED)
			return;
	}
}

static enum end work(struct run *r)
{
	for (;;) {
		enum end e = pf_run_look(r);
		if (e != GOING_ON)
			return e;
		take_events(r);
		if (r->refused) {
			pf_wlog("error", "%s", r->refused);
			return FAILED;
		}
		if (r->history_us && pf_now_us() >= r->history_us) {
			struct pf_err err = PF_ERR_INIT;
			if (read_history(r, &err) < 0) {
				if (err.errnum == ECANCELED)
					continue;
				pf_wlog("warning", "%s", err.msg);
				r->history_us = pf_now_us() + HISTORY_AGAIN_MS * 1000;
			}
			continue;
		}
		if (r->ledger.ended)
			return r->ledger.deleted ? DELETED : TERMINATED;
		/* Half of the history may name a call whose answer is in the other half. */
		const struct pf_call *call = r->history_us ? NULL : pf_ledger_next(&r->ledger);
		if (call) {
			e = answer(r, call);
			if (e != GOING_ON)
				return e;
			if (r->memory && r->tool.pid)
				pf_memory_sync(r->memory, &r->tool, PF_MEMORY_DUE, MEMORY_SYNC_MS);
			continue;
		}
		int64_t idle = pf_ledger_idle_since(&r->ledger), wait = -1;
		if (r->history_us) {
			wait = (r->history_us - pf_now_us()) / 1000 + 1;
		} else if (idle) {
			wait = r->o->max_idle_ms - (pf_now_us() - idle) / 1000;
			if (wait <= 0)
				return IDLE;
		}
		pf_run_wait(r, -1, 0, wait);
	}
}

/* ---- begin and end ---- */

/* Another of our processes may still be ending this very session. */
static enum end lock_session(struct run *r, struct pf_err *err)
{
	int64_t end = pf_now_us() + LOCK_WAIT_MS * 1000;

	for (;;) {
		int got = pf_box_lock(&r->o->box, r->w->session_id, &r->lock, err);
		if (got)
			return got < 0 ? FAILED : GOING_ON;
		enum end e = pf_run_look(r);
		if (e != GOING_ON)
			return e;
		if (pf_now_us() > end) {
			pf_fail_kind(
				err, PF_ERR_EXISTS, 0, "another worker on this machine keeps the session");
			return FAILED;
		}
		pf_run_wait(r, -1, 0, 100);
	}
}

/* Whether there is anything to do for this session, and all that it asks for can be given. */
static enum end check_session(struct run *r, struct pf_err *err)
{
	long answered;
	cJSON *s = r->session = pf_api_session(r->http, r->bearer, r->w->session_id, &answered, err);

	if (!s)
		return pf_run_look(r) == GOING_ON ? FAILED : pf_run_look(r);
	const char *status = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "status"));
	if (status && strcmp(status, "terminated") == 0)
		return TERMINATED;
	/* A worker inside attaches them itself. */
	if (!r->o->command && pf_memory_wanted(s) &&
		!(r->memory = pf_memory_new(r->o->base_url, r->o->agent, r->w->token, s,
			  (struct pf_http_over){.is = memory_over, .arg = r}, err)))
		return FAILED;
	pf_skills_resolve(r->http, r->o->key ? r->o->key : r->bearer, s, &r->skills);
	/* Checkpoints that are made by themselves, while the session runs, see them. */
	r->leave_out = pf_calloc(r->skills.n + 2, sizeof(*r->leave_out));
	for (size_t i = 0; i < r->skills.n; i++)
		r->leave_out[i] = pf_asprintf("skills/%s", r->skills.list[i].dir);
	if (pf_memory_wanted(s))
		r->leave_out[r->skills.n] = pf_strdup("/mnt/memory");
	return GOING_ON;
}

/* What the session brings into its sandbox. */
static int furnish(struct run *r, bool fresh, struct pf_err *err)
{
	const struct pf_box_opts *o = &r->o->box;
	const char *id = r->w->session_id;
	bool memory = pf_memory_wanted(r->session);

	if ((!fresh || memory) && pf_box_tidy(o, id, memory, err) < 0)
		return -1;
	if (!fresh)
		pf_skills_remove(&r->skills, o, id);
	if (pf_inputs_stage(o, id, r->o->inputs, r->session, err) < 0)
		return -1;
	if (r->o->command)
		return 0;
	pf_skills_install(&r->skills, r->http, r->o->key ? r->o->key : r->bearer, o, id);
	return r->memory ? (start_tool(r, err) < 0 ? -1 : pf_memory_download(r->memory, &r->tool, err)) : 0;
}

/* And what of it must not be in a checkpoint. */
static void clear_out(struct run *r, enum end e)
{
	const struct pf_box_opts *o = &r->o->box;
	struct pf_err err = PF_ERR_INIT;

	if (r->memory && start_tool(r, &err) == 0) {
		bool clean = e == IDLE || e == TERMINATED;
		r->ending = !clean;
		pf_memory_sync(r->memory, &r->tool, clean ? PF_MEMORY_LAST : PF_MEMORY_FLUSH,
			clean ? MEMORY_SYNC_MS : MEMORY_FLUSH_MS);
		r->ending = true;
		pf_memory_drop(r->memory, &r->tool);
	}
	pf_skills_remove(&r->skills, o, r->w->session_id);
	/* Whatever the worker inside has left of them. */
	if (pf_memory_wanted(r->session) && pf_box_tidy(o, r->w->session_id, false, &err) < 0)
		pf_wlog("warning", "%s", err.msg);
}

static enum end begin(struct run *r, struct pf_err *err)
{
	const char *how = "";
	enum end e = pf_run_look(r);

	if (e == GOING_ON)
		e = check_session(r, err);
	if (e == GOING_ON)
		e = lock_session(r, err);
	if (e != GOING_ON)
		return e;
	int64_t begun = pf_now_us();
	if (open_box(r, &how, err) < 0)
		return FAILED;
	r->made = true;
	if (furnish(r, strcmp(how, "created") == 0, err) < 0) {
		e = pf_run_look(r);
		return e == GOING_ON ? FAILED : e;
	}
	pf_metric_add(strcmp(how, "created") == 0                       ? PF_M_BOX_CREATED
		      : strcmp(how, "resumed from its checkpoint") == 0 ? PF_M_BOX_RESUMED
									: PF_M_BOX_RESTARTED,
		1);
	pf_metric_time(PF_H_BOX_OPEN, pf_now_us() - begun);
	pf_wlog("info", "sandbox %s in %.1f ms", how, (double)(pf_now_us() - begun) / 1000);
	if (r->o->command)
		return GOING_ON;
	r->stream = pf_stream_start(r->o->base_url, r->o->agent, r->bearer, r->w->session_id, r->wake, err);
	return r->stream ? GOING_ON : FAILED;
}

static bool lost(const struct run *r)
{
	return pf_lease_state(r->lease) == PF_LEASE_LOST;
}

/* Once more where it failed, or its keeper ended meanwhile: it is all that is kept of the session. */
static int save(struct run *r, struct pf_err *err)
{
	const struct pf_box_opts *o = &r->o->box;

	if (pf_box_snapshot(o, r->w->session_id, err) == 0)
		return 0;
	if (lost(r))
		return -1;
	pf_wlog("warning", "%s; tried once more", err->msg);
	*err = PF_ERR_INIT;
	return pf_box_snapshot(o, r->w->session_id, err);
}

/* What becomes of the sandbox. */
static void put_away(struct run *r, enum end e)
{
	const struct pf_box_opts *o = &r->o->box;
	const char *id = r->w->session_id;
	struct pf_err err = PF_ERR_INIT;
	int bad;

	if (r->made && e != DELETED && !lost(r))
		clear_out(r, e);
	pf_tool_stop(&r->tool);
	if (!r->made)
		return;
	if (e == DELETED) {
		bad = pf_box_destroy(o, id, &err) < 0 || pf_box_forget(o, id, &err) < 0;
	} else if (lost(r)) {
		/* A checkpoint now could come after one of the new owner's. */
		bad = pf_box_kill(o, id, &err) < 0;
	} else if (save(r, &err) == 0) {
		pf_metric_add(PF_M_SNAPSHOT, 1);
		if (o->remote && !lost(r) && pf_box_send(o, id, &err) < 0)
			pf_wlog("error", "the checkpoint is on this machine only: %s", err.msg);
		bad = pf_box_destroy(o, id, &err) < 0;
	} else {
		pf_metric_add(PF_M_SNAPSHOT_FAILED, 1);
		pf_wlog("error", "no checkpoint, the files stay on this machine: %s", err.msg);
		bad = pf_box_kill(o, id, &err) < 0;
	}
	if (bad)
		pf_wlog("error", "%s", err.msg);
}

/* Whether the item is still ours to stop. */
static bool stop_over(void *arg)
{
	struct run *r = arg;

	return !pf_lease_sure(r->lease);
}

static void stop_item(struct run *r)
{
	struct pf_err err = PF_ERR_INIT;
	struct pf_http *h = pf_http_new(r->o->base_url, r->o->agent, &err);

	if (h)
		pf_http_ends_with(h, (struct pf_http_over){.is = stop_over, .arg = r});
	if (!h || pf_api_stop(h, r->env, r->bearer, r->w->id, &err) < 0)
		pf_wlog("warning", "%s", err.msg);
	pf_http_free(h);
}

static int finish(struct run *r, enum end e, struct pf_err *err)
{
	static const char *const words[] = {"", "the session is idle", "the session is over",
		"the session was deleted", "the item is to be stopped", "the lease is lost", "told to end",
		"failed"};

	if (e == FAILED && err->msg[0])
		pf_wlog("error", "%s", err->msg);
	pf_wlog(e == FAILED || e == LOST ? "warning" : "info", "ends: %s", words[e]);
	pf_metric_add((enum pf_metric)(PF_M_END_IDLE + (int)e - (int)IDLE), 1);
	pf_stream_stop(r->stream);
	put_away(r, e);
	pf_box_unlock(&r->o->box, r->w->session_id, &r->lock);
	/* Its beats go on meanwhile: a stop that comes when another has the item would end that one's
	 * session. */
	if (pf_lease_sure(r->lease))
		stop_item(r);
	else if (e != LOST)
		pf_wlog("warning", "the lease ran out meanwhile: the item is not stopped");
	pf_lease_stop(r->lease);
	if (e == LOST)
		return pf_fail_kind(err, PF_ERR_STATE, 0, "the lease was lost");
	if (e == FAILED && !err->msg[0])
		pf_fail(err, 0, "see above");
	return e == FAILED ? -1 : 0;
}

int pf_runner_run(const struct pf_runner_opts *o, const struct pf_work *w, int *exit_code, bool *spoilt,
	struct pf_err *err)
{
	struct run r = {.o = o,
		.w = w,
		.bearer = w->token ? w->token : o->key,
		.env = w->environment_id ? w->environment_id : o->environment_id,
		.tool = PF_TOOL_INIT,
		.wake = -1,
		.signals = -1,
		.lock = -1};
	sigset_t set;
	int result = -1, code = 0;

	*exit_code = 1;
	*spoilt = true;
	if (!r.bearer || !r.env)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "neither a session token nor an environment key and id");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	r.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (r.wake < 0 || r.signals < 0)
		pf_fail(err, errno, "eventfd");
	else if ((r.http = pf_http_new(o->base_url, o->agent, err)))
		pf_http_ends_with(r.http, (struct pf_http_over){.is = requests_over, .arg = &r});
	if (r.http && (r.lease = pf_lease_start(
			       o->base_url, o->agent, r.bearer, r.env, w->id, r.wake, r.http, err))) {
		enum end e = begin(&r, err);
		*spoilt = e == FAILED;
		if (e == GOING_ON)
			e = o->command ? pf_run_inside(&r, &code, err) : work(&r);
		result = finish(&r, e, err);
		*exit_code = code ? code : result < 0;
	}
	pf_http_free(r.http);
	pf_ledger_done(&r.ledger);
	cJSON_Delete(r.session);
	pf_skills_done(&r.skills);
	pf_strv_free(r.leave_out);
	pf_memory_free(r.memory);
	free(r.refused);
	if (r.wake >= 0)
		close(r.wake);
	if (r.signals >= 0)
		close(r.signals);
	return result;
}
