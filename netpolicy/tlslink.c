#include "netpolicy/tlslink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"

#define DOCUMENT_MAX ((size_t)16 << 20)

int pf_tlslink_send(int sock, const cJSON *msg, const void *tail, size_t tail_len, const int *fds,
	size_t n_fds, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(msg);
	union {
		char buf[CMSG_SPACE(sizeof(int) * PF_TLSLINK_FDS)];
		struct cmsghdr align;
	} control = {0};
	struct iovec iov[2] = {{.iov_base = text, .iov_len = strlen(text) + 1},
		{.iov_base = (void *)(uintptr_t)tail, .iov_len = tail_len}};
	struct msghdr m = {.msg_iov = iov, .msg_iovlen = tail_len ? 2 : 1};
	ssize_t n;

	if (iov[0].iov_len + tail_len > PF_TLSLINK_MAX)
		return pf_fail_kind(err, PF_ERR_INVALID, EMSGSIZE, "message to pinfold-tls");
	if (n_fds) {
		m.msg_control = control.buf;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
	}
	do
		n = sendmsg(sock, &m, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? pf_fail(err, errno, "talk to pinfold-tls") : 0;
}

cJSON *pf_tlslink_recv(int sock, char **text, const char **tail, size_t *tail_len, int fds[PF_TLSLINK_FDS],
	struct pf_err *err)
{
	union {
		char buf[CMSG_SPACE(sizeof(int) * PF_TLSLINK_FDS)];
		struct cmsghdr align;
	} control;
	PF_FREE char *buf = malloc(PF_TLSLINK_MAX + 1);
	struct iovec iov = {.iov_base = buf, .iov_len = PF_TLSLINK_MAX};
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	cJSON *j = NULL;
	ssize_t n;

	for (size_t i = 0; i < PF_TLSLINK_FDS; i++)
		fds[i] = -1;
	if (!buf) {
		pf_fail(err, ENOMEM, "message of pinfold-tls");
		return NULL;
	}
	do
		n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		pf_fail(err, errno, "talk to pinfold-tls");
	if (n <= 0)
		return NULL;
	(void)pf_take_fds(&m, fds, PF_TLSLINK_FDS);
	buf[n] = '\0';
	size_t len = strlen(buf);
	if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		pf_fail_kind(err, PF_ERR_INVALID, 0, "a message was too long");
	else
		j = pf_json_parse("message", buf, len, err);
	if (!j) {
		for (size_t i = 0; i < PF_TLSLINK_FDS; i++)
			if (fds[i] >= 0)
				close(fds[i]);
		return NULL;
	}
	*tail = buf + len + ((size_t)n > len);
	*tail_len = (size_t)n > len ? (size_t)n - len - 1 : 0;
	*text = pf_take(buf);
	return j;
}

int pf_tlslink_document(
	const cJSON *networking, const cJSON *credentials, uint64_t revision, struct pf_err *err)
{
	PF_CLOSE int fd = memfd_create("policy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	PF_JSON cJSON *j = cJSON_CreateObject();

	cJSON_AddItemToObject(j, "networking", cJSON_Duplicate(networking, true));
	cJSON_AddItemToObject(
		j, "credentials", credentials ? cJSON_Duplicate(credentials, true) : cJSON_CreateArray());
	pf_json_add_int(j, "revision", (int64_t)revision);
	PF_FREE char *text = pf_json_text(j);
	if (fd < 0 || pf_write_all(fd, text, strlen(text)) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return pf_fail(err, errno, "policy for pinfold-tls");
	return pf_take_fd(&fd);
}

cJSON *pf_tlslink_read_document(int fd, struct pf_err *err)
{
	off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;

	if (size <= 0 || (size_t)size > DOCUMENT_MAX || lseek(fd, 0, SEEK_SET) < 0) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "no policy came");
		return NULL;
	}
	PF_FREE char *text = malloc((size_t)size + 1);
	if (!text || pf_read_full(fd, text, (size_t)size) != size) {
		pf_fail(err, text ? errno : ENOMEM, "read the policy");
		return NULL;
	}
	text[size] = '\0';
	return pf_json_parse("policy", text, (size_t)size, err);
}
