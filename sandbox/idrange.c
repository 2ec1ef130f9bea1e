/* One symlink per taken range in a directory that all of the machine's sandboxes share: symlink(2) either
 * makes it or says that it exists, and readlink(2) names the owner. Whoever changes it holds a lock on the
 * directory, so that what is looked at before it is removed is what is removed. It lives in /run: a reboot
 * frees all.
 *
 * The ranges lie where systemd-nspawn allocates too (524288…1879048191, "container UID range" of its
 * documentation), in the upper half, which useradd's subordinate ids do not reach. */

#include "sandbox/idrange.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/path.h"

#define DIR_PATH "/run/pinfold/.ids"
#define FIRST 1073741824u /* 2^30 */
#define COUNT 12000u      /* × 65536 stays below 1879048192 */

static int open_dir(struct pf_err *err)
{
	if (pf_mkdirs(DIR_PATH, 0700, err) < 0)
		return -1;
	int fd = open(DIR_PATH, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (fd >= 0 && flock(fd, LOCK_EX) < 0)
		if (errno != EINTR) {
			close(fd);
			return pf_fail(err, errno, "lock %s", DIR_PATH);
		}
	return fd < 0 ? pf_fail(err, errno, "%s", DIR_PATH) : fd;
}

int pf_idrange_take(const char *owner, uint32_t *base, struct pf_err *err)
{
	PF_CLOSE int dir = open_dir(err);
	uint32_t hash = 2166136261u;
	char name[16];

	if (dir < 0)
		return pf_wrap(err, "id range");
	for (const char *p = owner; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 16777619u;
	for (uint32_t i = 0; i < COUNT; i++) {
		uint32_t slot = (hash % COUNT + i) % COUNT;
		snprintf(name, sizeof(name), "%u", slot);
		if (symlinkat(owner, dir, name) == 0) {
			*base = FIRST + slot * PF_IDRANGE_SIZE;
			return 0;
		}
		if (errno != EEXIST)
			return pf_fail(err, errno, "id range: %s", DIR_PATH);
	}
	return pf_fail_kind(err, PF_ERR_STATE, 0,
		"id range: all %u are taken; `pinfold gc` frees those of dead sandboxes", COUNT);
}

void pf_idrange_release(const char *owner, uint32_t base)
{
	char path[PATH_MAX], target[PATH_MAX];
	struct pf_err ignored = PF_ERR_INIT;

	if (base < FIRST)
		return;
	PF_CLOSE int dir = open_dir(&ignored);
	snprintf(path, sizeof(path), "%s/%u", DIR_PATH, (base - FIRST) / PF_IDRANGE_SIZE);
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return;
	target[n] = '\0';
	if (strcmp(target, owner) == 0)
		(void)unlink(path);
}

int pf_idrange_gc(bool (*alive)(const char *owner, void *arg), void *arg, struct pf_err *err)
{
	PF_CLOSE int lock = open_dir(err);
	PF_CLOSEDIR DIR *d = lock < 0 ? NULL : opendir(DIR_PATH);
	struct dirent *e;
	int n = 0;

	if (lock < 0)
		return -1;

	if (!d)
		return errno == ENOENT ? 0 : pf_fail(err, errno, "%s", DIR_PATH);
	while ((e = readdir(d))) {
		char target[PATH_MAX];
		ssize_t len = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = '\0';
		if (!alive(target, arg) && unlinkat(dirfd(d), e->d_name, 0) == 0)
			n++;
	}
	return n;
}
