/* pinfold-jail --serve FD: a jail for a host program (lib/pinfold.c). The configuration comes in over FD, and
 * so do requests while the command runs; what became of them, and of the command, goes out over it. Standard
 * input, output and error are the command's own. When the host program goes away, so does the command. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/json.h"
#include "base/str.h"
#include "cmd/pinfold-jail/jail_cmd.h"
#include "jail/config.h"
#include "jail/message.h"

static cJSON *error_message(const struct pf_err *err)
{
	cJSON *m = cJSON_CreateObject();

	cJSON_AddStringToObject(m, "error", err->msg);
	cJSON_AddStringToObject(m, "code", pf_err_kind_name(err->kind));
	return m;
}

struct started {
	int fd;
};

static void on_started(void *arg, pid_t pid)
{
	const struct started *s = arg;
	struct pf_err ignored = PF_ERR_INIT;
	cJSON *m = cJSON_CreateObject();

	cJSON_AddNumberToObject(m, "started", pid);
	(void)pf_message_write(s->fd, m, &ignored);
}

int pf_jail_serve(int fd)
{
	struct pf_jail j;
	struct pf_jail_result r = {0};
	struct pf_err err = PF_ERR_INIT, ignored = PF_ERR_INIT;
	struct started s = {fd};

	if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
		PF_FREE char *text =
			pf_asprintf("--serve %d: no such descriptor; this is for libpinfold (pinfold.h)", fd);
		pf_jail_message("error", text);
		return 125;
	}
	PF_JSON cJSON *doc = pf_message_read(fd, &err);
	if (!doc)
		return 125;
	pf_jail_init(&j);
	/* The host's thread that started us may end before the host does. */
	j.die_with_parent = false;
	j.control_fd = fd;
	j.list_changes = true;
	j.started = on_started;
	j.started_arg = &s;
	int code = 125;
	if (pf_jail_configure(&j, doc, &err) < 0 || pf_jail_run(&j, &r, &err) < 0) {
		(void)pf_message_write(fd, error_message(&err), &ignored);
	} else {
		cJSON *m = cJSON_CreateObject();
		cJSON_AddItemToObject(m, "result", pf_jail_result_json(&r));
		code = pf_message_write(fd, m, &ignored) < 0 ? 125 : r.exit_code;
	}
	pf_jail_result_done(&r);
	pf_jail_done(&j);
	return code;
}
