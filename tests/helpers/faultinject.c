/* A library to preload: makes the n-th system call that changes a file system fail, or the last thing that
 * the program does. For tests of what a killed, power-cut or full machine leaves behind.
 *
 *   PF_FAULT=CALLS:N:WHAT       which call, counted from 1 in the whole process
 *     CALLS   any, or a list with commas: write pwrite fsync rename open unlink mkdir truncate link
 *             ("open": with O_CREAT alone; variants of a call are that call, syncfs is an fsync)
 *     WHAT    kill     SIGKILL instead of the call
 *             power    the same, and files lose what was appended to them since their last fsync
 *             EIO, ENOSPC, EDQUOT, EACCES, EMFILE, ENOMEM   the call fails so
 *             ENOSPC+ (or another with +)   this one and every later one
 *   PF_FAULT_PROGRAM=NAME       only in the program of this name (what it starts has another)
 *   PF_FAULT_COUNT=FILE         append the number of CALLS that were made, when the program ends by itself; N
 * may be 0
 *
 * Only calls on regular files and names are counted, not on pipes and sockets. What glibc calls inside of
 * itself (stdio) is not seen. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { WRITE, PWRITE, FSYNC, RENAME, OPEN, UNLINK, MKDIR, TRUNCATE, LINK, N_CALLS };
static const char *const names[N_CALLS] = {
	"write", "pwrite", "fsync", "rename", "open", "unlink", "mkdir", "truncate", "link"};
static const struct {
	const char *name;
	int number;
} errors[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EACCES", EACCES}, {"EMFILE", EMFILE},
	{"ENOMEM", ENOMEM}};

/* A file that was written to and not synced yet. fd is a duplicate of the writer's. */
struct dirty {
	struct dirty *next;
	dev_t dev;
	ino_t ino;
	off_t synced; /* its size when it was durable */
	int fd;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool active, wanted[N_CALLS], power, forever;
static int fail_with; /* 0: die */
static long at, count;
static struct dirty *dirty;

static void wrong(const char *what)
{
	static const char say[] = "faultinject: cannot understand PF_FAULT: ";

	if (write(2, say, sizeof(say) - 1) < 0 || write(2, what, strlen(what)) < 0 || write(2, "\n", 1) < 0)
		_exit(98);
	_exit(98);
}

static void parse_calls(char *calls, const char *whole)
{
	char *save = NULL;

	for (char *c = strtok_r(calls, ",", &save); c; c = strtok_r(NULL, ",", &save)) {
		bool any = strcmp(c, "any") == 0, known = any;
		for (int i = 0; i < N_CALLS; i++)
			if (any || strcmp(c, names[i]) == 0)
				known = wanted[i] = true;
		if (!known)
			wrong(whole);
	}
}

static void parse_what(const char *what, const char *whole)
{
	size_t len = strlen(what);

	power = strcmp(what, "power") == 0;
	if (power || strcmp(what, "kill") == 0)
		return;
	forever = len && what[len - 1] == '+';
	len -= forever;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
		if (strlen(errors[i].name) == len && strncmp(errors[i].name, what, len) == 0)
			fail_with = errors[i].number;
	if (!fail_with)
		wrong(whole);
}

__attribute__((constructor)) static void start(void)
{
	const char *spec = getenv("PF_FAULT"), *program = getenv("PF_FAULT_PROGRAM");
	char copy[200], *n, *what, *end;

	if (!spec || (program && strcmp(program, program_invocation_short_name) != 0))
		return;
	snprintf(copy, sizeof(copy), "%s", spec);
	n = strchr(copy, ':');
	what = n ? strchr(n + 1, ':') : NULL;
	if (!what)
		wrong(spec);
	*n++ = '\0';
	*what++ = '\0';
	at = strtol(n, &end, 10);
	if (*end || end == n)
		wrong(spec);
	parse_calls(copy, spec);
	parse_what(what, spec);
	active = true;
}

__attribute__((destructor)) static void finish(void)
{
	const char *file = getenv("PF_FAULT_COUNT");
	FILE *f;

	if (!active || !file)
		return;
	active = false;
	f = fopen(file, "ae");
	if (f) {
		fprintf(f, "%ld\n", count);
		fclose(f);
	}
}

static void die(void)
{
	for (struct dirty *d = dirty; power && d; d = d->next)
		if (syscall(SYS_ftruncate, d->fd, d->synced) < 0)
			continue;
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

/* Whether the call is to fail (errno is set); does not return when it is to be the last. */
static bool strike(enum call c)
{
	bool hit;

	if (!active || !wanted[c])
		return false;
	pthread_mutex_lock(&lock);
	count++;
	hit = count == at || (forever && at > 0 && count > at);
	if (hit && !fail_with)
		die();
	pthread_mutex_unlock(&lock);
	if (hit)
		errno = fail_with;
	return hit;
}

static bool regular(int fd, struct stat *st)
{
	int saved = errno;
	bool r = active && fstat(fd, st) == 0 && S_ISREG(st->st_mode);

	errno = saved;
	return r;
}

/* Before a write: remember how long the file was when it was durable. */
static void will_write(int fd, const struct stat *st)
{
	struct dirty *d;
	int saved = errno;

	if (!power)
		return;
	pthread_mutex_lock(&lock);
	for (d = dirty; d; d = d->next)
		if (d->dev == st->st_dev && d->ino == st->st_ino)
			break;
	if (!d && (d = malloc(sizeof(*d)))) {
		*d = (struct dirty){.next = dirty,
			.dev = st->st_dev,
			.ino = st->st_ino,
			.synced = st->st_size,
			.fd = fcntl(fd, F_DUPFD_CLOEXEC, 500)};
		dirty = d;
	}
	pthread_mutex_unlock(&lock);
	errno = saved;
}

/* ino 0: every file of the device. */
static void forget_dirty(dev_t dev, ino_t ino)
{
	pthread_mutex_lock(&lock);
	for (struct dirty **p = &dirty; *p;) {
		struct dirty *d = *p;
		if (d->dev != dev || (ino && d->ino != ino)) {
			p = &d->next;
			continue;
		}
		*p = d->next;
		close(d->fd);
		free(d);
	}
	pthread_mutex_unlock(&lock);
}

static void was_synced(int fd)
{
	struct stat st;

	if (power && regular(fd, &st))
		forget_dirty(st.st_dev, st.st_ino);
}

static bool strike_write(enum call c, int fd)
{
	struct stat st;

	if (!regular(fd, &st))
		return false;
	if (strike(c))
		return true;
	will_write(fd, &st);
	return false;
}

ssize_t write(int fd, const void *buf, size_t len)
{
	return strike_write(WRITE, fd) ? -1 : syscall(SYS_write, fd, buf, len);
}

ssize_t writev(int fd, const struct iovec *v, int n)
{
	return strike_write(WRITE, fd) ? -1 : syscall(SYS_writev, fd, v, n);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	return strike_write(PWRITE, fd) ? -1 : syscall(SYS_pwrite64, fd, buf, len, offset);
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	return pwrite(fd, buf, len, offset);
}

ssize_t copy_file_range(int in, off_t *in_at, int out, off_t *out_at, size_t len, unsigned flags)
{
	return strike_write(WRITE, out) ? -1
					: syscall(SYS_copy_file_range, in, in_at, out, out_at, len, flags);
}

int ftruncate(int fd, off_t len)
{
	return strike_write(TRUNCATE, fd) ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}

int ftruncate64(int fd, off_t len)
{
	return ftruncate(fd, len);
}

int fsync(int fd)
{
	int r = strike(FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);

	if (r == 0)
		was_synced(fd);
	return r;
}

int fdatasync(int fd)
{
	int r = strike(FSYNC) ? -1 : (int)syscall(SYS_fdatasync, fd);

	if (r == 0)
		was_synced(fd);
	return r;
}

/* It counts as an fsync. */
int syncfs(int fd)
{
	int r = strike(FSYNC) ? -1 : (int)syscall(SYS_syncfs, fd);
	struct stat st;

	if (r == 0 && power && fstat(fd, &st) == 0)
		forget_dirty(st.st_dev, 0);
	return r;
}

int rename(const char *from, const char *to)
{
	return strike(RENAME) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return strike(RENAME) ? -1 : (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	return strike(RENAME) ? -1 : (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
}

int unlinkat(int dirfd, const char *path, int flags)
{
	return strike(UNLINK) ? -1 : (int)syscall(SYS_unlinkat, dirfd, path, flags);
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
	return strike(MKDIR) ? -1 : (int)syscall(SYS_mkdirat, dirfd, path, mode);
}

int mkdir(const char *path, mode_t mode)
{
	return mkdirat(AT_FDCWD, path, mode);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	return strike(LINK) ? -1 : (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int symlinkat(const char *target, int dirfd, const char *path)
{
	return strike(LINK) ? -1 : (int)syscall(SYS_symlinkat, target, dirfd, path);
}

static mode_t mode_arg(int flags, va_list ap)
{
	return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? (mode_t)va_arg(ap, unsigned) : 0;
}

int openat(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_arg(flags, ap);
	va_end(ap);
	return (flags & O_CREAT) && strike(OPEN) ? -1 : (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

int openat64(int dirfd, const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_arg(flags, ap);
	va_end(ap);
	return openat(dirfd, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_arg(flags, ap);
	va_end(ap);
	return openat(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_arg(flags, ap);
	va_end(ap);
	return openat(AT_FDCWD, path, flags, mode);
}
