/* What a program that is ended by a signal leaves half made goes away behind it.
 *
 * SIGINT, SIGTERM and SIGHUP end the program at once, as they would without this; what is guarded then is
 * removed by another process, as soon as this one is gone. SIGKILL leaves it, for gc. */
#ifndef PF_BASE_GUARD_H
#define PF_BASE_GUARD_H

/* From now on. remover: the program that is started as `REMOVER remove-behind PID PATH...`, where it calls
 * pf_guard_remove(). Once, before there are threads; a signal that is ignored stays so. Without it the others
 * do nothing. */
void pf_guard_begin(const char *remover);

/* name below dirfd (AT_FDCWD: the current directory) is half made, or is so no more. It goes with all that is
 * in it; no file system below it. More than some dozens at a time are left for gc. Not to be called by two
 * threads at a time. */
void pf_guard_add(int dirfd, const char *name);
void pf_guard_drop(int dirfd, const char *name);

/* The remover's work: wait until the process of that id, our parent, is gone; then remove. */
void pf_guard_remove(int pid, char *const *paths);

#endif
