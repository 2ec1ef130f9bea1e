/* Loading a filter: one system call and nothing else, so that it can stand between clone and exec. */
#include <errno.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/seccomp.h"

int pf_seccomp_load(const struct pf_bpf *bpf, unsigned flags)
{
	struct sock_fprog prog = {.len = bpf->len, .filter = bpf->insns};
	long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog);

	/* With TSYNC a positive number is the thread that could not follow; the filter is not in force. */
	if (r > 0 && !(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)) {
		errno = ESRCH;
		return -1;
	}
	return (int)r;
}
