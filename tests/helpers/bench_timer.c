/* Theory of operation: a stop-watch for other programs.
 *
 * scripts/bench measures commands that take a millisecond, and starting one from Python or a shell costs more
 * than that. So it keeps this small static program running and tells it on standard input what to start; the
 * clock runs from just before the clone (with the memory shared, so that our size costs nothing) until the
 * command has been reaped.
 *
 * One request per line, fields separated by tabs, and one line of answer to each:
 *
 *   run OUT ARGV...             start it once. OUT "-": its output goes to /dev/null; "+": to a pipe that we
 * read, and the time of the first byte is taken as well par N WIDTH ARGV...         start it N times, WIDTH
 * at a time; "{}" in an argument is replaced by 0..N-1
 *
 *   answer to run:  exit-code  wall-ns  first-byte-ns|-1  max-rss-KiB  user-us  system-us
 *   answer to par:  failures   wall-ns
 *
 * What a command writes to its standard error goes to ours. A command that does not end in 120 seconds is
 * killed and counts as exit code 255. We end at the end of the input. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_ARGS 256
#define DEADLINE_S 120

extern char **environ;

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int null_fd;

static pid_t start(char **argv, int out)
{
	posix_spawn_file_actions_t actions;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, null_fd, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	int r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r == 0)
		return pid;
	fprintf(stderr, "%s: %s\n", argv[0], strerror(r));
	return -1;
}

static int exit_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Until the command ends; its output, if piped, is read and dropped, the time of its first byte kept. What it
 * leaves running may hold the pipe open for ever, so the end of the pipe is not waited for. */
static void watch(pid_t pid, int out, long long *first_ns, int *killed)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	long long deadline = now_ns() + DEADLINE_S * 1000000000LL;
	char chunk[65536];

	for (;;) {
		struct pollfd p[2] = {{.fd = pidfd, .events = POLLIN}, {.fd = out, .events = POLLIN}};
		int n = poll(p, 2, DEADLINE_S * 1000);
		if (p[1].revents & POLLIN) {
			if (*first_ns < 0)
				*first_ns = now_ns();
			if (read(out, chunk, sizeof(chunk)) < 0 && errno != EINTR)
				out = -1;
		} else if (p[1].revents) {
			out = -1;
		}
		if (p[0].revents)
			break;
		if (n <= 0 && now_ns() >= deadline) {
			*killed = 1;
			kill(pid, SIGKILL);
			break;
		}
	}
	close(pidfd);
}

static void run(char **argv, int piped)
{
	int pipe_fds[2] = {-1, -1}, status = 0, killed = 0;
	struct rusage ru = {0};
	long long first = -1, begin, end;

	if (piped && pipe2(pipe_fds, O_CLOEXEC) < 0) {
		perror("pipe");
		exit(1);
	}
	begin = now_ns();
	pid_t pid = start(argv, piped ? pipe_fds[1] : null_fd);
	if (piped)
		close(pipe_fds[1]);
	if (pid < 0) {
		end = begin;
		status = 255 << 8;
	} else {
		watch(pid, pipe_fds[0], &first, &killed);
		while (wait4(pid, &status, 0, &ru) < 0 && errno == EINTR)
			;
		end = now_ns();
	}
	if (piped)
		close(pipe_fds[0]);
	printf("%d %lld %lld %ld %lld %lld\n", killed ? 255 : exit_code(status), end - begin,
		first < 0 ? -1 : first - begin, ru.ru_maxrss,
		(long long)ru.ru_utime.tv_sec * 1000000 + ru.ru_utime.tv_usec,
		(long long)ru.ru_stime.tv_sec * 1000000 + ru.ru_stime.tv_usec);
}

static char *numbered(const char *arg, int n)
{
	const char *at = strstr(arg, "{}");
	char *text = NULL;

	if (!at)
		return strdup(arg);
	if (asprintf(&text, "%.*s%d%s", (int)(at - arg), arg, n, at + 2) < 0)
		abort();
	return text;
}

static void run_parallel(char **argv, int count, int width)
{
	int started = 0, running = 0, failures = 0;
	long long begin = now_ns();

	while (started < count || running > 0) {
		if (started < count && running < width) {
			char *mine[MAX_ARGS];
			int n = 0;
			for (; argv[n]; n++)
				mine[n] = numbered(argv[n], started);
			mine[n] = NULL;
			if (start(mine, null_fd) < 0)
				failures++;
			else
				running++;
			started++;
			while (n > 0)
				free(mine[--n]);
			continue;
		}
		int status;
		if (waitpid(-1, &status, 0) < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		running--;
		failures += status != 0;
	}
	printf("%d %lld\n", failures, now_ns() - begin);
}

static int split(char *line, char **field, int max)
{
	int n = 0;

	line[strcspn(line, "\n")] = '\0';
	for (char *p = line; p && n < max; n++)
		field[n] = strsep(&p, "\t");
	field[n] = NULL;
	return n;
}

int main(void)
{
	char *line = NULL, *field[MAX_ARGS + 1];
	size_t size = 0;

	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (getline(&line, &size, stdin) > 0) {
		int n = split(line, field, MAX_ARGS);
		if (n >= 3 && strcmp(field[0], "run") == 0) {
			run(field + 2, strcmp(field[1], "+") == 0);
		} else if (n >= 4 && strcmp(field[0], "par") == 0) {
			run_parallel(field + 3, atoi(field[1]), atoi(field[2]));
		} else {
			fprintf(stderr, "bench_timer: no such request\n");
			return 2;
		}
	}
	free(line);
	return 0;
}
