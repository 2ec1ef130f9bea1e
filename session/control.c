#include "session/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"

/* A socket's name has only 107 bytes; a path through /proc/self/fd always fits. */
static void address(int dirfd, struct sockaddr_un *a)
{
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/control", dirfd);
}

int pf_control_listen(int dirfd, struct pf_err *err)
{
	PF_CLOSE int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a;

	if (s < 0)
		return pf_fail(err, errno, "control socket");
	(void)unlinkat(dirfd, "control", 0);
	address(dirfd, &a);
	if (bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 64) < 0)
		return pf_fail(err, errno, "control socket");
	return pf_take_fd(&s);
}

int pf_control_connect(const struct pf_dirs *d, const char *id, struct pf_err *err)
{
	PF_CLOSE int dir = pf_dirs_run(d, id, false, err);
	PF_CLOSE int s = -1;
	struct sockaddr_un a;

	if (dir < 0)
		return -1;
	s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (s < 0)
		return pf_fail(err, errno, "control socket");
	address(dir, &a);
	if (connect(s, (struct sockaddr *)&a, sizeof(a)) < 0)
		return pf_fail_kind(err, PF_ERR_STATE, errno, "sandbox '%s' has no keeper", id);
	return pf_take_fd(&s);
}

int pf_control_send(int sock, const cJSON *msg, int fd, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(msg);
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov = {.iov_base = text, .iov_len = strlen(text)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (iov.iov_len > PF_CONTROL_MAX)
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"the message to the keeper is larger than %d bytes", PF_CONTROL_MAX);
	if (fd >= 0) {
		m.msg_control = control.buf;
		m.msg_controllen = sizeof(control.buf);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	do
		n = sendmsg(sock, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? pf_fail(err, errno, "talk to the keeper") : 0;
}

cJSON *pf_control_recv(int sock, int *fd, struct pf_err *err)
{
	PF_FREE char *text = malloc(PF_CONTROL_MAX + 1);
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = text, .iov_len = PF_CONTROL_MAX};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	PF_CLOSE int got = -1;
	ssize_t n;

	if (fd)
		*fd = -1;
	if (!text) {
		pf_fail(err, ENOMEM, "control message");
		return NULL;
	}
	do
		n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n <= 0) {
		if (n < 0)
			pf_fail(err, errno, "talk to the keeper");
		return NULL;
	}
	(void)pf_take_fds(&m, &got, 1);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
		pf_fail_kind(
			err, PF_ERR_INVALID, 0, "a control message was larger than %d bytes", PF_CONTROL_MAX);
		return NULL;
	}
	text[n] = '\0';
	cJSON *j = pf_json_parse("control message", text, (size_t)n, err);
	if (j && fd)
		*fd = pf_take_fd(&got);
	return j;
}

static cJSON *ask(
	const struct pf_dirs *d, const char *id, const cJSON *request, int with, int *fd, struct pf_err *err)
{
	PF_CLOSE int s = pf_control_connect(d, id, err);
	PF_JSON cJSON *answer = NULL;

	if (s < 0 || pf_control_send(s, request, with, err) < 0)
		return NULL;
	answer = pf_control_recv(s, fd, err);
	if (!answer) {
		if (!*err->msg)
			pf_fail_kind(err, PF_ERR_STATE, 0, "the keeper of sandbox '%s' ended", id);
		return NULL;
	}
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(answer, "error"));
	if (text) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "%s", text);
		return NULL;
	}
	return pf_take(answer);
}

cJSON *pf_control_ask(
	const struct pf_dirs *d, const char *id, const cJSON *request, int *fd, struct pf_err *err)
{
	return ask(d, id, request, -1, fd, err);
}

cJSON *pf_control_ask_with(
	const struct pf_dirs *d, const char *id, const cJSON *request, int with, struct pf_err *err)
{
	return ask(d, id, request, with, NULL, err);
}
