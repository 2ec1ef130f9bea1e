/* Theory of operation: the persistent shell.
 *
 * One bash reads commands from a pipe for as long as nothing ends it; so variables, directory and background
 * jobs live on between calls. A command is a brace group, that its standard input and errors can be
 * redirected as one; behind it a word that nobody can guess is printed together with the status, and ends the
 * output. What is kept is the end of the output, 100 KiB of it with that word: the same as other workers of
 * this contract keep. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/pinfold-tool/tool.h"

#define KEEP ((size_t)100 * 1024)
#define TIMEOUT_MS 120000
#define MARK_LEN 53

static struct {
	pid_t pid; /* 0: there is none */
	int pidfd, in, out;
} shell = {.pidfd = -1, .in = -1, .out = -1};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void bash_close(void)
{
	if (shell.pid > 0) {
		(void)kill(-shell.pid, SIGKILL);
		(void)kill(shell.pid, SIGKILL);
		while (waitpid(shell.pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	shell.pid = 0;
	close_fd(&shell.pidfd);
	close_fd(&shell.in);
	close_fd(&shell.out);
}

static int start(void)
{
	static char *const settings[] = {(char *)"PS1=", (char *)"PS2=", (char *)"TERM=dumb", NULL};
	static char *const argv[] = {(char *)"/bin/bash", (char *)"--noprofile", (char *)"--norc", NULL};
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) < 0)
		return -1;
	if (pipe2(out, O_CLOEXEC) < 0) {
		close(in[0]);
		close(in[1]);
		return -1;
	}
	char **env = scrubbed_env(settings);
	pid_t pid = fork();
	if (pid == 0) {
		(void)setsid();
		(void)signal(SIGPIPE, SIG_DFL);
		if (chdir(workdir()) == 0 && dup2(in[0], 0) == 0 && dup2(out[1], 1) == 1 &&
			dup2(out[1], 2) == 2)
			execve(argv[0], argv, env);
		_exit(127);
	}
	free(env);
	close(in[0]);
	close(out[1]);
	shell.pid = pid < 0 ? 0 : pid;
	shell.in = in[1];
	shell.out = out[0];
	shell.pidfd = pid < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
	if (shell.pidfd < 0 || fcntl(shell.in, F_SETFL, O_NONBLOCK) < 0 ||
		fcntl(shell.out, F_SETFL, O_NONBLOCK) < 0) {
		bash_close();
		return -1;
	}
	return 0;
}

/* A word of MARK_LEN characters. */
static void make_mark(char mark[MARK_LEN + 1])
{
	unsigned char r[18];
	size_t n = 0;

	for (size_t have = 0; have < sizeof(r);) {
		ssize_t got = getrandom(r + have, sizeof(r) - have, 0);
		have += got > 0 ? (size_t)got : 0;
	}
	memcpy(mark, "__PFD_CMD_", 10);
	for (n = 10; n < 46; n++)
		mark[n] = "0123456789abcdef"[(n & 1 ? r[(n - 10) / 2] >> 4 : r[(n - 10) / 2]) & 15];
	memcpy(mark + 46, "_DONE__", 8);
}

/* What has come so far. */
struct output {
	struct text kept;
	bool truncated;
	const char *mark;
	size_t searched; /* of kept: the mark is not before that */
};

static void keep(struct output *o, const char *data, size_t len)
{
	add(&o->kept, data, len);
	if (o->kept.len > KEEP) {
		size_t drop = o->kept.len - KEEP;
		memmove(o->kept.s, o->kept.s + drop, KEEP + 1);
		o->kept.len = KEEP;
		o->truncated = true;
		o->searched = o->searched > drop ? o->searched - drop : 0;
	}
}

/* Where the mark begins, once all of its line is here; -1: not yet. */
static ssize_t find_mark(struct output *o)
{
	if (!o->kept.len)
		return -1;
	char *at = memmem(o->kept.s + o->searched, o->kept.len - o->searched, o->mark, MARK_LEN);
	if (!at) {
		o->searched = o->kept.len > MARK_LEN ? o->kept.len - MARK_LEN : 0;
		return -1;
	}
	o->searched = (size_t)(at - o->kept.s);
	return memchr(at, '\n', o->kept.len - o->searched) ? (ssize_t)o->searched : -1;
}

/* Read what is there now. Returns false at the end of the pipe. */
static bool drain(struct output *o)
{
	static char buf[65536];
	ssize_t n;

	while ((n = read(shell.out, buf, sizeof(buf))) > 0) {
		keep(o, buf, (size_t)n);
		/* One who prints without end is still bound by the time limit. */
		if (find_mark(o) >= 0 || (size_t)n < sizeof(buf))
			return true;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

enum how { DONE, TIMED_OUT, TERMINATED };

/* Give the shell its lines and read until the mark. */
static enum how converse(const struct text *lines, struct output *o, long timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	size_t written = 0;

	for (;;) {
		struct pollfd p[3] = {{.fd = shell.out, .events = POLLIN},
			{.fd = shell.pidfd, .events = POLLIN},
			{.fd = written < lines->len ? shell.in : -1, .events = POLLOUT}};
		int64_t left = end - now_ms();
		if (find_mark(o) >= 0)
			return DONE;
		if (left <= 0)
			return TIMED_OUT;
		if (poll(p, 3, (int)left) < 0 && errno != EINTR)
			return TERMINATED;
		if (p[2].revents) {
			ssize_t n = write(shell.in, lines->s + written, lines->len - written);
			if (n > 0)
				written += (size_t)n;
			else if (errno != EAGAIN && errno != EINTR)
				written = lines->len;
		}
		bool open = !p[0].revents || drain(o);
		if (find_mark(o) >= 0)
			return DONE;
		if (!open || p[1].revents) {
			while (open && shell.out >= 0 && find_mark(o) < 0) {
				struct pollfd rest = {.fd = shell.out, .events = POLLIN};
				if (poll(&rest, 1, 0) <= 0)
					break;
				open = drain(o);
			}
			return find_mark(o) >= 0 ? DONE : TERMINATED;
		}
	}
}

/* ESC [ parameters intermediates final. */
static void strip_ansi(struct text *t)
{
	size_t to = 0;

	for (size_t i = 0; i < t->len;) {
		if (t->s[i] == '\033' && i + 1 < t->len && t->s[i + 1] == '[') {
			size_t k = i + 2;
			while (k < t->len && strchr("0123456789;?", t->s[k]) && t->s[k])
				k++;
			while (k < t->len && t->s[k] >= ' ' && t->s[k] <= '/')
				k++;
			if (k < t->len && t->s[k] >= '@' && t->s[k] <= '~') {
				i = k + 1;
				continue;
			}
		}
		t->s[to++] = t->s[i++];
	}
	while (to > 0 && t->s[to - 1] == '\n')
		to--;
	t->len = to;
	t->s[to] = '\0';
}

static bool finish(struct output *o, struct text *out)
{
	size_t at = o->searched, skip = 0;
	long status = strtol(o->kept.s + at + MARK_LEN, NULL, 10);

	o->kept.len = at;
	/* A character that was cut in two is no character. */
	while (o->truncated && skip < at && skip < 3 && ((unsigned char)o->kept.s[skip] & 0xc0) == 0x80)
		skip++;
	memmove(o->kept.s, o->kept.s + skip, at - skip);
	o->kept.len -= skip;
	strip_ansi(&o->kept);
	if (o->truncated)
		add_str(out, "[output truncated]\n");
	add(out, o->kept.s, o->kept.len);
	if (status != 0 && out->len == 0)
		add_fmt(out, "exit %ld", status);
	return status == 0;
}

bool tool_bash(const struct request *r, struct text *out)
{
	long timeout = r->timeout_ms >= 0 && r->timeout_ms < TIMEOUT_MS ? r->timeout_ms : TIMEOUT_MS;
	char mark[MARK_LEN + 1];
	struct output o = {.mark = mark};
	struct text lines = {0};

	if (r->restart)
		bash_close();
	if (!r->command || !r->command_len) {
		if (!r->restart)
			return fail(out, "bash: command is required");
		add_str(out, "bash session restarted");
		return true;
	}
	if (!shell.pid && start() < 0)
		return fail(out, "bash: /bin/bash cannot be started: %s", strerror(errno));
	make_mark(mark);
	add_str(&lines, "{ ");
	add(&lines, r->command, r->command_len);
	/* Split, so that the shell's own echo of what it reads (set -v) is not taken for the end. */
	add_fmt(&lines, "\n} </dev/null 2>&1; printf '\\n%.8s''%s%%d\\n' $?\n", mark, mark + 8);
	enum how how = converse(&lines, &o, timeout);
	bool ok = false;
	if (how == DONE) {
		ok = finish(&o, out);
	} else {
		bash_close();
		if (how == TIMED_OUT)
			fail(out, "bash: bash command timed out after %ldms", timeout);
		else
			fail(out, "bash: bash session terminated");
	}
	text_done(&o.kept);
	text_done(&lines);
	return ok;
}
