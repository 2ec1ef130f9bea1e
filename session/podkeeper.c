/* Theory of operation: the keeper of a pod.
 *
 * `pinfold create` forks it before there is a container and goes on when the rules are in force. Who called
 * pinfold (a containerd shim, conmon) inherits it, with none of the caller's descriptors. It is no ancestor
 * of the payload and in none of its namespaces but the network; what ties it to the container is the pidfd of
 * the first process, which it is given when that exists. Until then the end of the line to its creator means
 * that the container did not come about, and everything is taken back.
 *
 *     first process's pidfd → the container is over: close the gate, end
 *     the gate's epoll fd   → DNS and connections (netpolicy/)
 *     the control socket    → `pinfold policy`, one question at a time
 *
 * When it ends, or is killed, its sockets close and the rules stay: the namespace is closed for those who are
 * still in it. */
#include "session/podkeeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/str.h"
#include "base/sys.h"
#include "netpolicy/gate.h"
#include "netpolicy/tlslink.h"
#include "session/audit.h"
#include "session/confine.h"
#include "session/control.h"
#include "session/view.h"

/* Pods come and go without anybody who tidies up after each: their logs end somewhere. */
#define MAX_LOG ((off_t)16 << 20)
/* How long somebody who connected to the control socket may take to ask. */
#define ASK_US 5000000

/* Containers whose connections are told apart in the log; more than that are not. */
#define MAX_CONTAINERS 32

struct keeper {
	const struct pf_podkeeper *p;
	struct pf_gate *gate;
	int sock, audit, rewrite, pidfd, listen, conn; /* rewrite: the log, not to append to */
	int64_t conn_by;
	/* The cgroups (of v2) of the containers that are or were in the namespace, the newest last. */
	struct {
		uint64_t cgroup;
		char *id;
	} containers[MAX_CONTAINERS];
	size_t n_containers;
};

/* ---- the log ---- */

/* In place, since it may make no files: the newer half, from the beginning of a line on, becomes all of it.
 */
static void shorten(struct keeper *k)
{
	char chunk[65536];
	off_t from, to = 0;
	struct stat st;
	ssize_t n;

	if (k->rewrite < 0 || fstat(k->audit, &st) < 0 || st.st_size < MAX_LOG)
		return;
	for (from = st.st_size / 2; (n = pread(k->rewrite, chunk, sizeof(chunk), from)) > 0; from += n) {
		const char *end = memchr(chunk, '\n', (size_t)n);
		if (end) {
			from += end + 1 - chunk;
			break;
		}
	}
	while ((n = pread(k->rewrite, chunk, sizeof(chunk), from)) > 0) {
		if (pwrite(k->rewrite, chunk, (size_t)n, to) != n)
			return;
		from += n;
		to += n;
	}
	(void)!ftruncate(k->rewrite, to);
}

static void say(struct keeper *k, const char *event, cJSON *fields)
{
	struct pf_err ignored = PF_ERR_INIT;

	/* A full disk must not open the gate nor stop it; the line is lost. */
	(void)pf_audit_write(k->audit, event, fields, &ignored);
	shorten(k);
}

static void on_verdict(void *arg, const struct pf_gate_event *e)
{
	struct keeper *k = arg;
	struct pf_audit_lines line = {.fd = k->audit};

	pf_audit_verdict(&line, e);
	pf_audit_flush(&line);
	pf_buf_done(&line.text);
	shorten(k);
}

/* Whose socket it was that a connection came from. */
static void on_whois(void *arg, uint64_t cgroup_id, char **exec, char **process)
{
	const struct keeper *k = arg;

	*exec = *process = NULL;
	for (size_t i = k->n_containers; i-- > 0 && !*exec;)
		if (k->containers[i].cgroup == cgroup_id)
			*exec = pf_strdup(k->containers[i].id);
}

static cJSON *add_container(struct keeper *k, const cJSON *msg, struct pf_err *err)
{
	const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "id"));
	int64_t cgroup = 0;

	if (pf_json_int(msg, "", "cgroup", 1, INT64_MAX, &cgroup, err) < 0)
		return NULL;
	if (!id || !cgroup) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "container: needs id and cgroup");
		return NULL;
	}
	if (k->n_containers == MAX_CONTAINERS) {
		free(k->containers[0].id);
		memmove(&k->containers[0], &k->containers[1],
			sizeof(k->containers) - sizeof(k->containers[0]));
		k->n_containers--;
	}
	k->containers[k->n_containers].cgroup = (uint64_t)cgroup;
	k->containers[k->n_containers++].id = pf_strdup(id);
	return cJSON_CreateObject();
}

/* ---- the control socket ---- */

static cJSON *set_policy(struct keeper *k, const cJSON *networking, struct pf_err *err)
{
	struct pf_policy *next = pf_policy_compile(networking, err);
	uint64_t revision = pf_policy_revision(pf_gate_policy(k->gate)) + 1;

	if (!next)
		return NULL;
	pf_policy_set_revision(next, revision);
	int r = pf_gate_set_policy(k->gate, next, err);
	pf_policy_unref(next);
	if (r < 0)
		return NULL;
	cJSON *line = cJSON_CreateObject(), *a = cJSON_CreateObject();
	pf_json_add_int(line, "revision", (int64_t)revision);
	cJSON_AddItemToObject(line, "networking", cJSON_Duplicate(networking, true));
	say(k, "policy_set", line);
	pf_json_add_int(a, "revision", (int64_t)revision);
	return a;
}

static cJSON *answer(struct keeper *k, const cJSON *msg, int given)
{
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "op"));
	struct pf_err err = PF_ERR_INIT;
	cJSON *a = NULL;

	if (op && strcmp(op, "policy") == 0) {
		a = cJSON_CreateObject();
		pf_json_add_int(a, "revision", (int64_t)pf_policy_revision(pf_gate_policy(k->gate)));
		cJSON_AddItemToObject(a, "policy", pf_policy_describe(pf_gate_policy(k->gate)));
		cJSON_AddItemToObject(a, "gate", pf_gate_stats(k->gate));
	} else if (op && strcmp(op, "policy-set") == 0) {
		PF_JSON cJSON *doc = pf_tlslink_read_document(given, &err);
		const cJSON *networking = cJSON_GetObjectItemCaseSensitive(doc, "networking");
		a = networking ? set_policy(k, networking, &err) : NULL;
	} else if (op && strcmp(op, "container") == 0) {
		a = add_container(k, msg, &err);
	} else if (op && strcmp(op, "policy-test") == 0) {
		a = pf_gate_explain(
			k->gate, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "target")), &err);
	} else {
		pf_fail_kind(&err, PF_ERR_INVALID, 0, "a container's keeper knows no request '%.40s'",
			op ? op : "");
	}
	if (!a) {
		a = cJSON_CreateObject();
		cJSON_AddStringToObject(a, "error", err.msg);
	}
	return a;
}

static void on_conn(struct keeper *k)
{
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int given = -1;
	PF_JSON cJSON *msg = pf_control_recv(k->conn, &given, &err), *a = NULL;

	if (!msg && err.errnum == EAGAIN)
		return;
	if (msg) {
		a = answer(k, msg, given);
		(void)pf_control_send(k->conn, a, -1, &err);
	}
	close(pf_take_fd(&k->conn));
}

/* ---- running ---- */

static int timeout_ms(const struct keeper *k)
{
	int gate = pf_gate_timeout_ms(k->gate), ask = -1;

	if (k->conn >= 0) {
		int64_t left = (k->conn_by - pf_now_us()) / 1000 + 1;
		ask = left > 0 ? (int)left : 0;
	}
	return gate < 0 || (ask >= 0 && ask < gate) ? ask : gate;
}

static void run(struct keeper *k)
{
	for (;;) {
		struct pollfd p[] = {{.fd = k->pidfd, .events = POLLIN},
			{.fd = pf_gate_fd(k->gate), .events = POLLIN},
			{.fd = k->conn >= 0 ? k->conn : k->listen, .events = POLLIN}};

		if (poll(p, 3, timeout_ms(k)) < 0 && errno != EINTR)
			return;
		if (p[0].revents)
			return;
		if (p[2].revents && k->conn >= 0) {
			on_conn(k);
		} else if (p[2].revents) {
			k->conn = accept4(k->listen, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
			k->conn_by = pf_now_us() + ASK_US;
		} else if (k->conn >= 0 && pf_now_us() >= k->conn_by) {
			close(pf_take_fd(&k->conn));
		}
		pf_gate_dispatch(k->gate);
	}
}

static int open_log(struct keeper *k, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_open(k->p->dirs->store, "logs", err);
	PF_FREE char *name = pf_asprintf("%s.jsonl", k->p->id);

	k->audit = dir < 0 ? -1 : pf_audit_open(k->p->dirs, k->p->id, err);
	if (k->audit < 0)
		return -1;
	k->rewrite = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return k->rewrite < 0 ? pf_fail(err, errno, "audit log %s", name) : 0;
}

static int open_all(struct keeper *k, int *made, struct pf_err *err)
{
	const struct pf_podkeeper *p = k->p;
	const struct pf_gate_opts opts = {.audit = on_verdict,
		.whois = on_whois,
		.user = k,
		.hostname = p->hostname,
		.resolver = p->resolver};

	if (open_log(k, err) < 0)
		return -1;
	k->gate = p->netns < 0 ? pf_gate_open(p->policy, &opts, made, err)
			       : pf_gate_join(p->policy, &opts, p->netns, err);
	return k->gate ? 0 : -1;
}

static int confine(const struct keeper *k, uid_t uid, struct pf_err *err)
{
	static const char *const ro[] = {"/", NULL};
	bool first = pf_in_first_userns();

	return pf_view_enter(-1, -1, err) < 0 || pf_confine_files(NULL, ro, NULL, NULL, err) < 0
		       ? -1
		       : pf_confine_gate(uid, first, k->rewrite, err);
}

static int stay(struct keeper *k, uid_t uid, struct pf_err *err)
{
	k->listen = pf_control_listen(k->p->dir, err);
	return k->listen < 0 ? -1 : confine(k, uid, err);
}

/* Process 1 of its namespace has no default for it. */
static void on_term(int sig)
{
	(void)sig;
	_exit(0);
}

static void settle(void)
{
	struct rlimit files;

	/* The soft limit is what select(2) can bear; each connection through the gate takes several. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	(void)setsid();
	(void)prctl(PR_SET_NAME, "pinfold-keeper", 0, 0, 0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, on_term);
	umask(077);
}

__attribute__((noreturn)) static void keeper_main(const struct pf_podkeeper *params, int sock)
{
	struct pf_podkeeper p = *params;
	struct keeper k = {
		.p = &p, .sock = sock, .audit = -1, .rewrite = -1, .pidfd = -1, .listen = -1, .conn = -1};
	int *const keep[] = {&k.sock, &p.dir, &p.netns};
	struct pf_err err = PF_ERR_INIT;
	int made = -1, r;

	settle();
	r = pf_confine_descriptors(keep, 3) < 0 || chdir("/") < 0 ? pf_fail(&err, errno, "keeper")
								  : open_all(&k, &made, &err);
	if (r < 0) {
		(void)send(k.sock, &err, sizeof(err), MSG_NOSIGNAL);
		_exit(125);
	}
	uid_t uid = pf_confine_pod_uid(made >= 0 ? made : p.netns);
	if (send(k.sock, "", 1, MSG_NOSIGNAL) != 1 || (made >= 0 && pf_send_fd(k.sock, made) < 0))
		k.pidfd = -1;
	else
		k.pidfd = pf_recv_fd(k.sock);
	if (made >= 0)
		close(made);
	if (k.pidfd < 0) {
		pf_gate_undo(k.gate);
		_exit(0);
	}
	/* From here on the container is there, and what does not work out leaves it closed. */
	r = stay(&k, uid, &err);
	if (r < 0)
		(void)send(k.sock, &err, sizeof(err), MSG_NOSIGNAL);
	else
		(void)send(k.sock, "", 1, MSG_NOSIGNAL);
	close(k.sock);
	if (r == 0)
		run(&k);
	pf_gate_close(k.gate);
	_exit(0);
}

/* One message of its: a byte for good, or an error. */
static int hear(int sock, struct pf_err *err)
{
	struct pf_err remote;
	ssize_t n;

	do
		n = recv(sock, &remote, sizeof(remote), 0);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		return 0;
	if (n != (ssize_t)sizeof(remote))
		return pf_fail(err, 0, "the egress keeper ended before it was ready");
	remote.msg[sizeof(remote.msg) - 1] = '\0';
	*err = remote;
	return -1;
}

int pf_podkeeper_start(const struct pf_podkeeper *k, pid_t *pid, int *sock, int *netns, struct pf_err *err)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "line to the egress keeper");
	struct clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
	*pid = pf_clone3(&args);
	if (*pid == 0)
		keeper_main(k, pair[1]);
	int saved = errno;
	close(pair[1]);
	int r = *pid < 0 ? pf_fail(err, saved, "start the egress keeper") : hear(pair[0], err);
	if (r == 0 && k->netns < 0) {
		*netns = pf_recv_fd(pair[0]);
		if (*netns < 0)
			r = pf_fail(err, errno, "the network namespace of the egress keeper");
	}
	if (r < 0) {
		close(pair[0]);
		while (*pid > 0 && waitpid(*pid, NULL, 0) < 0 && errno == EINTR)
			;
		return -1;
	}
	*sock = pair[0];
	return 0;
}

int pf_podkeeper_go(int sock, int pidfd, struct pf_err *err)
{
	if (pf_send_fd(sock, pidfd) < 0)
		return pf_fail(err, errno, "talk to the egress keeper");
	return hear(sock, err);
}
