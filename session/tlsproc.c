#include "session/tlsproc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"
#include "netpolicy/tlslink.h"
#include "sandbox/idrange.h"

/* User ids that nothing allocates: above those of containers (sandbox/idrange.c), one per id range, so that
 * no two processes that hold secrets share one. */
#define FIRST_UID 1879048192u
#define LINK 3
#define READY_MS 15000

__attribute__((noreturn)) static void become(const struct pf_tlsproc *p, int sock)
{
	char uid[16];
	char *const argv[] = {(char *)"pinfold-tls", uid, NULL}, *const env[] = {NULL};
	int null = open("/dev/null", O_RDWR);
	sigset_t none;

	snprintf(uid, sizeof(uid), "%u", FIRST_UID + p->id_base / PF_IDRANGE_SIZE);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	/* The number may be taken by something that is wanted no more. */
	if (null < 0 || dup2(sock, LINK) < 0)
		_exit(125);
	for (int i = 0; i < 3; i++)
		(void)dup2(null, i);
	(void)pf_set_cloexec(LINK, false);
	(void)close_range(LINK + 1, ~0U, 0);
	execve(p->helper, argv, env);
	_exit(125);
}

static int tell(int sock, const struct pf_tlsproc *p, struct pf_err *err)
{
	PF_JSON cJSON *setup = cJSON_CreateObject();
	PF_CLOSE int doc = pf_tlslink_document(p->networking, p->credentials->list, p->revision, err);

	cJSON_AddStringToObject(setup, "op", "setup");
	pf_json_add_int(setup, "lifetime", p->lifetime_s);
	if (doc < 0 || pf_tlslink_send(sock, setup, NULL, 0, &doc, 1, err) < 0)
		return -1;
	for (size_t i = 0; i < p->credentials->n_secrets; i++) {
		struct pf_secret *s = &p->credentials->secrets[i];
		PF_JSON cJSON *msg = cJSON_CreateObject();
		cJSON_AddStringToObject(msg, "op", "secret");
		cJSON_AddStringToObject(msg, "name", s->name);
		if (pf_tlslink_send(sock, msg, NULL, 0, &s->fd, 1, err) < 0)
			return -1;
		close(s->fd);
		s->fd = -1;
	}
	return 0;
}

int pf_tlsproc_start(const struct pf_tlsproc *p, struct pf_err *err)
{
	int socks[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
		return pf_fail(err, errno, "socket to pinfold-tls");
	PF_CLOSE int ours = socks[0], theirs = socks[1];
	pid_t pid = fork();
	if (pid == 0)
		become(p, theirs);
	if (pid < 0)
		return pf_fail(err, errno, "start pinfold-tls");
	close(theirs);
	theirs = -1;
	if (tell(ours, p, err) < 0)
		return pf_wrap(err, "pinfold-tls");
	int flags = fcntl(ours, F_GETFL);
	if (flags < 0 || fcntl(ours, F_SETFL, flags | O_NONBLOCK) < 0)
		return pf_fail(err, errno, "socket to pinfold-tls");
	return pf_take_fd(&ours);
}

char *pf_tlsproc_ca(int sock, struct pf_err *err)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	int fds[PF_TLSLINK_FDS];
	const char *tail;
	size_t len;

	if (poll(&p, 1, READY_MS) <= 0) {
		pf_fail_kind(err, PF_ERR_SYSTEM, 0, "pinfold-tls does not answer");
		return NULL;
	}
	PF_FREE char *text = NULL;
	PF_JSON cJSON *msg = pf_tlslink_recv(sock, &text, &tail, &len, fds, err);
	if (!msg) {
		if (!*err->msg)
			pf_fail_kind(err, PF_ERR_SYSTEM, 0, "pinfold-tls ended at once");
		return NULL;
	}
	const char *pem = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "pem"));
	const char *why = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(msg, "text"));
	if (pem)
		return pf_strdup(pem);
	pf_fail_kind(err, PF_ERR_INVALID, 0, "pinfold-tls: %s", why ? why : "not understood");
	return NULL;
}
