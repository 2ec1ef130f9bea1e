/* What a keeper is told of its box, and the end of it. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "session/audit.h"
#include "session/keeper_priv.h"

/* An end so soon after a kill for memory is that kill's. */
#define OOM_END_US ((int64_t)2000000)

/* A payload can have itself killed as fast as it starts: one line a second tells of all the kills of it. */
#define OOM_LINE_US ((int64_t)1000000)

static void tell_oom(struct keeper *k)
{
	cJSON *line = cJSON_CreateObject();

	cJSON_AddStringToObject(line, "limit", "memory");
	pf_json_add_int(line, "kills", k->oom_untold);
	pf_keeper_log(k, "limit_hit", line);
	k->oom_untold = 0;
}

void pf_keeper_tell_oom(struct keeper *k, int64_t now)
{
	if (k->oom_untold == 0 || now < k->oom_tell_us)
		return;
	k->oom_tell_us = now + OOM_LINE_US;
	if (!pf_audit_is_full(k->audit))
		tell_oom(k);
}

void pf_keeper_on_oom(struct keeper *k)
{
	/* On v1 the notice comes before the kill is counted, and the count goes with the leaf of the exec
	 * that was killed: there the notice itself is the news. */
	int64_t kills = pf_cgroup_oom_drain(k->oom), now = pf_cgroup_oom_kills(k->cgroup);

	if (kills == 0 && k->oom_on_v2 && now > k->oom_kills)
		kills = now - k->oom_kills;
	k->oom_kills = now;
	if (kills == 0)
		return;
	k->oom_us = pf_now_us();
	k->oom_untold += kills;
	pf_keeper_tell_oom(k, k->oom_us);
	if (!k->stop_reason)
		pf_autosave_after_kill(&k->autosave, &k->p->config->checkpoint, k->oom_us);
}

static void audit_no_snapshot(const struct keeper *k, const char *on, const char *why)
{
	cJSON *line = cJSON_CreateObject();

	if (on)
		cJSON_AddStringToObject(line, "on", on);
	cJSON_AddStringToObject(line, "error", why);
	pf_keeper_log(k, "snapshot_failed", line);
}

void pf_keeper_on_saver(struct keeper *k)
{
	pf_autosave_event(&k->autosave, &k->p->config->checkpoint);
	if (k->autosave.fd < 0)
		audit_no_snapshot(k, NULL, "the process that makes checkpoints has died: there will be none");
}

/* What the end of this sandbox is called in checkpoint.on; PF_N_ON when the file does not ask for it. */
static enum pf_config_on occasion(const struct keeper *k, const siginfo_t *si)
{
	const bool *on = k->p->config->checkpoint.on;
	enum pf_config_on o = PF_N_ON;

	bool ended = strcmp(k->stop_reason, "exit") == 0;
	bool out_of_memory = ended && on[PF_ON_LIMIT] && k->oom_us && pf_now_us() - k->oom_us < OOM_END_US;

	if (strcmp(k->stop_reason, "max_runtime") == 0 || out_of_memory)
		o = PF_ON_LIMIT;
	else if (strcmp(k->stop_reason, "idle") == 0)
		o = PF_ON_IDLE;
	else if (strcmp(k->stop_reason, "terminated") == 0)
		o = PF_ON_SIGNAL;
	else if (ended && si->si_code == CLD_EXITED) /* else: killed from outside, by who wanted that */
		o = PF_ON_EXIT;
	return o != PF_N_ON && on[o] ? o : PF_N_ON;
}

static int code_of(const siginfo_t *si)
{
	return si->si_code == CLD_EXITED ? si->si_status : 128 + si->si_status;
}

/* Everything of the box goes; the workspace on disk stays. */
void pf_keeper_finish(struct keeper *k)
{
	struct pf_err err = PF_ERR_INIT;
	siginfo_t si = {0};

	/* The last lines of its log are written while the box dies. */
	pf_gateproc_hang_up(&k->gate);
	pf_tlsproc_done(&k->tls);
	(void)pf_cgroup_kill(k->cgroup, &err);
	/* And by another way: the end of process 1 is the end of everybody in its namespace. */
	(void)pidfd_send_signal(k->box.pidfd, SIGKILL, NULL, 0);
	(void)pf_cgroup_wait_empty(k->cgroup, 10000, &err);
	pf_keeper_on_oom(k);
	if (k->oom_untold > 0)
		tell_oom(k);
	while (waitid(P_PIDFD, (id_t)k->box.pidfd, &si, WEXITED) < 0 && errno == EINTR)
		;
	k->p->state->exit_code = code_of(&si);
	free(k->p->state->stop_reason);
	k->p->state->stop_reason = pf_strdup(k->stop_reason);

	pf_gateproc_last_words(&k->gate);
	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "reason", k->stop_reason);
	pf_json_add_int(line, "exit_code", k->p->state->exit_code);
	struct pf_cgroup_stats stats;
	if (pf_cgroup_stats(k->cgroup, &stats, &err) == 0)
		cJSON_AddItemToObject(line, "resources", pf_cgroup_stats_json(&stats));
	if (strcmp(k->stop_reason, "max_runtime") == 0 || strcmp(k->stop_reason, "idle") == 0)
		cJSON_AddStringToObject(line, "limit", k->stop_reason);
	pf_keeper_log(k, "stop", line);
	(void)pf_cgroup_remove(k->cgroup, 2000, &err);
	(void)pf_keeper_save_state(k, PF_STATUS_STOPPED, &err);
	pf_gateproc_end(&k->gate);
	if (k->autosave.pid > 0) {
		enum pf_config_on on = occasion(k, &si);
		struct pf_err why = PF_ERR_INIT;
		if (pf_autosave_end(&k->autosave, k->p->dirs, k->p->state->id, on, &why) < 0)
			audit_no_snapshot(k, pf_config_on_name(on), why.msg);
	}
}
