/* A seccomp listener on its way to its agent: config-linux.md, the container process state. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "sandbox/console.h"
#include "sandbox/container.h"

/* The descriptor goes with the first bytes, the rest follows. */
static int send_all(int sock, const char *text, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	size_t len = strlen(text);
	struct iovec iov = {.iov_base = (char *)text, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	ssize_t n;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(int));
	do
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -1;
	for (size_t sent = (size_t)n; sent < len; sent += (size_t)n) {
		n = send(sock, text + sent, len - sent, MSG_NOSIGNAL);
		if (n < 0)
			return -1;
	}
	return 0;
}

int pf_container_send_listener(const cJSON *seccomp, cJSON *state, pid_t pid, int fd, struct pf_err *err)
{
	PF_JSON cJSON *j = cJSON_CreateObject();
	const char *path = NULL, *metadata = NULL;

	cJSON_AddStringToObject(j, "ociVersion", PF_OCI_VERSION);
	cJSON_AddItemToArray(cJSON_AddArrayToObject(j, "fds"), cJSON_CreateString("seccompFd"));
	pf_json_add_int(j, "pid", pid);
	cJSON_AddItemToObject(j, "state", state);
	if (pf_json_str(seccomp, "linux.seccomp", "listenerPath", &path, err) < 0 ||
		pf_json_str(seccomp, "linux.seccomp", "listenerMetadata", &metadata, err) < 0)
		return -1;
	if (!path)
		return pf_fail_kind(
			err, PF_ERR_INVALID, 0, "linux.seccomp: SCMP_ACT_NOTIFY needs a listenerPath");
	if (metadata)
		cJSON_AddStringToObject(j, "metadata", metadata);
	PF_CLOSE int sock = pf_console_connect(path, err);
	if (sock < 0)
		return pf_wrap(err, "linux.seccomp.listenerPath");
	PF_FREE char *text = pf_json_text(j);
	if (send_all(sock, text, fd) < 0)
		return pf_fail(err, errno, "linux.seccomp.listenerPath: %s", path);
	return 0;
}
