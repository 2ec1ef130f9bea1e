/* Cleanup attributes. Every one of them keeps errno, so that an error path may report it afterwards. */
#ifndef PF_BASE_CLEANUP_H
#define PF_BASE_CLEANUP_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* unused: many of these are only held, and clang does not count the cleanup as a use. */
#define PF_CLEANUP(f) __attribute__((cleanup(f), unused))
#define PF_CLOSE PF_CLEANUP(pf_cleanup_close) /* int fd = -1 */
#define PF_FREE PF_CLEANUP(pf_cleanup_free)   /* any malloc'ed pointer */
#define PF_CLOSEDIR PF_CLEANUP(pf_cleanup_closedir)
#define PF_FCLOSE PF_CLEANUP(pf_cleanup_fclose)

static inline void pf_cleanup_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}

static inline void pf_cleanup_free(void *p)
{
	int saved = errno;
	free(*(void **)p);
	errno = saved;
}

static inline void pf_cleanup_closedir(DIR **d)
{
	if (*d) {
		int saved = errno;
		closedir(*d);
		errno = saved;
	}
}

static inline void pf_cleanup_fclose(FILE **f)
{
	if (*f) {
		int saved = errno;
		fclose(*f);
		errno = saved;
	}
}

/* Hand an fd over: `return pf_take_fd(&fd);` leaves nothing for the cleanup to close. */
static inline int pf_take_fd(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

/* Hand a pointer over. */
#define pf_take(p)                           \
	__extension__({                      \
		__auto_type pf_taken_ = (p); \
		(p) = NULL;                  \
		pf_taken_;                   \
	})

#endif
