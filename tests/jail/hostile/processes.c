/* Attacks on other processes, and on the limits of one's own. */
#include "tests/jail/hostile/hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* args: the name of a variable that a process outside has. */
const char *read_environments(char **args)
{
	void *dir = NULL;
	char path[64];

	for (int pid; (pid = next_pid(&dir));) {
		if (pid == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/%d/environ", pid);
		const char *all = contents(path);
		if (all && strstr(all, args[0]))
			return all;
	}
	errno = 0;
	return NULL;
}

const char *kill_process(char **args)
{
	return kill(atoi(args[0]), SIGKILL) == 0 ? "tried" : NULL;
}

/* args: a secret to keep in memory, a file to say in where it is. */
int be_victim(char **args)
{
	static char secret[64];
	FILE *f = fopen(args[1], "we");

	if (!f)
		return 1;
	snprintf(secret, sizeof(secret), "%s", args[0]);
	memset(args[0], 0, strlen(args[0]));
	fprintf(f, "%p\n", (void *)secret);
	fclose(f);
	for (;;)
		pause();
}

/* args: its pid, and the place of the secret. */
const char *trace_process(char **args)
{
	static char word[65];
	pid_t pid = atoi(args[0]);
	unsigned long at = strtoul(args[1], NULL, 16);
	char path[64];

	struct iovec local = {word, 64}, remote = {(void *)at, 64};
	if (process_vm_readv(pid, &local, 1, &remote, 1, 0) == 64)
		return word;
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && pread(fd, word, 64, (off_t)at) == 64)
		return word;
	if (ptrace(PTRACE_ATTACH, pid, 0, 0) < 0 || waitpid(pid, NULL, __WALL) < 0)
		return NULL;
	for (size_t i = 0; i < 64; i += sizeof(long)) {
		errno = 0;
		long part = ptrace(PTRACE_PEEKDATA, pid, at + i, 0);
		if (errno)
			return NULL;
		memcpy(word + i, &part, sizeof(part));
	}
	ptrace(PTRACE_DETACH, pid, 0, 0);
	return word;
}

/* args: what to type at the terminal's next reader, plainly and with bits set that the kernel does not look
 * at. */
const char *type_ahead(char **args)
{
	int fds[4] = {0, 1, 2, open("/dev/tty", O_RDWR | O_CLOEXEC)};
	bool any = false;

	for (size_t i = 0; i < 4; i++)
		for (const char *c = args[0]; *c; c++)
			any = ioctl(fds[i], TIOCSTI, c) == 0 ||
			      syscall(SYS_ioctl, (long)fds[i], 0x100000000L | TIOCSTI, c) == 0 || any;
	return any ? "tried" : NULL;
}

/* Stay when everything else ends: a session of its own, an orphan, deaf to every signal that can be ignored.
 */
const char *outlive(char **args)
{
	int ready[2];
	char byte;

	(void)args;
	if (pipe2(ready, O_CLOEXEC) < 0)
		return NULL;
	if (fork() == 0) {
		setsid();
		if (fork() != 0)
			_exit(0);
		prctl(PR_SET_NAME, "hostile-left");
		for (int s = 1; s < 32; s++)
			(void)signal(s, SIG_IGN);
		for (int i = 0; i < 3; i++)
			close(i);
		(void)!write(ready[1], "", 1);
		sleep(30);
		_exit(0);
	}
	close(ready[1]);
	return read(ready[0], &byte, 1) == 1 ? "tried" : NULL;
}

/* args: how many processes at once are too many. They end with us. */
const char *fork_bomb(char **args)
{
	int limit = atoi(args[0]), born = 0, wait_here[2], say[2];
	char byte;

	if (pipe2(wait_here, O_CLOEXEC) < 0 || pipe2(say, O_CLOEXEC) < 0)
		return NULL;
	for (; born < limit; born++) {
		pid_t pid = fork();
		if (pid < 0)
			break;
		if (pid == 0) {
			close(wait_here[1]);
			(void)!write(say[1], "", 1);
			(void)!read(wait_here[0], &byte, 1);
			_exit(0);
		}
	}
	for (int i = 0; i < born; i++)
		if (read(say[0], &byte, 1) != 1)
			return NULL;
	return born == limit ? textf("%d processes at once", born) : NULL;
}

/* args: MiB that each of four processes holds at the same time. */
const char *use_memory(char **args)
{
	enum { PROCESSES = 4 };
	size_t size = (size_t)atoi(args[0]) << 20;
	int go[2], say[2], held = 0;
	char byte;

	if (pipe2(go, O_CLOEXEC) < 0 || pipe2(say, O_CLOEXEC) < 0)
		return NULL;
	for (int i = 0; i < PROCESSES; i++) {
		if (fork() != 0)
			continue;
		close(go[1]);
		char *m = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (m != MAP_FAILED)
			for (size_t at = 0; at < size; at += 4096)
				m[at] = 1;
		(void)!write(say[1], m == MAP_FAILED ? "n" : "y", 1);
		(void)!read(go[0], &byte, 1);
		_exit(0);
	}
	close(say[1]);
	for (int i = 0; i < PROCESSES && read(say[0], &byte, 1) == 1; i++)
		held += byte == 'y';
	/* Who watches may look only now and then. */
	if (held == PROCESSES)
		sleep(1);
	while (held == PROCESSES && waitpid(-1, NULL, WNOHANG) > 0)
		held--;
	errno = ENOMEM;
	return held == PROCESSES ? textf("%d x %s MiB at once", held, args[0]) : NULL;
}

/* args: the secret, then a command: run it with a session keyring that has the secret. */
int start_with_key(char **args)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ||
		syscall(SYS_add_key, "user", "hostile-secret", args[0], strlen(args[0]),
			KEY_SPEC_SESSION_KEYRING) < 0) {
		perror("hostile: session keyring");
		return 2;
	}
	execvp(args[1], args + 1);
	perror(args[1]);
	return 2;
}

const char *read_keyring(char **args)
{
	static char secret[128];
	long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", args[0], 0);

	if (key < 0)
		key = syscall(SYS_request_key, "user", args[0], NULL, 0);
	return key > 0 && syscall(SYS_keyctl, KEYCTL_READ, key, secret, sizeof(secret) - 1) > 0 ? secret
												: NULL;
}
