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
	if (pf_send_with_fd(sock, text, strlen(text), fd) < 0)
		return pf_fail(err, errno, "linux.seccomp.listenerPath: %s", path);
	return 0;
}
