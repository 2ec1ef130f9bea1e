/* Look at every process that appears in our pid namespace while it joins, and say what could be seen of the
 * outside: a process on its way in must not be traceable, nor its descriptors, memory, environment or root
 * reachable, before it has become the command (CVE-2016-9962, CVE-2024-21626).
 *
 *   joinspy SECONDS SECRET EXE   EXE: the only program that may be seen (the payload); SECRET: a word in the
 *                                environment of those outside
 *
 * Prints "seen N" (processes looked at), "attached N" and one "VIOLATION …" a finding; exit code 1 if any. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *secret, *payload;
static int violations;

static void violation(int pid, const char *what, const char *detail)
{
	printf("VIOLATION pid %d: %s %s\n", pid, what, detail);
	violations++;
}

static ssize_t read_link(int pid, const char *name, char *buf, size_t size)
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	n = readlink(path, buf, size - 1);
	buf[n < 0 ? 0 : n] = '\0';
	return n;
}

static void look_at_environ(int pid)
{
	char path[64], buf[65536];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/environ", pid);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	n = read(fd, buf, sizeof(buf));
	if (n > 0 && memmem(buf, (size_t)n, secret, strlen(secret)))
		violation(pid, "environment of the outside", "");
	close(fd);
}

static void look_at_fds(int pid)
{
	char path[64], name[64], target[4096];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	if (!d)
		return;
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.' || atoi(e->d_name) <= 2)
			continue;
		snprintf(name, sizeof(name), "fd/%.20s", e->d_name);
		if (read_link(pid, name, target, sizeof(target)) < 0)
			continue;
		/* What the payload opens for itself is of the sandbox. */
		if (strncmp(target, "/usr/", 5) != 0 && strncmp(target, "/lib", 4) != 0 &&
			strncmp(target, "/etc/", 5) != 0)
			violation(pid, "descriptor", target);
	}
	closedir(d);
}

static void look_at_exe(int pid)
{
	char target[4096];

	if (read_link(pid, "exe", target, sizeof(target)) > 0 && strcmp(target, payload) != 0)
		violation(pid, "program", target);
	if (read_link(pid, "root", target, sizeof(target)) > 0 && strcmp(target, "/") != 0)
		violation(pid, "root", target);
}

static void look_at_memory(int pid)
{
	char path[64], line[4096];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "pinfold"))
			violation(pid, "memory of", line);
	fclose(f);
}

static int attach(int pid)
{
	int status;
	char target[4096];

	if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) < 0)
		return 0;
	ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
	if (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
		if (read_link(pid, "exe", target, sizeof(target)) > 0 && strcmp(target, payload) != 0)
			violation(pid, "traced as", target);
		look_at_fds(pid);
		ptrace(PTRACE_DETACH, pid, NULL, NULL);
	}
	return 1;
}

int main(int argc, char **argv)
{
	int self = getpid(), highest = self, seen = 0, attached = 0;
	time_t end;

	if (argc != 4)
		return 2;
	end = time(NULL) + atoi(argv[1]);
	secret = argv[2];
	payload = argv[3];
	puts("ready");
	fflush(stdout);
	while (time(NULL) < end) {
		/* Pids only grow here: the next ones are guessed, which is faster than listing /proc. */
		for (int pid = highest + 1; pid <= highest + 4; pid++) {
			if (kill(pid, 0) < 0 && errno == ESRCH)
				continue;
			highest = pid;
			seen++;
			for (int i = 0; i < 20; i++) {
				look_at_environ(pid);
				look_at_exe(pid);
				look_at_memory(pid);
				look_at_fds(pid);
				if (i == 0 || i == 7)
					attached += attach(pid);
			}
			break;
		}
	}
	printf("seen %d\nattached %d\n", seen, attached);
	return violations != 0;
}
