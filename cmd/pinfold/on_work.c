/* on-work: the worker, for one work item on standard input. A program of its own, since it loads libcurl. */
#include <errno.h>
#include <unistd.h>

#include "cmd/pinfold/cmd.h"
#include "session/session.h"

int pf_cmd_on_work(int argc, char **argv)
{
	struct pf_err err = PF_ERR_INIT;
	char *path, *args[64];
	size_t n = 0;

	if (pf_globals.log.file)
		return pf_usage("on-work", "what it has to say goes to standard error: leave --log out");
	path = pf_helper_path("pinfold-worker", &err);
	if (!path)
		return pf_report(&err);
	args[n++] = path;
	args[n++] = (char *)"--on-work";
	args[n++] = (char *)"--root";
	args[n++] = (char *)pf_globals.dirs.root;
	args[n++] = (char *)"--store";
	args[n++] = (char *)pf_globals.dirs.store;
	args[n++] = (char *)"--log-format";
	args[n++] = (char *)(pf_globals.log.json ? "json" : "text");
	for (int i = 1; i < argc && n < 63; i++)
		args[n++] = argv[i];
	args[n] = NULL;
	if (argc > 50)
		return pf_usage("on-work", "too many arguments");
	execv(path, args);
	pf_fail(&err, errno, "start %s", path);
	return pf_report(&err);
}
