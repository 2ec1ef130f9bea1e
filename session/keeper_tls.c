/* pinfold-tls as the keeper sees it: when it is started, and what is told when it ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "session/keeper_priv.h"
#include "session/trust.h"

/* A sandbox that lives longer than its authority must be started again. */
#define AUTHORITY_S ((int64_t)90 * 86400)

int pf_keeper_tls_begin(struct keeper *k, struct pf_err *err)
{
	int64_t runtime = k->p->config->limits.max_runtime_ms;

	pf_tlsproc_policy(&k->tls, k->p->networking, k->revision);
	if (!k->p->tls_helper)
		return 0;
	k->tls.helper = k->p->tls_helper;
	k->tls.id_base = k->p->state->id_base;
	k->tls.lifetime_s =
		runtime > 0 && runtime / 1000 < AUTHORITY_S ? runtime / 1000 + 86400 : AUTHORITY_S;
	k->tls.credentials = k->p->credentials;
	return pf_tlsproc_begin(&k->tls, err);
}

int pf_keeper_tls_trust(struct keeper *k, struct pf_err *err)
{
	if (!k->tls.helper)
		return 0;
	PF_FREE char *pem = pf_tlsproc_ca(&k->tls, err);
	PF_CLOSE int dir = pem ? pf_dirs_sandbox(k->p->dirs, k->p->state->id, false, err) : -1;

	if (dir < 0)
		return -1;
	PF_CLOSE int etc = openat(dir, "etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (etc < 0)
		return pf_fail(err, errno, "the sandbox's files for /etc");
	return pf_trust_write(etc, k->p->lowers, pem, err);
}

static void tell_died(struct keeper *k, const char *why)
{
	cJSON *line = cJSON_CreateObject();

	cJSON_AddStringToObject(line, "error", why);
	pf_json_add_int(line, "times", k->tls.crashes);
	pf_keeper_log(k, "tls_died", line);
}

void pf_keeper_tls_ended(struct keeper *k)
{
	PF_FREE char *why = pf_tlsproc_ended(&k->tls);

	if (why)
		tell_died(k, why);
}

/* One that has died, and whose death is not through the loop yet, is no one to talk to. */
static void look(struct keeper *k)
{
	if (k->tls.pid > 0 && !k->tls.rests && pf_pidfd_ended(k->tls.pidfd))
		pf_keeper_tls_ended(k);
}

static int watch(struct keeper *k, pid_t before, struct pf_err *err)
{
	if (k->tls.pid == before || pf_keeper_watch(k, k->tls.pidfd, &pf_keeper_tags.tls) == 0)
		return 0;
	int saved = errno;
	pf_tlsproc_done(&k->tls);
	return pf_fail(err, saved, "watch pinfold-tls");
}

void pf_keeper_tls_wake(void *keeper)
{
	struct keeper *k = keeper;
	struct pf_err err = PF_ERR_INIT, ignored = PF_ERR_INIT;

	look(k);
	pid_t before = k->tls.rests ? 0 : k->tls.pid;
	PF_CLOSE int fd = pf_tlsproc_wake(&k->tls, &err);
	if (fd >= 0 && watch(k, before, &err) < 0)
		close(pf_take_fd(&fd));
	/* A gate that cannot be told has ended, or does now, which is found out where it is listened to. */
	(void)pf_gateproc_tls(&k->gate, fd, fd < 0 ? err.msg : NULL, &ignored);
}

cJSON *pf_keeper_tls_secret(struct keeper *k, const char *name, int fd, struct pf_err *err)
{
	if (!name || fd < 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "no secret came");
		return NULL;
	}
	look(k);
	pid_t before = k->tls.rests ? 0 : k->tls.pid;
	if (pf_tlsproc_secret(&k->tls, name, fd, err) < 0 || watch(k, before, err) < 0)
		return NULL;
	cJSON *line = cJSON_CreateObject();
	cJSON_AddStringToObject(line, "credential", name);
	pf_keeper_log(k, "secret_set", line);
	return cJSON_CreateObject();
}
