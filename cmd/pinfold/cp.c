/* cp: one file into a sandbox or out of it, by a command in it (exec), so that it is read and written with
 * the rights, paths and links of the inside and not with ours. What comes out is bytes alone: no archive of
 * the sandbox's making is unpacked on the host. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cmd/pinfold/cmd.h"

static const char help[] = "cp FILE ID:PATH\n"
			   "       pinfold cp ID:PATH FILE\n\n"
			   "Copies a file into a sandbox or out of it. PATH is one of the sandbox's, from "
			   "its working directory if it\n"
			   "is relative. FILE or PATH may be a directory that is there: then the name stays. "
			   "A file that is replaced is\n"
			   "replaced whole. Inside it is done by the sandbox's own sh and cat, as its user, "
			   "and permissions are kept; on\n"
			   "the host FILE gets 0644. For directories:\n\n"
			   "  tar -C DIR -c . | pinfold exec ID -- tar -C /workspace -x\n"
			   "  pinfold exec ID -- tar -C /workspace -c . | tar -C DIR -x\n";

/* Beside the file and then over it, so that nobody ever sees half of it. $1 PATH, $2 name, $3 mode. */
static const char put[] =
	"d=$1; [ ! -d \"$d\" ] || d=$d/$2; t=$d.part.$$; "
	"{ cat >\"$t\" && chmod \"$3\" \"$t\" && mv -f \"$t\" \"$d\"; } || { rm -f \"$t\"; exit 1; }";

/* ID:PATH in two: NULL when it is none. Both are to be freed; PATH is such that no program takes it for an
 * option. A file of the host whose name has a colon is written ./NAME. */
static char *inside(const char *arg, char **path)
{
	const char *colon = strchr(arg, ':');

	if (!colon || colon == arg || memchr(arg, '/', (size_t)(colon - arg)))
		return NULL;
	*path = pf_asprintf("%s%s", colon[1] == '/' ? "" : "./", colon + 1);
	return pf_asprintf("%.*s", (int)(colon - arg), arg);
}

/* pinfold exec ID -- words, between the two descriptors. Returns its exit code. */
static int in_sandbox(const char *id, const char *const *words, int in, int out)
{
	const char *args[24] = {pf_globals.argv[0], "--root", pf_globals.dirs.root, "--store",
		pf_globals.dirs.store, "--log-format", pf_globals.log.json ? "json" : "text", "exec", "--",
		id};
	size_t n = 10;
	int status = 0;

	for (; *words && n < 23; words++)
		args[n++] = *words;
	args[n] = NULL;
	/* What ends us from the terminal ends that one, too; we tidy up after it. */
	(void)signal(SIGINT, SIG_IGN);
	pid_t pid = fork();
	if (pid == 0) {
		(void)signal(SIGINT, SIG_DFL);
		if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0)
			execv("/proc/self/exe", (char *const *)(uintptr_t)args);
		_exit(PF_EXIT_FAILED);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : PF_EXIT_FAILED;
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int copy_in(const char *file, const char *id, const char *path, struct pf_err *err)
{
	PF_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char mode[8];

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s", file);
	if (!S_ISREG(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s is not a file; directories go through tar, see pinfold cp --help", file);
	(void)snprintf(mode, sizeof(mode), "%03o", (unsigned)(st.st_mode & 0777));
	const char *words[] = {"sh", "-c", put, "sh", path, name_of(file), mode, NULL};
	return in_sandbox(id, words, fd, STDOUT_FILENO) == 0
		       ? 0
		       : pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s:%s was not written", id, path);
}

static int copy_out(const char *id, const char *path, const char *file, struct pf_err *err)
{
	const char *words[] = {"cat", path, NULL};
	struct stat st;
	bool into = stat(file, &st) == 0 && S_ISDIR(st.st_mode);
	PF_FREE char *to = into ? pf_asprintf("%s/%s", file, name_of(path)) : pf_strdup(file);
	PF_FREE char *part = pf_asprintf("%s.XXXXXX", to);
	PF_CLOSE int null = open("/dev/null", O_RDONLY | O_CLOEXEC), fd = mkostemp(part, O_CLOEXEC);

	if (null < 0 || fd < 0)
		return pf_fail(err, errno, "%s", to);
	int r = in_sandbox(id, words, null, fd) == 0
			? 0
			: pf_fail_kind(err, PF_ERR_SYSTEM, 0, "%s:%s was not read", id, path);
	if (r == 0 && (fchmod(fd, 0644) < 0 || rename(part, to) < 0))
		r = pf_fail(err, errno, "%s", to);
	if (r < 0)
		(void)unlink(part);
	return r;
}

int pf_cmd_cp(int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	struct pf_err err = PF_ERR_INIT;

	while (pf_getopt(argc, argv, options, false, help) != -1)
		;
	if (argc - optind != 2)
		return pf_usage("cp", "needs FILE and ID:PATH");
	const char *from = argv[optind], *to = argv[optind + 1];
	PF_FREE char *from_path = NULL, *to_path = NULL;
	PF_FREE char *from_id = inside(from, &from_path), *to_id = inside(to, &to_path);
	if (!from_id == !to_id)
		return pf_usage("cp", from_id ? "from sandbox to sandbox is not to be had: by way of a file"
					      : "one of both is ID:PATH");
	int r = to_id ? copy_in(from, to_id, to_path, &err) : copy_out(from_id, from_path, to, &err);
	if (r < 0)
		(void)pf_wrap(&err, "cp");
	return r < 0 ? pf_report(&err) : 0;
}
