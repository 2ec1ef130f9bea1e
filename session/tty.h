/* A terminal between the caller's and a command's: opened in the sandbox's own devpts, so that the command
 * can name it. */
#ifndef PF_SESSION_TTY_H
#define PF_SESSION_TTY_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <termios.h>

#include "base/err.h"

struct pf_tty {
	int master, peer;
	bool raw; /* the caller's terminal was put into raw mode; saved holds how it was */
	struct termios saved;
	bool stdin_open;
	char to_cmd[4096]; /* typed and not yet taken by the terminal */
	size_t to_cmd_len;
};
#define PF_TTY_INIT ((struct pf_tty){.master = -1, .peer = -1})

/* Open a pair below /proc/pid/root/dev/pts, owned by host_uid, as large as the caller's terminal. */
int pf_tty_open(struct pf_tty *t, pid_t pid, uint32_t host_uid, struct pf_err *err);
/* The same in the machine's own devpts, the caller's. */
int pf_tty_open_here(struct pf_tty *t, struct pf_err *err);
/* The command has its end: close ours of it, and put the caller's terminal into raw mode. */
void pf_tty_started(struct pf_tty *t);
void pf_tty_resize(struct pf_tty *t);
/* Fill p[0..1] for poll(2); returns 2. Then pf_tty_serve with the results. */
int pf_tty_poll(const struct pf_tty *t, struct pollfd *p);
void pf_tty_serve(struct pf_tty *t, const struct pollfd *p);
/* After the command's end: what is still in the terminal goes to the caller. */
void pf_tty_drain(struct pf_tty *t);
/* Restore the caller's terminal and close. */
void pf_tty_close(struct pf_tty *t);

#endif
