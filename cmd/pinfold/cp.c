/* cp: one file into a sandbox or out of it, by a command in it (exec), so that it is read and written with
 * the rights, paths and links of the inside and not with ours. What comes out is bytes alone: no archive of
 * the sandbox's making is unpacked on the host. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/str.h"
#include "base/sys.h"
#include "cmd/pinfold/cmd.h"

static const char help[] = "cp FILE ID:PATH\n"
			   "       pinfold cp ID:PATH FILE\n\n"
			   "Copies a file into a sandbox or out of it. PATH is one of the sandbox's, from "
			   "its working directory if it\n"
			   "is relative. FILE or PATH may be a directory that is there: then the name stays. "
			   "A file that is replaced is\n"
			   "replaced whole. Inside it is done by the sandbox's own sh and cat, as its user, "
			   "and permissions are kept; on\n"
			   "the host FILE gets 0644, and what is a link, a pipe or a device is refused. For "
			   "directories:\n\n"
			   "  tar -C DIR -c . | pinfold exec ID -- tar -C /workspace -x\n"
			   "  pinfold exec ID -- tar -C /workspace -c . | tar -C DIR -x\n";

/* Beside the file and then over it, so that nobody ever sees half of it: of what does not come to its end,
 * because we do not, nothing stays. $1 PATH, $2 name, $3 mode, $4 size, "" where it is not known before. */
static const char put[] = "d=$1; [ ! -d \"$d\" ] || d=$d/$2; t=$d.part.$$; "
			  "{ cat >\"$t\" && { [ -z \"$4\" ] || [ \"$(wc -c <\"$t\")\" -eq \"$4\" ]; } && "
			  "chmod \"$3\" \"$t\" && mv -f \"$t\" \"$d\"; } || { rm -f \"$t\"; exit 1; }";

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

/* A copy on its way: `pinfold exec` with pipes, never with the host's file itself, which a process of the
 * sandbox could keep and go on reading or writing behind us. */
struct copy {
	pid_t pid;
	int pidfd, signals;
	int feed, feed_from; /* the writing end of its standard input, and the host's file; -1: none */
	int take, take_to;   /* the reading end of its standard output, and the host's file; -1: dropped */
	off_t left;          /* of that file; -1: to its end */
	char buf[65536];     /* read from it and not written yet */
	size_t at, len;
};

/* What a terminal or a supervisor ends us with waits until it is looked at: we tidy up first. */
struct ends {
	sigset_t set, old;
	int sig; /* has come; 0 */
};

static void block_signals(struct ends *e)
{
	static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	struct sigaction was;

	sigemptyset(&e->set);
	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (sigaction(ends[i], NULL, &was) == 0 && was.sa_handler != SIG_IGN)
			sigaddset(&e->set, ends[i]);
	(void)signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &e->set, &e->old);
}

/* pinfold exec ID -- words. */
static int start(
	struct copy *c, const char *id, const char *const *words, const sigset_t *old, struct pf_err *err)
{
	const char *args[24] = {pf_globals.argv[0], "--root", pf_globals.dirs.root, "--store",
		pf_globals.dirs.store, "--log-format", pf_globals.log.json ? "json" : "text", "exec", "--",
		id};
	size_t n = 10;
	int in[2], out[2];

	for (; *words && n < 23; words++)
		args[n++] = *words;
	args[n] = NULL;
	if (pf_two_pipes(in, out) < 0)
		return pf_fail(err, errno, "pipe");
	c->pid = fork();
	if (c->pid == 0) {
		(void)signal(SIGPIPE, SIG_DFL);
		sigprocmask(SIG_SETMASK, old, NULL);
		if (dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0)
			execv("/proc/self/exe", (char *const *)(uintptr_t)args);
		_exit(PF_EXIT_FAILED);
	}
	int e = errno;
	close(in[0]);
	close(out[1]);
	c->feed = in[1];
	c->take = out[0];
	if (c->pid < 0)
		return pf_fail(err, e, "fork");
	c->pidfd = pidfd_open(c->pid, 0);
	if (c->pidfd < 0 || fcntl(c->feed, F_SETFL, O_NONBLOCK) < 0 ||
		fcntl(c->take, F_SETFL, O_NONBLOCK) < 0)
		return pf_fail(err, errno, "pinfold exec");
	return 0;
}

/* Give it more of the host's file, as much as it takes; at the end, or when it wants no more, the end. */
static int feed(struct copy *c, struct pf_err *err)
{
	if (c->at == c->len) {
		size_t max =
			c->left >= 0 && c->left < (off_t)sizeof(c->buf) ? (size_t)c->left : sizeof(c->buf);
		ssize_t n = c->feed_from < 0 ? 0 : read(c->feed_from, c->buf, max);
		if (n < 0)
			return pf_fail(err, errno, "read");
		c->left -= c->left < 0 ? 0 : (off_t)n;
		c->at = 0;
		c->len = (size_t)n;
		if (n == 0)
			close(pf_take_fd(&c->feed));
	}
	ssize_t n = c->feed < 0 ? 0 : write(c->feed, c->buf + c->at, c->len - c->at);
	if (n > 0)
		c->at += (size_t)n;
	else if (n < 0 && errno != EAGAIN)
		close(pf_take_fd(&c->feed));
	return 0;
}

/* How many bytes; 0: none now, or never. */
static ssize_t take(struct copy *c, struct pf_err *err)
{
	char buf[65536];
	ssize_t n = read(c->take, buf, sizeof(buf));

	if (n > 0)
		return c->take_to >= 0 && pf_write_all(c->take_to, buf, (size_t)n) < 0
			       ? pf_fail(err, errno, "write")
			       : n;
	if (n == 0 || errno != EAGAIN)
		close(pf_take_fd(&c->take));
	return 0;
}

/* Until it has ended. -1 also where a signal is to end us. */
static int serve(struct copy *c, struct ends *e, struct pf_err *err)
{
	struct signalfd_siginfo s;
	int left = 0;

	for (;;) {
		struct pollfd p[4] = {{.fd = c->pidfd, .events = POLLIN},
			{.fd = c->signals, .events = POLLIN}, {.fd = c->feed, .events = POLLOUT},
			{.fd = c->take, .events = POLLIN}};
		if (poll(p, 4, -1) < 0)
			continue;
		if (p[1].revents && read(c->signals, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
			e->sig = (int)s.ssi_signo;
			return pf_fail(err, EINTR, "ended by a signal");
		}
		if ((p[2].revents && feed(c, err) < 0) || (p[3].revents && take(c, err) < 0))
			return -1;
		if (p[0].revents)
			break;
	}
	/* What is in the pipe still, and no more: what it left behind may write for ever. */
	if (c->take >= 0)
		(void)ioctl(c->take, FIONREAD, &left);
	while (left > 0) {
		ssize_t n = take(c, err);
		if (n <= 0)
			return (int)n;
		left -= (int)n;
	}
	return 0;
}

/* pinfold exec ID -- words, with size bytes (-1: all) of the host's file `from` as its standard input, or
 * `to` as its output (-1: none). An exit code other than 0 is an error, too. */
static int in_sandbox(const char *id, const char *const *words, int from, off_t size, int to, struct ends *e,
	struct pf_err *err)
{
	struct copy c = {.feed = -1,
		.feed_from = from,
		.left = size,
		.take = -1,
		.take_to = to,
		.pidfd = -1,
		.signals = -1};
	int status = 0, r = -1;

	c.signals = signalfd(-1, &e->set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (c.signals < 0)
		pf_fail(err, errno, "signalfd");
	else if (start(&c, id, words, &e->old, err) == 0)
		r = serve(&c, e, err);
	if (c.pid > 0) {
		/* The keeper ends the command of an exec that is gone. */
		if (r < 0)
			(void)kill(c.pid, SIGKILL);
		while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
			;
		if (r == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
			r = pf_fail_kind(err, PF_ERR_SYSTEM, 0, "see above");
	}
	int fds[] = {c.feed, c.take, c.pidfd, c.signals};
	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return r;
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static int copy_in(const char *file, const char *id, const char *path, struct ends *e, struct pf_err *err)
{
	PF_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char mode[8], size[24] = "";

	if (fd < 0 || fstat(fd, &st) < 0)
		return pf_fail(err, errno, "%s", file);
	if (!S_ISREG(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s is not a file; directories go through tar, see pinfold cp --help", file);
	(void)snprintf(mode, sizeof(mode), "%03o", (unsigned)(st.st_mode & 0777));
	/* Those of /proc have none. */
	if (st.st_size > 0)
		(void)snprintf(size, sizeof(size), "%lld", (long long)st.st_size);
	const char *words[] = {"sh", "-c", put, "sh", path, name_of(file), mode, size, NULL};
	return in_sandbox(id, words, fd, *size ? st.st_size : -1, -1, e, err) == 0
		       ? 0
		       : pf_wrap(err, "%s:%s was not written", id, path);
}

static int copy_out(const char *id, const char *path, const char *file, struct ends *e, struct pf_err *err)
{
	const char *words[] = {"cat", path, NULL};
	struct stat st;
	bool into = stat(file, &st) == 0 && S_ISDIR(st.st_mode);
	PF_FREE char *to = into ? pf_asprintf("%s/%s", file, name_of(path)) : pf_strdup(file);

	/* The rename would put a file in the place of the link, pipe or device itself. */
	if (lstat(to, &st) == 0 && !S_ISREG(st.st_mode))
		return pf_fail_kind(err, PF_ERR_INVALID, 0,
			"%s is %s; name a file, or to have it on standard output: pinfold exec %s -- cat %s",
			to, S_ISLNK(st.st_mode) ? "a symbolic link" : "not a file", id, path);
	PF_FREE char *part = pf_asprintf("%s.XXXXXX", to);
	PF_CLOSE int fd = mkostemp(part, O_CLOEXEC);

	if (fd < 0)
		return pf_fail(err, errno, "%s", to);
	int r = in_sandbox(id, words, -1, -1, fd, e, err);
	if (r < 0)
		pf_wrap(err, "%s:%s was not read", id, path);
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
	struct ends e = {0};
	block_signals(&e);
	int r = to_id ? copy_in(from, to_id, to_path, &e, &err) : copy_out(from_id, from_path, to, &e, &err);
	if (e.sig) {
		(void)signal(e.sig, SIG_DFL);
		(void)raise(e.sig);
		sigprocmask(SIG_SETMASK, &e.old, NULL);
	}
	if (r < 0)
		(void)pf_wrap(&err, "cp");
	return r < 0 ? pf_report(&err) : 0;
}
