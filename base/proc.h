/* Processes by descriptor: a pid is only believed together with the start time it had when it was recorded.
 */
#ifndef PF_BASE_PROC_H
#define PF_BASE_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

/* Field 22 of /proc/PID/stat (clock ticks since boot); 0 when there is no such process. */
uint64_t pf_proc_start_time(pid_t pid);

/* A pidfd for pid if it still is the process that started at start_time; -1 with errno ESRCH when it is gone.
 */
int pf_pidfd_open_checked(pid_t pid, uint64_t start_time);

/* Whether the process behind pidfd has ended (zombies count as ended). */
bool pf_pidfd_ended(int pidfd);
/* Wait until it has ended, at most timeout_ms (-1: for ever). Returns 1 ended, 0 timed out, -1 errno. */
int pf_pidfd_wait(int pidfd, int timeout_ms);

/* Whether we are in the machine's first user namespace, where root can do what the kernel lets only that root
 * do: make device nodes, map ids of file systems, come back from other namespaces. */
bool pf_in_first_userns(void);

/* Monotonic clock, microseconds. */
int64_t pf_now_us(void);

/* Run a helper program (argv[0] absolute) with standard input from /dev/null and wait for it. What it writes
 * to standard error (first 4 KiB) becomes the error text when it fails. out, when not NULL, gets its standard
 * output (at most 1 MiB), malloc'ed. */
int pf_run(char *const argv[], char **out, struct pf_err *err);
/* The same, and it gets SIGTERM when the thread that waits for it ends before it. */
int pf_run_tied(char *const argv[], char **out, struct pf_err *err);

#endif
