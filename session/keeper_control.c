/* The control socket: execs announcing themselves, requests for the workspace, policy updates, secrets.
 * Whoever can connect to it is root of the host. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "netpolicy/tlslink.h"
#include "session/control.h"
#include "session/keeper_priv.h"
#include "session/record.h"

static void kill_leaf(struct keeper *k, const char *leaf)
{
	PF_FREE char *path = pf_asprintf("%s/%s", pf_cgroup_path(k->cgroup), leaf);
	PF_CGROUP struct pf_cgroup *cg = NULL;
	struct pf_err ignored = PF_ERR_INIT;

	if (pf_cgroup_open(&k->host, path, &cg, &ignored) == 0 && pf_cgroup_kill(cg, &ignored) == 0)
		(void)pf_cgroup_remove(cg, 1000, &ignored);
}

/* Leaves in which something of an exec went on in the background go when that has ended. */
static void collect_leaves(struct keeper *k, char *leaf)
{
	size_t n = 0;

	if (leaf) {
		char **more = realloc(k->leftover, (k->n_leftover + 1) * sizeof(*more));
		if (!more)
			abort();
		k->leftover = more;
		k->leftover[k->n_leftover++] = leaf;
	}
	for (size_t i = 0; i < k->n_leftover; i++) {
		PF_FREE char *path = pf_asprintf("%s/%s", pf_cgroup_path(k->cgroup), k->leftover[i]);
		PF_CGROUP struct pf_cgroup *cg = NULL;
		struct pf_err e = PF_ERR_INIT;
		bool gone = pf_cgroup_open(&k->host, path, &cg, &e) < 0 && e.kind == PF_ERR_NOT_FOUND;
		if (!gone && cg && pf_cgroup_is_empty(cg, &e) == 1)
			gone = pf_cgroup_remove(cg, 0, &e) == 0;
		if (gone)
			free(k->leftover[i]);
		else
			k->leftover[n++] = k->leftover[i];
	}
	k->n_leftover = n;
}

/* Somebody froze the box and went away without a word: nobody else would thaw it. */
static void thaw(struct keeper *k)
{
	PF_FREE char *paused = pf_asprintf("%s/%s/paused", k->p->dirs->root, k->p->state->id);
	struct pf_err ignored = PF_ERR_INIT;

	for (const struct conn *c = k->conns; c; c = c->next)
		if (c->freezing)
			return; /* it stands still for somebody else by now */
	if (access(paused, F_OK) != 0)
		(void)pf_cgroup_freeze(k->cgroup, false, 1000, &ignored);
}

static void drop_conn(struct keeper *k, struct conn *c)
{
	struct conn **pp = &k->conns;

	while (*pp != c)
		pp = &(*pp)->next;
	*pp = c->next;
	if (c->freezing)
		thaw(k);
	if (c->leaf)
		kill_leaf(k, c->leaf);
	if (c->exec && --k->execs == 0 && k->p->config->limits.idle_ms > 0)
		k->idle_us = pf_now_us() + k->p->config->limits.idle_ms * 1000;
	/* Closing it would not be enough: a child of ours that has not come to its exec has it, too. */
	pf_keeper_unwatch(k, c->fd);
	close(c->fd);
	free(c->leaf);
	free(c);
}

static cJSON *set_policy(struct keeper *k, const cJSON *networking, struct pf_err *err)
{
	uint64_t revision = k->revision + 1;
	PF_CLOSE int dir = pf_dirs_sandbox(k->p->dirs, k->p->state->id, false, err);
	PF_JSON cJSON *ask = cJSON_CreateObject();
	PF_CLOSE int doc = dir < 0 ? -1 : pf_tlslink_document(networking, NULL, revision, err);

	if (doc < 0)
		return NULL;
	/* Remembered first: a policy that was narrowed must not be wide again after a restart. */
	cJSON_AddStringToObject(ask, "op", "policy-set");
	bool had = faccessat(dir, PF_SESSION_POLICY_FILE, F_OK, 0) == 0;
	if (pf_session_policy_save(dir, networking, revision, err) < 0)
		return NULL;
	PF_JSON cJSON *done = pf_gateproc_ask(&k->gate, ask, doc, err);
	if (!done) {
		struct pf_err ignored = PF_ERR_INIT;
		if (had)
			(void)pf_session_policy_save(dir, k->tls.networking, k->revision, &ignored);
		else
			(void)unlinkat(dir, PF_SESSION_POLICY_FILE, 0);
		return NULL;
	}
	k->revision = revision;
	pf_tlsproc_policy(&k->tls, networking, revision);
	cJSON *line = cJSON_CreateObject(), *a = cJSON_CreateObject();
	pf_json_add_int(line, "revision", (int64_t)revision);
	cJSON_AddItemToObject(line, "networking", cJSON_Duplicate(networking, true));
	pf_keeper_log(k, "policy_set", line);
	pf_json_add_int(a, "revision", (int64_t)revision);
	return a;
}

/* Returns the answer to a request, NULL when there is none to give; *fd goes with it. */
static cJSON *answer(struct keeper *k, struct conn *c, const cJSON *msg, int given, int *fd)
{
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "op"));
	const char *leaf = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "leaf"));
	struct pf_err err = PF_ERR_INIT;
	cJSON *a = NULL;

	*fd = -1;
	if (!op)
		op = "";
	if (strcmp(op, "exec") == 0 && leaf && pf_check_id("leaf", leaf, &err) == 0 && !c->leaf) {
		c->leaf = pf_strdup(leaf);
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(msg, "internal")))
			return NULL;
		k->execs += !c->exec;
		c->exec = true;
		k->idle_us = 0;
		return NULL;
	}
	if (strcmp(op, "done") == 0) {
		collect_leaves(k, pf_take(c->leaf));
		return NULL;
	}
	if (strcmp(op, "freezing") == 0 || strcmp(op, "thawed") == 0) {
		c->freezing = op[0] == 'f';
		return NULL;
	}
	if (strcmp(op, "workspace") == 0) {
		*fd = k->p->workspace->upper_fd;
		a = cJSON_CreateObject();
	} else if (strcmp(op, "policy") == 0 || strcmp(op, "policy-test") == 0) {
		a = pf_gateproc_ask(&k->gate, msg, -1, &err);
	} else if (strcmp(op, "policy-set") == 0) {
		PF_JSON cJSON *doc = pf_tlslink_read_document(given, &err);
		const cJSON *networking = cJSON_GetObjectItemCaseSensitive(doc, "networking");
		a = networking ? set_policy(k, networking, &err) : NULL;
	} else if (strcmp(op, "secret") == 0) {
		a = pf_keeper_tls_secret(
			k, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "name")), given, &err);
	} else {
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "the keeper knows no request '%.40s'", op);
	}
	pf_gateproc_grant(&k->gate);
	if (!a) {
		a = cJSON_CreateObject();
		cJSON_AddStringToObject(a, "error", err.msg);
	}
	return a;
}

void pf_keeper_on_conn(struct keeper *k, struct conn *c)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int given = -1;
	PF_JSON cJSON *msg = pf_control_recv(c->fd, &given, &err), *a = NULL;
	int fd;

	if (!msg) {
		if (err.errnum == EAGAIN)
			return;
		drop_conn(k, c);
		return;
	}
	a = answer(k, c, msg, given, &fd);
	/* A client that does not read its answer is dropped, never waited for: the socket does not block. */
	if (!a || pf_control_send(c->fd, a, fd, &err) == 0)
		return;
	PF_JSON cJSON *sorry = cJSON_CreateObject();
	cJSON_AddStringToObject(sorry, "error", err.msg);
	if (err.kind != PF_ERR_INVALID || pf_control_send(c->fd, sorry, -1, &err) < 0)
		drop_conn(k, c);
}

void pf_keeper_on_listen(struct keeper *k)
{
	int fd;

	while ((fd = accept4(k->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct conn *c = pf_calloc(1, sizeof(*c));
		c->fd = fd;
		c->next = k->conns;
		k->conns = c;
		if (pf_keeper_watch(k, fd, c) < 0)
			drop_conn(k, c);
	}
	/* Out of descriptors: take the caller and turn him away, or the event would come again at once, for
	 * ever. */
	if ((errno == EMFILE || errno == ENFILE) && k->spare >= 0) {
		close(k->spare);
		fd = accept4(k->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			close(fd);
		k->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
}
