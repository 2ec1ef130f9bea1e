/* Theory of operation.
 *
 * A session has two processes outside: the keeper, which is root's, answers root alone and holds cgroups,
 * files and process 1; and this one, which holds the sockets of the gate and reads names, packets, TLS and
 * HTTP heads that a payload wrote. It is forked before there is a payload and has nothing of the keeper's but
 * the log and one socket; when its own sockets are open and there is a box it takes leave of the host's files
 * and processes (view.h; its process ids it has had from the beginning), becomes a user that nobody else is,
 * and keeps one capability, that over the packet filter, in a filter of system calls that leaves it nothing
 * else to use it for (confine.h). Until then it reads nothing that the box has sent.
 *
 *     keeper → gate   {"op":"box"} + cgroup, {"op":"box"} + process 1                   at the beginning
 *                     {"op":"tls"[,"error"]} [+ socket to pinfold-tls]
 *                     {"op":"policy"|"policy-test"|"policy-set",…}           answered with one
 *     gate → keeper   {"op":"netns"} + namespace, {"op":"ready"}; or {"op":"failed","error"}   at the
 * beginning
 *                     {"op":"answer",…} or {"op":"answer","error"}
 *                     {"op":"wake-tls"}
 *
 * The end of the socket is the end of the gate. When the gate ends by itself, its sockets close and nothing
 * leaves any more; the keeper then ends the sandbox, which could not be trusted to say why it is cut off. */
#include "session/gateproc.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/proc.h"
#include "base/sys.h"
#include "netpolicy/gate.h"
#include "netpolicy/tlslink.h"
#include "session/attribution.h"
#include "session/audit.h"
#include "session/confine.h"
#include "session/control.h"
#include "session/view.h"

/* For an answer: loading a policy of many thousand names takes a tenth of a second. */
#define ANSWER_MS 15000
#define END_MS 2000
/* For room in the line to the gate, which there is unless it has left some hundred messages unread. */
#define ROOM_S 2
/* Confining takes as long as a tenth of a create: it is put behind that, unless there is something to do. */
#define CREATOR_MS 20

/* ---- the gate ---- */

struct gate {
	struct pf_gate *gate;
	int sock;
	struct pf_audit_lines log;
};

static void on_verdict(void *arg, const struct pf_gate_event *e)
{
	struct gate *g = arg;

	pf_audit_verdict(&g->log, e);
}

/* Behind what somebody waits for. */
static void on_idle(void *arg)
{
	struct gate *g = arg;

	pf_audit_flush(&g->log);
}

static void on_whois(void *arg, uint64_t cgroup_id, char **exec, char **process)
{
	(void)arg;
	pf_attribute(PF_VIEW_CGROUP, PF_VIEW_PROC, cgroup_id, exec, process);
}

static int say(const struct gate *g, const char *op, const char *error, int fd)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();
	struct pf_err ignored = PF_ERR_INIT;

	cJSON_AddStringToObject(msg, "op", op);
	if (error)
		cJSON_AddStringToObject(msg, "error", error);
	return pf_control_send(g->sock, msg, fd, &ignored);
}

static void on_made(void *arg, int netns_fd)
{
	(void)say(arg, "netns", NULL, netns_fd);
}

static void on_wake_tls(void *arg)
{
	(void)say(arg, "wake-tls", NULL, -1);
}

static cJSON *set_policy(struct gate *g, int doc, struct pf_err *err)
{
	PF_JSON cJSON *j = pf_tlslink_read_document(doc, err);
	const cJSON *networking = cJSON_GetObjectItemCaseSensitive(j, "networking");
	const cJSON *revision = cJSON_GetObjectItemCaseSensitive(j, "revision");
	struct pf_policy *next = j ? pf_policy_compile(networking, err) : NULL;

	if (!next)
		return NULL;
	pf_policy_set_revision(next, cJSON_IsNumber(revision) ? (uint64_t)revision->valuedouble : 0);
	int r = pf_gate_set_policy(g->gate, next, err);
	/* In force from here on, whatever becomes of pinfold-tls. */
	if (r == 0)
		pf_gate_tls_policy(g->gate, networking);
	pf_policy_unref(next);
	return r < 0 ? NULL : cJSON_CreateObject();
}

static cJSON *answer(struct gate *g, const char *op, const cJSON *msg, int fd, struct pf_err *err)
{
	if (strcmp(op, "policy-set") == 0)
		return set_policy(g, fd, err);
	if (strcmp(op, "policy-test") == 0)
		return pf_gate_explain(
			g->gate, cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "target")), err);
	cJSON *a = cJSON_CreateObject();
	pf_json_add_int(a, "revision", (int64_t)pf_policy_revision(pf_gate_policy(g->gate)));
	cJSON_AddItemToObject(a, "policy", pf_policy_describe(pf_gate_policy(g->gate)));
	cJSON_AddItemToObject(a, "gate", pf_gate_stats(g->gate));
	return a;
}

/* false: the keeper is gone. */
static bool on_keeper(void *arg)
{
	struct gate *g = arg;
	struct pf_err err = PF_ERR_INIT;
	PF_CLOSE int fd = -1;
	PF_JSON cJSON *msg = pf_control_recv(g->sock, &fd, &err);
	const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "op"));

	if (!msg)
		return err.errnum == EAGAIN || err.errnum == EINTR;
	if (!op)
		return false;
	if (strcmp(op, "tls") == 0) {
		/* One that cannot be watched is as one that cannot be started: it is asked for again. */
		if (pf_gate_tls(g->gate, pf_take_fd(&fd),
			    cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "error")), &err) < 0)
			(void)pf_gate_tls(g->gate, -1, err.msg, &err);
		return true;
	}
	PF_JSON cJSON *a = answer(g, op, msg, fd, &err);
	if (!a)
		return say(g, "answer", err.msg, -1) == 0;
	cJSON_AddStringToObject(a, "op", "answer");
	if (pf_control_send(g->sock, a, -1, &err) == 0)
		return true;
	return err.kind == PF_ERR_INVALID && say(g, "answer", err.msg, -1) == 0;
}

static const char *text_of(const cJSON *msg, const char *key)
{
	const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, key));
	return s ? s : "";
}

/* false: the keeper is gone, since there is no box. */
static bool await_box(const struct gate *g, int *cgroup, int *pidfd)
{
	int *const fds[] = {cgroup, pidfd};

	for (size_t i = 0; i < 2; i++) {
		struct pf_err ignored = PF_ERR_INIT;
		PF_JSON cJSON *msg = pf_control_recv(g->sock, fds[i], &ignored);
		if (!msg || strcmp(text_of(msg, "op"), "box") != 0)
			return false;
	}
	return true;
}

/* Until nobody waits for the box any more; what comes before that is the end of the wait. false: the keeper
 * is gone. Nothing is read here. */
static bool let_creator_pass(const struct gate *g)
{
	struct pollfd p[] = {
		{.fd = pf_gate_fd(g->gate), .events = POLLIN}, {.fd = g->sock, .events = POLLIN | POLLRDHUP}};

	(void)poll(p, 2, CREATOR_MS);
	return !(p[1].revents & (POLLHUP | POLLRDHUP));
}

static int confine(uid_t uid, int cgroup, int pidfd, struct pf_err *err)
{
	static const char *const ro[] = {"/", NULL};
	bool first = pf_in_first_userns();

	if (pf_view_enter(cgroup, pidfd, err) < 0 || pf_confine_files(NULL, ro, NULL, NULL, err) < 0 ||
		pf_confine_gate(uid, first, -1, err) < 0)
		return -1;
	/* Becoming another user has undone it. */
	return prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 ? pf_fail(err, errno, "gate") : 0;
}

__attribute__((noreturn)) static void gate_main(const struct pf_gateproc_params *p, int sock)
{
	struct gate g = {.sock = sock, .log = {.fd = p->audit}};
	int *const keep[] = {&g.sock, &g.log.fd};
	struct pf_err err = PF_ERR_INIT;
	const struct pf_gate_opts opts = {.audit = on_verdict,
		.whois = on_whois,
		.user = &g,
		.hostname = p->hostname,
		.authority = p->authority,
		.wake_tls = on_wake_tls,
		.creds = p->creds,
		.made = on_made};
	int netns = -1, cgroup = -1, pidfd = -1;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	(void)prctl(PR_SET_NAME, "pinfold-gate", 0, 0, 0);
	/* A service manager that ends everything at once means the keeper, who tells us. */
	(void)signal(SIGTERM, SIG_IGN);
	if (pf_confine_descriptors(keep, 2) < 0) {
		pf_fail(&err, errno, "gate");
	} else {
		g.gate = pf_gate_open(p->policy, &opts, &netns, &err);
		/* Said before the rest, which takes as long as the keeper needs for the next step. */
		if (g.gate && say(&g, "ready", NULL, -1) < 0)
			_exit(125);
	}
	if (!g.gate) {
		(void)say(&g, "failed", err.msg, -1);
		_exit(125);
	}
	close(netns);
	if (!await_box(&g, &cgroup, &pidfd) || !let_creator_pass(&g))
		_exit(0);
	int r = confine(p->uid, cgroup, pidfd, &err);
	if (cgroup >= 0)
		close(cgroup);
	if (pidfd >= 0)
		close(pidfd);
	if (r < 0 || pf_gate_run(g.gate, g.sock, on_keeper, on_idle, &g, &err) < 0) {
		struct pf_err ignored = PF_ERR_INIT;
		cJSON *line = cJSON_CreateObject();
		cJSON_AddStringToObject(line, "error", err.msg);
		(void)pf_audit_write(g.log.fd, "gate_failed", line, &ignored);
		_exit(125);
	}
	pf_gate_close(g.gate);
	pf_audit_flush(&g.log);
	_exit(0);
}

/* ---- the keeper's side ---- */

int pf_gateproc_line(int pair[2], struct pf_err *err)
{
	const struct timeval room = {.tv_sec = ROOM_S};

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return pf_fail(err, errno, "line to the gate");
	if (setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &room, sizeof(room)) == 0)
		return 0;
	pf_fail(err, errno, "line to the gate");
	close(pair[0]);
	close(pair[1]);
	return -1;
}

int pf_gateproc_start(const struct pf_gateproc_params *p, struct pf_gateproc *g, struct pf_err *err)
{
	int pair[2];

	if (pf_gateproc_line(pair, err) < 0)
		return -1;
	struct clone_args args = {.flags = CLONE_NEWPID, .exit_signal = SIGCHLD};
	g->pid = pf_clone3(&args);
	if (g->pid == 0)
		gate_main(p, pair[1]);
	int saved = errno;
	close(pair[1]);
	if (g->pid < 0) {
		g->pid = 0;
		close(pair[0]);
		return pf_fail(err, saved, "start the gate");
	}
	g->sock = pair[0];
	g->last = -1;
	return 0;
}

static int64_t answer_by(void)
{
	return pf_now_us() + (int64_t)ANSWER_MS * 1000;
}

/* Its next message, until then. */
static cJSON *next(const struct pf_gateproc *g, int64_t until, int *fd, struct pf_err *err)
{
	struct pollfd p = {.fd = g->sock, .events = POLLIN};
	int r;

	do {
		int64_t left = (until - pf_now_us()) / 1000;
		r = left > 0 ? poll(&p, 1, (int)left) : 0;
	} while (r < 0 && errno == EINTR);
	cJSON *msg = r > 0 ? pf_control_recv(g->sock, fd, err) : NULL;
	if (!msg && !*err->msg)
		pf_fail_kind(err, PF_ERR_STATE, 0, r > 0 ? "the gate has ended" : "the gate does not answer");
	return msg;
}

int pf_gateproc_netns(struct pf_gateproc *g, struct pf_err *err)
{
	PF_CLOSE int fd = -1;
	PF_JSON cJSON *msg = next(g, answer_by(), &fd, err);

	if (!msg)
		return -1;
	if (strcmp(text_of(msg, "op"), "netns") != 0 || fd < 0)
		return pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s", text_of(msg, "error"));
	return pf_take_fd(&fd);
}

int pf_gateproc_ready(struct pf_gateproc *g, struct pf_err *err)
{
	PF_JSON cJSON *msg = next(g, answer_by(), NULL, err);

	if (!msg)
		return -1;
	return strcmp(text_of(msg, "op"), "ready") == 0
		       ? 0
		       : pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s", text_of(msg, "error"));
}

static int tell(const struct pf_gateproc *g, const char *op, const char *error, int fd, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", op);
	if (error)
		cJSON_AddStringToObject(msg, "error", error);
	return pf_control_send(g->sock, msg, fd, err);
}

int pf_gateproc_box(const struct pf_gateproc *g, int cgroup, int pidfd, struct pf_err *err)
{
	return tell(g, "box", NULL, cgroup, err) < 0 ? -1 : tell(g, "box", NULL, pidfd, err);
}

int pf_gateproc_tls(const struct pf_gateproc *g, int fd, const char *why, struct pf_err *err)
{
	if (tell(g, "tls", why, fd, err) == 0)
		return 0;
	/* It asks, and does not read the answers: that is no gate any more. */
	if (g->pid > 0)
		(void)kill(g->pid, SIGKILL);
	return -1;
}

static bool is_wish(struct pf_gateproc *g, const cJSON *msg)
{
	if (strcmp(text_of(msg, "op"), "wake-tls") != 0)
		return false;
	g->wished = true;
	return true;
}

void pf_gateproc_grant(struct pf_gateproc *g)
{
	if (g->wished && g->wake_tls)
		g->wake_tls(g->arg);
	g->wished = false;
}

cJSON *pf_gateproc_ask(struct pf_gateproc *g, const cJSON *msg, int fd, struct pf_err *err)
{
	if (g->sock < 0) {
		pf_fail_kind(err, PF_ERR_STATE, 0, "the gate has ended");
		return NULL;
	}
	cJSON *a = NULL;
	/* However much else it has to say meanwhile. */
	int64_t until = answer_by();
	if (pf_control_send(g->sock, msg, fd, err) == 0)
		do {
			cJSON_Delete(a);
			a = next(g, until, NULL, err);
		} while (a && is_wish(g, a));
	if (!a) {
		/* What does not answer is not trusted to hold anything back: the end of the line is its end.
		 */
		(void)kill(g->pid, SIGKILL);
		return NULL;
	}
	const cJSON *error = cJSON_GetObjectItemCaseSensitive(a, "error");
	if (cJSON_IsString(error)) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s", error->valuestring);
		cJSON_Delete(a);
		return NULL;
	}
	cJSON_DeleteItemFromObjectCaseSensitive(a, "op");
	return a;
}

bool pf_gateproc_hear(struct pf_gateproc *g)
{
	struct pf_err err = PF_ERR_INIT;
	PF_JSON cJSON *msg = pf_control_recv(g->sock, NULL, &err);

	if (!msg || !is_wish(g, msg))
		return false;
	pf_gateproc_grant(g);
	return true;
}

void pf_gateproc_hang_up(struct pf_gateproc *g)
{
	if (g->sock < 0)
		return;
	(void)shutdown(g->sock, SHUT_WR);
	g->last = pf_take_fd(&g->sock);
}

/* Its end of the line is closed early in its exit, before its mounts go. */
void pf_gateproc_last_words(struct pf_gateproc *g)
{
	int64_t until = pf_now_us() + (int64_t)END_MS * 1000;
	char wish[64];

	while (g->last >= 0) {
		struct pollfd p = {.fd = g->last, .events = POLLIN};
		int64_t left = (until - pf_now_us()) / 1000;
		int r = left > 0 ? poll(&p, 1, (int)left) : 0;
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			(void)kill(g->pid, SIGKILL);
		if (r <= 0 || recv(g->last, wish, sizeof(wish), MSG_DONTWAIT) <= 0)
			close(pf_take_fd(&g->last));
	}
}

void pf_gateproc_end(struct pf_gateproc *g)
{
	siginfo_t si = {0};

	pf_gateproc_hang_up(g);
	if (g->last >= 0)
		close(pf_take_fd(&g->last));
	if (g->pid <= 0)
		return;
	PF_CLOSE int pidfd = pidfd_open(g->pid, 0);
	if (pidfd >= 0 && pf_pidfd_wait(pidfd, END_MS) != 1)
		(void)kill(g->pid, SIGKILL);
	while (waitid(P_PID, (id_t)g->pid, &si, WEXITED) < 0 && errno == EINTR)
		;
	g->pid = 0;
}
