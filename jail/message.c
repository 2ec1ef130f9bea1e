#include "jail/message.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/json.h"
#include "base/str.h"

#define MAX_MESSAGE ((uint32_t)64 << 20)

cJSON *pf_message_read(int fd, struct pf_err *err)
{
	uint32_t len = 0;
	ssize_t n = pf_read_full(fd, &len, sizeof(len));

	if (n != (ssize_t)sizeof(len)) {
		pf_fail(err, n < 0 ? errno : ECONNRESET, "read a message");
		return NULL;
	}
	if (len == 0 || len > MAX_MESSAGE) {
		pf_fail_kind(err, PF_ERR_INVALID, 0, "a message of %u bytes", (unsigned)len);
		return NULL;
	}
	PF_FREE char *text = pf_calloc((size_t)len + 1, 1);
	if (pf_read_full(fd, text, len) != (ssize_t)len) {
		pf_fail(err, ECONNRESET, "read a message");
		return NULL;
	}
	return pf_json_parse("message", text, len, err);
}

static int send_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int pf_message_write(int fd, cJSON *message, struct pf_err *err)
{
	PF_FREE char *text = pf_json_text(message);
	uint32_t len = (uint32_t)strlen(text);

	cJSON_Delete(message);
	return send_all(fd, &len, sizeof(len)) < 0 || send_all(fd, text, len) < 0
		       ? pf_fail(err, errno, "write a message")
		       : 0;
}
