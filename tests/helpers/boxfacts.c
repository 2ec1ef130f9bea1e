/* Theory of operation: what a process in a box can tell about the box, one fact a line, so that two boxes can
 * be compared (tests/jail/bwrap_same.py).
 *
 *   boxfacts CALLER-SID NS=LINK,... [PATH...]
 *
 * CALLER-SID and the links of /proc/self/ns are the caller's: said is only whether ours are the same. Of each
 * PATH everything that stat(2) says and whether it can be written; directories with what is in them. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

extern char **environ;

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void ids(void)
{
	gid_t groups[256];
	uid_t r, e, s;
	gid_t gr, ge, gs;
	int n = getgroups(256, groups);

	getresuid(&r, &e, &s);
	getresgid(&gr, &ge, &gs);
	printf("uid %u %u %u\ngid %u %u %u\ngroups", r, e, s, gr, ge, gs);
	for (int i = 0; i < n; i++)
		printf(" %u", groups[i]);
	printf("\numask %o\n", umask(022));
}

static void environment(void)
{
	size_t n = 0;

	while (environ[n])
		n++;
	qsort(environ, n, sizeof(*environ), by_text);
	for (size_t i = 0; i < n; i++)
		printf("env %s\n", environ[i]);
}

static void namespaces(char *callers)
{
	for (char *save = NULL, *item = strtok_r(callers, ",", &save); item;
		item = strtok_r(NULL, ",", &save)) {
		char path[64], link[64], *value = strchr(item, '=');
		*value++ = '\0';
		snprintf(path, sizeof(path), "/proc/self/ns/%s", item);
		ssize_t n = readlink(path, link, sizeof(link) - 1);
		link[n > 0 ? n : 0] = '\0';
		printf("namespace %s %s\n", item,
			n <= 0                     ? "unknown"
			: strcmp(link, value) == 0 ? "shared"
						   : "own");
	}
}

static void status(void)
{
	static const char *const wanted[] = {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs",
		"Seccomp:", "SigBlk", "SigIgn"};
	char line[512];
	FILE *f = fopen("/proc/self/status", "re");

	while (f && fgets(line, sizeof(line), f))
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
				printf("status %s", line);
	if (f)
		fclose(f);
}

static void process(pid_t callers_sid)
{
	char path[4096], name[65];
	struct sigaction sa;

	printf("cwd %s\n", getcwd(path, sizeof(path)) ? path : strerror(errno));
	if (gethostname(name, sizeof(name)) == 0)
		printf("hostname %s\n", name);
	pid_t sid = getsid(0);
	printf("session %s\n", sid == callers_sid ? "the caller's"
			       : sid == getpid()  ? "leader"
			       : sid == 0         ? "from outside"
						  : "other");
	printf("process %s\n", getpid() == 1 ? "1" : getpid() < 10 ? "a low number" : "some number");
	int death = 0;
	prctl(PR_GET_PDEATHSIG, &death);
	printf("dumpable %d, dies with signal %d\n", prctl(PR_GET_DUMPABLE), death);
	for (int s = 1; s < 32; s++)
		if (sigaction(s, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN)
			printf("ignores %d\n", s);
}

static void network(void)
{
	struct ifaddrs *all = NULL;
	char *lines[64];
	size_t n = 0;

	if (getifaddrs(&all) < 0)
		return;
	for (const struct ifaddrs *a = all; a && n < 64; a = a->ifa_next) {
		unsigned up = a->ifa_flags & (IFF_UP | IFF_LOOPBACK);
		if (asprintf(&lines[n], "interface %s %x family %d", a->ifa_name, up,
			    a->ifa_addr ? a->ifa_addr->sa_family : 0) > 0)
			n++;
	}
	qsort(lines, n, sizeof(*lines), by_text);
	for (size_t i = 0; i < n; i++) {
		puts(lines[i]);
		free(lines[i]);
	}
	freeifaddrs(all);
}

static bool writable(const char *path, bool directory)
{
	char probe[4096];

	if (!directory) {
		int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		if (fd >= 0)
			close(fd);
		return fd >= 0;
	}
	snprintf(probe, sizeof(probe), "%s/.boxfacts", path);
	return mkdir(probe, 0700) == 0 && rmdir(probe) == 0;
}

static void tell(const char *path, int depth)
{
	struct stat st;
	struct statvfs fs;
	char target[4096] = "";

	if (lstat(path, &st) < 0) {
		printf("path %s: %s\n", path, strerror(errno));
		return;
	}
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlink(path, target, sizeof(target) - 1);
		target[n > 0 ? n : 0] = '\0';
		printf("path %s -> %s\n", path, target);
		return;
	}
	printf("path %s: %o %u:%u", path, st.st_mode, st.st_uid, st.st_gid);
	if (S_ISREG(st.st_mode))
		printf(" size %lld", (long long)st.st_size);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		printf(" device %u:%u", major(st.st_rdev), minor(st.st_rdev));
	if (statvfs(path, &fs) == 0)
		printf(" mount%s%s%s%s", fs.f_flag & ST_RDONLY ? " ro" : "",
			fs.f_flag & ST_NOSUID ? " nosuid" : "", fs.f_flag & ST_NODEV ? " nodev" : "",
			fs.f_flag & ST_NOEXEC ? " noexec" : "");
	struct statfs kind;
	if (statfs(path, &kind) == 0)
		printf(" type %lx", (unsigned long)kind.f_type);
	printf("%s\n", writable(path, S_ISDIR(st.st_mode)) ? " writable" : "");
	if (!S_ISDIR(st.st_mode) || depth == 0)
		return;
	struct dirent **names;
	int n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char below[4096];
		snprintf(below, sizeof(below), "%s/%s", strcmp(path, "/") == 0 ? "" : path, names[i]->d_name);
		if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
			tell(below, depth - 1);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	environment();
	ids();
	namespaces(argv[2]);
	status();
	process(atoi(argv[1]));
	network();
	for (int i = 3; i < argc; i++)
		tell(argv[i], 1);
	return 0;
}
