/* Theory of operation.
 *
 * A sandbox whose policy ends TLS, or that has credentials, trusts an authority of its own from its first
 * moment on, so that must be made before it starts; but most of the time nobody connects to what needs it. So
 * pinfold-tls is run once, makes the authority, takes the secrets, puts both into the *vault*
 * (memfd_secret(2): pages that are in nobody's address space but that of who maps them, never swapped, in no
 * dump) and ends. The first connection that needs it has it started again, with the vault, and so does the
 * first one after it has died: three times, because what is hostile could try for ever.
 *
 * The keeper holds the vault's descriptor and never maps it; the gate, which reads what the payload sends,
 * has neither. Where the kernel has no such memory the first one stays, as the only place where secrets are,
 * and when it dies, there is no second. */
#include "session/tlsproc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "base/sys.h"
#include "netpolicy/tlslink.h"
#include "session/confine.h"

#define READY_MS 15000
#define CRASHES_MAX 3

static int make_vault(size_t n_secrets)
{
#ifdef SYS_memfd_secret
	PF_CLOSE int fd = (int)syscall(SYS_memfd_secret, O_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)PF_TLSLINK_VAULT_SIZE(n_secrets)) < 0)
		return -1;
	return pf_take_fd(&fd);
#else
	(void)n_secrets;
	return -1;
#endif
}

__attribute__((noreturn)) static void become(const struct pf_tlsproc *t, int sock)
{
	char uid[16];
	char *const argv[] = {(char *)"pinfold-tls", uid, NULL}, *const env[] = {NULL};
	int *const keep[] = {&sock, &(int){t->vault}};
	sigset_t none;

	snprintf(uid, sizeof(uid), "%u", pf_confine_tls_uid(t->id_base));
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (pf_confine_descriptors(keep, 2) < 0)
		_exit(125);
	for (int i = 0; i < 2; i++)
		if (*keep[i] >= 0)
			(void)pf_set_cloexec(*keep[i], false);
	execve(t->helper, argv, env);
	_exit(125);
}

static int send_secret(int sock, const char *name, int fd, struct pf_err *err)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();

	cJSON_AddStringToObject(msg, "op", "secret");
	cJSON_AddStringToObject(msg, "name", name);
	return pf_tlslink_send(sock, msg, NULL, 0, &fd, 1, err);
}

static int tell(struct pf_tlsproc *t, int sock, struct pf_err *err)
{
	PF_JSON cJSON *setup = cJSON_CreateObject();
	PF_CLOSE int doc = pf_tlslink_document(t->networking, t->credentials->list, t->revision, err);

	cJSON_AddStringToObject(setup, "op", "setup");
	pf_json_add_int(setup, "lifetime", t->lifetime_s);
	if (doc < 0 || pf_tlslink_send(sock, setup, NULL, 0, &doc, 1, err) < 0)
		return -1;
	t->told = t->revision;
	for (size_t i = 0; i < t->credentials->n_secrets; i++) {
		struct pf_secret *s = &t->credentials->secrets[i];
		if (s->fd < 0)
			continue;
		if (send_secret(sock, s->name, s->fd, err) < 0)
			return -1;
		close(s->fd);
		s->fd = -1;
	}
	return 0;
}

static int start(struct pf_tlsproc *t, struct pf_err *err)
{
	int socks[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		return pf_fail(err, errno, "socket to pinfold-tls");
	PF_CLOSE int ours = socks[0], theirs = socks[1];
	t->pid = fork();
	if (t->pid == 0)
		become(t, theirs);
	if (t->pid < 0) {
		t->pid = 0;
		return pf_fail(err, errno, "start pinfold-tls");
	}
	t->pidfd = pidfd_open(t->pid, 0);
	close(theirs);
	theirs = -1;
	if (t->pidfd < 0 || tell(t, ours, err) < 0) {
		if (t->pidfd < 0)
			pf_fail(err, errno, "pinfold-tls");
		pf_tlsproc_done(t);
		return pf_wrap(err, "pinfold-tls");
	}
	t->sock = pf_take_fd(&ours);
	return 0;
}

int pf_tlsproc_begin(struct pf_tlsproc *t, struct pf_err *err)
{
	t->vault = make_vault(t->credentials->n_secrets);
	if (start(t, err) < 0)
		return -1;
	if (t->vault < 0)
		return 0;
	PF_JSON cJSON *rest = cJSON_CreateObject();
	cJSON_AddStringToObject(rest, "op", "rest");
	t->rests = true;
	return pf_tlslink_send(t->sock, rest, NULL, 0, NULL, 0, err);
}

static int unblock(int sock, struct pf_err *err)
{
	int flags = fcntl(sock, F_GETFL);

	if (flags < 0 || fcntl(sock, F_SETFL, flags | O_NONBLOCK) < 0)
		return pf_fail(err, errno, "socket to pinfold-tls");
	return 0;
}

char *pf_tlsproc_ca(struct pf_tlsproc *t, struct pf_err *err)
{
	struct pollfd p = {.fd = t->sock, .events = POLLIN};
	int fds[PF_TLSLINK_FDS];
	const char *tail;
	size_t len;

	if (poll(&p, 1, READY_MS) <= 0) {
		pf_fail_kind(err, PF_ERR_SYSTEM, 0, "pinfold-tls does not answer");
		return NULL;
	}
	PF_FREE char *text = NULL;
	PF_JSON cJSON *msg = pf_tlslink_recv(t->sock, &text, &tail, &len, fds, err);
	if (!msg) {
		if (!*err->msg)
			pf_fail_kind(err, PF_ERR_SYSTEM, 0, "pinfold-tls ended at once");
		return NULL;
	}
	const char *pem = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "pem"));
	const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "text"));
	if (!pem) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "pinfold-tls: %s", why ? why : "not understood");
		return NULL;
	}
	return unblock(t->sock, err) < 0 ? NULL : pf_strdup(pem);
}

static int run(struct pf_tlsproc *t, struct pf_err *err)
{
	if (t->pid > 0 && !t->rests)
		return 0;
	if (t->pid > 0)
		free(pf_tlsproc_ended(t)); /* it is about to */
	if (t->vault < 0)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"pinfold-tls has died, and with it the sandbox's authority: start the sandbox again");
	if (t->crashes > CRASHES_MAX)
		return pf_fail_kind(err, PF_ERR_STATE, 0,
			"pinfold-tls has died %u times: it is not started again in this sandbox", t->crashes);
	return start(t, err) < 0 || unblock(t->sock, err) < 0 ? -1 : 0;
}

/* It may have been started for a secret, or have lived from the beginning, with no gate to tell it of what
 * came since. One that cannot be told is not to be asked. */
static void tell_policy(struct pf_tlsproc *t)
{
	PF_JSON cJSON *msg = cJSON_CreateObject();
	struct pf_err ignored = PF_ERR_INIT;
	PF_CLOSE int doc = pf_tlslink_document(t->networking, NULL, t->revision, &ignored);

	cJSON_AddStringToObject(msg, "op", "policy");
	if (doc < 0 || pf_tlslink_send(t->sock, msg, NULL, 0, &doc, 1, &ignored) < 0)
		pf_tlsproc_done(t);
	else
		t->told = t->revision;
}

int pf_tlsproc_wake(struct pf_tlsproc *t, struct pf_err *err)
{
	if (t->pid > 0 && !t->rests && t->told != t->revision)
		tell_policy(t);
	if (run(t, err) < 0)
		return -1;
	int fd = fcntl(t->sock, F_DUPFD_CLOEXEC, 3);
	return fd < 0 ? pf_fail(err, errno, "socket to pinfold-tls") : fd;
}

void pf_tlsproc_policy(struct pf_tlsproc *t, const cJSON *networking, uint64_t revision)
{
	cJSON_Delete(t->networking);
	t->networking = cJSON_Duplicate(networking, true);
	t->revision = revision;
}

int pf_tlsproc_secret(struct pf_tlsproc *t, const char *name, int fd, struct pf_err *err)
{
	bool known = false;

	if (!t->helper)
		return pf_fail_kind(
			err, PF_ERR_STATE, 0, "this sandbox has no pinfold-tls, which holds secrets");
	for (size_t i = 0; i < t->credentials->n_secrets; i++)
		known = known || strcmp(t->credentials->secrets[i].name, name) == 0;
	if (!known)
		return pf_fail_kind(err, PF_ERR_NOT_FOUND, 0, "this sandbox has no credential '%s'", name);
	/* It alone can put one into the vault. */
	return run(t, err) < 0 ? -1 : send_secret(t->sock, name, fd, err);
}

static void forget(struct pf_tlsproc *t)
{
	if (t->pidfd >= 0)
		close(pf_take_fd(&t->pidfd));
	if (t->sock >= 0)
		close(pf_take_fd(&t->sock));
	t->pid = 0;
	t->rests = false;
}

char *pf_tlsproc_ended(struct pf_tlsproc *t)
{
	siginfo_t si = {0};
	bool expected = t->rests;

	while (waitid(P_PID, (id_t)t->pid, &si, WEXITED) < 0 && errno == EINTR)
		;
	forget(t);
	if (expected && si.si_code == CLD_EXITED && si.si_status == 0)
		return NULL;
	t->crashes++;
	return si.si_code == CLD_EXITED ? pf_asprintf("pinfold-tls has ended with %d", si.si_status)
					: pf_asprintf("pinfold-tls was killed by signal %d", si.si_status);
}

void pf_tlsproc_done(struct pf_tlsproc *t)
{
	if (t->pid > 0) {
		if (t->sock >= 0)
			(void)shutdown(t->sock, SHUT_RDWR);
		(void)kill(t->pid, SIGKILL);
		while (waitpid(t->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	forget(t);
}
