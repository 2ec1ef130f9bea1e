/* The terminal of a process in a box: made from the box's own devpts, its master sent to whoever serves it.
 */
#ifndef PF_SANDBOX_CONSOLE_H
#define PF_SANDBOX_CONSOLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "sandbox/spec.h"

/* Connect to the stream socket at path, however long that is: what --console-socket names. */
int pf_console_connect(const char *path, struct pf_err *err);

/* In the child: a new terminal of the devpts at /dev/pts below root, of the size that the process asks for;
 * its master is sent to sock (one SCM_RIGHTS message, as runc's). Returns the slave. */
int pf_console_open(int root, int sock, const struct pf_process *process, struct pf_err *err);
/* Bind slave to /dev/console below root. */
int pf_console_bind(int root, int slave, struct pf_err *err);

#endif
